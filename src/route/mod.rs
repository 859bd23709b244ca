//! Route: which lane, Kafka topic, key, headers and timestamp a reading gets (step 2 to 3).
//!
//! Owns the compiled `[[route]]` tables and the registry of Kafka names in use. Pure: no I/O, no clock, spawns
//! nothing, logs nothing. It never changes a payload and never loses a reading silently: each one ends as a record, as
//! a dead letter with its cause in words, or as a drop that was asked for by name and is counted.

mod compiled;
mod error;
pub mod filter;
mod headers;
pub mod json;
pub mod kafka_name;
mod names;
mod render;
pub mod spec;
mod table;
pub mod template;
#[cfg(test)]
mod tests;
pub mod timestamp;

pub use error::{ParseError, RouteError, RouterError};
pub use names::Twins;
pub use table::{Counters, Router};
