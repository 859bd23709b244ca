//! Sessions, QoS 2 messages and retained messages as they lie in the spool. Pure.

use std::time::Duration;

use bytes::Bytes;

use super::message::Message;
use super::packet::{Forwarded, Version};
use super::router::Options;
use crate::record::{Damaged, Properties, put_varint, take_varint};

/// First byte of every value: another form gets another number.
const FORM: u8 = 1;

/// `source NUL name`: the key of a session or of a retained message.
pub(super) fn key(source: &str, name: &str) -> Vec<u8> {
    [source.as_bytes(), &[0], name.as_bytes()].concat()
}

/// The beginning of the keys of all QoS 2 messages of a client.
pub(super) fn qos2_prefix(source: &str, client: &str) -> Vec<u8> {
    [source.as_bytes(), &[0], client.as_bytes(), &[0]].concat()
}

pub(super) fn qos2_key(source: &str, client: &str, packet_id: u16) -> Vec<u8> {
    let mut key = qos2_prefix(source, client);
    key.extend_from_slice(&packet_id.to_be_bytes());
    key
}

/// The name in a key of this source: client or topic.
pub(super) fn name_in<'a>(key: &'a [u8], source: &str) -> Option<&'a str> {
    let name = key.strip_prefix(source.as_bytes())?.strip_prefix(&[0])?;
    std::str::from_utf8(name).ok()
}

/// Client and packet id in a QoS 2 key of this source.
pub(super) fn qos2_in<'a>(key: &'a [u8], source: &str) -> Option<(&'a str, u16)> {
    let (rest, packet_id) = key.split_last_chunk::<2>()?;
    let client = rest.strip_suffix(&[0])?;
    Some((name_in(client, source)?, u16::from_be_bytes(*packet_id)))
}

/// A session's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SessionRow {
    pub(super) version: Version,
    /// `None`: for ever.
    pub(super) expiry: Option<Duration>,
    pub(super) subscriptions: Vec<(Box<str>, Options)>,
}

impl SessionRow {
    pub(super) fn encode(
        version: Version,
        expiry: Option<Duration>,
        subscriptions: &std::collections::BTreeMap<Box<str>, Options>,
    ) -> Vec<u8> {
        let mut out = vec![FORM, u8::from(version.is_v5())];
        put_varint(&mut out, expiry.map_or(u64::MAX, |expiry| expiry.as_secs()));
        put_varint(&mut out, subscriptions.len() as u64);
        for (filter, options) in subscriptions {
            put(&mut out, filter.as_bytes());
            let flags = options.qos | u8::from(options.no_local) << 2 | u8::from(options.retain_as_published) << 3;
            out.push(flags);
            put_varint(&mut out, u64::from(options.id));
        }
        out
    }

    /// # Errors
    /// [`Damaged`] when it is not what `encode` wrote.
    pub(super) fn decode(mut input: &[u8]) -> Result<Self, Damaged> {
        let input = &mut input;
        form(input)?;
        let version = if byte(input)? == 1 { Version::V5 } else { Version::V311 };
        let expiry = Some(take_varint(input)?).filter(|&seconds| seconds != u64::MAX).map(Duration::from_secs);
        let count = take_varint(input)?;
        let mut subscriptions = Vec::new();
        for _ in 0..count {
            let filter: Box<str> = text(input)?.into();
            let flags = byte(input)?;
            let id = u32::try_from(take_varint(input)?).map_err(|_| Damaged)?;
            let options =
                Options { qos: (flags & 3).min(2), no_local: flags & 4 != 0, retain_as_published: flags & 8 != 0, id };
            subscriptions.push((filter, options));
        }
        Ok(SessionRow { version, expiry, subscriptions })
    }
}

const HAS_TYPE: u8 = 1 << 3;
const HAS_RESPONSE: u8 = 1 << 4;
const HAS_CORRELATION: u8 = 1 << 5;
const HAS_EXPIRY: u8 = 1 << 6;
const IS_TEXT: u8 = 1 << 2;

/// A retained message without its topic, which is the key. Its expiry is kept as what is left of it now: there may be no
/// clock that would know a date.
pub(super) fn encode_retained(message: &Message, now: Duration) -> Vec<u8> {
    let properties = &message.forwarded.properties;
    let flag = |is: bool, bit: u8| if is { bit } else { 0 };
    let flags = message.qos
        | flag(message.forwarded.is_text, IS_TEXT)
        | flag(properties.content_type.is_some(), HAS_TYPE)
        | flag(properties.response_topic.is_some(), HAS_RESPONSE)
        | flag(properties.correlation_data.is_some(), HAS_CORRELATION)
        | flag(message.expires_at.is_some(), HAS_EXPIRY);
    let mut out = vec![FORM, flags];
    if let Some(seconds) = message.left_s(now) {
        put_varint(&mut out, u64::from(seconds));
    }
    let fields = [
        properties.content_type.as_deref().map(str::as_bytes),
        properties.response_topic.as_deref().map(str::as_bytes),
        properties.correlation_data.as_deref(),
    ];
    for field in fields.into_iter().flatten() {
        put(&mut out, field);
    }
    put_varint(&mut out, properties.user.len() as u64);
    for (name, value) in &properties.user {
        put(&mut out, name.as_bytes());
        put(&mut out, value.as_bytes());
    }
    out.extend_from_slice(&message.payload);
    out
}

/// # Errors
/// [`Damaged`] when it is not what `encode_retained` wrote.
pub(super) fn decode_retained(topic: &str, mut input: &[u8]) -> Result<Message, Damaged> {
    let input = &mut input;
    form(input)?;
    let flags = byte(input)?;
    let expires_at = if flags & HAS_EXPIRY != 0 { Some(Duration::from_secs(take_varint(input)?)) } else { None };
    let mut properties = Properties::default();
    if flags & HAS_TYPE != 0 {
        properties.content_type = Some(text(input)?.to_owned());
    }
    if flags & HAS_RESPONSE != 0 {
        properties.response_topic = Some(text(input)?.to_owned());
    }
    if flags & HAS_CORRELATION != 0 {
        properties.correlation_data = Some(Bytes::copy_from_slice(bytes(input)?));
    }
    properties.message_expiry_s = expires_at.map(|left| u32::try_from(left.as_secs()).unwrap_or(u32::MAX));
    for _ in 0..take_varint(input)? {
        properties.user.push((text(input)?.to_owned(), text(input)?.to_owned()));
    }
    Ok(Message {
        topic: topic.into(),
        payload: Bytes::copy_from_slice(input),
        qos: (flags & 3).min(2),
        retain: true,
        forwarded: Forwarded { is_text: flags & IS_TEXT != 0, properties },
        expires_at,
        publisher: 0,
    })
}

fn form(input: &mut &[u8]) -> Result<(), Damaged> {
    if byte(input)? == FORM { Ok(()) } else { Err(Damaged) }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn byte(input: &mut &[u8]) -> Result<u8, Damaged> {
    let (&byte, rest) = input.split_first().ok_or(Damaged)?;
    *input = rest;
    Ok(byte)
}

fn bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Damaged> {
    let length = usize::try_from(take_varint(input)?).map_err(|_| Damaged)?;
    let (bytes, rest) = input.split_at_checked(length).ok_or(Damaged)?;
    *input = rest;
    Ok(bytes)
}

fn text<'a>(input: &mut &'a [u8]) -> Result<&'a str, Damaged> {
    std::str::from_utf8(bytes(input)?).map_err(|_| Damaged)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_name_their_owner() {
        assert_eq!(name_in(&key("plant", "dev/1"), "plant"), Some("dev/1"));
        assert_eq!(name_in(&key("plant2", "dev"), "plant"), None);
        assert_eq!(qos2_in(&qos2_key("plant", "dev", 0x0100), "plant"), Some(("dev", 0x0100)));
        assert!(qos2_key("plant", "dev", 7).starts_with(&qos2_prefix("plant", "dev")));
        assert!(!qos2_key("plant", "dev2", 7).starts_with(&qos2_prefix("plant", "dev")));
    }

    #[test]
    fn a_session_comes_back_as_it_was() {
        let options = Options { qos: 2, no_local: true, retain_as_published: true, id: 268_435_455 };
        let subscriptions = [("a/#".into(), options), ("$share/g/b".into(), Options::default())].into();
        for (version, expiry) in [(Version::V5, None), (Version::V311, Some(Duration::from_secs(604_800)))] {
            let row = SessionRow::decode(&SessionRow::encode(version, expiry, &subscriptions)).unwrap();
            assert_eq!((row.version, row.expiry), (version, expiry));
            assert_eq!(row.subscriptions.into_iter().collect::<std::collections::BTreeMap<_, _>>(), subscriptions);
        }
    }

    #[test]
    fn a_retained_message_comes_back_with_what_is_left_of_its_time() {
        let properties = Properties {
            content_type: Some("text/plain".to_owned()),
            response_topic: Some("r".to_owned()),
            correlation_data: Some(Bytes::from_static(b"\0\xff")),
            message_expiry_s: Some(60),
            user: vec![("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())],
        };
        let message = Message {
            topic: "t".into(),
            payload: Bytes::from_static(b"21.5"),
            qos: 1,
            retain: true,
            forwarded: Forwarded { is_text: true, properties },
            expires_at: Some(Duration::from_secs(100)),
            publisher: 3,
        };
        let back = decode_retained("t", &encode_retained(&message, Duration::from_secs(90))).unwrap();
        assert_eq!(back.expires_at, Some(Duration::from_secs(10)));
        assert_eq!(back.forwarded.properties.message_expiry_s, Some(10));
        assert_eq!((&back.payload, back.qos, back.forwarded.is_text), (&message.payload, 1, true));
        assert_eq!(back.forwarded.properties.user, message.forwarded.properties.user);
        assert_eq!(back.forwarded.properties.correlation_data, message.forwarded.properties.correlation_data);
    }

    proptest! {
        #[test]
        fn nothing_found_in_the_file_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = SessionRow::decode(&bytes);
            let _ = decode_retained("t", &bytes);
            let _ = qos2_in(&bytes, "s");
        }
    }
}
