//! kill -9 under load. Nobody sends a frame twice, so what counts is what was committed: it arrives, in order, and a
//! repeat carries the id of the first.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::serial::rig::{Rig, by_key};

fn killed_at(point: &str, passage: usize) {
    let mut rig = Rig::build(1, "");
    rig.gateway.start_with_fault(&format!("{point}:{passage}"));
    let speaker = Speaker::start(rig.cables[0].end());
    rig.gateway.wait_for_fault(point);
    rig.gateway.kill9();
    // socat takes the port's closing for the end of the line.
    rig.cables[0].replug();
    let status = rig.gateway.command(&["status", "--json"]).document();
    let lanes = status["lanes"].as_array().unwrap();
    let lane = lanes.iter().find(|lane| lane["name"] == "telemetry");
    let committed = lane.and_then(|lane| lane["records"].as_u64()).unwrap_or(0) as usize;
    rig.gateway.start();
    rig.wait_open(1);
    rig.readings(committed + 200);
    drop(speaker);
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

/// Numbered lines in the background, until dropped.
struct Speaker(Arc<AtomicBool>);

impl Speaker {
    fn start(device: PathBuf) -> Speaker {
        let done = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&done);
        // Nobody joins it: a write to a cable that nobody reads waits until the cable is unplugged, and then fails.
        std::thread::spawn(move || {
            let mut line: Option<File> = None;
            for number in 0u64.. {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let written =
                    line.as_mut().is_some_and(|line| line.write_all(format!("{number}\n").as_bytes()).is_ok());
                if !written {
                    line = OpenOptions::new().write(true).open(&device).ok();
                }
                // A tenth of what 115,200 baud carry: the test is about kills, not about speed.
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Speaker(done)
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
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
