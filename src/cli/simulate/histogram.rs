//! Latencies in fixed memory. Pure. Buckets grow with the value: each power of two is cut into 32 equal parts, so that
//! every quantile is right to about 3 %, from a microsecond to more than an hour, in 7 KiB.

/// Parts of one power of two, as a power of two itself.
const PART_BITS: u32 = 5;
const PARTS: usize = 1 << PART_BITS;
/// Values of up to 2^32 µs (71 minutes) are told apart; longer ones count into the last bucket, and into the maximum.
const BUCKETS: usize = PARTS * (32 - PART_BITS as usize + 1);

/// Counts of latencies in microseconds.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    total: u64,
    max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0, max_us: 0 }
    }
}

impl Histogram {
    pub fn record_us(&mut self, value_us: u64) {
        self.counts[bucket(value_us)] += 1;
        self.total += 1;
        self.max_us = self.max_us.max(value_us);
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    /// The longest latency seen, exactly, in microseconds.
    pub fn max_us(&self) -> u64 {
        self.max_us
    }

    /// The latency that `part` (0.0 to 1.0) of all values do not exceed, in microseconds, rounded up to the end of its
    /// bucket; 0 when nothing was recorded.
    pub fn quantile_us(&self, part: f64) -> u64 {
        let wanted = ((self.total as f64 * part).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return highest_us(index).min(self.max_us);
            }
        }
        self.max_us
    }
}

/// Small values have a bucket each; larger ones share it with those that agree in the leading bits.
fn bucket(value_us: u64) -> usize {
    let value = value_us.min(u64::from(u32::MAX));
    let Some(shift) = (63 - (value | 1).leading_zeros()).checked_sub(PART_BITS) else {
        return value as usize;
    };
    let part = (value >> shift) as usize - PARTS;
    PARTS * (shift as usize + 1) + part
}

/// The largest value that falls into a bucket.
fn highest_us(index: usize) -> u64 {
    if index < PARTS {
        return index as u64;
    }
    let shift = (index / PARTS - 1) as u32;
    let part = (index % PARTS + PARTS) as u64;
    ((part + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn empty_says_zero() {
        let histogram = Histogram::default();
        assert_eq!((histogram.quantile_us(0.5), histogram.max_us(), histogram.total()), (0, 0, 0));
    }

    #[test]
    fn small_values_are_exact() {
        let mut histogram = Histogram::default();
        (1..=20).for_each(|value| histogram.record_us(value));
        assert_eq!(histogram.quantile_us(0.5), 10);
        assert_eq!(histogram.quantile_us(1.0), 20);
    }

    #[test]
    fn beyond_the_last_bucket_the_maximum_still_counts() {
        let mut histogram = Histogram::default();
        histogram.record_us(u64::MAX);
        assert_eq!(histogram.quantile_us(0.99), u64::from(u32::MAX));
        assert_eq!(histogram.max_us(), u64::MAX);
    }

    proptest! {
        #[test]
        fn each_value_lies_in_its_bucket(value in 0_u64..=u64::from(u32::MAX)) {
            let index = bucket(value);
            prop_assert!(index < BUCKETS);
            prop_assert!(value <= highest_us(index));
            prop_assert!(index == 0 || value > highest_us(index - 1));
        }

        #[test]
        fn quantiles_are_right_to_a_bucket(
            mut values in prop::collection::vec(0_u64..10_000_000, 1..400),
            part in 0.0_f64..=1.0,
        ) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.record_us(*value));
            values.sort_unstable();
            let rank = ((values.len() as f64 * part).ceil() as usize).clamp(1, values.len());
            let exact = values[rank - 1];
            let told = histogram.quantile_us(part);
            prop_assert!(told >= exact && told as f64 <= exact as f64 * 1.04 + 1.0, "told {told}, exact {exact}");
        }
    }
}
