//! `[[source.listener]]`: what it comes to, and every mistake with its message.

use super::*;
use crate::config::{Address, CertificateIdentity, Config, Listener, ListenerLimits, MessageIdFrom};
use insta::assert_snapshot;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// A gateway without a broker.
const BARE: &str = r#"
[kafka.main]
bootstrap_servers = "localhost:9092"

[[route]]
filter = "plant/{line}/{device}/telemetry"
kafka_topic = "telemetry"

[[topic]]
name = "telemetry"
replication_factor = 3
min_insync_replicas = 2
"#;

fn world() -> World {
    let mut world = World::default();
    for file in ["users", "server.pem", "server.key", "ca.pem"] {
        world.files.insert(file, "content");
    }
    world
}

fn outcome(text: &str) -> Result<Loaded, Problems> {
    parse_in(&world(), &[("gateway.toml", &format!("{BARE}{text}"))])
}

fn config(text: &str) -> Config {
    outcome(text).unwrap_or_else(|problems| panic!("{problems}")).config
}

fn listener(text: &str) -> Listener {
    config(&format!("[[source.listener]]\n{text}")).listeners.remove(0)
}

/// What is wrong, without the lines of the source.
fn wrong(text: &str) -> String {
    outcome(&format!("[[source.listener]]\n{text}")).unwrap_err().to_string()
}

fn warned(text: &str) -> String {
    let loaded = outcome(&format!("[[source.listener]]\n{text}")).unwrap_or_else(|problems| panic!("{problems}"));
    loaded.warnings.iter().map(ToString::to_string).collect()
}

const TLS: &str = "[source.listener.tls]\ncert_file = \"server.pem\"\nkey_file = \"server.key\"\n";
const RULE: &str = "[[source.listener.acl]]\npublish = \"plant/%u/#\"\n";

#[test]
fn loopback_and_unix_sockets_are_for_everybody() {
    let config =
        config("[[source.listener]]\nlisten = [\"127.0.0.1:1883\", \"[::1]:1883\"]\nlisten_unix = \"mqtt.sock\"\n");
    let listener = &config.listeners[0];
    assert_eq!(listener.name, "listener");
    assert!(listener.endpoints.iter().all(|endpoint| endpoint.anonymous && !endpoint.tls && !endpoint.websocket));
    assert_eq!(listener.endpoints[2].address, Address::Unix("/run/forebay/mqtt.sock".into()));
    assert!(listener.acl.is_empty() && config.mqtt_sources.is_empty());
    let memory = config.memory;
    assert_eq!((memory.intake, memory.window, memory.producer, memory.fan_out), (8 * MIB, 6 * MIB, 6 * MIB, 2 * MIB));
    assert_eq!((listener.unacked_bytes_max, listener.fan_out_bytes_max), (8 * MIB, MIB));
}

#[test]
fn a_listener_with_everything() {
    let listener = listener(&format!(
        "name = \"devices\"\nlisten_tls = \"0.0.0.0:8883\"\nlisten_wss = \"[::]:8084\"\npassword_file = \"users\"\n\
         message_id_pointer = \"/id\"\n{TLS}client_ca_file = \"ca.pem\"\nidentity = \"san\"\n\
         [[source.listener.acl]]\nuser = \"press-*\"\ncertificate = \"*.plant\"\nsubscribe = [\"a/%c\", \"b\"]\n{RULE}"
    ));
    assert!(listener.endpoints.iter().all(|endpoint| endpoint.tls && !endpoint.anonymous));
    assert_eq!(listener.endpoints.iter().map(|endpoint| endpoint.websocket).collect::<Vec<_>>(), [false, true]);
    let tls = listener.tls.unwrap();
    assert_eq!((tls.require_certificate, tls.identity), (false, CertificateIdentity::AlternativeName));
    assert_eq!(listener.password_file, Some("users".into()));
    assert_eq!(listener.message_id, Some(MessageIdFrom::Pointer("/id".to_owned())));
    assert_eq!(listener.acl[0].user.as_deref(), Some("press-*"));
    assert_eq!(
        (&listener.acl[0].subscribe[..], &listener.acl[1].publish[..]),
        (&["a/%c".to_owned(), "b".to_owned()][..], &["plant/%u/#".to_owned()][..])
    );
}

#[test]
fn brokers_and_listeners_share_the_intake_and_the_names() {
    let text = "[memory]\nintake = \"6MiB\"\nfan_out = \"4MiB\"\n[[source.mqtt]]\nhost = \"localhost\"\n[[source.listener]]\nlisten = \"127.0.0.1:1883\"\n\
                [[source.listener]]\nname = \"second\"\nlisten = \"127.0.0.1:1884\"\nfan_out_bytes_max = \"512KiB\"\n";
    let config = config(&text.replace("[[source.listener]]\nlisten", "[[source.listener]]\nname = \"first\"\nlisten"));
    let shares: Vec<u64> = config.listeners.iter().map(|listener| listener.unacked_bytes_max).collect();
    assert_eq!((config.mqtt_sources[0].unacked_bytes_max, shares), (2 * MIB, vec![2 * MIB; 2]));
    assert_eq!(config.listeners.iter().map(|l| l.fan_out_bytes_max).collect::<Vec<_>>(), [3 * MIB / 2, MIB / 2]);
}

#[test]
fn a_route_may_name_a_listener() {
    let text = "[[source.listener]]\nlisten = \"127.0.0.1:1883\"\n[[route]]\nsource = \"listener\"\nfilter = \"x\"\nkafka_topic = \"telemetry\"\n";
    assert_eq!(config(text).routes[1].sources, ["listener"]);
    assert!(outcome(&text.replace("\"listener\"", "\"listner\"")).unwrap_err().to_string().contains("did you mean"));
}

#[test]
fn the_references_limits_are_the_defaults() {
    let text = reference::uncommented();
    let limits =
        text.split_once("[source.listener.limits]\n").unwrap().1.split_once("\n## For plants with a broker").unwrap().0;
    let given = listener(&format!("listen = \"127.0.0.1:1883\"\n[source.listener.limits]\n{limits}"));
    assert_eq!(format!("{:?}", given.limits), format!("{:?}", ListenerLimits::default()));
    let keys = limits.lines().filter(|line| line.contains(" = ")).count();
    assert_eq!(keys, format!("{:?}", given.limits).matches(": ").count(), "a limit is not in the reference");
    let other =
        listener("listen = \"127.0.0.1:1883\"\n[source.listener.limits]\nconnect_timeout = \"7s\"\nsend_maximum = 3\n");
    assert_eq!((other.limits.connect_timeout, other.limits.send_maximum), (Duration::from_secs(7), 3));
}

#[test]
fn the_hash_sees_rules_and_limits() {
    let hash = |text: &str| config(&format!("[[source.listener]]\nlisten = \"127.0.0.1:1883\"\n{text}")).hash;
    assert_ne!(hash(""), hash("[source.listener.limits]\nconnections = 7\n"));
    assert_ne!(hash("[[source.listener.acl]]\npublish = \"a\"\n"), hash("[[source.listener.acl]]\npublish = \"b\"\n"));
}

#[test]
fn a_listener_that_listens_nowhere() {
    assert_snapshot!(wrong(""));
}

#[test]
fn addresses_that_are_none() {
    assert_snapshot!(wrong(
        "listen = [\"1883\", \"localhost:1883\", \"127.0.0.1:0\"]\nlisten_unix = \"\"\nlisten_ws = 8083\n"
    ));
}

#[test]
fn nobody_is_asked_who_he_is() {
    assert_snapshot!(wrong(&format!("listen = \"0.0.0.0:1883\"\nlisten_tls = \"10.0.0.1:8883\"\n{TLS}")));
}

#[test]
fn nobody_can_come_in() {
    assert_snapshot!(wrong(&format!(
        "listen = \"127.0.0.1:1883\"\nlisten_tls = \"0.0.0.0:8883\"\n{TLS}client_ca_file = \"ca.pem\"\nrequire_certificate = true\n{RULE}"
    )));
}

#[test]
fn nobody_may_publish() {
    assert_snapshot!(wrong("listen = \"127.0.0.1:1883\"\npassword_file = \"users\"\n"));
}

#[test]
fn tls_without_what_it_needs() {
    assert_snapshot!(wrong("listen_tls = \"127.0.0.1:8883\"\n"));
    assert_snapshot!(wrong(
        "listen_tls = \"127.0.0.1:8883\"\n[source.listener.tls]\ncert_file = \"nowhere.pem\"\nrequire_certificate = true\nidentity = \"dn\"\n"
    ));
}

#[test]
fn rules_that_say_nothing() {
    assert_snapshot!(wrong(
        r##"listen = "127.0.0.1:1883"
[[source.listener.acl]]
user = "anna"
[[source.listener.acl]]
user = ""
publish = ["plant/#/temp", "$SYS/#", "plant/{line}"]
subscribe = "$share/g/x"
allow = true
"##
    ));
}

#[test]
fn two_ids_of_a_message() {
    assert_snapshot!(wrong("listen = \"127.0.0.1:1883\"\nmessage_id_property = \"\"\nmessage_id_pointer = \"id\"\n"));
}

#[test]
fn limits_out_of_bounds() {
    assert_snapshot!(wrong(
        r#"listen = "127.0.0.1:1883"
[source.listener.limits]
connections = 0
connect_timeout = "1h"
connect_bytes = "1KiB"
packet_size_max = "512B"
receive_maximum = 70000
queued_bytes = 5
topic_levels = 1000
byte_rate = "1MiB"
"#
    ));
}

#[test]
fn what_does_not_fit_the_memory() {
    assert_snapshot!(wrong(
        "listen = \"127.0.0.1:1883\"\nunacked_bytes_max = \"16MiB\"\nfan_out_bytes_max = \"4MiB\"\n[source.listener.limits]\nconnect_bytes = \"512KiB\"\n"
    ));
    assert_snapshot!(wrong("listen = \"127.0.0.1:1883\"\n[source.listener.limits]\nretained_bytes = \"2MiB\"\n"));
}

#[test]
fn the_window_of_message_ids_comes_out_of_the_memory() {
    let ids = "listen = \"127.0.0.1:1883\"\nmessage_id_property = \"id\"\n";
    let memory = config(&format!("[[source.listener]]\n{ids}")).memory;
    let taken = memory.intake + memory.window + memory.producer * 21 / 10 + memory.fan_out + memory.message_ids;
    assert!(memory.message_ids > 6 * MIB && taken <= 30 * MIB, "{memory:?}");
    let wide = format!("{ids}[spool]\nmessage_id_window = 5000000\n");
    assert!(wrong(&wide).contains("lower [spool] message_id_window"));
}

#[test]
fn twins() {
    assert_snapshot!(wrong(
        "name = \"mqtt\"\nlisten = \"127.0.0.1:1883\"\n[[source.listener]]\nname = \"mqtt\"\nlisten_ws = \"127.0.0.1:1883\"\n[[source.mqtt]]\nhost = \"localhost\"\n"
    ));
}

#[test]
fn what_is_legal_but_unwise() {
    assert_snapshot!(warned(
        "listen = \"0.0.0.0:1883\"\ninsecure = true\n[source.listener.limits]\nconnections = 100000\n"
    ));
    assert_snapshot!(warned(&format!(
        "listen = \"0.0.0.0:1883\"\npassword_file = \"users\"\ninsecure = true\n{TLS}identity = \"cn\"\n{RULE}\
         certificate = \"x\"\n[source.listener.limits]\nqueued_bytes = \"64KiB\"\n"
    )));
    assert_snapshot!(warned(&format!(
        "listen = \"127.0.0.1:1883\"\n{RULE}user = \"anna\"\n[source.listener.limits]\nreceive_maximum = 1\n[spool]\nack_delay = \"50ms\"\n[memory]\nfan_out = \"2MiB\"\n"
    )));
}
