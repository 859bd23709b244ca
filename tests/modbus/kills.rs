//! kill -9 while polling. What counts is what was committed: it arrives, in order, and a repeat carries the id of the
//! first. The device counts its answers, so that a gap shows.

use crate::harness::jobs;
use crate::modbus::rig::{Slave, rig_by_tcp};
use crate::serial::rig::{by_key, check_unbroken};

fn killed_at(point: &str, passage: usize) {
    let lines = "interval = \"10ms\"\ntimeout = \"10s\"\n[[source.modbus.device]]\nname = \"pump\"\n\
        register = [{ name = \"counter\", table = \"holding\", address = 0, kind = \"u32\" }]\n";
    let (mut rig, port, dir) = rig_by_tcp(lines);
    let mut slave = Slave::by_tcp(dir.path(), port, &[1]);
    let committed = rig.kill_at(point, passage);
    rig.gateway.start();
    let read = || rig.gateway.metric("forebay_source_readings_total");
    jobs::wait_until("it reads on", || (read() >= 100.0).then_some(()));
    slave.kill();
    rig.gateway.wait_for_line("the line is gone");
    rig.drain_and_stop();
    // Two ids for one reading fail here.
    let list = by_key(&rig.kafka.consume_all(&rig.topic("readings"))).remove("modbus/plc/pump").unwrap();
    let counter = |text: &String| {
        let said: serde_json::Value = serde_json::from_str(text).unwrap();
        said["values"]["counter"].as_u64().filter(|_| said["quality"] == "good")
    };
    let numbers: Vec<u64> = list.iter().filter_map(counter).collect();
    // From the first answer on.
    check_unbroken(&numbers, 1, committed);
    assert!(numbers.len() >= committed + 100, "it reads on after the kill");
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
