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

/// `text` with these lines live.
fn with(text: &str, commented: &[&str]) -> String {
    commented.iter().fold(text.to_owned(), |text, line| {
        assert!(text.contains(line), "{line}");
        // The first one: tables further down have keys of the same name.
        text.replacen(line, &line[2..], 1)
    })
}

fn every_default_is_written(text: &str, defaults: &[(&str, &str)]) {
    let hash_of = |text: &str| parse_str("gateway.toml", text).unwrap_or_else(|p| panic!("{p}")).config.hash;
    let plain = hash_of(text);
    for (key, value) in defaults {
        assert_eq!(hash_of(&with(text, &[&format!("# {key} = {value}")])), plain, "{key}");
    }
}

#[test]
fn every_commented_default_is_the_default() {
    let defaults = [
        ("ack_delay", r#""5ms""#),
        ("reserve_bytes", r#""64MiB""#),
        ("ballast_bytes", r#""4MiB""#),
        ("message_id_window", "200000"),
        ("message_id_max_age", r#""24h""#),
        ("stop_timeout", r#""5s""#),
        ("linger", r#""2ms""#),
        ("compression", r#""zstd""#),
        ("unacked_bytes_max", r#""8MiB""#),
        ("fan_out_bytes_max", r#""1MiB""#),
        ("heartbeat", r#""60s""#),
        ("listen", r#""127.0.0.1:9464""#),
        ("level", r#""info""#),
        ("grace", r#""auto""#),
        ("intake", r#""8MiB""#),
        ("window", r#""6MiB""#),
        ("producer", r#""6MiB""#),
        ("fan_out", r#""2MiB""#),
        ("state_dir", r#""/var/lib/forebay""#),
    ];
    every_default_is_written(REFERENCE, &defaults);
}

#[test]
fn every_commented_default_of_a_broker_is_the_default() {
    // Instead of the listener, whose keys have some of the same names.
    let (before, rest) = REFERENCE.split_once("## An MQTT server of our own").unwrap();
    let (_, mqtt) = rest.split_once("## For plants with a broker").unwrap();
    let text =
        with(&format!("{before}##{mqtt}"), &["# [[source.mqtt]]", "# name = \"plant\"", "# host = \"localhost\""]);
    let defaults = [
        ("port", "1883"),
        ("version", r#""5""#),
        ("keep_alive", r#""30s""#),
        ("connect_timeout", r#""10s""#),
        ("session_expiry", r#""7d""#),
        ("receive_maximum", "4096"),
        ("unacked_bytes_max", r#""8MiB""#),
        ("packet_size_max", r#""1MiB""#),
        ("backoff_min", r#""1s""#),
        ("backoff_max", r#""60s""#),
        ("session_per_lane", "false"),
    ];
    every_default_is_written(&text, &defaults);
}

/// The dotted path of every key in the reference, live or commented; keys of inline tables among them.
fn documented() -> Vec<String> {
    let mut section = String::new();
    let mut paths = Vec::new();
    for line in uncommented().lines() {
        if line.starts_with('[') {
            section = line
                .trim_matches(['[', ']'])
                .replace("kafka.main", "kafka.NAME")
                .replace("fields.temperature", "fields.NAME");
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
