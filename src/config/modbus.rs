//! `[[source.modbus]]`: the lines on which devices are asked. Pure: whether a device is there is found when it is asked.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fields::Opt;
use super::lines::{self, LineFeed};
use super::modbus_file::{DeviceTable, GroupTable, MapTable, ModbusTable};
use super::modbus_map::{self, Maps};
use super::modbus_model::{Link, ModbusDevice, ModbusGroup, ModbusSource};
use super::modbus_register::{Placed, REGISTERS_MAX, register};
use super::problem::Place;
use super::reader::At;
use super::report::{self, Known};
use super::resolve::{DAY, Resolver};
use super::serial::{self, problem};
use super::serial_file::SerialTable;
use super::sources::check_pauses;
use super::units::show_size;
use crate::intake::exception::Report;
use crate::intake::modbus::answer::Framing;
use crate::intake::modbus::plan::{Limits, Request, plan};
use crate::intake::modbus::reading;
use crate::intake::modbus::register::{Kind, Orders, Register};
use crate::intake::serial::decode::packed;
use crate::intake::serial::frame::ByteOrder;

/// What a source is called when there is only one and it has no name.
const NAME: &str = "modbus";
/// Bounds of what one line asks for: more is a mistake, or a line that never comes to an end.
const DEVICES_MAX: usize = 250;
const GROUPS_MAX: usize = 16;
const VALUES_MAX: usize = 1_000;
const LINE_VALUES_MAX: usize = 5_000;
const BITS_MAX: i64 = 2_000;
const PORT: u16 = 502;

pub fn resolve(tables: &mut [At<ModbusTable>], maps: &Maps, r: &mut Resolver<'_>) -> Vec<ModbusSource> {
    let count = tables.len();
    tables.iter_mut().map(|at| source(at, count, maps, r)).collect()
}

/// What the lanes need to know of them.
pub fn feeds(sources: &[ModbusSource], tables: &[At<ModbusTable>]) -> Vec<LineFeed> {
    let feed = |(source, at): (&ModbusSource, &At<ModbusTable>)| LineFeed {
        name: source.name.clone(),
        topics: jobs(source).map(|(device, group)| source.topic_of(device, group)).collect(),
        volatile: source.volatile,
        bytes: source.unacked_bytes_max + source.report.as_ref().map_or(0, |report| report.bytes_max as u64),
        place: at.value.name.place().unwrap_or(at.place),
        topic_place: at.value.topic.place().unwrap_or(at.place),
    };
    sources.iter().zip(tables).map(feed).collect()
}

fn jobs(source: &ModbusSource) -> impl Iterator<Item = (usize, usize)> {
    source.devices.iter().enumerate().flat_map(|(at, device)| (0..device.groups.len()).map(move |group| (at, group)))
}

fn source(at: &mut At<ModbusTable>, count: usize, maps: &Maps, r: &mut Resolver<'_>) -> ModbusSource {
    let link = link(at, r);
    let table = &at.value;
    let name = lines::name(&table.name, NAME, count, at.place, r);
    let ms = Duration::from_millis;
    let topic = match &table.topic {
        Opt::Absent => format!("modbus/{name}/{{device}}"),
        key => lines::topic(key, &name, &["device", "group"], r),
    };
    let backoff = ms(10)..=ms(3_600_000);
    let devices = devices(at, &link, maps, r);
    let table = &at.value;
    let source = ModbusSource {
        pause: r.duration(&table.pause, "pause", Duration::ZERO..=ms(10_000), pause(&link)),
        // The watchdog is answered between two requests: six times ten seconds at most.
        timeout: r.duration(&table.timeout, "timeout", ms(10)..=ms(10_000), ms(500)),
        retries: u32::try_from(r.number(&table.retries, "retries", 0..=5, 1)).unwrap_or(1),
        stale_for: r.duration(&table.stale_for, "stale_for", Duration::ZERO..=7 * DAY, ms(60_000)),
        topic,
        volatile: table.volatile.or(false),
        report: report(table, &devices, r),
        devices,
        unacked_bytes_max: lines::unacked(&table.unacked_bytes_max, r),
        backoff_min: r.duration(&table.backoff_min, "backoff_min", backoff.clone(), ms(100)),
        backoff_max: r.duration(&table.backoff_max, "backoff_max", backoff, ms(1_000)),
        name,
        link,
    };
    check_together(&source, at, r);
    source
}

fn report(table: &ModbusTable, devices: &[ModbusDevice], r: &mut Resolver<'_>) -> Option<Report> {
    let groups = || devices.iter().flat_map(|device| device.groups.iter().map(move |group| (device, group)));
    let names = groups().flat_map(|(_, group)| group.registers.iter().map(|register| register.name.as_str()));
    let longest =
        groups().map(|(device, group)| reading::bytes_max(&device.name, group.name.as_deref(), &group.registers));
    report::report(&table.report, &Known::Fields(names.collect()), longest.max().unwrap_or(0), r)
}

/// The keys of a port are those of a serial source, and mean the same.
fn link(at: &mut At<ModbusTable>, r: &mut Resolver<'_>) -> Link {
    let table = &mut at.value;
    let help = "tcp = \"192.168.0.10:502\", port = \"/dev/serial/by-id/...\" or usb = { vendor = \"0403\", product = \"6001\" }";
    let serial = table.port.place().or(table.usb.0.as_ref().map(|usb| usb.place));
    let Some(tcp) = table.tcp.place() else {
        if serial.is_none() {
            problem(at.place, "there is no way to the devices", help, r);
        }
        if let Some(place) = table.framing.place() {
            problem(place, "`framing` has no effect: a serial line always carries RTU", "remove it", r);
        }
        let keys = SerialTable {
            port: std::mem::take(&mut table.port),
            usb: std::mem::take(&mut table.usb),
            baud: std::mem::take(&mut table.baud),
            data_bits: std::mem::take(&mut table.data_bits),
            parity: std::mem::take(&mut table.parity),
            stop_bits: std::mem::take(&mut table.stop_bits),
            flow_control: std::mem::take(&mut table.flow_control),
            exclusive: std::mem::take(&mut table.exclusive),
            dtr: std::mem::take(&mut table.dtr),
            rs485: std::mem::take(&mut table.rs485),
            ..SerialTable::default()
        };
        let keys = At { value: keys, place: at.place };
        let port = if serial.is_some() { serial::port(&keys, r) } else { nowhere() };
        return Link::Serial { port, settings: serial::settings(&keys.value, r) };
    };
    if let Some(place) = serial {
        let finding = r.found.error(place, "both `tcp` and a serial port are given");
        finding.note("the other is at", tcp).help("keep one of them: each line is a source of its own");
    }
    check_serial_keys(table, r);
    let text = table.tcp.or(String::new());
    let parsed = address(&text);
    if parsed.is_none() && table.tcp.get().is_some() {
        problem(tcp, &format!("`tcp` is not an address: {text:?}"), "for instance tcp = \"192.168.0.10:502\"", r);
    }
    let (host, port) = parsed.unwrap_or_default();
    Link::Tcp { host, port, framing: table.framing.or(Framing::Tcp) }
}

fn nowhere() -> crate::intake::serial::device::PortName {
    crate::intake::serial::device::PortName::Path("/dev/null".into())
}

fn check_serial_keys(table: &ModbusTable, r: &mut Resolver<'_>) {
    let keys = [
        ("baud", table.baud.place()),
        ("data_bits", table.data_bits.place()),
        ("parity", table.parity.place()),
        ("stop_bits", table.stop_bits.place()),
        ("flow_control", table.flow_control.place()),
        ("exclusive", table.exclusive.place()),
        ("dtr", table.dtr.place()),
        ("rs485", table.rs485.0.as_ref().map(|at| at.place)),
    ];
    for (key, place) in keys.into_iter().filter_map(|(key, place)| Some((key, place?))) {
        problem(place, &format!("`{key}` has no effect: the line is reached by TCP"), "remove it", r);
    }
}

/// `host`, `host:port`, `[address of version 6]:port`.
pub fn address(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(host, port)| (host, port.strip_prefix(':')))?,
        None if text.matches(':').count() > 1 => (text, None),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(PORT), |port| port.parse().ok().filter(|port| *port != 0))?;
    let legal = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
    (!host.is_empty() && host.len() <= 255 && host.chars().all(legal)).then(|| (host.to_owned(), port))
}

/// RTU frames are told apart by a silence of three and a half characters, 1.75 ms above 19,200 baud (MODBUS over Serial
/// Line V1.02, 2.5.1.1).
fn pause(link: &Link) -> Duration {
    match link {
        Link::Serial { settings, .. } => {
            (Duration::from_micros(38_500_000) / settings.baud.max(1)).max(Duration::from_micros(1_750))
        }
        Link::Tcp { framing: Framing::Rtu, .. } => Duration::from_millis(5),
        Link::Tcp { framing: Framing::Tcp, .. } => Duration::ZERO,
    }
}

fn devices(at: &At<ModbusTable>, link: &Link, maps: &Maps, r: &mut Resolver<'_>) -> Vec<ModbusDevice> {
    let tables = &at.value.device.0;
    if tables.is_empty() {
        let help = "add [[source.modbus.device]] with `unit`, and `map` or [[source.modbus.device.register]]";
        problem(at.place, "there is no device to ask", help, r);
    }
    if let Some(first) = tables.get(DEVICES_MAX) {
        problem(first.place, "more than 250 devices on one line", "make it several sources", r);
    }
    let mut list: Vec<(ModbusDevice, Place)> = Vec::new();
    for one in tables {
        let made = device(one, at, (tables.len(), link), maps, r);
        let place = one.value.name.place().unwrap_or(one.place);
        let twin = list.iter().find(|(known, _)| known.name == made.name || known.unit == made.unit);
        if let Some((known, first)) = twin {
            let what = if known.name == made.name { format!("{:?}", made.name) } else { format!("unit {}", made.unit) };
            let help = "give each its own; values with other intervals go into a group of the same device";
            let finding = r.found.error(place, format!("the device {what} is defined twice"));
            finding.note("it is already defined at", *first).help(help);
        }
        list.push((made, place));
    }
    let values: usize = list.iter().flat_map(|(device, _)| &device.groups).map(|group| group.registers.len()).sum();
    if values > LINE_VALUES_MAX {
        problem(at.place, &format!("more than 5,000 values on one line: {values}"), "make it several sources", r);
    }
    list.into_iter().map(|(device, _)| device).collect()
}

fn device(
    at: &At<DeviceTable>,
    source: &At<ModbusTable>,
    (count, link): (usize, &Link),
    maps: &Maps,
    r: &mut Resolver<'_>,
) -> ModbusDevice {
    let table = &at.value;
    modbus_map::check(table, &mut r.found);
    let map = maps.of(table, r.texts);
    let units = if matches!(link, Link::Tcp { framing: Framing::Tcp, .. }) { 0..=255 } else { 1..=247 };
    let limits = limits(table, map, r);
    let registers = registers(at, map, limits, r);
    let name = lines::name(&table.name, "device", count, at.place, r);
    let unit = u8::try_from(r.number(&table.unit, "unit", units, 1)).unwrap_or(1);
    let interval = interval(&table.interval, interval(&source.value.interval, Duration::from_secs(1), r), r);
    let groups = groups(at, registers, interval, r);
    ModbusDevice { name, unit, limits, groups }
}

fn interval(key: &Opt<Duration>, default: Duration, r: &mut Resolver<'_>) -> Duration {
    r.duration(key, "interval", Duration::from_millis(10)..=DAY, default)
}

pub(super) fn limits(table: &DeviceTable, map: Option<&MapTable>, r: &mut Resolver<'_>) -> Limits {
    let mut number = |name: &str, own: &Opt<i64>, of_map: Option<&Opt<i64>>, most: i64, least: i64, default: i64| {
        let default = of_map.map_or(default, |key| r.number(key, name, least..=most, default));
        u16::try_from(r.number(own, name, least..=most, default)).unwrap_or(1)
    };
    Limits {
        registers: number("registers_max", &table.registers_max, map.map(|m| &m.registers_max), REGISTERS_MAX, 1, 125),
        bits: number("bits_max", &table.bits_max, map.map(|m| &m.bits_max), BITS_MAX, 1, 2_000),
        gap: number("gap_max", &table.gap_max, map.map(|m| &m.gap_max), REGISTERS_MAX, 0, 0),
    }
}

pub(super) fn registers(
    at: &At<DeviceTable>,
    map: Option<&MapTable>,
    limits: Limits,
    r: &mut Resolver<'_>,
) -> Vec<Placed> {
    let table = &at.value;
    let of_map =
        map.map(|map| Orders { bytes: map.byte_order.or(ByteOrder::Big), words: map.word_order.or(ByteOrder::Big) });
    let orders = of_map.unwrap_or(Orders { bytes: ByteOrder::Big, words: ByteOrder::Big });
    let orders = Orders { bytes: table.byte_order.or(orders.bytes), words: table.word_order.or(orders.words) };
    let given = map.into_iter().flat_map(|map| &map.register.0).chain(&table.register.0);
    let list: Vec<Placed> = given.filter_map(|at| register(at, orders, limits, r)).collect();
    // What is wrong with its map has been said.
    let said = map.is_none() && (table.map.place().is_some() || table.map_file.place().is_some());
    if list.is_empty() && table.register.0.is_empty() && !said {
        let help = "add `map`, `map_file` or [[source.modbus.device.register]]";
        problem(at.place, "nothing is read of this device", help, r);
    }
    if let Some(first) = list.get(VALUES_MAX) {
        problem(first.place, "more than 1,000 values of one device", "leave out what nobody reads", r);
    }
    check_twins(&list, r);
    check_overlaps(&list, r);
    list
}

fn check_twins(list: &[Placed], r: &mut Resolver<'_>) {
    let mut known = std::collections::BTreeMap::new();
    for Placed { register, place } in list {
        if let Some(first) = known.insert(register.name.as_str(), *place) {
            let finding = r.found.error(*place, format!("the value {:?} is defined twice", register.name));
            finding.note("it is already defined at", first).help("give it another name");
        }
    }
}

/// Two values may share registers only as bits, or where they are read as exactly the same.
fn check_overlaps(list: &[Placed], r: &mut Resolver<'_>) {
    let mut sorted: Vec<&Placed> = list.iter().collect();
    sorted.sort_by_key(|placed| (placed.register.table, placed.register.address));
    for (index, second) in sorted.iter().enumerate().skip(1) {
        let b = second.register.request();
        let before = sorted[..index].iter().rev().take(REGISTERS_MAX as usize);
        let touches = |a: &Request| a.table == b.table && a.end() > u32::from(b.address);
        let first = before.map(|placed| (placed, placed.register.request())).find(|(_, a)| touches(a));
        let Some((first, a)) = first else { continue };
        if a == b || is_bits(&first.register) || is_bits(&second.register) {
            continue;
        }
        let message = format!(
            "{:?} ({} {}, {} registers) overlaps {:?} ({} registers from {} on)",
            second.register.name,
            b.table.name(),
            b.address,
            b.count,
            first.register.name,
            a.count,
            a.address
        );
        let finding = r.found.error(second.place, message);
        finding.note("the other is at", first.place).help("see `address` and `kind` of both");
    }
}

fn is_bits(register: &Register) -> bool {
    matches!(register.kind, Kind::Words(packed::Kind::Bits { .. }))
}

/// What no group names is read with the device itself.
fn groups(at: &At<DeviceTable>, registers: Vec<Placed>, interval: Duration, r: &mut Resolver<'_>) -> Vec<ModbusGroup> {
    let tables = &at.value.group.0;
    if let Some(first) = tables.get(GROUPS_MAX) {
        problem(first.place, "more than 16 groups of one device", "put values of one interval into one group", r);
    }
    let mut rest = registers;
    let mut taken: Vec<(String, Place)> = Vec::new();
    let mut groups: Vec<ModbusGroup> = Vec::new();
    for one in tables {
        let made = group(one, &mut rest, &mut taken, interval, r);
        if groups.iter().any(|known| known.name == made.name) {
            let place = one.value.name.place().unwrap_or(one.place);
            problem(place, "this group is defined twice", "give it another name", r);
        }
        groups.push(made);
    }
    if !rest.is_empty() {
        let registers = rest.into_iter().map(|placed| placed.register).collect();
        groups.insert(0, ModbusGroup { name: None, interval, registers });
    }
    groups
}

fn group(
    at: &At<GroupTable>,
    rest: &mut Vec<Placed>,
    taken: &mut Vec<(String, Place)>,
    default: Duration,
    r: &mut Resolver<'_>,
) -> ModbusGroup {
    let table = &at.value;
    let name = lines::name(&table.name, "group", 2, at.place, r);
    let help = "values = [\"energy_import\", \"power_*\"]: names, or the beginning of names and a star";
    let named = r.required(&table.values, "values", at.place, help).map_or(&[][..], |at| &at.value[..]);
    let mut registers = Vec::new();
    for value in named {
        let fits = |name: &str| match value.value.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == value.value,
        };
        let (here, others): (Vec<Placed>, Vec<Placed>) =
            std::mem::take(rest).into_iter().partition(|placed| fits(&placed.register.name));
        *rest = others;
        match taken.iter().find(|(name, _)| fits(name)) {
            Some((name, first)) if here.is_empty() => {
                let finding = r.found.error(value.place, format!("the groups overlap: {name:?} is in another one too"));
                finding.note("it is already taken at", *first).help("each value belongs to one group");
            }
            None if here.is_empty() => {
                problem(value.place, &format!("this device has no value {:?}", value.value), help, r);
            }
            _ => {}
        }
        taken.extend(here.iter().map(|placed| (placed.register.name.clone(), value.place)));
        registers.extend(here.into_iter().map(|placed| placed.register));
    }
    ModbusGroup { name: Some(name), interval: interval(&table.interval, default, r), registers }
}

fn check_together(source: &ModbusSource, at: &At<ModbusTable>, r: &mut Resolver<'_>) {
    let table = &at.value;
    check_pauses(source.backoff_min..source.backoff_max, &table.backoff_min, &table.backoff_max, r);
    let size = |device: &ModbusDevice, group: &ModbusGroup| {
        reading::bytes_max(&device.name, group.name.as_deref(), &group.registers) as u64
    };
    let largest = source.devices.iter().flat_map(|d| d.groups.iter().map(move |g| size(d, g))).max().unwrap_or(0);
    if source.unacked_bytes_max < 2 * largest {
        let place = table.unacked_bytes_max.place().unwrap_or(at.place);
        let message =
            format!("two readings of {} do not fit into {}", show_size(largest), show_size(source.unacked_bytes_max));
        problem(place, &message, "raise `unacked_bytes_max`, or put the values into several groups", r);
    }
    let topics: BTreeSet<String> = jobs(source).map(|(device, group)| source.topic_of(device, group)).collect();
    if let Some(place) = table.topic.place().filter(|_| topics.len() == 1 && source.devices.len() > 1) {
        let message = "all devices of this line share one topic: by the default key their readings share a partition";
        r.found.warning(place, message).help("add {device} to `topic`");
    }
    warn_of_slow(source, at, r);
}

/// Warns where a serial line cannot carry what is asked of it, each request answered at once.
fn warn_of_slow(source: &ModbusSource, at: &At<ModbusTable>, r: &mut Resolver<'_>) {
    let Link::Serial { settings, .. } = &source.link else { return };
    let byte = 11.0 / f64::from(settings.baud);
    let load = |device: &ModbusDevice, group: &ModbusGroup| {
        let requests = plan(group.registers.iter().map(Register::request), device.limits);
        let bytes = |request: &Request| match request.table.is_bits() {
            true => 13.0 + f64::from(request.count) / 8.0,
            false => 13.0 + 2.0 * f64::from(request.count),
        };
        let time: f64 = requests.iter().map(|one| bytes(one) * byte + 2.0 * source.pause.as_secs_f64()).sum();
        time / group.interval.as_secs_f64()
    };
    let load: f64 = source.devices.iter().flat_map(|d| d.groups.iter().map(move |g| load(d, g))).sum();
    if load > 1.0 {
        let message = format!(
            "the line is too slow: at {} baud the requests take {:.0} % of the time",
            settings.baud,
            load * 100.0
        );
        let help = "choose longer intervals or a higher baud rate; without, turns come late";
        r.found.warning(at.value.name.place().unwrap_or(at.place), message).help(help);
    }
}
