//! Durations, sizes and rates as people write them: a whole number with a unit. Pure.
//!
//! A bare number is never taken: `ack_delay = 5` reads as seconds to one and as milliseconds to the next.

use std::time::Duration;

const DURATIONS: [(&str, u64); 6] =
    [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

pub const DURATION_HELP: &str = r#"write a whole number with a unit (us, ms, s, m, h, d): "5ms", "30s", "24h" or "7d""#;
pub const SIZE_HELP: &str = r#"write a whole number with a unit (B, KB, MB, GB, KiB, MiB, GiB): "10KB" or "32MiB""#;
pub const RATE_HELP: &str = r#"write a size a second: "1MiB/s" or "500KB/s""#;

/// Reads `"5ms"`, `"24h"`, `"7d"`.
///
/// # Errors
/// What is wrong, as a fragment: no unit, an unknown unit, no number, or too large.
pub fn duration(text: &str) -> Result<Duration, String> {
    scaled(text, &DURATIONS).map(Duration::from_micros)
}

/// Reads `"32MiB"`, `"10KB"` into bytes.
///
/// # Errors
/// As [`duration`].
pub fn size(text: &str) -> Result<u64, String> {
    scaled(text, &SIZES)
}

/// Reads `"1MiB/s"` into bytes a second.
///
/// # Errors
/// As [`duration`], and a missing `/s`.
pub fn rate(text: &str) -> Result<u64, String> {
    size(text.trim().strip_suffix("/s").ok_or("has no \"/s\" at its end")?)
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    if number.is_empty() {
        return Err("does not begin with a whole number".to_owned());
    }
    if unit.is_empty() {
        return Err("has no unit".to_owned());
    }
    if unit.starts_with(['.', ',']) {
        return Err("is not a whole number: use a smaller unit instead of a fraction".to_owned());
    }
    let factor = units.iter().find(|(name, _)| *name == unit).ok_or_else(|| unknown_unit(unit, units))?.1;
    let number: u64 = number.replace('_', "").parse().map_err(|_| "is too large".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "is too large".to_owned())
}

fn unknown_unit(unit: &str, units: &[(&str, u64)]) -> String {
    match units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
        Some((name, _)) => format!("has the unknown unit {unit:?}: write {name:?}"),
        None => format!("has the unknown unit {unit:?}"),
    }
}

/// A size for people: the largest binary unit that leaves no rest, else one decimal.
pub fn show_size(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    if let Some((name, factor)) = units.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor)) {
        return format!("{}{name}", bytes / factor);
    }
    match units.iter().find(|(_, factor)| bytes >= *factor) {
        Some((name, factor)) => format!("{:.1}{name}", bytes as f64 / *factor as f64),
        None => format!("{bytes}B"),
    }
}

/// A duration for people: the largest unit that leaves no rest, days from two on.
pub fn show_duration(duration: Duration) -> String {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let day = DURATIONS[5].1;
    let least = |factor: u64| if factor == day { 2 * day } else { factor };
    let fits = DURATIONS.iter().rev().find(|(_, factor)| micros >= least(*factor) && micros.is_multiple_of(*factor));
    fits.map_or_else(|| "0s".to_owned(), |(name, factor)| format!("{}{name}", micros / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_shown() {
        for (text, micros) in [("5ms", 5_000), ("24h", 86_400_000_000), ("7d", 604_800_000_000), ("1_000 us", 1_000)] {
            assert_eq!(duration(text), Ok(Duration::from_micros(micros)), "{text}");
        }
        for (text, bytes) in [("32MiB", 33_554_432), ("10KB", 10_000), ("1 GiB", 1 << 30), ("0B", 0)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        assert_eq!(rate("1MiB/s"), Ok(1 << 20));
        assert_eq!(show_size(33_554_432), "32MiB");
        assert_eq!(show_size(1_500_000), "1.4MiB");
        assert_eq!(show_size(999), "999B");
        assert_eq!(show_duration(Duration::from_secs(86_400)), "24h");
        assert_eq!(show_duration(Duration::from_secs(604_800)), "7d");
        assert_eq!(show_duration(Duration::from_millis(1_500)), "1500ms");
        assert_eq!(show_duration(Duration::ZERO), "0s");
    }

    #[test]
    fn what_is_not_a_number_with_a_unit_is_refused() {
        for (text, part) in [
            ("5", "no unit"),
            ("", "whole number"),
            ("-5ms", "whole number"),
            ("1.5s", "fraction"),
            ("5 parsecs", "unknown unit"),
            ("5MS", "write \"ms\""),
            ("99999999999999999999s", "too large"),
            ("999999999999999d", "too large"),
        ] {
            let error = duration(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(size("10kb").is_err_and(|e| e.contains("\"KB\"")));
        assert!(rate("1MiB").is_err_and(|e| e.contains("/s")));
    }
}
