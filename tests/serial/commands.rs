//! The commands for whoever stands before a machine: each against a device that `simulate serial` plays.

use std::path::Path;
use std::process::Command;

use crate::harness::gateway::Gateway;
use crate::harness::jobs::{self, Job};
use crate::serial::rig::{Rig, by_key};

fn forebay(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_forebay")).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn play(dir: &Path, port: &Path, args: &[&str]) -> Job {
    let mut command = jobs::leashed(Path::new(env!("CARGO_BIN_EXE_forebay")));
    command.args(["simulate", "serial", "--link"]).arg(port).args(args);
    let job = Job::start_watched("device", command, &dir.join("device.log"));
    job.wait_for_line("a device speaks on");
    job
}

#[test]
fn sniff_shows_what_a_simulated_device_says() {
    let dir = jobs::scratch("sniff");
    let port = dir.path().join("usb-scale");
    let _device = play(dir.path(), &port, &["--say", r"ST,{n}\r\n", "--interval", "20ms"]);
    let (code, out, err) = forebay(&["serial", "sniff", port.to_str().unwrap(), "--count", "3"]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(out.matches("bytes  ST,").count(), 3, "{out}");
    assert!(out.contains("53 54 2c"), "{out}");
    let (code, _, err) = forebay(&["serial", "sniff", "/dev/does-not-exist"]);
    assert_eq!(code, Some(69), "{err}");
}

#[test]
fn a_simulated_device_answers_the_gateways_queries() {
    let mut rig = Rig::build(0, "");
    let dir = jobs::scratch("polled");
    let port = dir.path().join("usb-meter");
    let mut device = play(dir.path(), &port, &["--answer", r"R1\r", "--say", r"{n}\r\n"]);
    rig.gateway = Gateway::builder()
        .kafka(&rig.kafka.bootstrap_servers())
        .table("[events]", &format!("topic = {:?}", rig.topic("events")))
        .route("#", &rig.topic("readings"), "default")
        .table("[[source.serial]]", &format!("port = {port:?}\ntopic = \"{{source}}/{{poll}}\""))
        .table("[[source.serial.poll]]", "name = \"energy\"\nquery = \"R1\\r\"\ninterval = \"50ms\"")
        .build();
    rig.gateway.start();
    let read = || rig.gateway.metric("forebay_source_readings_total");
    jobs::wait_until("five answers", || (read() >= 5.0).then_some(()));
    // Whoever reads to the end of a topic must not chase a device that goes on.
    device.kill();
    let lists = by_key(&rig.readings(5));
    assert_eq!(lists["serial/energy"][..5], ["0", "1", "2", "3", "4"]);
    assert!(rig.gateway.metric("forebay_line_requests_total") >= 5.0);
    rig.gateway.stop();
}

#[test]
fn the_list_of_ports_is_one_for_scripts_too() {
    let (code, out, err) = forebay(&["serial", "list", "--json"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(serde_json::from_str::<Vec<serde_json::Value>>(&out).is_ok(), "{out}");
}

#[test]
fn check_says_what_a_line_comes_to() {
    let mut rig = Rig::build(1, "");
    let checked = rig.gateway.command(&["check"]).text();
    assert!(checked.contains("telemetry: when = always (implied by the source \"line0\")"), "{checked}");
    assert!(checked.contains("at 115200 8N1, at most 256KiB not accepted yet, as line0"), "{checked}");
    let mut document = rig.gateway.command(&["check", "--json"]).document();
    assert_eq!(document["config"]["serial"][0]["baud"].take(), 115_200);
    rig.cables[0].unplug();
    assert!(!checked.contains("by exception"), "{checked}");
    assert_eq!(rig.gateway.command(&["check"]).code, Some(0), "a port that is not there may be plugged in later");
}
