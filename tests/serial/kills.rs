//! kill -9 under load. Nobody sends a frame twice, so what counts is what was committed: it arrives, in order, and a
//! repeat carries the id of the first.

use std::path::Path;

use crate::harness::jobs::{self, Job};
use crate::serial::rig::{Rig, by_key, check_unbroken};

fn killed_at(point: &str, passage: usize) {
    let mut rig = Rig::build(1, "");
    rig.cables[0].unplug();
    let mut device = device(&rig);
    let committed = rig.kill_at(point, passage);
    rig.gateway.start();
    rig.wait_open(1);
    let read = || rig.gateway.metric("forebay_source_readings_total");
    jobs::wait_until("it reads on", || (read() >= 200.0).then_some(()));
    device.kill();
    rig.drain_and_stop();
    let list = by_key(&rig.kafka.consume_all(&rig.topic("readings"))).remove("line0").unwrap();
    let numbers: Vec<u64> = list.iter().map(|text| text.parse().unwrap()).collect();
    check_unbroken(&numbers, numbers[0], committed);
    assert!(numbers.len() >= committed + 200, "it reads on after the kill");
}

/// Numbered lines, a tenth of what 115,200 baud carry: the test is about kills, not about speed. The device holds its end
/// of the line open while the gateway is away, as a real one does.
fn device(rig: &Rig) -> Job {
    let mut command = jobs::leashed(Path::new(env!("CARGO_BIN_EXE_forebay")));
    command.args(["simulate", "serial", "--interval", "2ms", "--say", "{n}\\n", "--link"]).arg(rig.cables[0].port());
    let job = Job::start_watched("device", command, &rig.cables[0].end().with_extension("log"));
    job.wait_for_line("a device speaks on");
    job
}

#[test]
fn after_a_commit() {
    killed_at("4-after-commit", 20);
}

#[test]
fn before_a_settle() {
    killed_at("9-before-settle", 20);
}

#[test]
fn after_a_delivery_report() {
    killed_at("8-reported", 30);
}
