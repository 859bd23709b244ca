//! `[source]`: the brokers to read from, and what all kinds of sources have in common. Pure.

use std::net::Ipv6Addr;
use std::ops::Range;
use std::time::Duration;

use super::clusters::tls;
use super::fields::Opt;
use super::file::{MqttTable, SourceTable, SubscriptionTable};
use super::listener::{self, file::ListenerTable};
use super::listener_model::Listener;
use super::model::{Budget, Gateway, MqttSource, MqttVersion, Spool, Subscription};
use super::problem::{Place, nearest, one_of};
use super::reader::At;
use super::resolve::{DAY, KIB, MIB, Resolver};
use super::routes::{self, Routes};
use crate::route::filter::Filter;

/// What a source is called when there is only one and it has no name.
const NAME: &str = "mqtt";
const RECEIVE_MAXIMUM: i64 = 4_096;
const PACKET_SIZE: u64 = MIB;
/// The largest packet MQTT can frame (MQTT-1.5.5: a remaining length of four bytes).
const PACKET_SIZE_MAX: u64 = 268_435_455;
/// Readings a second below which a source with few devices already waits for commits.
const SLOW_RATE: f64 = 100.0;

pub struct Sources<'t> {
    pub list: Vec<MqttSource>,
    pub tables: &'t [At<MqttTable>],
    pub listeners: Vec<Listener>,
    pub listener_tables: &'t [At<ListenerTable>],
    /// The names of the lines: sources that are neither brokers nor listeners.
    pub others: Vec<String>,
}

/// What one source takes of the memory, whatever its kind.
pub struct Share {
    pub unacked_bytes_max: u64,
    pub packet_size_max: u32,
    pub unacked_place: Option<Place>,
    pub packet_place: Option<Place>,
    pub place: Place,
}

pub fn resolve<'t>(
    file: &'t SourceTable,
    gateway: &Gateway,
    memory: &Budget,
    spool: &Spool,
    others: Vec<String>,
    r: &mut Resolver<'_>,
) -> Sources<'t> {
    let (tables, listener_tables) = (&file.mqtt.0[..], &file.listener.0[..]);
    if tables.is_empty() && listener_tables.is_empty() && others.is_empty() {
        let help = "add [[source.mqtt]] with host = \"...\", or [[source.serial]] with port = \"...\"";
        r.found.error(None, "no source is configured: there is nothing to collect").help(help);
    }
    let mut names: Vec<String> =
        tables.iter().map(|at| name(&at.value.name, at.place, (tables.len(), NAME), r)).collect();
    names.extend(
        listener_tables.iter().map(|at| name(&at.value.name, at.place, (listener_tables.len(), listener::NAME), r)),
    );
    check_twin_names(file, &names, r);
    check_twin_ids(tables, r);
    let intake_share = share(file, memory);
    let fan_out_share = listener::fan_out_share(listener_tables, memory);
    let maker = listener::Maker { gateway, memory, spool, intake_share, fan_out_share };
    let mut names = names.into_iter();
    let made = tables.iter().zip(names.by_ref()).map(|(at, name)| {
        let source = source(at, name, gateway, intake_share, r);
        warn_of_slow(source.receive_maximum, at.value.receive_maximum.place().unwrap_or(at.place), spool, r);
        source
    });
    let list = made.collect();
    let listeners: Vec<Listener> =
        listener_tables.iter().zip(names).map(|(at, name)| maker.listener(at, name, r)).collect();
    listener::check_addresses(listener_tables, &listeners, r);
    Sources { list, tables, listeners, listener_tables, others }
}

fn name(key: &Opt<String>, place: Place, (count, default): (usize, &str), r: &mut Resolver<'_>) -> String {
    if count == 1 && matches!(key, Opt::Absent) {
        return default.to_owned();
    }
    let help = "several sources are told apart by their names, which become part of the client ids";
    let Some(name) = r.required(key, "name", place, help) else { return String::new() };
    let legal = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    if name.value.is_empty() || name.value.len() > 64 || !name.value.chars().all(legal) {
        let message = format!("a source cannot be called {:?}", name.value);
        r.found.error(name.place, message).help("use 1 to 64 letters, digits, `_` or `-`");
    }
    name.value.clone()
}

/// Routes, metrics and events name a source whatever its kind.
fn check_twin_names(file: &SourceTable, names: &[String], r: &mut Resolver<'_>) {
    let mqtt = file.mqtt.0.iter().map(|at| (at.value.name.place(), at.place));
    let listeners = file.listener.0.iter().map(|at| (at.value.name.place(), at.place));
    let places: Vec<(Option<Place>, Place)> = mqtt.chain(listeners).collect();
    for (index, (key, _)) in places.iter().enumerate() {
        let Some(twin) = names[..index].iter().position(|name| *name == names[index]) else { continue };
        let (place, first) = match (*key, places[twin]) {
            (Some(place), (first, table)) => (place, first.unwrap_or(table)),
            // The later one has the name that is its default.
            (None, (Some(first), _)) => (first, places[index].1),
            (None, (None, _)) => continue,
        };
        let finding = r.found.error(place, format!("the source {:?} is defined twice", names[index]));
        finding.note("it is already defined at", first).help("give it another name");
    }
}

/// Two sessions of one client id at one broker would throw each other out for ever.
fn check_twin_ids(tables: &[At<MqttTable>], r: &mut Resolver<'_>) {
    for (index, at) in tables.iter().enumerate() {
        let earlier = || tables[..index].iter();
        let Some(id) = at.value.client_id.get() else { continue };
        let same = |other: &&At<MqttTable>| {
            other.value.client_id.value() == Some(&id.value) && other.value.host.value() == at.value.host.value()
        };
        if let Some(first) = earlier().find(same).and_then(|twin| twin.value.client_id.place()) {
            let message = format!("two sources use the client id {:?} at one broker", id.value);
            let finding = r.found.error(id.place, message);
            finding.note("the other is at", first).help("each would throw the other out: give each its own");
        }
    }
}

/// What each source without `unacked_bytes_max` gets of the intake memory.
fn share(file: &SourceTable, memory: &Budget) -> u64 {
    let mqtt = file.mqtt.0.iter().map(|at| at.value.unacked_bytes_max.value());
    let all: Vec<Option<u64>> = mqtt
        .chain(file.listener.0.iter().map(|at| at.value.unacked_bytes_max.value()))
        .map(|size| size.map(|size| size.0))
        .collect();
    let others = all.iter().filter(|size| size.is_none()).count() as u64;
    memory.intake.saturating_sub(all.iter().flatten().copied().fold(0, u64::saturating_add)) / others.max(1)
}

fn source(at: &At<MqttTable>, name: String, gateway: &Gateway, share: u64, r: &mut Resolver<'_>) -> MqttSource {
    let table = &at.value;
    let tls = tls(&table.tls, r);
    let seconds = |n: u64| Duration::from_secs(n);
    let backoff_min = Duration::from_millis(10)..=seconds(3_600);
    let packet_size = r.size(&table.packet_size_max, "packet_size_max", KIB..=PACKET_SIZE_MAX, PACKET_SIZE);
    let session_expiry_max = Duration::from_secs(u64::from(u32::MAX));
    let source = MqttSource {
        host: host(&table.host, at, r),
        port: port(&table.port, if tls.is_some() { 8883 } else { 1883 }, r),
        version: table.version.or(MqttVersion::V5),
        client_id: client_id(&table.client_id, gateway, &name, r),
        user: table.user.value().cloned(),
        password: r.secret(&table.password, &table.password_file, "password"),
        subscriptions: table.subscriptions.0.iter().filter_map(|at| subscription(at, r)).collect(),
        keep_alive: r.duration(&table.keep_alive, "keep_alive", seconds(1)..=seconds(65_535), seconds(30)),
        connect_timeout: r.duration(
            &table.connect_timeout,
            "connect_timeout",
            Duration::from_millis(100)..=seconds(300),
            seconds(10),
        ),
        session_expiry: r.duration(&table.session_expiry, "session_expiry", seconds(1)..=session_expiry_max, 7 * DAY),
        receive_maximum: number(&table.receive_maximum, "receive_maximum", RECEIVE_MAXIMUM, r),
        unacked_bytes_max: table.unacked_bytes_max.value().map_or(share, |size| size.0),
        packet_size_max: u32::try_from(packet_size).unwrap_or(u32::MAX),
        rate_limit: rate_limit(&table.rate_limit, r),
        backoff_min: r.duration(&table.backoff_min, "backoff_min", backoff_min.clone(), seconds(1)),
        backoff_max: r.duration(&table.backoff_max, "backoff_max", backoff_min, seconds(60)),
        session_per_lane: table.session_per_lane.or(false),
        tls,
        name,
    };
    check_together(&source, at, r);
    source
}

/// `pauses`: the first and the longest, as resolved from the two keys.
pub fn check_pauses(pauses: Range<Duration>, min: &Opt<Duration>, max: &Opt<Duration>, r: &mut Resolver<'_>) {
    if pauses.end < pauses.start {
        let place = max.place().or(min.place());
        r.found.error(place, "`backoff_max` is shorter than `backoff_min`").help("exchange them");
    }
}

fn check_together(source: &MqttSource, at: &At<MqttTable>, r: &mut Resolver<'_>) {
    let table = &at.value;
    check_pauses(source.backoff_min..source.backoff_max, &table.backoff_min, &table.backoff_max, r);
    let password = table.password.place().or(table.password_file.place());
    if let Some(place) = password.filter(|_| table.user.place().is_none()) {
        r.found.error(place, "a password without `user`").help("add `user`");
    }
    if let Some(place) = password.filter(|_| source.tls.is_none() && !is_loopback(&source.host)) {
        let help = "add a [source.mqtt.tls] table; an empty one checks against the system's roots";
        r.found.warning(place, "the password crosses the network unencrypted").help(help);
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn host(key: &Opt<String>, at: &At<MqttTable>, r: &mut Resolver<'_>) -> String {
    let help = "name the broker: host = \"localhost\"";
    let Some(host) = r.required(key, "host", at.place, help) else { return String::new() };
    let text = host.value.as_str();
    // A zone such as `fe80::1%eth0` belongs to the address.
    let is_v6 = text.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    let help = match text {
        "" => "name the broker: host = \"localhost\"",
        _ if is_v6 => return host.value.clone(),
        _ if text.contains("://") => "leave the scheme away: TLS is switched on by a [source.mqtt.tls] table",
        _ if text.starts_with('[') => "write an IPv6 address without brackets",
        _ if text.contains(':') => "the port has a key of its own: `port`",
        _ if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') => {
            "a host is a name or an address"
        }
        _ => return host.value.clone(),
    };
    r.found.error(host.place, format!("`host` is not a host: {text:?}")).help(help);
    String::new()
}

fn port(key: &Opt<i64>, default: u16, r: &mut Resolver<'_>) -> u16 {
    u16::try_from(r.number(key, "port", 1..=65_535, i64::from(default))).unwrap_or(default)
}

fn number(key: &Opt<i64>, name: &str, default: i64, r: &mut Resolver<'_>) -> u16 {
    u16::try_from(r.number(key, name, 1..=65_535, default)).unwrap_or(u16::MAX)
}

fn rate_limit(key: &Opt<i64>, r: &mut Resolver<'_>) -> Option<u32> {
    key.get()?;
    u32::try_from(r.number(key, "rate_limit", 1..=i64::from(u32::MAX), 1)).ok()
}

/// A stable id: the broker keeps a session for it, and a new id would leave the old session's readings behind.
fn client_id(key: &Opt<String>, gateway: &Gateway, name: &str, r: &mut Resolver<'_>) -> String {
    let id = key.or(format!("{}-{name}", gateway.name));
    // MQTT-3.1.3-5 asks for UTF-8 of at most 65,535 bytes; the suffix of a lane needs room.
    if let Some(place) = key.place().filter(|_| id.is_empty() || id.len() > 1_024 || id.contains(char::is_control)) {
        r.found.error(place, "`client_id` is empty, too long or not printable").help("use 1 to 1,024 characters");
    }
    id
}

fn subscription(at: &At<SubscriptionTable>, r: &mut Resolver<'_>) -> Option<Subscription> {
    let table = &at.value;
    let filter = r.required(&table.filter, "filter", at.place, "for instance filter = \"plant/#\"");
    if let Some(filter) = filter {
        check_filter(filter, r);
    }
    let qos = match table.qos.get() {
        Some(qos) if qos.value == 2 => {
            let message = "QoS 2 is taken at QoS 1: the broker may deliver a reading twice";
            r.found.warning(qos.place, message).help("write qos = 1, which says what happens");
            1
        }
        _ => r.number(&table.qos, "qos", 0..=1, 1),
    };
    Some(Subscription { filter: filter?.value.clone(), qos: u8::try_from(qos).unwrap_or(1) })
}

fn check_filter(filter: &At<String>, r: &mut Resolver<'_>) {
    let text = filter.value.as_str();
    let start = match text.strip_prefix("$share/").and_then(|rest| rest.split_once('/')) {
        Some((group, rest)) if !group.is_empty() && !group.contains(['+', '#']) => {
            let message = "`$share` over several gateways: the order of one key's readings is not kept";
            r.found.warning(filter.place, message).help("share only what consumers sort by timestamp");
            text.len() - rest.len()
        }
        Some(_) => {
            let help = "write \"$share/GROUP/FILTER\" with a group without `+` and `#`";
            r.found.error(filter.place, format!("invalid group in {text:?}")).help(help);
            return;
        }
        None => 0,
    };
    match Filter::parse(&text[start..]) {
        Err(error) => routes::report(filter, start, "topic filter", error, r),
        Ok(parsed) if !parsed.captures().is_empty() => {
            let message = format!("a subscription has no captures: {text:?}");
            r.found.error(filter.place, message).help(format!("write {:?}", parsed.mqtt_filter()));
        }
        Ok(_) => {}
    }
}

/// Warns where one device or broker cannot be fast because it waits for commits.
pub fn warn_of_slow(receive_maximum: u16, place: Place, spool: &Spool, r: &mut Resolver<'_>) {
    let rate = f64::from(receive_maximum) / spool.ack_delay.as_secs_f64();
    if rate < SLOW_RATE {
        let message = format!("at most {rate:.0} readings a second: `receive_maximum` / `ack_delay` is under 100/s");
        r.found.warning(place, message).help("raise `receive_maximum`, or lower [spool] ack_delay");
    }
}

impl Sources<'_> {
    /// All sources' parts of the memory, in the order of the file within each kind.
    pub fn shares(&self) -> impl Iterator<Item = Share> {
        let mqtt = self.list.iter().zip(self.tables).map(|(source, at)| Share {
            unacked_bytes_max: source.unacked_bytes_max,
            packet_size_max: source.packet_size_max,
            unacked_place: at.value.unacked_bytes_max.place(),
            packet_place: at.value.packet_size_max.place(),
            place: at.place,
        });
        let listeners = self.listeners.iter().zip(self.listener_tables).map(|(listener, at)| Share {
            unacked_bytes_max: listener.unacked_bytes_max,
            packet_size_max: listener.limits.packet_size_max,
            unacked_place: at.value.unacked_bytes_max.place(),
            packet_place: at.value.limits.0.as_ref().and_then(|limits| limits.value.packet_size_max.place()),
            place: at.place,
        });
        mqtt.chain(listeners)
    }

    /// The largest window of any client.
    pub fn receive_maximum(&self) -> u16 {
        let listeners = self.listeners.iter().map(|listener| listener.limits.receive_maximum);
        self.list.iter().map(|source| source.receive_maximum).chain(listeners).max().unwrap_or(0)
    }

    /// Where the broker or listener of this name is defined.
    pub fn place_of(&self, name: &str) -> Option<Place> {
        let mqtt = self.list.iter().zip(self.tables).map(|(source, at)| (&source.name, at.place));
        let listeners =
            self.listeners.iter().zip(self.listener_tables).map(|(listener, at)| (&listener.name, at.place));
        mqtt.chain(listeners).find(|(known, _)| !known.is_empty() && *known == name).map(|(_, place)| place)
    }

    /// The names that a route's `source` may use.
    pub fn check_name(&self, name: &At<String>, r: &mut Resolver<'_>) {
        let listeners = self.listeners.iter().map(|listener| listener.name.as_str());
        let others = self.others.iter().map(String::as_str);
        let known = self.list.iter().map(|source| source.name.as_str()).chain(listeners).chain(others);
        if known.clone().any(|source| source == name.value) {
            return;
        }
        let help = match nearest(&name.value, known.clone()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("there is {}", one_of(known)),
        };
        r.found.error(name.place, format!("there is no source {:?}", name.value)).help(help);
    }

    /// A source without `subscriptions` asks for exactly what its routes take.
    pub fn subscribe_to(&mut self, routes: &Routes, r: &mut Resolver<'_>) {
        for (source, at) in self.list.iter_mut().zip(self.tables) {
            if !at.value.subscriptions.0.is_empty() {
                continue;
            }
            for filter in routes.mqtt_filters_of(&source.name) {
                if !source.subscriptions.iter().any(|known| known.filter == filter) {
                    source.subscriptions.push(Subscription { filter, qos: 1 });
                }
            }
            if source.subscriptions.is_empty() && !r.found.has_errors() {
                let message = format!("the source {:?} has no subscription and no route", source.name);
                r.found.error(at.place, message).help("add `subscriptions`, or a [[route]] that takes its readings");
            }
        }
    }
}
