//! The hub with its owner thread and a real file, without sources and with a Kafka that never answers: whoever is
//! acknowledged is so by a commit.

#![expect(clippy::unwrap_used, reason = "tests")]

mod keeping;
mod listener;
