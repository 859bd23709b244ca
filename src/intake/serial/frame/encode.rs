//! The other way round: a frame for a payload, as a device would send it. Pure; for the simulator and for queries.

use super::{ByteOrder, FrameSpec, Framing, LineEnd, stuffed};

/// Writes `payload` as one frame. What the framing cannot carry (a delimiter inside, another size) is not looked at.
///
/// For [`Framing::Length`], `payload` is what stands behind the length; for [`Framing::Fixed`], what stands behind `start`.
pub fn encode(spec: &FrameSpec, payload: &[u8], out: &mut Vec<u8>) {
    let checked = |mut frame: Vec<u8>| {
        if let Some(checksum) = &spec.checksum {
            checksum.append(&mut frame);
        }
        frame
    };
    match &spec.framing {
        Framing::Lines(end) => ended(&checked(payload.to_vec()), line_end(*end), out),
        Framing::Delimiter(delimiter) => ended(&checked(payload.to_vec()), delimiter, out),
        Framing::Idle(_) => out.extend_from_slice(&checked(payload.to_vec())),
        Framing::Slip => stuffed::slip(&checked(payload.to_vec()), out),
        Framing::Cobs => stuffed::cobs(&checked(payload.to_vec()), out),
        Framing::Nmea { .. } => nmea(payload, out),
        Framing::Fixed { start, .. } => out.extend_from_slice(&checked([start, payload].concat())),
        Framing::Length { start, .. } => {
            let checksum = spec.checksum.as_ref().map_or(0, super::checksum::Checksum::width);
            out.extend_from_slice(&checked(with_length(&spec.framing, start, payload, checksum)));
        }
        Framing::Fence { start, stop, trailer: 0 } => {
            out.extend_from_slice(start);
            ended(&checked(payload.to_vec()), stop, out);
        }
        Framing::Fence { start, stop, .. } => {
            out.extend_from_slice(start);
            out.extend_from_slice(&checked([payload, stop].concat()));
        }
    }
}

fn ended(frame: &[u8], end: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(frame);
    out.extend_from_slice(end);
}

pub(super) fn line_end(end: LineEnd) -> &'static [u8] {
    match end {
        LineEnd::Any | LineEnd::CrLf => b"\r\n",
        LineEnd::Lf => b"\n",
        LineEnd::Cr => b"\r",
    }
}

fn with_length(framing: &Framing, start: &[u8], payload: &[u8], checksum: usize) -> Vec<u8> {
    let Framing::Length { offset, size, order, adds, .. } = framing else { return payload.to_vec() };
    let mut frame = start.to_vec();
    frame.resize(*offset, 0);
    let number = (payload.len() + checksum) as i64 - adds;
    let bytes = number.to_be_bytes();
    let mut field = bytes[bytes.len() - size..].to_vec();
    if *order == ByteOrder::Little {
        field.reverse();
    }
    frame.extend_from_slice(&field);
    frame.extend_from_slice(payload);
    frame
}

fn nmea(payload: &[u8], out: &mut Vec<u8>) {
    let sum = payload.iter().fold(0u8, |sum, byte| sum ^ byte);
    out.push(b'$');
    out.extend_from_slice(payload);
    out.extend_from_slice(format!("*{sum:02X}\r\n").as_bytes());
}
