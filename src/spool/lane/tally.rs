//! What a lane has on disk, counted exactly. Pure.
//!
//! After a start the rows of earlier runs are counted in slices while the first of them are already being delivered.
//! Each row is counted as it was at the start, sooner or later, and each change is counted when it happens; until the
//! count is done a number can therefore be below zero, and is shown as zero.

use super::Backlog;
use crate::spool::Freed;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub chunks: i64,
    pub records: i64,
    pub bytes: i64,
    /// Delivered chunks kept as history.
    pub history_bytes: i64,
    /// Delivered chunks held until the broker must have them on disk.
    pub settling_bytes: i64,
}

impl Tally {
    pub fn add(&mut self, found: Freed) {
        self.chunks += found.chunks as i64;
        self.records += found.records as i64;
        self.bytes += found.bytes as i64;
        self.history_bytes += found.history_bytes as i64;
    }

    pub fn take(&mut self, freed: Freed) {
        self.chunks -= freed.chunks as i64;
        self.records -= freed.records as i64;
        self.bytes -= freed.bytes as i64;
        self.history_bytes -= freed.history_bytes as i64;
    }

    pub fn shown(&self) -> Backlog {
        let shown = |n: i64| u64::try_from(n).unwrap_or(0);
        Backlog {
            chunks: shown(self.chunks),
            records: shown(self.records),
            bytes: shown(self.bytes),
            history_bytes: shown(self.history_bytes),
            settling_bytes: shown(self.settling_bytes),
        }
    }
}
