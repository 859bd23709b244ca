//! Rate limits: token buckets. Pure: the time comes as an argument.

use std::time::Duration;

/// Readings that may come at once after a pause, as a span of time at the allowed rate. A tenth of a second keeps the
/// reads batched without letting a burst through that the limit was meant to stop.
const BURST: Duration = Duration::from_millis(100);

/// A token bucket kept as one instant: the time at which the bucket would be full again.
#[derive(Debug)]
pub(super) struct Bucket {
    interval: Duration,
    burst: Duration,
    full_at: Duration,
}

impl Bucket {
    /// `per_second` of 0 is taken as 1: a source that never reads could not even be told from a dead one.
    pub(super) fn new(per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Bucket { interval, burst: BURST.max(interval), full_at: Duration::ZERO }
    }

    /// The time from which on the bucket is not in debt; `now` or earlier: the next may come.
    pub(super) fn ready_at(&self) -> Duration {
        self.full_at.saturating_sub(self.burst)
    }

    /// Takes `time` worth of tokens, into debt if need be: what is larger than the burst must still come through.
    pub(super) fn charge(&mut self, time: Duration, now: Duration) {
        self.full_at = self.full_at.max(now) + time;
    }

    /// Takes one token at `now` (time since any fixed moment).
    ///
    /// # Errors
    /// The time at which a token will be there.
    pub(super) fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let next = self.full_at.max(now) + self.interval;
        if next > now + self.burst {
            return Err(next - self.burst);
        }
        self.full_at = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_is_a_tenth_of_a_second_and_then_the_rate_holds() {
        let mut bucket = Bucket::new(100);
        let burst = (0..50).take_while(|_| bucket.take(Duration::ZERO).is_ok()).count();
        assert_eq!(burst, 10);
        assert_eq!(bucket.take(Duration::ZERO), Err(Duration::from_millis(10)));
        assert_eq!(bucket.take(Duration::from_millis(10)), Ok(()));
    }

    #[test]
    fn a_slow_rate_still_lets_single_readings_through() {
        let mut bucket = Bucket::new(1);
        assert_eq!(bucket.take(Duration::from_secs(5)), Ok(()));
        assert_eq!(bucket.take(Duration::from_secs(5)), Err(Duration::from_secs(6)));
    }

    proptest! {
        #[test]
        fn never_more_than_rate_plus_burst(rate in 1u32..5000, steps in prop::collection::vec(0u64..50, 1..400)) {
            let mut bucket = Bucket::new(rate);
            let (mut now, mut taken) = (Duration::ZERO, 0u64);
            for step in steps {
                now += Duration::from_millis(step);
                while bucket.take(now).is_ok() {
                    taken += 1;
                }
            }
            let allowed = (now + BURST).as_secs_f64() * f64::from(rate) + 1.0;
            prop_assert!(taken as f64 <= allowed + 1e-3, "{taken} of {allowed}");
        }

        #[test]
        fn the_promised_time_is_late_enough(rate in 1u32..5000) {
            let mut bucket = Bucket::new(rate);
            while bucket.take(Duration::ZERO).is_ok() {}
            if let Err(at) = bucket.take(Duration::ZERO) {
                prop_assert_eq!(bucket.take(at), Ok(()));
            }
        }
    }
}
