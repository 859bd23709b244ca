//! A reading's own time, as milliseconds since 1970 (Kafka's unit), out of what devices write.
//!
//! RFC 3339 texts, or a decimal number of seconds, milliseconds, microseconds or nanoseconds since 1970, written as an
//! integer, with a fraction or an exponent, bare or as a text. Numbers are computed exactly, never through a float.
//! Fractions of a millisecond are cut. The result lies between 1970 and the end of the year 9999: outside of that a
//! device's clock is wrong for certain, and Kafka and its consumers stumble over negative times.

use time::OffsetDateTime;
use time::format_description::well_known;

use super::json::Scalar;
use super::spec::TimestampFormat;

/// 9999-12-31T23:59:59.999Z.
pub const LAST_MS: i64 = 253_402_300_799_999;

/// More digits than any number of nanoseconds has, few enough for 128 bits.
const DIGITS_MAX: usize = 36;

/// Why a value is no timestamp. Never holds the value itself: it comes out of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    #[error("the value is not an RFC 3339 time such as 2026-01-31T12:00:00Z")]
    NotRfc3339,
    #[error("the value is not a number")]
    NotNumber,
    #[error("the value lies before 1970")]
    Before1970,
    #[error("the value lies beyond the year 9999 (is the unit right?)")]
    Beyond9999,
}

/// Milliseconds since 1970, in UTC.
///
/// # Errors
/// [`TimestampError`] when the value is not in this format or out of bounds.
pub fn millis(value: &Scalar<'_>, format: TimestampFormat) -> Result<i64, TimestampError> {
    let power = match format {
        TimestampFormat::Rfc3339 => return rfc3339(value),
        TimestampFormat::Seconds => 3,
        TimestampFormat::Millis => 0,
        TimestampFormat::Micros => -3,
        TimestampFormat::Nanos => -6,
    };
    if matches!(value, Scalar::Bool(_)) {
        return Err(TimestampError::NotNumber);
    }
    Decimal::parse(value.as_str())?.scaled(power)
}

fn rfc3339(value: &Scalar<'_>) -> Result<i64, TimestampError> {
    let Scalar::Text(text) = value else {
        return Err(TimestampError::NotRfc3339);
    };
    let time = OffsetDateTime::parse(text, &well_known::Rfc3339).map_err(|_| TimestampError::NotRfc3339)?;
    bounded(time.unix_timestamp_nanos().div_euclid(1_000_000))
}

fn bounded(millis: i128) -> Result<i64, TimestampError> {
    match i64::try_from(millis) {
        Ok(millis @ 0..=LAST_MS) => Ok(millis),
        _ if millis < 0 => Err(TimestampError::Before1970),
        _ => Err(TimestampError::Beyond9999),
    }
}

/// A decimal number, exactly: `digits` times ten to the power of `exponent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: i128,
    exponent: i64,
}

impl Decimal {
    fn parse(text: &str) -> Result<Self, TimestampError> {
        let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() || (mantissa.contains('.') && fraction.is_empty()) {
            return Err(TimestampError::NotNumber);
        }
        let digits = parse_digits(whole, fraction)?;
        Ok(Decimal { negative, digits, exponent: exponent - fraction.len() as i64 })
    }

    /// Times ten to the power of `power`, cut to whole milliseconds.
    fn scaled(self, power: i64) -> Result<i64, TimestampError> {
        let exponent = self.exponent + power;
        let factor = u32::try_from(exponent.unsigned_abs()).ok().and_then(|by| 10i128.checked_pow(by));
        let size = match (exponent >= 0, factor) {
            _ if self.digits == 0 => 0,
            (true, factor) => {
                factor.and_then(|factor| self.digits.checked_mul(factor)).ok_or_else(|| self.out_of_bounds())?
            }
            (false, Some(factor)) => self.digits / factor,
            (false, None) => 0,
        };
        // A negative fraction of a millisecond is before 1970 too.
        if self.negative && self.digits != 0 {
            return Err(TimestampError::Before1970);
        }
        bounded(size)
    }

    fn out_of_bounds(self) -> TimestampError {
        if self.negative { TimestampError::Before1970 } else { TimestampError::Beyond9999 }
    }
}

fn parse_digits(whole: &str, fraction: &str) -> Result<i128, TimestampError> {
    let mut digits = 0i128;
    let mut count = 0;
    for byte in whole.bytes().chain(fraction.bytes()) {
        if !byte.is_ascii_digit() {
            return Err(TimestampError::NotNumber);
        }
        count += usize::from(digits != 0 || byte != b'0');
        if count > DIGITS_MAX {
            return Err(TimestampError::NotNumber);
        }
        digits = digits * 10 + i128::from(byte - b'0');
    }
    Ok(digits)
}

fn parse_exponent(text: &str) -> Result<i64, TimestampError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(TimestampError::NotNumber);
    }
    text.parse().map_err(|_| TimestampError::NotNumber)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::TimestampFormat::*;
    use super::*;

    fn text(value: &str, format: TimestampFormat) -> Result<i64, TimestampError> {
        millis(&Scalar::Text(Cow::Borrowed(value)), format)
    }

    #[test]
    fn what_devices_write() {
        for (value, format, expected) in [
            ("1970-01-01T00:00:00Z", Rfc3339, 0),
            ("2026-01-31T12:00:00.1239Z", Rfc3339, 1_769_860_800_123),
            ("2026-01-31T13:00:00+01:00", Rfc3339, 1_769_860_800_000),
            ("2024-02-29T00:00:00-00:00", Rfc3339, 1_709_164_800_000),
            ("2016-12-31T23:59:60Z", Rfc3339, 1_483_228_799_999),
            ("9999-12-31T23:59:59.999999999Z", Rfc3339, LAST_MS),
            ("1769860800", Seconds, 1_769_860_800_000),
            ("1769860800.1239", Seconds, 1_769_860_800_123),
            ("1.7698608e9", Seconds, 1_769_860_800_000),
            ("17698608E+2", Seconds, 1_769_860_800_000),
            ("0.0000000001e20", Millis, 10_000_000_000),
            ("1769860800123", Millis, 1_769_860_800_123),
            ("1769860800123.9", Millis, 1_769_860_800_123),
            ("1769860800123999", Micros, 1_769_860_800_123),
            ("1769860800123999999", Nanos, 1_769_860_800_123),
            ("0", Nanos, 0),
            ("-0", Seconds, 0),
            ("0e999999999", Seconds, 0),
            ("1e-999999999", Seconds, 0),
            ("000000000000000000000000000000000000000000001", Seconds, 1000),
            ("253402300799.999", Seconds, LAST_MS),
        ] {
            assert_eq!(text(value, format), Ok(expected), "{value} {format:?}");
        }
        assert_eq!(millis(&Scalar::Number("1769860800123"), Millis), Ok(1_769_860_800_123));
    }

    #[test]
    fn what_is_refused() {
        use TimestampError::*;
        for (value, format, expected) in [
            ("", Rfc3339, NotRfc3339),
            ("2026-01-31", Rfc3339, NotRfc3339),
            ("2026-02-30T00:00:00Z", Rfc3339, NotRfc3339),
            ("2026-01-31T12:00:00", Rfc3339, NotRfc3339),
            ("1969-12-31T23:59:59.9999Z", Rfc3339, Before1970),
            ("9999-12-31T23:59:59-01:00", Rfc3339, Beyond9999),
            ("", Seconds, NotNumber),
            (".5", Seconds, NotNumber),
            ("5.", Seconds, NotNumber),
            ("+5", Seconds, NotNumber),
            ("1e", Seconds, NotNumber),
            ("1e+", Seconds, NotNumber),
            ("1e--1", Seconds, NotNumber),
            ("1e9999999999", Seconds, NotNumber),
            ("1 ", Seconds, NotNumber),
            ("0x10", Seconds, NotNumber),
            ("٣", Seconds, NotNumber),
            ("NaN", Seconds, NotNumber),
            ("1234567890123456789012345678901234567", Nanos, NotNumber),
            ("-1", Millis, Before1970),
            ("-0.1", Nanos, Before1970),
            ("-1e30", Seconds, Before1970),
            ("253402300800", Seconds, Beyond9999),
            ("1769860800123", Seconds, Beyond9999),
            ("1e999999999", Nanos, Beyond9999),
        ] {
            assert_eq!(text(value, format), Err(expected), "{value} {format:?}");
        }
        assert_eq!(millis(&Scalar::Bool(true), Seconds), Err(NotNumber));
        assert_eq!(millis(&Scalar::Number("1769860800"), Rfc3339), Err(NotRfc3339));
    }

    proptest! {
        #[test]
        fn every_unit_tells_the_same_time(expected in 0..=LAST_MS) {
            let whole = format!("{}", expected / 1000);
            let part = expected % 1000;
            prop_assert_eq!(text(&format!("{whole}.{part:03}"), Seconds), Ok(expected));
            prop_assert_eq!(text(&format!("{expected}"), Millis), Ok(expected));
            prop_assert_eq!(text(&format!("{expected}999"), Micros), Ok(expected));
            prop_assert_eq!(text(&format!("{expected}000001"), Nanos), Ok(expected));
            let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(expected) * 1_000_000).unwrap();
            prop_assert_eq!(text(&time.format(&well_known::Rfc3339).unwrap(), Rfc3339), Ok(expected));
        }

        #[test]
        fn never_panics_and_stays_in_bounds(value in "[-+]?[0-9]{0,40}(\\.[0-9]{0,40})?(e[-+]?[0-9]{0,11})?|\\PC{0,30}") {
            for format in [Rfc3339, Seconds, Millis, Micros, Nanos] {
                if let Ok(millis) = text(&value, format) {
                    prop_assert!((0..=LAST_MS).contains(&millis));
                }
            }
        }
    }
}
