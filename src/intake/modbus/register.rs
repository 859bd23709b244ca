//! What lies in a device's registers, and what it means. Pure.

use serde_json::Value;

use crate::intake::serial::decode::{Scaling, packed};
use crate::intake::serial::frame::ByteOrder;

/// The four tables of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    Coil,
    Discrete,
    Input,
    Holding,
}

impl Table {
    /// Its cells are single bits instead of registers of 16.
    pub fn is_bits(self) -> bool {
        matches!(self, Table::Coil | Table::Discrete)
    }

    /// The function that reads it.
    pub fn function(self) -> u8 {
        match self {
            Table::Coil => 1,
            Table::Discrete => 2,
            Table::Holding => 3,
            Table::Input => 4,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Table::Coil => "coil",
            Table::Discrete => "discrete",
            Table::Input => "input",
            Table::Holding => "holding",
        }
    }
}

/// How a number is spread over bytes and registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orders {
    /// Within a register. The protocol's own is big; some devices pack otherwise.
    pub bytes: ByteOrder,
    /// Which register comes first.
    pub words: ByteOrder,
}

/// What a value is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One coil or discrete input.
    Bit,
    /// Registers, two bytes each.
    Words(packed::Kind),
}

impl Kind {
    /// In cells of its table.
    pub fn width(self) -> u16 {
        match self {
            Kind::Bit => 1,
            Kind::Words(kind) => u16::try_from(kind.width().div_ceil(2)).unwrap_or(u16::MAX),
        }
    }
}

/// A named value of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Register {
    pub name: String,
    pub table: Table,
    /// As it goes over the line: from 0.
    pub address: u16,
    pub kind: Kind,
    pub orders: Orders,
    pub unit: Option<String>,
    pub scaling: Scaling,
    /// The raw number by which the device says that it has no value.
    pub invalid: Option<u64>,
}

/// Why the cells make no value, in words for a person.
pub type NoValue = &'static str;

const NOT_A_NUMBER: NoValue = "not a number";
const NOTHING_THERE: NoValue = "the device says that it has no value";
const MISSING: NoValue = "the answer does not hold it";

/// What was read, from `address` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cells {
    Bits(Vec<bool>),
    Words(Vec<u16>),
}

impl Register {
    pub fn width(&self) -> u16 {
        self.kind.width()
    }

    /// The value in `cells`, which begin at the address `from` of this register's table.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(&self, cells: &Cells, from: u16) -> Result<Value, NoValue> {
        let start = usize::from(self.address.checked_sub(from).ok_or(MISSING)?);
        let range = start..start + usize::from(self.width());
        match (self.kind, cells) {
            (Kind::Bit, Cells::Bits(bits)) => bits.get(start).map(|bit| Value::from(*bit)).ok_or(MISSING),
            (Kind::Words(kind), Cells::Words(words)) => self.number(kind, words.get(range).ok_or(MISSING)?),
            _ => Err(MISSING),
        }
    }

    fn number(&self, kind: packed::Kind, words: &[u16]) -> Result<Value, NoValue> {
        let bytes = to_bytes(words, self.orders);
        if self.invalid.is_some_and(|invalid| raw(&bytes) == masked(invalid, bytes.len())) {
            return Err(NOTHING_THERE);
        }
        match packed::value(&bytes, kind, ByteOrder::Big, self.scaling) {
            Value::Null => Err(NOT_A_NUMBER),
            value => Ok(value),
        }
    }
}

/// In the order of a number written down: highest byte first.
pub fn to_bytes(words: &[u16], orders: Orders) -> Vec<u8> {
    let bytes = |word: &u16| match orders.bytes {
        ByteOrder::Big => word.to_be_bytes(),
        ByteOrder::Little => word.to_le_bytes(),
    };
    match orders.words {
        ByteOrder::Big => words.iter().flat_map(bytes).collect(),
        ByteOrder::Little => words.iter().rev().flat_map(bytes).collect(),
    }
}

fn raw(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn masked(number: u64, bytes: usize) -> u64 {
    if bytes >= 8 { number } else { number & ((1 << (8 * bytes)) - 1) }
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    pub const BIG: Orders = Orders { bytes: ByteOrder::Big, words: ByteOrder::Big };

    pub fn register(name: &str, table: Table, address: u16, kind: Kind) -> Register {
        let (unit, scaling) = (None, Scaling::default());
        Register { name: name.to_owned(), table, address, kind, orders: BIG, unit, scaling, invalid: None }
    }

    fn of(kind: packed::Kind, orders: Orders, scale: f64) -> Register {
        let scaling = Scaling { scale, offset: 0.0 };
        Register { orders, scaling, ..register("x", Table::Holding, 10, Kind::Words(kind)) }
    }

    fn read(register: &Register, words: &[u16]) -> Result<Value, NoValue> {
        register.read(&Cells::Words(words.to_vec()), register.address)
    }

    #[test]
    fn the_examples_of_a_meters_manual_come_out_as_printed_there() {
        // ABB A43/A44, 2CMC48001M0201 rev. C, pages 169 and 170.
        let signed = of(packed::Kind::Signed(4), BIG, 0.01);
        assert_eq!(read(&signed, &[0x0001, 0xe8e4]), Ok(json!(1251.56)));
        assert_eq!(read(&signed, &[0xffff, 0xd04a]), Ok(json!(-122.14)));
        let energy = of(packed::Kind::Unsigned(8), BIG, 0.01);
        assert_eq!(read(&energy, &[0, 0, 0x0003, 0x1292]), Ok(json!(2013.62)));
        assert_eq!(read(&of(packed::Kind::Unsigned(2), BIG, 0.01), &[0x1383]), Ok(json!(49.95)));
        let nothing = Register { invalid: Some(u64::MAX), ..energy };
        assert_eq!(read(&nothing, &[0xffff; 4]), Err(NOTHING_THERE));
        let nothing = Register { invalid: Some(0x7fff_ffff), ..signed };
        assert_eq!(read(&nothing, &[0x7fff, 0xffff]), Err(NOTHING_THERE));
    }

    #[test]
    fn bits_texts_and_what_is_no_number() {
        let bits = |from, count| of(packed::Kind::Bits { bytes: 2, from, count }, BIG, 1.0);
        assert_eq!(read(&bits(3, 1), &[0b1000]), Ok(json!(true)));
        assert_eq!(read(&bits(4, 4), &[0x00a0]), Ok(json!(10)));
        let swapped = Orders { bytes: ByteOrder::Little, words: ByteOrder::Big };
        let text = of(packed::Kind::Text(6), swapped, 1.0);
        assert_eq!(read(&text, &[0x4241, 0x4443, 0x2000]), Ok(json!("ABCD")));
        assert_eq!(read(&of(packed::Kind::F32, BIG, 0.5), &[0x7fc0, 0]), Err(NOT_A_NUMBER));
        assert_eq!(read(&of(packed::Kind::F32, BIG, 1.0), &[0x7f80, 0]), Err(NOT_A_NUMBER));
        assert_eq!(read(&of(packed::Kind::F32, BIG, 1.0), &[0x4366]), Err(MISSING));
        let coil = register("run", Table::Coil, 7, Kind::Bit);
        assert_eq!(coil.read(&Cells::Bits(vec![false, true]), 6), Ok(json!(true)));
        assert_eq!(coil.read(&Cells::Bits(vec![false]), 8), Err(MISSING));
        assert_eq!(coil.read(&Cells::Words(vec![1]), 7), Err(MISSING));
    }

    fn orders() -> impl Strategy<Value = Orders> {
        let order = prop_oneof![Just(ByteOrder::Big), Just(ByteOrder::Little)];
        (order.clone(), order).prop_map(|(bytes, words)| Orders { bytes, words })
    }

    /// As a device stores it: written down here a second time, the other way round.
    fn stored(bytes: &[u8], orders: Orders) -> Vec<u16> {
        let word = |pair: &[u8]| match orders.bytes {
            ByteOrder::Big => u16::from(pair[0]) * 256 + u16::from(pair[1]),
            ByteOrder::Little => u16::from(pair[1]) * 256 + u16::from(pair[0]),
        };
        let mut words: Vec<u16> = bytes.chunks(2).map(word).collect();
        if orders.words == ByteOrder::Little {
            words.reverse();
        }
        words
    }

    proptest! {
        #[test]
        fn every_number_survives_every_order(number in any::<i64>(), orders in orders()) {
            let words = stored(&number.to_be_bytes(), orders);
            prop_assert_eq!(read(&of(packed::Kind::Signed(8), orders, 1.0), &words), Ok(json!(number)));
            prop_assert_eq!(read(&of(packed::Kind::Unsigned(8), orders, 1.0), &words), Ok(json!(number as u64)));
            let small = number as i32;
            let words = stored(&small.to_be_bytes(), orders);
            prop_assert_eq!(read(&of(packed::Kind::Signed(4), orders, 1.0), &words), Ok(json!(small)));
            prop_assert_eq!(read(&of(packed::Kind::Unsigned(4), orders, 1.0), &words), Ok(json!(small as u32)));
        }

        #[test]
        fn floats_too(number in any::<f64>(), single in any::<f32>(), orders in orders()) {
            let read_back = read(&of(packed::Kind::F64, orders, 1.0), &stored(&number.to_be_bytes(), orders));
            let wanted = if number.is_finite() { Ok(json!(number)) } else { Err(NOT_A_NUMBER) };
            prop_assert_eq!(read_back, wanted);
            let read_back = read(&of(packed::Kind::F32, orders, 1.0), &stored(&single.to_be_bytes(), orders));
            prop_assert_eq!(read_back.is_ok(), single.is_finite());
            if let Ok(value) = read_back {
                prop_assert_eq!(value.as_f64().unwrap_or(f64::NAN) as f32, single);
            }
        }

        #[test]
        fn no_answer_breaks_it(
            words in proptest::collection::vec(any::<u16>(), 0..8), from in any::<u16>(), at in any::<u16>()
        ) {
            for kind in [packed::Kind::Unsigned(2), packed::Kind::F64, packed::Kind::Text(4)] {
                let _ = register("x", Table::Input, at, Kind::Words(kind)).read(&Cells::Words(words.clone()), from);
            }
        }
    }
}
