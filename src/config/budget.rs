//! `[memory]`: one budget, shared out at start. Pure.
//!
//! An edge box has little memory and no swap: what does not fit is refused here and not by the kernel at night.

use super::clusters::Clusters;
use super::file::MemoryTable;
use super::listener::file::ListenerTable;
use super::listener_model::Listener;
use super::model::{Budget, Spool};
use super::problem::Place;
use super::reader::At;
use super::resolve::{KIB, MIB, Resolver};
use super::sources::Sources;
use super::units::show_size;

const MAX_DEFAULT: u64 = 32 * MIB;
/// SQLite, TLS, stacks and code need this much whatever flows.
const MAX_LEAST: u64 = 8 * MIB;
/// librdkafka's real use for each byte of `queue.buffering.max.kbytes`, in tenths, measured.
const PRODUCER_USE_TENTHS: u64 = 21;
/// One part in so many stays for SQLite's cache, stacks and code.
const REST_SHARE: u64 = 16;
/// Smallest useful share: one commit group of 256 KiB.
const PART_LEAST: u64 = 256 * KIB;

/// Takes the parts that are given and shares out the others: a quarter, a quarter, three sixteenths. With a listener a
/// sixteenth is for local subscribers; it comes out of the window. Where a listener looks for message ids, their window
/// comes first, and the parts are parts of the rest.
pub fn resolve(table: &MemoryTable, listeners: &[At<ListenerTable>], spool: &Spool, r: &mut Resolver<'_>) -> Budget {
    let max = r.size(&table.max, "max", MAX_LEAST..=1 << 40, MAX_DEFAULT);
    let has_listener = !listeners.is_empty();
    let message_ids =
        if listeners.iter().any(|at| at.value.looks_for_ids()) { spool.message_ids.bytes_max() } else { 0 };
    let shared = max.saturating_sub(message_ids).max(MAX_LEAST / 2);
    let parts = PART_LEAST..=max;
    let budget = Budget {
        max,
        intake: r.size(&table.intake, "intake", parts.clone(), shared / 4),
        window: r.size(&table.window, "window", parts.clone(), if has_listener { shared / 16 * 3 } else { shared / 4 }),
        producer: r.size(&table.producer, "producer", parts.clone(), shared / 16 * 3),
        fan_out: r.size(&table.fan_out, "fan_out", parts, if has_listener { shared / 16 } else { 0 }),
        message_ids,
    };
    if let Some(place) = table.fan_out.place().filter(|_| !has_listener) {
        let message = "`fan_out` has no effect: only a listener has local subscribers";
        r.found.warning(place, message).help("remove it");
    }
    check_sum(&budget, table, r);
    budget
}

fn check_sum(budget: &Budget, table: &MemoryTable, r: &mut Resolver<'_>) {
    let producer = budget.producer.saturating_mul(PRODUCER_USE_TENTHS) / 10;
    let others = [budget.window, producer, budget.fan_out, budget.message_ids];
    let sum = others.into_iter().fold(budget.intake, u64::saturating_add);
    let usable = budget.max - budget.max / REST_SHARE;
    if sum <= usable {
        return;
    }
    let places = [table.producer.place(), table.window.place(), table.intake.place(), table.fan_out.place()];
    let place = places.into_iter().flatten().next();
    let part = |name: &str, bytes| if bytes > 0 { format!(" + {name} {}", show_size(bytes)) } else { String::new() };
    let (fan_out, ids) = (part("fan_out", budget.fan_out), part("message ids", budget.message_ids));
    let message = format!(
        "the memory parts do not fit: intake {} + window {} + producer 2.1 x {}{fan_out}{ids} = {}, but {} of {} can be shared out",
        show_size(budget.intake),
        show_size(budget.window),
        show_size(budget.producer),
        show_size(sum),
        show_size(usable),
        show_size(budget.max),
    );
    r.found.error(place.or(table.max.place()), message).help(if budget.message_ids > 0 {
        "raise `max`, lower [spool] message_id_window or a part, or leave all parts out"
    } else {
        "raise `max`, lower a part, or leave all parts out"
    });
}

/// Every source must hold two of its largest packets, and each producer must be able to take one.
pub fn check_fit(budget: &Budget, sources: &Sources<'_>, clusters: &Clusters, spool: &Spool, r: &mut Resolver<'_>) {
    let mut given = 0;
    for share in sources.shares() {
        given += share.unacked_bytes_max;
        let place = share.packet_place.or(share.unacked_place).unwrap_or(share.place);
        let packet = u64::from(share.packet_size_max);
        if packet * 2 > share.unacked_bytes_max {
            let share = show_size(share.unacked_bytes_max);
            too_big(packet, &format!("twice into this source's share of the intake memory, {share}"), place, r);
        }
        let producer = budget.producer / clusters.list.len().max(1) as u64;
        if packet > producer {
            too_big(packet, &format!("into a producer's memory, {}", show_size(producer)), place, r);
        }
        if packet > budget.window {
            too_big(packet, &format!("into the memory window, {}", show_size(budget.window)), place, r);
        }
    }
    if given > budget.intake {
        let place = sources.shares().find_map(|share| share.unacked_place);
        let (given, intake) = (show_size(given), show_size(budget.intake));
        let message = format!("the sources ask for {given} of unacknowledged readings, the intake memory is {intake}");
        r.found.error(place, message).help("lower `unacked_bytes_max`, or raise [memory] max or intake");
    }
    check_fan_out(budget, sources, r);
    if spool.max_bytes < 4 * (budget.producer / clusters.list.len().max(1) as u64) {
        let message =
            format!("the spool ({}) is smaller than four times what can be in flight", show_size(spool.max_bytes));
        r.found.error(None, message).help("raise [spool] max_bytes, or lower [memory] producer");
    }
}

fn check_fan_out(budget: &Budget, sources: &Sources<'_>, r: &mut Resolver<'_>) {
    let asked = |listener: &Listener| listener.fan_out_bytes_max.saturating_add(listener.limits.retained_bytes);
    let given = sources.listeners.iter().map(asked).fold(0, u64::saturating_add);
    let place = sources.listener_tables.iter().find_map(|at| at.value.fan_out_bytes_max.place());
    if given > budget.fan_out && place.is_some() {
        let (given, fan_out) = (show_size(given), show_size(budget.fan_out));
        let message = format!(
            "the listeners ask for {given} by `fan_out_bytes_max` and `retained_bytes`, the fan-out memory is {fan_out}"
        );
        r.found.error(place, message).help("lower them, or raise [memory] max or fan_out");
    }
}

fn too_big(packet: u64, target: &str, place: Place, r: &mut Resolver<'_>) {
    let message = format!("a packet of `packet_size_max` = {} does not fit {target}", show_size(packet));
    r.found.error(place, message).help("lower `packet_size_max`, or raise [memory] max");
}
