//! Operation: what the outside can see and ask while the gateway runs.

pub mod control;
pub mod histogram;
pub mod http;
pub mod metrics;
pub mod snapshot;
