//! What a device writes, and what it understands of the answers. Written by hand, so that it can be wrong on purpose.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::intake::listener::packet::Version;

/// A packet of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Got {
    ConnAck {
        present: bool,
        code: u8,
        properties: Bytes,
    },
    Publish(Received),
    /// PUBACK, PUBREC, PUBREL, PUBCOMP by packet type.
    Ack {
        kind: u8,
        id: u16,
        code: u8,
    },
    SubAck {
        id: u16,
        codes: Vec<u8>,
    },
    UnsubAck {
        id: u16,
        codes: Vec<u8>,
    },
    PingResp,
    Disconnect(u8),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub topic: String,
    pub payload: Bytes,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub id: u16,
    pub properties: Bytes,
}

pub fn puback(id: u16) -> Got {
    Got::Ack { kind: 4, id, code: 0 }
}

pub fn pubrec(id: u16) -> Got {
    Got::Ack { kind: 5, id, code: 0 }
}

pub fn pubrel(id: u16) -> Got {
    Got::Ack { kind: 6, id, code: 0 }
}

pub fn pubcomp(id: u16) -> Got {
    Got::Ack { kind: 7, id, code: 0 }
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = body.len();
    loop {
        let byte = (length & 0x7f) as u8;
        length >>= 7;
        out.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

pub fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

/// With its length in front.
fn properties(version: Version, properties: &[u8]) -> Vec<u8> {
    if version.is_v5() { [&[properties.len() as u8], properties].concat() } else { Vec::new() }
}

/// A CONNECT to be changed before it is encoded.
#[derive(Debug, Clone)]
pub struct Hello {
    pub version: Version,
    pub id: String,
    pub clean: bool,
    pub keep_alive: u16,
    pub properties: Vec<u8>,
    pub will: Option<LastWill>,
}

#[derive(Debug, Clone)]
pub struct LastWill {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub properties: Vec<u8>,
}

impl Hello {
    pub fn new(version: Version, id: &str) -> Self {
        Hello { version, id: id.to_owned(), clean: true, keep_alive: 0, properties: Vec::new(), will: None }
    }

    /// Kept for `seconds` (v5) or as long as the server keeps sessions (3.1.1).
    pub fn kept(version: Version, id: &str, seconds: u32) -> Self {
        let mut hello = Hello::new(version, id);
        hello.clean = false;
        if version.is_v5() {
            hello.properties = [&[17], &seconds.to_be_bytes()[..]].concat();
        }
        hello
    }

    pub fn will(mut self, topic: &str, qos: u8, retain: bool, delay_s: u32) -> Self {
        let properties = if delay_s > 0 { [&[24], &delay_s.to_be_bytes()[..]].concat() } else { Vec::new() };
        self.will = Some(LastWill { topic: topic.to_owned(), payload: b"gone".to_vec(), qos, retain, properties });
        self
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        if let Some(will) = &self.will {
            flags |= 4 | will.qos << 3 | u8::from(will.retain) << 5;
        }
        let mut body = text("MQTT");
        body.push(if self.version.is_v5() { 5 } else { 4 });
        body.push(flags);
        body.put_u16(self.keep_alive);
        body.extend(properties(self.version, &self.properties));
        body.extend(text(&self.id));
        if let Some(will) = &self.will {
            body.extend(properties(self.version, &will.properties));
            body.extend(text(&will.topic));
            body.put_u16(will.payload.len() as u16);
            body.extend(&will.payload);
        }
        packet(0x10, &body)
    }
}

/// `id` is left out with QoS 0.
pub fn publish(version: Version, topic: &str, payload: &[u8], qos: u8, id: u16) -> Vec<u8> {
    publish_with(version, topic, payload, qos, id, 0, &[])
}

/// `flags`: 8 is DUP, 1 is RETAIN.
#[expect(clippy::too_many_arguments, reason = "as many as the packet has fields")]
pub fn publish_with(version: Version, topic: &str, payload: &[u8], qos: u8, id: u16, flags: u8, own: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if qos > 0 {
        body.put_u16(id);
    }
    body.extend(properties(version, own));
    body.extend_from_slice(payload);
    packet(0x30 | qos << 1 | flags, &body)
}

pub fn ack(kind: u8, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![kind << 4 | if kind == 6 { 2 } else { 0 }, 2, high, low]
}

pub fn subscribe(version: Version, id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    subscribe_with(version, id, filters, &[])
}

pub fn subscribe_with(version: Version, id: u16, filters: &[(&str, u8)], own: &[u8]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend(properties(version, own));
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

pub fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend(properties(version, &[]));
    for filter in filters {
        body.extend(text(filter));
    }
    packet(0xa2, &body)
}

pub const PINGREQ: [u8; 2] = [0xc0, 0];
pub const DISCONNECT: [u8; 2] = [0xe0, 0];

/// Takes one packet of the server out of `input`.
pub fn take(version: Version, input: &mut BytesMut) -> Option<Got> {
    let (mut remaining, mut at) = (0usize, 1);
    loop {
        let byte = *input.get(at)?;
        remaining |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    if input.len() < at + remaining {
        return None;
    }
    let first = input[0];
    let mut body = input.split_to(at + remaining).freeze();
    body.advance(at);
    Some(understand(version, first, body))
}

fn take_properties(version: Version, body: &mut Bytes) -> Bytes {
    if !version.is_v5() || body.is_empty() {
        return Bytes::new();
    }
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let byte = body.get_u8();
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    body.split_to(length)
}

fn understand(version: Version, first: u8, mut body: Bytes) -> Got {
    match first >> 4 {
        2 => {
            let (flags, code) = (body.get_u8(), body.get_u8());
            Got::ConnAck { present: flags == 1, code, properties: take_properties(version, &mut body) }
        }
        3 => {
            let length = usize::from(body.get_u16());
            let topic = String::from_utf8(body.split_to(length).to_vec()).unwrap();
            let qos = first >> 1 & 3;
            let id = if qos > 0 { body.get_u16() } else { 0 };
            let properties = take_properties(version, &mut body);
            let (retain, dup) = (first & 1 != 0, first & 8 != 0);
            Got::Publish(Received { topic, payload: body, qos, retain, dup, id, properties })
        }
        kind @ 4..=7 => {
            let id = body.get_u16();
            Got::Ack { kind, id, code: if body.is_empty() { 0 } else { body.get_u8() } }
        }
        9 => {
            let id = body.get_u16();
            take_properties(version, &mut body);
            Got::SubAck { id, codes: body.to_vec() }
        }
        11 => {
            let id = body.get_u16();
            take_properties(version, &mut body);
            Got::UnsubAck { id, codes: body.to_vec() }
        }
        13 => Got::PingResp,
        14 => Got::Disconnect(if body.is_empty() { 0 } else { body[0] }),
        other => panic!("a server does not send packet type {other}"),
    }
}
