//! What a server answers. PUBLISH is in `publish.rs`.

use bytes::{BufMut, BytesMut};

use super::properties::{id, put_binary, put_varint, varint_length};
use super::{Version, kind, reason};

const CONNACK: u8 = 0x20;
const SUBACK: u8 = 0x90;
const UNSUBACK: u8 = 0xb0;
const PINGRESP: [u8; 2] = [0xd0, 0];
const DISCONNECT: u8 = 0xe0;

/// A CONNACK that lets the client in, with the server's limits (3.2.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnAck<'a> {
    pub session_present: bool,
    /// `None`: as the client asked.
    pub session_expiry_s: Option<u32>,
    pub receive_maximum: u16,
    pub packet_size_max: u32,
    pub topic_alias_maximum: u16,
    pub assigned_client_id: Option<&'a str>,
    /// `None`: the client's own.
    pub keep_alive_s: Option<u16>,
}

pub fn write_connack(version: Version, connack: &ConnAck<'_>, out: &mut BytesMut) {
    let flags = u8::from(connack.session_present);
    if version == Version::V311 {
        out.put_slice(&[CONNACK, 2, flags, 0]);
        return;
    }
    let mut properties = BytesMut::with_capacity(64);
    if let Some(seconds) = connack.session_expiry_s {
        properties.put_u8(id::SESSION_EXPIRY);
        properties.put_u32(seconds);
    }
    properties.put_u8(id::RECEIVE_MAXIMUM);
    properties.put_u16(connack.receive_maximum);
    properties.put_u8(id::PACKET_SIZE_MAXIMUM);
    properties.put_u32(connack.packet_size_max);
    properties.put_u8(id::TOPIC_ALIAS_MAXIMUM);
    properties.put_u16(connack.topic_alias_maximum);
    if let Some(client_id) = connack.assigned_client_id {
        properties.put_u8(id::ASSIGNED_CLIENT_ID);
        put_binary(&mut properties, client_id.as_bytes());
    }
    if let Some(seconds) = connack.keep_alive_s {
        properties.put_u8(id::SERVER_KEEP_ALIVE);
        properties.put_u16(seconds);
    }
    for available in [id::RETAIN_AVAILABLE, id::WILDCARD_AVAILABLE, id::SUBSCRIPTION_ID_AVAILABLE, id::SHARED_AVAILABLE]
    {
        properties.put_slice(&[available, 1]);
    }
    out.put_u8(CONNACK);
    put_varint(out, 2 + varint_length(properties.len()) + properties.len());
    out.put_slice(&[flags, reason::SUCCESS]);
    put_varint(out, properties.len());
    out.put_slice(&properties);
}

/// A CONNACK that refuses. 3.1.1 has codes for five causes; for the others there is none, and nothing is written.
pub fn write_refusal(version: Version, code: u8, out: &mut BytesMut) {
    if version.is_v5() {
        out.put_slice(&[CONNACK, 3, 0, code, 0]);
        return;
    }
    let code = match code {
        reason::UNSUPPORTED_VERSION => 1,
        reason::CLIENT_ID_INVALID => 2,
        reason::SERVER_UNAVAILABLE | reason::SERVER_BUSY | reason::QUOTA_EXCEEDED | reason::SHUTTING_DOWN => 3,
        reason::BAD_CREDENTIALS => 4,
        reason::NOT_AUTHORIZED => 5,
        _ => return,
    };
    out.put_slice(&[CONNACK, 2, 0, code]);
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP; `kind` is the packet type.
pub fn write_ack(version: Version, kind: u8, packet_id: u16, code: u8, out: &mut BytesMut) {
    let first = kind << 4 | if kind == kind::PUBREL { 2 } else { 0 };
    let [high, low] = packet_id.to_be_bytes();
    if version.is_v5() && code != reason::SUCCESS {
        out.put_slice(&[first, 3, high, low, code]);
    } else {
        out.put_slice(&[first, 2, high, low]);
    }
}

/// One code for each filter of the SUBSCRIBE: the granted QoS, or a v5 reason, which in 3.1.1 is 0x80.
pub fn write_suback(version: Version, packet_id: u16, codes: &[u8], out: &mut BytesMut) {
    out.put_u8(SUBACK);
    if version.is_v5() {
        put_varint(out, 3 + codes.len());
        out.put_u16(packet_id);
        out.put_u8(0);
        out.put_slice(codes);
    } else {
        put_varint(out, 2 + codes.len());
        out.put_u16(packet_id);
        out.extend(codes.iter().map(|&code| code.min(0x80)));
    }
}

/// v5 has a code for each filter of the UNSUBSCRIBE.
pub fn write_unsuback(version: Version, packet_id: u16, codes: &[u8], out: &mut BytesMut) {
    out.put_u8(UNSUBACK);
    if version.is_v5() {
        put_varint(out, 3 + codes.len());
        out.put_u16(packet_id);
        out.put_u8(0);
        out.put_slice(codes);
    } else {
        out.put_u8(2);
        out.put_u16(packet_id);
    }
}

pub fn write_pingresp(out: &mut BytesMut) {
    out.put_slice(&PINGRESP);
}

/// 3.1.1 servers send none: they close.
pub fn write_disconnect(version: Version, code: u8, out: &mut BytesMut) {
    if version.is_v5() {
        out.put_slice(&[DISCONNECT, 1, code]);
    }
}
