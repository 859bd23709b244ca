//! What Mosquitto has queued while the gateway was away is drained: all of it, in order, in bounded memory.
//!
//! 20,000 readings; `FOREBAY_NIGHTLY=1` makes it 200,000. rumqttd keeps a session's queue in memory up to a number of
//! segments and drops the oldest without a word: against it the count closes because the segments are large.

use std::time::Duration;

use crate::harness::gateway::metric;
use crate::harness::jobs;
use crate::harness::mqtt::{Client, rumqttd};
use crate::harness::readings::plant;
use crate::harness::rig::{Builder, Rig};
use crate::main_path::bursts::BUDGET_KIB;

const DEVICES: usize = 20;
/// Code, SQLite and librdkafka's threads before the first reading, in the development build: 20 MiB and a reserve.
const IDLE_KIB: u64 = 24 * 1024;

/// What one pause of the gateway queues.
fn queue() -> usize {
    if nightly() { 200_000 } else { 20_000 }
}

pub fn nightly() -> bool {
    std::env::var_os("FOREBAY_NIGHTLY").is_some_and(|value| value == "1")
}

/// The gateway's session is there, the gateway is not, and Mosquitto has the queue.
fn queued(builder: Builder) -> (Rig, Vec<String>) {
    let mut rig = builder.start();
    rig.tap.wait_for("the gateway's subscription", |history| history.subacks > 0);
    rig.gateway.stop();
    let published = rig.load(1_000_000, plant(DEVICES, 0, queue() / DEVICES)).finish();
    assert_eq!(rig.tap.history().offered.len(), 0, "nobody was there to take it");
    (rig, published)
}

/// Each wait is for a slice, so that the patience is for standing still and not for the length of the queue.
fn wait_drained(rig: &Rig) {
    for count in (10_000..=queue()).step_by(10_000) {
        rig.wait_accepted(count);
    }
}

fn drained_without_repeats(builder: Builder) {
    let (mut rig, published) = queued(builder);
    rig.gateway.start();
    wait_drained(&rig);
    let memory = rig.gateway.memory_kib();
    assert!(memory.peak < IDLE_KIB + BUDGET_KIB, "memory does not depend on the queue: {memory:?}");
    let verdict = rig.close_books(&published);
    assert_eq!((verdict.accepted, verdict.delivered, verdict.repeats), (queue(), queue(), 0));
}

#[test]
fn a_long_queue_in_mosquittos_own_window() {
    drained_without_repeats(Rig::builder());
}

#[test]
fn a_long_queue_in_a_wide_window_and_commit_first() {
    drained_without_repeats(Rig::builder().broker_window(1_000).lane("when = \"always\""));
}

#[test]
fn a_long_queue_in_rumqttd() {
    drained_without_repeats(Rig::builder().other_broker(rumqttd()).source("version = \"3.1.1\""));
}

/// Another client with the same client id, twice: what was on the way to the gateway is offered again. Neither the
/// gateway nor the other client gives up anything that was not acknowledged.
#[test]
fn a_long_queue_with_the_session_taken_over_in_the_middle() {
    let (mut rig, published) = queued(Rig::builder());
    rig.gateway.start();
    for share in [5, 3] {
        rig.wait_accepted(queue() / share);
        drop(Client::connect(rig.mosquitto.port(), "forebay-under-test", None));
        let before = rig.accepted();
        rig.wait_accepted(queue().min(before + 1_000));
    }
    wait_drained(&rig);
    // Not its count of take-overs: when the broker closes amid readings, no DISCONNECT says why.
    let reconnects = rig.gateway.metric("forebay_source_reconnects_total");
    rig.saw("session taken over", reconnects as usize);
    let backlog = || (rig.gateway.metric(metric::BACKLOG) == 0.0).then_some(());
    jobs::wait_long("the drain is done", Duration::from_secs(180), backlog);
    let verdict = rig.close_books(&published);
    assert_eq!((verdict.accepted, verdict.delivered), (queue(), queue()));
}
