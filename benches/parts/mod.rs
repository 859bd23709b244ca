//! The parts of the benchmark, and what they share: processes measured from outside.

mod core;
pub mod idle;
mod kafka;
mod link;
pub mod listener;
mod path;
pub mod serial;

pub use core::{drain, full, size, spool};
pub use path::{latency, thin, throughput};

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::harness::gateway::Gateway;

/// `count` scaled by the environment.
pub fn scaled(count: u64) -> u64 {
    let scale: f64 = std::env::var("FOREBAY_BENCH_SCALE").ok().and_then(|s| s.parse().ok()).unwrap_or(1.0);
    (count as f64 * scale) as u64
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    pub cpu_s: f64,
    pub device_bytes: u64,
}

pub fn used(pid: u32) -> Used {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let written = io.lines().find_map(|l| l.strip_prefix("write_bytes: ")).map_or(0, |n| n.parse().unwrap());
    Used { cpu_s: ticks / 100.0, device_bytes: written }
}

impl Used {
    pub fn since(self, before: Used) -> Used {
        Used { cpu_s: self.cpu_s - before.cpu_s, device_bytes: self.device_bytes - before.device_bytes }
    }
}

/// MiB, now and at most.
pub fn memory(pid: u32) -> (f64, f64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = |key: &str| -> f64 {
        let line = status.lines().find_map(|l| l.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    };
    (kib("VmRSS:") / 1024.0, kib("VmHWM:") / 1024.0)
}

/// The value at quantile `q` of sorted values.
pub fn quantile(sorted: &[i64], q: f64) -> i64 {
    sorted[((sorted.len() - 1) as f64 * q) as usize]
}

/// What a loader said at its end, and what it used.
pub struct Loaded {
    /// The JSON summary of `forebay simulate`.
    pub summary: serde_json::Value,
    pub cpu_s: f64,
}

/// `forebay simulate` in rate mode over 50 connections; returns its JSON summary.
pub fn load(port: u16, rate: &str, count: u64, more: &[&str]) -> serde_json::Value {
    load_over(50, port, rate, count, more).summary
}

/// The same over as many connections as asked.
pub fn load_over(connections: u32, port: u16, rate: &str, count: u64, more: &[&str]) -> Loaded {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(["simulate", "--mqtt", &format!("127.0.0.1:{port}"), "--rate", rate, "--count", &count.to_string()]);
    command.args(["--connections", &connections.to_string()]);
    command.args(["--size", "200", "--topic", "plant/line1/{device}/status", "--json"]);
    let before = ended_children_cpu_s();
    let output = command.args(more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Loaded { summary: serde_json::from_slice(&output.stdout).unwrap(), cpu_s: ended_children_cpu_s() - before }
}

/// CPU seconds of all children that have ended. Those that run on, such as Kafka, are not in it.
fn ended_children_cpu_s() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
}

pub fn wait_delivered(gateway: &Gateway, count: u64) {
    crate::harness::jobs::wait_long(&format!("{count} records delivered"), std::time::Duration::from_secs(600), || {
        let metrics = gateway.metrics();
        let lane = metrics.get("forebay_lane_delivered_total{lane=\"telemetry\"}").copied().unwrap_or_default();
        (lane >= count as f64).then_some(())
    });
}

pub fn file_len(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}
