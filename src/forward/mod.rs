//! Forward: records to Kafka (steps 6 to 8), and what an answer means.

pub mod client;
pub mod errors;
pub mod kafka;
pub mod marks;
pub mod replay;
pub mod reports;
#[cfg(test)]
mod tests;
pub mod times;

use crate::spool::lane::Outcome;
use crate::spool::window::Key;

/// A delivery report on its way to the hub (step 8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub lane: usize,
    pub key: Key,
    pub outcome: Outcome,
}

/// Something about a producer that the hub must act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProducerNote {
    /// librdkafka gave up: drop the producer, make a new one, send again what is unsettled.
    Fatal { cluster: usize, generation: u64, cause: String },
    /// No broker answers, or some do again.
    Reachable { cluster: usize, up: bool, cause: String },
}
