//! Tests of the program as a whole: one binary, so that it links once and its tests share one Kafka.
//!
//! `demo` runs `forebay demo`, `harness` is the rig with its own tests, `listener` is it an MQTT server, `listener_path` the
//! scenarios of devices that publish straight to the gateway, `main_path` the scenarios of the path of a reading, `modbus`
//! and `serial` those of lines, `interop` runs programs of others, `packages` what the packages hold, `passwd` a listener's
//! users, `service` what systemd sees, `tidy` the rules of the repository. Nothing is ever skipped: a missing tool fails
//! the test that needs it and names its Debian package.
#![expect(clippy::unwrap_used, reason = "tests")]

mod demo;
mod harness;
mod interop;
mod listener;
mod listener_path;
mod main_path;
mod modbus;
mod packages;
mod passwd;
mod serial;
mod service;
mod tidy;
