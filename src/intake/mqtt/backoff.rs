//! How long to wait before the next attempt. Pure: randomness and times come as arguments.

use std::collections::VecDeque;
use std::time::Duration;

/// Exponential back-off with jitter between half and all of the step.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    /// A `min` of zero would spin, and a `max` below `min` would shrink: both are raised.
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        let min = min.max(Duration::from_millis(1));
        Backoff { min, max: max.max(min), attempts: 0 }
    }

    /// The next pause. `random` is uniform over all of `u64`.
    pub(super) fn pause(&mut self, random: u64) -> Duration {
        let step = self.min.saturating_mul(1u32 << self.attempts.min(30)).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        let half = step / 2;
        half + half.mul_f64(random as f64 / u64::MAX as f64)
    }

    /// Starts over, but only if the connection outlived the longest pause: one that is accepted and dropped at once
    /// must not reset us into a tight loop.
    pub(super) fn connection_lived(&mut self, lifetime: Duration) {
        if lifetime >= self.max {
            self.attempts = 0;
        }
    }

    /// Starts over: what was asked for has been granted.
    pub(super) fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// Take-overs older than this are forgotten.
const TAKE_OVER_WINDOW: Duration = Duration::from_secs(600);
/// More take-overs than this within the window mean a second client with our client id.
const TAKE_OVERS_MAX: usize = 3;
/// Enough to grow the pause to its bound; the list needs no more.
const REMEMBERED_MAX: usize = 16;

/// Counts how often our session was taken over lately.
#[derive(Debug, Default)]
pub(super) struct TakeOvers {
    at: VecDeque<Duration>,
}

impl TakeOvers {
    /// Notes a take-over at `now` (time since the session's start). Returns the number within the window when that is
    /// a conflict of identities.
    pub(super) fn note(&mut self, now: Duration) -> Option<u32> {
        self.at.push_back(now);
        while self.at.len() > REMEMBERED_MAX || self.at.front().is_some_and(|&at| at + TAKE_OVER_WINDOW < now) {
            self.at.pop_front();
        }
        (self.at.len() > TAKE_OVERS_MAX).then_some(self.at.len() as u32)
    }

    /// The pause in a conflict: it doubles with each further take-over up to 16 times `backoff_max`, so that two
    /// clients with one id do not play ping-pong.
    pub(super) fn pause(takeovers: u32, backoff_max: Duration) -> Duration {
        let beyond = takeovers.saturating_sub(TAKE_OVERS_MAX as u32).min(4);
        backoff_max.saturating_mul(1 << beyond)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn pauses_double_up_to_the_bound() {
        let mut backoff = Backoff::new(seconds(1), seconds(10));
        let pauses: Vec<u64> = (0..6).map(|_| backoff.pause(u64::MAX).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn only_a_connection_that_lived_resets() {
        let mut backoff = Backoff::new(seconds(1), seconds(10));
        backoff.pause(0);
        backoff.pause(0);
        backoff.connection_lived(seconds(9));
        assert_eq!(backoff.pause(u64::MAX), seconds(4));
        backoff.connection_lived(seconds(10));
        assert_eq!(backoff.pause(u64::MAX), seconds(1));
    }

    #[test]
    fn the_fourth_take_over_in_ten_minutes_is_a_conflict() {
        let mut takeovers = TakeOvers::default();
        let found: Vec<Option<u32>> = [0, 100, 200, 599, 650, 2000].map(|at| takeovers.note(seconds(at))).into();
        assert_eq!(found, [None, None, None, Some(4), Some(4), None]);
    }

    #[test]
    fn conflict_pauses_grow_and_stop_growing() {
        let pauses: Vec<u64> = (4..=9).map(|n| TakeOvers::pause(n, seconds(30)).as_secs()).collect();
        assert_eq!(pauses, [60, 120, 240, 480, 480, 480]);
    }

    proptest! {
        #[test]
        fn every_pause_lies_between_half_the_least_and_the_bound(
            min in 1u64..5_000, span in 0u64..100_000, randoms in prop::collection::vec(any::<u64>(), 1..60)
        ) {
            let (min, max) = (Duration::from_millis(min), Duration::from_millis(min + span));
            let mut backoff = Backoff::new(min, max);
            for random in randoms {
                let pause = backoff.pause(random);
                prop_assert!(pause >= min / 2 && pause <= max);
            }
        }
    }
}
