//! Serial lines: what a person may write, what is found, and what it does to the lanes.

use std::time::Duration;

use crate::config::{When, parse_str};
use crate::intake::exception::{Deadband, Rule};
use crate::intake::serial::decode::Decoder;
use crate::intake::serial::device::PortName;
use crate::intake::serial::frame::Framing;

/// A configuration without a broker: one line and its route. `lines` belong to the source.
fn with(lines: &str) -> String {
    format!(
        "[kafka.main]\nbootstrap_servers = \"k:9092\"\n[[route]]\nfilter = \"#\"\nkafka_topic = \"t\"\n\
         [[source.serial]]\nport = \"/dev/serial/by-id/x\"\n{lines}\n"
    )
}

fn source(lines: &str) -> crate::config::SerialSource {
    let loaded = parse_str("gateway.toml", &with(lines)).unwrap_or_else(|problems| panic!("{problems}"));
    loaded.config.serial_sources[0].clone()
}

/// Each case: what is written, and parts of what `check` must say of it.
const MISTAKES: &[(&str, &[&str])] = &[
    ("port = \"/dev/ttyS0\"", &["key is given twice"]),
    ("usb = { vendor = \"0403\", product = \"6001\" }", &["both `port` and `usb` are given"]),
    ("baud = 20", &["`baud` is out of bounds: 20", "from 50 to 20000000"]),
    ("data_bits = 9", &["`data_bits` is out of bounds"]),
    ("parity = \"mark\"", &["unknown value \"mark\" for `parity`", "even"]),
    ("topic = \"a/#\"", &["`topic` is not a topic"]),
    ("topic = \"a/{line}\"", &["unknown placeholder in `topic`", "{source}, {poll}"]),
    ("topic = \"{poll}\"", &["there is no [[source.serial.poll]]"]),
    ("unacked_bytes_max = \"6KiB\"", &["two frames of `max` do not fit into 6KiB", "choose at least 10KiB"]),
    ("unacked_bytes_max = \"16MiB\"", &["the lines ask for 16MiB", "intake memory is 8MiB"]),
    ("backoff_min = \"5s\"", &["`backoff_max` is shorter"]),
    ("frame = { kind = \"morse\" }", &["unknown value \"morse\"", "slip"]),
    ("frame = { kind = \"delimiter\" }", &["`delimiter` is missing"]),
    ("frame = { kind = \"start-stop\", start = \"\" }", &["`start` is empty", "`stop` is missing"]),
    ("frame = { kind = \"lines\", gap = \"5ms\" }", &["`gap` has no effect for this `kind`"]),
    ("frame = { kind = \"start-stop\", start = \"hex:2\", stop = \"x\" }", &["pairs of hexadecimal digits"]),
    ("frame = { kind = \"length\" }", &["`length` is missing"]),
    ("frame = { kind = \"length\", length = { size = 3 } }", &["`size` is 3 bytes"]),
    ("frame = { kind = \"fixed\", size = 5000 }", &["`size` is out of bounds: 5000"]),
    ("frame = { max = \"1MiB\" }", &["`max` is out of bounds"]),
    ("frame = { checksum = { kind = \"crc-16-modbuss\" } }", &["did you mean \"crc-16-modbus\"?"]),
    ("frame = { kind = \"nmea\", checksum = { kind = \"lrc\" } }", &["`checksum` has no effect"]),
    ("decode = { kind = \"csv\" }", &["`fields` is missing"]),
    ("decode = { kind = \"csv\", separator = \",,\", fields = [{ name = \"a\" }] }", &["not one ASCII character"]),
    ("decode = { kind = \"csv\", fields = [{ name = \"a\" }, { name = \"a\" }] }", &["\"a\" is defined twice"]),
    ("decode = { kind = \"csv\", fields = [{ name = \"units\" }] }", &["cannot be called \"units\""]),
    ("decode = { kind = \"csv\", fields = [{ name = \"a\", kind = \"u16\" }] }", &["is for packed frames"]),
    ("decode = { kind = \"packed\", fields = [{ name = \"a\", kind = \"int\", at = 0 }] }", &["is for columns"]),
    ("decode = { kind = \"packed\", fields = [{ name = \"a\", kind = \"u16\" }] }", &["`at` is missing"]),
    ("decode = { kind = \"packed\", fields = [{ name = \"a\", kind = \"u16\", at = -1 }] }", &["outside of any frame"]),
    ("decode = { kind = \"regex\", pattern = \"(\" }", &["invalid `pattern`"]),
    ("decode = { kind = \"regex\", pattern = \"a+\" }", &["no named groups"]),
    ("decode = { kind = \"regex\", pattern = '(?<a>\\d{500}){500}' }", &["invalid `pattern`"]),
    ("decode = { kind = \"regex\", pattern = '(?<a>.)', fields = [{ name = \"b\" }] }", &["has no group \"b\""]),
    ("decode = { kind = \"text\", fields = [{ name = \"b\" }] }", &["`fields` has no effect"]),
    ("report = { deadband = 1 }", &["raw frames have no fields", "add [source.serial.decode]"]),
    ("report = { ignore = \"time\" }", &["raw frames have no fields"]),
    ("report = { min_interval = \"20m\" }", &["`min_interval` is longer than `max_interval`"]),
    ("report = { max_interval = \"1ms\" }", &["`max_interval` is out of bounds"]),
    ("decode = { kind = \"text\" }\nreport = { deadband = -1 }", &["`deadband` is out of bounds"]),
    ("decode = { kind = \"text\" }\nreport = { deadband = \"101%\" }", &["`deadband` is out of bounds", "\"100%\""]),
    ("decode = { kind = \"text\" }\nreport = { deadband = \"1 K\" }", &["neither a number nor a percentage: \"1 K\""]),
    ("decode = { kind = \"text\" }\nreport = { fields = { test = { deadband = 1 } } }", &["did you mean \"text\"?"]),
    ("decode = { kind = \"text\" }\nreport = { per = [\"station\"] }", &["no reading has a field \"station\"", "text"]),
    ("unacked_bytes_max = \"8MiB\"\nreport = {}", &["the lines ask for 8256KiB", "intake memory is 8MiB"]),
    ("rs485 = { delay_before_send = \"101ms\" }", &["`delay_before_send` is out of bounds", "to 100ms"]),
    ("rs485 = {}\nflow_control = \"hardware\"", &["both use RTS", "remove `flow_control`"]),
    ("poll = [{ interval = \"1s\" }]", &["`query` is missing"]),
    ("poll = [{ query = \"x\" }]", &["`interval` is missing"]),
    ("poll = [{ query = \"\", interval = \"1s\" }]", &["`query` is empty"]),
    ("poll = [{ query = \"x\", interval = \"1s\" }, { query = \"x\", interval = \"1s\" }]", &["`name` is missing"]),
    ("decode = { kind = \"csv\", fields = [{ name = \"a\", scale = \"x\" }] }", &["`scale` must be a number"]),
    ("decode = { kind = \"csv\", fields = [{ name = \"a\", scale = 0 }] }", &["`scale` of nothing"]),
];

#[test]
fn every_mistake_is_found_with_place_and_help() {
    for (lines, parts) in MISTAKES {
        let problems = parse_str("gateway.toml", &with(lines)).err();
        let said = problems.unwrap_or_else(|| panic!("nothing was found in {lines}")).to_string();
        for part in *parts {
            assert!(said.contains(part), "{lines}: {part:?} is not in\n{said}");
        }
        assert!(said.contains("gateway.toml:") || lines.contains("unacked"), "{lines}: no place in\n{said}");
    }
}

#[test]
fn a_line_alone_is_a_source_and_its_lane_commits_first() {
    let text = with("[[lane]]\nname = \"alarms\"\nwhen = \"offline\"\n");
    let config = parse_str("gateway.toml", &text).unwrap().config;
    let default = config.lanes.iter().find(|lane| lane.name == "default").unwrap();
    assert_eq!((default.when, default.when_reason.as_str()), (When::Always, "implied by the source \"serial\""));
    let alarms = config.lanes.iter().find(|lane| lane.name == "alarms").unwrap();
    assert_eq!(alarms.when, When::Offline, "it feeds no other lane");
    assert_eq!(config.serial_sources[0].topic, "serial");
    let volatile = parse_str("gateway.toml", &with("volatile = true")).unwrap().config;
    assert!(volatile.lanes.iter().filter(|lane| lane.name == "default").all(|lane| lane.when == When::Offline));
}

#[test]
fn a_lane_that_never_commits_is_refused_for_a_line() {
    let lane = "[[lane]]\nname = \"default\"\ndelivery = \"at-most-once\"\n";
    let said = parse_str("gateway.toml", &with(lane)).unwrap_err().to_string();
    assert!(said.contains("the lane \"default\" never commits") && said.contains("volatile = true"), "{said}");
    assert!(parse_str("gateway.toml", &with(&format!("volatile = true\n{lane}"))).is_ok());
    let offline = "[[lane]]\nname = \"default\"\nwhen = \"offline\"\n";
    let warnings = parse_str("gateway.toml", &with(offline)).unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.message.contains("has no effect")), "{warnings:?}");
}

#[test]
fn a_line_without_a_route_and_a_port_without_a_lasting_name_are_warned_of() {
    let text =
        with("topic = \"hall/scale\"").replace("\"#\"", "\"plant/#\"").replace("/dev/serial/by-id/x", "/dev/ttyUSB0");
    let warnings = parse_str("gateway.toml", &text).unwrap().warnings;
    let said: Vec<&str> = warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert!(said.iter().any(|said| said.contains("no route takes the topic \"hall/scale\"")), "{said:?}");
    assert!(said.iter().any(|said| said.contains("may be another device after the next start")), "{said:?}");
}

#[test]
fn names_are_unique_over_all_kinds_of_sources() {
    let twin = "name = \"plant\"\n[[source.mqtt]]\nname = \"plant\"\nhost = \"localhost\"\n";
    let said = parse_str("gateway.toml", &with(twin)).unwrap_err().to_string();
    assert!(said.contains("the source \"plant\" is defined twice"), "{said}");
    let route = with("name = \"scale\"").replace("filter", "source = \"scale\"\nfilter");
    assert!(parse_str("gateway.toml", &route).is_ok(), "a route may name a line");
}

#[test]
fn what_is_worth_sending_is_read_as_it_is_written() {
    let read = source(
        "rs485 = { rts_on_send = false, delay_after_send = \"2ms\" }\n\
         decode = { kind = \"csv\", fields = [{ name = \"a\" }, { name = \"b\" }, { name = \"c\" }] }\n\
         report = { deadband = \"1%\", min_interval = \"1s\", max_interval = \"60s\", ignore = \"c\", per = [\"a\"], \
         fields = { b = { deadband = 0.5, min_interval = \"0s\" } } }\n",
    );
    let report = read.report.unwrap();
    let second = Duration::from_secs(1);
    assert_eq!(report.rule, Rule { deadband: Deadband::Percent(1.0), min_interval: second });
    assert_eq!(report.fields["b"], Rule { deadband: Deadband::Absolute(0.5), min_interval: Duration::ZERO });
    assert_eq!((report.ignore, report.per, report.max_interval), (vec!["c".into()], vec!["a".into()], 60 * second));
    let rs485 = read.settings.rs485.unwrap();
    assert_eq!((rs485.rts_on_send, rs485.delay_after_send), (false, 2 * second / 1_000));
    let plain = source("report = {}").report.unwrap();
    assert_eq!(plain.rule, Rule { deadband: Deadband::Absolute(0.0), min_interval: Duration::ZERO });
    assert!(source("").report.is_none() && source("").settings.rs485.is_none());
    source("decode = { kind = \"nmea\" }\nreport = { ignore = [\"time\", \"fields\"], per = \"sentence\" }");
}

#[test]
fn a_whole_device_is_read_as_it_is_written() {
    let read = source(
        "baud = 31250\ntopic = \"{source}/{poll}\"\n\
         frame = { kind = \"start-stop\", start = \"\\u0002\", stop = \"hex:03\", checksum = { kind = \"lrc\", after_stop = true } }\n\
         decode = { kind = \"packed\", fields = [{ name = \"t\", kind = \"i16\", at = 0, scale = 0.1, unit = \"C\" }] }\n\
         poll = [{ name = \"a\", query = \"hex:05\", interval = \"1s\" }]\n",
    );
    assert_eq!(read.frame.framing, Framing::Fence { start: vec![2], stop: vec![3], trailer: 1 });
    assert!(matches!(&read.decoder, Decoder::Packed(fields) if fields[0].scaling.scale == 0.1));
    assert_eq!((read.topic_of(Some(0)), read.topic_of(None)), ("serial/a".to_owned(), "serial/unasked".to_owned()));
    assert_eq!((read.polls[0].query.as_slice(), read.polls[0].retries), (&[5u8][..], 2));
    let text = with("").replace("port = \"/dev/serial/by-id/x\"", "usb = { vendor = \"0403\", product = \"6001\" }");
    let usb = parse_str("gateway.toml", &text).unwrap().config.serial_sources.remove(0);
    assert!(matches!(&usb.port, PortName::Usb(usb) if usb.vendor == 0x0403), "{:?}", usb.port);
}
