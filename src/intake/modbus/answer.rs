//! The doorkeeper: finds the one answer to a request in whatever comes over the line. Pure.
//!
//! The protocol's crate takes the first frame for the answer. On a real line that may be noise, a frame of another
//! device, or a late answer to an earlier request; here only what fits the request gets through, and everything else
//! is counted.

use crate::intake::serial::frame::ByteOrder;
use crate::intake::serial::frame::checksum::{Checksum, Kind};

/// How frames are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Unit, answer, CRC. Nothing says which request it answers.
    Rtu,
    /// A header with a number for each request.
    Tcp,
}

/// What the answer must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    pub unit: u8,
    pub function: u8,
    /// Of values.
    pub bytes: u8,
    /// Of [`Framing::Tcp`].
    pub number: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// The whole frame.
    Answer(Vec<u8>),
    /// It answers this request, but not what was asked.
    Misfit(&'static str),
    /// This is another protocol: nothing behind it can be understood.
    Garbage(&'static str),
}

/// The largest frame of either framing is 260 bytes; what is older than two of them answers nothing.
const BUFFER_MAX: usize = 520;
const HEADER: usize = 6;

/// What has come and may still become an answer.
#[derive(Debug)]
pub struct Answers {
    framing: Framing,
    buffer: Vec<u8>,
    /// Bytes that were passed over.
    passed: usize,
}

impl Answers {
    pub fn new(framing: Framing) -> Self {
        Answers { framing, buffer: Vec::with_capacity(BUFFER_MAX), passed: 0 }
    }

    /// What comes while nobody is asked, or came before a request was sent, answers nothing.
    pub fn ignore(&mut self, bytes: &[u8]) -> Found {
        match self.framing {
            Framing::Rtu => {
                self.pass(self.buffer.len());
                self.passed += bytes.len();
                Found::Nothing
            }
            // Its frames are counted through, so that the next one begins where it begins.
            Framing::Tcp => self.find(bytes, None),
        }
    }

    pub fn take(&mut self, bytes: &[u8], expected: &Expected) -> Found {
        self.find(bytes, Some(expected))
    }

    /// Bytes that answered nothing, since this was last asked.
    pub fn noise(&mut self) -> usize {
        std::mem::take(&mut self.passed)
    }

    fn find(&mut self, bytes: &[u8], expected: Option<&Expected>) -> Found {
        self.buffer.extend_from_slice(bytes);
        let found = match (self.framing, expected) {
            (Framing::Tcp, expected) => self.numbered(expected),
            (Framing::Rtu, Some(expected)) => self.anywhere(expected),
            (Framing::Rtu, None) => Found::Nothing,
        };
        self.pass(self.buffer.len().saturating_sub(BUFFER_MAX));
        found
    }

    /// An RTU frame begins wherever it can be read as the answer, its CRC included.
    fn anywhere(&mut self, expected: &Expected) -> Found {
        let answer = (0..self.buffer.len()).find_map(|at| {
            let length = rtu_length(&self.buffer[at..], expected)?;
            let frame = self.buffer.get(at..at + length)?;
            crc().strip(frame).map(|_| (at, frame.to_vec()))
        });
        let Some((at, frame)) = answer else { return Found::Nothing };
        self.pass(at);
        self.buffer.drain(..frame.len());
        Found::Answer(frame)
    }

    fn numbered(&mut self, expected: Option<&Expected>) -> Found {
        while let Some(header) = self.buffer.get(..HEADER) {
            let [high, low, protocol, version, long, length] = [0, 1, 2, 3, 4, 5].map(|at| header[at]);
            let (number, length) = (u16::from_be_bytes([high, low]), usize::from(u16::from_be_bytes([long, length])));
            if (protocol, version) != (0, 0) || !(3..=254).contains(&length) {
                return Found::Garbage("what comes is no Modbus TCP");
            }
            let Some(frame) = self.buffer.get(..HEADER + length) else { break };
            let Some(expected) = expected.filter(|expected| (expected.number, expected.unit) == (number, frame[6]))
            else {
                self.pass(HEADER + length);
                continue;
            };
            let frame = frame.to_vec();
            self.buffer.drain(..frame.len());
            return tcp_answer(frame, expected);
        }
        Found::Nothing
    }

    fn pass(&mut self, bytes: usize) {
        self.buffer.drain(..bytes);
        self.passed += bytes;
    }
}

/// How long a frame that begins here would be. `None`: none of ours begins here.
fn rtu_length(from: &[u8], expected: &Expected) -> Option<usize> {
    match *from {
        [unit, function, _, ..] if unit == expected.unit && function == expected.function | 0x80 => Some(5),
        [unit, function, bytes, ..]
            if (unit, function, bytes) == (expected.unit, expected.function, expected.bytes) =>
        {
            Some(5 + usize::from(bytes))
        }
        _ => None,
    }
}

fn tcp_answer(frame: Vec<u8>, expected: &Expected) -> Found {
    match frame[HEADER + 1..] {
        [function, _] if function == expected.function | 0x80 => Found::Answer(frame),
        [function, bytes, ref values @ ..] if function == expected.function => {
            if bytes == expected.bytes && values.len() == usize::from(bytes) {
                Found::Answer(frame)
            } else {
                Found::Misfit("the answer has another length than was asked for")
            }
        }
        _ => Found::Misfit("the answer is one to another function"),
    }
}

/// Of RTU frames.
pub fn crc() -> Checksum {
    Checksum { kind: Kind::Crc("crc-16-modbus"), order: ByteOrder::Little, hex: false, skip: 0 }
}

/// An exception by its name in the specification (MODBUS Application Protocol V1.1b3, section 7).
pub fn exception(code: u8) -> String {
    let name = match code {
        1 => "illegal function",
        2 => "illegal data address",
        3 => "illegal data value",
        4 => "server device failure",
        5 => "acknowledge",
        6 => "server device busy",
        8 => "memory parity error",
        10 => "gateway path unavailable",
        11 => "gateway target device failed to respond",
        _ => return format!("unknown exception {code}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXPECTED: Expected = Expected { unit: 1, function: 3, bytes: 2, number: 7 };

    fn rtu(body: &[u8]) -> Vec<u8> {
        let mut frame = body.to_vec();
        crc().append(&mut frame);
        frame
    }

    fn tcp(number: u16, body: &[u8]) -> Vec<u8> {
        [&number.to_be_bytes()[..], &[0, 0], &(body.len() as u16).to_be_bytes(), body].concat()
    }

    fn through(framing: Framing, bytes: &[u8]) -> (Found, usize) {
        let mut answers = Answers::new(framing);
        let found = answers.take(bytes, &EXPECTED);
        (found, answers.noise())
    }

    #[test]
    fn only_the_answer_gets_through_the_door() {
        let good = rtu(&[1, 3, 2, 0, 7]);
        assert_eq!(through(Framing::Rtu, &good), (Found::Answer(good.clone()), 0));
        let refused = rtu(&[1, 0x83, 2]);
        assert_eq!(through(Framing::Rtu, &refused), (Found::Answer(refused), 0));
        // Another device, another function, another length, a wrong CRC, an echo of the request, a glitch.
        let others = [
            rtu(&[2, 3, 2, 0, 7]),
            rtu(&[1, 4, 2, 0, 7]),
            rtu(&[1, 3, 4, 0, 7, 0, 8]),
            vec![1, 3, 2, 0, 7, 0, 0],
            rtu(&[1, 3, 0, 0, 0, 1]),
            vec![0],
            vec![0xff, 3, 0xf0],
        ];
        for other in &others {
            assert_eq!(through(Framing::Rtu, other), (Found::Nothing, 0), "{other:?}");
            let (found, noise) = through(Framing::Rtu, &[&other[..], &good].concat());
            assert_eq!((found, noise), (Found::Answer(good.clone()), other.len()), "{other:?}");
        }
    }

    #[test]
    fn a_late_answer_by_tcp_is_passed_over_and_a_broken_one_told() {
        let good = tcp(7, &[1, 3, 2, 0, 7]);
        let late = tcp(6, &[1, 3, 2, 9, 9]);
        let mut answers = Answers::new(Framing::Tcp);
        assert_eq!(answers.ignore(&late[..4]), Found::Nothing);
        assert_eq!(answers.take(&[&late[4..], &good[..5]].concat(), &EXPECTED), Found::Nothing);
        assert_eq!((answers.noise(), answers.take(&good[5..], &EXPECTED)), (late.len(), Found::Answer(good)));
        let refused = tcp(7, &[1, 0x83, 11]);
        assert_eq!(through(Framing::Tcp, &refused), (Found::Answer(refused), 0));
        assert!(matches!(through(Framing::Tcp, &tcp(7, &[1, 3, 4, 0, 0, 0, 0])).0, Found::Misfit(_)));
        assert!(matches!(through(Framing::Tcp, &tcp(7, &[1, 3, 2, 0])).0, Found::Misfit(_)));
        assert!(matches!(through(Framing::Tcp, &tcp(7, &[1, 4, 2, 0, 0])).0, Found::Misfit(_)));
        assert!(matches!(through(Framing::Tcp, b"HTTP/1.1 400 Bad Request\r\n").0, Found::Garbage(_)));
        assert!(matches!(through(Framing::Tcp, &tcp(7, &[1; 300])).0, Found::Garbage(_)));
    }

    proptest! {
        #[test]
        fn an_rtu_answer_is_found_behind_any_noise_in_any_pieces(
            noise in proptest::collection::vec(any::<u8>(), 0..800), value in any::<[u8; 2]>(), size in 1usize..50
        ) {
            let good = rtu(&[1, 3, 2, value[0], value[1]]);
            let mut answers = Answers::new(Framing::Rtu);
            let mut found = Found::Nothing;
            for piece in [noise, good.clone()].concat().chunks(size) {
                if let answer @ Found::Answer(_) = answers.take(piece, &EXPECTED) {
                    found = answer;
                }
                prop_assert!(answers.buffer.len() <= BUFFER_MAX);
            }
            // One frame of noise in 2^40 fits by chance.
            prop_assert_eq!(found, Found::Answer(good));
        }

        #[test]
        fn nothing_that_comes_by_tcp_breaks_it(bytes in proptest::collection::vec(any::<u8>(), 0..600), size in 1usize..50) {
            let mut answers = Answers::new(Framing::Tcp);
            for piece in bytes.chunks(size) {
                if matches!(answers.take(piece, &EXPECTED), Found::Garbage(_)) {
                    break;
                }
                prop_assert!(answers.buffer.len() <= BUFFER_MAX);
            }
        }
    }
}
