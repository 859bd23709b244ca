//! The simulator's own clocks. It plays devices, and a device has a clock of its own: nothing here is Forebay's time.

use std::time::{Duration, Instant, SystemTime};

/// One moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moment {
    /// Since the run began, never going back.
    pub since_start: Duration,
    /// Nanoseconds since 1970 by the wall clock, which may be set while we run.
    pub wall_ns: i64,
}

/// Reads both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    pub fn now(&self) -> Moment {
        Moment { since_start: self.started.elapsed(), wall_ns: wall_ns() }
    }

    /// The runtime's form of a moment of this run.
    pub fn instant(&self, since_start: Duration) -> tokio::time::Instant {
        // A duration beyond what the system can name is "never": a day from now is asked again anyway.
        let at = self.started.checked_add(since_start);
        at.unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400)).into()
    }
}

#[expect(clippy::disallowed_methods, reason = "a simulated device states its own wall clock, right or wrong")]
fn wall_ns() -> i64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX)
}
