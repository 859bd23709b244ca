//! Beside the codecs of others: the same packets mean the same; and what rumqttd's lets through, which is why it is not
//! ours (docs/decisions/0011-listener-codec.md).

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use rumqttd::protocol::{self as theirs, Protocol};

use super::super::*;

fn user() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(("[a-z]{0,8}", "[a-zé]{0,8}"), 0..4)
}

#[derive(Debug, Clone)]
struct Case {
    topic: String,
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
    content_type: Option<String>,
    correlation: Option<Vec<u8>>,
    expiry: Option<u32>,
    user: Vec<(String, String)>,
}

fn case() -> impl Strategy<Value = Case> {
    let text = prop::option::of("[a-z/]{0,20}");
    let bytes = prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
    let rest = (text, bytes, prop::option::of(1u32..), user());
    ("[a-zé/]{1,40}", prop::collection::vec(any::<u8>(), 0..400), 0u8..3, any::<bool>(), rest).prop_map(
        |(topic, payload, qos, retain, (content_type, correlation, expiry, user))| Case {
            topic,
            payload,
            qos,
            retain,
            content_type,
            correlation,
            expiry,
            user,
        },
    )
}

fn forwarded(case: &Case) -> Forwarded {
    let mut forwarded = Forwarded::default();
    forwarded.properties.content_type.clone_from(&case.content_type);
    forwarded.properties.correlation_data = case.correlation.clone().map(Bytes::from);
    forwarded.properties.message_expiry_s = case.expiry;
    forwarded.properties.user.clone_from(&case.user);
    forwarded
}

fn write(version: Version, case: &Case) -> BytesMut {
    let forwarded = forwarded(case);
    let message = Outgoing {
        topic: &case.topic,
        payload: &case.payload,
        packet_id: if case.qos > 0 { 7 } else { 0 },
        qos: case.qos,
        retain: case.retain,
        dup: false,
        forwarded: &forwarded,
        expiry_s: case.expiry,
        subscription_ids: &[],
    };
    let mut out = BytesMut::new();
    write_publish(version, &message, &mut out);
    out
}

proptest! {
    #[test]
    fn what_we_write_they_read(case in case()) {
        let mut four = write(Version::V311, &case);
        let Ok(theirs::Packet::Publish(read, None)) = theirs::v4::V4.read_mut(&mut four, 1 << 20) else { panic!() };
        prop_assert_eq!((&read.topic[..], &read.payload[..]), (case.topic.as_bytes(), &case.payload[..]));
        let mut five = write(Version::V5, &case);
        let Ok(theirs::Packet::Publish(read, properties)) = theirs::v5::V5.read_mut(&mut five, 1 << 20) else { panic!() };
        prop_assert_eq!((&read.topic[..], &read.payload[..]), (case.topic.as_bytes(), &case.payload[..]));
        let properties = properties.unwrap_or_default();
        prop_assert_eq!(properties.user_properties, case.user);
        prop_assert_eq!(properties.content_type, case.content_type);
        prop_assert_eq!(properties.correlation_data.map(|data| data.to_vec()), case.correlation);
        prop_assert_eq!(properties.message_expiry_interval, case.expiry);
    }

    #[test]
    fn what_they_write_we_read(case in case()) {
        use rumqttc::v5::mqttbytes::{QoS, v5};
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(case.qos)];
        let properties = v5::PublishProperties {
            content_type: case.content_type.clone(),
            correlation_data: case.correlation.clone().map(Bytes::from),
            message_expiry_interval: case.expiry,
            user_properties: case.user.clone(),
            ..Default::default()
        };
        let mut publish = v5::Publish::new(case.topic.as_str(), qos, case.payload.clone(), Some(properties));
        publish.retain = case.retain;
        publish.pkid = if case.qos > 0 { 7 } else { 0 };
        let mut out = BytesMut::new();
        publish.write(&mut out).unwrap();
        let head = Head::peek(&out).unwrap().unwrap();
        prop_assert_eq!(head.total(), out.len());
        let Ok(Packet::Publish(read)) = decode(Version::V5, head, &out) else { panic!() };
        prop_assert_eq!((read.topic, read.payload), (case.topic.as_str(), &case.payload[..]));
        prop_assert_eq!((read.qos, read.retain), (case.qos, case.retain));
        prop_assert_eq!(read.forwarded, forwarded(&case));
    }
}

/// Reads a whole packet with rumqttd's codec.
fn they_accept(version: Version, bytes: &[u8]) -> bool {
    let mut bytes = BytesMut::from(bytes);
    match version {
        Version::V311 => theirs::v4::V4.read_mut(&mut bytes, 1 << 20).is_ok(),
        Version::V5 => theirs::v5::V5.read_mut(&mut bytes, 1 << 20).is_ok(),
    }
}

fn we_accept(version: Version, bytes: &[u8]) -> bool {
    let head = Head::peek(bytes).unwrap().unwrap();
    match head.kind() {
        kind::CONNECT => decode_connect(head, bytes).is_ok(),
        _ => decode(version, head, bytes).is_ok(),
    }
}

#[test]
fn what_the_standard_forbids_and_rumqttd_accepts() {
    let forbidden: [(&str, Version, &[u8]); 9] = [
        ("a topic with a wildcard", Version::V311, b"\x30\x05\0\x03a/#"),
        ("DUP with QoS 0", Version::V311, b"\x38\x03\0\x01a"),
        ("the reserved flag of CONNECT", Version::V311, b"\x10\x0d\0\x04MQTT\x04\x03\0\0\0\x01d"),
        ("wrong flags of SUBSCRIBE", Version::V311, b"\x80\x06\0\x01\0\x01a\0"),
        ("packet id 0 of SUBSCRIBE", Version::V311, b"\x82\x06\0\0\0\x01a\0"),
        ("reserved subscription options", Version::V5, b"\x82\x07\0\x01\0\0\x01a\xc0"),
        ("a property twice", Version::V5, b"\x30\x0e\0\x01a\x0a\x02\0\0\0\x01\x02\0\0\0\x02"),
        ("a property that ends in the payload", Version::V5, b"\x30\x09\0\x01a\x01\x02\0\0\0\x01"),
        ("U+0000 in a text", Version::V5, b"\x30\x09\0\x01a\x04\x03\0\x01\0x"),
    ];
    for (name, version, bytes) in forbidden {
        assert!(they_accept(version, bytes), "{name}");
        assert!(!we_accept(version, bytes), "{name}");
    }
    // And what it may not refuse: a password is any bytes (3.1.3.6), and AUTH has an answer.
    let password = b"\x10\x15\0\x04MQTT\x05\xc2\0\0\0\0\x01d\0\x01u\0\x02\xff\0";
    assert!(!they_accept(Version::V5, password));
    assert!(we_accept(Version::V5, password));
}
