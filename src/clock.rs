//! The clocks: the only place that reads the wall clock, which on a box without an RTC may be decades off.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::record::Arrival;

/// Milliseconds since 1970 below which a wall clock is certainly unset: 2025-01-01, before this program existed.
pub const FIRST_PLAUSIBLE_MS: i64 = 1_735_689_600_000;

/// Milliseconds since 1970 by the wall clock, negative before.
pub fn wall_ms() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_millis() as i64,
        Err(before) => -(before.duration().as_millis() as i64),
    }
}

/// Milliseconds since boot, suspend included.
pub fn boot_ms() -> u64 {
    let t = clock_gettime(ClockId::Boottime);
    t.tv_sec as u64 * 1000 + t.tv_nsec as u64 / 1_000_000
}

/// Microseconds since the first call in this process, never backwards: for time-outs and latencies.
pub fn now_us() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

pub fn arrival() -> Arrival {
    Arrival { wall_ms: wall_ms(), boot_ms: boot_ms() }
}

/// Whether a wall clock can be the true time at all.
pub fn plausible(wall_ms: i64) -> bool {
    wall_ms >= FIRST_PLAUSIBLE_MS
}

/// The kernel's id of this boot: two readings are comparable by `boot_ms` only within one boot.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|s| s.trim().to_owned()).unwrap_or_default()
}
