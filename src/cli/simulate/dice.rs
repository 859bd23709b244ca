//! Seeded chance. Purpose: the same seed gives the same run of the simulator. Owns one 64-bit state. It never asks the
//! system for randomness and is no good for secrets.

/// A source of chance whose whole future follows from its seed.
#[derive(Debug, Clone)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// Dice of their own for each `(seed, device, equipment)`, so that adding a device does not change the others.
    pub fn of(seed: u64, device: u32, equipment: u32) -> Self {
        let mut dice = Self { state: seed };
        dice.state = dice.next() ^ (u64::from(device) << 32) ^ u64::from(equipment);
        dice.next();
        dice
    }

    /// The next 64 bits. The additive step visits every state once; the mixing makes neighbours look unrelated.
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0.0..1.0`.
    pub fn fraction(&mut self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Whether something of this probability happens. Always uses up one throw, whatever the answer.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }

    /// A number in `low..=high`; `low` when the range is empty.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        let throw = self.next();
        let span = high.saturating_sub(low);
        if span == u64::MAX { throw } else { low + throw % (span + 1) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn same_seed_same_throws_and_neighbours_differ() {
        let throws = |mut dice: Dice| -> Vec<u64> { (0..50).map(|_| dice.next()).collect() };
        assert_eq!(throws(Dice::of(7, 1, 2)), throws(Dice::of(7, 1, 2)));
        assert_ne!(throws(Dice::of(7, 1, 2)), throws(Dice::of(7, 1, 3)));
        assert_ne!(throws(Dice::of(7, 1, 2)), throws(Dice::of(8, 1, 2)));
    }

    #[test]
    fn chance_is_fair_enough() {
        let mut dice = Dice::of(1, 0, 0);
        let hits = (0..100_000).filter(|_| dice.happens(0.01)).count();
        assert!((850..1150).contains(&hits), "{hits} of 100,000 at 1 %");
    }

    proptest! {
        #[test]
        fn between_stays_between(seed: u64, low: u64, high: u64) {
            let throw = Dice::of(seed, 0, 0).between(low, high);
            prop_assert!(throw >= low && (throw <= high || high < low));
        }
    }
}
