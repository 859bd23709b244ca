//! What sources on a line have in common: what they tell, and what they count.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// A change on a line that a person should know of. Told once, when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineEvent {
    Opened {
        /// The device that was found: it may have another name than last time.
        device: String,
    },
    /// The port could not be opened, or is gone.
    Lost {
        reason: String,
    },
    /// What comes is no frame: noise, another baud rate, another framing.
    Noisy {
        reason: String,
    },
    /// Good frames come again.
    Clear,
    /// Nothing has come for as long as `silence` allows.
    Silent,
    /// A device does not answer its queries.
    Mute {
        device: String,
        reason: String,
    },
    Answers {
        device: String,
    },
    /// A device answers, but refuses some of what it is asked for.
    Refuses {
        device: String,
        reason: String,
    },
    /// The gate was closed for so long that the kernel's buffer is full: what the device sent since may be lost.
    Overrun,
}

/// What a line has counted.
#[derive(Debug, Default)]
pub struct LineCounters {
    /// Bytes that belonged to no frame.
    pub noise_bytes: AtomicU64,
    /// Frames with a wrong checksum, malformed or unfinished ones; a run of them counts once.
    pub bad_frames: AtomicU64,
    /// Frames that could not be decoded: in the dead letters.
    pub undecoded: AtomicU64,
    /// Times that the kernel's buffer was found full behind a closed gate.
    pub overruns: AtomicU64,
    pub requests: AtomicU64,
    pub timeouts: AtomicU64,
    /// Answers of a device that say no: Modbus exceptions.
    pub exceptions: AtomicU64,
    /// Readings that said nothing new: left out by a `report`.
    pub suppressed: AtomicU64,
}

/// Pauses between attempts to open something: doubling up to a bound, with jitter between half and all of the step.
#[derive(Debug)]
pub struct Pauses {
    min: Duration,
    max: Duration,
    attempts: u32,
}

impl Pauses {
    /// A `min` of zero would spin: it is raised to a millisecond, and `max` to `min`.
    pub fn new(min: Duration, max: Duration) -> Self {
        let min = min.max(Duration::from_millis(1));
        Pauses { min, max: max.max(min), attempts: 0 }
    }

    /// `random` is uniform over all of `u64`.
    pub fn next(&mut self, random: u64) -> Duration {
        let step = self.min.saturating_mul(1 << self.attempts.min(20)).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        step / 2 + (step / 2).mul_f64(random as f64 / u64::MAX as f64)
    }

    /// Starts over, but only if it was open for longer than the longest pause.
    pub fn lived(&mut self, lifetime: Duration) {
        if lifetime >= self.max {
            self.attempts = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_their_bound_and_start_over_after_a_long_life() {
        let ms = Duration::from_millis;
        let mut pauses = Pauses::new(ms(100), ms(1_000));
        let mut next = || pauses.next(u64::MAX);
        assert_eq!([next(), next(), next(), next(), next(), next()], [100, 200, 400, 800, 1_000, 1_000].map(ms));
        pauses.lived(ms(999));
        assert_eq!(pauses.next(0), ms(500));
        pauses.lived(ms(1_000));
        assert_eq!(pauses.next(u64::MAX), ms(100));
    }
}
