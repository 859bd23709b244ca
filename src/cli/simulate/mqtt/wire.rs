//! The packets of MQTT 3.1.1 and 5 in one vocabulary. Pure: bytes in, bytes out.

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::{self, v4};
use rumqttc::v5::mqttbytes as mqttbytes5;
use rumqttc::v5::mqttbytes::v5;

use super::super::feed::Message;
use super::{Qos, Version};

/// No packet that a broker sends to a publisher is larger than a few properties.
const PACKET_BYTES_MAX: usize = 64 * 1024;

/// What a broker says to a publisher.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    Connected {
        session_present: bool,
        /// How many QoS 1 and 2 messages the broker lets be unacknowledged.
        receive_max: Option<u16>,
        packet_bytes_max: Option<u32>,
    },
    /// CONNACK with an error. A lasting one will be the same next time.
    Refused { reason: String, lasting: bool },
    /// PUBACK.
    Acknowledged(u16),
    /// PUBREC.
    Received(u16),
    /// PUBCOMP.
    Completed(u16),
    /// PUBACK or PUBREC with an error: the broker does not want this message.
    Rejected(u16),
    /// DISCONNECT, of version 5 only.
    Closing(String),
    /// Whatever else: a sign of life.
    Other,
}

/// What the broker sent is not MQTT.
#[derive(Debug, thiserror::Error)]
#[error("read a packet of the broker: {0}")]
pub struct WireError(String);

/// How a connection begins.
pub struct Hello<'a> {
    pub client_id: &'a str,
    /// User name and password.
    pub login: Option<(&'a str, &'a str)>,
    pub keep_alive_s: u16,
    pub clean: bool,
}

/// How long a broker keeps a version 5 session for a device that is away.
const SESSION_EXPIRY_S: u32 = 300;

impl Version {
    pub fn connect(self, hello: &Hello<'_>, out: &mut BytesMut) -> Result<(), WireError> {
        match self {
            Self::V311 => connect_v4(hello).write(out).map_err(told)?,
            Self::V5 => connect_v5(hello).write(out, None).map_err(told)?,
        };
        Ok(())
    }

    pub fn publish(self, message: &Message, head: Head, out: &mut BytesMut) -> Result<(), WireError> {
        let topic = message.place.topic.as_str();
        let payload = message.payload.clone();
        match self {
            Self::V311 => {
                let mut publish = v4::Publish::from_bytes(topic, qos_v4(head.qos), payload);
                (publish.pkid, publish.dup) = (head.pkid, head.dup);
                publish.write(out).map_err(told)?
            }
            Self::V5 => {
                let topic = Bytes::copy_from_slice(topic.as_bytes());
                let (qos, Head { pkid, dup, .. }) = (qos_v5(head.qos), head);
                let publish = v5::Publish { dup, qos, topic, pkid, payload, ..v5::Publish::default() };
                publish.write(out).map_err(told)?
            }
        };
        Ok(())
    }

    /// PUBREL.
    pub fn release(self, pkid: u16, out: &mut BytesMut) -> Result<(), WireError> {
        match self {
            Self::V311 => v4::PubRel::new(pkid).write(out).map_err(told)?,
            Self::V5 => v5::PubRel::new(pkid, None).write(out).map_err(told)?,
        };
        Ok(())
    }

    /// PINGREQ, the same in both versions.
    pub fn ping(self, out: &mut BytesMut) -> Result<(), WireError> {
        v4::PingReq.write(out).map_err(told)?;
        Ok(())
    }

    pub fn disconnect(self, out: &mut BytesMut) -> Result<(), WireError> {
        // The short form of version 5 (no reason, no properties) is the packet of version 3.1.1.
        v4::Disconnect.write(out).map_err(told)?;
        Ok(())
    }

    /// The next packet in `input`, `None` when it is not yet whole.
    pub fn read(self, input: &mut BytesMut) -> Result<Option<Incoming>, WireError> {
        match self {
            Self::V311 => match v4::Packet::read(input, PACKET_BYTES_MAX) {
                Ok(packet) => Ok(Some(from_v4(packet))),
                Err(mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
                Err(error) => Err(told(error)),
            },
            Self::V5 => match v5::Packet::read(input, Some(PACKET_BYTES_MAX as u32)) {
                Ok(packet) => Ok(Some(from_v5(packet))),
                Err(mqttbytes5::Error::InsufficientBytes(_)) => Ok(None),
                Err(error) => Err(told(error)),
            },
        }
    }
}

/// The parts of a PUBLISH that are not the message's own.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    pub qos: Qos,
    /// 0 for QoS 0.
    pub pkid: u16,
    pub dup: bool,
}

fn told(error: impl std::fmt::Display) -> WireError {
    WireError(error.to_string())
}

fn connect_v4(hello: &Hello<'_>) -> v4::Connect {
    let mut connect = v4::Connect::new(hello.client_id);
    connect.keep_alive = hello.keep_alive_s;
    connect.clean_session = hello.clean;
    connect.login = hello.login.map(|(user, password)| v4::Login::new(user, password));
    connect
}

fn connect_v5(hello: &Hello<'_>) -> v5::Packet {
    let mut properties = v5::ConnectProperties::new();
    // A session is asked for only where it matters, and never outlives the run by much.
    properties.session_expiry_interval = (!hello.clean).then_some(SESSION_EXPIRY_S);
    let connect = v5::Connect {
        keep_alive: hello.keep_alive_s,
        client_id: hello.client_id.into(),
        clean_start: hello.clean,
        properties: Some(properties),
    };
    v5::Packet::Connect(connect, None, hello.login.map(|(user, password)| v5::Login::new(user, password)))
}

fn from_v4(packet: v4::Packet) -> Incoming {
    match packet {
        v4::Packet::ConnAck(ack) if ack.code == v4::ConnectReturnCode::Success => {
            Incoming::Connected { session_present: ack.session_present, receive_max: None, packet_bytes_max: None }
        }
        v4::Packet::ConnAck(ack) => {
            let lasting = ack.code != v4::ConnectReturnCode::ServiceUnavailable;
            Incoming::Refused { reason: format!("{:?}", ack.code), lasting }
        }
        v4::Packet::PubAck(ack) => Incoming::Acknowledged(ack.pkid),
        v4::Packet::PubRec(rec) => Incoming::Received(rec.pkid),
        v4::Packet::PubComp(comp) => Incoming::Completed(comp.pkid),
        _ => Incoming::Other,
    }
}

fn from_v5(packet: v5::Packet) -> Incoming {
    match packet {
        v5::Packet::ConnAck(ack) => from_connack_v5(&ack),
        v5::Packet::PubAck(ack) => match ack.reason {
            v5::PubAckReason::Success | v5::PubAckReason::NoMatchingSubscribers => Incoming::Acknowledged(ack.pkid),
            _ => Incoming::Rejected(ack.pkid),
        },
        v5::Packet::PubRec(rec) => match rec.reason {
            v5::PubRecReason::Success | v5::PubRecReason::NoMatchingSubscribers => Incoming::Received(rec.pkid),
            _ => Incoming::Rejected(rec.pkid),
        },
        v5::Packet::PubComp(comp) => Incoming::Completed(comp.pkid),
        v5::Packet::Disconnect(disconnect) => Incoming::Closing(format!("{:?}", disconnect.reason_code)),
        _ => Incoming::Other,
    }
}

fn from_connack_v5(ack: &v5::ConnAck) -> Incoming {
    use v5::ConnectReturnCode as Code;
    if ack.code == Code::Success {
        let properties = ack.properties.as_ref();
        return Incoming::Connected {
            session_present: ack.session_present,
            receive_max: properties.and_then(|properties| properties.receive_max),
            packet_bytes_max: properties.and_then(|properties| properties.max_packet_size),
        };
    }
    let passing = [Code::ServerUnavailable, Code::ServerBusy, Code::QuotaExceeded, Code::ConnectionRateExceeded];
    Incoming::Refused { reason: format!("{:?}", ack.code), lasting: !passing.contains(&ack.code) }
}

fn qos_v4(qos: Qos) -> mqttbytes::QoS {
    match qos {
        Qos::AtMostOnce => mqttbytes::QoS::AtMostOnce,
        Qos::AtLeastOnce => mqttbytes::QoS::AtLeastOnce,
        Qos::ExactlyOnce => mqttbytes::QoS::ExactlyOnce,
    }
}

fn qos_v5(qos: Qos) -> mqttbytes5::QoS {
    match qos {
        Qos::AtMostOnce => mqttbytes5::QoS::AtMostOnce,
        Qos::AtLeastOnce => mqttbytes5::QoS::AtLeastOnce,
        Qos::ExactlyOnce => mqttbytes5::QoS::ExactlyOnce,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;

    use super::super::super::feed::Place;
    use super::*;

    fn read_all(version: Version, bytes: &[u8]) -> Vec<Incoming> {
        let mut input = BytesMut::from(bytes);
        std::iter::from_fn(|| version.read(&mut input).unwrap()).collect()
    }

    #[test]
    fn reads_answers_of_both_versions() {
        let acks = [0x40, 2, 0, 7, 0x50, 2, 0, 8, 0x70, 2, 0, 9, 0xD0, 0];
        let expected = [Incoming::Acknowledged(7), Incoming::Received(8), Incoming::Completed(9), Incoming::Other];
        assert_eq!(read_all(Version::V311, &acks), expected);
        assert_eq!(read_all(Version::V5, &acks), expected);
        // Reasons "no matching subscribers" and "quota exceeded".
        let reasons = [0x40, 3, 0, 7, 0x10, 0x40, 3, 0, 8, 0x97];
        assert_eq!(read_all(Version::V5, &reasons), [Incoming::Acknowledged(7), Incoming::Rejected(8)]);
    }

    #[test]
    fn reads_the_limits_of_a_v5_connack() {
        let connack = [0x20, 11, 1, 0, 8, 0x21, 0, 20, 0x27, 0, 0, 4, 0];
        let limits = Incoming::Connected { session_present: true, receive_max: Some(20), packet_bytes_max: Some(1024) };
        assert_eq!(read_all(Version::V5, &connack), [limits]);
    }

    #[test]
    fn tells_lasting_refusals_from_passing_ones() {
        let lasting = |version, bytes: &[u8]| match read_all(version, bytes).remove(0) {
            Incoming::Refused { lasting, .. } => lasting,
            other => panic!("{other:?} is no refusal"),
        };
        assert!(!lasting(Version::V311, &[0x20, 2, 0, 3]), "service unavailable");
        assert!(lasting(Version::V311, &[0x20, 2, 0, 5]), "not authorized");
        assert!(!lasting(Version::V5, &[0x20, 3, 0, 0x89, 0]), "server busy");
        assert!(lasting(Version::V5, &[0x20, 3, 0, 0x86, 0]), "bad user name or password");
    }

    #[test]
    fn a_torn_packet_waits_and_nonsense_is_an_error() {
        for version in [Version::V311, Version::V5] {
            assert_eq!(version.read(&mut BytesMut::from(&[0x40, 2, 0][..])).unwrap(), None);
            assert!(version.read(&mut BytesMut::from(&[0xFF; 8][..])).is_err());
            assert!(version.read(&mut BytesMut::from(&[0x40, 0xFF, 0xFF, 0xFF, 0x7F][..])).is_err(), "256 MiB");
        }
    }

    #[test]
    fn writes_a_publish_that_reads_back() {
        let place = Arc::new(Place { topic: "a/b".into(), equipment: "e".into() });
        let message = Message { number: 0, place, payload: Bytes::from_static(b"{}") };
        let head = Head { qos: Qos::AtLeastOnce, pkid: 10, dup: true };
        let mut out = BytesMut::new();
        Version::V311.publish(&message, head, &mut out).unwrap();
        assert_eq!(&out[..], b"\x3A\x09\x00\x03a/b\x00\x0A{}");
        out.clear();
        Version::V5.publish(&message, head, &mut out).unwrap();
        assert_eq!(&out[..], b"\x3A\x0A\x00\x03a/b\x00\x0A\x00{}");
    }
}
