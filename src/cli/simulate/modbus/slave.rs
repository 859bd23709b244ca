//! What a simulated device holds and answers. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::intake::modbus::answer::crc;
use crate::intake::modbus::register::{Kind, Register, Table, to_bytes};
use crate::intake::serial::decode::packed;

/// Without a map a device has so many cells in each table.
const PLAIN_CELLS: u16 = 10_000;
const REQUEST: usize = 8;

/// What all simulated devices hold.
pub enum Memory {
    /// Each cell holds its own address; of bits the odd ones are set.
    Plain,
    /// What a map names, with values that its units suggest.
    Map(Vec<Register>),
}

/// The cells of one device at one time.
pub struct Cells<'m> {
    memory: &'m Memory,
    named: BTreeMap<(Table, u16), u16>,
}

impl Memory {
    pub fn at(&self, unit: u8, since: Duration) -> Cells<'_> {
        let mut named = BTreeMap::new();
        let registers = if let Memory::Map(registers) = self { &registers[..] } else { &[] };
        for register in registers {
            let words = stored(register, plausible(register.unit.as_deref(), unit, since));
            named.extend((register.address..).zip(words).map(|(at, word)| ((register.table, at), word)));
        }
        Cells { memory: self, named }
    }
}

impl Cells<'_> {
    fn get(&self, table: Table, address: u16) -> Option<u16> {
        match self.memory {
            Memory::Plain if table.is_bits() => (address < PLAIN_CELLS).then_some(address % 2),
            Memory::Plain => (address < PLAIN_CELLS).then_some(address),
            Memory::Map(_) => self.named.get(&(table, address)).copied(),
        }
    }

    /// The answer to a request, both without address and checksum.
    pub fn answer(&self, request: &[u8]) -> Vec<u8> {
        let function = request.first().copied().unwrap_or_default();
        self.read(request).unwrap_or_else(|exception| vec![function | 0x80, exception])
    }

    fn read(&self, request: &[u8]) -> Result<Vec<u8>, u8> {
        const FUNCTION: u8 = 1;
        const ADDRESS: u8 = 2;
        const VALUE: u8 = 3;
        let &[function, a, b, c, d] = request else { return Err(FUNCTION) };
        let tables = [Table::Coil, Table::Discrete, Table::Holding, Table::Input];
        let table = tables.into_iter().find(|table| table.function() == function).ok_or(FUNCTION)?;
        let (address, count) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        if !(1..=if table.is_bits() { 2_000 } else { 125 }).contains(&count) {
            return Err(VALUE);
        }
        let cell = |at: u16| self.get(table, address.checked_add(at).ok_or(ADDRESS)?).ok_or(ADDRESS);
        let cells: Vec<u16> = (0..count).map(cell).collect::<Result<_, u8>>()?;
        let values =
            if table.is_bits() { packed_bits(&cells) } else { cells.iter().flat_map(|c| c.to_be_bytes()).collect() };
        let length = u8::try_from(values.len()).map_err(|_| VALUE)?;
        Ok([&[function, length], &values[..]].concat())
    }
}

fn packed_bits(cells: &[u16]) -> Vec<u8> {
    let byte = |eight: &[u16]| eight.iter().rev().fold(0, |byte, bit| byte << 1 | u8::from(*bit > 0));
    cells.chunks(8).map(byte).collect()
}

/// The first whole request in what came by RTU: unit and request; it and what is before it are taken out.
pub fn rtu_request(heard: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let is_whole = |window: &[u8]| crc().strip(window).is_some();
    let at = heard.windows(REQUEST).position(is_whole)?;
    let frame: Vec<u8> = heard.drain(..at + REQUEST).skip(at).collect();
    Some((frame[0], frame[1..REQUEST - 2].to_vec()))
}

pub fn rtu_answer(unit: u8, answer: &[u8]) -> Vec<u8> {
    let mut frame = [&[unit], answer].concat();
    crc().append(&mut frame);
    frame
}

/// The same by TCP; the header is returned too.
pub fn tcp_request(heard: &mut Vec<u8>) -> Option<([u8; 4], u8, Vec<u8>)> {
    let length = usize::from(u16::from_be_bytes([*heard.get(4)?, *heard.get(5)?]));
    if length < 2 || heard.len() < 6 + length {
        return None;
    }
    let frame: Vec<u8> = heard.drain(..6 + length).collect();
    Some(([frame[0], frame[1], frame[2], frame[3]], frame[6], frame[7..].to_vec()))
}

pub fn tcp_answer(head: [u8; 4], unit: u8, answer: &[u8]) -> Vec<u8> {
    let length = (answer.len() as u16 + 1).to_be_bytes();
    [&head[..], &length, &[unit], answer].concat()
}

/// A value such as the unit makes one expect; no two devices and no two seconds are the same.
fn plausible(unit: Option<&str>, device: u8, since: Duration) -> f64 {
    let wave = (since.as_secs_f64() / 7.0 + f64::from(device)).sin();
    match unit {
        Some("V") => 230.0 + 2.0 * wave,
        Some("A") => 5.0 + wave,
        Some("W" | "VA") => 1_150.0 + 230.0 * wave,
        Some("var") => 100.0 * wave,
        Some("Hz") => 50.0 + 0.02 * wave,
        Some("kWh") => 1_000.0 * f64::from(device) + since.as_secs_f64() / 100.0,
        Some("Wh") => 1_000_000.0 * f64::from(device) + since.as_secs_f64() * 10.0,
        _ => 1.0,
    }
}

/// As the device keeps it: the inverse of [`Register::read`].
fn stored(register: &Register, value: f64) -> Vec<u16> {
    let raw = (value - register.scaling.offset) / register.scaling.scale;
    let kind = match register.kind {
        Kind::Bit => return vec![u16::from(raw > 0.0)],
        Kind::Words(kind) => kind,
    };
    let bytes = match kind {
        packed::Kind::Unsigned(width) => (raw.round() as u64).to_be_bytes()[8 - width..].to_vec(),
        packed::Kind::Signed(width) => (raw.round() as i64).to_be_bytes()[8 - width..].to_vec(),
        packed::Kind::F32 => (raw as f32).to_be_bytes().to_vec(),
        packed::Kind::F64 => raw.to_be_bytes().to_vec(),
        packed::Kind::Text(width) => "FOREBAY".bytes().chain(std::iter::repeat(0)).take(width).collect(),
        packed::Kind::Bits { bytes, .. } => vec![0; bytes],
    };
    let words: Vec<u16> =
        bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])).collect();
    // Either order turned twice is as before.
    let turned = to_bytes(&words, register.orders);
    turned.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::intake::modbus::register;
    use crate::intake::modbus::register::Orders;
    use crate::intake::serial::frame::ByteOrder;

    #[test]
    fn it_answers_and_refuses_as_a_device_does() {
        let cells = Memory::Plain.at(1, Duration::ZERO);
        assert_eq!(cells.answer(&[3, 0, 7, 0, 2]), [3, 4, 0, 7, 0, 8]);
        assert_eq!(cells.answer(&[1, 0, 1, 0, 10]), [1, 2, 0b0101_0101, 0b01]);
        assert_eq!(cells.answer(&[4, 0x27, 0x0f, 0, 2]), [0x84, 2]);
        assert_eq!(cells.answer(&[3, 0, 0, 0, 126]), [0x83, 3]);
        assert_eq!(cells.answer(&[6, 0, 0, 0, 1]), [0x86, 1]);
        let mut heard = [&[9, 9][..], &rtu_answer(5, &[3, 0, 0, 0, 1]), &[1]].concat();
        assert_eq!(rtu_request(&mut heard), Some((5, vec![3, 0, 0, 0, 1])));
        assert_eq!((rtu_request(&mut heard), heard), (None, vec![1]));
        let mut heard = tcp_answer([0, 7, 0, 0], 3, &[4, 0, 0, 0, 1]);
        assert_eq!(tcp_request(&mut heard), Some(([0, 7, 0, 0], 3, vec![4, 0, 0, 0, 1])));
    }

    proptest! {
        #[test]
        fn what_a_device_keeps_is_read_back(value in -20_000i32..20_000, bytes in any::<bool>(), words in any::<bool>()) {
            let order = |little| if little { ByteOrder::Little } else { ByteOrder::Big };
            let orders = Orders { bytes: order(bytes), words: order(words) };
            for kind in [packed::Kind::Signed(2), packed::Kind::Signed(8), packed::Kind::F32, packed::Kind::F64] {
                let made = register::tests::register("x", Table::Holding, 3, Kind::Words(kind));
                let made = Register { orders, ..made };
                let cells = register::Cells::Words(stored(&made, f64::from(value)));
                prop_assert_eq!(made.read(&cells, 3).unwrap().as_f64(), Some(f64::from(value)));
            }
        }
    }
}
