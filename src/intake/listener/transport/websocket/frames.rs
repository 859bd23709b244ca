//! WebSocket frames of a server (RFC 6455, section 5). Pure.
//!
//! MQTT packets may lie in frames as they please (MQTT-6.0.0-2), so frames are taken off and put on as the bytes pass by:
//! no message is ever gathered, and a frame may be as long as it likes without costing memory.

/// A frame's header is at most this long: two bytes, eight of length, four of mask.
const HEADER_MAX: usize = 14;
/// Longest payload of a control frame (RFC 6455, 5.5).
const CONTROL_MAX: usize = 125;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Why a connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// MQTT-6.0.0-1.
    #[error("a text frame: MQTT travels in binary ones")]
    Text,
    #[error("a frame without mask")]
    NotMasked,
    #[error("an unknown or reserved kind of frame")]
    Reserved,
    #[error("a control frame that is too long or in pieces")]
    Control,
    #[error("a piece of a message out of order")]
    Fragment,
    #[error("a length that is not written as shortly as it could be")]
    Length,
}

impl Violation {
    /// The code of the Close frame (RFC 6455, 7.4.1).
    pub fn code(self) -> u16 {
        if self == Violation::Text { 1003 } else { 1002 }
    }
}

/// What has to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    bytes: [u8; CONTROL_MAX],
    len: usize,
}

impl Control {
    const EMPTY: Control = Control { bytes: [0; CONTROL_MAX], len: 0 };

    fn payload(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Takes the frames off what a client sends.
#[derive(Debug)]
pub struct Deframer {
    header: [u8; HEADER_MAX],
    header_len: usize,
    frame: Option<Frame>,
    /// A message has begun and its last frame is still to come.
    within_message: bool,
    control: Control,
    /// The payload of the last Ping: older ones need no answer of their own (RFC 6455, 5.5.3).
    ping: Option<Control>,
    closed: bool,
}

#[derive(Debug)]
struct Frame {
    code: u8,
    left: u64,
    mask: [u8; 4],
    /// Bytes of the payload that have passed, modulo 4.
    phase: usize,
}

impl Deframer {
    pub fn new() -> Self {
        Deframer {
            header: [0; HEADER_MAX],
            header_len: 0,
            frame: None,
            within_message: false,
            control: Control::EMPTY,
            ping: None,
            closed: false,
        }
    }

    /// Turns `bytes` as they came into the payload that they hold, at the front of the same slice. Returns its length.
    ///
    /// # Errors
    /// [`Violation`]: the connection is of no use any more.
    pub fn take(&mut self, bytes: &mut [u8]) -> Result<usize, Violation> {
        let (mut at, mut kept) = (0, 0);
        while at < bytes.len() && !self.closed {
            let Some(frame) = &mut self.frame else {
                self.push_header(bytes[at])?;
                at += 1;
                continue;
            };
            let n = (bytes.len() - at).min(usize::try_from(frame.left).unwrap_or(usize::MAX));
            frame.unmask(&mut bytes[at..at + n]);
            if frame.code >= CLOSE {
                let len = self.control.len;
                self.control.bytes[len..len + n].copy_from_slice(&bytes[at..at + n]);
                self.control.len += n;
            } else {
                bytes.copy_within(at..at + n, kept);
                kept += n;
            }
            at += n;
            self.end_of_frame();
        }
        Ok(kept)
    }

    /// The client has said Close.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The Close frame's status code and the like, to be sent back.
    pub fn close_payload(&self) -> &[u8] {
        let payload = self.control.payload();
        // The reason is text of theirs: the code is enough.
        &payload[..payload.len().min(2)]
    }

    pub fn take_ping(&mut self) -> Option<Control> {
        self.ping.take()
    }

    fn push_header(&mut self, byte: u8) -> Result<(), Violation> {
        self.header[self.header_len] = byte;
        self.header_len += 1;
        if self.header_len < 2 {
            return Ok(());
        }
        let [first, second] = [self.header[0], self.header[1]];
        if self.header_len == 2 {
            self.check(first, second)?;
        }
        let length_bytes = match second & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.header_len < 2 + length_bytes + 4 {
            return Ok(());
        }
        let left = length(&self.header[1..2 + length_bytes])?;
        let mask = [0, 1, 2, 3].map(|i| self.header[2 + length_bytes + i]);
        self.header_len = 0;
        self.control.len = 0;
        self.frame = Some(Frame { code: first & 0x0f, left, mask, phase: 0 });
        self.within_message = if first & 0x0f < CLOSE { first & FIN == 0 } else { self.within_message };
        self.end_of_frame();
        Ok(())
    }

    fn check(&self, first: u8, second: u8) -> Result<(), Violation> {
        if second & MASKED == 0 {
            return Err(Violation::NotMasked);
        }
        if first & RESERVED != 0 {
            return Err(Violation::Reserved);
        }
        match first & 0x0f {
            TEXT => Err(Violation::Text),
            BINARY if self.within_message => Err(Violation::Fragment),
            CONTINUATION if !self.within_message => Err(Violation::Fragment),
            BINARY | CONTINUATION => Ok(()),
            CLOSE | PING | PONG if first & FIN == 0 || usize::from(second & !MASKED) > CONTROL_MAX => {
                Err(Violation::Control)
            }
            CLOSE | PING | PONG => Ok(()),
            _ => Err(Violation::Reserved),
        }
    }

    fn end_of_frame(&mut self) {
        let Some(frame) = self.frame.take_if(|frame| frame.left == 0) else { return };
        match frame.code {
            PING => self.ping = Some(self.control),
            CLOSE => self.closed = true,
            _ => {}
        }
    }
}

impl Frame {
    fn unmask(&mut self, bytes: &mut [u8]) {
        self.left -= bytes.len() as u64;
        // The mask as it stands at this byte, so that whole chunks need no counting.
        self.mask.rotate_left(self.phase);
        for chunk in bytes.chunks_mut(4) {
            chunk.iter_mut().zip(self.mask).for_each(|(byte, mask)| *byte ^= mask);
        }
        self.phase = bytes.len() % 4;
    }
}

/// The length out of a header's second byte and what follows it (RFC 6455, 5.2).
fn length(bytes: &[u8]) -> Result<u64, Violation> {
    let value = bytes[1..].iter().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
    match bytes.len() {
        1 => Ok(u64::from(bytes[0] & !MASKED)),
        3 if value > 125 => Ok(value),
        9 if value > 0xffff && value >> 63 == 0 => Ok(value),
        _ => Err(Violation::Length),
    }
}

/// The header of a binary frame with `payload` bytes. A server's frames have no mask.
pub fn binary_header(payload: usize) -> ([u8; 10], usize) {
    header(BINARY, payload)
}

pub fn pong(ping: &Control, out: &mut Vec<u8>) {
    push_control(PONG, ping.payload(), out);
}

pub fn close(payload: &[u8], out: &mut Vec<u8>) {
    push_control(CLOSE, payload, out);
}

fn push_control(code: u8, payload: &[u8], out: &mut Vec<u8>) {
    let (bytes, len) = header(code, payload.len());
    out.extend_from_slice(&bytes[..len]);
    out.extend_from_slice(payload);
}

fn header(code: u8, payload: usize) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    bytes[0] = FIN | code;
    let length = (payload as u64).to_be_bytes();
    match payload {
        0..=125 => {
            bytes[1] = length[7];
            (bytes, 2)
        }
        126..=0xffff => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&length[6..]);
            (bytes, 4)
        }
        _ => {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&length);
            (bytes, 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let (mut header, len) = header(0, payload.len());
        header[0] = first;
        header[1] |= MASKED;
        let masked = payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]);
        header[..len].iter().copied().chain(mask).chain(masked).collect()
    }

    /// What comes out when `bytes` arrive in pieces of the given sizes.
    fn deframe(bytes: &[u8], sizes: &[usize]) -> (Deframer, Result<Vec<u8>, Violation>) {
        let (mut deframer, mut out, mut at) = (Deframer::new(), Vec::new(), 0);
        for &size in sizes.iter().cycle() {
            if at == bytes.len() {
                break;
            }
            let end = (at + size).min(bytes.len());
            let mut piece = bytes[at..end].to_vec();
            match deframer.take(&mut piece) {
                Ok(n) => out.extend_from_slice(&piece[..n]),
                Err(violation) => return (deframer, Err(violation)),
            }
            at = end;
        }
        (deframer, Ok(out))
    }

    proptest! {
        #[test]
        fn payloads_come_out_whole_however_they_are_cut(
            messages in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..400), 1_usize..5), 0..6),
            mask in any::<[u8; 4]>(),
            sizes in prop::collection::vec(1_usize..300, 1..8),
        ) {
            let (mut wire, mut expected) = (Vec::new(), Vec::new());
            for (payload, frames) in &messages {
                let pieces: Vec<&[u8]> = payload.chunks(payload.len().div_ceil(*frames).max(1)).collect();
                let last = pieces.len().saturating_sub(1);
                for (i, piece) in pieces.iter().enumerate() {
                    let code = if i == 0 { BINARY } else { CONTINUATION };
                    wire.extend(frame(if i == last { FIN | code } else { code }, piece, mask));
                    // Control frames may come between the pieces of a message.
                    wire.extend(frame(FIN | PING, piece.get(..9).unwrap_or(b"p"), mask));
                }
                expected.extend_from_slice(payload);
            }
            let (_, out) = deframe(&wire, &sizes);
            prop_assert_eq!(out, Ok(expected));
        }

        #[test]
        fn noise_is_refused_or_taken_but_never_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            sizes in prop::collection::vec(1_usize..50, 1..8),
        ) {
            let (_, out) = deframe(&bytes, &sizes);
            prop_assert!(out.map_or(true, |payload| payload.len() <= bytes.len()));
        }
    }

    #[test]
    fn what_the_standard_forbids_is_refused() {
        let mask = [1, 2, 3, 4];
        let long = [0; 126];
        let cases = [
            (frame(FIN | TEXT, b"x", mask), Violation::Text),
            (vec![FIN | BINARY, 1, 0], Violation::NotMasked),
            (frame(FIN | 0x40 | BINARY, b"", mask), Violation::Reserved),
            (frame(FIN | 3, b"", mask), Violation::Reserved),
            (frame(FIN | 11, b"", mask), Violation::Reserved),
            (frame(PING, b"", mask), Violation::Control),
            (frame(FIN | PING, &long, mask), Violation::Control),
            (frame(FIN | CONTINUATION, b"", mask), Violation::Fragment),
            ([frame(BINARY, b"a", mask), frame(FIN | BINARY, b"b", mask)].concat(), Violation::Fragment),
            (vec![FIN | BINARY, MASKED | 126, 0, 125, 0, 0, 0, 0], Violation::Length),
            (vec![FIN | BINARY, MASKED | 127, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0], Violation::Length),
            (vec![FIN | BINARY, MASKED | 127, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Violation::Length),
        ];
        for (wire, expected) in cases {
            assert_eq!(deframe(&wire, &[1]).1, Err(expected), "{wire:?}");
        }
    }

    #[test]
    fn a_ping_is_answered_with_its_payload_and_nothing_counts_behind_a_close() {
        let mask = [9, 8, 7, 6];
        let wire = [
            frame(FIN | PING, b"are you there", mask),
            frame(FIN | BINARY, b"abc", mask),
            frame(FIN | CLOSE, &[3, 232, b'b', b'y', b'e'], mask),
            frame(FIN | BINARY, b"too late", mask),
        ];
        let (mut deframer, out) = deframe(&wire.concat(), &[5]);
        assert_eq!(out, Ok(b"abc".to_vec()));
        assert!(deframer.is_closed());
        let mut answer = Vec::new();
        pong(&deframer.take_ping().expect("a ping came"), &mut answer);
        close(deframer.close_payload(), &mut answer);
        assert_eq!(answer, b"\x8a\x0dare you there\x88\x02\x03\xe8");
    }

    #[test]
    fn headers_say_their_length_in_the_shortest_form() {
        for (payload, expected) in
            [(0, 2), (125, 2), (126, 4), (0xffff, 4), (0x1_0000, 10)].map(|(n, header)| (n, header))
        {
            let (mut bytes, len) = binary_header(payload);
            assert_eq!(len, expected, "{payload}");
            bytes[1] |= MASKED;
            assert_eq!(length(&bytes[1..len]), Ok(payload as u64));
        }
    }
}
