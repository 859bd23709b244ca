//! The reader: takes nothing that the standard forbids a server.

use bytes::{Buf, Bytes, BytesMut};

use super::{V5, id, var};

/// A property's value as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Number(u32),
    Bytes(Vec<u8>),
    Pair(String, String),
}

/// Properties as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties(pub Vec<(u8, Value)>);

impl Properties {
    pub fn number(&self, id: u8) -> Option<u32> {
        self.0.iter().find_map(|(have, value)| match value {
            Value::Number(number) if *have == id => Some(*number),
            _ => None,
        })
    }

    pub fn numbers(&self, id: u8) -> Vec<u32> {
        let is = |(have, value): &(u8, Value)| match value {
            Value::Number(number) if *have == id => Some(*number),
            _ => None,
        };
        self.0.iter().filter_map(is).collect()
    }

    pub fn bytes(&self, id: u8) -> Option<&[u8]> {
        self.0.iter().find_map(|(have, value)| match value {
            Value::Bytes(bytes) if *have == id => Some(bytes.as_slice()),
            _ => None,
        })
    }

    pub fn pairs(&self) -> Vec<(String, String)> {
        let pair = |(_, value): &'_ (u8, Value)| match value {
            Value::Pair(name, value) => Some((name.clone(), value.clone())),
            _ => None,
        };
        self.0.iter().filter_map(pair).collect()
    }
}

/// A PUBLISH from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub qos: u8,
    pub dup: bool,
    pub retain: bool,
    /// 0 at QoS 0.
    pub id: u16,
    pub payload: Vec<u8>,
    pub props: Properties,
}

impl Message {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("the tests' payloads are text")
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    pub id: u16,
    pub reason: u8,
    pub props: Properties,
}

/// What a server may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    ConnAck { present: bool, code: u8, props: Properties },
    Publish(Message),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    SubAck { id: u16, codes: Vec<u8>, props: Properties },
    UnsubAck { id: u16, codes: Vec<u8>, props: Properties },
    PingResp,
    Disconnect { reason: u8, props: Properties },
}

/// Of both versions.
const CONNACK_CODES: [u8; 27] = [
    0, 1, 2, 3, 4, 5, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97, 0x99,
    0x9a, 0x9b, 0x9c, 0x9d, 0x9f,
];

/// Those that a server may say.
const DISCONNECT_CODES: [u8; 28] = [
    0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
    0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
];

type Read<T> = Result<T, String>;

/// Takes a whole packet off the front of `buffer`; `None` until it is whole. Also its size on the wire.
pub fn take(buffer: &mut BytesMut, level: u8) -> Read<Option<(Packet, usize)>> {
    let Some(&first) = buffer.first() else { return Ok(None) };
    let mut head = Bytes::copy_from_slice(&buffer[1..buffer.len().min(5)]);
    let Some(length) = take_var_if_whole(&mut head)? else { return Ok(None) };
    let head = 1 + var(length).len();
    let whole = head + length as usize;
    if buffer.len() < whole {
        return Ok(None);
    }
    let mut body = buffer.split_to(whole).freeze();
    body.advance(head);
    let packet = read(first, &mut body, level).map_err(|error| format!("{error} in packet {first:#04x}"))?;
    if !body.is_empty() {
        return Err(format!("{} bytes too many in packet {first:#04x}", body.len()));
    }
    Ok(Some((packet, whole)))
}

fn read(first: u8, body: &mut Bytes, level: u8) -> Read<Packet> {
    match first {
        0x20 => {
            let flags = take_u8(body)?;
            let code = take_u8(body)?;
            if flags > 1 {
                return Err(format!("reserved flags {flags:#04x}"));
            }
            // Before it knows the version, a server may answer in either.
            codes_within(&[code], &CONNACK_CODES)?;
            // Asked in an unknown version, a server may answer in its newest.
            let level = if code >= 0x80 { V5 } else { level };
            let props = if body.is_empty() { Properties::default() } else { take_props(body, level)? };
            Ok(Packet::ConnAck { present: flags == 1, code, props })
        }
        0x40 => Ok(Packet::PubAck(take_ack(body, level)?)),
        0x50 => Ok(Packet::PubRec(take_ack(body, level)?)),
        0x62 => Ok(Packet::PubRel(take_ack(body, level)?)),
        0x70 => Ok(Packet::PubComp(take_ack(body, level)?)),
        0x90 => {
            let (id, props) = (take_id(body)?, take_props(body, level)?);
            let codes = body.split_to(body.len()).to_vec();
            let allowed: &[u8] = if level == V5 {
                &[0, 1, 2, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2]
            } else {
                &[0, 1, 2, 0x80]
            };
            codes_within(&codes, allowed)?;
            Ok(Packet::SubAck { id, codes, props })
        }
        0xb0 => {
            let (id, props) = (take_id(body)?, take_props(body, level)?);
            let codes = body.split_to(body.len()).to_vec();
            codes_within(&codes, &[0, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91])?;
            Ok(Packet::UnsubAck { id, codes, props })
        }
        0xd0 => Ok(Packet::PingResp),
        0xe0 if level == V5 => take_disconnect(body),
        _ if first >> 4 == 3 => take_publish(first, body, level),
        _ => Err("no server may send it".to_owned()),
    }
}

fn codes_within(codes: &[u8], allowed: &[u8]) -> Read<()> {
    match codes.iter().find(|code| !allowed.contains(code)) {
        Some(code) => Err(format!("undefined reason {code:#04x}")),
        None => Ok(()),
    }
}

fn take_publish(first: u8, body: &mut Bytes, level: u8) -> Read<Packet> {
    let (qos, dup) = (first >> 1 & 3, first & 8 != 0);
    if qos == 3 || qos == 0 && dup {
        return Err(format!("QoS {qos}, DUP {dup}"));
    }
    let topic = take_text(body)?;
    let id = if qos > 0 { take_id(body)? } else { 0 };
    let props = take_props(body, level)?;
    let payload = body.split_to(body.len()).to_vec();
    Ok(Packet::Publish(Message { topic, qos, dup, retain: first & 1 != 0, id, payload, props }))
}

fn take_ack(body: &mut Bytes, level: u8) -> Read<Ack> {
    let id = take_id(body)?;
    if body.is_empty() || level < V5 {
        return Ok(Ack { id, reason: 0, props: Properties::default() });
    }
    let reason = take_u8(body)?;
    codes_within(&[reason], &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x92, 0x97, 0x99])?;
    let props = if body.is_empty() { Properties::default() } else { take_props(body, level)? };
    Ok(Ack { id, reason, props })
}

fn take_disconnect(body: &mut Bytes) -> Read<Packet> {
    if body.is_empty() {
        return Ok(Packet::Disconnect { reason: 0, props: Properties::default() });
    }
    let reason = take_u8(body)?;
    codes_within(&[reason], &DISCONNECT_CODES)?;
    let props = if body.is_empty() { Properties::default() } else { take_props(body, V5)? };
    if props.number(id::SESSION_EXPIRY).is_some() {
        return Err("a session expiry from the server".to_owned());
    }
    Ok(Packet::Disconnect { reason, props })
}

/// [MQTT-2.2.1-4]: never 0.
fn take_id(body: &mut Bytes) -> Read<u16> {
    match body.try_get_u16() {
        Ok(0) => Err("packet identifier 0".to_owned()),
        Ok(id) => Ok(id),
        Err(_) => Err("no packet identifier".to_owned()),
    }
}

fn take_u8(body: &mut Bytes) -> Read<u8> {
    body.try_get_u8().map_err(|_| "ends too early".to_owned())
}

fn take_text(body: &mut Bytes) -> Read<String> {
    String::from_utf8(take_bytes(body)?).map_err(|_| "not UTF-8".to_owned())
}

fn take_bytes(body: &mut Bytes) -> Read<Vec<u8>> {
    let length = usize::from(body.try_get_u16().map_err(|_| "ends too early".to_owned())?);
    if body.len() < length {
        return Err("a string longer than its packet".to_owned());
    }
    Ok(body.split_to(length).to_vec())
}

/// [MQTT-1.5.5-1]: in as few bytes as can be.
fn take_var(body: &mut Bytes) -> Read<u32> {
    take_var_if_whole(body)?.ok_or_else(|| "ends too early".to_owned())
}

fn take_var_if_whole(body: &mut Bytes) -> Read<Option<u32>> {
    let mut number = 0;
    for index in 0..4 {
        let Ok(byte) = body.try_get_u8() else { return Ok(None) };
        number |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return if var(number).len() == index + 1 { Ok(Some(number)) } else { Err("a number too long".to_owned()) };
        }
    }
    Err("a number of five bytes".to_owned())
}

fn take_props(body: &mut Bytes, level: u8) -> Read<Properties> {
    let mut found = Properties::default();
    if level < V5 {
        return Ok(found);
    }
    let length = take_var(body)? as usize;
    if body.len() < length {
        return Err("properties longer than their packet".to_owned());
    }
    let mut block = body.split_to(length);
    while !block.is_empty() {
        let id = take_u8(&mut block)?;
        let value = take_value(id, &mut block)?;
        let repeats = [id::USER_PROPERTY, id::SUBSCRIPTION_ID].contains(&id);
        if !repeats && found.0.iter().any(|(have, _)| *have == id) {
            return Err(format!("property {id:#04x} twice"));
        }
        found.0.push((id, value));
    }
    Ok(found)
}

fn take_value(id: u8, block: &mut Bytes) -> Read<Value> {
    let early = |_| "ends too early".to_owned();
    Ok(match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2a => Value::Number(u32::from(take_u8(block)?)),
        0x13 | 0x21 | 0x22 | 0x23 => Value::Number(u32::from(block.try_get_u16().map_err(early)?)),
        0x02 | 0x11 | 0x18 | 0x27 => Value::Number(block.try_get_u32().map_err(early)?),
        0x0b => Value::Number(take_var(block)?),
        0x09 | 0x16 => Value::Bytes(take_bytes(block)?),
        0x03 | 0x08 | 0x12 | 0x15 | 0x1a | 0x1c | 0x1f => Value::Bytes(take_text(block)?.into_bytes()),
        0x26 => Value::Pair(take_text(block)?, take_text(block)?),
        other => return Err(format!("unknown property {other:#04x}")),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Props, Publish, V4};
    use super::*;

    fn taken(bytes: &[u8], level: u8) -> Read<Packet> {
        take(&mut BytesMut::from(bytes), level).map(|found| found.expect("it is whole").0)
    }

    #[test]
    fn what_is_written_is_read() {
        let props = Props::new().pair("a", "1").four(id::MESSAGE_EXPIRY, 9).text(id::CONTENT_TYPE, "x").pair("a", "2");
        let sent = Publish::new("t", 2, 7, "p").props(props).dup().retain();
        let Packet::Publish(message) = taken(&sent.bytes(V5), V5).unwrap() else { panic!() };
        assert_eq!((message.topic.as_str(), message.qos, message.id, message.text()), ("t", 2, 7, "p"));
        assert!(message.dup && message.retain);
        assert_eq!(message.props.pairs(), [("a", "1"), ("a", "2")].map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(message.props.number(id::MESSAGE_EXPIRY), Some(9));
        assert_eq!(message.props.bytes(id::CONTENT_TYPE), Some(b"x".as_slice()));
        let half = sent.bytes(V5).len() / 2;
        assert_eq!(take(&mut BytesMut::from(&sent.bytes(V5)[..half]), V5), Ok(None));
    }

    #[test]
    fn what_a_server_must_not_send_is_refused() {
        for (bytes, level) in [
            (&[0x20, 2, 2, 0][..], V4),
            (&[0x41, 2, 0, 1], V4),
            (&[0x40, 2, 0, 0], V4),
            (&[0x60, 2, 0, 1], V4),
            (&[0x90, 3, 0, 1, 3], V4),
            (&[0x90, 4, 0, 1, 0, 0x85], V5),
            (&[0x38, 4, 0, 1, b't', b'p'], V4),
            (&[0x36, 5, 0, 1, b't', 0, 1], V4),
            (&[0x40, 0x82, 0, 0, 1], V4),
            (&[0xe0, 0], V4),
            (&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 1], V5),
            (&[0xd0, 1, 0], V5),
            (&[0x30, 7, 0, 1, b't', 3, 1, 0, 1], V5),
        ] {
            assert!(taken(bytes, level).is_err(), "{bytes:?}");
        }
    }
}
