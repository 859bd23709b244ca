//! The chunk: what one commit writes for one lane. Pure.
//!
//! ```text
//! magic "FBC1" | codec u8 | 0 u8 | 0 u16 | spool id u64 | run u64 | first u64 | lane u32 | n u32 | raw u32 | stored u32 | crc u32
//! data: per record  sequence delta (varint) | length (varint) | record
//! ```
//! Little endian. The CRC32C covers the header up to itself and the stored data, so a chunk found by a raw scan of a
//! broken file proves itself. `first` is the first record's sequence; direct delivery leaves holes, hence the deltas.

use bytes::{Buf, Bytes};

use crate::record::{Body, put_varint, take_varint};

pub const MAGIC: &[u8; 4] = b"FBC1";
pub const HEADER_LEN: usize = 52;

/// No chunk is larger than this when decompressed: the commit rule stops at 256 KiB, one record may be larger.
pub const RAW_BYTES_MAX: usize = 272 << 20;

const CODEC_RAW: u8 = 0;
const CODEC_ZSTD: u8 = 1;
/// On JSON readings level 3 costs a third more CPU and is no smaller.
const ZSTD_LEVEL: i32 = 1;
/// Below this zstd's frame costs more than it saves.
const COMPRESS_FROM: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub spool_id: u64,
    pub run: u64,
    /// The lane's permanent number.
    pub lane: u32,
    pub first: u64,
    pub n: u32,
    /// Bytes before compression.
    pub raw_len: u32,
    stored_len: u32,
    codec: u8,
}

/// A record and its sequence within (run, lane).
pub type Numbered = (u64, Body);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChunkError {
    #[error("read a chunk: {0}")]
    Damaged(&'static str),
}

/// Encodes `records` (at least one, sequences ascending).
pub fn encode(spool_id: u64, run: u64, lane: u32, records: &[Numbered]) -> Vec<u8> {
    let first = records.first().map_or(0, |(sequence, _)| *sequence);
    let mut raw = Vec::with_capacity(records.iter().map(|(_, body)| body.len() + 4).sum());
    let mut previous = first;
    for (sequence, body) in records {
        put_varint(&mut raw, sequence - previous);
        put_varint(&mut raw, body.len() as u64);
        raw.extend_from_slice(body.as_bytes());
        previous = *sequence;
    }
    let (codec, stored) = compress(&raw);
    let mut out = Vec::with_capacity(HEADER_LEN + stored.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[codec, 0, 0, 0]);
    out.extend_from_slice(&spool_id.to_le_bytes());
    out.extend_from_slice(&run.to_le_bytes());
    out.extend_from_slice(&first.to_le_bytes());
    for word in [lane, records.len() as u32, raw.len() as u32, stored.len() as u32] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out), &stored);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&stored);
    out
}

fn compress(raw: &[u8]) -> (u8, std::borrow::Cow<'_, [u8]>) {
    if raw.len() >= COMPRESS_FROM
        && let Ok(small) = zstd::bulk::compress(raw, ZSTD_LEVEL)
        && small.len() < raw.len()
    {
        return (CODEC_ZSTD, small.into());
    }
    (CODEC_RAW, raw.into())
}

/// Reads the header and checks the checksum over header and data; `bytes` may be longer than the chunk.
///
/// # Errors
/// [`ChunkError::Damaged`] with what does not hold.
pub fn header(bytes: &[u8]) -> Result<Header, ChunkError> {
    let Some(mut h) = bytes.get(..HEADER_LEN) else { return Err(ChunkError::Damaged("it is shorter than its header")) };
    if !h.starts_with(MAGIC) {
        return Err(ChunkError::Damaged("it does not begin with the magic number"));
    }
    h.advance(4);
    let codec = h.get_u8();
    h.advance(3);
    let (spool_id, run, first) = (h.get_u64_le(), h.get_u64_le(), h.get_u64_le());
    let (lane, n, raw_len, stored_len, crc) =
        (h.get_u32_le(), h.get_u32_le(), h.get_u32_le(), h.get_u32_le(), h.get_u32_le());
    let Some(stored) = bytes.get(HEADER_LEN..HEADER_LEN + stored_len as usize) else {
        return Err(ChunkError::Damaged("it ends early"));
    };
    if crc32c::crc32c_append(crc32c::crc32c(&bytes[..HEADER_LEN - 4]), stored) != crc {
        return Err(ChunkError::Damaged("its checksum does not hold"));
    }
    Ok(Header { spool_id, run, lane, first, n, raw_len, stored_len, codec })
}

/// Decodes a whole chunk. The records share one buffer.
///
/// # Errors
/// [`ChunkError::Damaged`] when header, checksum or content do not hold.
pub fn decode(bytes: &[u8]) -> Result<(Header, Vec<Numbered>), ChunkError> {
    let head = header(bytes)?;
    let stored = &bytes[HEADER_LEN..HEADER_LEN + head.stored_len as usize];
    let raw = decompress(&head, stored)?;
    let mut records = Vec::with_capacity((head.n as usize).min(raw.len() / 2 + 1));
    let mut rest: &[u8] = &raw;
    let mut sequence = head.first;
    while !rest.is_empty() {
        let bad = |_| ChunkError::Damaged("its records do not decode");
        sequence = sequence
            .checked_add(take_varint(&mut rest).map_err(bad)?)
            .ok_or(ChunkError::Damaged("a sequence overflows"))?;
        let len = take_varint(&mut rest).map_err(bad)? as usize;
        let at = raw.len() - rest.len();
        if len > rest.len() {
            return Err(ChunkError::Damaged("a record is longer than the chunk"));
        }
        records.push((sequence, Body::from_stored(raw.slice(at..at + len))));
        rest = &rest[len..];
    }
    if records.len() != head.n as usize {
        return Err(ChunkError::Damaged("it holds another number of records than it says"));
    }
    Ok((head, records))
}

fn decompress(head: &Header, stored: &[u8]) -> Result<Bytes, ChunkError> {
    match head.codec {
        CODEC_RAW => Ok(Bytes::copy_from_slice(stored)),
        CODEC_ZSTD if head.raw_len as usize <= RAW_BYTES_MAX => zstd::bulk::decompress(stored, head.raw_len as usize)
            .map(Bytes::from)
            .map_err(|_| ChunkError::Damaged("zstd cannot read it")),
        _ => Err(ChunkError::Damaged("its codec is unknown")),
    }
}

impl Header {
    /// Header and data, in bytes.
    pub fn total_len(&self) -> usize {
        HEADER_LEN + self.stored_len as usize
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn body(bytes: Vec<u8>) -> Body {
        Body::from_stored(Bytes::from(bytes))
    }

    proptest! {
        #[test]
        fn decode_of_encode_is_identity(
            bodies in prop::collection::vec((0u64..5, prop::collection::vec(any::<u8>(), 0..300)), 1..50),
            first in 0u64..1 << 50,
            trailing in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut sequence = first;
            let mut records = Vec::new();
            for (gap, bytes) in bodies {
                records.push((sequence, body(bytes)));
                sequence += 1 + gap;
            }
            let mut bytes = encode(7, 9, 3, &records);
            let len = bytes.len();
            // A raw scan does not know where a chunk ends.
            bytes.extend(trailing);
            let (head, got) = decode(&bytes).unwrap();
            prop_assert_eq!(head.total_len(), len);
            prop_assert_eq!((head.spool_id, head.run, head.lane, head.first), (7, 9, 3, first));
            prop_assert_eq!(got, records);
        }

        #[test]
        fn one_flipped_bit_is_always_found(at in 0usize..2000, bit in 0u8..8) {
            let records: Vec<_> = (0..40).map(|i| (i, body(format!("reading {i} of the press").into_bytes()))).collect();
            let mut bytes = encode(1, 2, 3, &records);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut with_magic = MAGIC.to_vec();
            with_magic.extend(&bytes);
            prop_assert!(decode(&bytes).is_err());
            prop_assert!(decode(&with_magic).is_err());
        }
    }

    #[test]
    fn json_readings_shrink() {
        let records: Vec<_> = (0..1000)
            .map(|i| (i, body(format!(r#"{{"jobPercentFinished":{},"producing":true}}"#, i % 100).into_bytes())))
            .collect();
        let raw: usize = records.iter().map(|(_, b)| b.len()).sum();
        assert!(encode(1, 2, 3, &records).len() * 4 < raw);
    }
}
