//! Tests of the listener as a whole: a machine on a bench, seeded simulations, and real connections.

#![expect(clippy::unwrap_used, reason = "tests")]

mod bench;
pub(crate) mod client;
mod framing;
mod mqtt;
mod protocol;
mod qos2;
mod sessions;
mod simulation;
mod wire;
