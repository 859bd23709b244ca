//! What comes over a serial line.

use std::collections::BTreeMap;
use std::time::Duration;

use regex_lite::Regex;
use serde_json::Value;

use crate::intake::exception::{Deadband, Exceptions, Offer, Report, Rule};
use crate::intake::serial::decode::{Column, Decoder, Encoding, Kind, Packed, Scaling, packed};
use crate::intake::serial::frame::checksum::{self, Checksum};
use crate::intake::serial::frame::{Bad, ByteOrder, Deframer, Found, FrameSpec, Framing, LineEnd};

const FRAME_MAX: usize = 48;

/// What a deframer told. Runs of noise are one, however they were cut.
#[derive(Debug, Default, PartialEq)]
struct Told {
    frames: Vec<Vec<u8>>,
    bad: Vec<Bad>,
    noise: usize,
}

impl Told {
    fn take(&mut self, found: &Found<'_>) {
        match found {
            Found::Frame(frame) => self.frames.push(frame.to_vec()),
            Found::Bad(why) => self.bad.push(*why),
            Found::Noise(bytes) => self.noise += bytes,
        }
    }
}

/// The first byte chooses a framing, the second one how the rest is cut into pieces: however it is cut, the same is
/// found, and no frame is longer than may be.
pub fn serial_frames(data: &[u8]) {
    let [which, cut, stream @ ..] = data else { return };
    let spec = spec(usize::from(*which));
    let whole = read(&spec, stream.len().max(1), stream);
    let pieces = read(&spec, 1 + usize::from(*cut) % 16, stream);
    assert_eq!(whole, pieces, "{spec:?}");
    assert!(whole.frames.iter().all(|frame| frame.len() <= FRAME_MAX + 8), "{spec:?}: {whole:?}");
    assert!(whole.noise <= stream.len(), "{spec:?}: {whole:?}");
}

fn read(spec: &FrameSpec, size: usize, stream: &[u8]) -> Told {
    let mut told = Told::default();
    let mut deframer = Deframer::new(spec.clone());
    stream.chunks(size).for_each(|piece| deframer.feed(piece, &mut |found| told.take(&found)));
    deframer.idle(&mut |found| told.take(&found));
    assert_eq!(deframer.patience(), None, "a silence ends everything");
    told
}

fn spec(which: usize) -> FrameSpec {
    let fence = |start: &[u8], trailer| Framing::Fence { start: start.to_vec(), stop: vec![3], trailer };
    let length = |order, adds| Framing::Length { start: vec![0xaa], offset: 1, size: 2, order, adds };
    let framings = [
        Framing::Lines(LineEnd::Any),
        Framing::Lines(LineEnd::CrLf),
        Framing::Delimiter(b"||;".to_vec()),
        fence(&[2], 0),
        fence(b"{{", 1),
        fence(&[3], 0),
        length(ByteOrder::Big, 0),
        length(ByteOrder::Little, -2),
        Framing::Fixed { start: vec![0xaa], size: 9 },
        Framing::Fixed { start: vec![], size: 5 },
        Framing::Slip,
        Framing::Cobs,
        Framing::Nmea { checksum_required: false },
        Framing::Idle(Duration::from_millis(5)),
    ];
    let framing = framings[which % framings.len()].clone();
    let checksums = [None, Some("xor-8"), Some("crc-16-modbus"), Some("lrc")];
    // A checksum behind `stop` is as wide as the framing says; NMEA has its own.
    let name = match framing {
        Framing::Fence { trailer: 1, .. } => Some("lrc"),
        Framing::Nmea { .. } => None,
        _ => checksums[which / framings.len() % checksums.len()],
    };
    let kind = name.and_then(|name| checksum::names().into_iter().find(|(known, _)| *known == name));
    let checksum = kind.map(|(_, kind)| Checksum { kind, order: ByteOrder::Little, hex: false, skip: which / 64 });
    FrameSpec { framing, checksum, max: FRAME_MAX, timeout: Some(Duration::from_secs(1)) }
}

/// The first byte chooses a decoder, the rest is the frame: it becomes JSON, or a dead letter; and what is the same as
/// before is found to be the same.
pub fn serial_decoders(data: &[u8]) {
    let [which, frame @ ..] = data else { return };
    let decoder = decoder(usize::from(*which));
    let (Ok(decoded), Ok(again)) = (decoder.decode(frame), decoder.decode(frame)) else { return };
    let mut payload = Vec::new();
    decoded.write(&mut payload);
    if decoder.content_type().is_some() {
        let document: Value = serde_json::from_slice(&payload).expect("what is written can be read");
        assert!(document.is_object(), "{document}");
    } else {
        assert_eq!(payload, frame);
    }
    let mut stage = Exceptions::new(report());
    let mut sent = Vec::new();
    let mut offer = |content, item| {
        let offer = Offer { topic: "t", quality: "", content, item, bytes: payload.len() };
        stage.offer(Duration::ZERO, offer, &mut sent)
    };
    assert_eq!((offer(decoded.into(), 1), offer(again.into(), 2)), (0, 1), "{decoder:?}");
    assert_eq!(sent, [1]);
}

fn report() -> Report {
    let rule = Rule { deadband: Deadband::Percent(1.0), min_interval: Duration::from_secs(1) };
    Report {
        rule,
        fields: BTreeMap::new(),
        ignore: Vec::new(),
        per: vec!["a".to_owned(), "sentence".to_owned()],
        max_interval: Duration::from_secs(60),
        bytes_max: 1 << 20,
    }
}

fn decoder(which: usize) -> Decoder {
    let encoding = if which & 1 == 0 { Encoding::Utf8 } else { Encoding::Latin1 };
    let column = |name: &str, kind| {
        let scaling = Scaling { scale: if which & 2 == 0 { 1.0 } else { 0.1 }, offset: 0.0 };
        Column { name: name.to_owned(), kind, unit: (which & 4 != 0).then(|| "kg".to_owned()), scaling }
    };
    let columns =
        || vec![column("a", Kind::Text), column("b", Kind::Float), column("c", Kind::Int), column("d", Kind::Bool)];
    match which / 8 % 6 {
        0 => Decoder::Raw,
        1 => Decoder::Text(encoding),
        2 => Decoder::Csv { separator: b',', encoding, columns: columns() },
        3 => {
            let pattern = Regex::new(r"^(?<a>\w+)=(?<b>[-+.0-9e]*);?(?<c>-?\d+)?(?<d>on|off|\d)?").expect("a constant");
            Decoder::Regex { pattern, encoding, columns: columns() }
        }
        4 => Decoder::Nmea,
        _ => Decoder::Packed(packed_fields()),
    }
}

fn packed_fields() -> Vec<Packed> {
    let kinds = [
        packed::Kind::Unsigned(8),
        packed::Kind::Signed(2),
        packed::Kind::F32,
        packed::Kind::F64,
        packed::Kind::Text(5),
        packed::Kind::Bits { bytes: 8, from: 3, count: 61 },
    ];
    let field = |(at, kind): (usize, &packed::Kind)| Packed {
        name: format!("f{at}"),
        at,
        kind: *kind,
        order: if at % 2 == 0 { ByteOrder::Big } else { ByteOrder::Little },
        unit: None,
        scaling: Scaling::default(),
    };
    kinds.iter().enumerate().map(field).collect()
}
