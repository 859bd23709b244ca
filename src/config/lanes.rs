//! `[[lane]]`: the lanes, their effective mode and why. Pure.
//!
//! Two lanes always exist: `default` for what names no lane, and `events` for the gateway's own records, which goes
//! before all others.

use std::time::Duration;

use super::clusters::Clusters;
use super::fields::Opt;
use super::file::LaneTable;
use super::model::{Budget, Delivery, Grace, Lane, Order, Spool, When, WhenFull};
use super::problem::{nearest, one_of};
use super::reader::At;
use super::resolve::{DAY, Resolver};
use super::sources::Sources;
use super::units::{self, show_duration, show_size};

pub const DEFAULT: &str = "default";
pub const EVENTS: &str = "events";

/// Below four windows a lane would evict what the producer is about to take.
const WINDOWS_MIN: u64 = 4;
/// Share of the spool that is kept for the events lane.
const EVENTS_SHARE: u64 = 20;

/// The most that can be handed over and not yet confirmed, for one lane.
pub struct InFlight {
    bytes: u64,
    records: u64,
}

impl InFlight {
    pub fn of(memory: &Budget, clusters: usize, sources: &Sources<'_>) -> Self {
        let records = u64::from(sources.receive_maximum());
        InFlight { bytes: memory.producer / clusters.max(1) as u64, records }
    }
}

pub struct Lanes {
    /// Highest priority first.
    pub list: Vec<Lane>,
    pub events: usize,
}

impl Lanes {
    /// The lane that a table names, or `default`.
    pub fn of(&self, key: &Opt<String>, r: &mut Resolver<'_>) -> usize {
        let name = key.value().map_or(DEFAULT, String::as_str);
        if let Some(index) = self.list.iter().position(|lane| lane.name == name) {
            return index;
        }
        if let Some(place) = key.place() {
            let known = self.list.iter().map(|lane| lane.name.as_str()).filter(|lane| *lane != EVENTS);
            let help = match nearest(name, known.clone()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("the lanes are {}; add [[lane]] name = {name:?} for a new one", one_of(known)),
            };
            r.found.error(place, format!("there is no lane {name:?}")).help(help);
        }
        self.list.iter().position(|lane| lane.name == DEFAULT).unwrap_or(0)
    }
}

pub fn resolve(
    tables: &[At<LaneTable>],
    clusters: &Clusters,
    spool: &Spool,
    window: &InFlight,
    r: &mut Resolver<'_>,
) -> Lanes {
    check_names(tables, r);
    let default_cluster = default_cluster(tables, clusters, r);
    let mut list: Vec<Lane> = Vec::new();
    for At { value: table, place } in tables {
        let maker = Maker { table, spool, window };
        let kafka = match &table.kafka {
            Opt::Absent if table.name.value().is_some_and(|name| name == EVENTS) => default_cluster,
            key => clusters.of(key, *place, r),
        };
        list.push(maker.lane(kafka, r));
    }
    for name in [DEFAULT, EVENTS] {
        if !list.iter().any(|lane| lane.name == name) {
            list.push(implied(name, default_cluster, spool, window));
        }
    }
    check_events_first(&list, tables, r);
    list.sort_by_key(|lane| std::cmp::Reverse(lane.priority));
    let events = list.iter().position(|lane| lane.name == EVENTS).unwrap_or(0);
    Lanes { list, events }
}

/// The cluster of the lanes that are not written down.
fn default_cluster(tables: &[At<LaneTable>], clusters: &Clusters, r: &mut Resolver<'_>) -> usize {
    let written = tables.iter().find(|at| at.value.name.value().is_some_and(|name| name == DEFAULT));
    match written {
        // An unknown or missing name is reported where the lane itself is made.
        Some(at) => {
            let name = at.value.kafka.value();
            clusters.list.iter().position(|cluster| Some(&cluster.name) == name).unwrap_or(0)
        }
        None if clusters.list.len() > 1 => {
            let help = "write it down: [[lane]] name = \"default\" and kafka = \"...\"";
            r.found.error(clusters.place(1), "the lane `default` needs a cluster: there are several").help(help);
            0
        }
        None => 0,
    }
}

fn check_names(tables: &[At<LaneTable>], r: &mut Resolver<'_>) {
    for (index, at) in tables.iter().enumerate() {
        let Some(name) = r.required(&at.value.name, "name", at.place, "every lane has a name") else { continue };
        let legal = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        if name.value.is_empty() || name.value.len() > 64 || !name.value.chars().all(legal) {
            let message = format!("a lane cannot be called {:?}", name.value);
            r.found.error(name.place, message).help("use 1 to 64 letters, digits, `_` or `-`");
        }
        let earlier = tables[..index].iter().filter_map(|at| at.value.name.get());
        if let Some(first) = earlier.into_iter().find(|first| first.value == name.value) {
            let finding = r.found.error(name.place, format!("the lane {:?} is defined twice", name.value));
            finding.note("it is already defined at", first.place).help("give it another name");
        }
    }
}

/// Events tell of losses in the other lanes, so nothing may go before them.
fn check_events_first(list: &[Lane], tables: &[At<LaneTable>], r: &mut Resolver<'_>) {
    let Some(events) = list.iter().find(|lane| lane.name == EVENTS) else { return };
    for at in tables {
        let is_events = at.value.name.value().is_some_and(|name| name == EVENTS);
        if let Some(priority) = at.value.priority.get().filter(|_| !is_events)
            && priority.value >= i64::from(events.priority)
        {
            let message = "no lane may go before `events` or beside it";
            r.found.error(priority.place, message).help(format!("choose a priority below {}", events.priority));
        }
    }
}

fn implied(name: &str, kafka: usize, spool: &Spool, window: &InFlight) -> Lane {
    let events = name == EVENTS;
    Lane {
        name: name.to_owned(),
        priority: if events { i32::MAX } else { 0 },
        order: Order::InOrder,
        when: if events || spool.settle.is_some() { When::Always } else { When::Offline },
        when_reason: if events {
            EVENTS_REASON.to_owned()
        } else {
            settle_reason(spool).unwrap_or_else(|| "default".into())
        },
        when_full: if events { WhenFull::DropOldest } else { WhenFull::Refuse },
        delivery: Delivery::AtLeastOnce,
        grace: Grace::Auto,
        max_bytes: if events { events_bytes(spool, window) } else { spool.max_bytes },
        max_records: None,
        max_age: None,
        drain_rate: None,
        keep: None,
        settle: spool.settle,
        kafka,
    }
}

fn settle_reason(spool: &Spool) -> Option<String> {
    spool.settle.map(|settle| format!("implied by spool.settle = \"{}\"", show_duration(settle)))
}

const EVENTS_REASON: &str = "the gateway's own records";

fn events_bytes(spool: &Spool, window: &InFlight) -> u64 {
    (spool.max_bytes / EVENTS_SHARE).max(WINDOWS_MIN * window.bytes).min(spool.max_bytes)
}

/// One written lane on its way to a resolved one.
struct Maker<'t> {
    table: &'t LaneTable,
    spool: &'t Spool,
    window: &'t InFlight,
}

impl Maker<'_> {
    fn lane(&self, kafka: usize, r: &mut Resolver<'_>) -> Lane {
        let table = self.table;
        let name = table.name.or(String::new());
        let fallback = implied(&name, kafka, self.spool, self.window);
        let (when, when_reason) = self.mode(&name, r);
        let lane = Lane {
            priority: self.priority(&fallback, r),
            order: table.order.or(Order::InOrder),
            when,
            when_reason,
            when_full: table.when_full.or(fallback.when_full),
            delivery: self.delivery(&name, r),
            grace: self.grace(r),
            max_bytes: self.max_bytes(&fallback, r),
            max_records: self.max_records(r),
            max_age: table.max_age.value().copied(),
            drain_rate: self.drain_rate(r),
            keep: table.keep.value().copied().filter(|keep| !keep.is_zero()),
            settle: fallback.settle.filter(|_| !self.is_at_most_once()),
            ..fallback
        };
        self.check_when_full(&lane, r);
        self.warn(&lane, r);
        lane
    }

    fn priority(&self, fallback: &Lane, r: &mut Resolver<'_>) -> i32 {
        let bounds = -1_000_000..=1_000_000;
        let priority = r.number(&self.table.priority, "priority", bounds, i64::from(fallback.priority));
        i32::try_from(priority).unwrap_or(fallback.priority)
    }

    fn mode(&self, name: &str, r: &mut Resolver<'_>) -> (When, String) {
        let asked = self.table.when.get();
        let implied = if name == EVENTS {
            Some(EVENTS_REASON.to_owned())
        } else {
            let keep = self.table.keep.value().filter(|keep| !keep.is_zero());
            let keep = keep.map(|keep| format!("implied by keep = \"{}\"", show_duration(*keep)));
            keep.or_else(|| settle_reason(self.spool).filter(|_| !self.is_at_most_once()))
        };
        match (asked, implied) {
            (Some(at), Some(reason)) if at.value == When::Offline => {
                let message = format!("`when = \"offline\"` has no effect: \"always\" is {reason}");
                r.found.warning(at.place, message).help("remove it");
                (When::Always, reason)
            }
            (Some(at), None) => (at.value, "configured".to_owned()),
            (_, Some(reason)) => (When::Always, reason),
            (None, None) => (When::Offline, "default".to_owned()),
        }
    }

    /// What the events lane would drop first is the news of what others have just dropped.
    fn check_when_full(&self, lane: &Lane, r: &mut Resolver<'_>) {
        if let Some(at) = self.table.when_full.get().filter(|at| at.value == WhenFull::DropNewest)
            && lane.name == EVENTS
        {
            let message = "the events lane cannot be \"drop-newest\"";
            r.found.error(at.place, message).help("its records account for losses: remove `when_full`");
        }
    }

    fn is_at_most_once(&self) -> bool {
        self.table.delivery.value() == Some(&Delivery::AtMostOnce)
    }

    fn delivery(&self, name: &str, r: &mut Resolver<'_>) -> Delivery {
        let Some(at) = self.table.delivery.get() else { return Delivery::AtLeastOnce };
        if at.value == Delivery::AtMostOnce {
            let always = self.table.when.get().filter(|when| when.value == When::Always).map(|when| when.place);
            let clash = always.map(|place| ("when = \"always\"", place));
            let clash = clash.or(self.table.keep.place().map(|place| ("keep", place)));
            if let Some((what, place)) = clash {
                let finding = r.found.error(at.place, format!("\"at-most-once\" and `{what}` contradict each other"));
                finding.note("the other is at", place).help("such a lane is never spooled: remove one of them");
            }
            if name == EVENTS {
                let message = "the events lane cannot be \"at-most-once\"";
                r.found.error(at.place, message).help("its records account for losses: remove `delivery`");
            }
        }
        at.value
    }

    fn grace(&self, r: &mut Resolver<'_>) -> Grace {
        let Some(at) = self.table.grace.get().filter(|at| at.value != "auto") else { return Grace::Auto };
        let (low, high) = (Duration::from_millis(10), Duration::from_secs(60));
        match units::duration(&at.value) {
            Ok(grace) if (low..=high).contains(&grace) => return Grace::Fixed(grace),
            Ok(_) => {
                r.found.error(at.place, "`grace` is out of bounds").help("choose \"auto\", or \"10ms\" to \"60s\"")
            }
            Err(error) => {
                let help = format!("write \"auto\", or {}", units::DURATION_HELP.trim_start_matches("write "));
                r.found.error(at.place, format!("`grace` {error}")).help(help)
            }
        };
        Grace::Auto
    }

    fn max_bytes(&self, fallback: &Lane, r: &mut Resolver<'_>) -> u64 {
        let least = WINDOWS_MIN * self.window.bytes;
        let Some(at) = self.table.max_bytes.get() else { return fallback.max_bytes };
        if at.value.0 < least {
            let message = format!("`max_bytes` is smaller than four times what can be in flight: {}", show_size(least));
            let help = format!("choose at least {}, or lower [memory] producer", show_size(least));
            r.found.error(at.place, message).help(help);
        } else if at.value.0 > self.spool.max_bytes {
            let message =
                format!("`max_bytes` is never reached: the spool ends at {}", show_size(self.spool.max_bytes));
            r.found.warning(at.place, message).help("raise [spool] max_bytes, or lower this limit");
        }
        at.value.0
    }

    fn max_records(&self, r: &mut Resolver<'_>) -> Option<u64> {
        let at = self.table.max_records.get()?;
        let least = (WINDOWS_MIN * self.window.records).max(1);
        let records = u64::try_from(at.value).unwrap_or(0);
        if records < least {
            let message = format!("`max_records` is smaller than four times what can be in flight: {least}");
            let help = format!("choose at least {least}, or lower `receive_maximum` of the sources");
            r.found.error(at.place, message).help(help);
        }
        Some(records)
    }

    fn drain_rate(&self, r: &mut Resolver<'_>) -> Option<u64> {
        let at = self.table.drain_rate.get()?;
        if at.value.0 == 0 {
            let message = "`drain_rate` of nothing would keep the backlog for ever";
            r.found.error(at.place, message).help("remove it for no limit");
        }
        Some(at.value.0)
    }

    fn warn(&self, lane: &Lane, r: &mut Resolver<'_>) {
        if let Some(at) = self.table.order.get().filter(|at| at.value == Order::LiveFirst) {
            let message = "\"live-first\": the order of acceptance is not kept on this lane";
            r.found.warning(at.place, message).help("consumers must sort by timestamp; \"in-order\" keeps the order");
        }
        if let Some(at) = self.table.max_age.get().filter(|at| at.value < Duration::from_secs(60)) {
            let message = "`max_age` is so short that a restart of Kafka evicts records";
            r.found.warning(at.place, message).help("each eviction is counted and written to the loss ledger");
        }
        if let (Some(keep), Some(age)) = (lane.keep.filter(|keep| *keep > 365 * DAY), self.table.keep.place()) {
            let message = format!("`keep` holds delivered records for {}", show_duration(keep));
            r.found.warning(age, message).help("history is evicted first when the spool is full");
        }
    }
}
