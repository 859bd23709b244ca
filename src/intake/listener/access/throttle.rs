//! Slows those down who guess passwords. Pure: the time is passed in.
//!
//! Each address has its own pace: a device with a wrong password holds up those that share its address, and nobody else.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Failures that cost nothing: a person may mistype.
const FREE: u32 = 3;
const STEP: Duration = Duration::from_millis(250);
const STEP_MAX: Duration = Duration::from_secs(30);
/// Every so often half of an address's failures are forgotten.
const HALF_LIFE: Duration = Duration::from_secs(60);
/// Addresses remembered. The one with the fewest failures makes room.
const ADDRESSES_MAX: usize = 1_024;
/// A login that would have to wait longer is refused instead.
const WAIT_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct Throttle {
    /// `None`: Unix sockets.
    addresses: HashMap<Option<IpAddr>, Entry>,
}

#[derive(Debug)]
struct Entry {
    failures: u32,
    /// Of the last failure, or of the last time that failures were forgotten.
    since: Instant,
    /// When the next login may be tried.
    next: Instant,
}

impl Throttle {
    /// How long a login from `address` has to wait, and takes that turn. `None`: too long.
    pub fn turn(&mut self, address: Option<IpAddr>, now: Instant) -> Option<Duration> {
        let Some(entry) = self.addresses.get_mut(&address) else { return Some(Duration::ZERO) };
        entry.forget(now);
        let at = entry.next.max(now);
        let wait = at - now;
        if wait > WAIT_MAX {
            return None;
        }
        entry.next = at + entry.step();
        Some(wait)
    }

    pub fn failed(&mut self, address: Option<IpAddr>, now: Instant) {
        if !self.addresses.contains_key(&address) {
            self.make_room(now);
        }
        let entry = self.addresses.entry(address).or_insert(Entry { failures: 0, since: now, next: now });
        entry.forget(now);
        entry.failures = entry.failures.saturating_add(1);
        entry.since = now;
        entry.next = entry.next.max(now + entry.step());
    }

    fn make_room(&mut self, now: Instant) {
        if self.addresses.len() < ADDRESSES_MAX {
            return;
        }
        self.addresses.retain(|_, entry| {
            entry.forget(now);
            entry.failures > 0
        });
        if self.addresses.len() < ADDRESSES_MAX {
            return;
        }
        let fewest = self.addresses.iter().min_by_key(|(_, entry)| entry.failures).map(|(&address, _)| address);
        if let Some(address) = fewest {
            self.addresses.remove(&address);
        }
    }
}

impl Entry {
    fn step(&self) -> Duration {
        match self.failures.checked_sub(FREE + 1) {
            Some(beyond) => STEP.saturating_mul(1 << beyond.min(16)).min(STEP_MAX),
            None => Duration::ZERO,
        }
    }

    fn forget(&mut self, now: Instant) {
        let halves = now.saturating_duration_since(self.since).as_secs() / HALF_LIFE.as_secs();
        let halves = u32::try_from(halves).unwrap_or(u32::MAX);
        self.failures = self.failures.checked_shr(halves).unwrap_or(0);
        self.since += HALF_LIFE.saturating_mul(halves);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(n: u32) -> Option<IpAddr> {
        Some(IpAddr::from(n.to_be_bytes()))
    }

    #[test]
    fn a_guesser_gets_slower_and_nobody_else_does() {
        let (mut throttle, mut now) = (Throttle::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..9 {
            let wait = throttle.turn(address(1), now).expect("the waits are still short");
            waits.push(wait.as_millis());
            now += wait;
            throttle.failed(address(1), now);
        }
        assert_eq!(waits, [0, 0, 0, 0, 250, 500, 1_000, 2_000, 4_000]);
        assert_eq!(throttle.turn(address(2), now), Some(Duration::ZERO));
    }

    #[test]
    fn many_at_once_from_one_address_wait_one_behind_the_other() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        (0..8).for_each(|_| throttle.failed(address(1), now));
        let waits: Vec<_> = (0..4).map(|_| throttle.turn(address(1), now).map(|wait| wait.as_secs())).collect();
        assert_eq!(waits, [Some(4), Some(8), None, None]);
    }

    #[test]
    fn failures_are_forgotten() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        (0..40).for_each(|_| throttle.failed(address(1), now));
        assert_eq!(throttle.turn(address(1), now), None);
        let later = now + HALF_LIFE * 6;
        assert_eq!(throttle.turn(address(1), later), Some(Duration::ZERO));
        assert_eq!(throttle.turn(address(1), later), Some(Duration::ZERO));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_table_keeps_its_bound_and_its_worst(steps in prop::collection::vec((0_u32..3_000, 0_u64..5), 1..3_000)) {
            let (mut throttle, mut now) = (Throttle::default(), Instant::now());
            (0..50).for_each(|_| throttle.failed(None, now));
            for (n, seconds) in steps {
                // Within one half-life in all, so that the worst one stays the worst.
                now += Duration::from_millis(seconds);
                throttle.failed(address(n), now);
                prop_assert!(throttle.addresses.len() <= ADDRESSES_MAX);
            }
            prop_assert_eq!(throttle.turn(None, now), None);
        }
    }
}
