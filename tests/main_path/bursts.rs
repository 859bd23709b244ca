//! More than the gateway can pass on: bursts, and the largest packets from many clients while Kafka hangs. All of it is
//! accounted for, and memory stays where the budget says.
//!
//! The bound is what the idle process takes plus `[memory] max` (32 MiB): code, SQLite and librdkafka's threads are there
//! before the first reading, everything that flows must fit into the budget.

use std::time::{Duration, Instant};

use crate::harness::gateway::Memory;
use crate::harness::readings::{Reading, plant};
use crate::harness::rig::Rig;

pub const BUDGET_KIB: u64 = 32 * 1024;
const BASE: u32 = 500;
const BURST: u32 = 5_000;

/// Length of the burst: 10 s, or `FOREBAY_BURST_SECONDS`.
fn burst_seconds() -> usize {
    std::env::var("FOREBAY_BURST_SECONDS").map_or(10, |text| text.parse().expect("FOREBAY_BURST_SECONDS is a number"))
}

/// Fails when what has flowed took more than the budget.
pub fn assert_within_budget(what: &str, idle: Memory, after: Memory) {
    let grown = after.peak.saturating_sub(idle.now);
    eprintln!("{what}: idle {} KiB, peak {} KiB, grown by {grown} of {BUDGET_KIB} KiB", idle.now, after.peak);
    assert!(grown <= BUDGET_KIB, "{what}: memory grew by {grown} KiB, the budget is {BUDGET_KIB} KiB");
}

/// Ten times the usual rate, and Kafka hangs in the middle of it.
#[test]
fn a_tenfold_burst_while_kafka_hangs() {
    let mut rig = Rig::builder().own_kafka().broker_window(1_000).start();
    let idle = rig.gateway.memory_kib();
    let base = rig.endless_load(BASE);
    rig.wait_accepted(BASE as usize);
    let began = Instant::now();
    let per_device = BURST as usize * burst_seconds() / 10;
    let devices = (100..110).map(|device| move |number| Reading::new(device, number));
    let readings = (0..per_device).flat_map(|number| devices.clone().map(move |device| device(number)));
    let burst = rig.load_as("burst", BURST, readings.collect());
    burst.wait_for(BURST as usize * burst_seconds() / 4);
    rig.kafka.pause();
    let before = rig.accepted();
    burst.wait_for(BURST as usize * burst_seconds() * 3 / 4);
    rig.wait_accepted(before + BURST as usize);
    rig.saw("accepted while Kafka hung", rig.accepted() - before);
    rig.kafka.resume();
    let mut published = burst.finish();
    eprintln!("the burst took {:?}", began.elapsed());
    published.extend(base.stop());
    rig.wait_accepted(published.len());
    assert_within_budget("tenfold burst", idle, rig.gateway.memory_kib());
    let verdict = rig.close_books(&published);
    assert_eq!(verdict.delivered, published.len());
}

/// Fifty devices send packets of the greatest size there is; Kafka takes nothing, and the spool soon neither.
#[test]
fn fifty_clients_with_the_largest_packets_and_nowhere_to_put_them() {
    const CLIENTS: usize = 50;
    const EACH: usize = 4;
    /// The packet is 256 KiB; its header, topic and the frame of JSON take a little.
    const PADDING: usize = 256 * 1024 - 160;
    let mut rig = Rig::builder()
        .own_kafka()
        .source("packet_size_max = \"256KiB\"")
        .spool("max_bytes = \"16MiB\"")
        .memory("producer = \"2MiB\"")
        .lane("when_full = \"refuse\"")
        .start();
    let warm = rig.load(1_000, plant(1, 0, 10)).finish();
    rig.wait_accepted(warm.len());
    let idle = rig.gateway.memory_kib();
    rig.kafka.pause();
    let readings = |client: usize| (0..EACH).map(|n| Reading::padded(100 + client, n, PADDING)).collect();
    let loads: Vec<_> =
        (0..CLIENTS).map(|client| rig.load_as(&format!("device-{client}"), 1_000, readings(client))).collect();
    let mut published = warm;
    published.extend(loads.into_iter().flat_map(crate::harness::mqtt::Load::finish));
    let accepted = rig.tap.wait_quiet(Duration::from_secs(4)).accepted.len();
    rig.saw("refused at the limit", published.len() - accepted);
    assert!(accepted > 30, "the spool takes what fits: {accepted}");
    rig.kafka.resume();
    rig.wait_accepted(published.len());
    assert_within_budget("largest packets", idle, rig.gateway.memory_kib());
    let verdict = rig.close_books(&published);
    assert_eq!((verdict.delivered, verdict.dead), (published.len(), 0));
}
