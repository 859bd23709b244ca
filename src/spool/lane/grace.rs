//! How late is late: `grace`. Pure.

use crate::config::Grace;

/// `grace = "auto"` stays between these (µs): LTE acknowledgements take 150-600 ms, and a sender's patience ends.
const AUTO_MIN_US: u64 = 250_000;
const AUTO_MAX_US: u64 = 800_000;
/// Delivery times looked at for the p99.
const SAMPLES: usize = 256;

/// Recent delivery times (step 7 to 8).
#[derive(Debug)]
pub struct DeliveryTimes {
    grace: Grace,
    samples: Vec<u64>,
    auto_us: u64,
}

impl DeliveryTimes {
    pub fn new(grace: Grace) -> Self {
        // Until there are samples: patient, as nobody knows the link yet.
        DeliveryTimes { grace, samples: Vec::with_capacity(SAMPLES), auto_us: AUTO_MAX_US }
    }

    pub fn record(&mut self, took_us: u64) {
        self.samples.push(took_us);
        if self.samples.len() == SAMPLES {
            let nth = SAMPLES * 99 / 100;
            let (_, p99, _) = self.samples.select_nth_unstable(nth);
            self.auto_us = (*p99 * 3).clamp(AUTO_MIN_US, AUTO_MAX_US);
            self.samples.clear();
        }
    }

    pub fn grace_us(&self) -> u64 {
        match self.grace {
            Grace::Auto => self.auto_us,
            Grace::Fixed(d) => d.as_micros() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn auto_is_three_times_the_p99_within_its_bounds() {
        for (took, grace) in [(1_000, AUTO_MIN_US), (100_000, 300_000), (600_000, AUTO_MAX_US)] {
            let mut times = DeliveryTimes::new(Grace::Auto);
            assert_eq!(times.grace_us(), AUTO_MAX_US);
            (0..SAMPLES).for_each(|_| times.record(took));
            assert_eq!(times.grace_us(), grace, "{took}");
        }
    }

    #[test]
    fn a_fixed_grace_does_not_learn() {
        let mut times = DeliveryTimes::new(Grace::Fixed(Duration::from_millis(40)));
        (0..SAMPLES).for_each(|_| times.record(1));
        assert_eq!(times.grace_us(), 40_000);
    }
}
