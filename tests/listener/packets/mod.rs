//! MQTT 3.1.1 and 5 packets, written and read byte by byte. Pure.
//!
//! Written for the tests alone and shared with nobody: what judges the server must not share its mistakes. The writer
//! can say anything, also what the standard forbids; the reader takes nothing that the standard forbids a server.

mod read;

pub use read::{Ack, Message, Packet, Properties, take};

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
