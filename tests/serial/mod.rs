//! Serial lines, end to end: socat's pseudo terminals, the real gateway, a real Kafka.

mod commands;
mod kills;
mod lines;
pub mod rig;
