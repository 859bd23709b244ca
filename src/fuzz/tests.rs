//! The fuzz targets with a bounded number of seeded mutations. `FOREBAY_FUZZ=1000000` makes more of each input,
//! `FOREBAY_SEED=17` other ones.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;

use super::{ENTRIES, Entry};
use crate::intake::listener::fuzz as listener;
use crate::intake::listener::packet::{Head, Version, decode, decode_connect};
use crate::intake::listener::tests::client::{self, Hello};
use crate::record::{Arrival, Body, RecordView, TimestampKind};
use crate::spool::chunk;
use crate::spool::lane::tests::dice::Dice;
use crate::spool::lane::tests::number;

fn entry(name: &str) -> Entry {
    *ENTRIES.iter().find(|(known, _)| *known == name).unwrap()
}

/// Runs a target on each input as it is, and on mutations of it and of pieces of the others.
fn fuzz(name: &str, inputs: &[&[u8]]) {
    let (_, target) = entry(name);
    let rounds = number("FOREBAY_FUZZ").unwrap_or(1_500);
    let mut dice = Dice::new(number("FOREBAY_SEED").unwrap_or(1));
    inputs.iter().for_each(|input| target(input));
    for round in 0..rounds {
        for input in inputs {
            let mutated = mutate(input, inputs, &mut dice);
            let ran = std::panic::catch_unwind(|| target(&mutated));
            assert!(ran.is_ok(), "{name}, round {round}: {:?}", mutated.escape_ascii().to_string());
        }
    }
}

/// What in a text or a packet stands between two things.
const DELIMITERS: &[u8] = b"\n\"{}[]/~.=#+$\\,:\0\xff\x80\x7f";

fn mutate(input: &[u8], others: &[&[u8]], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len() as u64 + 1) as usize;
        let end = (at + dice.below(9) as usize).min(bytes.len());
        match dice.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 if at < bytes.len() => bytes[at] = dice.roll() as u8,
            2 => drop(bytes.drain(at..end)),
            3 => bytes.truncate(at),
            4 => bytes.insert(at, *dice.pick(DELIMITERS).unwrap()),
            5 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece.repeat(1 + dice.below(3) as usize));
            }
            _ => {
                let other = dice.pick(others).unwrap();
                let from = dice.below(other.len() as u64 + 1) as usize;
                let to = (from + dice.below(30) as usize).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn mqtt_v4() {
    fuzz(
        "mqtt_v4",
        &[
            b"\x20\x02\x01\x00",
            b"\x90\x03\x00\x01\x01\xd0\x00",
            b"\x32\x0c\x00\x03a/b\x00\x07hello",
            b"\x35\x0c\x00\x03a/b\x00\x07hello\x62\x02\x00\x07",
            b"\x30\x05\x00\x03a/b\xb0\x02\x00\x09",
        ],
    );
}

#[test]
fn mqtt_v5() {
    fuzz(
        "mqtt_v5",
        &[
            b"\x20\x08\x01\x00\x05\x13\x00\x0a\x21\x00\x0a",
            b"\x90\x05\x00\x01\x00\x01\x87\xd0\x00",
            b"\x32\x1a\x00\x03a/b\x00\x07\x0c\x01\x01\x26\x00\x01k\x00\x01v\x03\x00\x01jhello",
            b"\x30\x10\x00\x03a/b\x0a\x02\x00\x00\x00\x3c\x09\x00\x02cd",
            b"\xe0\x02\x8e\x00\xe0\x00",
        ],
    );
}

/// As a device writes it: CONNECT with a will, PUBLISH of each QoS, SUBSCRIBE and the rest.
fn device(version: Version) -> Vec<Vec<u8>> {
    let own: &[u8] = if version.is_v5() { b"\x01\x01\x26\x00\x01k\x00\x01v\x03\x00\x01j" } else { b"" };
    let alias: &[u8] = if version.is_v5() { b"\x23\x00\x01" } else { b"" };
    vec![
        Hello::kept(version, "d", 60).will("w", 1, true, 1).encode(),
        client::publish(version, "a/b", b"0", 0, 0),
        client::publish_with(version, "a/b", b"1", 1, 1, 1, own),
        client::publish_with(version, "a/b", b"2", 2, 2, 0, alias),
        client::publish_with(version, if version.is_v5() { "" } else { "c" }, b"3", 1, 3, 8, alias),
        client::ack(6, 2),
        client::subscribe(version, 4, &[("a/#", 1), ("$share/g/+", 2)]),
        client::unsubscribe(version, 5, &["a/#"]),
        [client::ack(4, 1), client::ack(5, 1), client::ack(7, 1), client::PINGREQ.to_vec()].concat(),
        client::DISCONNECT.to_vec(),
    ]
}

fn slices(packets: &[Vec<u8>]) -> Vec<&[u8]> {
    packets.iter().map(Vec::as_slice).collect()
}

#[test]
fn listener_v4() {
    fuzz("listener_v4", &slices(&device(Version::V311)));
}

#[test]
fn listener_v5() {
    fuzz("listener_v5", &slices(&device(Version::V5)));
}

/// A script of `connection`: packets, each with two commits behind it, and what else happens then.
fn script(connection: u8, packets: &[Vec<u8>], then: &[u8]) -> Vec<u8> {
    let mut script = Vec::new();
    for packet in packets {
        script.extend([connection, u8::try_from(packet.len()).unwrap()]);
        script.extend_from_slice(packet);
        script.extend([COMMIT, COMMIT]);
    }
    script.extend_from_slice(then);
    script
}

const COMMIT: u8 = 4 << 2;
const CUT: u8 = 5 << 2;
const SECONDS: u8 = 6 << 2;
const READS: u8 = 7 << 2;

#[test]
fn listener_connections() {
    let (v4, v5) = (device(Version::V311), device(Version::V5));
    // Broken while a reading is on its way, comes again with the other version, and is silent for too long.
    let broken = [script(2, &v5[..3], &[2, 2]), vec![v5[3][0], v5[3][1], CUT | 2]].concat();
    let broken = [broken, script(2, &v4[..6], &[SECONDS, 200])].concat();
    // One that does not read, and one that takes its session over.
    let greedy = [script(0, &v4[..1], &[READS]), script(0, &v4[1..8], &[]), script(3, &v4, &[])].concat();
    let scripts = [script(0, &v4, &[]), script(1, &v5, &[]), broken, greedy];
    // Mutations of scripts in which little happens would look at little.
    let acknowledged: Vec<_> = scripts.iter().map(|script| listener::connections(script)).collect();
    assert_eq!(acknowledged, [3, 3, 4, 6]);
    fuzz("listener_connections", &slices(&scripts));
}

/// Mutations of what is refused at once would look at little.
#[test]
fn what_the_scripts_are_made_of_is_valid() {
    for version in [Version::V311, Version::V5] {
        let packets = device(version).concat();
        let head = Head::peek(&packets).unwrap().unwrap();
        assert!(decode_connect(head, &packets[..head.total()]).is_ok(), "{version:?}");
        let mut rest = &packets[head.total()..];
        while !rest.is_empty() {
            let head = Head::peek(rest).unwrap().unwrap();
            let packet = decode(version, head, &rest[..head.total()]);
            assert!(packet.is_ok(), "{version:?}: {packet:?}");
            rest = &rest[head.total()..];
        }
    }
}

#[test]
fn configuration() {
    let reference = include_bytes!("../../config/gateway.toml");
    let small = b"[kafka.main]\nbootstrap_servers = \"a:1\"\n[kafka.main.sasl]\nmechanism = \"PLAIN\"\nuser = \"u\"\n\
        password = \"p\"\n[[source.mqtt]]\nhost = \"h\"\nsubscriptions = [{ filter = \"a/#\", qos = 1 }]\n[[lane]]\n\
        name = \"x\"\nkeep = \"1h\"\nmax_bytes = \"1GiB\"\n[[route]]\nfilter = \"a/{b}/{c...}\"\nkafka_topic = \"t.{b}\"\n\
        key = \"{/id}\"\nheaders = { h = \"{mqtt.user.h}\" }\ntimestamp = { pointer = \"/t\", format = \"ms\" }\n";
    fuzz("configuration", &[small]);
    // The reference is long, and so a few of it are enough.
    let mut dice = Dice::new(number("FOREBAY_SEED").unwrap_or(1));
    for _ in 0..100 {
        super::configuration(&mutate(reference, &[small], &mut dice));
    }
}

fn body(payload: &[u8]) -> Body {
    let view = RecordView {
        topic: "readings",
        key: Some(b"key"),
        headers: vec![("h", b"v")],
        payload,
        timestamp_ms: 5,
        timestamp_kind: TimestampKind::Arrival,
        arrival: Arrival { wall_ms: 6, boot_ms: 7 },
        old_id: None,
    };
    view.encode(&mut Vec::new())
}

#[test]
fn chunks() {
    let short = chunk::encode(1, 2, 3, &[(5, body(b"one")), (9, body(b"two"))]);
    let records: Vec<_> = (0..40).map(|n| (n, body(format!("reading {n} of the press").as_bytes()))).collect();
    fuzz("chunks", &[&short, &chunk::encode(1, 2, 3, &records)]);
}

#[test]
fn filters() {
    fuzz(
        "filters",
        &[
            b"plant/{line}/{rest...}\nplant/a/b/c",
            b"+/{x}/#\n/a/",
            b"$SYS/#\n$SYS/broker",
            b"#\n$share",
            "{ä}/é\nü/é".as_bytes(),
        ],
    );
}

#[test]
fn routes() {
    fuzz(
        "routes",
        &[
            b"plant/{line}/{d}\nedge.{line}\n{d}|{/id}\nplant/a b/c\n{\"id\":7}",
            b"#\n{mqtt.topic}\n\na/../b\nx",
            b"{a...}\n{a}\n{mqtt.source}{mqtt.user.x}\n\xc3\xa4/{}\n",
            b"+/+\nt.{/a/0/b}\n{/k}\nx/y\n{\"a\":[{\"b\":\"c d\"}],\"k\":1.5e3}",
        ],
    );
}

#[test]
fn modbus() {
    let mut rtu = vec![1, 3, 4, 0, 0, 0, 7];
    crate::intake::modbus::answer::crc().append(&mut rtu);
    let tcp = [0, 7, 0, 0, 0, 7, 1, 3, 4, 0, 0, 0, 7];
    fuzz("modbus", &[&rtu, &tcp, &[0, 7, 0, 0, 0, 3, 1, 0x83, 2], &[1, 0x83, 2, 0xc0, 0xf1]]);
}

#[test]
fn json_pointer() {
    fuzz(
        "json_pointer",
        &[
            b"/a/0/b\n{\"a\":[{\"b\":-1.5e-3}]}",
            b"/a~1b/m~0n\n{\"a/b\":{\"m~n\":\"\\u00e9\\n\"}}",
            b"\n\"text\"",
            b"/x\n{\"x\":1,\"x\":{\"y\":true},\"z\":[[]]}",
            b"/1\n[null,false,{}]",
        ],
    );
}

#[test]
fn serial_frames() {
    let lines: [&[u8]; 7] = [
        b"T=1\r\nT=2\nhalf",
        b"ab||;cd|;||;",
        b"\x02AB\x03\x43\x02\x02CD\x03",
        b"\xaa\x00\x03abc\xaa\x03\x00xyz",
        b"\xc0a\xdb\xdcb\xc0\xdb\xc0",
        b"\x03\x11\x22\x02\x33\x00\x05",
        b"!x$GPGLL,4916.45,N*31\r\n$",
    ];
    // Each stream in each framing, with each checksum.
    let inputs: Vec<Vec<u8>> =
        (0..56).map(|which| [&[which, which], lines[usize::from(which) % lines.len()]].concat()).collect();
    fuzz("serial_frames", &inputs.iter().map(Vec::as_slice).collect::<Vec<_>>());
}

#[test]
fn serial_decoders() {
    fuzz(
        "serial_decoders",
        &[
            b"\x00\xff\x00",
            b"\x09 21.5 \xb0C",
            b"\x12\"a,\"\"b\",1.5,-7,on",
            b"\x1ctemp=-1.5e3;12on",
            b"\x20$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47",
            b"\x28\x7f\xc0\x00\x00\x7f\xf0\x00\x00\x00\x00\x00\x00\x00\x00",
        ],
    );
}

/// A target that nobody drives, and a driver without a target, would rot.
#[test]
fn each_entry_has_its_target_and_each_target_its_entry() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let files = std::fs::read_dir(folder.join("fuzz_targets")).unwrap().map(|file| file.unwrap().path());
    let mut targets = BTreeSet::new();
    for path in files {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let call = format!("fuzz_target!(|data: &[u8]| forebay::fuzz::{name}(data));");
        assert!(text.contains(&call), "{name} calls its entry");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is in the manifest");
        targets.insert(name);
    }
    assert_eq!(targets, ENTRIES.iter().map(|(name, _)| (*name).to_owned()).collect());
}
