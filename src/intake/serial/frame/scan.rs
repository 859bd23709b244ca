//! Looks for the next frame at the start of a buffer. Knows nothing of what came before but `searched` and `skipping`.

use std::ops::Range;

use super::stuffed::{self, SLIP_END};
use super::{Bad, ByteOrder, FrameSpec, Framing, LineEnd};

/// What to do with the start of the buffer.
#[derive(Debug)]
pub(super) enum Step {
    /// More is needed; the first `noise` bytes belong to nothing.
    Wait { noise: usize },
    /// Behind `noise` bytes a candidate of `used` bytes, its content within.
    Frame { noise: usize, used: usize, content: Range<usize> },
    /// A frame that is too long: these bytes of it go. `ended`: its end is among them.
    Skip { used: usize, ended: bool },
    /// What begins behind `noise` bytes is no frame. No end of any frame is within the first `searched` bytes.
    Bad { noise: usize, why: Bad, searched: usize },
}

const WAIT: Step = Step::Wait { noise: 0 };

/// Whether the search goes on behind the first byte of a broken frame. Otherwise its end is certain, and it goes whole.
pub(super) fn resumes_inside(framing: &Framing) -> bool {
    matches!(framing, Framing::Fence { .. } | Framing::Length { .. } | Framing::Fixed { .. } | Framing::Nmea { .. })
}

pub(super) fn step(spec: &FrameSpec, buffer: &[u8], searched: usize, skipping: bool) -> Step {
    let delimited = |delimiter: &[u8], max: usize| {
        let from = searched.saturating_sub(delimiter.len() - 1);
        let found = find(buffer, delimiter, from).map(|at| (at, delimiter.len()));
        up_to(found, buffer.len(), delimiter.len(), max, skipping)
    };
    let max = checked_max(spec);
    match &spec.framing {
        Framing::Lines(LineEnd::Any) => {
            let found = buffer[searched.min(buffer.len())..].iter().position(|byte| is_line_end(*byte));
            up_to(found.map(|at| (at + searched, 1)), buffer.len(), 1, max, skipping)
        }
        Framing::Lines(LineEnd::Lf) => delimited(b"\n", max),
        Framing::Lines(LineEnd::Cr) => delimited(b"\r", max),
        Framing::Lines(LineEnd::CrLf) => delimited(b"\r\n", max),
        Framing::Delimiter(delimiter) => delimited(delimiter, max),
        // Every byte may be escaped.
        Framing::Slip => delimited(&[SLIP_END], max * 2),
        Framing::Cobs => delimited(&[0], max + max / 254 + 1),
        Framing::Idle(_) if skipping || buffer.len() > max => Step::Skip { used: buffer.len(), ended: false },
        Framing::Idle(_) => WAIT,
        Framing::Fence { start, stop, trailer } => {
            let fence = Fence { start, stop, trailer: *trailer, checked: spec.checksum.is_some() };
            fence.step(buffer, searched, max)
        }
        Framing::Length { start, offset, size, order, adds } => {
            let header = Header { offset: *offset, size: *size, order: *order, adds: *adds };
            after_start(buffer, start, |rest| header.frame(rest, max))
        }
        Framing::Fixed { start, size } => {
            after_start(buffer, start, |rest| if rest.len() < *size { Ok(None) } else { Ok(Some(*size)) })
        }
        Framing::Nmea { .. } => nmea(buffer, searched, max),
    }
}

/// The checksum does not count: `max` is what the reader gets.
fn checked_max(spec: &FrameSpec) -> usize {
    spec.max + spec.checksum.as_ref().map_or(0, super::checksum::Checksum::width)
}

/// Takes a candidate apart: what the reader gets, or what is wrong with it.
pub(super) fn check<'b>(spec: &FrameSpec, body: &'b [u8], scratch: &'b mut Vec<u8>) -> Result<&'b [u8], Bad> {
    if body.is_empty() {
        return Ok(body);
    }
    let plain = match &spec.framing {
        Framing::Slip => stuffed::unslip(body, scratch).ok_or(Bad::Malformed)?,
        Framing::Cobs => stuffed::uncobs(body, scratch).ok_or(Bad::Malformed)?,
        Framing::Nmea { checksum_required } => return nmea_check(body, *checksum_required),
        _ => body,
    };
    if plain.len() > checked_max(spec) + trailer(&spec.framing) {
        return Err(Bad::TooLong);
    }
    let Some(checksum) = &spec.checksum else { return Ok(plain) };
    let checked = checksum.strip(plain).ok_or(Bad::Checksum)?;
    Ok(&checked[..checked.len() - trailer(&spec.framing)])
}

/// Bytes of `stop` that a checksum behind it covers.
fn trailer(framing: &Framing) -> usize {
    match framing {
        Framing::Fence { stop, trailer, .. } if *trailer > 0 => stop.len(),
        _ => 0,
    }
}

fn is_line_end(byte: u8) -> bool {
    byte == b'\r' || byte == b'\n'
}

fn find(buffer: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let rest = buffer.get(from..)?;
    rest.windows(needle.len()).position(|window| window == needle).map(|at| at + from)
}

/// A frame that ends where `end` says: at a place, with so many bytes of delimiter.
fn up_to(end: Option<(usize, usize)>, len: usize, delimiter: usize, max: usize, skipping: bool) -> Step {
    match end {
        Some((at, width)) if skipping || at > max => Step::Skip { used: at + width, ended: true },
        Some((at, width)) => Step::Frame { noise: 0, used: at + width, content: 0..at },
        // The last bytes may be the first of a delimiter.
        None if skipping || len >= max + delimiter => {
            Step::Skip { used: len.saturating_sub(delimiter - 1), ended: false }
        }
        None => WAIT,
    }
}

/// Bytes before the first `start`, or before what may become one.
fn noise_before(buffer: &[u8], start: &[u8]) -> Result<usize, Step> {
    if start.is_empty() {
        return Ok(0);
    }
    find(buffer, start, 0).ok_or_else(|| {
        let kept = (1..start.len().min(buffer.len() + 1)).rev().find(|n| buffer.ends_with(&start[..*n])).unwrap_or(0);
        Step::Wait { noise: buffer.len() - kept }
    })
}

/// A frame that begins with `start` and whose length `measure` knows, once enough is there.
fn after_start(buffer: &[u8], start: &[u8], measure: impl Fn(&[u8]) -> Result<Option<usize>, Bad>) -> Step {
    let noise = match noise_before(buffer, start) {
        Ok(noise) => noise,
        Err(wait) => return wait,
    };
    match measure(&buffer[noise..]) {
        Ok(Some(used)) => Step::Frame { noise, used, content: 0..used },
        Ok(None) => Step::Wait { noise },
        Err(why) => Step::Bad { noise, why, searched: 0 },
    }
}

struct Header {
    offset: usize,
    size: usize,
    order: ByteOrder,
    adds: i64,
}

impl Header {
    fn frame(&self, buffer: &[u8], max: usize) -> Result<Option<usize>, Bad> {
        let end = self.offset + self.size;
        let Some(field) = buffer.get(self.offset..end) else { return Ok(None) };
        let digit = |number: i64, byte: &u8| number << 8 | i64::from(*byte);
        let number = match self.order {
            ByteOrder::Big => field.iter().fold(0, digit),
            ByteOrder::Little => field.iter().rev().fold(0, digit),
        };
        let total = usize::try_from(number + self.adds + end as i64).map_err(|_| Bad::Malformed)?;
        if total < end {
            return Err(Bad::Malformed);
        }
        if total > max {
            return Err(Bad::TooLong);
        }
        Ok((buffer.len() >= total).then_some(total))
    }
}

fn too_long_behind(noise: usize, searched: usize) -> Step {
    Step::Bad { noise, why: Bad::TooLong, searched }
}

struct Fence<'s> {
    start: &'s [u8],
    stop: &'s [u8],
    trailer: usize,
    checked: bool,
}

impl Fence<'_> {
    fn step(&self, buffer: &[u8], searched: usize, max: usize) -> Step {
        let (start, stop) = (self.start, self.stop);
        let first = match noise_before(buffer, start) {
            Ok(noise) => noise,
            Err(wait) => return wait,
        };
        let inside = first + start.len();
        // A stop may have been found before, and its trailer awaited.
        let from = inside.max(searched.saturating_sub(stop.len() + self.trailer));
        let Some(end) = find(buffer, stop, from) else {
            let too_long = buffer.len() - inside >= max + stop.len();
            return if too_long { too_long_behind(first, buffer.len()) } else { Step::Wait { noise: first } };
        };
        if end - inside > max {
            return too_long_behind(first, 0);
        }
        if start == stop && end == inside {
            // The end of one frame and the start of the next: nothing is between.
            return Step::Frame { noise: first, used: start.len(), content: 0..0 };
        }
        // Without a checksum, a second start means that the first frame was cut off. With one, it decides.
        let alone = self.checked || start == stop;
        let noise = if alone { first } else { last_within(buffer, start, first + 1, end).unwrap_or(first) };
        let used = end + stop.len() + self.trailer - noise;
        if buffer.len() < noise + used {
            return Step::Wait { noise };
        }
        let content_end = if self.trailer > 0 { used } else { end - noise };
        Step::Frame { noise, used, content: start.len()..content_end }
    }
}

fn last_within(buffer: &[u8], needle: &[u8], from: usize, to: usize) -> Option<usize> {
    let window = buffer.get(from..to)?;
    window.windows(needle.len()).rposition(|found| found == needle).map(|at| at + from)
}

fn nmea(buffer: &[u8], searched: usize, max: usize) -> Step {
    let is_start = |byte: &u8| matches!(byte, b'$' | b'!');
    let Some(first) = buffer.iter().position(|byte| is_start(byte) || is_line_end(*byte)) else {
        return Step::Wait { noise: buffer.len() };
    };
    if is_line_end(buffer[first]) {
        // The second half of CRLF, or an empty line.
        return Step::Frame { noise: first, used: 1, content: 0..0 };
    }
    let from = first.max(searched);
    let Some(length) = buffer[from..].iter().position(|byte| is_line_end(*byte)).map(|at| at + from - first) else {
        let too_long = buffer.len() - first > max;
        return if too_long { too_long_behind(first, buffer.len()) } else { Step::Wait { noise: first } };
    };
    if length > max {
        return too_long_behind(first, 0);
    }
    let end = first + length;
    let noise = buffer[first..end].iter().rposition(is_start).map_or(first, |at| first + at);
    Step::Frame { noise, used: end + 1 - noise, content: 0..end - noise }
}

fn nmea_check(sentence: &[u8], required: bool) -> Result<&[u8], Bad> {
    if !sentence.iter().all(|byte| (0x20..0x7f).contains(byte)) {
        return Err(Bad::Malformed);
    }
    let Some(star) = sentence.iter().rposition(|byte| *byte == b'*') else {
        return if required { Err(Bad::Checksum) } else { Ok(sentence) };
    };
    let sum = sentence[1..star].iter().fold(0u8, |sum, byte| sum ^ byte);
    let said = std::str::from_utf8(&sentence[star + 1..]).ok().filter(|hex| hex.len() == 2);
    let said = said.and_then(|hex| u8::from_str_radix(hex, 16).ok());
    if said == Some(sum) { Ok(sentence) } else { Err(Bad::Checksum) }
}
