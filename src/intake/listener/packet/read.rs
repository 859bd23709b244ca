//! Numbers and texts of MQTT (1.5).

use super::Refused;
use super::properties::varint_length;

/// What is left of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

/// [MQTT-1.5.5-1]
pub(super) const PADDED: Refused = Refused::malformed("a variable byte integer with more bytes than it needs");
const SHORT: Refused = Refused::malformed("a packet that ends early");

/// A variable byte integer at the beginning of `input` and its length; `None`: more bytes are needed.
///
/// # Errors
/// More than four bytes.
pub(super) fn varint(input: &[u8]) -> Result<Option<(u32, usize)>, Refused> {
    let mut value = 0;
    for (at, &byte) in input.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((value, at + 1)));
        }
    }
    if input.len() >= 4 { Err(Refused::malformed("a variable byte integer of five bytes")) } else { Ok(None) }
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Reader { rest }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// # Errors
    /// When something is left: the packet is longer than its content.
    pub(super) fn end(self) -> Result<(), Refused> {
        if self.is_empty() { Ok(()) } else { Err(Refused::malformed("a packet with bytes behind its end")) }
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], Refused> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Refused> {
        let (&byte, rest) = self.rest.split_first().ok_or(SHORT)?;
        self.rest = rest;
        Ok(byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Refused> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(SHORT)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Refused> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(SHORT)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    pub(super) fn varint(&mut self) -> Result<u32, Refused> {
        let (value, bytes) = varint(self.rest)?.ok_or(SHORT)?;
        self.take(bytes)?;
        if bytes > varint_length(value as usize) {
            return Err(PADDED);
        }
        Ok(value)
    }

    pub(super) fn binary(&mut self) -> Result<&'a [u8], Refused> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// UTF-8 without U+0000 [MQTT-1.5.4-1] [MQTT-1.5.4-2].
    pub(super) fn text(&mut self) -> Result<&'a str, Refused> {
        let bytes = self.binary()?;
        let text = std::str::from_utf8(bytes).map_err(|_| Refused::malformed("a text that is not UTF-8"))?;
        if bytes.contains(&0) {
            return Err(Refused::malformed("a text with U+0000"));
        }
        Ok(text)
    }

    /// A packet id, which is never 0 [MQTT-2.2.1-3].
    pub(super) fn packet_id(&mut self) -> Result<u16, Refused> {
        match self.u16()? {
            0 => Err(Refused::protocol("packet id 0")),
            id => Ok(id),
        }
    }
}

/// Whether a text may be a topic name [MQTT-3.3.2-2].
pub(super) fn is_topic(topic: &str) -> bool {
    !topic.is_empty() && !topic.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}
