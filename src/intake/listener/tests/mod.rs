//! Tests of the listener as a whole: a machine on a bench, seeded simulations, and real connections.

mod bench;
mod client;
mod framing;
mod protocol;
mod qos2;
mod sessions;
mod simulation;
mod wire;
