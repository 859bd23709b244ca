//! `[source.listener.limits]`: each has a default and bounds. Pure.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::file::LimitsTable;
use crate::config::fields::Opt;
use crate::config::listener_model::ListenerLimits;
use crate::config::resolve::{KIB, MIB, Resolver};
use crate::config::scalars::{ByteRate, ByteSize};
use crate::config::units::{RATE_HELP, show_size};
use crate::route::filter::LEVELS_MAX;

/// The largest packet MQTT can frame (MQTT-1.5.5: a remaining length of four bytes).
const PACKET_SIZE_MAX: u64 = 268_435_455;
/// A connection's task, socket and session; those with TLS take more.
const CONNECTION_BYTES: u64 = 10 * KIB;

pub fn resolve(table: &LimitsTable, r: &mut Resolver<'_>) -> ListenerLimits {
    let limits = counts(table, r);
    let d = ListenerLimits::default();
    let seconds = |n: u64| Duration::from_secs(n);
    let timeout = Duration::from_millis(100)..=seconds(300);
    let expiry = Duration::ZERO..=seconds(u64::from(u32::MAX) - 1);
    let keep_alive = seconds(1)..=seconds(65_535);
    let packet = KIB..=PACKET_SIZE_MAX;
    ListenerLimits {
        connect_timeout: r.duration(&table.connect_timeout, "connect_timeout", timeout, d.connect_timeout),
        connect_bytes: size(&table.connect_bytes, "connect_bytes", 256..=MIB, d.connect_bytes, r),
        packet_size_max: size(&table.packet_size_max, "packet_size_max", packet, d.packet_size_max, r),
        receive_maximum: short(&table.receive_maximum, "receive_maximum", 1, d.receive_maximum, r),
        send_maximum: short(&table.send_maximum, "send_maximum", 1, d.send_maximum, r),
        queued_bytes: r.size(&table.queued_bytes, "queued_bytes", KIB..=1 << 32, d.queued_bytes),
        session_expiry: r.duration(&table.session_expiry, "session_expiry", expiry, d.session_expiry),
        retained_bytes: r.size(&table.retained_bytes, "retained_bytes", 0..=1 << 32, d.retained_bytes),
        topic_aliases: short(&table.topic_aliases, "topic_aliases", 0, d.topic_aliases, r),
        byte_rate: byte_rate(&table.byte_rate, d.byte_rate, r),
        keep_alive_max: r.duration(&table.keep_alive_max, "keep_alive_max", keep_alive, d.keep_alive_max),
        ..limits
    }
}

fn counts(table: &LimitsTable, r: &mut Resolver<'_>) -> ListenerLimits {
    const MANY: u32 = 1_000_000;
    let d = ListenerLimits::default();
    let mut at_least = |least, key: &Opt<i64>, name: &str, most: u32, default: u32| {
        u32::try_from(r.number(key, name, least..=i64::from(most), i64::from(default))).unwrap_or(default)
    };
    let levels = LEVELS_MAX as u32;
    let per_address = &table.connections_per_address;
    ListenerLimits {
        connections: at_least(1, &table.connections, "connections", MANY, d.connections),
        connections_per_address: at_least(1, per_address, "connections_per_address", MANY, d.connections_per_address),
        connect_rate: at_least(1, &table.connect_rate, "connect_rate", MANY, d.connect_rate),
        queued_messages: at_least(1, &table.queued_messages, "queued_messages", MANY, d.queued_messages),
        sessions: at_least(0, &table.sessions, "sessions", MANY, d.sessions),
        subscriptions: at_least(1, &table.subscriptions, "subscriptions", 100_000, d.subscriptions),
        retained_messages: at_least(0, &table.retained_messages, "retained_messages", MANY, d.retained_messages),
        topic_levels: at_least(1, &table.topic_levels, "topic_levels", levels, d.topic_levels),
        message_rate: at_least(1, &table.message_rate, "message_rate", 10 * MANY, d.message_rate),
        ..d
    }
}

fn short(key: &Opt<i64>, name: &str, least: i64, default: u16, r: &mut Resolver<'_>) -> u16 {
    u16::try_from(r.number(key, name, least..=65_535, i64::from(default))).unwrap_or(default)
}

fn size(key: &Opt<ByteSize>, name: &str, bounds: RangeInclusive<u64>, default: u32, r: &mut Resolver<'_>) -> u32 {
    u32::try_from(r.size(key, name, bounds, u64::from(default))).unwrap_or(default)
}

fn byte_rate(key: &Opt<ByteRate>, default: u64, r: &mut Resolver<'_>) -> u64 {
    let Some(at) = key.get() else { return default };
    if at.value.0 < KIB {
        r.found.error(at.place, "`byte_rate` is out of bounds: a packet would take for ever").help(RATE_HELP);
    }
    at.value.0
}

/// What the limits must be among each other.
pub fn check(table: &LimitsTable, limits: &ListenerLimits, memory_max: u64, r: &mut Resolver<'_>) {
    let packet = u64::from(limits.packet_size_max);
    if u64::from(limits.connect_bytes) > packet {
        let place = table.connect_bytes.place().or(table.packet_size_max.place());
        let message = "`connect_bytes` is larger than `packet_size_max`";
        r.found.error(place, message).help("lower `connect_bytes`, or raise `packet_size_max`");
    }
    if packet > limits.queued_bytes {
        let place = table.queued_bytes.place().or(table.packet_size_max.place());
        let (packet, queued) = (show_size(packet), show_size(limits.queued_bytes));
        let message = format!("a packet of `packet_size_max` = {packet} never fits into `queued_bytes` = {queued}");
        r.found.warning(place, message).help("subscribers here would not get it: raise `queued_bytes`");
    }
    let connections = u64::from(limits.connections) * CONNECTION_BYTES;
    if connections > memory_max {
        let place = table.connections.place();
        let message = format!(
            "{} connections take some {} beside [memory] max = {}",
            limits.connections,
            show_size(connections / MIB * MIB),
            show_size(memory_max)
        );
        r.found.warning(place, message).help("see that the machine has that much; TLS takes more");
    }
}
