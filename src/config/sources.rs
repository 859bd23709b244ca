//! `[[source.mqtt]]`: the brokers to read from. Pure.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::clusters::tls;
use super::fields::Opt;
use super::file::{MqttTable, SubscriptionTable};
use super::model::{Budget, Gateway, MqttSource, MqttVersion, Spool, Subscription};
use super::problem::{nearest, one_of};
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
    /// The names of sources that are no brokers.
    pub others: Vec<String>,
}

pub fn resolve<'t>(
    tables: &'t [At<MqttTable>],
    gateway: &Gateway,
    memory: &Budget,
    spool: &Spool,
    others: Vec<String>,
    r: &mut Resolver<'_>,
) -> Sources<'t> {
    if tables.is_empty() && others.is_empty() {
        let help = "add [[source.mqtt]] with host = \"...\", or [[source.serial]] with port = \"...\"";
        r.found.error(None, "no source is configured: there is nothing to collect").help(help);
    }
    let names: Vec<String> = tables.iter().map(|at| name(at, tables.len(), r)).collect();
    check_twins(tables, &names, r);
    let share = share(tables, memory);
    let made = tables.iter().zip(names).map(|(at, name)| {
        let source = source(at, name, gateway, share, r);
        warn_of_slow(&source, at, spool, r);
        source
    });
    Sources { list: made.collect(), tables, others }
}

fn name(at: &At<MqttTable>, count: usize, r: &mut Resolver<'_>) -> String {
    if count == 1 && matches!(at.value.name, Opt::Absent) {
        return NAME.to_owned();
    }
    let help = "several sources are told apart by their names, which become part of the client ids";
    let Some(name) = r.required(&at.value.name, "name", at.place, help) else { return String::new() };
    let legal = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    if name.value.is_empty() || name.value.len() > 64 || !name.value.chars().all(legal) {
        let message = format!("a source cannot be called {:?}", name.value);
        r.found.error(name.place, message).help("use 1 to 64 letters, digits, `_` or `-`");
    }
    name.value.clone()
}

/// Two sessions of one client id at one broker would throw each other out for ever.
fn check_twins(tables: &[At<MqttTable>], names: &[String], r: &mut Resolver<'_>) {
    for (index, at) in tables.iter().enumerate() {
        let earlier = || tables[..index].iter();
        if let (Some(place), Some(twin)) =
            (at.value.name.place(), names[..index].iter().position(|name| *name == names[index]))
        {
            let first = tables[twin].value.name.place().unwrap_or(tables[twin].place);
            let finding = r.found.error(place, format!("the source {:?} is defined twice", names[index]));
            finding.note("it is already defined at", first).help("give it another name");
        }
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
fn share(tables: &[At<MqttTable>], memory: &Budget) -> u64 {
    let given: u64 = tables.iter().filter_map(|at| at.value.unacked_bytes_max.value()).map(|size| size.0).sum();
    let others = tables.iter().filter(|at| at.value.unacked_bytes_max.value().is_none()).count() as u64;
    memory.intake.saturating_sub(given) / others.max(1)
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

fn check_together(source: &MqttSource, at: &At<MqttTable>, r: &mut Resolver<'_>) {
    let table = &at.value;
    if source.backoff_max < source.backoff_min {
        let place = table.backoff_max.place().or(table.backoff_min.place());
        r.found.error(place, "`backoff_max` is shorter than `backoff_min`").help("exchange them");
    }
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

fn warn_of_slow(source: &MqttSource, at: &At<MqttTable>, spool: &Spool, r: &mut Resolver<'_>) {
    let rate = f64::from(source.receive_maximum) / spool.ack_delay.as_secs_f64();
    if rate < SLOW_RATE {
        let place = at.value.receive_maximum.place().unwrap_or(at.place);
        let message = format!("at most {rate:.0} readings a second: `receive_maximum` / `ack_delay` is under 100/s");
        r.found.warning(place, message).help("raise `receive_maximum`, or lower [spool] ack_delay");
    }
}

impl Sources<'_> {
    /// The names that a route's `source` may use.
    pub fn check_name(&self, name: &At<String>, r: &mut Resolver<'_>) {
        let known = self.list.iter().map(|source| source.name.as_str()).chain(self.others.iter().map(String::as_str));
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
