//! What may be written below `[[source.modbus]]` and in a register map. See `file.rs` for what that means.

use std::time::Duration;

use super::fields::{List, Opt, Section};
use super::problem::Findings;
use super::reader::{At, Field, Key, Node, Reader, Table, table};
use super::report::ReportTable;
use super::scalars::{ByteSize, Scalar, word, words};
use super::serial_file::{Rs485Table, UsbTable};
use super::serial_model::{FlowControl, Parity};
use crate::intake::modbus::answer::Framing;
use crate::intake::modbus::register;
use crate::intake::serial::frame::ByteOrder;

table! {
    pub struct ModbusTable {
        name: Opt<String>,
        tcp: Opt<String>,
        framing: Opt<Framing>,
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
        interval: Opt<Duration>,
        timeout: Opt<Duration>,
        retries: Opt<i64>,
        pause: Opt<Duration>,
        stale_for: Opt<Duration>,
        topic: Opt<String>,
        volatile: Opt<bool>,
        report: Section<ReportTable>,
        unacked_bytes_max: Opt<ByteSize>,
        backoff_min: Opt<Duration>,
        backoff_max: Opt<Duration>,
        device: List<DeviceTable>,
    }
}

table! {
    pub struct DeviceTable {
        name: Opt<String>,
        unit: Opt<i64>,
        interval: Opt<Duration>,
        map: Opt<String>,
        map_file: Opt<String>,
        byte_order: Opt<ByteOrder>,
        word_order: Opt<ByteOrder>,
        registers_max: Opt<i64>,
        bits_max: Opt<i64>,
        gap_max: Opt<i64>,
        group: List<GroupTable>,
        register: List<RegisterTable>,
    }
}

table! {
    pub struct GroupTable {
        name: Opt<String>,
        interval: Opt<Duration>,
        values: Opt<Vec<At<String>>>,
    }
}

table! {
    pub struct RegisterTable {
        name: Opt<String>,
        table: Opt<register::Table>,
        address: Opt<i64>,
        kind: Opt<ValueType>,
        length: Opt<i64>,
        bit: Opt<i64>,
        bits: Opt<i64>,
        byte_order: Opt<ByteOrder>,
        word_order: Opt<ByteOrder>,
        scale: Opt<f64>,
        add: Opt<f64>,
        unit: Opt<String>,
        invalid: Opt<i64>,
    }
}

table! {
    /// A file of its own: what a kind of device holds.
    pub struct MapTable {
        about: Opt<String>,
        byte_order: Opt<ByteOrder>,
        word_order: Opt<ByteOrder>,
        registers_max: Opt<i64>,
        bits_max: Opt<i64>,
        gap_max: Opt<i64>,
        register: List<RegisterTable>,
    }
}

/// What a value is, as a person types it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    Bool,
    /// So many bytes.
    Unsigned(usize),
    Signed(usize),
    F32,
    F64,
    Text,
    Bits,
}

words!(Framing { "tcp" => Framing::Tcp, "rtu" => Framing::Rtu });
words!(register::Table {
    "coil" => register::Table::Coil,
    "discrete" => register::Table::Discrete,
    "input" => register::Table::Input,
    "holding" => register::Table::Holding,
});
words!(ValueType {
    "bool" => ValueType::Bool,
    "u16" => ValueType::Unsigned(2),
    "i16" => ValueType::Signed(2),
    "u32" => ValueType::Unsigned(4),
    "i32" => ValueType::Signed(4),
    "u64" => ValueType::Unsigned(8),
    "i64" => ValueType::Signed(8),
    "f32" => ValueType::F32,
    "f64" => ValueType::F64,
    "string" => ValueType::Text,
    "bits" => ValueType::Bits,
});
