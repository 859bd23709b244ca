//! `report` of a serial or Modbus source: which readings are worth sending. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fields::{Named, Opt, Section};
use super::problem::{Findings, Place, nearest};
use super::reader::{At, Field, Key, Node, Reader, Table, table};
use super::resolve::{DAY, KIB, Resolver};
use super::scalars::{OneOrMany, Scalar};
use crate::intake::exception::{Deadband, Report, Rule};

const MAX_INTERVAL: Duration = Duration::from_secs(600);
/// Kept to compare with, unless frames are very long.
const KEPT_BYTES: u64 = 64 * KIB;

table! {
    pub struct ReportTable {
        deadband: Opt<Deadband>,
        min_interval: Opt<Duration>,
        max_interval: Opt<Duration>,
        ignore: Opt<OneOrMany>,
        per: Opt<OneOrMany>,
        fields: Named<FieldRuleTable>,
    }
}

table! {
    pub struct FieldRuleTable {
        deadband: Opt<Deadband>,
        min_interval: Opt<Duration>,
    }
}

/// Which fields a source's readings have.
pub enum Known<'a> {
    Fields(Vec<&'a str>),
    /// That depends on the reading.
    Any,
    /// None: a reading is bytes.
    Raw,
}

/// `reading_max`: bytes of the longest reading.
pub fn report(
    section: &Section<ReportTable>,
    known: &Known<'_>,
    reading_max: usize,
    r: &mut Resolver<'_>,
) -> Option<Report> {
    let At { value: table, place } = section.0.as_ref()?;
    check_names(table, known, *place, r);
    let ms = Duration::from_millis;
    let max_interval = r.duration(&table.max_interval, "max_interval", ms(10)..=7 * DAY, MAX_INTERVAL);
    let mut rule = |deadband: &Opt<Deadband>, interval: &Opt<Duration>, default: Rule| {
        let min_interval = r.duration(interval, "min_interval", Duration::ZERO..=DAY, default.min_interval);
        if min_interval > max_interval {
            let finding = r.found.error(interval.place(), "`min_interval` is longer than `max_interval`");
            finding.help("a change may wait for `min_interval`; without one a reading is sent after `max_interval`");
        }
        Rule { deadband: checked(deadband, default.deadband, r), min_interval }
    };
    let exact = Rule { deadband: Deadband::Absolute(0.0), min_interval: Duration::ZERO };
    let all = rule(&table.deadband, &table.min_interval, exact);
    let own = table.fields.0.iter();
    let fields: BTreeMap<String, Rule> =
        own.map(|(name, own)| (name.value.clone(), rule(&own.deadband, &own.min_interval, all))).collect();
    Some(Report {
        rule: all,
        fields,
        ignore: names(&table.ignore),
        per: names(&table.per),
        max_interval,
        // Two of the longest readings, and what the comparison makes of them.
        bytes_max: usize::try_from(KEPT_BYTES).unwrap_or(0).max(8 * reading_max),
    })
}

fn names(key: &Opt<OneOrMany>) -> Vec<String> {
    key.value().map(|names| names.0.iter().map(|at| at.value.clone()).collect()).unwrap_or_default()
}

fn checked(key: &Opt<Deadband>, default: Deadband, r: &mut Resolver<'_>) -> Deadband {
    let Some(at) = key.get() else { return default };
    let help = match at.value {
        Deadband::Absolute(band) if band < 0.0 => "choose 0 or more; 0 sends every change",
        Deadband::Percent(percent) if !(0.0..=100.0).contains(&percent) => "choose from \"0%\" to \"100%\"",
        _ => return at.value,
    };
    r.found.error(at.place, "`deadband` is out of bounds").help(help);
    default
}

fn check_names(table: &ReportTable, known: &Known<'_>, place: Place, r: &mut Resolver<'_>) {
    let lists = [&table.ignore, &table.per].into_iter().filter_map(|key| key.value()).flat_map(|names| &names.0);
    let names = table.fields.0.iter().map(|(name, _)| name).chain(lists);
    match known {
        Known::Any => {}
        Known::Raw => {
            let named = names.map(|at| at.place).next().or(table.deadband.place());
            if named.is_some() {
                let message = "raw frames have no fields: they are compared byte by byte";
                let help = "add [source.serial.decode], or leave out `deadband`, `ignore`, `per` and `fields`";
                r.found.error(named.unwrap_or(place), message).help(help);
            }
        }
        Known::Fields(fields) => {
            for at in names.filter(|at| !fields.contains(&at.value.as_str())) {
                let help = match nearest(&at.value, fields.iter().copied()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("its fields are {}", fields.join(", ")),
                };
                r.found.error(at.place, format!("no reading has a field {:?}", at.value)).help(help);
            }
        }
    }
}

impl Scalar for Deadband {
    fn read(name: &str, node: Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let toml::de::DeValue::String(text) = node.get_ref() else {
            return f64::read(name, node, reader).map(Deadband::Absolute);
        };
        let percent = text.strip_suffix('%').and_then(|digits| digits.trim().parse::<f64>().ok());
        let percent = percent.filter(|percent| percent.is_finite());
        if percent.is_none() {
            let place = reader.place(node.span());
            let message = format!("`{name}` is neither a number nor a percentage: {text:?}");
            reader.found.error(place, message).help(format!("for instance {name} = 0.5 or {name} = \"1%\""));
        }
        percent.map(Deadband::Percent)
    }
}
