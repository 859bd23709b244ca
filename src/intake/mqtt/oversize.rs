//! A PUBLISH above the size limit: its body streams past without being kept, its beginning goes to the dead letters.
//!
//! A 3.1.1 broker cannot be told our limit. Closing the connection would bring the same packet again after every
//! reconnect, and with it nothing else would ever come through. Pure.

use bytes::{Buf, BytesMut};

use super::codec::{self, Head, Malformed, Publish};
use crate::config::MqttVersion;

/// Payload bytes that go to the dead letters.
const PAYLOAD_KEPT_MAX: usize = 4096;
/// Enough for the longest topic, the packet id and the payload's beginning. With v5 properties longer than this the
/// payload's beginning is lost; they are bounded by the limit that we announced, so only a broken broker sends them.
const KEPT_MAX: usize = 5 + 2 + 65_535 + 2 + 4 + PAYLOAD_KEPT_MAX;

#[derive(Debug)]
pub(super) struct Skim {
    head: Head,
    kept: BytesMut,
    /// Bytes of the packet still to come.
    left: usize,
}

impl Skim {
    pub(super) fn new(head: Head) -> Self {
        Skim { head, kept: BytesMut::new(), left: head.total() }
    }

    /// Takes what belongs to the packet out of `input`. `true`: that was all of it.
    pub(super) fn feed(&mut self, input: &mut BytesMut) -> bool {
        let part = self.left.min(input.len());
        let keep = part.min(KEPT_MAX - self.kept.len());
        self.kept.extend_from_slice(&input[..keep]);
        input.advance(part);
        self.left -= part;
        self.left == 0
    }

    /// The reading for the dead letters.
    ///
    /// # Errors
    /// When the packet's beginning does not hold a topic and a usable packet id.
    pub(super) fn finish(self, version: MqttVersion, packet_size_max: u32) -> Result<Publish, Malformed> {
        let bytes = self.head.total();
        let cause = format!("packet of {bytes} bytes exceeds {packet_size_max}");
        let mut publish = codec::unfit(version, self.head, self.kept.freeze(), cause)?;
        publish.payload.truncate(PAYLOAD_KEPT_MAX);
        Ok(publish)
    }

    pub(super) fn total(&self) -> usize {
        self.head.total()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use bytes::BufMut;

    use super::*;

    fn packet(topic: &str, payload: usize) -> BytesMut {
        let mut body = BytesMut::new();
        body.put_u16(topic.len() as u16);
        body.put_slice(topic.as_bytes());
        body.put_u16(9);
        body.put_bytes(b'x', payload);
        let mut packet = BytesMut::from(&[0x32][..]);
        let mut length = body.len();
        while length >= 128 {
            packet.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        packet.put_u8(length as u8);
        packet.put_slice(&body);
        packet
    }

    fn skim(mut packet: BytesMut, piece: usize) -> (Publish, usize) {
        let mut skim = Skim::new(Head::peek(&packet).unwrap().unwrap());
        let mut most = 0;
        loop {
            let mut input = packet.split_to(piece.min(packet.len()));
            let done = skim.feed(&mut input);
            most = most.max(skim.kept.len());
            if done {
                return (skim.finish(MqttVersion::V311, 100).unwrap(), most);
            }
        }
    }

    #[test]
    fn the_beginning_is_kept_and_the_rest_is_not() {
        let (publish, most) = skim(packet("plant/a", 5_000_000), 10_000);
        assert_eq!((publish.topic.as_str(), publish.pkid, publish.qos), ("plant/a", 9, 1));
        assert_eq!(publish.payload.len(), PAYLOAD_KEPT_MAX);
        assert_eq!(publish.unfit.as_deref(), Some("packet of 5000015 bytes exceeds 100"));
        assert!(most <= KEPT_MAX, "{most}");
    }

    #[test]
    fn how_the_bytes_arrive_makes_no_difference() {
        let whole = skim(packet("t", 20_000), usize::MAX).0;
        for piece in [1, 7, 4096] {
            assert_eq!(skim(packet("t", 20_000), piece).0, whole);
        }
    }

    #[test]
    fn the_longest_topic_still_leaves_room_for_the_payload() {
        let (publish, _) = skim(packet(&"t".repeat(65_535), 200_000), 65_536);
        assert_eq!((publish.topic.len(), publish.payload.len()), (65_535, PAYLOAD_KEPT_MAX));
    }

    #[test]
    fn the_next_packet_stays_in_the_buffer() {
        let mut input = packet("t", 300);
        input.extend_from_slice(b"next");
        assert!(Skim::new(Head::peek(&input).unwrap().unwrap()).feed(&mut input));
        assert_eq!(&input[..], b"next");
    }
}
