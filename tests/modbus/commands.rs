//! The commands for whoever stands before a device: each against devices that `simulate modbus` plays.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::jobs::{self, Job};
use crate::modbus::rig::{rig_by_tcp, rig_on_line, wait_for};

fn forebay(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_forebay")).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn play(dir: &Path, args: &[&str]) -> Job {
    let mut command = jobs::leashed(Path::new(env!("CARGO_BIN_EXE_forebay")));
    command.args(["simulate", "modbus"]).args(args);
    let job = Job::start_watched("devices", command, &dir.join("devices.log"));
    job.wait_for_line("Modbus devices answer on");
    job
}

#[test]
fn read_shows_what_a_device_holds_by_tcp() {
    let dir = jobs::scratch("read");
    let address = format!("127.0.0.1:{}", jobs::free_port());
    let _devices = play(dir.path(), &["--tcp", &address, "--unit", "3", "--map", "sdm630"]);
    let (code, out, err) = forebay(&["modbus", "read", "--tcp", &address, "--unit", "3", "--map", "sdm630", "--json"]);
    assert_eq!(code, Some(0), "{err}");
    let rows: Vec<Value> = serde_json::from_str(&out).unwrap();
    let value = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap()["value"].as_f64().unwrap();
    assert!((227.0..=233.0).contains(&value("voltage_l1")) && (49.0..=51.0).contains(&value("frequency")), "{out}");
    let plain =
        ["modbus", "read", "--tcp", &address, "--unit", "3", "--table", "input", "--count", "2", "--kind", "f32"];
    let (code, out, err) = forebay(&plain);
    assert_eq!((code, out.lines().count()), (Some(0), 3), "{out}{err}");
    assert!(out.contains("input 2") && out.starts_with("unit 3\n  0 "), "{out}");
    let wrong = ["modbus", "read", "--tcp", &address, "--unit", "3", "--table", "holding"];
    let (code, out, _) = forebay(&wrong);
    assert!(code == Some(65) && out.contains("failed: illegal data address"), "{out}");
    let dead = ["modbus", "read", "--tcp", &address, "--unit", "4", "--timeout", "100ms"];
    let (code, _, err) = forebay(&dead);
    assert!(code == Some(69) && err.contains("failed to read unit 4: no answer"), "{err}");
    let (code, _, err) = forebay(&["modbus", "read"]);
    assert!(code == Some(64) && err.contains("--tcp or --port"), "{err}");
}

#[test]
fn read_shows_a_configured_line_before_the_gateway_runs() {
    let device = "[[source.modbus.device]]\nname = \"meter\"\nunit = 2\nmap = \"abb-b23\"\n";
    let (mut rig, dir) = rig_on_line(device);
    rig.cables[0].unplug();
    let port = rig.cables[0].port();
    let _devices = play(dir.path(), &["--link", port.to_str().unwrap(), "--unit", "2", "--map", "abb-b23"]);
    let read = rig.gateway.command(&["modbus", "read", "plc", "--device", "meter"]).text();
    assert!(read.starts_with("meter\n") && read.contains("energy_import") && read.contains("kWh"), "{read}");
    rig.gateway.start();
    let said = wait_for(&rig, |said| said["quality"] == "good");
    assert_eq!(said["units"]["power"], "W");
    rig.gateway.stop();
}

#[test]
fn read_goes_on_behind_a_dead_device() {
    let one = |unit: u8| format!("[[source.modbus.device]]\nname = \"m{unit}\"\nunit = {unit}\nmap = \"sdm120\"\n");
    let (rig, port, dir) = rig_by_tcp(&[one(1), one(2)].concat());
    let _devices = play(dir.path(), &["--tcp", &format!("127.0.0.1:{port}"), "--unit", "2", "--map", "sdm120"]);
    let answer = rig.gateway.command(&["modbus", "read", "plc", "--timeout", "100ms"]);
    assert_eq!(answer.code, Some(65), "{}", answer.err);
    let (dead, alive) = answer.out.split_once("\nm2\n").unwrap();
    assert!(dead.contains("failed: no answer") && alive.contains("kWh") && !alive.contains("failed"), "{}", answer.out);
}

#[test]
fn check_says_what_a_line_comes_to() {
    let device = "[[source.modbus.device]]\nname = \"meter\"\nmap = \"sdm120\"\n\
        group = [{ name = \"energy\", interval = \"60s\", values = [\"energy*\"] }]\n";
    let (rig, port, _dir) = rig_by_tcp(device);
    let checked = rig.gateway.command(&["check"]).text();
    assert!(checked.contains("telemetry: when = always (implied by the source \"plc\")"), "{checked}");
    let said = "meter (unit 1) 7 values in 2 requests every 1s, energy: 3 values in 2 requests every 1m";
    assert!(checked.contains(&format!("127.0.0.1:{port}, at most 256KiB")) && checked.contains(said), "{checked}");
    let document = rig.gateway.command(&["check", "--json"]).document();
    assert_eq!(document["config"]["modbus"][0]["topics"][0], "modbus/plc/meter");
    let (code, out, _) = forebay(&["modbus", "maps"]);
    assert!(code == Some(0) && out.contains("sdm630  20 values"), "{out}");
}
