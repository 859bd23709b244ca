//! Serial lines, end to end: socat's pseudo terminals, the real gateway, a real Kafka.

mod commands;
mod kills;
pub mod lines;
pub mod rig;
