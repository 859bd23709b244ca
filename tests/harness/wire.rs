//! MQTT 3.1.1 and 5 framing, as much of it as the rig needs. Pure.
//!
//! Deliberately not the codec that the gateway uses: the judge of what was acknowledged must not share its mistakes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Protocol levels as they stand in CONNECT.
pub const V311: u8 = 4;
pub const V5: u8 = 5;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    Connect {
        level: u8,
        client_id: String,
    },
    ConnAck {
        code: u8,
        session_present: bool,
    },
    Publish {
        topic: String,
        packet_id: u16,
        dup: bool,
        payload: Bytes,
    },
    /// `reason` is 0 in 3.1.1.
    PubAck {
        packet_id: u16,
        reason: u8,
    },
    SubAck,
    /// What the rig passes on without looking: the packet type.
    Other(u8),
}

/// The bytes are not MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Takes one whole packet off the front of `buffer`; `None` until it is whole.
pub fn take_frame(buffer: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
    let mut remaining = 0usize;
    for index in 0..4 {
        let Some(&byte) = buffer.get(1 + index) else { return Ok(None) };
        remaining |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let whole = 2 + index + remaining;
            return Ok((buffer.len() >= whole).then(|| buffer.split_to(whole).freeze()));
        }
    }
    Err(Malformed)
}

/// Reads a frame of [`take_frame`]. `level` is the connection's protocol level: a PUBLISH of version 5 has properties.
pub fn read(frame: &Bytes, level: u8) -> Result<Packet, Malformed> {
    let first = *frame.first().ok_or(Malformed)?;
    let length_bytes = frame[1..].iter().take_while(|&&byte| byte & 0x80 != 0).count() + 1;
    let mut body = frame.slice(1 + length_bytes..);
    match first >> 4 {
        1 => read_connect(&mut body),
        2 => Ok(Packet::ConnAck { session_present: take_u8(&mut body)? & 1 == 1, code: take_u8(&mut body)? }),
        3 => read_publish(first, body, level),
        4 => Ok(Packet::PubAck { packet_id: take_u16(&mut body)?, reason: body.first().copied().unwrap_or(0) }),
        9 => Ok(Packet::SubAck),
        other => Ok(Packet::Other(other)),
    }
}

fn read_connect(body: &mut Bytes) -> Result<Packet, Malformed> {
    take_string(body)?;
    let level = take_u8(body)?;
    take_u8(body)?;
    take_u16(body)?;
    skip_properties(body, level)?;
    Ok(Packet::Connect { level, client_id: take_string(body)? })
}

fn read_publish(first: u8, mut body: Bytes, level: u8) -> Result<Packet, Malformed> {
    let topic = take_string(&mut body)?;
    let packet_id = if first & 0b110 == 0 { 0 } else { take_u16(&mut body)? };
    skip_properties(&mut body, level)?;
    Ok(Packet::Publish { topic, packet_id, dup: first & 0b1000 != 0, payload: body })
}

/// MQTT-2.2.2: their length comes first, as a variable byte integer.
fn skip_properties(body: &mut Bytes, level: u8) -> Result<(), Malformed> {
    if level < V5 {
        return Ok(());
    }
    let mut length = 0usize;
    for shift in (0..28).step_by(7) {
        let byte = take_u8(body)?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            if body.len() < length {
                return Err(Malformed);
            }
            body.advance(length);
            return Ok(());
        }
    }
    Err(Malformed)
}

fn take_u8(body: &mut Bytes) -> Result<u8, Malformed> {
    body.try_get_u8().map_err(|_| Malformed)
}

fn take_u16(body: &mut Bytes) -> Result<u16, Malformed> {
    body.try_get_u16().map_err(|_| Malformed)
}

fn take_string(body: &mut Bytes) -> Result<String, Malformed> {
    let length = usize::from(take_u16(body)?);
    if body.len() < length {
        return Err(Malformed);
    }
    String::from_utf8(body.split_to(length).to_vec()).map_err(|_| Malformed)
}

/// CONNECT of 3.1.1 without a clean session, so that the broker keeps what was not acknowledged.
pub fn connect(client_id: &str, login: Option<(&str, &str)>) -> Bytes {
    let mut body = BytesMut::new();
    put_text(&mut body, "MQTT");
    body.put_slice(&[V311, if login.is_some() { 0b1100_0000 } else { 0 }, 0, 60]);
    put_text(&mut body, client_id);
    if let Some((user, password)) = login {
        put_text(&mut body, user);
        put_text(&mut body, password);
    }
    frame(0x10, &body)
}

/// PUBLISH of 3.1.1 at QoS 1.
pub fn publish(topic: &str, packet_id: u16, dup: bool, payload: &[u8]) -> Bytes {
    let mut body = BytesMut::with_capacity(topic.len() + payload.len() + 4);
    put_text(&mut body, topic);
    body.put_u16(packet_id);
    body.put_slice(payload);
    frame(if dup { 0x3a } else { 0x32 }, &body)
}

/// SUBSCRIBE at QoS 1.
pub fn subscribe(filter: &str) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u16(1);
    put_text(&mut body, filter);
    body.put_u8(1);
    frame(0x82, &body)
}

pub fn puback(packet_id: u16) -> Bytes {
    frame(0x40, &packet_id.to_be_bytes())
}

pub fn disconnect() -> Bytes {
    frame(0xe0, &[])
}

pub fn frame(first: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(body.len() + 5);
    out.put_u8(first);
    let mut length = body.len();
    while length >= 0x80 {
        out.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
    out.put_slice(body);
    out.freeze()
}

pub fn put_text(out: &mut BytesMut, text: impl AsRef<[u8]>) {
    let text = text.as_ref();
    out.put_u16(u16::try_from(text.len()).expect("a test's names are short"));
    out.put_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_do_not_depend_on_how_bytes_arrive() {
        let stream = [publish("a/b", 7, false, &[1; 300]), puback(7), connect("c", Some(("u", "p")))].concat();
        let mut buffer = BytesMut::new();
        let mut packets = Vec::new();
        for &byte in &stream {
            buffer.put_u8(byte);
            while let Some(frame) = take_frame(&mut buffer).unwrap() {
                packets.push(read(&frame, V311).unwrap());
            }
        }
        let payload = Bytes::from(vec![1; 300]);
        let expected = [
            Packet::Publish { topic: "a/b".to_owned(), packet_id: 7, dup: false, payload },
            Packet::PubAck { packet_id: 7, reason: 0 },
            Packet::Connect { level: V311, client_id: "c".to_owned() },
        ];
        assert_eq!(packets, expected);
    }

    #[test]
    fn the_properties_of_version_5_are_skipped() {
        // PUBLISH, QoS 1, topic "t", packet id 1, one property (content type "x"), payload "p".
        let bytes = b"\x32\x0b\x00\x01t\x00\x01\x04\x03\x00\x01xp";
        let frame = take_frame(&mut BytesMut::from(bytes.as_slice())).unwrap().unwrap();
        let Packet::Publish { topic, packet_id, payload, .. } = read(&frame, V5).unwrap() else { panic!("{frame:?}") };
        assert_eq!((topic.as_str(), packet_id, payload.as_ref()), ("t", 1, b"p".as_slice()));
    }

    #[test]
    fn a_refusing_puback_of_version_5_shows_its_reason() {
        let frame = Bytes::from_static(b"\x40\x04\x00\x09\x97\x00");
        assert_eq!(read(&frame, V5), Ok(Packet::PubAck { packet_id: 9, reason: 0x97 }));
    }

    #[test]
    fn what_is_not_mqtt_is_refused() {
        assert_eq!(take_frame(&mut BytesMut::from(b"\x30\xff\xff\xff\xff\x01".as_slice())), Err(Malformed));
        assert_eq!(read(&Bytes::from_static(b"\x32\x02\x00\x09"), V311), Err(Malformed));
    }
}
