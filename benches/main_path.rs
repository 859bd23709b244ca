//! The documented benchmark: `cargo bench --bench main_path [-- PART...]`, results for `docs/benchmarks.md`.
//!
//! Real Mosquitto, real Kafka, the release binary. Parts: `size spool throughput latency thin drain full`. Counts can be
//! scaled by `FOREBAY_BENCH_SCALE` (1.0 is what the document shows). Every figure is a measurement of this run: CPU
//! seconds from /proc/<pid>/stat, memory from /proc/<pid>/status, device bytes from /proc/<pid>/io.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark stops at the first surprise and prints")]
#![allow(dead_code, unused_imports, reason = "the rig is shared with the tests")]

#[path = "../tests/harness/mod.rs"]
mod harness;

mod parts;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let all: [(&str, fn()); 7] = [
        ("size", parts::size),
        ("spool", parts::spool),
        ("throughput", parts::throughput),
        ("latency", parts::latency),
        ("thin", parts::thin),
        ("drain", parts::drain),
        ("full", parts::full),
    ];
    for (name, part) in all {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            println!("== {name}");
            part();
        }
    }
}
