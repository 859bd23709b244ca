//! Readings and records: what comes in at step 1 and what goes out at step 7.
//!
//! A record lives in memory in the very form in which a chunk stores it (one allocation, no re-encoding between the
//! stages): [`Body`]. [`RecordView`] is the decoded, borrowed form.

use bytes::Bytes;

/// What the device said, borrowed from the connection's buffer (step 1). Route turns it into a record.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// Name of the source in the config.
    pub source: &'a str,
    /// MQTT topic, already validated as UTF-8.
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub properties: &'a Properties,
    pub arrival: Arrival,
}

/// MQTT v5 properties that reach the Kafka headers; empty for 3.1.1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    pub content_type: Option<String>,
    pub response_topic: Option<String>,
    pub correlation_data: Option<Bytes>,
    pub message_expiry_s: Option<u32>,
    /// traceparent among them. In order; names may repeat (MQTT-3.3.2-17).
    pub user: Vec<(String, String)>,
}

/// When a reading arrived, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arrival {
    /// Milliseconds since 1970 by the wall clock of that moment, which may have been wrong.
    pub wall_ms: i64,
    /// Milliseconds since boot (`CLOCK_BOOTTIME`).
    pub boot_ms: u64,
}

/// Where the record's timestamp came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampKind {
    /// Arrival: corrected when the clock was wrong and is set later in the same boot.
    Arrival,
    /// Taken from the payload: never touched.
    Payload,
}

/// The identity of a record when it is not its place in the lane: a requeued record keeps its old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OldId {
    pub run: u64,
    /// The permanent number of the lane it was in.
    pub lane: u32,
    pub sequence: u64,
    /// How often it has been requeued; 0 for the copy of a dead letter.
    pub requeues: u32,
}

/// A record for Kafka, borrowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordView<'a> {
    pub topic: &'a str,
    /// `None`: a null key.
    pub key: Option<&'a [u8]>,
    pub headers: Vec<(&'a str, &'a [u8])>,
    pub payload: &'a [u8],
    pub timestamp_ms: i64,
    pub timestamp_kind: TimestampKind,
    pub arrival: Arrival,
    pub old_id: Option<OldId>,
}

impl<'a> RecordView<'a> {
    /// What a route without any wishes makes of a reading: for tests and fuzz targets that are about something else.
    pub fn plain(reading: &Reading<'a>) -> Self {
        RecordView {
            topic: reading.topic,
            key: None,
            headers: Vec::new(),
            payload: reading.payload,
            timestamp_ms: 0,
            timestamp_kind: TimestampKind::Arrival,
            arrival: reading.arrival,
            old_id: None,
        }
    }
}

/// An encoded record. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body(Bytes);

const KEY: u8 = 1;
const TIME_FROM_PAYLOAD: u8 = 2;
const OLD_ID: u8 = 4;

/// An encoded record that does not decode: a damaged chunk, since only [`RecordView::encode`] makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("decode a stored record: it ends early or is not UTF-8")]
pub struct Damaged;

impl RecordView<'_> {
    /// Encodes into `scratch` (cleared first) and copies out once, exactly as long as needed.
    pub fn encode(&self, scratch: &mut Vec<u8>) -> Body {
        scratch.clear();
        let mut flags = 0;
        if self.key.is_some() {
            flags |= KEY;
        }
        if self.timestamp_kind == TimestampKind::Payload {
            flags |= TIME_FROM_PAYLOAD;
        }
        if self.old_id.is_some() {
            flags |= OLD_ID;
        }
        scratch.push(flags);
        put_bytes(scratch, self.topic.as_bytes());
        if let Some(key) = self.key {
            put_bytes(scratch, key);
        }
        put_varint(scratch, zigzag(self.timestamp_ms));
        put_varint(scratch, zigzag(self.arrival.wall_ms));
        put_varint(scratch, self.arrival.boot_ms);
        if let Some(old) = self.old_id {
            put_varint(scratch, old.run);
            put_varint(scratch, u64::from(old.lane));
            put_varint(scratch, old.sequence);
            put_varint(scratch, u64::from(old.requeues));
        }
        put_varint(scratch, self.headers.len() as u64);
        for (name, value) in &self.headers {
            put_bytes(scratch, name.as_bytes());
            put_bytes(scratch, value);
        }
        scratch.extend_from_slice(self.payload);
        Body(Bytes::copy_from_slice(scratch))
    }
}

impl Body {
    /// Trusts the caller: bytes that came out of a chunk whose checksum held.
    pub fn from_stored(bytes: Bytes) -> Self {
        Body(bytes)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The Kafka topic alone: what parking asks of every record.
    pub fn topic(&self) -> Result<&str, Damaged> {
        let mut rest = self.0.get(1..).ok_or(Damaged)?;
        take_str(&mut rest)
    }

    /// The wall clock at arrival alone, ms since 1970: what a chunk's bounds ask of every record.
    pub fn arrived_ms(&self) -> Result<i64, Damaged> {
        let (&flags, mut rest) = self.0.split_first().ok_or(Damaged)?;
        take_bytes(&mut rest)?;
        if flags & KEY != 0 {
            take_bytes(&mut rest)?;
        }
        take_varint(&mut rest)?;
        take_varint(&mut rest).map(unzigzag)
    }

    /// # Errors
    /// [`Damaged`] when the bytes are not what `encode` wrote.
    pub fn view(&self) -> Result<RecordView<'_>, Damaged> {
        let mut rest: &[u8] = &self.0;
        let (&flags, tail) = rest.split_first().ok_or(Damaged)?;
        rest = tail;
        let topic = take_str(&mut rest)?;
        let key = if flags & KEY != 0 { Some(take_bytes(&mut rest)?) } else { None };
        let timestamp_ms = unzigzag(take_varint(&mut rest)?);
        let arrival = Arrival { wall_ms: unzigzag(take_varint(&mut rest)?), boot_ms: take_varint(&mut rest)? };
        let old_id = if flags & OLD_ID != 0 {
            Some(OldId {
                run: take_varint(&mut rest)?,
                lane: take_varint(&mut rest)?.try_into().map_err(|_| Damaged)?,
                sequence: take_varint(&mut rest)?,
                requeues: take_varint(&mut rest)?.try_into().map_err(|_| Damaged)?,
            })
        } else {
            None
        };
        let count = take_varint(&mut rest)?;
        // Each header takes two bytes at least: a damaged count cannot make us reserve more than the record itself.
        if count > rest.len() as u64 / 2 {
            return Err(Damaged);
        }
        let mut headers = Vec::with_capacity(count as usize);
        for _ in 0..count {
            headers.push((take_str(&mut rest)?, take_bytes(&mut rest)?));
        }
        let timestamp_kind =
            if flags & TIME_FROM_PAYLOAD != 0 { TimestampKind::Payload } else { TimestampKind::Arrival };
        Ok(RecordView { topic, key, headers, payload: rest, timestamp_ms, timestamp_kind, arrival, old_id })
    }
}

/// LEB128.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// # Errors
/// [`Damaged`] when the input ends early or the number does not fit 64 bits.
pub fn take_varint(input: &mut &[u8]) -> Result<u64, Damaged> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = input.split_first().ok_or(Damaged)?;
        *input = tail;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(Damaged);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Damaged)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Damaged> {
    let len = usize::try_from(take_varint(input)?).map_err(|_| Damaged)?;
    let (bytes, tail) = input.split_at_checked(len).ok_or(Damaged)?;
    *input = tail;
    Ok(bytes)
}

fn take_str<'a>(input: &mut &'a [u8]) -> Result<&'a str, Damaged> {
    std::str::from_utf8(take_bytes(input)?).map_err(|_| Damaged)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn any_old_id()(run in any::<u64>(), lane in any::<u32>(), sequence in any::<u64>(), requeues in any::<u32>())
            -> OldId {
            OldId { run, lane, sequence, requeues }
        }
    }

    proptest! {
        #[test]
        fn view_of_encode_is_identity(
            topic in ".{0,40}",
            key in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
            headers in prop::collection::vec((".{0,10}", prop::collection::vec(any::<u8>(), 0..20)), 0..5),
            payload in prop::collection::vec(any::<u8>(), 0..300),
            times in any::<(i64, i64, u64, bool)>(),
            old_id in prop::option::of(any_old_id()),
        ) {
            let (timestamp_ms, wall_ms, boot_ms, from_payload) = times;
            let record = RecordView {
                topic: &topic,
                key: key.as_deref(),
                headers: headers.iter().map(|(k, v)| (k.as_str(), v.as_slice())).collect(),
                payload: &payload,
                timestamp_ms,
                timestamp_kind: if from_payload { TimestampKind::Payload } else { TimestampKind::Arrival },
                arrival: Arrival { wall_ms, boot_ms },
                old_id,
            };
            let body = record.encode(&mut vec![1, 2, 3]);
            prop_assert_eq!(body.topic().unwrap(), topic.as_str());
            prop_assert_eq!(body.arrived_ms().unwrap(), wall_ms);
            prop_assert_eq!(body.view().unwrap(), record);
        }

        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let body = Body::from_stored(Bytes::from(bytes));
            let _ = (body.view(), body.topic(), body.arrived_ms());
        }

        #[test]
        fn varints_come_back_and_nothing_too_long_is_taken(value in any::<u64>()) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(take_varint(&mut bytes.as_slice()), Ok(value));
            prop_assert_eq!(take_varint(&mut &bytes[..bytes.len() - 1]), Err(Damaged));
        }
    }

    #[test]
    fn a_varint_of_more_than_64_bits_is_damage() {
        assert_eq!(take_varint(&mut [0xff_u8; 10].as_slice()), Err(Damaged));
    }
}
