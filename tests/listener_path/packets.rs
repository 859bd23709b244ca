//! What a device says and hears, MQTT 3.1.1 and 5, byte by byte: the rig's own framing, not the gateway's codec. Pure.

use bytes::{BufMut, Bytes, BytesMut};

use crate::harness::wire::{self, Malformed, frame, put_text};

pub use crate::harness::wire::{V5, V311, take_frame};

const PUBREC: u8 = 5;
const PUBREL: u8 = 6;
const PUBCOMP: u8 = 7;
const SESSION_EXPIRY: u8 = 0x11;
const USER_PROPERTY: u8 = 0x26;

/// What the gateway says to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    ConnAck {
        session_present: bool,
        code: u8,
    },
    PubAck(u16),
    PubRec(u16),
    PubComp(u16),
    /// A message for a subscriber; its packet id is 0 at QoS 0.
    Publish {
        topic: String,
        payload: Bytes,
        packet_id: u16,
        retain: bool,
    },
    SubAck,
    PingResp,
    /// PUBACK, PUBREC or PUBCOMP of version 5 with a reason that is no success.
    Refused {
        packet_id: u16,
        reason: u8,
    },
    Other(u8),
}

/// A CONNECT.
#[derive(Debug, Clone)]
pub struct Hello {
    pub level: u8,
    pub client_id: String,
    /// Clean session, or clean start of version 5.
    pub clean: bool,
    /// Topic and payload, at QoS 1.
    pub will: Option<(String, Vec<u8>)>,
}

/// A PUBLISH.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: u8,
    pub packet_id: u16,
    pub dup: bool,
    pub retain: bool,
    /// Version 5: the user property `message-id`.
    pub message_id: Option<&'a str>,
}

pub fn connect(hello: &Hello) -> Bytes {
    let mut body = BytesMut::new();
    put_text(&mut body, b"MQTT");
    body.put_u8(hello.level);
    let will = if hello.will.is_some() { 0b0000_1100 } else { 0 };
    body.put_u8(will | u8::from(hello.clean) << 1);
    body.put_u16(300);
    if hello.level == V5 {
        body.put_slice(&[5, SESSION_EXPIRY]);
        body.put_u32(3600);
    }
    put_text(&mut body, hello.client_id.as_bytes());
    if let Some((topic, payload)) = &hello.will {
        no_properties(&mut body, hello.level);
        put_text(&mut body, topic.as_bytes());
        put_text(&mut body, payload);
    }
    frame(0x10, &body)
}

pub fn publish(level: u8, said: Said<'_>) -> Bytes {
    let mut body = BytesMut::with_capacity(said.topic.len() + said.payload.len() + 64);
    put_text(&mut body, said.topic.as_bytes());
    if said.qos > 0 {
        body.put_u16(said.packet_id);
    }
    match said.message_id {
        Some(id) if level == V5 => {
            let mut property = BytesMut::new();
            property.put_u8(USER_PROPERTY);
            put_text(&mut property, b"message-id");
            put_text(&mut property, id.as_bytes());
            body.put_u8(u8::try_from(property.len()).expect("ids of tests are short"));
            body.put_slice(&property);
        }
        _ => no_properties(&mut body, level),
    }
    body.put_slice(said.payload);
    frame(0x30 | u8::from(said.dup) << 3 | said.qos << 1 | u8::from(said.retain), &body)
}

pub fn puback(packet_id: u16) -> Bytes {
    frame(0x40, &packet_id.to_be_bytes())
}

pub fn pubrel(packet_id: u16) -> Bytes {
    frame(PUBREL << 4 | 2, &packet_id.to_be_bytes())
}

pub fn subscribe(level: u8, filter: &str) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u16(1);
    no_properties(&mut body, level);
    put_text(&mut body, filter.as_bytes());
    body.put_u8(1);
    frame(0x82, &body)
}

pub fn pingreq() -> Bytes {
    frame(0xc0, &[])
}

pub fn disconnect() -> Bytes {
    frame(0xe0, &[])
}

pub fn read(frame: &Bytes, level: u8) -> Result<Heard, Malformed> {
    let first = *frame.first().ok_or(Malformed)?;
    match (first >> 4, wire::read(frame, level)?) {
        (_, wire::Packet::ConnAck { code, session_present }) => Ok(Heard::ConnAck { session_present, code }),
        (_, wire::Packet::PubAck { packet_id, reason }) => Ok(answer(Heard::PubAck, packet_id, reason)),
        (_, wire::Packet::Publish { topic, packet_id, payload, .. }) => {
            Ok(Heard::Publish { topic, payload, packet_id, retain: first & 1 == 1 })
        }
        (_, wire::Packet::SubAck) => Ok(Heard::SubAck),
        (kind @ (PUBREC | PUBCOMP), _) => {
            let [_, _, high, low, rest @ ..] = frame.as_ref() else { return Err(Malformed) };
            let make = if kind == PUBREC { Heard::PubRec } else { Heard::PubComp };
            Ok(answer(make, u16::from_be_bytes([*high, *low]), rest.first().copied().unwrap_or(0)))
        }
        (13, _) => Ok(Heard::PingResp),
        (kind, _) => Ok(Heard::Other(kind)),
    }
}

fn answer(make: fn(u16) -> Heard, packet_id: u16, reason: u8) -> Heard {
    if reason >= 0x80 { Heard::Refused { packet_id, reason } } else { make(packet_id) }
}

fn no_properties(body: &mut BytesMut, level: u8) {
    if level == V5 {
        body.put_u8(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(bytes: &Bytes, level: u8) -> wire::Packet {
        let frame = take_frame(&mut BytesMut::from(bytes.as_ref())).unwrap().unwrap();
        wire::read(&frame, level).unwrap()
    }

    #[test]
    fn what_a_device_says_is_what_the_rigs_own_reader_reads() {
        for level in [V311, V5] {
            let will = Some(("w".to_owned(), b"gone".to_vec()));
            let hello = Hello { level, client_id: "d1".to_owned(), clean: false, will };
            assert_eq!(read_back(&connect(&hello), level), wire::Packet::Connect { level, client_id: "d1".to_owned() });
            let message_id = (level == V5).then_some("m-1");
            let said = Said { topic: "a/b", payload: b"x", qos: 2, packet_id: 7, dup: true, retain: false, message_id };
            let payload = Bytes::from_static(b"x");
            let expected = wire::Packet::Publish { topic: "a/b".to_owned(), packet_id: 7, dup: true, payload };
            assert_eq!(read_back(&publish(level, said), level), expected);
        }
    }

    #[test]
    fn answers_are_read_with_and_without_reasons() {
        assert_eq!(read(&Bytes::from_static(b"\x50\x02\x00\x07"), V311), Ok(Heard::PubRec(7)));
        let refused = Heard::Refused { packet_id: 7, reason: 0x92 };
        assert_eq!(read(&Bytes::from_static(b"\x70\x03\x00\x07\x92"), V5), Ok(refused));
        assert_eq!(read(&Bytes::from_static(b"\xd0\x00"), V311), Ok(Heard::PingResp));
    }
}
