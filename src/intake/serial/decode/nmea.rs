//! NMEA 0183 sentences. Pure.
//!
//! Every sentence gives `talker`, `sentence` and `fields`, its fields as text; those of the table below give their
//! values under names too. Positions are in degrees, north and east positive.

use serde_json::{Map, Value, json};

use super::DecodeError;

/// What a field means.
#[derive(Clone, Copy)]
enum Meaning {
    Text,
    Number,
    /// Degrees and minutes, with the hemisphere in the next field.
    Position,
    /// hhmmss.ss, UTC.
    Time,
    /// ddmmyy.
    Date,
}
use Meaning::{Date, Number, Position, Text, Time};

type Known = (&'static str, &'static [(usize, &'static str, Meaning)]);

/// Sentence, and of each field: its number behind the address, its name, what it means.
const KNOWN: [Known; 11] = [
    (
        "GGA",
        &[
            (0, "time", Time),
            (1, "latitude", Position),
            (3, "longitude", Position),
            (5, "quality", Number),
            (6, "satellites", Number),
            (7, "hdop", Number),
            (8, "altitude_m", Number),
        ],
    ),
    (
        "RMC",
        &[
            (0, "time", Time),
            (1, "status", Text),
            (2, "latitude", Position),
            (4, "longitude", Position),
            (6, "speed_knots", Number),
            (7, "course", Number),
            (8, "date", Date),
        ],
    ),
    ("GLL", &[(0, "latitude", Position), (2, "longitude", Position), (4, "time", Time), (5, "status", Text)]),
    ("VTG", &[(0, "course", Number), (4, "speed_knots", Number), (6, "speed_kmh", Number)]),
    ("ZDA", &[(0, "time", Time), (1, "day", Number), (2, "month", Number), (3, "year", Number)]),
    ("HDT", &[(0, "heading", Number)]),
    ("HDM", &[(0, "heading_magnetic", Number)]),
    ("DBT", &[(2, "depth_m", Number)]),
    ("DPT", &[(0, "depth_m", Number), (1, "offset_m", Number)]),
    ("MTW", &[(0, "water_temperature", Number), (1, "unit", Text)]),
    (
        "MWV",
        &[
            (0, "angle", Number),
            (1, "reference", Text),
            (2, "wind_speed", Number),
            (3, "unit", Text),
            (4, "status", Text),
        ],
    ),
];

/// Takes a sentence from `$` or `!` on, its checksum already checked.
pub(super) fn sentence(frame: &[u8]) -> Result<Map<String, Value>, DecodeError> {
    let text = std::str::from_utf8(frame).map_err(|_| DecodeError::NotNmea)?;
    let body = text.strip_prefix(['$', '!']).ok_or(DecodeError::NotNmea)?;
    let body = body.rsplit_once('*').map_or(body, |(body, _)| body);
    let mut parts = body.split(',');
    let address =
        parts.next().filter(|address| address.len() >= 3 && address.is_ascii()).ok_or(DecodeError::NotNmea)?;
    let fields: Vec<&str> = parts.collect();
    // Proprietary sentences begin with P and the maker's three letters.
    let split = if address.starts_with('P') { 1 } else { address.len() - 3 };
    let (talker, name) = address.split_at(split);
    let mut out = Map::new();
    for (number, field, meaning) in known(name) {
        out.insert((*field).to_owned(), value(&fields, *number, *meaning));
    }
    out.insert("talker".to_owned(), talker.into());
    out.insert("sentence".to_owned(), name.into());
    out.insert("fields".to_owned(), json!(fields));
    Ok(out)
}

fn known(name: &str) -> &'static [(usize, &'static str, Meaning)] {
    KNOWN.iter().find(|(known, _)| *known == name).map_or(&[], |(_, fields)| fields)
}

/// `null`: empty, or not what it should be; its text stands in `fields`.
fn value(fields: &[&str], number: usize, meaning: Meaning) -> Value {
    let text = fields.get(number).copied().filter(|text| !text.is_empty());
    let hemisphere = fields.get(number + 1).copied().unwrap_or_default();
    text.and_then(|text| match meaning {
        Text => Some(text.into()),
        Number => decimal(text),
        Position => degrees(text, hemisphere),
        Time => time(text),
        Date => date(text),
    })
    .unwrap_or(Value::Null)
}

/// `08` is 8, and `1.50` is 1.5.
fn decimal(text: &str) -> Option<Value> {
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole.into());
    }
    text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from)
}

/// `4916.45,N`: 49 degrees and 16.45 minutes.
fn degrees(text: &str, hemisphere: &str) -> Option<Value> {
    let point = text.find('.').unwrap_or(text.len());
    let (degrees, minutes) = text.split_at_checked(point.checked_sub(2)?)?;
    let degrees: f64 = if degrees.is_empty() { 0.0 } else { degrees.parse().ok()? };
    let minutes = minutes.parse::<f64>().ok().filter(|minutes| (0.0..60.0).contains(minutes))?;
    let sign = match hemisphere {
        "N" | "E" => 1.0,
        "S" | "W" => -1.0,
        _ => return None,
    };
    Some(super::rounded(sign * (degrees + minutes / 60.0)).into())
}

fn time(text: &str) -> Option<Value> {
    let (whole, fraction) = text.split_once('.').map_or((text, ""), |(whole, fraction)| (whole, fraction));
    let point = if fraction.is_empty() { "" } else { "." };
    let [hour, minute, second] = pairs(whole)?;
    Some(format!("{hour}:{minute}:{second}{point}{fraction}").into())
}

/// A year of two digits: 80 to 99 is the last century (GPS began in 1980).
fn date(text: &str) -> Option<Value> {
    let [day, month, year] = pairs(text)?;
    let century = if year.parse::<u32>().ok()? >= 80 { 19 } else { 20 };
    Some(format!("{century}{year}-{month}-{day}").into())
}

fn pairs(text: &str) -> Option<[&str; 3]> {
    let digits = text.len() == 6 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| [&text[0..2], &text[2..4], &text[4..6]])
}
