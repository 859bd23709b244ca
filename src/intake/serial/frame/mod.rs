//! Framings: where in a stream of bytes a reading begins and ends. Pure.
//!
//! How the stream is cut into pieces never matters, only what it says: each framing looks at the buffer as a whole.
//! A framing with a start can find its way back after noise; where a checksum fails, the search goes on behind the first
//! byte of what failed, so that noise which looks like a beginning never costs the good frame behind it.

pub mod checksum;
pub mod encode;
mod scan;
pub mod stuffed;

#[cfg(test)]
mod tests;

use std::time::Duration;

use checksum::Checksum;
use scan::Step;

/// Order of bytes in a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ByteOrder {
    #[default]
    Big,
    Little,
}

/// What ends a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LineEnd {
    /// LF, CR or CRLF.
    #[default]
    Any,
    Lf,
    Cr,
    CrLf,
}

/// How frames are told apart. Lengths are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framing {
    /// Empty lines are no frames.
    Lines(LineEnd),
    /// Never empty. Empty frames are no frames.
    Delimiter(Vec<u8>),
    /// Neither is empty.
    Fence {
        start: Vec<u8>,
        stop: Vec<u8>,
        /// Bytes of the checksum that stand behind `stop`; 0 when it stands before.
        trailer: usize,
    },
    /// The frame is `offset + size + (the number there) + adds` bytes long, and taken as a whole.
    Length {
        start: Vec<u8>,
        offset: usize,
        /// 1, 2 or 4.
        size: usize,
        order: ByteOrder,
        adds: i64,
    },
    /// `size` counts everything, `start` and checksum included.
    Fixed { start: Vec<u8>, size: usize },
    /// Silence of this length ends a frame.
    Idle(Duration),
    /// RFC 1055.
    Slip,
    /// Consistent overhead byte stuffing; a zero ends a frame.
    Cobs,
    /// NMEA 0183: `$` or `!`, up to CR or LF, with `*hh`.
    Nmea {
        /// Without it, a sentence that has no `*hh` is taken too.
        checksum_required: bool,
    },
}

/// A framing with all that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameSpec {
    pub framing: Framing,
    pub checksum: Option<Checksum>,
    /// Longest frame in bytes, at least 1.
    pub max: usize,
    /// An unfinished frame is given up after this silence. `None`: never.
    pub timeout: Option<Duration>,
}

/// What was found in the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// Checked, without delimiters and checksum.
    Frame(&'a [u8]),
    /// So many bytes belong to no frame.
    Noise(usize),
    /// Something that was taken for a frame and is none. Its bytes follow as noise. While the way back is sought,
    /// nothing more is reported.
    Bad(Bad),
}

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    #[error("wrong checksum")]
    Checksum,
    #[error("longer than `max`")]
    TooLong,
    #[error("malformed")]
    Malformed,
    #[error("not finished in time")]
    Unfinished,
}

/// Cuts frames out of a stream. Holds one unfinished frame at most.
#[derive(Debug)]
pub struct Deframer {
    spec: FrameSpec,
    buffer: Vec<u8>,
    /// Before it, everything is done with.
    at: usize,
    /// So many bytes behind it have been searched for the end of a frame, in vain.
    searched: usize,
    /// A frame was too long: everything up to its end goes.
    skipping: bool,
    /// The last thing found was a frame, or nothing has been found yet.
    in_sync: bool,
    scratch: Vec<u8>,
}

impl Deframer {
    pub fn new(spec: FrameSpec) -> Self {
        Deframer { spec, buffer: Vec::new(), at: 0, searched: 0, skipping: false, in_sync: true, scratch: Vec::new() }
    }

    /// Takes the next piece of the stream.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl FnMut(Found<'_>)) {
        self.buffer.extend_from_slice(bytes);
        self.run(sink);
    }

    /// The line has been silent for as long as [`Deframer::patience`] says: what is unfinished ends here.
    pub fn idle(&mut self, sink: &mut impl FnMut(Found<'_>)) {
        if matches!(self.spec.framing, Framing::Idle(_)) {
            return self.end_by_silence(sink);
        }
        self.skipping = false;
        // What began the unfinished frame may have been noise, and a good frame stand behind it.
        while !self.rest().is_empty() {
            self.bad(Bad::Unfinished, sink);
            let gone = if scan::resumes_inside(&self.spec.framing) { 1 } else { self.rest().len() };
            self.discard(gone, sink);
            self.run(sink);
        }
    }

    /// The stream was interrupted: what is unfinished will never be finished.
    pub fn interrupt(&mut self, sink: &mut impl FnMut(Found<'_>)) {
        let left = self.rest().len();
        self.discard(left, sink);
        self.skipping = false;
        self.in_sync = true;
    }

    /// After how much silence [`Deframer::idle`] wants to be called. `None`: not now.
    pub fn patience(&self) -> Option<Duration> {
        match self.spec.framing {
            Framing::Idle(gap) => (self.skipping || !self.rest().is_empty()).then_some(gap),
            _ => self.spec.timeout.filter(|_| self.skipping || !self.rest().is_empty()),
        }
    }

    /// What has been read and not yet been taken for anything.
    fn rest(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    fn run(&mut self, sink: &mut impl FnMut(Found<'_>)) {
        loop {
            match scan::step(&self.spec, self.rest(), self.searched, self.skipping) {
                Step::Wait { noise } => {
                    self.discard(noise, sink);
                    self.searched = self.rest().len();
                    return;
                }
                Step::Frame { noise, used, content } => {
                    self.discard(noise, sink);
                    self.frame(used, content, sink);
                }
                Step::Skip { used, ended } => {
                    if !self.skipping {
                        self.bad(Bad::TooLong, sink);
                    }
                    self.discard(used, sink);
                    self.skipping = !ended;
                    if !ended {
                        self.searched = self.rest().len();
                        return;
                    }
                }
                Step::Bad { noise, why, searched } => {
                    self.searched = self.searched.max(searched);
                    self.discard(noise, sink);
                    self.bad(why, sink);
                    self.discard(1, sink);
                }
            }
        }
    }

    /// Checks a candidate at the start of the buffer and takes it out, or as much as must go.
    fn frame(&mut self, used: usize, content: std::ops::Range<usize>, sink: &mut impl FnMut(Found<'_>)) {
        let body = &self.buffer[self.at..][content];
        match scan::check(&self.spec, body, &mut self.scratch) {
            Ok(frame) => {
                if !frame.is_empty() {
                    self.in_sync = true;
                    sink(Found::Frame(frame));
                }
                self.take(used);
            }
            Err(why) => {
                self.bad(why, sink);
                let gone = if scan::resumes_inside(&self.spec.framing) { 1 } else { used };
                self.discard(gone, sink);
            }
        }
    }

    fn end_by_silence(&mut self, sink: &mut impl FnMut(Found<'_>)) {
        let used = self.rest().len();
        if std::mem::take(&mut self.skipping) {
            return self.discard(used, sink);
        }
        if used > 0 {
            self.frame(used, 0..used, sink);
        }
    }

    fn bad(&mut self, why: Bad, sink: &mut impl FnMut(Found<'_>)) {
        if std::mem::take(&mut self.in_sync) {
            sink(Found::Bad(why));
        }
    }

    fn discard(&mut self, bytes: usize, sink: &mut impl FnMut(Found<'_>)) {
        if bytes > 0 {
            self.take(bytes);
            sink(Found::Noise(bytes));
        }
    }

    fn take(&mut self, bytes: usize) {
        self.at += bytes;
        // Moving the rest for every byte of noise would be quadratic.
        if self.at * 2 >= self.buffer.len() {
            self.buffer.drain(..self.at);
            self.at = 0;
        }
        self.searched = self.searched.saturating_sub(bytes);
    }
}
