//! Tests of the program as a whole: one binary, so that it links once and its tests share one Kafka.
//!
//! `harness` is the rig and its own tests, `main_path` the scenarios of the path of a reading, `tidy` the rules of the
//! repository.
#![expect(clippy::unwrap_used, reason = "tests")]

mod harness;
