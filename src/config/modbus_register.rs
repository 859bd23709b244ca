//! `[[source.modbus.device.register]]`, and the registers of maps. Pure.

use super::modbus_file::{RegisterTable, ValueType};
use super::problem::Place;
use super::reader::At;
use super::resolve::Resolver;
use super::serial::problem;
use crate::intake::modbus::plan::Limits;
use crate::intake::modbus::register::{Kind, Orders, Register, Table};
use crate::intake::serial::decode::{Scaling, packed};

const KINDS: &str = "u16, i16, u32, i32, u64, i64, f32, f64, string or bits";
/// A request's answer has room for so many registers.
pub const REGISTERS_MAX: i64 = 125;
const UNIT_CHARS_MAX: usize = 32;

/// One register of a device, and where it stands.
pub struct Placed {
    pub register: Register,
    pub place: Place,
}

pub fn register(at: &At<RegisterTable>, orders: Orders, limits: Limits, r: &mut Resolver<'_>) -> Option<Placed> {
    let table = &at.value;
    let name = name(at, r)?;
    let help = "for instance table = \"holding\": coil, discrete, input or holding";
    let of = r.required(&table.table, "table", at.place, help)?.value;
    let address = address(at, of, r)?;
    let kind = if of.is_bits() { bit(at, of, r)? } else { words(at, r)? };
    let register = Register {
        name,
        table: of,
        address,
        kind,
        orders: Orders { bytes: table.byte_order.or(orders.bytes), words: table.word_order.or(orders.words) },
        unit: unit(at, r),
        scaling: scaling(at, kind, r),
        invalid: invalid(at, kind, r),
    };
    check_fit(&register, limits, at, r);
    Some(Placed { register, place: table.name.place().unwrap_or(at.place) })
}

fn name(at: &At<RegisterTable>, r: &mut Resolver<'_>) -> Option<String> {
    let name = r.required(&at.value.name, "name", at.place, "every value has a name, as in name = \"voltage_l1\"")?;
    let legal = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.value.is_empty() || name.value.len() > 64 || !name.value.chars().all(legal) {
        let message = format!("a value cannot be called {:?}", name.value);
        problem(name.place, &message, "use 1 to 64 letters, digits, `_`, `-` or `.`", r);
    }
    Some(name.value.clone())
}

fn address(at: &At<RegisterTable>, table: Table, r: &mut Resolver<'_>) -> Option<u16> {
    let help = "as it goes over the line, from 0: what a manual calls 40001 is table = \"holding\", address = 0; \
                30001 is table = \"input\", address = 0";
    let address = r.required(&at.value.address, "address", at.place, help)?;
    let number = u16::try_from(address.value).ok();
    let first = if table == Table::Holding { 40_001 } else { 30_001 };
    match number {
        None => problem(address.place, &format!("`address` is out of bounds: {}", address.value), help, r),
        Some(number) if matches!(table, Table::Holding | Table::Input) && (first..first + 9_999).contains(&number) => {
            let message = format!("the address {number} looks like the number that a manual gives to a register");
            r.found.warning(address.place, message).help(format!("if it is one, write address = {}", number - first));
        }
        Some(_) => {}
    }
    number
}

fn bit(at: &At<RegisterTable>, table: Table, r: &mut Resolver<'_>) -> Option<Kind> {
    let keys = &at.value;
    if let Some(kind) = keys.kind.get().filter(|kind| kind.value != ValueType::Bool) {
        let message = format!("a {} is one bit: it can only be a bool", table.name());
        problem(kind.place, &message, "remove `kind`, or read another table", r);
        return None;
    }
    let places = [
        ("length", keys.length.place()),
        ("bit", keys.bit.place()),
        ("bits", keys.bits.place()),
        ("byte_order", keys.byte_order.place()),
        ("word_order", keys.word_order.place()),
        ("invalid", keys.invalid.place()),
    ];
    for (key, place) in places.into_iter().filter_map(|(key, place)| Some((key, place?))) {
        problem(place, &format!("`{key}` has no effect: a {} is one bit", table.name()), "remove it", r);
    }
    Some(Kind::Bit)
}

fn words(at: &At<RegisterTable>, r: &mut Resolver<'_>) -> Option<Kind> {
    let keys = &at.value;
    let kind = keys.kind.or(ValueType::Unsigned(2));
    if !matches!(kind, ValueType::Text | ValueType::Bits) {
        let help = "remove it: the kind says how long it is";
        keys.length.place().into_iter().for_each(|place| problem(place, "`length` is for strings and bits", help, r));
    }
    if kind != ValueType::Bits {
        for (key, place) in [("bit", keys.bit.place()), ("bits", keys.bits.place())] {
            let message = format!("`{key}` is for kind = \"bits\"");
            place.into_iter().for_each(|place| problem(place, &message, "add kind = \"bits\", or remove it", r));
        }
    }
    let bytes = |registers: i64| usize::try_from(2 * registers).unwrap_or(2);
    Some(Kind::Words(match kind {
        ValueType::Unsigned(bytes) => packed::Kind::Unsigned(bytes),
        ValueType::Signed(bytes) => packed::Kind::Signed(bytes),
        ValueType::F32 => packed::Kind::F32,
        ValueType::F64 => packed::Kind::F64,
        ValueType::Text => {
            r.required(&keys.length, "length", at.place, "registers of the string, two characters each: length = 8");
            packed::Kind::Text(bytes(r.number(&keys.length, "length", 1..=REGISTERS_MAX, 1)))
        }
        ValueType::Bits => bits(at, bytes(r.number(&keys.length, "length", 1..=4, 1)), r),
        ValueType::Bool => {
            let help = format!("a register holds {KINDS}; for one bit of it write kind = \"bits\", bit = 0");
            problem(keys.kind.place().unwrap_or(at.place), "a register is no bool", &help, r);
            return None;
        }
    }))
}

fn bits(at: &At<RegisterTable>, bytes: usize, r: &mut Resolver<'_>) -> packed::Kind {
    let width = 8 * bytes as i64;
    let from = r.number(&at.value.bit, "bit", 0..=width - 1, 0);
    let count = r.number(&at.value.bits, "bits", 1..=width - from, 1);
    packed::Kind::Bits { bytes, from: u32::try_from(from).unwrap_or(0), count: u32::try_from(count).unwrap_or(1) }
}

fn is_number(kind: Kind) -> bool {
    !matches!(kind, Kind::Bit | Kind::Words(packed::Kind::Text(_) | packed::Kind::Bits { count: 1, .. }))
}

fn scaling(at: &At<RegisterTable>, kind: Kind, r: &mut Resolver<'_>) -> Scaling {
    let keys = &at.value;
    if !is_number(kind) {
        for (key, place) in [("scale", keys.scale.place()), ("add", keys.add.place())] {
            let message = format!("`{key}` has no effect: this value is no number");
            place.into_iter().for_each(|place| problem(place, &message, "remove it", r));
        }
    }
    let scale = keys.scale.or(1.0);
    if let Some(place) = keys.scale.place().filter(|_| scale == 0.0) {
        problem(place, "`scale` of nothing makes every value the same", "remove it for 1", r);
    }
    Scaling { scale, offset: keys.add.or(0.0) }
}

fn invalid(at: &At<RegisterTable>, kind: Kind, r: &mut Resolver<'_>) -> Option<u64> {
    let invalid = at.value.invalid.get()?;
    if !matches!(kind, Kind::Words(packed::Kind::Unsigned(_) | packed::Kind::Signed(_))) {
        let help = "a float that is not a number is found without it";
        problem(invalid.place, "`invalid` is for whole numbers", help, r);
    }
    let bits = 16 * u32::from(kind.width().clamp(1, 4));
    let (least, most) = (-(1i128 << (bits - 1)), (1i128 << bits) - 1);
    if !(least..=most).contains(&i128::from(invalid.value)) {
        let message = format!("`invalid` does not fit into {bits} bits: {}", invalid.value);
        problem(invalid.place, &message, "write the raw number, such as 0xFFFF", r);
    }
    Some(invalid.value as u64)
}

fn unit(at: &At<RegisterTable>, r: &mut Resolver<'_>) -> Option<String> {
    let unit = at.value.unit.get()?;
    if unit.value.is_empty() || unit.value.chars().count() > UNIT_CHARS_MAX || unit.value.contains(char::is_control) {
        problem(unit.place, "`unit` is empty, too long or not printable", "for instance unit = \"kWh\"", r);
    }
    Some(unit.value.clone())
}

fn check_fit(register: &Register, limits: Limits, at: &At<RegisterTable>, r: &mut Resolver<'_>) {
    let place = at.value.address.place().unwrap_or(at.place);
    if u32::from(register.address) + u32::from(register.width()) > 1 << 16 {
        problem(place, "the value ends behind the last address, 65535", "see `address` and `kind`", r);
    }
    if !register.table.is_bits() && register.width() > limits.registers {
        let message = format!("the value does not fit into one request: {} registers", register.width());
        problem(place, &message, "raise `registers_max`, or make it shorter", r);
    }
}
