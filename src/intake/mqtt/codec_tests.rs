#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use proptest::prelude::*;

use super::super::tests::support::{frame, publish as raw_publish, source};
use super::*;
use crate::config::Secret;
use MqttVersion::{V5, V311};

fn read(version: MqttVersion, bytes: &[u8]) -> Result<Inbound, Malformed> {
    let head = Head::peek(bytes)?.unwrap();
    assert_eq!(head.total(), bytes.len(), "one whole packet");
    decode(version, head, Bytes::copy_from_slice(bytes))
}

fn taken(version: MqttVersion, bytes: &[u8]) -> Publish {
    match read(version, bytes).unwrap() {
        Inbound::Publish(publish) => publish,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_remaining_length_of_five_bytes_is_refused_and_one_of_four_is_not() {
    assert!(Head::peek(&[0x30, 0xff, 0xff, 0xff, 0xff]).is_err());
    assert!(Head::peek(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
    let head = Head::peek(&[0x30, 0xff, 0xff, 0xff, 0x7f]).unwrap().unwrap();
    assert_eq!((head.length, head.remaining), (5, 268_435_455));
    assert_eq!(Head::peek(&[0x30, 0xff, 0xff]).unwrap(), None);
    assert_eq!(Head::peek(&[]).unwrap(), None);
}

#[test]
fn the_short_disconnect_of_mosquitto_keeps_its_reason() {
    assert_eq!(read(V5, &[0xe0, 1, 0x8e]).unwrap(), Inbound::Disconnect { code: 0x8e });
    assert_eq!(read(V5, &[0xe0, 2, 0x8e, 0]).unwrap(), Inbound::Disconnect { code: 0x8e });
    assert_eq!(read(V5, &[0xe0, 0]).unwrap(), Inbound::Disconnect { code: 0 });
}

#[test]
fn a_whole_packet_is_never_taken_for_a_part() {
    // The v5 property length is missing: rumqttc says "more bytes needed", and would have swallowed the packet.
    for bytes in [&[0x20, 2, 0, 0][..], &[0x90, 2, 0, 1], &[0x32, 5, 0, 1, b't', 0, 9]] {
        assert!(read(V5, bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn what_a_server_may_not_send_is_refused() {
    let connect = frame(0x10, b"\0\x04MQTT\x04\0\0\0\0\0");
    let packets: [&[u8]; 8] = [
        &connect,
        &[0x82, 6, 0, 1, 0, 1, b'a', 0],
        &[0xc0, 0],
        &[0x00, 0],
        &[0xf0, 0],
        &[0x40, 2, 0, 1],
        &[0x36, 5, 0, 1, b't', 0, 9],
        &[0x32, 5, 0, 1, b't', 0, 0],
    ];
    for bytes in packets {
        for version in [V311, V5] {
            assert!(read(version, bytes).is_err(), "{bytes:?}");
        }
    }
}

#[test]
fn a_topic_that_is_none_is_taken_for_the_dead_letters() {
    for topic in [&b"a/+"[..], b"#", b"", b"a\0b", b"\xff\xfe"] {
        for version in [V311, V5] {
            let publish = taken(version, &raw_publish(version, 1, 5, topic, b"payload"));
            assert_eq!((publish.pkid, publish.qos, &publish.payload[..]), (5, 1, &b"payload"[..]));
            assert!(publish.unfit.is_some(), "{topic:?}");
        }
    }
}

#[test]
fn strange_but_legal_topics_are_readings() {
    for topic in ["/", "$SYS/x", "a b/\t\u{202e}é", "{{x}}/%s/../../etc/passwd"] {
        for version in [V311, V5] {
            let publish = taken(version, &raw_publish(version, 0, 0, topic.as_bytes(), b""));
            assert_eq!((publish.topic.as_str(), publish.unfit), (topic, None));
        }
    }
}

#[test]
fn properties_of_v5_reach_the_reading() {
    let properties = v5::PublishProperties {
        message_expiry_interval: Some(60),
        response_topic: Some("r".to_owned()),
        correlation_data: Some(Bytes::from_static(b"c")),
        user_properties: vec![("traceparent".to_owned(), "00-1".to_owned()), ("a".to_owned(), "b".to_owned())],
        content_type: Some("application/json".to_owned()),
        ..Default::default()
    };
    let mut sent = v5::Publish::new("t", shared5::QoS::AtLeastOnce, Bytes::from_static(b"p"), Some(properties.clone()));
    sent.pkid = 3;
    let mut bytes = BytesMut::new();
    sent.write(&mut bytes).unwrap();
    let read = taken(V5, &bytes);
    assert_eq!(read.properties, super::properties(properties));
    assert_eq!((&read.payload[..], read.pkid), (&b"p"[..], 3));
}

#[test]
fn a_subscription_identifier_does_not_shift_the_payload() {
    // Properties: subscription identifier 5, then content type "x".
    let body = b"\0\x01t\0\x09\x06\x0b\x05\x03\0\x01xpayload";
    let publish = taken(V5, &frame(0x32, body));
    assert_eq!(&publish.payload[..], b"payload");
}

#[test]
fn connect_says_what_the_config_says() {
    let mut config = source(1883, V5);
    config.user = Some("u".to_owned());
    config.password = Some(Secret::new("p".to_owned()));
    config.keep_alive = Duration::from_secs(100_000);
    let mut out = BytesMut::new();
    write_connect(&config, &mut out).unwrap();
    let head = Head::peek(&out).unwrap().unwrap();
    let (connect, will, login) = v5::Connect::read(header5(head), out.freeze()).unwrap();
    let properties = connect.properties.unwrap();
    assert!(!connect.clean_start && will.is_none());
    assert_eq!((connect.keep_alive, connect.client_id.as_str()), (65_535, "fb-test-plant"));
    assert_eq!((properties.receive_maximum, properties.max_packet_size), (Some(100), Some(1 << 20)));
    assert_eq!((properties.topic_alias_max, properties.session_expiry_interval), (Some(0), Some(3600)));
    assert_eq!(login.unwrap().password, "p");

    config.version = V311;
    let mut out = BytesMut::new();
    write_connect(&config, &mut out).unwrap();
    let head = Head::peek(&out).unwrap().unwrap();
    let connect = v4::Connect::read(header4(head), out.freeze()).unwrap();
    assert!(!connect.clean_session && connect.last_will.is_none());
    assert_eq!(connect.login, Some(v4::Login::new("u", "p")));

    config.client_id = "x".repeat(65_536);
    assert!(write_connect(&config, &mut BytesMut::new()).is_err());
}

#[test]
fn qos_2_is_asked_for_as_1() {
    let filters = [Subscription { filter: "$share/g/a".to_owned(), qos: 2 }];
    for version in [V311, V5] {
        let mut out = BytesMut::new();
        write_subscribe(version, 7, &filters, &mut out);
        let options = out[out.len() - 1];
        assert_eq!(options & 3, 1);
    }
}

#[test]
fn acks_are_what_the_broker_s_codec_reads() {
    let mut out = BytesMut::new();
    write_puback(513, &mut out);
    assert_eq!(v4::Packet::read(&mut out.clone(), 99).unwrap(), v4::Packet::PubAck(v4::PubAck::new(513)));
    assert_eq!(v5::Packet::read(&mut out, None).unwrap(), v5::Packet::PubAck(v5::PubAck::new(513, None)));
}

fn versions() -> impl Strategy<Value = MqttVersion> {
    prop_oneof![Just(V311), Just(V5)]
}

proptest! {
    #[test]
    fn a_publish_comes_back_as_it_was_sent(
        version in versions(), qos in 0u8..=2, pkid in 1u16.., topic in "[^+#\0]{1,60}",
        payload in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        let publish = taken(version, &raw_publish(version, qos, pkid, topic.as_bytes(), &payload));
        prop_assert_eq!(&publish.topic, &topic);
        prop_assert_eq!(&publish.payload[..], &payload[..]);
        prop_assert_eq!((publish.qos, publish.pkid), (qos, if qos > 0 { pkid } else { 0 }));
        prop_assert_eq!(publish.unfit, None);
    }

    #[test]
    fn no_packet_makes_the_codec_panic(version in versions(), first: u8, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(version, &frame(first, &body));
    }

    #[test]
    fn no_damaged_publish_makes_the_codec_panic(
        version in versions(), at in any::<prop::sample::Index>(), to: u8, cut in any::<prop::sample::Index>()
    ) {
        let whole = raw_publish(version, 1, 9, b"plant/a", b"payload");
        let mut body = whole[2..].to_vec();
        let index = at.index(body.len());
        body[index] = to;
        body.truncate(cut.index(body.len() + 1));
        let _ = read(version, &frame(whole[0], &body));
    }

    #[test]
    fn the_beginning_of_a_publish_is_found_or_not_but_never_panics(
        version in versions(), body in prop::collection::vec(any::<u8>(), 0..100), cut in any::<prop::sample::Index>()
    ) {
        let bytes = frame(0x32, &body);
        let head = Head::peek(&bytes).unwrap().unwrap();
        let seen = Bytes::copy_from_slice(&bytes[..cut.index(bytes.len() + 1)]);
        let _ = unfit(version, head, &seen, "test".to_owned());
    }
}
