//! What must hold for every framing: how the stream is cut never matters, noise costs no good frame behind it, and what
//! was encoded comes back.

#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::checksum::{Checksum, Kind, names};
use super::encode::{encode, line_end};
use super::*;

/// What a reader of the stream learns.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    frames: Vec<Vec<u8>>,
    noise: usize,
    bad: Vec<Bad>,
}

impl Told {
    fn take(&mut self, found: &Found<'_>) {
        match found {
            Found::Frame(frame) => self.frames.push(frame.to_vec()),
            Found::Noise(bytes) => self.noise += bytes,
            Found::Bad(why) => self.bad.push(*why),
        }
    }
}

fn spec(framing: Framing, checksum: Option<Checksum>) -> FrameSpec {
    FrameSpec { framing, checksum, max: 64, timeout: Some(Duration::from_secs(1)) }
}

fn sum(kind: Kind) -> Option<Checksum> {
    Some(Checksum { kind, order: ByteOrder::Little, hex: false, skip: 0 })
}

fn read(spec: &FrameSpec, pieces: &[&[u8]]) -> Told {
    let mut told = Told::default();
    let mut deframer = Deframer::new(spec.clone());
    for piece in pieces {
        deframer.feed(piece, &mut |found| told.take(&found));
    }
    told
}

/// Every framing that ends frames by itself, with and without a checksum.
fn specs() -> Vec<FrameSpec> {
    let crc = || sum(Kind::Crc("crc-16-modbus"));
    let fence = |trailer| Framing::Fence { start: vec![2], stop: vec![3], trailer };
    let length = |start: &[u8], order| Framing::Length { start: start.to_vec(), offset: 2, size: 2, order, adds: 0 };
    let mut all = vec![
        spec(Framing::Lines(LineEnd::Any), None),
        spec(Framing::Lines(LineEnd::Lf), None),
        spec(Framing::Lines(LineEnd::Cr), None),
        spec(Framing::Lines(LineEnd::CrLf), None),
        // One that overlaps itself would leave its own tail behind in noise.
        spec(Framing::Delimiter(b"|;".to_vec()), None),
        spec(Framing::Delimiter(b";".to_vec()), Some(hex_xor())),
        spec(fence(0), None),
        spec(fence(0), Some(hex_xor())),
        spec(fence(1), sum(Kind::Lrc)),
        spec(Framing::Fence { start: b"{{".to_vec(), stop: b"}}".to_vec(), trailer: 0 }, None),
        spec(Framing::Fence { start: vec![0x7e], stop: vec![0x7e], trailer: 0 }, Some(hex_xor())),
        spec(length(&[0xaa, 0x55], ByteOrder::Little), crc()),
        spec(length(&[0xaa, 0x55], ByteOrder::Big), None),
        spec(Framing::Fixed { start: vec![0xaa, 0x55], size: 12 }, crc()),
        spec(Framing::Fixed { start: vec![], size: 8 }, None),
        spec(Framing::Slip, None),
        spec(Framing::Slip, crc()),
        spec(Framing::Cobs, None),
        spec(Framing::Cobs, sum(Kind::Crc("crc-32"))),
        spec(Framing::Nmea { checksum_required: true }, None),
    ];
    all.iter_mut().for_each(|spec| spec.timeout = None);
    all
}

fn hex_xor() -> Checksum {
    Checksum { kind: Kind::Xor8, order: ByteOrder::Big, hex: true, skip: 0 }
}

/// A payload that the framing can carry: letters do not collide with any delimiter, the stuffed framings take all.
fn fit(spec: &FrameSpec, bytes: &[u8]) -> Vec<u8> {
    let letter = |byte: &u8| b'A' + byte % 26;
    match &spec.framing {
        Framing::Slip | Framing::Cobs => bytes.to_vec(),
        Framing::Length { .. } => bytes.iter().take(48).copied().collect(),
        Framing::Fixed { start, size } => {
            let checksum = spec.checksum.as_ref().map_or(0, Checksum::width);
            bytes.iter().copied().cycle().take(size - start.len() - checksum).collect()
        }
        _ => bytes.iter().map(letter).collect(),
    }
}

/// What the reader gets for a payload.
fn seen(spec: &FrameSpec, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode(spec, payload, &mut frame);
    let checksum = spec.checksum.as_ref().map_or(0, Checksum::width);
    match &spec.framing {
        Framing::Length { .. } | Framing::Fixed { .. } => frame[..frame.len() - checksum].to_vec(),
        Framing::Nmea { .. } => frame[..frame.len() - 2].to_vec(),
        _ => payload.to_vec(),
    }
}

fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..8)
}

/// Bytes that love to look like the beginning or the end of something.
fn nasty() -> impl Strategy<Value = Vec<u8>> {
    let bytes = [2, 3, 0xaa, 0x55, 0x7e, 0xc0, 0xdb, 0, b'$', b'*', b'\n', b'\r', b'|', b';', b'{', b'}', b'A', 0xff];
    prop::collection::vec(prop_oneof![3 => prop::sample::select(bytes.to_vec()), 1 => any::<u8>()], 0..400)
}

proptest! {
    #[test]
    fn decode_of_encode_is_identity(which in 0..specs().len(), payloads in payloads()) {
        let spec = &specs()[which];
        let payloads: Vec<Vec<u8>> = payloads.iter().map(|payload| fit(spec, payload)).collect();
        let mut stream = Vec::new();
        payloads.iter().for_each(|payload| encode(spec, payload, &mut stream));
        let told = read(spec, &[&stream]);
        let expected: Vec<Vec<u8>> = payloads.iter().map(|payload| seen(spec, payload)).collect();
        prop_assert_eq!(told.frames, expected);
        prop_assert_eq!(told.bad, vec![]);
        prop_assert_eq!(told.noise, 0);
    }

    #[test]
    fn chunking_never_matters(which in 0..specs().len(), noise in nasty(), payloads in payloads(), cuts in prop::collection::vec(1usize..9, 1..60)) {
        let spec = &specs()[which];
        let mut stream = noise;
        payloads.iter().for_each(|payload| encode(spec, &fit(spec, payload), &mut stream));
        let mut pieces = Vec::new();
        let mut rest = stream.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, tail) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = tail;
        }
        prop_assert_eq!(read(spec, &pieces), read(spec, &[&stream]));
    }

    /// With a start or a checksum the next good frame is found at once; a delimiter ends the noise first.
    #[test]
    fn noise_before_a_frame_never_loses_the_next_good_one(which in 0..specs().len(), noise in nasty(), payload in prop::collection::vec(any::<u8>(), 1..30)) {
        let spec = &specs()[which];
        // Nothing but the count of bytes tells these frames apart.
        prop_assume!(!matches!(&spec.framing, Framing::Fixed { start, .. } if start.is_empty()));
        let payload = fit(spec, &payload);
        let mut stream = noise.clone();
        if !scan::resumes_inside(&spec.framing) || matches!(&spec.framing, Framing::Fence { start, stop, .. } if start == stop) {
            end(&spec.framing, &mut stream);
        }
        encode(spec, &payload, &mut stream);
        let mut told = Told::default();
        let mut deframer = Deframer::new(spec.clone());
        deframer.feed(&stream, &mut |found| told.take(&found));
        // Noise that promised a longer frame is given up after a silence.
        deframer.idle(&mut |found| told.take(&found));
        let wanted = seen(spec, &payload);
        // Without a checksum, noise that ends like a beginning swallows what follows, and nobody can tell.
        let certain = spec.checksum.is_some() || !matches!(&spec.framing, Framing::Length { .. });
        // Two equal starts in the noise cancel out in a sum: what begins with the first of them is a frame then.
        let weak = spec.checksum.as_ref().is_some_and(|checksum| !matches!(checksum.kind, Kind::Crc(_)));
        let is_found = |last: &Vec<u8>| *last == wanted || weak && last.ends_with(&wanted);
        prop_assert!(!certain || told.frames.last().is_some_and(is_found), "{told:?}");
    }

    #[test]
    fn whatever_comes_the_buffer_stays_within_its_bound(which in 0..specs().len(), noise in nasty()) {
        let spec = &specs()[which];
        let mut deframer = Deframer::new(spec.clone());
        let mut told = Told::default();
        for byte in noise.iter().cycle().take(2_000) {
            deframer.feed(&[*byte], &mut |found| told.take(&found));
            prop_assert!(deframer.buffer.len() <= 4 * (spec.max + 16), "{}", deframer.buffer.len());
        }
    }

    #[test]
    fn every_byte_is_accounted_for_in_lines_of_noise(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let spec = spec(Framing::Fence { start: vec![2], stop: vec![3], trailer: 1 }, sum(Kind::Lrc));
        let mut deframer = Deframer::new(spec);
        let mut told = Told::default();
        deframer.feed(&noise, &mut |found| told.take(&found));
        deframer.idle(&mut |found| told.take(&found));
        let framed: usize = told.frames.iter().map(|frame| frame.len() + 3).sum();
        prop_assert_eq!(told.noise + framed, noise.len());
    }
}

/// Framings in which a frame says where it begins.
fn has_start(framing: &Framing) -> bool {
    match framing {
        Framing::Fence { start, stop, .. } => start != stop,
        Framing::Length { start, .. } | Framing::Fixed { start, .. } => !start.is_empty(),
        Framing::Nmea { .. } => true,
        _ => false,
    }
}

proptest! {
    /// A break condition reads as a zero byte. One within a frame is a wrong byte, see below.
    #[test]
    fn a_break_spoils_one_frame_at_most(which in 0..specs().len(), payloads in payloads()) {
        let spec = &specs()[which];
        // Nothing but the count of bytes tells these frames apart: a silence does.
        prop_assume!(!matches!(&spec.framing, Framing::Fixed { start, .. } if start.is_empty()));
        let payloads: Vec<Vec<u8>> = payloads.iter().map(|payload| fit(spec, payload)).collect();
        let mut stream = vec![0];
        payloads.iter().for_each(|payload| encode(spec, payload, &mut stream));
        let told = read(spec, &[&stream]);
        let expected: Vec<Vec<u8>> = payloads.iter().map(|payload| seen(spec, payload)).collect();
        // With a start, and where a zero is an end, it costs nothing.
        let free = has_start(&spec.framing) || matches!(spec.framing, Framing::Cobs);
        let behind = if free { 0 } else { 1 };
        prop_assert_eq!(&told.frames[told.frames.len() - (expected.len() - behind)..], &expected[behind..]);
        prop_assert!(!free || told.frames.len() == expected.len());
    }

    /// A wrong parity bit reads as a zero byte too: a checksum refuses that frame, and the next one is whole.
    #[test]
    fn a_wrong_parity_bit_spoils_its_own_frame_alone(which in 0..specs().len(), at in any::<prop::sample::Index>(), payload in prop::collection::vec(1u8..=255, 1..30)) {
        let spec = &specs()[which];
        let checked = spec.checksum.is_some() || matches!(spec.framing, Framing::Nmea { .. });
        prop_assume!(checked && (has_start(&spec.framing) || !scan::resumes_inside(&spec.framing)));
        let payload = fit(spec, &payload);
        let mut stream = Vec::new();
        encode(spec, &payload, &mut stream);
        let at = at.index(stream.len());
        // Where a delimiter is hit, two frames become one, and both are refused.
        let is_delimiter = stream[at..].starts_with(b";") || matches!(stream[at], 0 | stuffed::SLIP_END | b'\n' | b'\r');
        prop_assume!(!is_delimiter);
        stream[at] = 0;
        encode(spec, &payload, &mut stream);
        let mut told = Told::default();
        let mut deframer = Deframer::new(spec.clone());
        deframer.feed(&stream, &mut |found| told.take(&found));
        deframer.idle(&mut |found| told.take(&found));
        prop_assert_eq!(told.frames, [seen(spec, &payload)]);
    }
}

#[test]
fn a_megabyte_of_noise_in_any_framing_stays_within_its_bound_and_costs_no_good_frame_behind_it() {
    let mut seed = 7u64;
    let noise: Vec<u8> = (0..1 << 20)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        })
        .collect();
    for spec in
        specs().into_iter().filter(|spec| !matches!(&spec.framing, Framing::Fixed { start, .. } if start.is_empty()))
    {
        let mut deframer = Deframer::new(spec.clone());
        let mut told = Told::default();
        for piece in noise.chunks(2_048) {
            deframer.feed(piece, &mut |found| told.take(&found));
            assert!(deframer.buffer.len() <= 4 * (spec.max + 16) + 2_048, "{spec:?}: {}", deframer.buffer.len());
        }
        deframer.idle(&mut |found| told.take(&found));
        let mut behind = Vec::new();
        end(&spec.framing, &mut behind);
        let payload = fit(&spec, b"good");
        encode(&spec, &payload, &mut behind);
        deframer.feed(&behind, &mut |found| told.take(&found));
        deframer.idle(&mut |found| told.take(&found));
        assert_eq!(told.frames.last(), Some(&seen(&spec, &payload)), "{spec:?}");
    }
}

/// Ends whatever noise stands before, as a device does that begins with a delimiter.
fn end(framing: &Framing, stream: &mut Vec<u8>) {
    match framing {
        Framing::Lines(end) => stream.extend_from_slice(line_end(*end)),
        Framing::Delimiter(delimiter) => stream.extend_from_slice(delimiter),
        Framing::Slip => stream.push(stuffed::SLIP_END),
        Framing::Cobs => stream.push(0),
        Framing::Fence { stop, .. } => stream.extend_from_slice(&stop.repeat(2)),
        _ => {}
    }
}

#[test]
fn a_line_without_an_end_is_cut_at_the_bound_and_told_once() {
    let spec = spec(Framing::Lines(LineEnd::Any), None);
    let noise = vec![b'x'; 1 << 20];
    let told = read(&spec, &[&noise, b"\ngood\n"]);
    assert_eq!(told, Told { frames: vec![b"good".to_vec()], noise: (1 << 20) + 1, bad: vec![Bad::TooLong] });
}

#[test]
fn a_megabyte_of_starts_costs_no_quadratic_time() {
    let mut spec = spec(Framing::Fence { start: vec![2], stop: vec![3], trailer: 0 }, None);
    spec.max = 64 << 10;
    let noise = vec![2; 1 << 20];
    let mut told = Told::default();
    let mut deframer = Deframer::new(spec);
    for piece in noise.chunks(1024) {
        deframer.feed(piece, &mut |found| told.take(&found));
    }
    deframer.feed(b"good\x03", &mut |found| told.take(&found));
    assert_eq!(told.frames, [b"good".to_vec()]);
}

#[test]
fn a_frame_of_exactly_max_passes_and_one_byte_more_does_not() {
    for spec in specs().into_iter().filter(|spec| !matches!(spec.framing, Framing::Fixed { .. })) {
        let header = match &spec.framing {
            Framing::Length { offset, size, .. } => offset + size,
            Framing::Nmea { .. } => 4,
            _ => 0,
        };
        let mut stream = Vec::new();
        encode(&spec, &vec![b'A'; spec.max - header], &mut stream);
        assert_eq!(read(&spec, &[&stream]).frames.len(), 1, "{spec:?}");
        stream.clear();
        encode(&spec, &vec![b'A'; spec.max - header + 1], &mut stream);
        let told = read(&spec, &[&stream]);
        assert_eq!((told.frames.len(), told.bad), (0, vec![Bad::TooLong]), "{spec:?}");
    }
}

#[test]
fn a_wrong_checksum_is_told_once_until_a_good_frame_comes() {
    let spec = spec(Framing::Slip, sum(Kind::Crc("crc-16-modbus")));
    let mut good = Vec::new();
    encode(&spec, b"good", &mut good);
    let mut wrong = good.clone();
    wrong[2] ^= 1;
    let told = read(&spec, &[&wrong, &wrong, &good, &wrong]);
    assert_eq!((told.frames.len(), told.bad), (1, vec![Bad::Checksum, Bad::Checksum]));
}

#[test]
fn a_right_checksum_with_a_wrong_length_is_no_frame() {
    let framing = Framing::Length { start: vec![0xaa], offset: 1, size: 1, order: ByteOrder::Big, adds: 0 };
    let spec = spec(framing, sum(Kind::Crc("crc-16-modbus")));
    let mut good = Vec::new();
    encode(&spec, b"good", &mut good);
    let mut wrong = good.clone();
    wrong[1] += 1;
    let told = read(&spec, &[&wrong, &good]);
    assert_eq!(told.frames.len(), 1);
    assert_eq!(told.noise, wrong.len());
}

#[test]
fn a_silence_ends_a_frame_and_one_that_is_too_long_goes_whole() {
    let spec = spec(Framing::Idle(Duration::from_millis(20)), None);
    let mut told = Told::default();
    let mut deframer = Deframer::new(spec);
    let mut sink = |found: Found<'_>| told.take(&found);
    assert_eq!(deframer.patience(), None);
    deframer.feed(b"one", &mut sink);
    assert_eq!(deframer.patience(), Some(Duration::from_millis(20)));
    deframer.feed(b" frame", &mut sink);
    deframer.idle(&mut sink);
    deframer.feed(&[b'x'; 100], &mut sink);
    deframer.feed(b"tail", &mut sink);
    deframer.idle(&mut sink);
    deframer.feed(b"two", &mut sink);
    deframer.idle(&mut sink);
    assert_eq!(told.frames, [b"one frame".to_vec(), b"two".to_vec()]);
    assert_eq!((told.noise, told.bad), (104, vec![Bad::TooLong]));
}

#[test]
fn an_unfinished_frame_is_given_up_and_the_good_one_in_it_is_found() {
    let framing = Framing::Length { start: vec![0xaa], offset: 1, size: 1, order: ByteOrder::Big, adds: 0 };
    let spec = spec(framing, sum(Kind::Lrc));
    let mut stream = vec![0xaa, 40];
    encode(&spec, b"good", &mut stream);
    let mut told = Told::default();
    let mut deframer = Deframer::new(spec);
    deframer.feed(&stream, &mut |found| told.take(&found));
    assert_eq!(told.frames.len(), 0);
    deframer.idle(&mut |found| told.take(&found));
    assert_eq!((told.frames.len(), told.noise, told.bad), (1, 2, vec![Bad::Unfinished]));
    assert_eq!(deframer.patience(), None);
}

#[test]
fn known_frames_are_read_as_their_protocols_say() {
    let nmea = spec(Framing::Nmea { checksum_required: true }, None);
    let told = read(&nmea, &[b"noise$GPGLL,4916.45,N,12311.12,W,225444,A*31\r\n$GPGLL,4916.45,N*00\r\n"]);
    assert_eq!(told.frames, [b"$GPGLL,4916.45,N,12311.12,W,225444,A*31".to_vec()]);
    assert_eq!(told.bad, [Bad::Checksum]);
    // The example of RFC 1055's escapes, and of the paper on COBS.
    assert_eq!(read(&spec(Framing::Slip, None), &[&[1, 0xdb, 0xdc, 2, 0xdb, 0xdd, 0xc0]]).frames, [[1, 0xc0, 2, 0xdb]]);
    assert_eq!(read(&spec(Framing::Cobs, None), &[&[3, 0x11, 0x22, 2, 0x33, 0]]).frames, [[0x11, 0x22, 0, 0x33]]);
    // STX ... ETX BCC, where the BCC covers ETX.
    let bcc = spec(Framing::Fence { start: vec![2], stop: vec![3], trailer: 1 }, sum(Kind::Xor8));
    assert_eq!(read(&bcc, &[b"\x02AB\x03\x00"]).frames, [b"AB".to_vec()]);
}

#[test]
fn long_groups_survive_cobs() {
    let mut spec = spec(Framing::Cobs, None);
    spec.max = 2_000;
    for length in [253, 254, 255, 508, 509, 1_000] {
        for zeros in [None, Some(254), Some(253), Some(0)] {
            let mut payload = vec![7u8; length];
            if let Some(at) = zeros.filter(|at| *at < length) {
                payload[at] = 0;
            }
            let mut stream = Vec::new();
            encode(&spec, &payload, &mut stream);
            assert_eq!(stream.iter().position(|byte| *byte == 0), Some(stream.len() - 1));
            assert_eq!(read(&spec, &[&stream]).frames, [payload], "{length} {zeros:?}");
        }
    }
}

#[test]
fn an_interrupted_stream_starts_over() {
    let spec = spec(Framing::Lines(LineEnd::Any), None);
    let mut told = Told::default();
    let mut deframer = Deframer::new(spec);
    deframer.feed(b"half a li", &mut |found| told.take(&found));
    deframer.interrupt(&mut |found| told.take(&found));
    deframer.feed(b"whole\n", &mut |found| told.take(&found));
    assert_eq!((told.frames, told.noise), (vec![b"whole".to_vec()], 9));
}

#[test]
fn each_name_of_a_checksum_is_there_once() {
    let mut all: Vec<&str> = names().iter().map(|(name, _)| *name).collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
    assert!(names().iter().find(|(name, _)| *name == "lrc").unwrap().1 == Kind::Lrc);
}
