//! `[[source.listener]]`: an MQTT server of our own, whose PUBACK and PUBREC mean durable.
//!
//! `transport/` brings connections in (TCP, TLS, WebSocket, Unix sockets) and bounds their number; `access/` says who may
//! come in and what for.

pub mod access;
pub mod counters;
pub mod transport;
