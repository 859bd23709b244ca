//! v5 properties (2.2.2).

use bytes::{BufMut, Bytes, BytesMut};

use super::Refused;
use super::read::{Reader, is_topic};
use crate::record::Properties;

/// Property identifiers.
pub(super) mod id {
    pub(crate) const PAYLOAD_FORMAT: u8 = 1;
    pub(crate) const MESSAGE_EXPIRY: u8 = 2;
    pub(crate) const CONTENT_TYPE: u8 = 3;
    pub(crate) const RESPONSE_TOPIC: u8 = 8;
    pub(crate) const CORRELATION_DATA: u8 = 9;
    pub(crate) const SUBSCRIPTION_ID: u8 = 11;
    pub(crate) const SESSION_EXPIRY: u8 = 17;
    pub(crate) const ASSIGNED_CLIENT_ID: u8 = 18;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 19;
    pub(crate) const AUTH_METHOD: u8 = 21;
    pub(crate) const AUTH_DATA: u8 = 22;
    pub(crate) const REQUEST_PROBLEM: u8 = 23;
    pub(crate) const WILL_DELAY: u8 = 24;
    pub(crate) const REQUEST_RESPONSE: u8 = 25;
    pub(crate) const REASON: u8 = 31;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 33;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 34;
    pub(crate) const TOPIC_ALIAS: u8 = 35;
    pub(crate) const RETAIN_AVAILABLE: u8 = 37;
    pub(crate) const USER: u8 = 38;
    pub(crate) const PACKET_SIZE_MAXIMUM: u8 = 39;
    pub(crate) const WILDCARD_AVAILABLE: u8 = 40;
    pub(crate) const SUBSCRIPTION_ID_AVAILABLE: u8 = 41;
    pub(crate) const SHARED_AVAILABLE: u8 = 42;
}

/// The value of a property, by its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Byte(u8),
    U16(u16),
    U32(u32),
    Varint(u32),
    Text(&'a str),
    Binary(&'a [u8]),
    Pair(&'a str, &'a str),
}

/// The properties that a packet may have, as a set of bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed(u64);

impl Allowed {
    pub(super) const fn of(ids: &[u8]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < ids.len() {
            bits |= 1 << ids[at];
            at += 1;
        }
        Allowed(bits)
    }

    fn has(self, id: u8) -> bool {
        id < 64 && self.0 & (1 << id) != 0
    }
}

/// Acks, and what else has nothing but a reason and user properties.
pub(super) const REASONED: Allowed = Allowed::of(&[id::REASON, id::USER]);

/// Reads the properties of a packet and gives each to `on`.
///
/// # Errors
/// One that is not allowed here, one that stands twice (user properties may), one that ends behind the whole.
pub(super) fn read<'a>(
    from: &mut Reader<'a>,
    allowed: Allowed,
    mut on: impl FnMut(u8, Value<'a>) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let length = from.varint()?;
    let mut inner = Reader::new(from.take(length as usize)?);
    let mut seen = 0u64;
    while !inner.is_empty() {
        // A variable byte integer, but all that there are fit one byte.
        let id = inner.u8()?;
        if !allowed.has(id) {
            return Err(Refused::malformed("a property that this packet does not have"));
        }
        if id != id::USER && seen & (1 << id) != 0 {
            return Err(Refused::protocol("a property twice"));
        }
        seen |= 1 << id;
        on(id, value(&mut inner, id)?)?;
    }
    Ok(())
}

fn value<'a>(from: &mut Reader<'a>, id: u8) -> Result<Value<'a>, Refused> {
    Ok(match id {
        id::PAYLOAD_FORMAT | id::REQUEST_PROBLEM | id::REQUEST_RESPONSE => match from.u8()? {
            flag @ 0..=1 => Value::Byte(flag),
            _ => return Err(Refused::protocol("a flag that is neither 0 nor 1")),
        },
        id::MESSAGE_EXPIRY | id::SESSION_EXPIRY | id::WILL_DELAY | id::PACKET_SIZE_MAXIMUM => Value::U32(from.u32()?),
        id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => Value::U16(from.u16()?),
        id::SUBSCRIPTION_ID => Value::Varint(from.varint()?),
        id::CORRELATION_DATA | id::AUTH_DATA => Value::Binary(from.binary()?),
        id::USER => Value::Pair(from.text()?, from.text()?),
        _ => Value::Text(from.text()?),
    })
}

/// What a PUBLISH carries through the server: to Kafka's headers and to subscribers unaltered [MQTT-3.3.2-17].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// The payload is said to be UTF-8, and is.
    pub is_text: bool,
    pub properties: Properties,
}

impl Forwarded {
    /// Takes one property of a PUBLISH or of a will; `false`: it is none of these.
    pub(super) fn take(&mut self, id: u8, value: Value<'_>) -> Result<bool, Refused> {
        let properties = &mut self.properties;
        match (id, value) {
            (id::PAYLOAD_FORMAT, Value::Byte(flag)) => self.is_text = flag == 1,
            (id::MESSAGE_EXPIRY, Value::U32(seconds)) => properties.message_expiry_s = Some(seconds),
            (id::CONTENT_TYPE, Value::Text(text)) => properties.content_type = Some(text.to_owned()),
            (id::RESPONSE_TOPIC, Value::Text(text)) if is_topic(text) => {
                properties.response_topic = Some(text.to_owned());
            }
            (id::RESPONSE_TOPIC, _) => return Err(Refused::protocol("a response topic that is no topic name")),
            (id::CORRELATION_DATA, Value::Binary(data)) => {
                properties.correlation_data = Some(Bytes::copy_from_slice(data));
            }
            (id::USER, Value::Pair(name, text)) => properties.user.push((name.to_owned(), text.to_owned())),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Bytes that [`Forwarded::write`] writes.
    pub(super) fn length(&self, expiry_s: Option<u32>) -> usize {
        let properties = &self.properties;
        let text = |text: &Option<String>| text.as_ref().map_or(0, |text| 3 + text.len());
        let user: usize = properties.user.iter().map(|(name, text)| 5 + name.len() + text.len()).sum();
        usize::from(self.is_text) * 2
            + expiry_s.map_or(0, |_| 5)
            + text(&properties.content_type)
            + text(&properties.response_topic)
            + properties.correlation_data.as_ref().map_or(0, |data| 3 + data.len())
            + user
    }

    /// `expiry_s` is what is left of the message's time.
    pub(super) fn write(&self, expiry_s: Option<u32>, out: &mut BytesMut) {
        if self.is_text {
            out.put_slice(&[id::PAYLOAD_FORMAT, 1]);
        }
        if let Some(seconds) = expiry_s {
            out.put_u8(id::MESSAGE_EXPIRY);
            out.put_u32(seconds);
        }
        let properties = &self.properties;
        let mut field = |id: u8, bytes: &[u8]| {
            out.put_u8(id);
            put_binary(out, bytes);
        };
        if let Some(text) = &properties.content_type {
            field(id::CONTENT_TYPE, text.as_bytes());
        }
        if let Some(text) = &properties.response_topic {
            field(id::RESPONSE_TOPIC, text.as_bytes());
        }
        if let Some(data) = &properties.correlation_data {
            field(id::CORRELATION_DATA, data);
        }
        for (name, text) in &properties.user {
            out.put_u8(id::USER);
            put_binary(out, name.as_bytes());
            put_binary(out, text.as_bytes());
        }
    }
}

/// With its length in two bytes: everything that is written came in so, or is a short text of ours.
pub(super) fn put_binary(out: &mut BytesMut, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.put_u16(length);
    out.put_slice(&bytes[..usize::from(length)]);
}

/// A variable byte integer; the packet size bounds what comes here.
pub(super) fn put_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

pub(super) fn varint_length(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}
