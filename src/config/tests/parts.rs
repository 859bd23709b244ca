//! What a valid configuration comes to: defaults, shares, lanes, references.

use super::*;
use crate::config::{Config, Delivery, OnError, UnmatchedSpec, When};
use std::time::Duration;

fn config(text: &str) -> Config {
    parse(text).unwrap_or_else(|problems| panic!("{problems}")).config
}

fn with(text: &str) -> Config {
    config(&format!("{LEAST}{text}"))
}

const MIB: u64 = 1 << 20;

#[test]
fn defaults() {
    let config = config(LEAST);
    assert_eq!(config.gateway.name, "fb-0123456789ab");
    assert_eq!(config.memory.max, 32 * MIB);
    assert_eq!((config.memory.intake, config.memory.window, config.memory.producer), (8 * MIB, 8 * MIB, 6 * MIB));
    assert_eq!(config.spool.path, PathBuf::from("/var/lib/forebay/spool.db"));
    assert_eq!(config.spool.ack_delay, Duration::from_millis(5));
    assert_eq!(config.spool.message_ids, crate::config::MessageIds::default());
    let source = &config.mqtt_sources[0];
    assert_eq!((source.name.as_str(), source.port), ("mqtt", 1883));
    assert_eq!(source.client_id, "fb-0123456789ab-mqtt");
    assert_eq!(source.unacked_bytes_max, 8 * MIB);
    let route = &config.routes[0];
    assert_eq!((route.name.as_str(), route.key.as_str()), ("route-1", "{mqtt.topic}"));
    assert_eq!((route.on_error, config.lanes[route.lane].name.as_str()), (OnError::DeadLetter, "default"));
    assert!(matches!(config.unmatched, UnmatchedSpec::DeadLetter { lane } if config.lanes[lane].name == "default"));
}

#[test]
fn a_source_without_subscriptions_asks_for_what_its_routes_take() {
    let config = with("\n[[route]]\nfilter = \"x/{rest...}\"\nkafka_topic = \"telemetry\"\n");
    let filters: Vec<&str> = config.mqtt_sources[0].subscriptions.iter().map(|s| s.filter.as_str()).collect();
    assert_eq!(filters, ["plant/+/+/telemetry", "x/#"]);
}

#[test]
fn routes_of_one_source_are_not_asked_of_the_other() {
    let text = LEAST.replace("host = \"localhost\"", "name = \"a\"\nhost = \"localhost\"");
    let config = config(&format!(
        "{text}\n[[source.mqtt]]\nname = \"b\"\nhost = \"other\"\n[[route]]\nsource = \"b\"\nfilter = \"only/b\"\nkafka_topic = \"telemetry\"\n"
    ));
    let count: Vec<usize> = config.mqtt_sources.iter().map(|source| source.subscriptions.len()).collect();
    assert_eq!(count, [1, 2]);
    assert!(config.mqtt_sources.iter().all(|source| source.unacked_bytes_max == 4 * MIB));
}

#[test]
fn lanes_stand_in_the_order_of_priority() {
    let config = with(
        "\n[[lane]]\nname = \"bulk\"\npriority = -1\ndelivery = \"at-most-once\"\n[[lane]]\nname = \"alarm\"\npriority = 9\nkeep = \"24h\"\n",
    );
    let names: Vec<&str> = config.lanes.iter().map(|lane| lane.name.as_str()).collect();
    assert_eq!(names, ["events", "alarm", "default", "bulk"]);
    assert_eq!(config.events_lane, 0);
    assert_eq!(config.lanes[0].when, When::Always);
    assert_eq!(
        (config.lanes[1].when, config.lanes[1].when_reason.as_str()),
        (When::Always, "implied by keep = \"24h\"")
    );
    assert_eq!(config.lanes[2].when_reason, "default");
    assert_eq!(config.lanes[3].delivery, Delivery::AtMostOnce);
}

#[test]
fn two_clusters_with_a_lane_each() {
    let text = LEAST.replace("name = \"telemetry\"", "name = \"telemetry\"\nkafka = \"cloud\"");
    let config = config(&format!(
        "{text}\n[kafka.cloud]\nbootstrap_servers = \"c:9092\"\n[[lane]]\nname = \"default\"\nkafka = \"cloud\"\n[[lane]]\nname = \"a\"\nkafka = \"main\"\n",
    ));
    let cluster = |name: &str| {
        let lane = config.lanes.iter().find(|lane| lane.name == name).unwrap();
        config.kafka[lane.kafka].name.as_str()
    };
    assert_eq!((cluster("default"), cluster("events"), cluster("a")), ("cloud", "cloud", "main"));
}

#[test]
fn references_are_replaced_and_secrets_stay_hidden() {
    let mut world = World::default();
    world.variables.insert("PW", "hunter2");
    world.variables.insert("CREDENTIALS_DIRECTORY", "/run/credentials/forebay");
    world.files.insert("/run/credentials/forebay/kafka", "hunter3");
    let text =
        LEAST.replace("host = \"localhost\"", "host = \"localhost\"\nuser = \"u-$${x}\"\npassword = \"a${PW}b\"");
    let text =
        format!("{text}\n[kafka.main.sasl]\nmechanism = \"SCRAM-SHA-256\"\nuser = \"k\"\npassword_file = \"kafka\"\n");
    let config = parse_in(&world, &[("/etc/forebay/gateway.toml", &text)]).unwrap().config;
    let source = &config.mqtt_sources[0];
    assert_eq!(source.user.as_deref(), Some("u-${x}"));
    assert_eq!(source.password.as_ref().unwrap().expose(), "ahunter2b");
    let shown = format!("{config:?}");
    assert!(shown.contains("***") && !shown.contains("hunter"), "{shown}");
}

#[test]
fn the_hash_sees_values_and_not_comments_or_secrets() {
    let hash = |text: &str| with(text).hash;
    let plain = hash("");
    assert_eq!(plain.len(), 16);
    assert_eq!(plain, hash("\n# a comment\n[log]\nlevel = \"info\"\n"));
    assert_ne!(plain, hash("\n[log]\nlevel = \"warn\"\n"));
    let property = |value: &str| hash(&format!("\n[kafka.main.properties]\n\"socket.timeout.ms\" = {value}\n"));
    assert_ne!(property("100"), property("200"));
    let password = |value: &str| {
        with(&format!("\n[kafka.main.sasl]\nmechanism = \"PLAIN\"\nuser = \"u\"\npassword = \"{value}\"\n")).hash
    };
    assert_eq!(password("a"), password("b"));
}

#[test]
fn files_are_merged_and_nothing_overrides_silently() {
    let world = World::default();
    let first = ("gateway.toml", LEAST);
    let more = "[log]\nlevel = \"warn\"\n[[route]]\nfilter = \"b\"\nkafka_topic = \"telemetry\"\n[kafka.main]\nlinger = \"20ms\"\n";
    let config = parse_in(&world, &[first, ("conf.d/10.toml", more)]).unwrap().config;
    assert_eq!((config.routes.len(), config.log.level.as_str()), (2, "warn"));
    assert_eq!(config.kafka[0].linger, Duration::from_millis(20));

    let twice = ("conf.d/20.toml", "[kafka.main]\nbootstrap_servers = \"other:9092\"\n");
    let problems = parse_in(&world, &[first, twice]).unwrap_err();
    insta::assert_snapshot!(problems);
}
