//! MQTT 3.1.1 and 5 packets, written and read byte by byte. Pure.
//!
//! Written for the tests alone and shared with nobody: what judges the server must not share its mistakes. The writer
//! can say anything, also what the standard forbids; the reader takes nothing that the standard forbids a server.

use bytes::{Buf, Bytes, BytesMut};

pub const V4: u8 = 4;
pub const V5: u8 = 5;

/// Properties of version 5 by their identifiers (MQTT 5, table 2-4).
pub mod id {
    pub const PAYLOAD_FORMAT: u8 = 0x01;
    pub const MESSAGE_EXPIRY: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_ID: u8 = 0x0b;
    pub const SESSION_EXPIRY: u8 = 0x11;
    pub const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const AUTH_METHOD: u8 = 0x15;
    pub const AUTH_DATA: u8 = 0x16;
    pub const REQUEST_PROBLEM: u8 = 0x17;
    pub const WILL_DELAY: u8 = 0x18;
    pub const REQUEST_RESPONSE: u8 = 0x19;
    pub const RESPONSE_INFORMATION: u8 = 0x1a;
    pub const REASON_STRING: u8 = 0x1f;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const MAXIMUM_QOS: u8 = 0x24;
    pub const RETAIN_AVAILABLE: u8 = 0x25;
    pub const USER_PROPERTY: u8 = 0x26;
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub const WILDCARDS_AVAILABLE: u8 = 0x28;
    pub const SUBSCRIPTION_IDS_AVAILABLE: u8 = 0x29;
    pub const SHARED_AVAILABLE: u8 = 0x2a;
}

/// Any packet: its first byte and what follows the length.
pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    out.extend(var(body.len() as u32));
    out.extend_from_slice(body);
    out
}

/// A variable byte integer.
pub fn var(mut number: u32) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = (number & 0x7f) as u8;
        number >>= 7;
        out.push(if number > 0 { byte | 0x80 } else { byte });
        if number == 0 {
            return out;
        }
    }
}

/// A string or binary data, behind its length.
pub fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = text.as_ref();
    let length = u16::try_from(bytes.len()).expect("at most 65,535 bytes");
    [&length.to_be_bytes(), bytes].concat()
}

/// Properties, in the order in which they are added.
#[derive(Debug, Clone, Default)]
pub struct Props(Vec<u8>);

impl Props {
    pub fn new() -> Props {
        Props::default()
    }

    pub fn byte(self, id: u8, value: u8) -> Props {
        self.raw(id, &[value])
    }

    pub fn two(self, id: u8, value: u16) -> Props {
        self.raw(id, &value.to_be_bytes())
    }

    pub fn four(self, id: u8, value: u32) -> Props {
        self.raw(id, &value.to_be_bytes())
    }

    pub fn var(self, id: u8, value: u32) -> Props {
        self.raw(id, &var(value))
    }

    pub fn text(self, id: u8, value: impl AsRef<[u8]>) -> Props {
        self.raw(id, &text(value))
    }

    pub fn pair(self, name: &str, value: &str) -> Props {
        self.raw(id::USER_PROPERTY, &[text(name), text(value)].concat())
    }

    pub fn raw(mut self, id: u8, value: &[u8]) -> Props {
        self.0.push(id);
        self.0.extend_from_slice(value);
        self
    }

    /// With their length before them; nothing at all before version 5.
    fn encoded(&self, level: u8) -> Vec<u8> {
        if level < V5 {
            assert!(self.0.is_empty(), "version 4 has no properties");
            return Vec::new();
        }
        [var(self.0.len() as u32), self.0.clone()].concat()
    }
}

/// CONNECT. Clean, with a keep-alive of 60 s and no will.
#[derive(Debug, Clone)]
pub struct Connect {
    pub level: u8,
    pub name: Vec<u8>,
    pub clean: bool,
    pub keep_alive: u16,
    pub client_id: Vec<u8>,
    pub will: Option<Will>,
    pub user: Option<Vec<u8>>,
    pub password: Option<Vec<u8>>,
    pub props: Props,
    /// Bits of the connect flags to turn over.
    pub twist: u8,
}

#[derive(Debug, Clone)]
pub struct Will {
    pub topic: Vec<u8>,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub props: Props,
}

impl Will {
    pub fn new(topic: &str, payload: &str) -> Will {
        Will { topic: topic.into(), payload: payload.into(), qos: 1, retain: false, props: Props::new() }
    }
}

impl Connect {
    pub fn new(level: u8, client_id: &str) -> Connect {
        Connect {
            level,
            name: b"MQTT".to_vec(),
            clean: true,
            keep_alive: 60,
            client_id: client_id.into(),
            will: None,
            user: None,
            password: None,
            props: Props::new(),
            twist: 0,
        }
    }

    /// A session that is kept: 300 s in version 5.
    pub fn kept(mut self) -> Connect {
        self.clean = false;
        if self.level == V5 {
            self.props = self.props.four(id::SESSION_EXPIRY, 300);
        }
        self
    }

    pub fn will(mut self, will: Will) -> Connect {
        self.will = Some(will);
        self
    }

    pub fn props(mut self, props: Props) -> Connect {
        self.props.0.extend(props.0);
        self
    }

    pub fn login(mut self, user: &str, password: &str) -> Connect {
        self.user = Some(user.into());
        self.password = Some(password.into());
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut flags = if self.clean { 0b10 } else { 0 };
        if let Some(will) = &self.will {
            flags |= 0b100 | will.qos << 3 | u8::from(will.retain) << 5;
        }
        flags |= u8::from(self.password.is_some()) << 6 | u8::from(self.user.is_some()) << 7;
        let mut body = text(&self.name);
        body.extend([self.level, flags ^ self.twist]);
        body.extend(self.keep_alive.to_be_bytes());
        body.extend(self.props.encoded(self.level));
        body.extend(text(&self.client_id));
        if let Some(will) = &self.will {
            body.extend(will.props.encoded(self.level));
            body.extend(text(&will.topic));
            body.extend(text(&will.payload));
        }
        body.extend(self.user.iter().chain(&self.password).flat_map(text));
        frame(0x10, &body)
    }
}

/// PUBLISH, from whichever side.
#[derive(Debug, Clone, Default)]
pub struct Publish {
    pub topic: Vec<u8>,
    pub qos: u8,
    pub dup: bool,
    pub retain: bool,
    /// 0 and left out at QoS 0.
    pub id: u16,
    pub payload: Vec<u8>,
    pub props: Props,
}

impl Publish {
    pub fn new(topic: &str, qos: u8, id: u16, payload: impl AsRef<[u8]>) -> Publish {
        Publish { topic: topic.into(), qos, id, payload: payload.as_ref().to_vec(), ..Publish::default() }
    }

    pub fn retain(mut self) -> Publish {
        self.retain = true;
        self
    }

    pub fn dup(mut self) -> Publish {
        self.dup = true;
        self
    }

    pub fn props(mut self, props: Props) -> Publish {
        self.props = props;
        self
    }

    pub fn bytes(&self, level: u8) -> Vec<u8> {
        let first = 0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        let mut body = text(&self.topic);
        if self.qos > 0 {
            body.extend(self.id.to_be_bytes());
        }
        body.extend(self.props.encoded(level));
        body.extend(&self.payload);
        frame(first, &body)
    }
}

/// SUBSCRIBE with filters and their options bytes.
pub fn subscribe(level: u8, id: u16, filters: &[(&str, u8)], props: &Props) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend(props.encoded(level));
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(*options);
    }
    frame(0x82, &body)
}

pub fn unsubscribe(level: u8, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend(Props::new().encoded(level));
    body.extend(filters.iter().flat_map(text));
    frame(0xa2, &body)
}

pub fn puback(id: u16) -> Vec<u8> {
    frame(0x40, &id.to_be_bytes())
}

pub fn pubrec(id: u16) -> Vec<u8> {
    frame(0x50, &id.to_be_bytes())
}

pub fn pubrel(id: u16) -> Vec<u8> {
    frame(0x62, &id.to_be_bytes())
}

pub fn pubcomp(id: u16) -> Vec<u8> {
    frame(0x70, &id.to_be_bytes())
}

pub const PINGREQ: [u8; 2] = [0xc0, 0];
pub const DISCONNECT: [u8; 2] = [0xe0, 0];

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
