//! Names and payloads that a careless or hostile device sends, through a real broker. Each goes where it belongs: to
//! Kafka byte for byte, or to the dead letters with its cause.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::gateway::Builder;
use crate::harness::jobs;
use crate::harness::kafka::Consumed;
use crate::harness::readings::Reading;
use crate::harness::rig::Rig;

/// Where a reading has to go.
enum Goes {
    /// Under this key.
    ToKafka(&'static str),
    /// With these words in the cause.
    ToDeadLetters(&'static str),
}
use Goes::{ToDeadLetters, ToKafka};

const BY_FIELD: &str = "name = \"by-field\"\nfilter = \"field/#\"\nlane = \"telemetry\"\n\
    kafka_topic = \"PREFIX.readings\"\nkey = \"{/device}\"\n";
const BY_LEVEL: &str = "name = \"by-level\"\nfilter = \"level/{k}/x\"\nlane = \"telemetry\"\n\
    kafka_topic = \"PREFIX.readings\"\nkey = \"{k}\"\n";
const BY_NAME: &str = "name = \"by-name\"\nfilter = \"name/{kafka}\"\nlane = \"telemetry\"\n\
    kafka_topic = \"{kafka}\"\nkey = \"k\"\n";

const FROM_FIELD: [(&str, &[u8], Goes); 14] = [
    ("field/ok", b"{\"device\":\"d1\"}", ToKafka("d1")),
    ("field/template", b"{\"device\":\"{{x}} ${jndi:ldap://x} %s\"}", ToKafka("{{x}} ${jndi:ldap://x} %s")),
    ("field/number", b"{\"device\":1e400}", ToKafka("1e400")),
    ("field/empty", b"", ToDeadLetters("key")),
    ("field/byte", b"{", ToDeadLetters("key")),
    ("field/broken", b"{\"device\":\"d1\",", ToDeadLetters("key")),
    ("field/trailing", b"{\"device\":\"d1\"} and more", ToDeadLetters("key")),
    ("field/utf16", b"\xff\xfe{\x00\"\x00d\x00\"\x00:\x001\x00}\x00", ToDeadLetters("key")),
    ("field/latin1", b"{\"device\":\"caf\xe9\"}", ToDeadLetters("key")),
    ("field/nul", b"{\"device\":null}", ToDeadLetters("key")),
    ("field/missing", b"{\"machine\":\"d1\"}", ToDeadLetters("key")),
    ("field/object", b"{\"device\":{\"id\":1}}", ToDeadLetters("key")),
    ("field/no-object", b"[1,2,3]", ToDeadLetters("key")),
    ("field/empty-key", b"{\"device\":\"\"}", ToDeadLetters("key: it is empty")),
];

const BY_TOPIC: [(&str, &[u8]); 18] = [
    ("plant/empty", b""),
    ("plant/byte", b"\x00"),
    ("plant/utf16", b"\xff\xfet\x00e\x00m\x00p\x00"),
    ("plant/binary", b"\x1f\x8b\x08\x00\xff\xfe\x00\x01"),
    ("plant/broken-json", b"{\"a\":"),
    ("plant/gr\u{f6}\u{df}e/\u{6e29}\u{5ea6}/\u{1f321}", b"1"),
    ("plant/cafe\u{301}", b"combining"),
    ("plant/\u{202e}evil", b"right to left"),
    ("plant/a b/ c ", b"spaces"),
    ("plant/", b"an empty level"),
    ("plant///", b"more of them"),
    ("plant", b"the parent, which plant/# takes too"),
    ("plant/{{x}}", b"braces"),
    ("plant/{mqtt.topic}", b"a template"),
    ("plant/${jndi:ldap://127.0.0.1/a}", b"jndi"),
    ("plant/%s%n%x", b"format"),
    ("plant/../../etc/passwd", b"path"),
    ("plant/d1:x|y;z", b"separators of composite keys"),
];

const UNSAFE_NAMES: [(&str, &str); 6] = [
    ("name/.", "Kafka topic"),
    ("name/..", "Kafka topic"),
    ("name/", "Kafka topic"),
    ("name/not allowed", "Kafka topic"),
    ("name/\u{e9}", "Kafka topic"),
    ("/leading/slash", "no route"),
];

/// Every case: MQTT topic, payload, where it goes.
fn cases() -> Vec<(String, Vec<u8>, Goes)> {
    let mut cases: Vec<_> =
        FROM_FIELD.into_iter().map(|(topic, payload, goes)| (topic.to_owned(), payload.to_vec(), goes)).collect();
    cases.extend(BY_TOPIC.map(|(topic, payload)| (topic.to_owned(), payload.to_vec(), ToKafka(topic))));
    cases.extend(UNSAFE_NAMES.map(|(topic, words)| (topic.to_owned(), b"1".to_vec(), ToDeadLetters(words))));
    cases.push(("level//x".to_owned(), b"1".to_vec(), ToDeadLetters("key: it is empty")));
    cases.push(("level/{k}/x".to_owned(), b"1".to_vec(), ToKafka("{k}")));
    cases.push((format!("name/{}", "n".repeat(250)), b"1".to_vec(), ToDeadLetters("Kafka topic")));
    // Mosquitto takes 200 slashes and no more.
    let deep: &'static str = format!("plant{}", "/a".repeat(200)).leak();
    cases.push((deep.to_owned(), b"deep".to_vec(), ToKafka(deep)));
    let long: &'static str = format!("plant/{}", "t".repeat(60_000)).leak();
    cases.push((long.to_owned(), b"long".to_vec(), ToKafka(long)));
    cases
}

fn rig() -> Rig {
    let routes = |gateway: Builder, prefix: &str| {
        let routes = [BY_FIELD, BY_LEVEL, BY_NAME].map(|route| route.replace("PREFIX", prefix));
        let gateway = routes.iter().fold(gateway, |gateway, route| gateway.route_table(route));
        gateway.table("[topic_policy]", &format!("allow = [\"{prefix}.*\"]"))
    };
    Rig::builder().subscription("#").before(routes).start()
}

/// Key and payload, counted.
type Counted = BTreeMap<(Vec<u8>, Vec<u8>), usize>;

fn counted(records: &[Consumed]) -> Counted {
    let mut counted = Counted::new();
    for record in records {
        *counted.entry((record.key.clone().unwrap_or_default(), record.payload.clone())).or_default() += 1;
    }
    counted
}

/// The dead letter of an MQTT topic.
fn letter<'a>(letters: &'a [Value], topic: &str) -> &'a Value {
    let mut of_topic = letters.iter().filter(|letter| letter["key"] == topic);
    let found = of_topic.next().unwrap_or_else(|| panic!("no dead letter of {topic:?} among {letters:#?}"));
    assert!(of_topic.next().is_none(), "two dead letters of {topic:?}");
    found
}

#[test]
fn every_bad_name_and_payload_goes_where_it_belongs() {
    const EQUAL: usize = 1_000;
    let mut rig = rig();
    let cases = cases();
    let mut readings: Vec<Reading> = cases
        .iter()
        .enumerate()
        .map(|(n, (topic, payload, _))| Reading { topic: topic.clone(), payload: payload.clone(), id: n.to_string() })
        .collect();
    let same = || Reading { topic: "plant/equal".to_owned(), payload: b"42".to_vec(), id: "equal".to_owned() };
    readings.extend((0..EQUAL).map(|_| same()));
    let sent = readings.len();
    rig.load(2_000, readings).finish();
    rig.tap.wait_accepted(sent);
    let wanted = cases.iter().filter_map(|(_, payload, goes)| match goes {
        ToKafka(key) => Some((key.as_bytes().to_vec(), payload.clone())),
        ToDeadLetters(_) => None,
    });
    let mut expected = Counted::from([((b"plant/equal".to_vec(), b"42".to_vec()), EQUAL)]);
    wanted.for_each(|record| *expected.entry(record).or_default() += 1);
    let total: usize = expected.values().sum();
    let mut arrived = 0;
    let records = rig.kafka.consume_until(&[&rig.topic("readings")], |_| {
        arrived += 1;
        arrived == total
    });
    assert_eq!(counted(&records), expected);
    let letters = rig.gateway.command(&["dlq", "list", "--json"]).lines();
    assert_eq!(letters.len(), sent - total);
    for (topic, payload, goes) in &cases {
        let ToDeadLetters(words) = goes else { continue };
        let letter = letter(&letters, topic);
        let cause = letter["cause"].as_str().unwrap();
        assert!(cause.contains(words), "{topic}: {cause}");
        let whole = rig.gateway.command(&["dlq", "show", &letter["id"].to_string()]).document();
        let text = whole["payload"]["text"].as_str().map(str::as_bytes);
        assert!(text.is_none_or(|text| text == payload), "{whole}");
    }
    assert_eq!(rig.tap.wait_accepted(sent).accepted.len(), sent, "each is acknowledged once");
    let dead = rig.topic("dead");
    let copies = jobs::wait_until("the dead letters' copies are in Kafka", || {
        Some(rig.kafka.consume_all(&dead)).filter(|copies| copies.len() >= letters.len())
    });
    assert_eq!(copies.len(), letters.len());
    rig.gateway.stop();
    let log = rig.gateway.log();
    assert!(!log.contains("panicked"), "{log}");
    // A value out of a payload never gets into the log, whatever it says.
    assert!(!log.contains("jndi"), "{log}");
}
