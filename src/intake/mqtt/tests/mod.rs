//! The source against scripted, real and embedded brokers.

mod broker;
mod cost;
mod scripted;
pub mod support;
mod tls;
