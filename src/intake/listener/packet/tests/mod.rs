//! The codec alone: what it writes is what others read, what others write is what it reads, and noise does no harm.

#![expect(clippy::unwrap_used, reason = "tests")]

mod mqtt;

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

#[test]
fn a_head_is_read_when_it_is_whole() {
    assert_eq!(Head::peek(&[]), Ok(None));
    assert_eq!(Head::peek(&[0x30]), Ok(None));
    assert_eq!(Head::peek(&[0x30, 0x80]), Ok(None));
    assert_eq!(Head::peek(&[0x30, 0xff, 0xff, 0xff]), Ok(None));
    let head = |length, remaining| Ok(Some(Head { first: 0x30, length, remaining }));
    assert_eq!(Head::peek(&[0x30, 0]), head(2, 0));
    assert_eq!(Head::peek(&[0x30, 0x80, 1]), head(3, 128));
    assert_eq!(Head::peek(&[0x30, 0xff, 0xff, 0xff, 0x7f]), head(5, 268_435_455));
    assert!(Head::peek(&[0x30, 0xff, 0xff, 0xff, 0xff]).is_err());
}

#[test]
fn acks_are_as_short_as_they_may_be() {
    let write = |version, kind, code| {
        let mut out = BytesMut::new();
        write_ack(version, kind, 258, code, &mut out);
        out.to_vec()
    };
    assert_eq!(write(Version::V311, kind::PUBACK, 0), [0x40, 2, 1, 2]);
    assert_eq!(write(Version::V5, kind::PUBACK, 0), [0x40, 2, 1, 2]);
    assert_eq!(write(Version::V5, kind::PUBREC, 0x87), [0x50, 3, 1, 2, 0x87]);
    assert_eq!(write(Version::V311, kind::PUBCOMP, 0x92), [0x70, 2, 1, 2]);
    assert_eq!(write(Version::V5, kind::PUBREL, 0), [0x62, 2, 1, 2]);
}

#[test]
fn v5_acks_may_leave_out_what_is_nothing() {
    let read = |body: &[u8]| ack::read(Version::V5, body);
    assert_eq!(read(&[0, 1]), Ok(Acked { packet_id: 1, code: 0 }));
    assert_eq!(read(&[0, 1, 0x80]), Ok(Acked { packet_id: 1, code: 0x80 }));
    assert_eq!(read(&[0, 1, 0x80, 0]), Ok(Acked { packet_id: 1, code: 0x80 }));
    assert_eq!(read(b"\0\x01\x80\x04\x1f\0\x01r"), Ok(Acked { packet_id: 1, code: 0x80 }));
    assert!(read(&[0, 1, 0x80, 0, 0]).is_err());
    assert!(ack::read(Version::V311, &[0, 1, 0]).is_err());
}

#[test]
fn refusals_in_3_1_1_have_five_codes_and_otherwise_none() {
    let write = |code| {
        let mut out = BytesMut::new();
        write_refusal(Version::V311, code, &mut out);
        out.get(3).copied()
    };
    let codes = [reason::UNSUPPORTED_VERSION, reason::CLIENT_ID_INVALID, reason::SERVER_BUSY, reason::BAD_CREDENTIALS];
    assert_eq!(codes.map(write), [Some(1), Some(2), Some(3), Some(4)]);
    assert_eq!([reason::NOT_AUTHORIZED, reason::MALFORMED].map(write), [Some(5), None]);
}

proptest! {
    #[test]
    fn no_bytes_panic(first in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..300), v5 in any::<bool>()) {
        let version = if v5 { Version::V5 } else { Version::V311 };
        let frame = [&[first, 0x80 | (body.len() & 0x7f) as u8, (body.len() >> 7) as u8][..], &body].concat();
        let head = Head { first, length: 3, remaining: body.len() };
        let _ = decode(version, head, &frame);
        let _ = decode_connect(head, &frame);
        let _ = Head::peek(&body);
    }

    /// What is cut off anywhere is refused, never read beyond its end.
    #[test]
    fn a_packet_cut_short_is_refused(payload in prop::collection::vec(any::<u8>(), 0..20), cut in 1usize..30) {
        let forwarded = Forwarded { is_text: true, ..Forwarded::default() };
        let message = Outgoing {
            topic: "a/b", payload: &payload, packet_id: 7, qos: 1, retain: true, dup: false,
            forwarded: &forwarded, expiry_s: Some(9), subscription_ids: &[],
        };
        let mut out = BytesMut::new();
        write_publish(Version::V5, &message, &mut out);
        prop_assert_eq!(out.len(), publish_length(Version::V5, &message));
        let head = Head::peek(&out).unwrap().unwrap();
        let kept = out.len().saturating_sub(cut);
        prop_assert!(decode(Version::V5, head, &out[..kept]).is_err());
        let Ok(Packet::Publish(read)) = decode(Version::V5, head, &out) else { panic!() };
        prop_assert_eq!((read.topic, read.payload, read.packet_id, read.qos), ("a/b", &payload[..], 7, 1));
        prop_assert_eq!(read.forwarded.properties.message_expiry_s, Some(9));
    }
}
