//! Entry points for fuzzing: whatever comes over a line, out of a file or from a person's keyboard. Each takes any bytes
//! and panics when a rule is broken. Not part of the interface; `fuzz/` drives them with coverage, the tests beside this
//! file with a bounded number of seeded mutations, so that they cannot rot.

#![doc(hidden)]

mod serial;
#[cfg(test)]
mod tests;

use std::path::Path;

use crate::config::{self, Collisions, MqttVersion, Surroundings, TopicPolicy};
use crate::intake::listener::fuzz as listener;
use crate::intake::listener::packet::Version;
use crate::intake::modbus::answer::{Answers, Expected, Found, Framing, crc};
use crate::intake::mqtt::decode_all;
use crate::intake::{Route, Routed};
use crate::record::{Arrival, Properties, Reading};
use crate::route::Router;
use crate::route::filter::Filter;
use crate::route::json::{Pointer, Scalar};
use crate::route::kafka_name;
use crate::route::spec::{OnError, RouteSpec, UnmatchedSpec};
use crate::spool::chunk;
pub use serial::{serial_decoders, serial_frames};

/// A fuzz target: the name of its file in `fuzz/fuzz_targets`, and what it calls.
pub type Entry = (&'static str, fn(&[u8]));

pub const ENTRIES: [Entry; 13] = [
    ("mqtt_v4", mqtt_v4),
    ("mqtt_v5", mqtt_v5),
    ("listener_v4", listener_v4),
    ("listener_v5", listener_v5),
    ("listener_connections", listener_connections),
    ("configuration", configuration),
    ("chunks", chunks),
    ("filters", filters),
    ("routes", routes),
    ("json_pointer", json_pointer),
    ("serial_frames", serial_frames),
    ("serial_decoders", serial_decoders),
    ("modbus", modbus),
];

/// What an MQTT 3.1.1 broker may send, cut and decoded as a connection does.
pub fn mqtt_v4(data: &[u8]) {
    decode_all(MqttVersion::V311, data);
}

/// The same for MQTT 5.
pub fn mqtt_v5(data: &[u8]) {
    decode_all(MqttVersion::V5, data);
}

/// What an MQTT 3.1.1 device may send to the listener.
pub fn listener_v4(data: &[u8]) {
    listener::packets(Version::V311, data);
}

/// The same for MQTT 5.
pub fn listener_v5(data: &[u8]) {
    listener::packets(Version::V5, data);
}

/// A script of connections to one listener: bytes, commits, broken lines, time.
pub fn listener_connections(data: &[u8]) {
    let _ = listener::connections(data);
}

/// A configuration: resolved, or refused with a report that stays readable.
pub fn configuration(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match config::parse_str_in("gateway.toml", &text, &Nowhere) {
        Ok(loaded) => assert!(!loaded.config.lanes.is_empty(), "two lanes always exist"),
        Err(problems) => assert!(problems.to_string().len() < 1 << 20, "a report that nobody reads"),
    }
}

/// What comes over a Modbus line, in pieces, as the answer to a request.
pub fn modbus(data: &[u8]) {
    let expected = Expected { unit: 1, function: 3, bytes: 4, number: 7 };
    for framing in [Framing::Rtu, Framing::Tcp] {
        let mut answers = Answers::new(framing);
        for piece in data.chunks(7) {
            match answers.take(piece, &expected) {
                Found::Answer(frame) => {
                    assert!(framing == Framing::Tcp || crc().strip(&frame).is_some(), "a frame with a wrong CRC");
                }
                Found::Garbage(_) => break,
                Found::Nothing | Found::Misfit(_) => {}
            }
        }
        assert!(answers.noise() <= data.len(), "more was passed over than came");
    }
}

/// A chunk of the spool, also with the right checksum put on, so that what lies behind it is reached.
pub fn chunks(data: &[u8]) {
    let _ = chunk::decode(data);
    let sealed = sealed(data);
    // What a header may ask for is bounded at 272 MiB: too much to ask for with every input.
    let modest = chunk::header(&sealed).is_ok_and(|head| head.raw_len < 1 << 20);
    let Some((head, records)) = modest.then(|| chunk::decode(&sealed).ok()).flatten() else { return };
    assert_eq!(records.len(), head.n as usize);
    assert!(records.is_sorted_by_key(|(sequence, _)| *sequence), "sequences ascend");
    for (_, body) in &records {
        if let Ok(view) = body.view() {
            assert_eq!(body.topic(), Ok(view.topic), "the short way finds the same");
            assert_eq!(body.arrived_ms(), Ok(view.arrival.wall_ms));
        }
    }
}

/// With the magic number, the length and the checksum that belong to it.
fn sealed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    let Some(stored) = data.get(chunk::HEADER_LEN..) else { return bytes };
    let (length, crc) = (chunk::HEADER_LEN - 8, chunk::HEADER_LEN - 4);
    bytes[..4].copy_from_slice(chunk::MAGIC);
    bytes[length..crc].copy_from_slice(&(stored.len() as u32).to_le_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..crc]), stored);
    bytes[crc..chunk::HEADER_LEN].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// A filter and a topic, one a line: captures change nothing about what matches.
pub fn filters(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.lines();
    let (filter, topic) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let Ok(named) = Filter::parse(filter) else { return };
    let plain = Filter::parse(&named.mqtt_filter()).expect("what a broker is asked for is a filter");
    let matched = named.matches(topic);
    assert_eq!(matched.is_some(), plain.matches(topic).is_some(), "{filter:?} and {topic:?}");
    if let Some(captures) = matched {
        let all = (0..named.captures().len()).filter_map(|slot| captures.get(slot));
        all.for_each(|text| assert!(topic.contains(text), "{filter:?} and {topic:?}"));
    }
}

/// Filter, template of the Kafka topic, template of the key and MQTT topic, one a line, then the payload: every reading
/// ends somewhere, under a legal name, its payload untouched.
pub fn routes(data: &[u8]) {
    let mut parts = data.splitn(5, |byte| *byte == b'\n');
    let mut next = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (filter, kafka_topic, key, topic) = (next(), next(), next(), next());
    let payload = parts.next().unwrap_or_default();
    let spec = RouteSpec {
        name: "fuzz".to_owned(),
        sources: Vec::new(),
        filter,
        lane: 0,
        kafka_topic,
        key,
        headers: Vec::new(),
        timestamp: None,
        on_error: OnError::DeadLetter,
    };
    let policy = TopicPolicy { allow: Vec::new(), max_topics: 100, collisions: Collisions::DeadLetter };
    let Ok(router) = Router::new(&[spec], &UnmatchedSpec::DeadLetter { lane: 0 }, &policy) else { return };
    let properties = Properties::default();
    let arrival = Arrival { wall_ms: 1_700_000_000_000, boot_ms: 1 };
    let (source, topic) = ("fuzz", topic.as_str());
    let reading =
        Reading { source, topic, payload, qos: 1, retain: false, dup: false, properties: &properties, arrival };
    let Routed::Deliver { body, .. } = router.route(&reading, &mut Vec::new()) else {
        panic!("nothing asked for a drop");
    };
    let record = body.view().expect("what route encodes decodes");
    assert_eq!(kafka_name::check(record.topic), Ok(()), "{:?}", record.topic);
    assert_eq!(record.payload, payload);
}

/// A JSON pointer on the first line, a document behind it: what is found is what the document model finds.
pub fn json_pointer(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (pointer, payload) = (String::from_utf8_lossy(&data[..at]), data.get(at + 1..).unwrap_or_default());
    let Ok(parsed) = Pointer::parse(&pointer) else { return };
    let found = parsed.scalar(payload);
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(payload) else { return };
    let expected =
        document.pointer(&pointer).filter(|value| !(value.is_null() || value.is_array() || value.is_object()));
    match (found, expected) {
        (Ok(found), Some(expected)) => agree(&found, expected),
        (found, expected) => assert!(found.is_err() && expected.is_none(), "{found:?} and {expected:?}"),
    }
}

fn agree(found: &Scalar<'_>, expected: &serde_json::Value) {
    match expected {
        serde_json::Value::String(text) => assert_eq!(found.as_str(), text),
        serde_json::Value::Bool(truth) => assert_eq!(found.as_str(), truth.to_string()),
        // A number keeps its spelling with us and not in the model.
        number => assert!(found.as_str().parse::<f64>().is_ok(), "{found:?} and {number}"),
    }
}

/// A machine without variables and files.
struct Nowhere;

impl Surroundings for Nowhere {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn secret_file(&self, _: &Path) -> Result<String, String> {
        Err("does not exist".to_owned())
    }

    fn text_file(&self, _: &Path) -> Result<String, String> {
        Err("does not exist".to_owned())
    }

    fn readable(&self, _: &Path) -> Result<(), String> {
        Err("does not exist".to_owned())
    }

    fn gateway_name(&self) -> String {
        "fb-fuzz".to_owned()
    }

    fn kafka_property(&self, _: &str, _: &str) -> Result<(), String> {
        Ok(())
    }
}
