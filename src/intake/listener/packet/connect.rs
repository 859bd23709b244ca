//! CONNECT (3.1).

use bytes::Bytes;

use super::properties::{self, Allowed, Forwarded, Value, id};
use super::read::{Reader, is_topic};
use super::{Refused, Version, reason};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    pub version: Version,
    /// Empty: the server assigns one.
    pub client_id: String,
    pub clean_start: bool,
    /// 0: never.
    pub keep_alive_s: u16,
    pub user: Option<String>,
    pub password: Option<Vec<u8>>,
    pub will: Option<Will>,
    /// v5 only; 0 when it is absent, `u32::MAX` is for ever.
    pub session_expiry_s: u32,
    /// How many QoS 1 and 2 messages the client takes at once; `u16::MAX` in 3.1.1.
    pub receive_maximum: u16,
    /// The largest packet that the client takes.
    pub packet_size_max: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    pub topic: String,
    pub payload: Bytes,
    pub qos: u8,
    pub retain: bool,
    pub delay_s: u32,
    pub forwarded: Forwarded,
}

/// Why a first packet opens no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotConnect {
    /// It is closed without an answer: the client's version is not known.
    Silent(Refused),
    /// CONNACK in the form of this version, with this v5 reason code.
    Answered(Version, Refused),
}

impl NotConnect {
    pub fn refused(self) -> Refused {
        match self {
            NotConnect::Silent(refused) | NotConnect::Answered(_, refused) => refused,
        }
    }
}

const UNSUPPORTED: Refused = Refused::new(reason::UNSUPPORTED_VERSION, "an unknown protocol version");

const CONNECT: Allowed = Allowed::of(&[
    id::SESSION_EXPIRY,
    id::RECEIVE_MAXIMUM,
    id::PACKET_SIZE_MAXIMUM,
    id::TOPIC_ALIAS_MAXIMUM,
    id::REQUEST_RESPONSE,
    id::REQUEST_PROBLEM,
    id::USER,
    id::AUTH_METHOD,
    id::AUTH_DATA,
]);
const WILL: Allowed = Allowed::of(&[
    id::WILL_DELAY,
    id::PAYLOAD_FORMAT,
    id::MESSAGE_EXPIRY,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER,
]);

pub(super) fn read(body: &[u8]) -> Result<Connect, NotConnect> {
    let mut from = Reader::new(body);
    let version = read_version(&mut from)?;
    read_rest(version, from).map_err(|refused| match version {
        // 3.1.1 has no code for it: the connection is closed.
        Version::V311 => NotConnect::Silent(refused),
        Version::V5 => NotConnect::Answered(version, refused),
    })
}

/// Name and level [MQTT-3.1.2-1] [MQTT-3.1.2-2].
fn read_version(from: &mut Reader<'_>) -> Result<Version, NotConnect> {
    let name = from.text().map_err(NotConnect::Silent)?;
    let level = from.u8().map_err(NotConnect::Silent)?;
    match (name, level) {
        ("MQTT", 4) => Ok(Version::V311),
        ("MQTT", 5) => Ok(Version::V5),
        ("MQTT", 0..=3) | ("MQIsdp", 3) => Err(NotConnect::Answered(Version::V311, UNSUPPORTED)),
        ("MQTT", _) => Err(NotConnect::Answered(Version::V5, UNSUPPORTED)),
        _ => Err(NotConnect::Silent(Refused::protocol("another protocol"))),
    }
}

fn read_rest(version: Version, mut from: Reader<'_>) -> Result<Connect, Refused> {
    let flags = Flags::check(version, from.u8()?)?;
    let mut connect = Connect {
        version,
        client_id: String::new(),
        clean_start: flags.0 & 2 != 0,
        keep_alive_s: from.u16()?,
        user: None,
        password: None,
        will: None,
        session_expiry_s: 0,
        receive_maximum: u16::MAX,
        packet_size_max: u32::MAX,
    };
    if version.is_v5() {
        read_properties(&mut from, &mut connect)?;
    }
    from.text()?.clone_into(&mut connect.client_id);
    if flags.has_will() {
        connect.will = Some(read_will(version, flags, &mut from)?);
    }
    if flags.0 & 0x80 != 0 {
        connect.user = Some(from.text()?.to_owned());
    }
    if flags.0 & 0x40 != 0 {
        connect.password = Some(from.binary()?.to_vec());
    }
    from.end()?;
    Ok(connect)
}

#[derive(Clone, Copy)]
struct Flags(u8);

impl Flags {
    fn check(version: Version, flags: u8) -> Result<Self, Refused> {
        let will = flags & 4 != 0;
        if flags & 1 != 0 {
            return Err(Refused::malformed("the reserved flag of CONNECT")); // [MQTT-3.1.2-3]
        }
        if !will && flags & 0x38 != 0 {
            return Err(Refused::malformed("QoS or retain of a will that is not there")); // [MQTT-3.1.2-11], -13
        }
        if flags & 0x18 == 0x18 {
            return Err(Refused::malformed("a will of QoS 3")); // [MQTT-3.1.2-12]
        }
        if version == Version::V311 && flags & 0xc0 == 0x40 {
            return Err(Refused::malformed("a password without a user")); // 3.1.1 [MQTT-3.1.2-22]
        }
        Ok(Flags(flags))
    }

    fn has_will(self) -> bool {
        self.0 & 4 != 0
    }
}

fn read_properties(from: &mut Reader<'_>, connect: &mut Connect) -> Result<(), Refused> {
    let (mut method, mut data) = (false, false);
    properties::read(from, CONNECT, |id, value| {
        match (id, value) {
            (id::SESSION_EXPIRY, Value::U32(seconds)) => connect.session_expiry_s = seconds,
            (id::RECEIVE_MAXIMUM, Value::U16(0)) => return Err(Refused::protocol("a receive maximum of 0")),
            (id::RECEIVE_MAXIMUM, Value::U16(count)) => connect.receive_maximum = count,
            (id::PACKET_SIZE_MAXIMUM, Value::U32(0)) => return Err(Refused::protocol("a packet size of 0")),
            (id::PACKET_SIZE_MAXIMUM, Value::U32(bytes)) => connect.packet_size_max = bytes,
            (id::AUTH_METHOD, _) => method = true,
            (id::AUTH_DATA, _) => data = true,
            // We send no aliases, no response information and few reasons: nothing to remember.
            _ => {}
        }
        Ok(())
    })?;
    match (method, data) {
        (true, _) => Err(Refused::new(reason::BAD_AUTH_METHOD, "enhanced authentication, which is not offered")),
        (false, true) => Err(Refused::protocol("authentication data without a method")),
        (false, false) => Ok(()),
    }
}

fn read_will(version: Version, flags: Flags, from: &mut Reader<'_>) -> Result<Will, Refused> {
    let mut will = Will {
        topic: String::new(),
        payload: Bytes::new(),
        qos: (flags.0 >> 3) & 3,
        retain: flags.0 & 0x20 != 0,
        delay_s: 0,
        forwarded: Forwarded::default(),
    };
    if version.is_v5() {
        properties::read(from, WILL, |id, value| {
            if let (id::WILL_DELAY, Value::U32(seconds)) = (id, value) {
                will.delay_s = seconds;
            }
            will.forwarded.take(id, value).map(drop)
        })?;
    }
    from.text()?.clone_into(&mut will.topic);
    if !is_topic(&will.topic) {
        return Err(Refused::new(reason::TOPIC_INVALID, "a will with a topic that is no topic name"));
    }
    will.payload = Bytes::copy_from_slice(from.binary()?);
    if will.forwarded.is_text && std::str::from_utf8(&will.payload).is_err() {
        return Err(Refused::new(reason::FORMAT_INVALID, "a will that says it is UTF-8 and is not"));
    }
    Ok(will)
}
