//! Devices in good and in bad times.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::jobs;
use crate::modbus::rig::{Slave, json, rig_by_tcp, rig_on_line, wait_for};
use crate::serial::lines::{RESUMED, cpu_ms};

const COUNTER: &str = "register = [{ name = \"counter\", table = \"holding\", address = 0, kind = \"u32\" }]\n";

/// Everything that the foreign device holds.
const ALL: &str = "register = [\n\
    { name = \"volt\", table = \"holding\", address = 10, kind = \"f32\", unit = \"V\" },\n\
    { name = \"small\", table = \"holding\", address = 12, kind = \"i16\", scale = 0.5, add = 100 },\n\
    { name = \"double\", table = \"holding\", address = 20, kind = \"f64\" },\n\
    { name = \"low\", table = \"holding\", address = 24, kind = \"i64\" },\n\
    { name = \"high\", table = \"holding\", address = 28, kind = \"u64\" },\n\
    { name = \"name\", table = \"holding\", address = 32, kind = \"string\", length = 4 },\n\
    { name = \"swapped\", table = \"holding\", address = 40, kind = \"u32\", word_order = \"little\" },\n\
    { name = \"unit\", table = \"input\", address = 0 },\n\
    { name = \"flags\", table = \"input\", address = 1, kind = \"bits\", bit = 1, bits = 3 },\n\
    { name = \"flag\", table = \"input\", address = 1, kind = \"bits\", bit = 1 },\n\
    { name = \"coil\", table = \"coil\", address = 9 }, { name = \"input\", table = \"discrete\", address = 2 }]\n";

fn all(unit: i64) -> Value {
    json!({
        "volt": 230.5, "small": 97.5, "double": -0.125, "low": -(1i64 << 40) - unit, "high": (1u64 << 63) + 1,
        "name": "PUMP-7", "swapped": 70_000, "unit": unit, "flags": 5, "flag": true, "coil": true, "input": false
    })
}

#[test]
fn every_kind_of_value_arrives_by_tcp() {
    let lines = format!("interval = \"50ms\"\n[[source.modbus.device]]\nname = \"pump\"\nunit = 5\n{ALL}");
    let (mut rig, port, dir) = rig_by_tcp(&lines);
    let _slave = Slave::by_tcp(dir.path(), port, &[5]);
    rig.gateway.start();
    let record = rig.kafka.find(&rig.topic("readings"), |record| json(record)["quality"] == "good");
    let said = json(&record);
    assert_eq!((&said["values"], &said["units"]), (&all(5), &json!({"volt": "V"})));
    assert_eq!(record.key.as_deref(), Some(&b"modbus/plc/pump"[..]));
    rig.gateway.stop();
}

#[test]
fn three_on_a_line_of_which_one_is_dead_and_one_refuses() {
    let dead = format!("[[source.modbus.device]]\nname = \"dead\"\nunit = 9\n{COUNTER}");
    let busy = ALL.replace(
        "{ name = \"unit\"",
        "{ name = \"busy\", table = \"holding\", address = 200 },\n    { name = \"unit\"",
    );
    let lines = format!(
        "interval = \"50ms\"\nretries = 5\n[[source.modbus.device]]\nname = \"one\"\nunit = 1\n{ALL}\
         [[source.modbus.device]]\nname = \"two\"\nunit = 2\n{busy}{dead}"
    );
    let (mut rig, dir) = rig_on_line(&lines);
    let _slave = Slave::on_line(dir.path(), &rig.cables[0], &[1, 2]);
    rig.gateway.start();
    let read = || rig.gateway.metric("forebay_source_readings_total");
    jobs::wait_until("two hundred readings", || (read() >= 200.0).then_some(()));
    rig.gateway.stop();
    let records: Vec<Value> = rig.kafka.consume_all(&rig.topic("readings")).iter().map(json).collect();
    let of = |name: &str| records.iter().filter(|said| said["device"] == name).cloned().collect::<Vec<_>>();
    let (one, two, dead) = (of("one"), of("two"), of("dead"));
    assert!(one.iter().all(|said| said["quality"] == "good" && said["values"] == all(1)), "{:?}", one[0]);
    for said in &two {
        let values = said["values"].as_object().unwrap();
        assert_eq!((said["quality"].as_str(), values.get("busy")), (Some("bad"), None));
        assert_eq!(said["values"], all(2), "one refused value takes no other with it");
        assert_eq!(said["failed"][0]["cause"], "server device busy");
    }
    assert!(one.len() > 60 && two.len() > 60, "{} {}", one.len(), two.len());
    // Tries go by time: the slower the machine, the more of them beside two hundred readings. In turn it would be a third.
    assert!((1..50).contains(&dead.len()), "{} tries at the dead one", dead.len());
    assert_eq!(
        (rig.told_times("device-mute"), rig.told_times("device-refuses"), rig.told_times("line-lost")),
        (1, 1, 0)
    );
}

#[test]
fn unplugged_and_plugged_in_again() {
    let lines = format!("interval = \"100ms\"\n[[source.modbus.device]]\nname = \"pump\"\n{COUNTER}");
    let (mut rig, dir) = rig_on_line(&lines);
    let mut slave = Slave::on_line(dir.path(), &rig.cables[0], &[1]);
    rig.gateway.start();
    wait_for(&rig, |said| said["quality"] == "good");
    rig.cables[0].unplug();
    slave.kill();
    rig.gateway.wait_for_line("the line is gone");
    wait_for(&rig, |said| said["quality"] == "stale" && said["failed"][0]["cause"] == "the line is gone");
    // A line that has hung up answers every read at once with nothing.
    let before = cpu_ms(rig.gateway.pid());
    std::thread::sleep(Duration::from_secs(2));
    let spent = cpu_ms(rig.gateway.pid()) - before;
    assert!(spent < 1_000, "{spent} ms of CPU in two seconds without a line");
    // Another pseudo terminal under the same name.
    rig.cables[0].replug();
    slave.restart();
    let back = Instant::now();
    let mut was_gone = false;
    wait_for(&rig, |said| {
        was_gone |= said["quality"] != "good";
        was_gone && said["quality"] == "good"
    });
    eprintln!("in Kafka again after {:?}", back.elapsed());
    assert!(back.elapsed() < RESUMED, "{:?}", back.elapsed());
    rig.gateway.stop();
    assert_eq!((rig.told_times("line-lost"), rig.told_times("line-open")), (1, 2));
}

#[test]
fn a_peer_that_is_killed_refused_and_hung() {
    let lines = format!("interval = \"100ms\"\ntimeout = \"2s\"\n[[source.modbus.device]]\nname = \"pump\"\n{COUNTER}");
    let (mut rig, port, dir) = rig_by_tcp(&lines);
    let mut slave = Slave::by_tcp(dir.path(), port, &[1]);
    rig.gateway.start();
    let good = || {
        rig.gateway.metric("forebay_source_readings_total")
            - rig.gateway.metric("forebay_modbus_stale_readings_total")
            - rig.gateway.metric("forebay_modbus_bad_readings_total")
    };
    let resumed = |what: &str| {
        let (before, back) = (good(), Instant::now());
        jobs::wait_until(what, || (good() > before).then_some(()));
        eprintln!("{what} after {:?}", back.elapsed());
        assert!(back.elapsed() < RESUMED, "{what}: {:?}", back.elapsed());
    };
    resumed("read at first");
    slave.kill();
    rig.gateway.wait_for_line("the line is gone");
    slave.restart();
    resumed("read after a refusal");
    slave.signal(Signal::SIGSTOP);
    rig.gateway.wait_for_line("a device does not answer");
    // New connections that nobody answers.
    let timeouts = || rig.gateway.metric("forebay_line_timeouts_total");
    let before = timeouts();
    jobs::wait_until("a few more attempts", || (timeouts() >= before + 2.0).then_some(()));
    slave.signal(Signal::SIGCONT);
    resumed("read after a hang");
    rig.gateway.stop();
    assert_eq!((rig.told_times("line-lost"), rig.told_times("line-open")), (1, 2));
    assert_eq!((rig.told_times("device-mute"), rig.told_times("device-answers")), (1, 1));
}

#[test]
fn what_says_nothing_new_stays_behind() {
    let lines = format!(
        "interval = \"20ms\"\n[source.modbus.report]\nmax_interval = \"1h\"\n\
         [[source.modbus.device]]\nname = \"pump\"\nunit = 5\n{ALL}"
    );
    let (mut rig, port, dir) = rig_by_tcp(&lines);
    let mut slave = Slave::by_tcp(dir.path(), port, &[5]);
    rig.gateway.start();
    let suppressed = || rig.gateway.metric("forebay_line_suppressed_total");
    jobs::wait_until("fifty readings that say nothing new", || (suppressed() >= 50.0).then_some(()));
    // A change of quality is news, whatever the values say.
    slave.kill();
    wait_for(&rig, |said| said["quality"] == "stale");
    rig.gateway.stop();
    let records = rig.kafka.consume_all(&rig.topic("readings"));
    let good = records.iter().map(json).filter(|said| said["quality"] == "good").count();
    assert_eq!(good, 1, "the values are the same from the first reading on");
}
