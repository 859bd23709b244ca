//! Latencies by numbered step, in fixed buckets. Pure.

use serde::Serialize;

/// Upper bounds in µs: from a memory copy to an LTE link that comes back after minutes.
pub const BOUNDS_US: [u64; 16] = [
    250,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    10_000_000,
    60_000_000,
    600_000_000,
];

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Histogram {
    /// Observations up to the bound of the same place; the last one is beyond all bounds.
    pub counts: [u64; BOUNDS_US.len() + 1],
    pub sum_us: u64,
}

impl Histogram {
    pub fn record(&mut self, us: u64) {
        self.record_many(us, 1);
    }

    /// `n` observations of one length: those that came and went together.
    pub fn record_many(&mut self, us: u64, n: u64) {
        let place = BOUNDS_US.partition_point(|b| *b < us);
        self.counts[place] += n;
        self.sum_us = self.sum_us.saturating_add(us.saturating_mul(n));
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_lies_in_the_first_bucket_that_takes_it() {
        let mut h = Histogram::default();
        for us in [0, 250, 251, 700_000_000] {
            h.record(us);
        }
        h.record_many(500, 3);
        assert_eq!((h.counts[0], h.counts[1], h.counts[16]), (2, 4, 1));
        assert_eq!((h.count(), h.sum_us), (7, 700_002_001));
    }
}
