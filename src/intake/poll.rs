//! Whose turn it is to be asked, on a line that only one can use at a time. Pure: times and randomness are arguments.
//!
//! Times are since any fixed moment.

use std::time::Duration;

/// A device that does not answer is asked again after twice its interval, four times, and so on up to this long.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A turn comes late by up to one part of its interval in so many, so that lines do not fall into step.
const JITTER: u32 = 20;
/// The first turns are spread over this much at most.
const SPREAD_MAX: Duration = Duration::from_secs(1);

/// Turns of several devices.
#[derive(Debug)]
pub struct Turns {
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    interval: Duration,
    /// Without jitter, which would add up otherwise.
    base: Duration,
    due: Duration,
    failures: u32,
}

/// What an outcome changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    Same,
    /// It answered before, and does not any more.
    Mute,
    /// It answers again.
    Answers,
}

impl Turns {
    /// `random` is uniform over all of `u64`.
    pub fn new(intervals: impl IntoIterator<Item = Duration>, now: Duration, random: impl Fn() -> u64) -> Self {
        let slot = |interval: Duration| {
            let due = now + part(interval.min(SPREAD_MAX), random());
            Slot { interval, base: due, due, failures: 0 }
        };
        Turns { slots: intervals.into_iter().map(slot).collect() }
    }

    /// Who is next, and when. `None`: there is nobody.
    pub fn next(&self) -> Option<(usize, Duration)> {
        self.slots.iter().enumerate().min_by_key(|(_, slot)| slot.due).map(|(at, slot)| (at, slot.due))
    }

    /// Turns that were missed are not made up for.
    pub fn answered(&mut self, at: usize, now: Duration, random: u64) -> Turned {
        let slot = &mut self.slots[at];
        slot.base = (slot.base + slot.interval).max(now);
        slot.due = slot.base + part(slot.interval / JITTER, random);
        if std::mem::take(&mut slot.failures) > 0 { Turned::Answers } else { Turned::Same }
    }

    /// It did not answer, its retries included: whoever waits longest for it are the others.
    pub fn failed(&mut self, at: usize, now: Duration, random: u64) -> Turned {
        let slot = &mut self.slots[at];
        let pause = slot.interval.saturating_mul(2 << slot.failures.min(16)).min(PAUSE_MAX.max(slot.interval));
        slot.base = now + pause;
        slot.due = slot.base + part(pause / JITTER, random);
        slot.failures = slot.failures.saturating_add(1);
        if slot.failures == 1 { Turned::Mute } else { Turned::Same }
    }

    pub fn is_mute(&self, at: usize) -> bool {
        self.slots[at].failures > 0
    }
}

fn part(whole: Duration, random: u64) -> Duration {
    whole.mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_mute_device_is_told_once_and_asked_less_and_less() {
        let mut turns = Turns::new([100 * MS], Duration::ZERO, || 0);
        let mut now = Duration::ZERO;
        let mut pauses = Vec::new();
        let mut told = Vec::new();
        for _ in 0..12 {
            told.push(turns.failed(0, now, 0));
            let due = turns.next().map_or(now, |(_, due)| due);
            pauses.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(pauses[..5], [200, 400, 800, 1_600, 3_200]);
        assert_eq!(pauses[11], 60_000);
        assert_eq!(told.iter().filter(|change| **change == Turned::Mute).count(), 1);
        assert_eq!(turns.answered(0, now, 0), Turned::Answers);
        assert_eq!(turns.next(), Some((0, now + 100 * MS)));
    }

    #[test]
    fn missed_turns_are_not_made_up_for() {
        let mut turns = Turns::new([100 * MS], Duration::ZERO, || 0);
        assert_eq!(turns.answered(0, 950 * MS, 0), Turned::Same);
        assert_eq!(turns.next(), Some((0, 950 * MS)));
        assert_eq!(turns.answered(0, 960 * MS, 0), Turned::Same);
        assert_eq!(turns.next(), Some((0, 1_050 * MS)));
    }

    proptest! {
        /// Each takes 10 ms to answer and 50 ms to be silent; the living ones keep their interval whatever the dead do.
        #[test]
        fn the_dead_never_starve_the_living(dead in 0usize..6, living in 1usize..6, seed in any::<u64>()) {
            let intervals = vec![1_000 * MS; dead + living];
            let mut turns = Turns::new(intervals, Duration::ZERO, || seed);
            let mut now = Duration::ZERO;
            let mut asked = vec![0u32; dead + living];
            while now < Duration::from_secs(600) {
                let Some((at, due)) = turns.next() else { break };
                now = now.max(due);
                asked[at] += 1;
                if at < dead {
                    now += 50 * MS;
                    turns.failed(at, now, seed);
                } else {
                    now += 10 * MS;
                    turns.answered(at, now, seed);
                }
            }
            for (at, times) in asked.iter().enumerate() {
                if at < dead {
                    prop_assert!(*times <= 20, "a dead one was asked {times} times");
                } else {
                    prop_assert!((550..=602).contains(times), "a living one was asked {times} times");
                }
            }
        }
    }
}
