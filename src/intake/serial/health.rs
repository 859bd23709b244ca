//! Whether what comes over a line makes sense. Pure; times are since any fixed moment.

use std::time::Duration;

use crate::intake::line::LineEvent;

/// So many bytes without one good frame between them are no glitch any more.
const NOISE_MAX: usize = 256;

/// Watches a line and tells each change once.
#[derive(Debug)]
pub struct Health {
    silence: Option<Duration>,
    /// Of the last byte, or of the opening.
    heard_at: Duration,
    silent: bool,
    /// Since the last good frame.
    noise: usize,
    noisy: bool,
}

impl Health {
    pub fn new(silence: Option<Duration>, now: Duration) -> Self {
        Health { silence, heard_at: now, silent: false, noise: 0, noisy: false }
    }

    /// The line is open again: what was before does not count.
    pub fn opened(&mut self, now: Duration) {
        self.heard_at = now;
        self.noise = 0;
    }

    /// A good frame.
    pub fn good(&mut self, now: Duration) -> Option<LineEvent> {
        self.heard_at = now;
        self.noise = 0;
        let changed = std::mem::take(&mut self.silent) | std::mem::take(&mut self.noisy);
        changed.then_some(LineEvent::Clear)
    }

    /// Bytes that belong to no good frame.
    pub fn noise(&mut self, bytes: usize, why: &str) -> Option<LineEvent> {
        self.noise = self.noise.saturating_add(bytes);
        if self.noisy || self.noise < NOISE_MAX {
            return None;
        }
        self.noisy = true;
        let reason = format!("{} bytes without a good frame ({why}): noise, another baud rate or framing", self.noise);
        Some(LineEvent::Noisy { reason })
    }

    pub fn silent_at(&self) -> Option<Duration> {
        self.silence.filter(|_| !self.silent).map(|silence| self.heard_at + silence)
    }

    pub fn check_silence(&mut self, now: Duration) -> Option<LineEvent> {
        let silent = self.silent_at().is_some_and(|at| at <= now);
        self.silent |= silent;
        silent.then_some(LineEvent::Silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glitch_is_counted_and_noise_is_told_once() {
        let mut health = Health::new(None, Duration::ZERO);
        assert_eq!(health.noise(100, "wrong checksum"), None);
        assert_eq!(health.good(Duration::ZERO), None);
        assert_eq!(health.noise(200, "wrong checksum"), None);
        let told = health.noise(100, "wrong checksum");
        assert!(matches!(&told, Some(LineEvent::Noisy { reason }) if reason.contains("300 bytes")), "{told:?}");
        assert_eq!(health.noise(1 << 20, "wrong checksum"), None);
        assert_eq!(health.good(Duration::ZERO), Some(LineEvent::Clear));
        assert_eq!(health.good(Duration::ZERO), None);
    }

    #[test]
    fn a_silence_is_told_once_and_its_end_too() {
        let second = Duration::from_secs(1);
        let mut health = Health::new(Some(10 * second), second);
        assert_eq!(health.silent_at(), Some(11 * second));
        assert_eq!(health.check_silence(10 * second), None);
        assert_eq!(health.check_silence(11 * second), Some(LineEvent::Silent));
        assert_eq!((health.check_silence(30 * second), health.silent_at()), (None, None));
        assert_eq!(health.good(40 * second), Some(LineEvent::Clear));
        assert_eq!(health.silent_at(), Some(50 * second));
    }
}
