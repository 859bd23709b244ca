//! When two messages are the same: hashes of messages. Pure.
//!
//! SHA-256, cut to what is stored. It needs no key that would have to survive with the rows, and nobody can make two
//! messages with one hash: not even a device that would like its own reading to look like a repeat. Only QoS 2 messages
//! and those with a message id pay for it.

use ring::digest::{Context, SHA256};

use super::packet::Publish;
use crate::config::MessageIdFrom;
use crate::intake::MessageId;

/// Longest message id that is taken; a longer one is none.
const ID_BYTES_MAX: usize = 256;

/// The hash that is kept for a QoS 2 message: of topic and payload.
pub(super) fn hash(topic: &str, payload: &[u8]) -> [u8; 16] {
    digest(&[topic.as_bytes(), payload])
}

/// Each part with its length, so that what belongs to which part cannot be mistaken.
fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut first = [0; 16];
    first.copy_from_slice(&context.finish().as_ref()[..16]);
    first
}

/// The device's own id of a message, if it has one.
pub(super) fn message_id(from: &MessageIdFrom, source: &str, client: &str, publish: &Publish<'_>) -> Option<MessageId> {
    let id = match from {
        MessageIdFrom::Property(name) => {
            let user = &publish.forwarded.properties.user;
            user.iter().find(|(known, _)| known == name).map(|(_, id)| id.clone())?
        }
        MessageIdFrom::Pointer(pointer) => id_in(publish.payload, pointer)?,
    };
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return None;
    }
    let parts = [source.as_bytes(), client.as_bytes(), publish.topic.as_bytes(), id.as_bytes()];
    let [a, b, c, d, e, f, g, h, ..] = digest(&[publish.payload]);
    Some(MessageId { id: u128::from_be_bytes(digest(&parts)), payload: u64::from_be_bytes([a, b, c, d, e, f, g, h]) })
}

/// A text or a whole number; anything else is no id.
fn id_in(payload: &[u8], pointer: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(payload).ok()?;
    match value.pointer(pointer)? {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::intake::listener::packet::Forwarded;

    fn publish<'a>(topic: &'a str, payload: &'a [u8], user: &[(&str, &str)]) -> Publish<'a> {
        let mut forwarded = Forwarded::default();
        forwarded.properties.user = user.iter().map(|&(name, id)| (name.to_owned(), id.to_owned())).collect();
        Publish { topic, payload, packet_id: 1, qos: 1, retain: false, dup: false, alias: None, forwarded }
    }

    #[test]
    fn lengths_are_part_of_the_hash() {
        assert_ne!(hash("ab", b"c"), hash("a", b"bc"));
        assert_ne!(hash("a", b""), hash("", b"a"));
        assert_eq!(hash("a", b"b"), hash("a", b"b"));
    }

    #[test]
    fn an_id_is_found_in_a_property_or_in_the_payload() {
        let property = MessageIdFrom::Property("id".to_owned());
        let of = |client: &str, publish: &Publish<'_>, from: &MessageIdFrom| message_id(from, "s", client, publish);
        let first = of("c", &publish("t", b"1", &[("x", "0"), ("id", "7")]), &property).unwrap();
        assert_eq!(Some(first), of("c", &publish("t", b"1", &[("id", "7")]), &property));
        let other_payload = of("c", &publish("t", b"2", &[("id", "7")]), &property).unwrap();
        assert_eq!(other_payload.id, first.id);
        assert_ne!(other_payload.payload, first.payload);
        assert_ne!(of("d", &publish("t", b"1", &[("id", "7")]), &property).unwrap().id, first.id);
        assert_eq!(of("c", &publish("t", b"1", &[]), &property), None);

        let pointer = MessageIdFrom::Pointer("/meta/id".to_owned());
        let number = of("c", &publish("t", br#"{"meta":{"id":7}}"#, &[]), &pointer).unwrap();
        let text = of("c", &publish("t", br#"{"meta":{"id":"7"}}"#, &[]), &pointer).unwrap();
        assert_eq!(number.id, text.id);
        for payload in [&br#"{"meta":{"id":7.5}}"#[..], br#"{"meta":{}}"#, b"not json", b""] {
            assert_eq!(of("c", &publish("t", payload, &[]), &pointer), None);
        }
    }
}
