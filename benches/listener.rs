//! The documented benchmark of the listener: `cargo bench --bench listener [-- PART...]`, rows for `docs/benchmarks.md`.
//!
//! Devices publish straight to the release binary, which forwards to a real Kafka; a real Mosquitto is measured beside it
//! by the same loader. Parts: `throughput latency idle`. Counts can be scaled by `FOREBAY_BENCH_SCALE` (1.0 is what the
//! document shows). Every figure is a measurement of this run, taken from outside: CPU seconds and memory from /proc, the
//! loader's CPU seconds from the kernel's account of ended children, latencies from the loader and from a consumer.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark stops at the first surprise and prints")]
#![allow(dead_code, unused_imports, reason = "the rig is shared with the tests and with the other benchmark")]

#[path = "../tests/harness/mod.rs"]
mod harness;

mod parts;

fn main() {
    parts::idle::raise_descriptors();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let all: [(&str, fn()); 3] = [
        ("throughput", parts::listener::throughput),
        ("latency", parts::listener::latency),
        ("idle", parts::idle::idle),
    ];
    for (name, part) in all {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            println!("== {name}");
            part();
        }
    }
}
