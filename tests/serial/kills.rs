//! kill -9 under load. Nobody sends a frame twice, so what counts is what was committed: it arrives, in order, and a
//! repeat carries the id of the first.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::serial::rig::{Rig, by_key};

fn killed_at(point: &str, passage: usize) {
    let mut rig = Rig::build(1, "");
    rig.gateway.start_with_fault(&format!("{point}:{passage}"));
    let cable = rig.cables.pop().unwrap();
    let (device, done) = (cable.device(), AtomicBool::new(false));
    let committed = std::thread::scope(|scope| {
        scope.spawn(|| speak(&device, &done));
        rig.gateway.wait_for_fault(point);
        rig.gateway.kill9();
        let status = rig.gateway.command(&["status", "--json"]).document();
        let lanes = status["lanes"].as_array().unwrap();
        let lane = lanes.iter().find(|lane| lane["name"] == "telemetry");
        let committed = lane.and_then(|lane| lane["records"].as_u64()).unwrap_or(0);
        rig.gateway.start();
        rig.wait_open(1);
        let seen = rig.readings(committed as usize + 200);
        assert!(!seen.is_empty());
        done.store(true, Ordering::Relaxed);
        committed as usize
    });
    rig.gateway.stop();
    let list = by_key(&rig.kafka.consume_all(&rig.topic("readings"))).remove("line0").unwrap();
    let numbers: Vec<u64> = list.iter().map(|text| text.parse().unwrap()).collect();
    assert!(numbers.is_sorted(), "in order of acceptance");
    // Until the kill nothing was lost: what was committed or delivered is an unbroken run from the beginning.
    let unbroken = numbers.iter().enumerate().take_while(|(at, number)| *at as u64 == **number).count();
    assert!(committed > 0, "the kill came before the first commit");
    assert!(unbroken >= committed, "{committed} were in the spool, only {unbroken} arrived unbroken");
    assert!(numbers.len() > unbroken || unbroken >= committed + 200, "it reads on after the kill");
}

/// Numbered lines, as fast as the line takes them, until told to end.
fn speak(mut device: &std::fs::File, done: &AtomicBool) {
    use std::io::Write;
    for number in 0u64.. {
        if done.load(Ordering::Relaxed) {
            return;
        }
        device.write_all(format!("{number}\n").as_bytes()).unwrap();
        // A tenth of what 115,200 baud carry: the test is about kills, not about speed.
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
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
