//! The documented benchmark of serial lines: `cargo bench --bench serial [-- PART...]`, rows for `docs/benchmarks.md`.
//!
//! Sixteen pseudo terminals, the release binary, a real Kafka; beside it `cat`, which reads the same ports and throws
//! everything away. Parts: `throughput line_rate`. Counts can be scaled by `FOREBAY_BENCH_SCALE` (1.0 is what the document
//! shows). Every figure is a measurement of this run, taken from outside: CPU seconds and memory from /proc, latencies from a
//! consumer.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark stops at the first surprise and prints")]
#![allow(dead_code, unused_imports, reason = "the rig is shared with the tests and with the other benchmarks")]

#[path = "../tests/harness/mod.rs"]
mod harness;

mod parts;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let all: [(&str, fn()); 2] = [("throughput", parts::serial::throughput), ("line_rate", parts::serial::line_rate)];
    for (name, part) in all {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            println!("== {name}");
            part();
        }
    }
}
