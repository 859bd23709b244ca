//! MQTT 3.1.1 and 5 as a server reads and writes it. Pure: bytes in, packets out.
//!
//! Everything that the standard forbids a client to send is refused here, with the reason code that v5 has for it; what
//! depends on a session's state is not seen here. Texts and payloads are borrowed from the packet, so that a reading
//! that nobody subscribes to is copied once: into its record. Why not a codec of others:
//! docs/decisions/0011-listener-codec.md.

mod ack;
mod connect;
mod properties;
mod publish;
mod read;
mod subscribe;
mod write;

#[cfg(test)]
mod tests;

pub use ack::{Acked, Disconnect};
pub use connect::{Connect, NotConnect, Will};
pub use properties::Forwarded;
pub use publish::{Outgoing, Publish, publish_length, write_publish};
pub use subscribe::{Filter, Subscribe, Unsubscribe};
pub use write::{
    ConnAck, write_ack, write_connack, write_disconnect, write_pingresp, write_refusal, write_suback, write_unsuback,
};

/// Protocol version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V311,
    V5,
}

impl Version {
    pub fn is_v5(self) -> bool {
        self == Version::V5
    }
}

/// v5 reason codes (2.4) that this server uses.
pub mod reason {
    pub const SUCCESS: u8 = 0x00;
    pub const WITH_WILL: u8 = 0x04;
    pub const NO_SUBSCRIPTION: u8 = 0x11;
    pub const UNSPECIFIED: u8 = 0x80;
    pub const MALFORMED: u8 = 0x81;
    pub const PROTOCOL_ERROR: u8 = 0x82;
    pub const UNSUPPORTED_VERSION: u8 = 0x84;
    pub const CLIENT_ID_INVALID: u8 = 0x85;
    pub const BAD_CREDENTIALS: u8 = 0x86;
    pub const NOT_AUTHORIZED: u8 = 0x87;
    pub const SERVER_UNAVAILABLE: u8 = 0x88;
    pub const SERVER_BUSY: u8 = 0x89;
    pub const SHUTTING_DOWN: u8 = 0x8B;
    pub const BAD_AUTH_METHOD: u8 = 0x8C;
    pub const KEEP_ALIVE_TIMEOUT: u8 = 0x8D;
    pub const TAKEN_OVER: u8 = 0x8E;
    pub const FILTER_INVALID: u8 = 0x8F;
    pub const TOPIC_INVALID: u8 = 0x90;
    pub const ID_NOT_FOUND: u8 = 0x92;
    pub const RECEIVE_MAXIMUM: u8 = 0x93;
    pub const ALIAS_INVALID: u8 = 0x94;
    pub const TOO_LARGE: u8 = 0x95;
    pub const QUOTA_EXCEEDED: u8 = 0x97;
    pub const FORMAT_INVALID: u8 = 0x99;
}

/// Packet types that a client may send (2.1.2).
pub mod kind {
    pub const CONNECT: u8 = 1;
    pub const PUBLISH: u8 = 3;
    pub const PUBACK: u8 = 4;
    pub const PUBREC: u8 = 5;
    pub const PUBREL: u8 = 6;
    pub const PUBCOMP: u8 = 7;
    pub const SUBSCRIBE: u8 = 8;
    pub const UNSUBSCRIBE: u8 = 10;
    pub const PINGREQ: u8 = 12;
    pub const DISCONNECT: u8 = 14;
    pub const AUTH: u8 = 15;
}

/// A packet that ends its connection: a v5 reason code and words for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("understand the client: {what}")]
pub struct Refused {
    pub code: u8,
    pub what: &'static str,
}

impl Refused {
    pub const fn malformed(what: &'static str) -> Self {
        Refused { code: reason::MALFORMED, what }
    }

    pub const fn protocol(what: &'static str) -> Self {
        Refused { code: reason::PROTOCOL_ERROR, what }
    }

    pub const fn new(code: u8, what: &'static str) -> Self {
        Refused { code, what }
    }
}

/// A fixed header (2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub first: u8,
    /// Bytes of the fixed header itself.
    pub length: usize,
    pub remaining: usize,
}

impl Head {
    /// `None`: the header is not complete yet.
    ///
    /// # Errors
    /// A remaining length of more than four bytes.
    pub fn peek(input: &[u8]) -> Result<Option<Head>, Refused> {
        let Some((&first, rest)) = input.split_first() else { return Ok(None) };
        match read::varint(rest)? {
            Some((remaining, bytes)) => Ok(Some(Head { first, length: 1 + bytes, remaining: remaining as usize })),
            None => Ok(None),
        }
    }

    pub fn kind(self) -> u8 {
        self.first >> 4
    }

    pub fn qos(self) -> u8 {
        (self.first >> 1) & 3
    }

    /// Bytes of the whole packet.
    pub fn total(self) -> usize {
        self.length + self.remaining
    }

    /// The flags of the fixed header are fixed for all but PUBLISH [MQTT-2.1.3-1]; a server takes no packet that only
    /// servers send.
    ///
    /// # Errors
    /// What is wrong with the first byte.
    pub fn check(self) -> Result<(), Refused> {
        let flags = self.first & 0x0f;
        match self.kind() {
            kind::PUBLISH if self.qos() == 3 => Err(Refused::malformed("a PUBLISH of QoS 3")),
            kind::PUBLISH if flags & 0b1110 == 0b1000 => Err(Refused::malformed("a PUBLISH of QoS 0 with DUP")),
            kind::PUBLISH => Ok(()),
            kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE if flags != 2 => {
                Err(Refused::malformed("wrong flags in the fixed header"))
            }
            kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => Ok(()),
            kind::CONNECT
            | kind::PUBACK
            | kind::PUBREC
            | kind::PUBCOMP
            | kind::PINGREQ
            | kind::DISCONNECT
            | kind::AUTH => {
                if flags == 0 {
                    Ok(())
                } else {
                    Err(Refused::malformed("wrong flags in the fixed header"))
                }
            }
            0 => Err(Refused::malformed("packet type 0")),
            _ => Err(Refused::protocol("a packet that only servers send")),
        }
    }
}

/// A packet of a client but CONNECT, borrowed from its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    Publish(Publish<'a>),
    PubAck(Acked),
    PubRec(Acked),
    PubRel(Acked),
    PubComp(Acked),
    Subscribe(Subscribe<'a>),
    Unsubscribe(Unsubscribe<'a>),
    PingReq,
    Disconnect(Disconnect),
}

/// Reads one whole packet; `frame` is exactly `head.total()` bytes long.
///
/// # Errors
/// [`Refused`] for everything that a client may not send after its CONNECT.
pub fn decode(version: Version, head: Head, frame: &[u8]) -> Result<Packet<'_>, Refused> {
    head.check()?;
    // 3.1.1 does not forbid it.
    if version.is_v5() && head.length - 1 > properties::varint_length(head.remaining) {
        return Err(read::PADDED);
    }
    let body = frame.get(head.length..head.total()).ok_or(Refused::malformed("a packet cut short"))?;
    match head.kind() {
        kind::PUBLISH => publish::read(version, head, body).map(Packet::Publish),
        kind::PUBACK => ack::read(version, body).map(Packet::PubAck),
        kind::PUBREC => ack::read(version, body).map(Packet::PubRec),
        kind::PUBREL => ack::read(version, body).map(Packet::PubRel),
        kind::PUBCOMP => ack::read(version, body).map(Packet::PubComp),
        kind::SUBSCRIBE => subscribe::read(version, body).map(Packet::Subscribe),
        kind::UNSUBSCRIBE => subscribe::read_unsubscribe(version, body).map(Packet::Unsubscribe),
        kind::PINGREQ if body.is_empty() => Ok(Packet::PingReq),
        kind::PINGREQ => Err(Refused::malformed("a PINGREQ with a body")),
        kind::DISCONNECT => ack::read_disconnect(version, body).map(Packet::Disconnect),
        kind::CONNECT => Err(Refused::protocol("a second CONNECT")),
        // Only a CONNACK may have the code for a bad method [MQTT-3.14.2-1].
        kind::AUTH if version.is_v5() => Err(Refused::protocol("AUTH, which is not offered")),
        _ => Err(Refused::malformed("an unknown packet type")),
    }
}

/// Reads a CONNECT.
///
/// # Errors
/// [`NotConnect`]
pub fn decode_connect(head: Head, frame: &[u8]) -> Result<Connect, NotConnect> {
    head.check().map_err(NotConnect::Silent)?;
    let body = frame.get(head.length..head.total()).ok_or(NotConnect::Silent(Refused::malformed("cut short")))?;
    connect::read(body)
}
