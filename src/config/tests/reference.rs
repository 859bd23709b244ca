//! `config/gateway.toml` is the reference of every key: it loads, it names each key, and its examples are right.

use super::*;
use crate::config::file::ConfigFile;
use crate::config::reader::Table;
use crate::config::{parse_str, read_files};

const REFERENCE: &str = include_str!("../../../config/gateway.toml");

#[test]
fn it_loads_with_its_one_warning() {
    let loaded = parse_str("gateway.toml", REFERENCE).unwrap_or_else(|problems| panic!("{problems}"));
    // One local broker cannot have two replicas, and the report says what that means.
    let messages: Vec<&str> = loaded.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(messages, ["acknowledged = in one broker's memory, for EquipmentStatus"]);
    assert_eq!(loaded.config.topics[0].partitions, 2);
}

/// Each `# key = value` as if it were live; `##` stays prose.
pub fn uncommented() -> String {
    let live = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if rest.starts_with('[') || rest.contains(" = ") => rest.to_owned(),
        _ => line.to_owned(),
    };
    REFERENCE.lines().map(|line| live(line) + "\n").collect()
}

#[test]
fn every_example_in_it_is_right() {
    let mut world = World::default();
    world.variables.insert("KAFKA_PASSWORD", "x");
    world.variables.insert("MQTT_PASSWORD", "x");
    let texts = Texts(vec![SourceText { path: PathBuf::from("gateway.toml"), text: uncommented() }]);
    let mut found = Findings::default();
    read_files(&texts, &mut found, &world);
    let (problems, _) = found.into_problems(&texts);
    assert!(problems.is_empty(), "{}", problems.iter().map(ToString::to_string).collect::<String>());
}

#[test]
fn every_commented_default_is_the_default() {
    let value_of = |text: &str| parse_str("gateway.toml", text).unwrap_or_else(|p| panic!("{p}")).config;
    let plain = value_of(REFERENCE);
    for (key, value) in [
        ("ack_delay", "5ms"),
        ("reserve_bytes", "64MiB"),
        ("ballast_bytes", "4MiB"),
        ("message_id_max_age", "24h"),
        ("stop_timeout", "5s"),
        ("linger", "2ms"),
        ("compression", "zstd"),
        ("keep_alive", "30s"),
        ("connect_timeout", "10s"),
        ("session_expiry", "7d"),
        ("packet_size_max", "1MiB"),
        ("unacked_bytes_max", "8MiB"),
        ("backoff_min", "1s"),
        ("backoff_max", "60s"),
        ("heartbeat", "60s"),
        ("listen", "127.0.0.1:9464"),
        ("level", "info"),
        ("grace", "auto"),
        ("intake", "8MiB"),
        ("producer", "6MiB"),
        ("state_dir", "/var/lib/forebay"),
    ] {
        let commented = format!("# {key} = \"{value}\"");
        // The first one: a listener, which comes behind the brokers, has keys of the same name.
        assert!(REFERENCE.contains(&commented), "{commented}");
        let live = value_of(&REFERENCE.replacen(&commented, &commented[2..], 1));
        assert_eq!(live.hash, plain.hash, "{key}");
    }
}

/// The dotted path of every key in the reference, live or commented; keys of inline tables among them.
fn documented() -> Vec<String> {
    let mut section = String::new();
    let mut paths = Vec::new();
    for line in uncommented().lines() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']).replace("kafka.main", "kafka.NAME");
        } else if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            paths.push(format!("{section}.{key}"));
            let inner = value.split(['{', ',']).filter_map(|part| part.split_once(" = "));
            paths.extend(inner.map(|(inner, _)| format!("{section}.{key}.{}", inner.trim())));
        }
        paths.push(section.clone());
    }
    paths
}

#[test]
fn every_key_known_to_the_program_is_in_it() {
    let mut known = Vec::new();
    ConfigFile::paths("", &mut known);
    // Known only to be refused with the reason.
    known.retain(|path| path != "kafka.NAME.tls.server_name");
    assert!(known.len() > 90, "the list of keys itself is wrong: {}", known.len());
    let documented = documented();
    let missing: Vec<&String> = known.iter().filter(|path| !documented.contains(path)).collect();
    assert!(missing.is_empty(), "not in config/gateway.toml: {missing:?}");
}
