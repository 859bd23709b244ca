//! What becomes of a round of answers: one reading with its values and what they are worth. Pure; times are since any
//! fixed moment.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::plan::Request;
use super::register::{Cells, Register};

/// What a value or a reading is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quality {
    /// From this round.
    Good,
    /// From an earlier round, as this one failed.
    Stale,
    /// There is no value: never was, too old, or the device says so.
    Bad,
}

impl Quality {
    pub fn name(self) -> &'static str {
        match self {
            Quality::Good => "good",
            Quality::Stale => "stale",
            Quality::Bad => "bad",
        }
    }
}

/// The values of one group of a device.
#[derive(Debug)]
pub struct Sheet {
    slots: Vec<Slot>,
    stale_for: Duration,
}

#[derive(Debug, Default)]
struct Slot {
    last: Option<(Value, Duration)>,
    round: Round,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Round {
    #[default]
    Open,
    Fresh,
    Failed(String),
}

impl Slot {
    fn quality(&self) -> Quality {
        match (&self.round, &self.last) {
            (_, None) => Quality::Bad,
            (Round::Fresh, Some(_)) => Quality::Good,
            (_, Some(_)) => Quality::Stale,
        }
    }
}

impl Sheet {
    /// A value is repeated as stale for so long at most.
    pub fn new(registers: usize, stale_for: Duration) -> Self {
        Sheet { slots: (0..registers).map(|_| Slot::default()).collect(), stale_for }
    }

    pub fn begin(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.round = Round::Open);
    }

    /// An answer: `cells` are what `request` asked for.
    pub fn take(&mut self, registers: &[Register], request: &Request, cells: &Cells, now: Duration) {
        for (slot, register) in self.slots.iter_mut().zip(registers) {
            if !request.holds(&register.request()) {
                continue;
            }
            match register.read(cells, request.address) {
                Ok(value) => *slot = Slot { last: Some((value, now)), round: Round::Fresh },
                // It answered, and what it says is that the old value holds no longer.
                Err(cause) => *slot = Slot { last: None, round: Round::Failed(cause.to_owned()) },
            }
        }
    }

    pub fn fail(&mut self, registers: &[Register], request: &Request, cause: &str) {
        for (slot, register) in self.slots.iter_mut().zip(registers) {
            if slot.round == Round::Open && request.holds(&register.request()) {
                slot.round = Round::Failed(cause.to_owned());
            }
        }
    }

    /// What has not been asked for will not be in this round.
    pub fn fail_rest(&mut self, cause: &str) {
        for slot in self.slots.iter_mut().filter(|slot| slot.round == Round::Open) {
            slot.round = Round::Failed(cause.to_owned());
        }
    }

    /// Ends the round: what is too old is forgotten. The worst of the values' qualities is the reading's.
    pub fn close(&mut self, now: Duration) -> Quality {
        for slot in &mut self.slots {
            let old = slot.last.as_ref().is_some_and(|(_, at)| now.saturating_sub(*at) > self.stale_for);
            if old && slot.round != Round::Fresh {
                slot.last = None;
            }
        }
        self.slots.iter().map(Slot::quality).max().unwrap_or(Quality::Bad)
    }

    /// The first thing that went wrong in this round, in words.
    pub fn trouble(&self) -> Option<&str> {
        self.slots.iter().find_map(|slot| match &slot.round {
            Round::Failed(cause) => Some(cause.as_str()),
            _ => None,
        })
    }

    /// The reading of a closed round.
    pub fn payload(&self, registers: &[Register], head: &Head<'_>, now: Duration) -> Vec<u8> {
        let mut out = Map::from_iter([("device".to_owned(), Value::from(head.device))]);
        if let Some(group) = head.group {
            out.insert("group".to_owned(), Value::from(group));
        }
        let quality = self.slots.iter().map(Slot::quality).max().unwrap_or(Quality::Bad);
        out.insert("quality".to_owned(), Value::from(quality.name()));
        out.insert("values".to_owned(), Value::Object(self.values(registers)));
        let unit = |register: &Register| Some((register.name.clone(), Value::from(register.unit.as_deref()?)));
        let units: Map<String, Value> = registers.iter().filter_map(unit).collect();
        if !units.is_empty() {
            out.insert("units".to_owned(), Value::Object(units));
        }
        let failed = self.failed(registers, now);
        if !failed.is_empty() {
            out.insert("failed".to_owned(), Value::Array(failed));
        }
        Value::Object(out).to_string().into_bytes()
    }

    /// Those that there are.
    pub fn values(&self, registers: &[Register]) -> Map<String, Value> {
        let value = |(register, slot): (&Register, &Slot)| Some((register.name.clone(), slot.last.as_ref()?.0.clone()));
        registers.iter().zip(&self.slots).filter_map(value).collect()
    }

    /// What went wrong, once for all values that share quality, cause and age.
    fn failed(&self, registers: &[Register], now: Duration) -> Vec<Value> {
        type Fault<'s> = (Quality, &'s str, Option<u64>);
        let mut faults: Vec<(Fault<'_>, Vec<&str>)> = Vec::new();
        for (register, slot) in registers.iter().zip(&self.slots) {
            let Round::Failed(cause) = &slot.round else { continue };
            let age = slot.last.as_ref().map(|(_, at)| now.saturating_sub(*at).as_millis() as u64);
            let fault = (slot.quality(), cause.as_str(), age);
            match faults.iter_mut().find(|(known, _)| *known == fault) {
                Some((_, names)) => names.push(&register.name),
                None => faults.push((fault, vec![&register.name])),
            }
        }
        let said = |((quality, cause, age), names): (Fault<'_>, Vec<&str>)| {
            let mut said = json!({ "values": names, "quality": quality.name(), "cause": cause });
            if let (Some(age), Some(said)) = (age, said.as_object_mut()) {
                said.insert("age_ms".to_owned(), Value::from(age));
            }
            said
        };
        faults.into_iter().map(said).collect()
    }
}

/// Whose reading it is.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    pub device: &'a str,
    pub group: Option<&'a str>,
}

impl Register {
    /// What has to be read for it.
    pub fn request(&self) -> Request {
        Request { table: self.table, address: self.address, count: self.width() }
    }
}

/// The most bytes that a reading of these registers can have: each fails alone, for the longest cause.
pub fn bytes_max(device: &str, group: Option<&str>, registers: &[Register]) -> usize {
    // A number of 64 bits has at most 25 characters, with its name written three times beside cause, age and brackets.
    let one = |register: &Register| {
        let text = 12 * usize::from(register.width());
        3 * register.name.len() + 6 * register.unit.as_deref().map_or(0, str::len) + text.max(25) + 200
    };
    100 + device.len() + group.map_or(0, str::len) + registers.iter().map(one).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::intake::modbus::register::tests::register;
    use crate::intake::modbus::register::{Kind, Table};
    use crate::intake::serial::decode::packed;

    const HEAD: Head<'_> = Head { device: "meter", group: None };
    const SECOND: Duration = Duration::from_secs(1);

    fn registers() -> Vec<Register> {
        let number = |name, address| register(name, Table::Input, address, Kind::Words(packed::Kind::Unsigned(2)));
        let mut list = vec![number("u", 0), number("i", 1), number("e", 10)];
        list[0].unit = Some("V".to_owned());
        list
    }

    fn request(address: u16, count: u16) -> Request {
        Request { table: Table::Input, address, count }
    }

    fn json(sheet: &Sheet, now: Duration) -> Value {
        serde_json::from_slice(&sheet.payload(&registers(), &HEAD, now)).unwrap_or_default()
    }

    #[test]
    fn a_value_is_good_then_stale_with_its_age_then_bad() {
        let (registers, mut sheet) = (registers(), Sheet::new(3, 5 * SECOND));
        sheet.begin();
        sheet.take(&registers, &request(0, 2), &Cells::Words(vec![230, 5]), SECOND);
        sheet.take(&registers, &request(10, 1), &Cells::Words(vec![9]), SECOND);
        assert_eq!((sheet.close(SECOND), sheet.trouble()), (Quality::Good, None));
        let good =
            json!({"device": "meter", "quality": "good", "values": {"u": 230, "i": 5, "e": 9}, "units": {"u": "V"}});
        assert_eq!(json(&sheet, SECOND), good);

        sheet.begin();
        sheet.take(&registers, &request(0, 2), &Cells::Words(vec![231, 6]), 3 * SECOND);
        sheet.fail(&registers, &request(10, 1), "illegal data address");
        assert_eq!((sheet.close(3 * SECOND), sheet.trouble()), (Quality::Stale, Some("illegal data address")));
        let said = json(&sheet, 3 * SECOND);
        assert_eq!(said["values"], json!({"u": 231, "i": 6, "e": 9}));
        let cause = "illegal data address";
        assert_eq!(said["failed"], json!([{"values": ["e"], "quality": "stale", "age_ms": 2000, "cause": cause}]));

        sheet.begin();
        sheet.fail_rest("no answer");
        assert_eq!(sheet.close(7 * SECOND), Quality::Bad);
        let said = json(&sheet, 7 * SECOND);
        assert_eq!((&said["quality"], &said["values"]), (&json!("bad"), &json!({"u": 231, "i": 6})));
        let stale = json!({"values": ["u", "i"], "quality": "stale", "age_ms": 4000, "cause": "no answer"});
        assert_eq!(said["failed"], json!([stale, {"values": ["e"], "quality": "bad", "cause": "no answer"}]));
    }

    #[test]
    fn what_the_device_disowns_is_not_repeated() {
        let (mut registers, mut sheet) = (registers(), Sheet::new(3, 60 * SECOND));
        registers[2].invalid = Some(0xffff);
        sheet.take(&registers, &request(10, 1), &Cells::Words(vec![9]), SECOND);
        sheet.begin();
        sheet.take(&registers, &request(10, 1), &Cells::Words(vec![0xffff]), 2 * SECOND);
        sheet.close(2 * SECOND);
        assert_eq!(json(&sheet, 2 * SECOND)["values"], json!({}));
    }

    proptest! {
        /// Whatever fails and when: a value shown is never older than allowed, and what is not good is accounted for.
        #[test]
        fn nothing_is_older_than_allowed(rounds in proptest::collection::vec((0u64..9, any::<[bool; 2]>()), 1..40)) {
            let (registers, mut sheet, mut now) = (registers(), Sheet::new(3, 5 * SECOND), Duration::ZERO);
            for (pause, answers) in rounds {
                now += Duration::from_secs(pause);
                sheet.begin();
                for (request, good) in [request(0, 2), request(10, 1)].iter().zip(answers) {
                    if good {
                        let cells = Cells::Words(vec![now.as_secs() as u16; usize::from(request.count)]);
                        sheet.take(&registers, request, &cells, now);
                    } else {
                        sheet.fail(&registers, request, "no answer");
                    }
                }
                let quality = sheet.close(now);
                let said = json(&sheet, now);
                prop_assert_eq!(&said["quality"], quality.name());
                prop_assert_eq!(quality == Quality::Good, answers == [true, true]);
                for value in said["values"].as_object().into_iter().flat_map(|values| values.values()) {
                    prop_assert!(now.as_secs() - value.as_u64().unwrap_or(u64::MAX) <= 5);
                }
                let failed = said["failed"].as_array().map_or(0, |list| {
                    list.iter().map(|fault| fault["values"].as_array().map_or(0, Vec::len)).sum()
                });
                prop_assert_eq!(failed, usize::from(!answers[0]) * 2 + usize::from(!answers[1]));
                prop_assert!(said.to_string().len() <= bytes_max("meter", None, &registers));
            }
        }
    }
}
