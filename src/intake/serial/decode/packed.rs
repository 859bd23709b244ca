//! Numbers at fixed places of a frame. Pure.

use serde_json::{Map, Value};

use super::{DecodeError, Scaling};
use crate::intake::serial::frame::ByteOrder;

/// What lies there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes: 1, 2, 4 or 8.
    Unsigned(usize),
    Signed(usize),
    F32,
    F64,
    /// So many bytes of text, up to the first zero.
    Text(usize),
    /// Bits `from` to `from + count` of a number of so many bytes, counted from the lowest. One bit is a truth value.
    Bits {
        bytes: usize,
        from: u32,
        count: u32,
    },
}

impl Kind {
    pub fn width(self) -> usize {
        match self {
            Kind::Unsigned(bytes) | Kind::Signed(bytes) | Kind::Text(bytes) | Kind::Bits { bytes, .. } => bytes,
            Kind::F32 => 4,
            Kind::F64 => 8,
        }
    }
}

/// A field of a packed frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    pub name: String,
    /// Bytes from the start of the frame.
    pub at: usize,
    pub kind: Kind,
    pub order: ByteOrder,
    pub unit: Option<String>,
    pub scaling: Scaling,
}

pub(super) fn read(frame: &[u8], fields: &[Packed]) -> Result<Map<String, Value>, DecodeError> {
    let read = |field: &Packed| {
        let bytes = frame.get(field.at..field.at + field.kind.width());
        let bytes = bytes.ok_or_else(|| DecodeError::TooShort { field: field.name.clone() })?;
        Ok((field.name.clone(), value(bytes, field.kind, field.order, field.scaling)))
    };
    fields.iter().map(read).collect()
}

/// The value of exactly [`Kind::width`] bytes.
pub fn value(bytes: &[u8], kind: Kind, order: ByteOrder, scaling: Scaling) -> Value {
    let number = unsigned(bytes, order);
    match kind {
        Kind::Unsigned(_) => scaling.int(number.into()),
        Kind::Signed(bytes) => {
            let shift = 64 - 8 * bytes as u32;
            scaling.int((((number << shift) as i64) >> shift).into())
        }
        Kind::F32 => single(f32::from_bits(number as u32), scaling),
        Kind::F64 => scaling.float(f64::from_bits(number)),
        Kind::Text(_) => {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            Value::from(String::from_utf8_lossy(&bytes[..end]).trim_end())
        }
        Kind::Bits { from, count: 1, .. } => Value::from(number >> from & 1 == 1),
        Kind::Bits { from, count, .. } => {
            let mask = if count >= 64 { u64::MAX } else { (1 << count) - 1 };
            scaling.int((number >> from & mask).into())
        }
    }
}

/// As its shortest decimal form: 0.1 of 32 bits is 0.1, not 0.10000000149011612.
fn single(number: f32, scaling: Scaling) -> Value {
    scaling.float(number.to_string().parse().unwrap_or(f64::from(number)))
}

fn unsigned(bytes: &[u8], order: ByteOrder) -> u64 {
    let digit = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    match order {
        ByteOrder::Big => bytes.iter().fold(0, digit),
        ByteOrder::Little => bytes.iter().rev().fold(0, digit),
    }
}
