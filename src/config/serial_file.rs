//! What may be written below `[[source.serial]]`. See `file.rs` for what that means.

use std::time::Duration;

use super::fields::{List, Opt, Section};
use super::problem::Findings;
use super::reader::{Field, Key, Node, Reader, Table, table};
use super::report::ReportTable;
use super::scalars::{ByteSize, Scalar, word, words};
use super::serial_model::{FlowControl, Parity};
use crate::intake::serial::decode::Encoding;
use crate::intake::serial::frame::{ByteOrder, LineEnd};

table! {
    pub struct SerialTable {
        name: Opt<String>,
        port: Opt<String>,
        usb: Section<UsbTable>,
        baud: Opt<i64>,
        data_bits: Opt<i64>,
        parity: Opt<Parity>,
        stop_bits: Opt<i64>,
        flow_control: Opt<FlowControl>,
        exclusive: Opt<bool>,
        dtr: Opt<bool>,
        rs485: Section<Rs485Table>,
        topic: Opt<String>,
        volatile: Opt<bool>,
        silence: Opt<Duration>,
        unacked_bytes_max: Opt<ByteSize>,
        backoff_min: Opt<Duration>,
        backoff_max: Opt<Duration>,
        frame: Section<FrameTable>,
        decode: Section<DecodeTable>,
        report: Section<ReportTable>,
        poll: List<PollTable>,
    }
}

table! {
    pub struct UsbTable {
        vendor: Opt<String>,
        product: Opt<String>,
        serial: Opt<String>,
        interface: Opt<i64>,
    }
}

table! {
    pub struct Rs485Table {
        rts_on_send: Opt<bool>,
        delay_before_send: Opt<Duration>,
        delay_after_send: Opt<Duration>,
        receive_while_sending: Opt<bool>,
        termination: Opt<bool>,
    }
}

table! {
    pub struct FrameTable {
        kind: Opt<FrameKind>,
        ending: Opt<LineEnd>,
        delimiter: Opt<Bytes>,
        start: Opt<Bytes>,
        stop: Opt<Bytes>,
        size: Opt<i64>,
        gap: Opt<Duration>,
        max: Opt<ByteSize>,
        timeout: Opt<Duration>,
        checksum_required: Opt<bool>,
        length: Section<LengthTable>,
        checksum: Section<ChecksumTable>,
    }
}

table! {
    pub struct LengthTable {
        offset: Opt<i64>,
        size: Opt<i64>,
        order: Opt<ByteOrder>,
        adds: Opt<i64>,
    }
}

table! {
    pub struct ChecksumTable {
        kind: Opt<String>,
        order: Opt<ByteOrder>,
        hex: Opt<bool>,
        skip: Opt<i64>,
        after_stop: Opt<bool>,
    }
}

table! {
    pub struct DecodeTable {
        kind: Opt<DecodeKind>,
        encoding: Opt<Encoding>,
        separator: Opt<String>,
        pattern: Opt<String>,
        fields: List<FieldTable>,
    }
}

table! {
    pub struct FieldTable {
        name: Opt<String>,
        kind: Opt<FieldKind>,
        unit: Opt<String>,
        scale: Opt<f64>,
        add: Opt<f64>,
        at: Opt<i64>,
        length: Opt<i64>,
        order: Opt<ByteOrder>,
        bit: Opt<i64>,
        bits: Opt<i64>,
    }
}

table! {
    pub struct PollTable {
        name: Opt<String>,
        query: Opt<Bytes>,
        interval: Opt<Duration>,
        timeout: Opt<Duration>,
        retries: Opt<i64>,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    Lines,
    Delimiter,
    StartStop,
    Length,
    Fixed,
    Gap,
    Slip,
    Cobs,
    Nmea,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeKind {
    Raw,
    Text,
    Csv,
    Regex,
    Nmea,
    Packed,
}

/// Of a column, or of a place in a packed frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    Text,
    Int,
    Float,
    Bool,
    Skip,
    Bits,
    F32,
    F64,
    /// So many bytes.
    Unsigned(usize),
    Signed(usize),
}

words!(Parity { "none" => Parity::None, "even" => Parity::Even, "odd" => Parity::Odd });
words!(FlowControl {
    "none" => FlowControl::None,
    "hardware" => FlowControl::Hardware,
    "software" => FlowControl::Software,
});
words!(LineEnd { "any" => LineEnd::Any, "lf" => LineEnd::Lf, "cr" => LineEnd::Cr, "crlf" => LineEnd::CrLf });
words!(ByteOrder { "big" => ByteOrder::Big, "little" => ByteOrder::Little });
words!(Encoding { "utf-8" => Encoding::Utf8, "latin-1" => Encoding::Latin1 });
words!(FrameKind {
    "lines" => FrameKind::Lines,
    "delimiter" => FrameKind::Delimiter,
    "start-stop" => FrameKind::StartStop,
    "length" => FrameKind::Length,
    "fixed" => FrameKind::Fixed,
    "gap" => FrameKind::Gap,
    "slip" => FrameKind::Slip,
    "cobs" => FrameKind::Cobs,
    "nmea" => FrameKind::Nmea,
});
words!(DecodeKind {
    "raw" => DecodeKind::Raw,
    "text" => DecodeKind::Text,
    "csv" => DecodeKind::Csv,
    "regex" => DecodeKind::Regex,
    "nmea" => DecodeKind::Nmea,
    "packed" => DecodeKind::Packed,
});
words!(FieldKind {
    "text" => FieldKind::Text,
    "int" => FieldKind::Int,
    "float" => FieldKind::Float,
    "bool" => FieldKind::Bool,
    "skip" => FieldKind::Skip,
    "bits" => FieldKind::Bits,
    "u8" => FieldKind::Unsigned(1),
    "i8" => FieldKind::Signed(1),
    "u16" => FieldKind::Unsigned(2),
    "i16" => FieldKind::Signed(2),
    "u32" => FieldKind::Unsigned(4),
    "i32" => FieldKind::Signed(4),
    "u64" => FieldKind::Unsigned(8),
    "i64" => FieldKind::Signed(8),
    "f32" => FieldKind::F32,
    "f64" => FieldKind::F64,
});

/// Bytes on a line: a text with the escapes of TOML (`"\u0002"`), or `"hex:02 FF"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Scalar for Bytes {
    fn read(name: &str, node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(name, node)?;
        let Some(digits) = text.strip_prefix("hex:") else { return Some(Bytes(text.into_bytes())) };
        let digits: String = digits.chars().filter(|c| !c.is_whitespace()).collect();
        let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or_default());
        let bytes: Option<Vec<u8>> =
            pairs.map(|pair| u8::from_str_radix(pair, 16).ok().filter(|_| pair.len() == 2)).collect();
        if bytes.is_none() {
            let place = reader.place(node.span());
            let message = format!("`{name}` is not written in pairs of hexadecimal digits");
            reader.found.error(place, message).help("for instance \"hex:02 FF\"");
        }
        bytes.map(Bytes)
    }
}

impl Scalar for f64 {
    fn read(name: &str, node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let number = match node.get_ref() {
            toml::de::DeValue::Float(number) => number.as_str().replace('_', "").parse::<f64>().ok(),
            toml::de::DeValue::Integer(number) => number.as_str().replace('_', "").parse::<f64>().ok(),
            _ => None,
        };
        let number = number.filter(|number| number.is_finite());
        if number.is_none() {
            reader.wrong_type(name, node, "a number").help(format!("without quotes: {name} = 0.1"));
        }
        number
    }
}
