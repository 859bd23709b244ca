//! What has happened so far. Owns the counts of one run; many connections add to them, and whoever wants may look.

use std::sync::Mutex;
use std::time::Duration;

use serde::Serialize;

use super::histogram::Histogram;

/// Counts since the start of a run.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Messages handed to a connection, each once however often it was sent again.
    pub sent: u64,
    /// Acknowledged by PUBACK, PUBCOMP or a delivery report.
    pub acknowledged: u64,
    /// Answered, but with an error.
    pub refused: u64,
    /// Sent again after a reconnect.
    pub resent: u64,
    /// Acknowledgements of nothing that was outstanding.
    pub stray: u64,
    /// Readings that were never made, because their time passed while the connection was away or its window full.
    pub skipped: u64,
    /// Connections open now.
    pub connected: u32,
    pub disconnects: u64,
    pub faults: FaultCounts,
    /// From the first sending to the acknowledgement.
    pub latency: Histogram,
    /// Since the start of the run.
    pub first_sent: Option<Duration>,
    /// Of the last sending or acknowledgement, since the start of the run.
    pub last_progress: Duration,
}

/// The faults that were played, by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FaultCounts {
    pub doubles: u64,
    pub disorder: u64,
    pub late: u64,
    pub malformed: u64,
    pub burst: u64,
    pub die: u64,
}

impl FaultCounts {
    pub fn total(&self) -> u64 {
        self.doubles + self.disorder + self.late + self.malformed + self.burst + self.die
    }
}

impl Counts {
    pub fn outstanding(&self) -> u64 {
        self.sent.saturating_sub(self.acknowledged + self.refused)
    }

    pub fn note_sent(&mut self, messages: u64, at: Duration) {
        self.sent += messages;
        self.first_sent.get_or_insert(at);
        self.last_progress = self.last_progress.max(at);
    }

    pub fn note_acknowledged(&mut self, sent_at: Duration, at: Duration) {
        let latency_us = at.saturating_sub(sent_at).as_micros();
        self.acknowledged += 1;
        self.latency.record_us(u64::try_from(latency_us).unwrap_or(u64::MAX));
        self.last_progress = self.last_progress.max(at);
    }

    /// From the first sending to the last sending or acknowledgement.
    pub fn busy(&self) -> Duration {
        self.last_progress.saturating_sub(self.first_sent.unwrap_or_default())
    }
}

/// The counts, shared. A plain mutex: it is held for a few additions and never across an await.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

impl Tally {
    pub fn add(&self, change: impl FnOnce(&mut Counts)) {
        // A panic while counting cannot leave a count half written: the numbers behind a poisoned lock are usable.
        change(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    pub fn counts(&self) -> Counts {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_runs_from_the_first_sending_to_the_last_acknowledgement() {
        let tally = Tally::default();
        let ms = Duration::from_millis;
        tally.add(|counts| counts.note_sent(2, ms(100)));
        tally.add(|counts| counts.note_acknowledged(ms(100), ms(150)));
        tally.add(|counts| counts.note_sent(1, ms(120)));
        let counts = tally.counts();
        assert_eq!((counts.sent, counts.acknowledged, counts.outstanding()), (3, 1, 2));
        assert_eq!(counts.busy(), ms(50));
        assert_eq!(counts.latency.max_us(), 50_000);
    }
}
