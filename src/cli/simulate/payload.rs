//! Payloads: the status of an equipment, and the numbered messages of rate mode. Pure: the time is told.

use std::fmt::Write as _;
use std::str::FromStr;

use bytes::{BufMut, Bytes, BytesMut};
use time::OffsetDateTime;

use super::dice::Dice;
use super::job::Status;

/// What is wrong with a `--field` value.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum FieldError {
    #[error("\"{0}\" is not name=type or name=type:min..max")]
    NotAField(String),
    #[error("there is no type \"{0}\", only int, float, bool and string")]
    UnknownType(String),
    #[error(
        "\"{0}\" is not min..max, two numbers in rising order (lengths of 0 to 65536 for a string, none for a bool)"
    )]
    NotARange(String),
    #[error("every status has a \"{0}\" already")]
    Taken(String),
}

/// The names that every status has.
const OWN_NAMES: [&str; 3] = ["jobPercentFinished", "producing", "timestamp"];
const STRING_LEN_MAX: u32 = 65_536;

/// One more field in every status.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    pub name: String,
    pub kind: FieldKind,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FieldKind {
    Int {
        min: i64,
        max: i64,
    },
    Float {
        min: f64,
        max: f64,
    },
    Bool,
    /// Lengths in characters.
    String {
        min: u32,
        max: u32,
    },
}

impl FromStr for Field {
    type Err = FieldError;

    /// Reads `temperature=float:15..90`.
    fn from_str(text: &str) -> Result<Self, FieldError> {
        let not_a_field = || FieldError::NotAField(text.into());
        let (name, kind) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(not_a_field)?;
        if OWN_NAMES.contains(&name) {
            return Err(FieldError::Taken(name.into()));
        }
        let (kind, range) = kind.split_once(':').map_or((kind, None), |(kind, range)| (kind, Some(range)));
        Ok(Self { name: name.into(), kind: read_kind(kind, range)? })
    }
}

fn read_kind(kind: &str, range: Option<&str>) -> Result<FieldKind, FieldError> {
    Ok(match kind {
        "int" => {
            let (min, max) = read_range(range, (0, 100))?;
            FieldKind::Int { min, max }
        }
        "float" => {
            let (min, max) = read_range(range, (0.0, 100.0)).and_then(finite)?;
            FieldKind::Float { min, max }
        }
        "bool" if range.is_none() => FieldKind::Bool,
        "bool" => return Err(FieldError::NotARange(range.unwrap_or_default().into())),
        "string" => {
            let (min, max) = read_range(range, (8, 8)).and_then(short)?;
            FieldKind::String { min, max }
        }
        _ => return Err(FieldError::UnknownType(kind.into())),
    })
}

fn read_range<T: FromStr + PartialOrd>(text: Option<&str>, default: (T, T)) -> Result<(T, T), FieldError> {
    let Some(text) = text else { return Ok(default) };
    let numbers = text.split_once("..").and_then(|(min, max)| Some((min.parse().ok()?, max.parse().ok()?)));
    let rising = numbers.filter(|(min, max): &(T, T)| min <= max);
    rising.ok_or_else(|| FieldError::NotARange(text.into()))
}

/// JSON has no infinity.
fn finite((min, max): (f64, f64)) -> Result<(f64, f64), FieldError> {
    let finite = min.is_finite() && max.is_finite() && (max - min).is_finite();
    if finite { Ok((min, max)) } else { Err(FieldError::NotARange(format!("{min}..{max}"))) }
}

fn short((min, max): (u32, u32)) -> Result<(u32, u32), FieldError> {
    if max <= STRING_LEN_MAX { Ok((min, max)) } else { Err(FieldError::NotARange(format!("{min}..{max}"))) }
}

impl Field {
    fn write_value(&self, out: &mut String, dice: &mut Dice) {
        // Writing to a String cannot fail.
        let _ = match self.kind {
            FieldKind::Int { min, max } => {
                write!(out, "{}", min.wrapping_add_unsigned(dice.between(0, max.abs_diff(min))))
            }
            FieldKind::Float { min, max } => write!(out, "{:.3}", min + (max - min) * dice.fraction()),
            FieldKind::Bool => write!(out, "{}", dice.happens(0.5)),
            FieldKind::String { min, max } => write!(out, "\"{}\"", letters(dice, min, max)),
        };
    }
}

fn letters(dice: &mut Dice, min: u32, max: u32) -> String {
    let length = dice.between(min.into(), max.into());
    (0..length).map(|_| char::from(b'a' + dice.between(0, 25) as u8)).collect()
}

/// The status of an equipment as JSON: exactly the three fields of the sample, then `fields`.
/// `timestamp_ms` is in milliseconds since 1970 and is written as RFC 3339 UTC.
pub fn status_payload(status: Status, timestamp_ms: i64, fields: &[Field], dice: &mut Dice) -> Vec<u8> {
    let mut out = String::with_capacity(96);
    let Status { job_percent_finished, producing } = status;
    let _ = write!(out, "{{\"jobPercentFinished\": {job_percent_finished}, \"producing\": {producing}, ");
    let _ = write!(out, "\"timestamp\": \"{}\"", rfc3339_ms(timestamp_ms));
    for field in fields {
        // The name comes from a person and may contain what JSON must escape.
        let _ = write!(out, ", {}: ", serde_json::Value::from(field.name.as_str()));
        field.write_value(&mut out, dice);
    }
    out.push('}');
    out.into_bytes()
}

/// `2026-01-31T23:59:59.123Z`. A time outside the years 0 to 9999 is written as 1970.
fn rfc3339_ms(timestamp_ms: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(timestamp_ms) * 1_000_000);
    let at = at.ok().filter(|at| at.year() >= 0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second, ms) = at.to_hms_milli();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Writes the numbered messages of one connection in rate mode, all of the same size.
#[derive(Debug)]
pub struct NumberedPayload {
    /// `{"id":"<instance>-<connection>-`
    head: String,
    size_bytes: usize,
    buffer: BytesMut,
}

/// Payloads are cut from buffers of this size, so that a message costs no allocation of its own.
const BUFFER_BYTES: usize = 64 * 1024;

impl NumberedPayload {
    /// `size_bytes` is the wanted size of the whole payload; one that is too small for the id grows to what it needs.
    pub fn new(instance: &str, connection: u32, size_bytes: usize) -> Self {
        let head = format!("{{\"id\":\"{instance}-{connection}-");
        Self { head, size_bytes, buffer: BytesMut::new() }
    }

    /// The message's unique id.
    pub fn id(&self, number: u64) -> String {
        format!("{}{number}", self.head.trim_start_matches("{\"id\":\""))
    }

    /// The payload of message `number`, sent at `sent_ns` nanoseconds since 1970.
    pub fn write(&mut self, number: u64, sent_ns: i64) -> Bytes {
        if self.buffer.capacity() < self.size_bytes + self.head.len() + 64 {
            self.buffer = BytesMut::with_capacity(BUFFER_BYTES.max(2 * (self.size_bytes + self.head.len() + 64)));
        }
        let out = &mut self.buffer;
        out.put_slice(self.head.as_bytes());
        // Writing to a BytesMut cannot fail.
        let _ = write!(out, "{number}\",\"sentNs\":{sent_ns},\"pad\":\"");
        let pad = self.size_bytes.saturating_sub(out.len() + 2);
        out.put_bytes(b'.', pad);
        out.put_slice(b"\"}");
        self.buffer.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const STATUS: Status = Status { job_percent_finished: 42, producing: true };

    #[test]
    fn default_status_is_exactly_the_sample() {
        let payload = status_payload(STATUS, 1_769_903_999_007, &[], &mut Dice::of(1, 0, 0));
        let expected = r#"{"jobPercentFinished": 42, "producing": true, "timestamp": "2026-01-31T23:59:59.007Z"}"#;
        assert_eq!(String::from_utf8(payload).unwrap(), expected);
    }

    #[test]
    fn reads_fields() {
        let kind = |text: &str| text.parse::<Field>().map(|field| field.kind);
        assert_eq!(kind("a=int"), Ok(FieldKind::Int { min: 0, max: 100 }));
        assert_eq!(kind("a=int:-5..5"), Ok(FieldKind::Int { min: -5, max: 5 }));
        assert_eq!(kind("a=float:1.5..2"), Ok(FieldKind::Float { min: 1.5, max: 2.0 }));
        assert_eq!(kind("a=bool"), Ok(FieldKind::Bool));
        assert_eq!(kind("a=string:1..3"), Ok(FieldKind::String { min: 1, max: 3 }));
        assert_eq!(kind("int"), Err(FieldError::NotAField("int".into())));
        assert_eq!(kind("a=money"), Err(FieldError::UnknownType("money".into())));
        assert_eq!(kind("producing=bool"), Err(FieldError::Taken("producing".into())));
        for bad in ["a=int:5..1", "a=int:x..y", "a=float:0..inf", "a=bool:0..1", "a=string:0..65537", "a=string:-1..1"]
        {
            assert!(matches!(kind(bad), Err(FieldError::NotARange(_))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn status_with_fields_is_json_within_its_ranges(seed: u64, percent in 0_u8..=100, ms in 0_i64..4_000_000_000_000) {
            let fields = ["n=int:-3..3", "t=float:15..90", "b=bool", "say \"s\"=string:2..4", "w=int:-9223372036854775808..9223372036854775807"];
            let fields: Vec<Field> = fields.iter().map(|text| text.parse().unwrap()).collect();
            let status = Status { job_percent_finished: percent, producing: false };
            let value: Value = serde_json::from_slice(&status_payload(status, ms, &fields, &mut Dice::of(seed, 0, 0))).unwrap();
            prop_assert_eq!(&value["jobPercentFinished"], &Value::from(percent));
            prop_assert!((-3..=3).contains(&value["n"].as_i64().unwrap()));
            prop_assert!((15.0..=90.0).contains(&value["t"].as_f64().unwrap()));
            prop_assert!(value["b"].is_boolean() && value["w"].is_i64());
            prop_assert!((2..=4).contains(&value["say \"s\""].as_str().unwrap().len()));
            let format = &time::format_description::well_known::Rfc3339;
            let told = OffsetDateTime::parse(value["timestamp"].as_str().unwrap(), format).unwrap();
            prop_assert_eq!(told.unix_timestamp_nanos(), i128::from(ms) * 1_000_000);
        }

        #[test]
        fn numbered_payloads_have_their_size_and_id(number: u64, sent: i64, size in 0_usize..2000) {
            let mut payload = NumberedPayload::new("4f1c", 3, size);
            let written = payload.write(number, sent);
            let again = payload.write(number, sent);
            prop_assert_eq!(&written, &again);
            prop_assert!(written.len() == size || (size < 100 && written.len() < 100));
            let value: Value = serde_json::from_slice(&written).unwrap();
            prop_assert_eq!(value["id"].as_str().unwrap(), format!("4f1c-3-{number}"));
            prop_assert_eq!(value["id"].as_str().unwrap(), payload.id(number));
            prop_assert_eq!(value["sentNs"].as_i64().unwrap(), sent);
        }
    }
}
