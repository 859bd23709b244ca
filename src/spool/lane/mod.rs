//! The lane: which records go to the producer, which to disk, and who may be acknowledged. Pure: time, the producer and
//! the file come as arguments, so that a seeded sequence of events drives it in tests.
//!
//! States (design section 6):
//! 1. *direct*: records go to the producer in order of acceptance and stay in `open` until their delivery report (8),
//!    which acknowledges them (5). No byte is written to flash.
//! 2. *spooling*: every unreported record, in order, and every later one is committed (4), which acknowledges them (5);
//!    from memory or disk they go to the producer (7) and are settled by their report (9).
//!
//! direct → spooling: the oldest unreported record is older than `grace`, or the producer reports any error.
//! spooling → direct: nothing waits on disk or in memory, nothing is parked, and no record was late for 10 s. Records
//! still in flight may stay so: whatever is sent next goes through the same producer, behind them.
//!
//! Order: the producer keeps the order of what it is given per partition. The lane gives it window before open, each in
//! order of acceptance, and never a record of a parked topic before the older ones of that topic.

mod commit;
mod grace;
mod mode;
mod park;
mod read;
mod send;
mod settling;
mod tally;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::VecDeque;

use super::window::{Attached, Key, Open, RECORD_OVERHEAD, Stage, Window};
use super::{DeadLetter, Loss, RowId, row_base};
use crate::config::{self, Delivery as Guarantee, Order, When, WhenFull};
use crate::forward::marks::Mark;
use crate::intake::{AckTicket, Fate};
use crate::ops::histogram::Histogram;
use crate::record::Body;
pub use commit::Staged;
use grace::DeliveryTimes;
use park::Parks;
use settling::Settling;
use tally::Tally;

/// After a failed read: the file is being looked at, or the device is.
const READ_RETRY_US: u64 = 1_000_000;
/// No record may have been late for this long before a lane goes back to direct.
const CALM_US: u64 = 10_000_000;

/// Where a lane's records go at step 7.
pub trait Sink {
    fn send(&mut self, lane: usize, key: Key, run: u64, body: &Body) -> Sent;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    Queued,
    /// The producer holds all it may: try again after the next report.
    Full,
    /// It never got there.
    Refused(Outcome),
}

/// What a delivery report says (step 8), by the four error classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// By the partition with this number, where it is known.
    Delivered(Option<Mark>),
    /// Not delivered, or unknown; worth sending again.
    Again,
    /// The topic refuses: unknown, no right, no leader.
    TopicBlocked(String),
    /// The record's own fault: it will never be taken.
    Faulty(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    Direct,
    Spooling,
}

/// Counters and gauges of a lane, for metrics, events and `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct LaneStats {
    pub accepted: u64,
    pub delivered: u64,
    pub dead_lettered: u64,
    /// Drops of an at-most-once lane.
    pub dropped: u64,
    pub lost: u64,
    pub to_spooling: u64,
    pub to_direct: u64,
    pub resent: u64,
    /// Delivered, and sent again because the broker had lost them.
    pub sent_again: u64,
    /// Chunks with delivered records that could not be held as long as `spool.settle` asks for: room was needed, or
    /// records of a topic that refuses are in them.
    pub settled_early: u64,
    /// Undelivered and durable.
    pub backlog: Backlog,
    /// Accepted, not durable, in memory.
    pub open: u64,
    pub open_bytes: u64,
    pub in_flight: u64,
    pub parked_topics: Vec<String>,
    pub full: bool,
    /// Hand-over by the source to acceptance (steps 2 to 3).
    pub hand_us: Histogram,
    /// Acceptance to commit (steps 3 to 4).
    pub commit_us: Histogram,
    /// Each commit that held a chunk of this lane, from the request on (step 4).
    pub write_us: Histogram,
    /// Acceptance to delivery of what was never on disk (steps 3 to 8).
    pub direct_us: Histogram,
    /// Arrival to delivery, whichever way (steps 1 to 8). Exact to a millisecond for what was on disk.
    pub whole_us: Histogram,
    /// Each read that found something (step 6).
    pub read_us: Histogram,
    /// Hand-over to delivery report (steps 7 to 8).
    pub delivery_us: Histogram,
    /// The longest wait of a commit's settled chunks for that commit (step 9).
    pub settle_us: Histogram,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Backlog {
    pub chunks: u64,
    pub records: u64,
    pub bytes: u64,
    /// Delivered chunks kept as history.
    pub history_bytes: u64,
    /// Delivered chunks held until the broker must have them on disk.
    pub settling_bytes: u64,
}

pub struct Lane {
    pub index: usize,
    pub number: u32,
    pub config: config::Lane,
    pub stats: LaneStats,
    run: u64,
    next_sequence: u64,
    mode: Mode,
    /// Runs in the order of their chunks in the file; this process's run is `u32::MAX`.
    ordinals: Vec<u64>,
    open: VecDeque<Open>,
    /// First open record not with the producer yet (direct).
    next_send: usize,
    window: Window,
    window_bytes_max: usize,
    /// The newest row in memory: reads go on behind it.
    last_row: RowId,
    next_row: RowId,
    /// The file holds chunks behind `last_row`.
    unread: bool,
    reading: bool,
    in_flight: u64,
    parks: Parks,
    settling: Settling,
    times: DeliveryTimes,
    late_at: Option<u64>,
    /// When a record came that must not go without a commit.
    commit_first_at: Option<u64>,
    direct_since_us: u64,
    read_again_us: u64,
    /// The tally speaks of a file that is gone.
    recount: bool,
    tally: Tally,
    dead: Vec<Burial>,
    dropped: Vec<Dropped>,
    /// A purge of what lies outside the window waits for the next commit, and is part of the running one.
    purging: bool,
    purge_staged: bool,
    pending: Staged,
    staged: Staged,
    rate: DrainRate,
}

/// A record at step 3.
#[derive(Debug)]
pub struct Incoming {
    pub body: Body,
    pub fate: Fate,
    pub ack: Option<AckTicket>,
    pub attached: Option<Box<Attached>>,
}

/// A dead letter on its way into the table.
#[derive(Debug)]
struct Burial {
    letter: DeadLetter,
    ack: Option<AckTicket>,
    attached: Option<Box<Attached>>,
    /// The record lies in a chunk that must not go before the letter is durable.
    stored: bool,
}

/// Records that the lane gave up, and who waits for their ledger entry.
#[derive(Debug)]
struct Dropped {
    loss: Loss,
    acks: Vec<AckTicket>,
    attached: Vec<Attached>,
}

/// Bytes/s while draining, as a bucket of one second.
#[derive(Debug)]
struct DrainRate {
    per_second: Option<u64>,
    left: f64,
    at_us: u64,
}

impl DrainRate {
    fn allows(&mut self, now_us: u64) -> bool {
        let Some(rate) = self.per_second else { return true };
        let rate = rate as f64;
        self.left = (self.left + rate * (now_us - self.at_us) as f64 / 1e6).min(rate);
        self.at_us = now_us;
        // A record may overdraw the bucket, else one larger than a second's rate would never go.
        self.left > 0.0
    }

    fn took(&mut self, bytes: usize) {
        if self.per_second.is_some() {
            self.left -= bytes as f64;
        }
    }
}

/// What a lane begins with.
pub struct Start {
    pub index: usize,
    pub number: u32,
    pub run: u64,
    /// The last row in the file, `row_base(number)` when there is none.
    pub last_row: RowId,
    pub window_bytes_max: usize,
}

const THIS_RUN: u32 = u32::MAX;

impl Lane {
    pub fn new(config: config::Lane, start: &Start) -> Self {
        let unread = start.last_row > row_base(start.number);
        let direct = config.when == When::Offline && (!unread || config.order == Order::LiveFirst);
        let rate = DrainRate { per_second: config.drain_rate, left: 0.0, at_us: 0 };
        Lane {
            index: start.index,
            number: start.number,
            stats: LaneStats::default(),
            run: start.run,
            next_sequence: 1,
            mode: if direct { Mode::Direct } else { Mode::Spooling },
            ordinals: Vec::new(),
            open: VecDeque::new(),
            next_send: 0,
            window: Window::default(),
            window_bytes_max: start.window_bytes_max,
            last_row: row_base(start.number),
            next_row: start.last_row + 1,
            unread,
            reading: false,
            in_flight: 0,
            parks: Parks::default(),
            settling: Settling::new(config.settle),
            times: DeliveryTimes::new(config.grace),
            late_at: None,
            commit_first_at: None,
            direct_since_us: 0,
            read_again_us: 0,
            recount: false,
            tally: Tally::default(),
            dead: Vec::new(),
            dropped: Vec::new(),
            purging: false,
            purge_staged: false,
            pending: Staged::default(),
            staged: Staged::default(),
            rate,
            config,
        }
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Step 3: takes a record in. Its ack fires when it is durable.
    pub fn accept(&mut self, body: Body, fate: Fate, ack: Option<AckTicket>, now_us: u64, wall_ms: i64) {
        self.accept_attached(Incoming { body, fate, ack, attached: None }, now_us, wall_ms);
    }

    /// The same for a record with something `attached`: it is committed before it is sent. An at-most-once lane commits
    /// nothing, so there it must be kept apart.
    pub fn accept_attached(&mut self, record: Incoming, now_us: u64, wall_ms: i64) {
        let Incoming { body, fate, ack, attached } = record;
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.stats.accepted += 1;
        if let Fate::DeadLetter(cause) = fate {
            let letter = self.letter(self.run, sequence, body, cause, wall_ms);
            self.dead.push(Burial { letter, ack, attached, stored: false });
            return;
        }
        if self.config.delivery == Guarantee::AtMostOnce {
            debug_assert!(attached.is_none(), "an at-most-once lane commits nothing");
            self.accept_at_most_once(sequence, body, ack, now_us);
            return;
        }
        if attached.is_some() {
            self.commit_first(now_us);
        }
        self.open(sequence, body, ack, attached, now_us);
    }

    /// Never spooled, never blocks: what does not fit is dropped and counted.
    fn accept_at_most_once(&mut self, sequence: u64, body: Body, ack: Option<AckTicket>, now_us: u64) {
        if let Some(ack) = ack {
            ack.fire();
        }
        if self.stats.open_bytes as usize + body.len() > self.window_bytes_max {
            self.stats.dropped += 1;
            return;
        }
        self.open(sequence, body, None, None, now_us);
    }

    fn open(
        &mut self,
        sequence: u64,
        body: Body,
        ack: Option<AckTicket>,
        attached: Option<Box<Attached>>,
        accepted_us: u64,
    ) {
        self.stats.open_bytes += (body.len() + RECORD_OVERHEAD) as u64;
        self.open.push_back(Open { sequence, body, stage: Stage::Waiting, ack, attached, accepted_us, sent_us: 0 });
    }

    /// Fills in the gauges.
    pub fn snapshot(&mut self) -> LaneStats {
        self.stats.open = self.open.len() as u64;
        self.stats.in_flight = self.in_flight;
        self.stats.parked_topics = self.parks.topics();
        self.stats.clone()
    }

    /// Nothing accepted is undelivered.
    pub fn is_drained(&self) -> bool {
        self.open.is_empty()
            && self.window.is_empty()
            && !self.unread
            && self.dead.is_empty()
            && self.dropped.is_empty()
    }

    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Arrival (wall clock, ms) of the oldest undelivered record: in memory, or left in the file behind a parked topic.
    pub fn oldest_arrival_ms(&self) -> Option<i64> {
        [self.oldest_held_ms(), self.parks.oldest_left_ms()].into_iter().flatten().min()
    }

    fn oldest_held_ms(&self) -> Option<i64> {
        let held = self.window.chunks().flat_map(|c| &c.records).find(|r| r.stage != Stage::Settled).map(|r| &r.body);
        let oldest = held.or_else(|| self.open.front().map(|o| &o.body))?;
        oldest.arrived_ms().ok()
    }

    /// The sequence of the record accepted last.
    pub fn last_sequence(&self) -> u64 {
        self.next_sequence - 1
    }

    /// Whether a record of this run is still in memory alone, and not even in the running commit.
    pub fn in_memory_alone(&self, sequence: u64) -> bool {
        self.open.binary_search_by_key(&sequence, |o| o.sequence).is_ok_and(|i| i >= self.staged.open)
    }

    /// Commits what comes next, whatever Kafka does: for what must not be in memory alone.
    pub fn spool_now(&mut self, now_us: u64) {
        self.trouble(now_us);
    }

    pub(super) fn when_full(&self) -> WhenFull {
        self.config.when_full
    }
}
