//! The one table of error classes (design section 7). Pure.

use crate::forward::kafka::Code;
use crate::spool::lane::Outcome;

/// What a failed delivery means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Worth sending again as it is.
    Transient,
    /// The topic refuses: its records are parked, the other topics go on.
    TopicBlocked,
    /// Nobody will ever take this record.
    Record,
    /// A limit of the batch or of one record in it: sent alone, it shows whose fault it was.
    BatchTooLarge,
    /// The broker does not take this timestamp; the record goes again with another.
    Timestamp,
    /// The producer is of no use any more.
    Fatal,
}

pub fn classify(code: Code) -> Class {
    match code {
        // Also what a purge reports: the record may or may not be in Kafka.
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::PolicyViolation => Class::TopicBlocked,
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => Class::BatchTooLarge,
        Code::InvalidTimestamp => Class::Timestamp,
        Code::InvalidTopic
        | Code::InvalidMessage
        | Code::InvalidRecord
        | Code::InvalidMessageSize
        | Code::UnsupportedForMessageFormat => Class::Record,
        Code::Fatal | Code::GaplessGuarantee | Code::ProducerFenced | Code::Fenced | Code::InvalidProducerEpoch => {
            Class::Fatal
        }
        code if misses_records(code) => Class::Fatal,
        _ => Class::Transient,
    }
}

/// The broker misses records of this producer that it had acknowledged.
pub fn misses_records(code: Code) -> bool {
    matches!(code, Code::OutOfOrderSequenceNumber | Code::UnknownProducerId)
}

impl Class {
    /// `alone`: the record was a batch of its own.
    pub fn outcome(self, cause: String, alone: bool) -> Outcome {
        match self {
            Class::TopicBlocked => Outcome::TopicBlocked(cause),
            Class::Record => Outcome::Faulty(cause),
            Class::BatchTooLarge if alone => Outcome::Faulty(cause),
            Class::BatchTooLarge | Class::Timestamp | Class::Transient | Class::Fatal => Outcome::Again,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_codes() {
        for (code, class) in [
            (Code::MessageTimedOut, Class::Transient),
            (Code::NotEnoughReplicas, Class::Transient),
            (Code::PurgeQueue, Class::Transient),
            (Code::AllBrokersDown, Class::Transient),
            (Code::UnknownTopic, Class::TopicBlocked),
            (Code::TopicAuthorizationFailed, Class::TopicBlocked),
            (Code::InvalidRecord, Class::Record),
            (Code::InvalidTimestamp, Class::Timestamp),
            (Code::MessageSizeTooLarge, Class::BatchTooLarge),
            (Code::Fatal, Class::Fatal),
            (Code::OutOfOrderSequenceNumber, Class::Fatal),
        ] {
            assert_eq!(classify(code), class, "{code:?}");
        }
    }

    #[test]
    fn a_batch_condemns_nobody() {
        assert_eq!(Class::BatchTooLarge.outcome("too large".into(), false), Outcome::Again);
        assert_eq!(Class::BatchTooLarge.outcome("too large".into(), true), Outcome::Faulty("too large".into()));
    }
}
