//! The one seam over rumqttc's two codecs (3.1.1 and v5): bytes in, [`Inbound`] out, and the few packets a source sends.
//!
//! Framing is done here, for three reasons. rumqttc's readers report a property length that is cut off *inside* a whole
//! frame as "more bytes needed", after having taken the frame away; they refuse the short v5 DISCONNECT that Mosquitto
//! sends; and a packet above the limit must be skipped, not refused. Packet types a server may not send never reach
//! rumqttc's readers. Pure: this file reads and writes buffers only.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rumqttc::mqttbytes as shared;
use rumqttc::mqttbytes::v4;
use rumqttc::v5::mqttbytes as shared5;
use rumqttc::v5::mqttbytes::v5;

use crate::config::{MqttSource, MqttVersion, Subscription};
use crate::record::Properties;

/// A packet that breaks the protocol so that the connection has to end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("understand the broker: {0}")]
pub struct Malformed(pub(super) String);

fn malformed(what: impl std::fmt::Display) -> Malformed {
    Malformed(what.to_string())
}

/// Packet types that a server may send (MQTT 2.1.2).
pub(super) mod kind {
    pub(crate) const CONNACK: u8 = 2;
    pub(crate) const PUBLISH: u8 = 3;
    pub(crate) const PUBREL: u8 = 6;
    pub(crate) const SUBACK: u8 = 9;
    pub(crate) const UNSUBACK: u8 = 11;
    pub(crate) const PINGRESP: u8 = 13;
    pub(crate) const DISCONNECT: u8 = 14;
}

/// A fixed header (MQTT 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) first: u8,
    /// Bytes of the fixed header itself.
    pub(super) length: usize,
    pub(super) remaining: usize,
}

impl Head {
    /// `None`: the header is not complete yet.
    ///
    /// # Errors
    /// A remaining length of more than four bytes (MQTT 2.2.3).
    pub(super) fn peek(input: &[u8]) -> Result<Option<Head>, Malformed> {
        let Some((&first, rest)) = input.split_first() else { return Ok(None) };
        let mut remaining = 0;
        for (at, &byte) in rest.iter().take(4).enumerate() {
            remaining |= usize::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(Some(Head { first, length: at + 2, remaining }));
            }
        }
        if rest.len() >= 4 { Err(malformed("a remaining length of more than four bytes")) } else { Ok(None) }
    }

    pub(super) fn kind(self) -> u8 {
        self.first >> 4
    }

    /// Bytes of the whole packet.
    pub(super) fn total(self) -> usize {
        self.length + self.remaining
    }

    fn qos(self) -> u8 {
        (self.first >> 1) & 3
    }
}

/// A PUBLISH, the same for both versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publish {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    /// 0 with QoS 0.
    pub(super) pkid: u16,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) dup: bool,
    pub(super) properties: Properties,
    /// Why it cannot be taken as a reading, although it has been read: it goes to the dead letters. Refusing it would
    /// make the broker send it again at every reconnect, for ever.
    pub(super) unfit: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inbound {
    ConnAck(ConnAck),
    Publish(Publish),
    SubAck {
        pkid: u16,
        /// For each filter the granted QoS, or why not.
        results: Vec<Result<u8, String>>,
    },
    UnsubAck {
        pkid: u16,
    },
    PubRel {
        pkid: u16,
    },
    PingResp,
    Disconnect {
        code: u8,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct ConnAck {
    pub(super) session_present: bool,
    /// Why the broker refuses us.
    pub(super) refused: Option<String>,
    /// v5: the broker's own keep-alive in seconds, to be used instead of ours (MQTT-3.1.2-21).
    pub(super) keep_alive_s: Option<u16>,
}

/// Decodes one whole packet; `frame` is exactly `head.total()` bytes long.
///
/// # Errors
/// Anything that a server may not send, or that does not decode.
pub(super) fn decode(version: MqttVersion, head: Head, frame: Bytes) -> Result<Inbound, Malformed> {
    match head.kind() {
        kind::PUBLISH => publish(version, head, frame).map(Inbound::Publish),
        kind::PINGRESP if head.remaining == 0 => Ok(Inbound::PingResp),
        kind::CONNACK => connack(version, head, frame).map(Inbound::ConnAck),
        kind::SUBACK => suback(version, head, frame),
        kind::UNSUBACK => packet_id(head, &frame).map(|pkid| Inbound::UnsubAck { pkid }),
        kind::PUBREL => packet_id(head, &frame).map(|pkid| Inbound::PubRel { pkid }),
        // MQTT 5, 3.14.2.1: without a reason code it is 0. 3.1.1 servers send none, but some do.
        kind::DISCONNECT => Ok(Inbound::Disconnect { code: frame.get(head.length).copied().unwrap_or(0) }),
        other => Err(malformed(format_args!("packet type {other} with {} bytes", head.remaining))),
    }
}

fn packet_id(head: Head, frame: &[u8]) -> Result<u16, Malformed> {
    let bytes = frame.get(head.length..head.length + 2).ok_or_else(|| malformed("a packet without its id"))?;
    Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn header4(head: Head) -> shared::FixedHeader {
    shared::FixedHeader::new(head.first, head.length - 1, head.remaining)
}

fn header5(head: Head) -> v5::FixedHeader {
    v5::FixedHeader::new(head.first, head.length - 1, head.remaining)
}

/// Where the parts of a PUBLISH lie. Works on the beginning of a packet too: an oversize one is only ever seen so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    topic: std::ops::Range<usize>,
    pkid: u16,
    /// Where the payload begins; may lie beyond what is there.
    payload_at: usize,
}

impl Parts {
    /// `None`: the fields before the payload do not fit into the packet, or are not there yet.
    pub(super) fn find(version: MqttVersion, head: Head, seen: &[u8]) -> Option<Parts> {
        let mut rest = seen.get(head.length..)?;
        let topic_len = usize::from(rest.try_get_u16().ok()?);
        let topic = head.length + 2..head.length + 2 + topic_len;
        rest = rest.get(topic_len..)?;
        let pkid = if head.qos() > 0 { rest.try_get_u16().ok()? } else { 0 };
        let mut payload_at = seen.len() - rest.len();
        if version == MqttVersion::V5 {
            let properties = property_length(rest)?;
            payload_at += properties;
        }
        (payload_at <= head.total()).then_some(Parts { topic, pkid, payload_at })
    }
}

/// Bytes of the v5 properties, the variable byte integer before them included.
fn property_length(rest: &[u8]) -> Option<usize> {
    let mut length = 0;
    for (at, &byte) in rest.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(length + at + 1);
        }
    }
    None
}

/// Makes a PUBLISH for the dead letters out of the beginning of a packet.
///
/// # Errors
/// When it has no usable packet id, so that it could not be answered.
pub(super) fn unfit(version: MqttVersion, head: Head, seen: Bytes, cause: String) -> Result<Publish, Malformed> {
    let parts = Parts::find(version, head, &seen).ok_or_else(|| malformed("a PUBLISH cut short"))?;
    if head.qos() == 3 || (head.qos() > 0 && parts.pkid == 0) {
        return Err(malformed("a PUBLISH that cannot be answered"));
    }
    Ok(Publish {
        topic: String::from_utf8_lossy(&seen[parts.topic]).into_owned(),
        payload: seen.slice(parts.payload_at.min(seen.len())..),
        pkid: parts.pkid,
        qos: head.qos(),
        retain: head.first & 1 != 0,
        dup: head.first & 8 != 0,
        properties: Properties::default(),
        unfit: Some(cause),
    })
}

fn publish(version: MqttVersion, head: Head, frame: Bytes) -> Result<Publish, Malformed> {
    let read = match version {
        MqttVersion::V311 => publish4(head, frame.clone()),
        MqttVersion::V5 => publish5(head, frame.clone()),
    };
    let cause = match read {
        Ok(publish) => match bad_topic(&publish.topic) {
            None => return Ok(publish),
            Some(cause) => cause,
        },
        Err(cause) => cause,
    };
    unfit(version, head, frame, cause)
}

/// MQTT-3.3.2-1, -2 and MQTT-1.5.3-2; an empty topic also stands for a v5 alias, of which we allow none.
fn bad_topic(topic: &str) -> Option<String> {
    let bad = topic.bytes().find(|byte| matches!(byte, b'+' | b'#' | 0));
    match bad {
        Some(byte) => Some(format!("topic name with {:?}", char::from(byte))),
        None => topic.is_empty().then(|| "empty topic name".to_owned()),
    }
}

fn publish4(head: Head, frame: Bytes) -> Result<Publish, String> {
    let read = v4::Publish::read(header4(head), frame).map_err(|e| e.to_string())?;
    Ok(Publish {
        topic: read.topic,
        payload: read.payload,
        pkid: read.pkid,
        qos: read.qos as u8,
        retain: read.retain,
        dup: read.dup,
        properties: Properties::default(),
        unfit: None,
    })
}

fn publish5(head: Head, frame: Bytes) -> Result<Publish, String> {
    let parts = Parts::find(MqttVersion::V5, head, &frame).ok_or("a PUBLISH cut short")?;
    let read = v5::Publish::read(header5(head), frame.clone()).map_err(|e| e.to_string())?;
    let topic = std::str::from_utf8(&read.topic).map_err(|_| "topic is not UTF-8")?.to_owned();
    Ok(Publish {
        topic,
        // Not `read.payload`: rumqttc counts a subscription identifier one byte too long, so that the last property
        // would end up in front of the payload.
        payload: frame.slice(parts.payload_at..),
        pkid: read.pkid,
        qos: read.qos as u8,
        retain: read.retain,
        dup: read.dup,
        properties: read.properties.map(properties).unwrap_or_default(),
        unfit: None,
    })
}

fn properties(read: v5::PublishProperties) -> Properties {
    Properties {
        content_type: read.content_type,
        response_topic: read.response_topic,
        correlation_data: read.correlation_data,
        message_expiry_s: read.message_expiry_interval,
        user: read.user_properties,
    }
}

fn connack(version: MqttVersion, head: Head, frame: Bytes) -> Result<ConnAck, Malformed> {
    match version {
        MqttVersion::V311 => {
            let read = v4::ConnAck::read(header4(head), frame).map_err(malformed)?;
            let refused = (read.code != v4::ConnectReturnCode::Success).then(|| format!("{:?}", read.code));
            Ok(ConnAck { session_present: read.session_present, refused, keep_alive_s: None })
        }
        MqttVersion::V5 => {
            let read = v5::ConnAck::read(header5(head), frame).map_err(malformed)?;
            let refused = (read.code != v5::ConnectReturnCode::Success).then(|| format!("{:?}", read.code));
            let keep_alive_s = read.properties.and_then(|properties| properties.server_keep_alive);
            Ok(ConnAck { session_present: read.session_present, refused, keep_alive_s })
        }
    }
}

fn suback(version: MqttVersion, head: Head, frame: Bytes) -> Result<Inbound, Malformed> {
    match version {
        MqttVersion::V311 => {
            let read = v4::SubAck::read(header4(head), frame).map_err(malformed)?;
            let results = read.return_codes.into_iter().map(|code| match code {
                v4::SubscribeReasonCode::Success(qos) => Ok(qos as u8),
                v4::SubscribeReasonCode::Failure => Err("the broker gives no reason".to_owned()),
            });
            Ok(Inbound::SubAck { pkid: read.pkid, results: results.collect() })
        }
        MqttVersion::V5 => {
            let read = v5::SubAck::read(header5(head), frame).map_err(malformed)?;
            let results = read.return_codes.into_iter().map(|code| match code {
                v5::SubscribeReasonCode::Success(qos) => Ok(qos as u8),
                refused => Err(format!("{refused:?}")),
            });
            Ok(Inbound::SubAck { pkid: read.pkid, results: results.collect() })
        }
    }
}

/// Writes the CONNECT of a source: persistent session, stable client id, no will.
///
/// # Errors
/// A text of more than 65,535 bytes.
pub(super) fn write_connect(config: &MqttSource, out: &mut BytesMut) -> Result<(), Malformed> {
    let user = config.user.as_deref().unwrap_or_default();
    let password = config.password.as_ref().map(crate::config::Secret::expose).unwrap_or_default();
    if [config.client_id.as_str(), user, password].iter().any(|text| text.len() > usize::from(u16::MAX)) {
        return Err(malformed("client id, user or password of more than 65,535 bytes cannot be sent"));
    }
    let has_login = !user.is_empty() || !password.is_empty();
    let keep_alive = u16::try_from(config.keep_alive.as_secs()).unwrap_or(u16::MAX);
    match config.version {
        MqttVersion::V311 => {
            let mut connect = v4::Connect::new(config.client_id.as_str());
            connect.keep_alive = keep_alive;
            connect.clean_session = false;
            connect.login = has_login.then(|| v4::Login::new(user, password));
            connect.write(out).map(drop).map_err(malformed)
        }
        MqttVersion::V5 => {
            let connect = v5::Connect {
                keep_alive,
                client_id: config.client_id.clone(),
                clean_start: false,
                properties: Some(connect_properties(config)),
            };
            let login = has_login.then(|| v5::Login { username: user.to_owned(), password: password.to_owned() });
            connect.write(&None, &login, out).map(drop).map_err(malformed)
        }
    }
}

fn connect_properties(config: &MqttSource) -> v5::ConnectProperties {
    let mut properties = v5::ConnectProperties::new();
    properties.session_expiry_interval = Some(u32::try_from(config.session_expiry.as_secs()).unwrap_or(u32::MAX));
    // 0 would be a protocol error (MQTT 5, 3.1.2.11.3).
    properties.receive_maximum = Some(config.receive_maximum.max(1));
    properties.max_packet_size = Some(config.packet_size_max.max(1));
    // No aliases: rumqttc leaves their meaning to us, and a reconnect would make them mean something else.
    properties.topic_alias_max = Some(0);
    properties
}

/// Writes a SUBSCRIBE. QoS 2 is asked for as 1.
pub(super) fn write_subscribe(version: MqttVersion, pkid: u16, filters: &[Subscription], out: &mut BytesMut) {
    let written = match version {
        MqttVersion::V311 => {
            let ask = |s: &Subscription| {
                let qos = if s.qos == 0 { shared::QoS::AtMostOnce } else { shared::QoS::AtLeastOnce };
                v4::SubscribeFilter::new(s.filter.clone(), qos)
            };
            let mut subscribe = v4::Subscribe::new_many(filters.iter().map(ask));
            subscribe.pkid = pkid;
            subscribe.write(out).is_ok()
        }
        MqttVersion::V5 => {
            let ask = |s: &Subscription| {
                let qos = if s.qos == 0 { shared5::QoS::AtMostOnce } else { shared5::QoS::AtLeastOnce };
                let mut filter = v5::Filter::new(s.filter.clone(), qos);
                // Subscribing again at each connection must not bring the retained messages again. 3.1.1 cannot say so.
                filter.retain_forward_rule = v5::RetainForwardRule::OnNewSubscribe;
                filter
            };
            let mut subscribe = v5::Subscribe::new_many(filters.iter().map(ask), None);
            subscribe.pkid = pkid;
            subscribe.write(out).is_ok()
        }
    };
    debug_assert!(written, "a batch of filters is far below the length limit");
}

/// Writes an UNSUBSCRIBE.
pub(super) fn write_unsubscribe(version: MqttVersion, pkid: u16, filters: &[String], out: &mut BytesMut) {
    let written = match version {
        MqttVersion::V311 => v4::Unsubscribe { pkid, topics: filters.to_vec() }.write(out).is_ok(),
        MqttVersion::V5 => v5::Unsubscribe { pkid, filters: filters.to_vec(), properties: None }.write(out).is_ok(),
    };
    debug_assert!(written, "a batch of filters is far below the length limit");
}

/// An acknowledgement with success and nothing else is the same four bytes in both versions (MQTT 5, 3.4.2.1).
fn write_ack(first: u8, pkid: u16, out: &mut BytesMut) {
    out.put_slice(&[first, 2]);
    out.put_u16(pkid);
}

pub(super) fn write_puback(pkid: u16, out: &mut BytesMut) {
    write_ack(0x40, pkid, out);
}

pub(super) fn write_pubrec(pkid: u16, out: &mut BytesMut) {
    write_ack(0x50, pkid, out);
}

pub(super) fn write_pubcomp(pkid: u16, out: &mut BytesMut) {
    write_ack(0x70, pkid, out);
}

pub(super) fn write_pingreq(out: &mut BytesMut) {
    out.put_slice(&[0xc0, 0]);
}

/// A normal end: the session stays (MQTT-3.14.4-1 and, in v5, the expiry given in CONNECT).
pub(super) fn write_disconnect(out: &mut BytesMut) {
    out.put_slice(&[0xe0, 0]);
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
