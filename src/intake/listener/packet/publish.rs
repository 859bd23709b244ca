//! PUBLISH (3.3), in both directions.

use bytes::{BufMut, BytesMut};

use super::properties::{self, Allowed, Forwarded, Value, id, put_binary, put_varint, varint_length};
use super::read::{Reader, is_topic};
use super::{Head, Refused, Version, reason};

/// A reading as it comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Empty only with an alias.
    pub topic: &'a str,
    pub payload: &'a [u8],
    /// 0 with QoS 0.
    pub packet_id: u16,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub alias: Option<u16>,
    pub forwarded: Forwarded,
}

const PUBLISH: Allowed = Allowed::of(&[
    id::PAYLOAD_FORMAT,
    id::MESSAGE_EXPIRY,
    id::TOPIC_ALIAS,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER,
    id::CONTENT_TYPE,
]);

pub(super) fn read<'a>(version: Version, head: Head, body: &'a [u8]) -> Result<Publish<'a>, Refused> {
    let mut from = Reader::new(body);
    let topic = from.text()?;
    let packet_id = if head.qos() > 0 { from.packet_id()? } else { 0 };
    let mut alias = None;
    let mut forwarded = Forwarded::default();
    if version.is_v5() {
        properties::read(&mut from, PUBLISH, |id, value| {
            match (id, value) {
                (id::TOPIC_ALIAS, Value::U16(0)) => return Err(Refused::new(reason::ALIAS_INVALID, "topic alias 0")),
                (id::TOPIC_ALIAS, Value::U16(number)) => alias = Some(number),
                (id, value) => drop(forwarded.take(id, value)?),
            }
            Ok(())
        })?;
    }
    check_topic(topic, alias)?;
    Ok(Publish {
        topic,
        payload: from.rest(),
        packet_id,
        qos: head.qos(),
        retain: head.first & 1 != 0,
        dup: head.first & 8 != 0,
        alias,
        forwarded,
    })
}

/// Topics with wildcards and empty ones end the connection [MQTT-3.3.2-2] [MQTT-4.7.3-1].
fn check_topic(topic: &str, alias: Option<u16>) -> Result<(), Refused> {
    match (topic.is_empty(), alias) {
        (true, Some(_)) => Ok(()),
        (true, None) => Err(Refused::protocol("a PUBLISH without a topic")),
        (false, _) if is_topic(topic) => Ok(()),
        (false, _) => Err(Refused::new(reason::TOPIC_INVALID, "a topic name with a wildcard")),
    }
}

/// A message on its way to a subscriber.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    /// 0 with QoS 0.
    pub packet_id: u16,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub forwarded: &'a Forwarded,
    /// What is left of the message's time, in seconds.
    pub expiry_s: Option<u32>,
    pub subscription_ids: &'a [u32],
}

fn property_length(message: &Outgoing<'_>) -> usize {
    let ids: usize = message.subscription_ids.iter().map(|&id| 1 + varint_length(id as usize)).sum();
    message.forwarded.length(message.expiry_s) + ids
}

fn remaining(version: Version, message: &Outgoing<'_>) -> usize {
    let properties = match version {
        Version::V311 => 0,
        Version::V5 => {
            let length = property_length(message);
            varint_length(length) + length
        }
    };
    2 + message.topic.len() + usize::from(message.qos > 0) * 2 + properties + message.payload.len()
}

/// Bytes of the whole packet.
pub fn publish_length(version: Version, message: &Outgoing<'_>) -> usize {
    let remaining = remaining(version, message);
    1 + varint_length(remaining) + remaining
}

pub fn write_publish(version: Version, message: &Outgoing<'_>, out: &mut BytesMut) {
    let flags = u8::from(message.dup) << 3 | message.qos << 1 | u8::from(message.retain);
    out.put_u8(super::kind::PUBLISH << 4 | flags);
    put_varint(out, remaining(version, message));
    put_binary(out, message.topic.as_bytes());
    if message.qos > 0 {
        out.put_u16(message.packet_id);
    }
    if version.is_v5() {
        put_varint(out, property_length(message));
        message.forwarded.write(message.expiry_s, out);
        for &id in message.subscription_ids {
            out.put_u8(id::SUBSCRIPTION_ID);
            put_varint(out, id as usize);
        }
    }
    out.put_slice(message.payload);
}
