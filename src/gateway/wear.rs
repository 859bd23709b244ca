//! How much the flash wears: device bytes in all and today, against the daily budget. Pure.

const DAY_MS: i64 = 86_400_000;

#[derive(Debug, Default)]
pub struct Wear {
    day: i64,
    at_midnight: u64,
    warned: bool,
}

/// What changed.
#[derive(Debug, PartialEq, Eq)]
pub struct WearToday {
    pub bytes: u64,
    /// True once a day, when the budget is exceeded.
    pub warn: bool,
}

impl Wear {
    /// `device_bytes`: in all since the start of the process; `wall_ms`: ms since 1970.
    pub fn observe(&mut self, device_bytes: u64, wall_ms: i64, budget: Option<u64>) -> WearToday {
        let day = wall_ms.div_euclid(DAY_MS);
        if day != self.day {
            // The day of the start begins with the start.
            self.at_midnight = if self.day == 0 { 0 } else { device_bytes };
            self.day = day;
            self.warned = false;
        }
        let bytes = device_bytes.saturating_sub(self.at_midnight);
        let warn = !self.warned && budget.is_some_and(|b| bytes > b);
        self.warned |= warn;
        WearToday { bytes, warn }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_day_begins_at_zero_and_warns_again() {
        let mut wear = Wear::default();
        let budget = Some(100);
        assert_eq!(wear.observe(90, DAY_MS, budget), WearToday { bytes: 90, warn: false });
        assert_eq!(wear.observe(150, DAY_MS + 1, budget), WearToday { bytes: 150, warn: true });
        assert_eq!(wear.observe(200, DAY_MS + 2, budget), WearToday { bytes: 200, warn: false });
        assert_eq!(wear.observe(200, 2 * DAY_MS, budget), WearToday { bytes: 0, warn: false });
        assert_eq!(wear.observe(301, 2 * DAY_MS + 1, budget), WearToday { bytes: 101, warn: true });
    }
}
