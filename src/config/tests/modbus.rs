//! Modbus lines: what a person may write, what is found, and what it does to the lanes.

use super::World;
use crate::config::{self, Link, ModbusSource, When, parse_str, parse_str_in};
use crate::intake::modbus::answer::Framing;
use crate::intake::modbus::plan::plan;
use crate::intake::modbus::register::Register;

const BASE: &str = "[kafka.main]\nbootstrap_servers = \"k:9092\"\n[[route]]\nfilter = \"#\"\nkafka_topic = \"t\"\n";

/// A configuration without a broker: one line and its route. `lines` belong to the source.
fn with(lines: &str) -> String {
    format!("{BASE}[[source.modbus]]\ntcp = \"192.168.0.10\"\n{lines}\n")
}

/// The same with one device, whose lines these are.
fn device(lines: &str) -> String {
    with(&format!("[[source.modbus.device]]\n{lines}"))
}

/// The same with one register.
fn register(keys: &str) -> String {
    device(&format!("register = [{{ name = \"a\", table = \"holding\", address = 0, {keys} }}]"))
}

fn source(text: &str) -> ModbusSource {
    let loaded = parse_str("gateway.toml", text).unwrap_or_else(|problems| panic!("{problems}"));
    loaded.config.modbus_sources[0].clone()
}

const TWO: &str = "register = [{ name = \"a\", table = \"input\", address = 0, kind = \"f32\" }, \
                   { name = \"b\", table = \"input\", address = 2, kind = \"f32\" }]";

/// Each case: what is written, and parts of what `check` must say of it.
fn mistakes() -> Vec<(String, &'static [&'static str])> {
    let line = |text: &str| format!("{BASE}[[source.modbus]]\n{text}\n[[source.modbus.device]]\nmap = \"sdm120\"\n");
    vec![
        (line(""), &["no way to the devices", "tcp = \\\"192.168.0.10:502\\\""][..1]),
        (line("tcp = \"a\"\nport = \"/dev/ttyS0\""), &["both `tcp` and a serial port"]),
        (line("tcp = \"a\"\nbaud = 9600"), &["`baud` has no effect: the line is reached by TCP"]),
        (line("port = \"/dev/ttyS0\"\nframing = \"rtu\""), &["always carries RTU"]),
        (line("port = \"ttyS0\""), &["`port` is not a path"]),
        (line("tcp = \"a:0\""), &["`tcp` is not an address"]),
        (line("tcp = \"tcp://a\""), &["`tcp` is not an address"]),
        (line("tcp = \"a\"\ntimeout = \"1us\""), &["`timeout` is out of bounds"]),
        (line("tcp = \"a\"\ntopic = \"{poll}\""), &["unknown placeholder", "{device}, {group}"]),
        (line("tcp = \"a\"\nbackoff_min = \"5s\""), &["`backoff_max` is shorter"]),
        (line("tcp = \"a\"\nunacked_bytes_max = \"4KiB\""), &["two readings of", "do not fit into 4KiB"]),
        (with(""), &["there is no device to ask"]),
        (device(""), &["nothing is read of this device"]),
        (device("unit = 256\nmap = \"sdm120\""), &["`unit` is out of bounds: 256", "from 0 to 255"]),
        (device("map = \"sdm640\""), &["no ready-made map \"sdm640\"", "did you mean \"sdm630\"?"]),
        (device("map = \"sdm120\"\nmap_file = \"x.toml\""), &["both `map` and `map_file`"]),
        (device("map_file = \"not-there.toml\""), &["not-there.toml does not exist", "beside this file"]),
        (
            device("map = \"sdm120\"\nregister = [{ name = \"power\", table = \"coil\", address = 0 }]"),
            &["\"power\" is defined twice"],
        ),
        (
            device("map = \"sdm120\"\n[[source.modbus.device]]\nname = \"b\"\nmap = \"sdm120\""),
            &["`name` is missing", "unit 1 is defined twice"],
        ),
        (device("register = [{ table = \"input\", address = 0 }]"), &["`name` is missing"]),
        (device("register = [{ name = \"a\", address = 0 }]"), &["`table` is missing"]),
        (device("register = [{ name = \"a\", table = \"input\" }]"), &["`address` is missing", "from 0"]),
        (device("register = [{ name = \"a b\", table = \"input\", address = 0 }]"), &["cannot be called \"a b\""]),
        (
            device("register = [{ name = \"a\", table = \"holding\", address = 400001 }]"),
            &["out of bounds: 400001", "40001"],
        ),
        (
            device("register = [{ name = \"a\", table = \"coil\", address = 0, kind = \"u16\" }]"),
            &["a coil is one bit"],
        ),
        (device("register = [{ name = \"a\", table = \"discrete\", address = 0, bit = 1 }]"), &["`bit` has no effect"]),
        (device("register = [{ name = \"a\", table = \"coil\", address = 0, scale = 2 }]"), &["`scale` has no effect"]),
        (
            device("register = [{ name = \"a\", table = \"input\", address = 65535, kind = \"u32\" }]"),
            &["behind the last address"],
        ),
        (
            device("registers_max = 2\nregister = [{ name = \"a\", table = \"input\", address = 0, kind = \"f64\" }]"),
            &["does not fit into one request"],
        ),
        (device("registers_max = 126\nmap = \"sdm120\""), &["`registers_max` is out of bounds"]),
        (device(&TWO.replace("= 2,", "= 1,")), &["\"b\" (input 1, 2 registers) overlaps \"a\""]),
        (register("kind = \"bool\""), &["a register is no bool", "kind = \"bits\", bit = 0"]),
        (register("kind = \"u8\""), &["unknown value \"u8\" for `kind`", "u16"]),
        (register("kind = \"string\""), &["`length` is missing"]),
        (register("kind = \"string\", length = 126"), &["`length` is out of bounds"]),
        (register("kind = \"string\", length = 8, add = 1"), &["`add` has no effect"]),
        (register("kind = \"u32\", length = 2"), &["`length` is for strings and bits"]),
        (register("kind = \"u32\", bit = 2"), &["`bit` is for kind = \"bits\""]),
        (register("kind = \"bits\", bit = 16"), &["`bit` is out of bounds"]),
        (register("kind = \"bits\", bit = 12, bits = 5"), &["`bits` is out of bounds"]),
        (register("scale = 0"), &["`scale` of nothing"]),
        (register("invalid = 0x10000"), &["`invalid` does not fit into 16 bits"]),
        (register("kind = \"f32\", invalid = 1"), &["`invalid` is for whole numbers"]),
        (register("unit = \"\""), &["`unit` is empty"]),
        (device(&format!("{TWO}\ngroup = [{{ name = \"g\" }}]")), &["`values` is missing"]),
        (device(&format!("{TWO}\ngroup = [{{ name = \"g\", values = [\"c\"] }}]")), &["no value \"c\""]),
        (
            device(&format!(
                "{TWO}\ngroup = [{{ name = \"g\", values = [\"a\"] }}, {{ name = \"h\", values = [\"a\"] }}]"
            )),
            &["the groups overlap: \"a\"", "already taken"],
        ),
        (
            device(&format!(
                "{TWO}\ngroup = [{{ name = \"g\", values = [\"a\"] }}, {{ name = \"g\", values = [\"b\"] }}]"
            )),
            &["this group is defined twice"],
        ),
    ]
}

#[test]
fn every_mistake_is_found_with_place_and_help() {
    for (text, parts) in mistakes() {
        let problems = parse_str("gateway.toml", &text).err();
        let said = problems.unwrap_or_else(|| panic!("nothing was found in {text}")).to_string();
        for part in parts {
            assert!(said.contains(part), "{text}: {part:?} is not in\n{said}");
        }
        assert!(said.contains("gateway.toml:") && said.contains("= help:"), "{text}: no place or help in\n{said}");
    }
}

#[test]
fn a_line_has_a_bound() {
    let registers: String =
        (0..900).map(|n| format!("{{ name = \"v{n}\", table = \"input\", address = {n} }},")).collect();
    let one = |unit: usize| {
        format!("[[source.modbus.device]]\nname = \"d{unit}\"\nunit = {unit}\nregister = [{registers}]\n")
    };
    let line =
        |devices: usize| with(&format!("unacked_bytes_max = \"1MiB\"\n{}", (1..=devices).map(one).collect::<String>()));
    assert_eq!(source(&line(5)).devices.len(), 5);
    let said = parse_str("gateway.toml", &line(6)).unwrap_err().to_string();
    assert!(said.contains("more than 5,000 values on one line: 5400"), "{said}");
}

#[test]
fn a_mistake_in_a_map_is_found_there() {
    let text = device("map_file = \"mine.toml\"");
    let mut world = World::default();
    world.files.insert("mine.toml", "[[register]]\nname = \"a\"\ntable = \"inputt\"\naddress = 0\n");
    let said = parse_str_in("gateway.toml", &text, &world).unwrap_err().to_string();
    assert!(said.contains("mine.toml:3:9: unknown value \"inputt\"") && said.contains("holding"), "{said}");
    world.files.insert("mine.toml", "[[register]]\nname = \"a\"\ntable = \"input\"\naddress = 0\nlenght = 2\n");
    let said = parse_str_in("gateway.toml", &text, &world).unwrap_err().to_string();
    assert!(said.contains("mine.toml:5:1: unknown key `lenght`") && said.contains("did you mean `length`"), "{said}");
    world
        .files
        .insert("mine.toml", "word_order = \"little\"\n[[register]]\nname = \"a\"\ntable = \"input\"\naddress = 0\n");
    assert!(parse_str_in("gateway.toml", &text, &world).is_ok());
}

#[test]
fn the_ready_made_maps_are_right_in_themselves() {
    let names: Vec<&str> = config::map_names().collect();
    assert!(names.contains(&"sdm630") && names.is_sorted());
    for name in names {
        let (registers, limits) = config::load_map(name, false).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        for wanted in ["energy_import", "frequency", "power"] {
            assert!(registers.iter().any(|register| register.name == wanted), "{name} has no {wanted}");
        }
        let requests = plan(registers.iter().map(Register::request), limits).len();
        assert!(requests <= 9, "{name} takes {requests} requests");
    }
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/config/modbus")).unwrap().count();
    assert_eq!(files, config::map_names().count(), "each file in config/modbus is in the program");
}

#[test]
fn a_line_alone_is_a_source_and_its_lane_commits_first() {
    let config = parse_str("gateway.toml", &device("map = \"sdm120\"")).unwrap().config;
    let default = config.lanes.iter().find(|lane| lane.name == "default").unwrap();
    assert_eq!((default.when, default.when_reason.as_str()), (When::Always, "implied by the source \"modbus\""));
    let text = with("volatile = true\n[[source.modbus.device]]\nmap = \"sdm120\"");
    let volatile = parse_str("gateway.toml", &text).unwrap().config;
    assert!(volatile.lanes.iter().filter(|lane| lane.name == "default").all(|lane| lane.when == When::Offline));
    let twin = format!("{text}\n[[source.serial]]\nname = \"modbus\"\nport = \"/dev/ttyS0\"\n");
    let said = parse_str("gateway.toml", &twin).unwrap_err().to_string();
    assert!(said.contains("the source \"modbus\" is defined twice"), "{said}");
}

#[test]
fn a_whole_line_is_read_as_it_is_written() {
    let read = source(&with(
        "name = \"meters\"\ninterval = \"2s\"\nframing = \"rtu\"\n[[source.modbus.device]]\nname = \"main\"\nunit = 7\n\
         map = \"sdm630\"\nword_order = \"little\"\nregisters_max = 30\n\
         register = [{ name = \"alarm\", table = \"coil\", address = 3 }]\n\
         group = [{ name = \"energy\", interval = \"60s\", values = [\"energy*\"] }]\n",
    ));
    assert!(matches!(&read.link, Link::Tcp { host, port: 502, framing: Framing::Rtu } if host == "192.168.0.10"));
    let device = &read.devices[0];
    assert_eq!((device.unit, device.limits.registers, device.groups.len()), (7, 30, 2));
    assert_eq!(device.groups[1].registers.len(), 3);
    assert_eq!((device.groups[0].interval.as_secs(), device.groups[1].interval.as_secs()), (2, 60));
    assert_eq!((read.topic_of(0, 0), read.topic_of(0, 1)), ("modbus/meters/main".into(), "modbus/meters/main".into()));
    let apart = source(&with("topic = \"{source}/{device}/{group}\"\n[[source.modbus.device]]\nmap = \"sdm120\""));
    assert_eq!(apart.topic_of(0, 0), "modbus/device/main");
    for (text, host, port) in [("a:1", "a", 1), ("[::1]:5020", "::1", 5020), ("::1", "::1", 502), ("x.y", "x.y", 502)] {
        assert_eq!(config::modbus_address(text), Some((host.to_owned(), port)));
    }
}

#[test]
fn what_is_unwise_is_warned_of() {
    let warnings = |text: &str| {
        let warnings = parse_str("gateway.toml", text).unwrap_or_else(|problems| panic!("{problems}")).warnings;
        warnings.iter().map(|warning| warning.message.clone()).collect::<Vec<_>>().join("\n")
    };
    let said = warnings(&device("register = [{ name = \"a\", table = \"holding\", address = 40011 }]"));
    assert!(said.contains("the address 40011 looks like the number that a manual gives"), "{said}");
    let slow =
        device("map = \"sdm630\"\ninterval = \"100ms\"").replace("tcp = \"192.168.0.10\"", "port = \"/dev/ttyUSB0\"");
    let said = warnings(&slow);
    assert!(said.contains("the line is too slow: at 9600 baud"), "{said}");
    assert!(said.contains("may be another device after the next start"), "{said}");
    let said = warnings(&device("map = \"sdm120\"").replace("\"#\"", "\"plant/#\""));
    assert!(said.contains("no route takes the topic \"modbus/modbus/device\""), "{said}");
}
