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

/// Turns of several devices, each of which may have turns of several kinds.
#[derive(Debug)]
pub struct Turns {
    slots: Vec<Slot>,
    devices: Vec<Device>,
    /// While nobody at all answers, somebody is asked this often.
    probe: Option<Duration>,
}

#[derive(Debug)]
struct Slot {
    interval: Duration,
    device: usize,
    /// Without jitter, which would add up otherwise.
    base: Duration,
    due: Duration,
}

#[derive(Debug, Clone, Default)]
struct Device {
    failures: u32,
    /// Not asked before then, whatever is due.
    rests_until: Duration,
    failed_at: Duration,
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
    /// One kind of turn for each device. `random` is uniform over all of `u64`.
    pub fn new(intervals: impl IntoIterator<Item = Duration>, now: Duration, random: impl Fn() -> u64) -> Self {
        Turns::of_devices(intervals.into_iter().enumerate(), now, random)
    }

    /// For each turn the number of its device, from 0, and its interval.
    pub fn of_devices(
        turns: impl IntoIterator<Item = (usize, Duration)>,
        now: Duration,
        random: impl Fn() -> u64,
    ) -> Self {
        let slot = |(device, interval): (usize, Duration)| {
            let due = now + part(interval.min(SPREAD_MAX), random());
            Slot { interval, device, base: due, due }
        };
        let slots: Vec<Slot> = turns.into_iter().map(slot).collect();
        let devices = slots.iter().map(|slot| slot.device + 1).max().unwrap_or(0);
        Turns { slots, devices: vec![Device::default(); devices], probe: None }
    }

    /// While no device answers, there is nobody to be held up: one of them is asked at least this often.
    #[must_use]
    pub fn probing(mut self, every: Duration) -> Self {
        self.probe = Some(every);
        self
    }

    /// Who is next, and when. `None`: there is nobody.
    pub fn next(&self) -> Option<(usize, Duration)> {
        let due = |slot: &Slot| slot.due.max(self.devices[slot.device].rests_until);
        let next = self.slots.iter().enumerate().min_by_key(|(_, slot)| due(slot));
        let next = next.map(|(at, slot)| (at, due(slot)));
        let Some(probe) = self.probe.filter(|_| self.devices.iter().all(|device| device.failures > 0)) else {
            return next;
        };
        let last = self.devices.iter().map(|device| device.failed_at).max().unwrap_or_default();
        let longest = self.slots.iter().enumerate().min_by_key(|(_, slot)| self.devices[slot.device].failed_at);
        longest.map(|(at, _)| (at, last + probe)).into_iter().chain(next).min_by_key(|(_, due)| *due)
    }

    /// Turns that were missed are not made up for.
    pub fn answered(&mut self, at: usize, now: Duration, random: u64) -> Turned {
        let nobody_did = self.probe.is_some() && self.devices.iter().all(|device| device.failures > 0);
        let was_mute = std::mem::take(&mut self.devices[self.slots[at].device].failures) > 0;
        if was_mute {
            self.wake(self.slots[at].device, now);
        }
        if nobody_did {
            self.hasten(now);
        }
        let slot = &mut self.slots[at];
        slot.base = (slot.base + slot.interval).max(now);
        slot.due = slot.base + part(slot.interval / JITTER, random);
        if was_mute { Turned::Answers } else { Turned::Same }
    }

    /// It did not answer, its retries included: whoever waits longest for it are the others.
    pub fn failed(&mut self, at: usize, now: Duration, random: u64) -> Turned {
        let slot = &mut self.slots[at];
        let device = &mut self.devices[slot.device];
        let pause = slot.interval.saturating_mul(2 << device.failures.min(16)).min(PAUSE_MAX.max(slot.interval));
        slot.base = now + pause;
        slot.due = slot.base + part(pause / JITTER, random);
        device.rests_until = slot.due;
        device.failed_at = now;
        device.failures = device.failures.saturating_add(1);
        if device.failures == 1 { Turned::Mute } else { Turned::Same }
    }

    /// Whoever did not answer may do so now: the way to them was gone, and is back.
    pub fn hasten(&mut self, now: Duration) {
        let mute = |device: &usize| self.devices[*device].failures > 0;
        (0..self.devices.len()).filter(mute).collect::<Vec<_>>().into_iter().for_each(|device| self.wake(device, now));
    }

    /// Its turns are due at once, or when they would have been.
    fn wake(&mut self, device: usize, now: Duration) {
        self.devices[device].rests_until = Duration::ZERO;
        for slot in self.slots.iter_mut().filter(|slot| slot.device == device) {
            slot.due = slot.due.min(now);
            slot.base = slot.base.min(now);
        }
    }

    pub fn is_mute(&self, at: usize) -> bool {
        self.devices[self.slots[at].device].failures > 0
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

    #[test]
    fn a_mute_device_rests_with_all_its_turns() {
        let mut turns = Turns::of_devices([(0, 100 * MS), (0, 300 * MS), (1, 1_000 * MS)], Duration::ZERO, || 0);
        assert_eq!(turns.failed(0, Duration::ZERO, 0), Turned::Mute);
        assert!(turns.is_mute(1) && !turns.is_mute(2));
        assert_eq!(turns.next(), Some((2, Duration::ZERO)));
        turns.answered(2, MS, 0);
        assert_eq!(turns.next(), Some((0, 200 * MS)), "the other turn of the mute one waits too");
        assert_eq!(turns.answered(0, 200 * MS, 0), Turned::Answers);
        assert_eq!(turns.next(), Some((1, Duration::ZERO)), "and is due at once when it answers");
    }

    #[test]
    fn where_nobody_answers_somebody_is_asked_and_the_first_answer_wakes_all() {
        let mut turns = Turns::new([10_000 * MS; 3], Duration::ZERO, || 0).probing(1_000 * MS);
        let mut now = Duration::ZERO;
        let mut asked = Vec::new();
        for _ in 0..30 {
            let (at, due) = turns.next().unwrap_or_default();
            now = now.max(due);
            asked.push((at, now));
            turns.failed(at, now, 0);
        }
        assert_eq!(
            asked[27..].iter().map(|(at, _)| *at).collect::<std::collections::BTreeSet<_>>().len(),
            3,
            "in turn"
        );
        assert_eq!(asked[29].1 - asked[28].1, 1_000 * MS);
        let (at, due) = turns.next().unwrap_or_default();
        turns.answered(at, due, 0);
        let (other, soon) = turns.next().unwrap_or_default();
        assert!(other != at && soon <= due, "{other} at {soon:?}");
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
