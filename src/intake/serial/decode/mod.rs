//! Decoders: from a frame to JSON. Pure.
//!
//! A decoded reading is one JSON object of the fields, `units` beside them where the configuration names any. What
//! cannot be decoded is no loss: it goes to the dead letters as it came, with the cause.

mod nmea;
pub mod packed;
pub mod text;

use regex_lite::Regex;
use serde_json::{Map, Value};

use crate::intake::exception::Content;
pub use packed::Packed;
pub use text::{Column, Encoding, Kind};

/// What becomes of a frame.
#[derive(Debug, Clone)]
pub enum Decoder {
    /// The frame as it is.
    Raw,
    /// `{"text": "..."}`.
    Text(Encoding),
    /// One column after the other.
    Csv { separator: u8, encoding: Encoding, columns: Vec<Column> },
    /// Its named groups. The columns say their types; a group without one is text.
    Regex { pattern: Regex, encoding: Encoding, columns: Vec<Column> },
    /// NMEA 0183 sentences.
    Nmea,
    /// Numbers at fixed places.
    Packed(Vec<Packed>),
}

/// Why a frame could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("decode the frame: it is not UTF-8")]
    NotUtf8,
    #[error("decode the frame: {found} columns instead of {wanted}")]
    Columns { found: usize, wanted: usize },
    #[error("decode the frame: the pattern does not match")]
    NoMatch,
    #[error("decode the field {field}: it is no {kind}")]
    Value { field: String, kind: &'static str },
    #[error("decode the field {field}: the frame ends before it")]
    TooShort { field: String },
    #[error("decode the frame: it is no NMEA 0183 sentence")]
    NotNmea,
}

/// A frame that has been understood.
#[derive(Debug)]
pub enum Decoded<'f> {
    Raw(&'f [u8]),
    Fields(Map<String, Value>),
}

impl Decoded<'_> {
    /// Writes the reading's payload into `out`, which is cleared first.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Decoded::Raw(frame) => out.extend_from_slice(frame),
            // Writing a map with string keys to memory cannot fail.
            Decoded::Fields(fields) => drop(serde_json::to_writer(out, fields)),
        }
    }
}

impl From<Decoded<'_>> for Content {
    fn from(decoded: Decoded<'_>) -> Self {
        match decoded {
            Decoded::Raw(frame) => Content::Bytes(frame.to_vec()),
            Decoded::Fields(fields) => Content::Fields(fields),
        }
    }
}

impl Decoder {
    /// # Errors
    /// [`DecodeError`]: the frame belongs into the dead letters.
    pub fn decode<'f>(&self, frame: &'f [u8]) -> Result<Decoded<'f>, DecodeError> {
        let fields = match self {
            Decoder::Raw => return Ok(Decoded::Raw(frame)),
            Decoder::Text(encoding) => {
                Map::from_iter([("text".to_owned(), Value::String(encoding.read(frame)?.trim().to_owned()))])
            }
            Decoder::Csv { separator, encoding, columns } => text::csv(&encoding.read(frame)?, *separator, columns)?,
            Decoder::Regex { pattern, encoding, columns } => text::groups(&encoding.read(frame)?, pattern, columns)?,
            Decoder::Nmea => nmea::sentence(frame)?,
            Decoder::Packed(fields) => packed::read(frame, fields)?,
        };
        Ok(Decoded::Fields(with_units(fields, self)))
    }

    /// The fields that it can make. `None`: that depends on the frame.
    pub fn field_names(&self) -> Option<Vec<&str>> {
        Some(match self {
            Decoder::Raw => Vec::new(),
            Decoder::Nmea => return None,
            Decoder::Text(_) => vec!["text"],
            Decoder::Csv { columns, .. } => {
                columns.iter().filter(|c| c.kind != Kind::Skip).map(|c| c.name.as_str()).collect()
            }
            Decoder::Regex { pattern, .. } => pattern.capture_names().flatten().collect(),
            Decoder::Packed(fields) => fields.iter().map(|field| field.name.as_str()).collect(),
        })
    }

    /// The content type of what it makes; `None`: nobody knows.
    pub fn content_type(&self) -> Option<&'static str> {
        (!matches!(self, Decoder::Raw)).then_some("application/json")
    }

    fn units(&self) -> Vec<(&str, &str)> {
        match self {
            Decoder::Csv { columns, .. } | Decoder::Regex { columns, .. } => {
                columns.iter().filter_map(|c| Some((c.name.as_str(), c.unit.as_deref()?))).collect()
            }
            Decoder::Packed(fields) => {
                fields.iter().filter_map(|f| Some((f.name.as_str(), f.unit.as_deref()?))).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn with_units(mut fields: Map<String, Value>, decoder: &Decoder) -> Map<String, Value> {
    let units: Map<String, Value> =
        decoder.units().into_iter().map(|(name, unit)| (name.to_owned(), Value::from(unit))).collect();
    if !units.is_empty() {
        fields.insert("units".to_owned(), Value::Object(units));
    }
    fields
}

/// How a number becomes a measured value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    pub scale: f64,
    pub offset: f64,
}

impl Default for Scaling {
    fn default() -> Self {
        Scaling { scale: 1.0, offset: 0.0 }
    }
}

impl Scaling {
    /// Whole numbers stay whole where nothing is to be done.
    pub fn int(self, raw: i128) -> Value {
        if self == Scaling::default() {
            return i64::try_from(raw)
                .map(Value::from)
                .or_else(|_| u64::try_from(raw).map(Value::from))
                .unwrap_or(Value::Null);
        }
        self.float(raw as f64)
    }

    /// `null` for what JSON cannot say: not a number, infinite.
    pub fn float(self, raw: f64) -> Value {
        if self == Scaling::default() {
            return Value::from(raw);
        }
        Value::from(rounded(raw * self.scale + self.offset))
    }
}

/// To 12 significant digits: 3 times 0.1 is 0.3 for whoever reads it, and no converter on a line has more.
fn rounded(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests;
