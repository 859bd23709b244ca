//! `[[source.serial]]`: the lines to read from. Pure: whether a port is there is found when it is opened.

use std::path::PathBuf;
use std::time::Duration;

use super::fields::{Opt, Section};
use super::lines::{self, LineFeed};
use super::problem::Place;
use super::reader::At;
use super::report::{self, Known};
use super::resolve::{DAY, KIB, Resolver};
use super::serial_file::{Bytes, PollTable, Rs485Table, SerialTable, UsbTable};
use super::serial_frame;
use super::serial_model::{FlowControl, Parity, Poll, PortSettings, Rs485, SerialSource};
use super::sources::check_pauses;
use super::units::show_size;
use crate::intake::serial::decode::Decoder;
use crate::intake::serial::device::{PortName, UsbName};

/// What a source is called when there is only one and it has no name.
const NAME: &str = "serial";
const QUERY_BYTES_MAX: usize = 1024;

pub fn resolve(tables: &[At<SerialTable>], r: &mut Resolver<'_>) -> Vec<SerialSource> {
    tables.iter().map(|at| source(at, tables.len(), r)).collect()
}

/// What the lanes need to know of them.
pub fn feeds(sources: &[SerialSource], tables: &[At<SerialTable>]) -> Vec<LineFeed> {
    let feed = |(source, at): (&SerialSource, &At<SerialTable>)| LineFeed {
        name: source.name.clone(),
        topics: (0..source.polls.len()).map(Some).chain([None]).map(|poll| source.topic_of(poll)).collect(),
        volatile: source.volatile,
        bytes: source.unacked_bytes_max + source.report.as_ref().map_or(0, |report| report.bytes_max as u64),
        place: at.value.name.place().unwrap_or(at.place),
        topic_place: at.value.topic.place().unwrap_or(at.place),
    };
    sources.iter().zip(tables).map(feed).collect()
}

fn source(at: &At<SerialTable>, count: usize, r: &mut Resolver<'_>) -> SerialSource {
    let table = &at.value;
    let name = lines::name(&table.name, NAME, count, at.place, r);
    let second = Duration::from_secs(1);
    let backoff = Duration::from_millis(10)..=Duration::from_secs(3_600);
    let frame = serial_frame::frame(&table.frame, r);
    let decoder = serial_frame::decoder(&table.decode, r);
    let source = SerialSource {
        report: report::report(&table.report, &known_fields(&decoder), frame.max, r),
        port: port(at, r),
        settings: settings(table, r),
        topic: lines::topic(&table.topic, &name, &["poll"], r),
        volatile: table.volatile.or(false),
        polls: polls(at, r),
        silence: table.silence.get().map(|_| r.duration(&table.silence, "silence", second..=7 * DAY, second)),
        unacked_bytes_max: lines::unacked(&table.unacked_bytes_max, r),
        backoff_min: r.duration(&table.backoff_min, "backoff_min", backoff.clone(), second / 10),
        backoff_max: r.duration(&table.backoff_max, "backoff_max", backoff, second),
        decoder,
        frame,
        name,
    };
    check_together(&source, at, r);
    source
}

fn known_fields(decoder: &Decoder) -> Known<'_> {
    match decoder {
        Decoder::Raw => Known::Raw,
        _ => decoder.field_names().map_or(Known::Any, Known::Fields),
    }
}

fn check_together(source: &SerialSource, at: &At<SerialTable>, r: &mut Resolver<'_>) {
    let table = &at.value;
    check_pauses(source.backoff_min..source.backoff_max, &table.backoff_min, &table.backoff_max, r);
    let needed = 2 * (source.frame.max as u64 + KIB);
    if source.unacked_bytes_max < needed {
        let place = table.unacked_bytes_max.place().unwrap_or(at.place);
        let message = format!("two frames of `max` do not fit into {}", show_size(source.unacked_bytes_max));
        r.found.error(place, message).help(format!("choose at least {}, or lower `max`", show_size(needed)));
    }
    let polled = source.topic.contains("{poll}");
    if polled && source.polls.is_empty() {
        let place = table.topic.place();
        r.found.error(place, "{poll} in `topic`, but there is no [[source.serial.poll]]").help("remove it");
    }
}

pub(super) fn port(at: &At<SerialTable>, r: &mut Resolver<'_>) -> PortName {
    let table = &at.value;
    match (&table.port, &table.usb.0) {
        (port, None) => {
            let help = "port = \"/dev/serial/by-id/...\", or usb = { vendor = \"0403\", product = \"6001\" }; \
                        `forebay serial list` shows what is there";
            let path = r.required(port, "port", at.place, help).map(|at| (PathBuf::from(&at.value), at.place));
            let (path, place) = path.unwrap_or_else(|| (PathBuf::from("/dev/null"), at.place));
            if !path.is_absolute() {
                let message = format!("`port` is not a path: {:?}", path.display().to_string());
                r.found.error(place, message).help("write it out, as in port = \"/dev/ttyS0\"");
            } else if is_numbered_by_chance(&path) {
                let message = format!("{} may be another device after the next start", path.display());
                r.found.warning(place, message).help("use its name in /dev/serial/by-id, or `usb`");
            }
            PortName::Path(path)
        }
        (Opt::Absent, Some(usb)) => PortName::Usb(usb_name(usb, r)),
        (port, Some(usb)) => {
            let finding = r.found.error(port.place(), "both `port` and `usb` are given");
            finding.note("the other is at", usb.place).help("keep one of them");
            PortName::Path(PathBuf::new())
        }
    }
}

/// Adapters get the first number that is free when they are plugged in.
fn is_numbered_by_chance(path: &std::path::Path) -> bool {
    let name = path.to_string_lossy();
    ["/dev/ttyUSB", "/dev/ttyACM"].iter().any(|prefix| name.starts_with(prefix))
}

fn usb_name(at: &At<UsbTable>, r: &mut Resolver<'_>) -> UsbName {
    let table = &at.value;
    let mut id = |key: &Opt<String>, name: &str| {
        let help = "four hexadecimal digits, as `lsusb` and `forebay serial list` show them";
        let at = r.required(key, name, at.place, help)?;
        let id = u16::from_str_radix(&at.value, 16).ok().filter(|_| at.value.len() == 4);
        if id.is_none() {
            r.found.error(at.place, format!("`{name}` is not a USB id: {:?}", at.value)).help(help);
        }
        id
    };
    let (vendor, product) = (id(&table.vendor, "vendor"), id(&table.product, "product"));
    let interface = table.interface.get().map(|_| r.number(&table.interface, "interface", 0..=255, 0));
    UsbName {
        vendor: vendor.unwrap_or_default(),
        product: product.unwrap_or_default(),
        serial: table.serial.value().cloned(),
        interface: interface.and_then(|number| u8::try_from(number).ok()),
    }
}

pub fn settings(table: &SerialTable, r: &mut Resolver<'_>) -> PortSettings {
    let small = |number: i64| u8::try_from(number).unwrap_or(8);
    PortSettings {
        baud: u32::try_from(r.number(&table.baud, "baud", 50..=20_000_000, 9_600)).unwrap_or(9_600),
        data_bits: small(r.number(&table.data_bits, "data_bits", 5..=8, 8)),
        parity: table.parity.or(Parity::None),
        stop_bits: small(r.number(&table.stop_bits, "stop_bits", 1..=2, 1)),
        flow_control: table.flow_control.or(FlowControl::None),
        exclusive: table.exclusive.or(true),
        dtr: table.dtr.value().copied(),
        rs485: rs485(&table.rs485, &table.flow_control, r),
    }
}

fn rs485(section: &Section<Rs485Table>, flow: &Opt<FlowControl>, r: &mut Resolver<'_>) -> Option<Rs485> {
    let At { value: table, place } = section.0.as_ref()?;
    if flow.or(FlowControl::None) == FlowControl::Hardware {
        let message = "`rs485` and `flow_control = \"hardware\"` both use RTS";
        r.found.error(*place, message).help("a bus of two wires has no flow control: remove `flow_control`");
    }
    // The kernel takes no longer ones.
    let bounds = Duration::ZERO..=Duration::from_millis(100);
    Some(Rs485 {
        rts_on_send: table.rts_on_send.or(true),
        delay_before_send: r.duration(&table.delay_before_send, "delay_before_send", bounds.clone(), Duration::ZERO),
        delay_after_send: r.duration(&table.delay_after_send, "delay_after_send", bounds, Duration::ZERO),
        receive_while_sending: table.receive_while_sending.or(false),
        termination: table.termination.or(false),
    })
}

fn polls(at: &At<SerialTable>, r: &mut Resolver<'_>) -> Vec<Poll> {
    let tables = &at.value.poll.0;
    let mut polls: Vec<Poll> = Vec::new();
    for at in tables {
        let poll = poll(at, tables.len(), r);
        if polls.iter().any(|known| known.name == poll.name) {
            let place = at.value.name.place().unwrap_or(at.place);
            r.found.error(place, format!("the query {:?} is defined twice", poll.name)).help("give it another name");
        }
        polls.push(poll);
    }
    polls
}

fn poll(at: &At<PollTable>, count: usize, r: &mut Resolver<'_>) -> Poll {
    let table = &at.value;
    let ms = Duration::from_millis;
    let query = r.required(&table.query, "query", at.place, "for instance query = \"MEAS?\\r\\n\" or \"hex:02 52 03\"");
    let query = query.map_or_else(Vec::new, |query| checked_query(query, r));
    r.required(&table.interval, "interval", at.place, "for instance interval = \"10s\"");
    let timeout = r.duration(&table.timeout, "timeout", ms(10)..=ms(600_000), ms(1_000));
    Poll {
        name: lines::name(&table.name, "poll", count, at.place, r),
        query,
        interval: r.duration(&table.interval, "interval", ms(10)..=DAY, ms(1_000)),
        timeout,
        retries: u32::try_from(r.number(&table.retries, "retries", 0..=100, 2)).unwrap_or(2),
    }
}

fn checked_query(query: &At<Bytes>, r: &mut Resolver<'_>) -> Vec<u8> {
    let bytes = &query.value.0;
    if bytes.is_empty() || bytes.len() > QUERY_BYTES_MAX {
        problem(query.place, "`query` is empty or longer than 1,024 bytes", "write what the device wants to hear", r);
    }
    bytes.clone()
}

pub(super) fn problem(place: Place, message: &str, help: &str, r: &mut Resolver<'_>) {
    r.found.error(place, message).help(help);
}
