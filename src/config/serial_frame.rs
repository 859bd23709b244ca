//! `[source.serial.frame]` and `[source.serial.decode]`. Pure.

use std::time::Duration;

use regex_lite::{Regex, RegexBuilder};

use super::fields::{Opt, Section};
use super::problem::{Place, nearest};
use super::reader::At;
use super::resolve::{KIB, Resolver};
use super::serial::problem;
use super::serial_file::{
    Bytes, ChecksumTable, DecodeKind, DecodeTable, FieldKind, FieldTable, FrameKind, FrameTable, LengthTable,
};
use crate::intake::serial::decode::{Column, Decoder, Encoding, Kind, Packed, Scaling, packed};
use crate::intake::serial::frame::checksum::{self, Checksum};
use crate::intake::serial::frame::{ByteOrder, FrameSpec, Framing, LineEnd};

const FRAME: u64 = 4 * KIB;
const FRAME_MAX: u64 = 64 * KIB;
/// A compiled pattern must not cost more than a frame's worth of memory.
const PATTERN_SIZE: usize = 256 << 10;
const FIELDS_MAX: usize = 256;

pub fn frame(section: &Section<FrameTable>, r: &mut Resolver<'_>) -> FrameSpec {
    let empty = FrameTable::default();
    let (table, place) = section.0.as_ref().map_or((&empty, None), |at| (&at.value, Some(at.place)));
    let kind = table.kind.or(FrameKind::Lines);
    let maker = Maker { table, place, kind };
    maker.check_keys(r);
    let checksum = maker.checksum(r);
    let ms = Duration::from_millis;
    let timeout = maker.timeout().map(|default| r.duration(&table.timeout, "timeout", ms(1)..=ms(600_000), default));
    let max = usize::try_from(r.size(&table.max, "max", 1..=FRAME_MAX, FRAME)).unwrap_or(1);
    FrameSpec { framing: maker.framing(checksum.as_ref(), max, r), checksum, max, timeout }
}

struct Maker<'t> {
    table: &'t FrameTable,
    place: Option<Place>,
    kind: FrameKind,
}

impl Maker<'_> {
    /// A key of another kind of frame has no effect, and whoever wrote it expects one.
    fn check_keys(&self, r: &mut Resolver<'_>) {
        use FrameKind::{Cobs, Delimiter, Fixed, Gap, Length, Lines, Nmea, Slip, StartStop};
        let t = self.table;
        let length = t.length.0.as_ref().map(|at| at.place);
        let checksum = t.checksum.0.as_ref().map(|at| at.place);
        let keys: [(&str, Option<Place>, &[FrameKind]); 9] = [
            ("ending", t.ending.place(), &[Lines]),
            ("delimiter", t.delimiter.place(), &[Delimiter]),
            ("start", t.start.place(), &[StartStop, Length, Fixed]),
            ("stop", t.stop.place(), &[StartStop]),
            ("size", t.size.place(), &[Fixed]),
            ("gap", t.gap.place(), &[Gap]),
            ("length", length, &[Length]),
            ("checksum_required", t.checksum_required.place(), &[Nmea]),
            ("checksum", checksum, &[Lines, Delimiter, StartStop, Length, Fixed, Gap, Slip, Cobs]),
        ];
        for (name, place, kinds) in keys {
            if let Some(place) = place.filter(|_| !kinds.contains(&self.kind)) {
                problem(place, &format!("`{name}` has no effect for this `kind` of frame"), "remove it", r);
            }
        }
    }

    /// A delimiter ends whatever came before it; the others need the silence to find their way back.
    fn timeout(&self) -> Option<Duration> {
        use FrameKind::{Fixed, Gap, Length, StartStop};
        match self.kind {
            StartStop | Length | Fixed => Some(Duration::from_secs(1)),
            Gap => None,
            _ => self.table.timeout.value().copied(),
        }
    }

    fn framing(&self, checksum: Option<&Checksum>, max: usize, r: &mut Resolver<'_>) -> Framing {
        let table = self.table;
        match self.kind {
            FrameKind::Lines => Framing::Lines(table.ending.or(LineEnd::Any)),
            FrameKind::Delimiter => Framing::Delimiter(self.bytes(&table.delimiter, "delimiter", r)),
            FrameKind::StartStop => {
                let (start, stop) = (self.bytes(&table.start, "start", r), self.bytes(&table.stop, "stop", r));
                let after = self.table.checksum.0.as_ref().and_then(|at| at.value.after_stop.value().copied());
                let trailer = checksum.filter(|_| after == Some(true)).map_or(0, Checksum::width);
                Framing::Fence { start, stop, trailer }
            }
            FrameKind::Length => self.length(max, r),
            FrameKind::Fixed => {
                let start = self.start();
                if matches!(table.size, Opt::Absent) {
                    self.missing("size", "for instance size = 9", r);
                }
                let least = start.len() + checksum.map_or(0, Checksum::width) + 1;
                let size = r.number(&table.size, "size", least as i64..=max as i64, least as i64);
                Framing::Fixed { start, size: usize::try_from(size).unwrap_or(least) }
            }
            FrameKind::Gap => {
                let ms = Duration::from_millis;
                Framing::Idle(r.duration(&table.gap, "gap", ms(1)..=ms(60_000), ms(20)))
            }
            FrameKind::Slip => Framing::Slip,
            FrameKind::Cobs => Framing::Cobs,
            FrameKind::Nmea => Framing::Nmea { checksum_required: table.checksum_required.or(true) },
        }
    }

    fn start(&self) -> Vec<u8> {
        self.table.start.value().map(|bytes| bytes.0.clone()).unwrap_or_default()
    }

    fn bytes(&self, key: &Opt<Bytes>, name: &str, r: &mut Resolver<'_>) -> Vec<u8> {
        let help = format!("for instance {name} = \";\" or {name} = \"hex:02\"");
        let Some(at) = key.get() else {
            if matches!(key, Opt::Absent) {
                self.missing(name, &help, r);
            }
            return vec![0];
        };
        if at.value.0.is_empty() || at.value.0.len() > 16 {
            problem(at.place, &format!("`{name}` is empty or longer than 16 bytes"), &help, r);
            return vec![0];
        }
        at.value.0.clone()
    }

    fn missing(&self, name: &str, help: &str, r: &mut Resolver<'_>) {
        r.found.error(self.place, format!("`{name}` is missing")).help(help);
    }

    fn length(&self, max: usize, r: &mut Resolver<'_>) -> Framing {
        let start = self.start();
        let empty = LengthTable::default();
        let table = self.table.length.0.as_ref().map_or(&empty, |at| &at.value);
        if self.table.length.0.is_none() {
            self.missing("length", "for instance length = { offset = 2, size = 1 }", r);
        }
        let offset = r.number(&table.offset, "offset", start.len() as i64..=max as i64, start.len() as i64);
        let size = match r.number(&table.size, "size", 1..=4, 1) {
            3 => {
                r.found.error(table.size.place(), "`size` is 3 bytes").help("a length has 1, 2 or 4 bytes");
                4
            }
            size => usize::try_from(size).unwrap_or(1),
        };
        Framing::Length {
            offset: usize::try_from(offset).unwrap_or(0),
            size,
            order: table.order.or(ByteOrder::Big),
            adds: r.number(&table.adds, "adds", -65_536..=65_536, 0),
            start,
        }
    }

    fn checksum(&self, r: &mut Resolver<'_>) -> Option<Checksum> {
        let At { value: table, place } = self.table.checksum.0.as_ref()?;
        let key = r.required(&table.kind, "kind", *place, "for instance kind = \"crc-16-modbus\"")?;
        let names = checksum::names();
        let found = names.iter().find(|(name, _)| *name == key.value);
        if found.is_none() {
            let known = || names.iter().map(|(name, _)| *name);
            let help = match nearest(&key.value, known()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("known are {}", known().collect::<Vec<_>>().join(", ")),
            };
            problem(key.place, &format!("unknown checksum {:?}", key.value), &help, r);
        }
        self.check_after_stop(table, r);
        let skip = r.number(&table.skip, "skip", 0..=64, 0);
        Some(Checksum {
            kind: found?.1,
            order: table.order.or(ByteOrder::Big),
            hex: table.hex.or(false),
            skip: usize::try_from(skip).unwrap_or(0),
        })
    }

    fn check_after_stop(&self, table: &ChecksumTable, r: &mut Resolver<'_>) {
        if let Some(place) = table.after_stop.place().filter(|_| self.kind != FrameKind::StartStop) {
            problem(place, "`after_stop` has no effect without kind = \"start-stop\"", "remove it", r);
        }
    }
}

pub fn decoder(section: &Section<DecodeTable>, r: &mut Resolver<'_>) -> Decoder {
    let Some(At { value: table, place }) = &section.0 else { return Decoder::Raw };
    let kind = r.required(&table.kind, "kind", *place, "for instance kind = \"csv\"").map(|at| at.value);
    let kind = kind.unwrap_or(DecodeKind::Raw);
    check_decoder_keys(table, kind, r);
    let encoding = table.encoding.or(Encoding::Utf8);
    check_names(table, r);
    match kind {
        DecodeKind::Raw => Decoder::Raw,
        DecodeKind::Text => Decoder::Text(encoding),
        DecodeKind::Nmea => Decoder::Nmea,
        DecodeKind::Csv => Decoder::Csv { separator: separator(table, r), encoding, columns: columns(table, r) },
        DecodeKind::Packed => Decoder::Packed(table.fields.0.iter().filter_map(|at| packed_field(at, r)).collect()),
        DecodeKind::Regex => regex(table, *place, encoding, r),
    }
}

fn check_decoder_keys(table: &DecodeTable, kind: DecodeKind, r: &mut Resolver<'_>) {
    use DecodeKind::{Csv, Packed, Regex, Text};
    let fields = table.fields.0.first().map(|at| at.place);
    let keys: [(&str, Option<Place>, &[DecodeKind]); 4] = [
        ("encoding", table.encoding.place(), &[Text, Csv, Regex]),
        ("separator", table.separator.place(), &[Csv]),
        ("pattern", table.pattern.place(), &[Regex]),
        ("fields", fields, &[Csv, Regex, Packed]),
    ];
    for (name, place, kinds) in keys {
        if let Some(place) = place.filter(|_| !kinds.contains(&kind)) {
            problem(place, &format!("`{name}` has no effect for this `kind` of decoder"), "remove it", r);
        }
    }
    if matches!(kind, Csv | Packed) && table.fields.0.is_empty() {
        let help = "add [[source.serial.decode.fields]] with name and kind, in the order of the frame";
        r.found.error(table.kind.place(), "`fields` is missing").help(help);
    }
}

fn check_names(table: &DecodeTable, r: &mut Resolver<'_>) {
    let fields = &table.fields.0;
    if let Some(at) = fields.get(FIELDS_MAX) {
        problem(at.place, "more than 256 fields", "leave out what nobody reads", r);
    }
    for (index, at) in fields.iter().enumerate() {
        let Some(name) = at.value.name.get() else { continue };
        if name.value == "units" || name.value.is_empty() {
            let message = format!("a field cannot be called {:?}", name.value);
            problem(name.place, &message, "`units` holds the units of the others", r);
        }
        let earlier = fields[..index].iter().filter_map(|at| at.value.name.get()).find(|n| n.value == name.value);
        if let Some(first) = earlier {
            let finding = r.found.error(name.place, format!("the field {:?} is defined twice", name.value));
            finding.note("it is already defined at", first.place).help("give it another name");
        }
    }
}

fn separator(table: &DecodeTable, r: &mut Resolver<'_>) -> u8 {
    let Some(at) = table.separator.get() else { return b',' };
    match at.value.as_bytes() {
        [byte] if byte.is_ascii() && *byte != b'"' => *byte,
        _ => {
            problem(at.place, "`separator` is not one ASCII character", "for instance separator = \";\"", r);
            b','
        }
    }
}

fn columns(table: &DecodeTable, r: &mut Resolver<'_>) -> Vec<Column> {
    table.fields.0.iter().filter_map(|at| column(at, r)).collect()
}

fn column(at: &At<FieldTable>, r: &mut Resolver<'_>) -> Option<Column> {
    let table = &at.value;
    let kind = match table.kind.or(FieldKind::Text) {
        FieldKind::Text => Kind::Text,
        FieldKind::Int => Kind::Int,
        FieldKind::Float => Kind::Float,
        FieldKind::Bool => Kind::Bool,
        FieldKind::Skip => Kind::Skip,
        _ => {
            let place = table.kind.place().unwrap_or(at.place);
            problem(place, "this `kind` is for packed frames", "a column is text, int, float, bool or skip", r);
            return None;
        }
    };
    let packed_keys = [("at", table.at.place()), ("length", table.length.place()), ("order", table.order.place())];
    for (name, place) in packed_keys.into_iter().filter_map(|(name, place)| Some((name, place?))) {
        problem(place, &format!("`{name}` is for packed frames"), "remove it", r);
    }
    let name = match kind {
        Kind::Skip => table.name.or(String::new()),
        _ => r.required(&table.name, "name", at.place, "every column has a name")?.value.clone(),
    };
    Some(Column { name, kind, unit: table.unit.value().cloned(), scaling: scaling(table, r) })
}

fn scaling(table: &FieldTable, r: &mut Resolver<'_>) -> Scaling {
    let scale = table.scale.or(1.0);
    if let Some(place) = table.scale.place().filter(|_| scale == 0.0) {
        problem(place, "`scale` of nothing makes every value the same", "remove it for 1", r);
    }
    Scaling { scale, offset: table.add.or(0.0) }
}

fn packed_field(at: &At<FieldTable>, r: &mut Resolver<'_>) -> Option<Packed> {
    let table = &at.value;
    let name = r.required(&table.name, "name", at.place, "every field has a name").map(|name| name.value.clone());
    let start = r.required(&table.at, "at", at.place, "bytes from the start of the frame, from 0").map(|at| at.value);
    let kind = r.required(&table.kind, "kind", at.place, "for instance kind = \"u16\"").map(|at| at.value)?;
    let length = r.number(&table.length, "length", 1..=FRAME_MAX as i64, 1);
    let length = usize::try_from(length).unwrap_or(1);
    if !matches!(kind, FieldKind::Text | FieldKind::Bits) && table.length.place().is_some() {
        problem(at.place, "`length` is for text and bits", "remove it: the kind says how long it is", r);
    }
    let kind = match kind {
        FieldKind::Unsigned(bytes) => packed::Kind::Unsigned(bytes),
        FieldKind::Signed(bytes) => packed::Kind::Signed(bytes),
        FieldKind::F32 => packed::Kind::F32,
        FieldKind::F64 => packed::Kind::F64,
        FieldKind::Text => packed::Kind::Text(length),
        FieldKind::Bits => bits(table, length, r),
        _ => {
            let help = "a packed field is u8 to u64, i8 to i64, f32, f64, text or bits";
            problem(table.kind.place().unwrap_or(at.place), "this `kind` is for columns", help, r);
            return None;
        }
    };
    Some(Packed {
        name: name?,
        at: usize::try_from(start?).ok().filter(|start| *start < FRAME_MAX as usize).or_else(|| {
            problem(at.place, "`at` is outside of any frame", "count bytes from 0", r);
            None
        })?,
        kind,
        order: table.order.or(ByteOrder::Big),
        unit: table.unit.value().cloned(),
        scaling: scaling(table, r),
    })
}

fn bits(table: &FieldTable, bytes: usize, r: &mut Resolver<'_>) -> packed::Kind {
    let bytes = bytes.min(8);
    let width = 8 * bytes as i64;
    let from = r.number(&table.bit, "bit", 0..=width - 1, 0);
    let count = r.number(&table.bits, "bits", 1..=width - from, 1);
    packed::Kind::Bits { bytes, from: u32::try_from(from).unwrap_or(0), count: u32::try_from(count).unwrap_or(1) }
}

fn regex(table: &DecodeTable, place: Place, encoding: Encoding, r: &mut Resolver<'_>) -> Decoder {
    let columns = columns(table, r);
    let help = "for instance pattern = '^T=(?<temperature>-?\\d+)'";
    let Some(at) = r.required(&table.pattern, "pattern", place, help) else { return Decoder::Raw };
    let pattern = match RegexBuilder::new(&at.value).size_limit(PATTERN_SIZE).build() {
        Ok(pattern) => pattern,
        Err(error) => {
            problem(at.place, &format!("invalid `pattern`: {error}"), help, r);
            return Decoder::Raw;
        }
    };
    check_groups(&pattern, at, table, r);
    Decoder::Regex { pattern, encoding, columns }
}

fn check_groups(pattern: &Regex, at: &At<String>, table: &DecodeTable, r: &mut Resolver<'_>) {
    let groups: Vec<&str> = pattern.capture_names().flatten().collect();
    if groups.is_empty() {
        let help = "name what you want to keep: (?<temperature>-?\\d+)";
        problem(at.place, "`pattern` has no named groups: every reading would be empty", help, r);
    }
    for name in table.fields.0.iter().filter_map(|at| at.value.name.get()) {
        if !groups.contains(&name.value.as_str()) {
            let message = format!("the pattern has no group {:?}", name.value);
            problem(name.place, &message, &format!("its groups are {}", groups.join(", ")), r);
        }
    }
}
