//! kill -9 under load. Nobody sends a frame twice, so what counts is what was committed: it arrives, in order, and a
//! repeat carries the id of the first.

use std::path::Path;

use crate::harness::gateway::metric;
use crate::harness::jobs::{self, Job};
use crate::serial::rig::{Rig, by_key};

fn killed_at(point: &str, passage: usize) {
    let mut rig = Rig::build(1, "");
    rig.cables[0].unplug();
    let mut device = device(&rig);
    rig.gateway.start_with_fault(&format!("{point}:{passage}"));
    rig.gateway.wait_for_fault(point);
    rig.gateway.kill9();
    let status = rig.gateway.command(&["status", "--json"]).document();
    let lanes = status["lanes"].as_array().unwrap();
    let lane = lanes.iter().find(|lane| lane["name"] == "telemetry");
    let committed = lane.and_then(|lane| lane["records"].as_u64()).unwrap_or(0) as usize;
    rig.gateway.start();
    rig.wait_open(1);
    let read = || rig.gateway.metric("forebay_source_readings_total");
    jobs::wait_until("it reads on", || (read() >= 200.0).then_some(()));
    device.kill();
    jobs::wait_until("the spool is empty", || (rig.gateway.metric(metric::BACKLOG) == 0.0).then_some(()));
    rig.gateway.stop();
    let list = by_key(&rig.kafka.consume_all(&rig.topic("readings"))).remove("line0").unwrap();
    let numbers: Vec<u64> = list.iter().map(|text| text.parse().unwrap()).collect();
    assert!(numbers.is_sorted(), "in order of acceptance");
    // Until the kill nothing was lost: what was committed or delivered is an unbroken run from the beginning.
    let first = numbers[0];
    let unbroken = (first..).zip(&numbers).take_while(|(wanted, number)| wanted == *number).count();
    assert!(committed > 0, "the kill came before the first commit");
    assert!(unbroken >= committed, "{committed} were in the spool, only {unbroken} arrived unbroken");
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
