//! Packets as they must not be, and as they may be cut: no panic, the right answer, nobody else disturbed.

use std::time::Duration;

use super::bench::{Bench, Device, Hub, config};
use super::client::{Got, Hello, PINGREQ, ack, packet, puback, publish, publish_with, subscribe, subscribe_with, text};
use crate::intake::listener::packet::Version::{self, V5, V311};

/// What a fresh connection answers to these bytes, and whether it is closed then.
fn first(version: Version, bytes: &[u8]) -> (Vec<Got>, bool) {
    let mut bench = Bench::new();
    let mut device = bench.dial(version);
    bench.send(&mut device, bytes);
    assert_eq!(bench.hub.stored(), []);
    (device.got(), device.closed)
}

/// The same behind a CONNECT.
fn later(version: Version, bytes: &[u8]) -> (Vec<Got>, Device, Bench) {
    let mut bench = Bench::new();
    let mut device = bench.open(&Hello::new(version, "d"));
    bench.send(&mut device, bytes);
    (device.got(), device, bench)
}

fn connect_with(name: &str, level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut body = text(name);
    body.extend([level, flags, 0, 0]);
    body.extend(rest);
    packet(0x10, &body)
}

fn refusal(code: u8) -> (Vec<Got>, bool) {
    (vec![Got::ConnAck { present: false, code, properties: Default::default() }], true)
}

#[test]
fn the_first_packet_must_be_a_connect_of_a_known_version() {
    let silent = (vec![], true);
    assert_eq!(first(V311, &publish(V311, "t", b"x", 1, 1)), silent);
    assert_eq!(first(V311, &PINGREQ), silent);
    assert_eq!(first(V311, &[0x30, 0xff, 0xff, 0xff, 0x7f]), silent, "268,435,455 bytes");
    assert_eq!(first(V311, &[0x10, 0xff, 0xff, 0xff, 0x7f]), silent);
    assert_eq!(first(V311, &[0x10, 0xff, 0xff, 0xff, 0xff, 0x7f]), silent, "a length of five bytes");
    assert_eq!(first(V311, b"GET / HTTP/1.1\r\n\r\n"), silent);
    assert_eq!(first(V311, &[0x16, 3, 1, 2, 0]), silent, "TLS to a port without");
    assert_eq!(first(V311, &connect_with("MQIsdp", 3, 2, &text("d"))), refusal(1));
    assert_eq!(first(V311, &connect_with("MQTT", 3, 2, &text("d"))), refusal(1));
    for level in [6, 255] {
        assert_eq!(first(V5, &connect_with("MQTT", level, 2, &text("d"))), refusal(0x84));
    }
    assert_eq!(first(V311, &connect_with("MQTT\0", 4, 2, &text("d"))), silent);
    assert_eq!(first(V311, &connect_with("mqtt", 4, 2, &text("d"))), silent);
    assert_eq!(first(V311, &connect_with("MQTT", 4, 2, &text(&"d".repeat(5000)))), silent, "above 4 KiB");
}

#[test]
fn a_connect_must_be_what_its_flags_say() {
    let silent = (vec![], true);
    let id = text("d");
    // Reserved flag, will flags without a will, will of QoS 3, password without user, bytes behind the end.
    for flags in [0x03, 0x0a, 0x22, 0x1e, 0x42] {
        assert_eq!(first(V311, &connect_with("MQTT", 4, flags, &id)), silent, "{flags:#x}");
    }
    assert_eq!(first(V311, &connect_with("MQTT", 4, 2, &[&id[..], b"x"].concat())), silent);
    assert_eq!(first(V311, &connect_with("MQTT", 4, 2, &[0, 9, b'd'])), silent, "longer than the packet");
    assert_eq!(first(V311, &connect_with("MQTT", 4, 2, &[0, 1, 0xff])), silent, "not UTF-8");
    assert_eq!(first(V311, &connect_with("MQTT", 4, 2, &[0, 1, 0])), silent, "U+0000");
    let five =
        |properties: &[u8]| connect_with("MQTT", 5, 2, &[&[properties.len() as u8], properties, &id[..]].concat());
    assert_eq!(first(V5, &connect_with("MQTT", 5, 3, &[&[0], &id[..]].concat())), refusal(0x81));
    assert_eq!(first(V5, &five(&[33, 0, 0])), refusal(0x82), "receive maximum 0");
    assert_eq!(first(V5, &five(&[39, 0, 0, 0, 0])), refusal(0x82), "packet size 0");
    assert_eq!(first(V5, &five(&[33, 0, 9, 33, 0, 9])), refusal(0x82), "twice");
    assert_eq!(first(V5, &five(&[35, 0, 9])), refusal(0x81), "a property of PUBLISH");
    assert_eq!(first(V5, &five(&[25, 2])), refusal(0x82), "a flag of 2");
    assert_eq!(first(V5, &five(&[33, 0])), refusal(0x81), "cut short within the properties");
    assert_eq!(first(V5, &five(&[&[21][..], &text("SCRAM")].concat())), refusal(0x8c));
    assert_eq!(first(V5, &five(&[&[22][..], &text("x")].concat())), refusal(0x82), "data without a method");
    let will = Hello::new(V5, "d").will("#", 1, false, 0);
    assert_eq!(first(V5, &will.encode()), refusal(0x90));
    let will = Hello::new(V311, "d").will("a/+", 1, true, 0);
    assert_eq!(first(V311, &will.encode()), silent);
    let mut will = Hello::new(V311, "d").will("t", 1, true, 0);
    if let Some(will) = &mut will.will {
        will.payload = vec![b'x'; 65_535];
    }
    assert_eq!(first(V311, &will.encode()), silent, "a will of 64 KiB");
}

#[test]
fn packets_that_break_the_protocol_end_their_connection_with_the_reason() {
    let long = "x/".repeat(20_000);
    let cases: Vec<(&str, Vec<u8>, u8)> = vec![
        ("QoS 3", packet(0x36, b"\0\x01t\0\x01\0x"), 0x81),
        ("DUP with QoS 0", packet(0x38, b"\0\x01t\0x"), 0x81),
        ("a second CONNECT", Hello::new(V5, "d").encode(), 0x82),
        ("packet id 0", publish(V5, "t", b"x", 1, 0), 0x82),
        ("an empty topic", publish(V5, "", b"x", 1, 1), 0x82),
        ("+ in a topic", publish(V5, "a/+", b"x", 1, 1), 0x90),
        ("# in a topic", publish(V5, "#", b"x", 0, 0), 0x90),
        ("U+0000 in a topic", publish(V5, "a\0b", b"x", 1, 1), 0x81),
        ("not UTF-8", packet(0x32, b"\0\x01\xff\0\x01\0"), 0x81),
        ("a topic longer than the packet", packet(0x32, b"\0\xfft\0\x01"), 0x81),
        ("properties longer than the packet", packet(0x32, b"\0\x01t\0\x01\x7f"), 0x81),
        ("a property length of five bytes", packet(0x32, b"\0\x01t\0\x01\xff\xff\xff\xff\x01"), 0x81),
        ("a padded property length", packet(0x32, b"\0\x01t\0\x01\x80\0"), 0x81),
        ("a padded remaining length", vec![0xc0, 0x80, 0], 0x81),
        ("a remaining length of five bytes", vec![0x30, 0xff, 0xff, 0xff, 0xff, 1], 0x81),
        ("a property twice", publish_with(V5, "t", b"x", 1, 1, 0, &[2, 0, 0, 0, 9, 2, 0, 0, 0, 9]), 0x82),
        ("a subscription identifier", publish_with(V5, "t", b"x", 1, 1, 0, &[11, 1]), 0x81),
        ("a response topic with +", publish_with(V5, "t", b"x", 1, 1, 0, b"\x08\0\x01+"), 0x82),
        ("payload format 2", publish_with(V5, "t", b"x", 1, 1, 0, &[1, 2]), 0x82),
        ("a property behind the properties' end", publish_with(V5, "t", b"x", 1, 1, 0, &[2, 0, 0]), 0x81),
        ("no filter", subscribe(V5, 1, &[]), 0x82),
        ("SUBSCRIBE with packet id 0", subscribe(V5, 0, &[("a", 0)]), 0x82),
        ("SUBSCRIBE at QoS 3", subscribe(V5, 1, &[("a", 3)]), 0x81),
        ("reserved options", subscribe(V5, 1, &[("a", 0x40)]), 0x81),
        ("retain handling 3", subscribe(V5, 1, &[("a", 0x30)]), 0x81),
        ("no local with a share", subscribe(V5, 1, &[("$share/g/a", 4)]), 0x82),
        ("subscription identifier 0", subscribe_with(V5, 1, &[("a", 0)], &[11, 0]), 0x82),
        ("SUBSCRIBE with wrong flags", packet(0x80, b"\0\x01\0\0\x01a\0"), 0x81),
        ("PUBREL with wrong flags", packet(0x60, &[0, 1]), 0x81),
        ("PUBACK with flags", packet(0x42, &[0, 1]), 0x81),
        ("PUBACK for id 0", ack(4, 0), 0x82),
        ("a short PUBACK", packet(0x40, &[1]), 0x81),
        ("a PINGREQ with a body", packet(0xc0, &[0]), 0x81),
        ("CONNACK", packet(0x20, &[0, 0]), 0x82),
        ("SUBACK", packet(0x90, &[0, 1, 0]), 0x82),
        ("packet type 0", vec![0, 0], 0x81),
        ("AUTH", packet(0xf0, &[]), 0x82),
        ("DISCONNECT with wrong flags", packet(0xe1, &[]), 0x81),
        ("a packet above the limit", vec![0x30, 0xff, 0xff, 0xff, 0x7f], 0x95),
    ];
    for (name, bytes, code) in cases {
        let (got, device, bench) = later(V5, &bytes);
        assert_eq!(got, [Got::Disconnect(code)], "{name}");
        assert!(device.closed, "{name}");
        assert_eq!(bench.hub.stored(), [], "{name}");
    }
    let (_, device, _) = later(V311, &packet(0xf0, &[]));
    assert!(device.closed, "3.1.1 knows no AUTH");
    let (got, device, _) = later(V311, &subscribe(V311, 1, &[("a", 4)]));
    assert!(got.is_empty() && device.closed, "3.1.1 has no options");
    let (got, device, _) = later(V5, &publish(V5, &long, b"x", 1, 1));
    assert_eq!(got, [Got::Ack { kind: 4, id: 1, code: 0x90 }]);
    assert!(!device.closed, "too many levels are no reason to close");
}

#[test]
fn odd_topics_that_are_allowed_are_taken() {
    for topic in
        ["/", "//", " ", "a\nb", "tab\t", "\u{202e}rtl", "e\u{301}", "../../etc/passwd", "%s{{x}}${jndi:x}", "é"]
    {
        let (got, _, bench) = later(V5, &publish(V5, topic, b"x", 1, 1));
        assert_eq!(got, [puback(1)], "{topic}");
        assert_eq!(bench.hub.stored()[0].0, topic);
    }
    let long = "x".repeat(65_535);
    let (got, _, bench) = later(V311, &publish(V311, &long, b"", 1, 1));
    assert_eq!(got, [puback(1)]);
    assert_eq!(bench.hub.stored()[0].0, long);
}

#[test]
fn the_packet_limit_is_exact() {
    let limit = 256 * 1024;
    // 1 + 3 + 2 + 1 + 2 bytes of header.
    let (got, ..) = later(V311, &publish(V311, "t", &vec![b'x'; limit - 9], 1, 1));
    assert_eq!(got, [puback(1)]);
    let (got, device, _) = later(V311, &publish(V311, "t", &vec![b'x'; limit - 8], 1, 1));
    assert!(got.is_empty() && device.closed);
    let (got, device, bench) = later(V5, &publish(V5, "t", &vec![b'x'; limit - 8], 1, 1));
    assert_eq!(got, [Got::Disconnect(0x95)]);
    assert!(device.closed);
    assert_eq!(bench.count(|c| &c.too_large), 1);
}

#[test]
fn a_thousand_packets_at_once_and_one_packet_in_single_bytes() {
    let all: Vec<u8> = (1..=1000).flat_map(|id| publish(V311, "t", b"x", 1, id)).collect();
    let (got, ..) = later(V311, &all);
    assert_eq!(got, (1..=1000).map(puback).collect::<Vec<_>>());
    let mut bench = Bench::new();
    let mut device = bench.dial(V5);
    for byte in Hello::new(V5, "d").encode() {
        bench.send(&mut device, &[byte]);
    }
    for byte in publish(V5, "t", &[b'x'; 1000], 2, 1) {
        assert!(bench.hub.stored().is_empty());
        bench.send(&mut device, &[byte]);
    }
    assert_eq!(device.got().len(), 2);
    assert_eq!(bench.hub.stored().len(), 1);
}

#[test]
fn ten_thousand_filters_stop_at_the_limit() {
    let names: Vec<String> = (0..10_000).map(|n| format!("f/{n}")).collect();
    let filters: Vec<(&str, u8)> = names.iter().map(|name| (name.as_str(), 0)).collect();
    let (got, ..) = later(V5, &subscribe(V5, 1, &filters));
    let Some(Got::SubAck { codes, .. }) = got.first() else { panic!() };
    assert_eq!(codes.iter().filter(|&&code| code == 0).count(), 100);
    assert_eq!(codes.iter().filter(|&&code| code == 0x97).count(), 9_900);
}

#[test]
fn keep_alive_counts_one_and_a_half_times_and_0_is_for_ever() {
    for (keep_alive, silence, closed) in
        [(10, 14, false), (10, 15, true), (0, 1_000_000, false), (65_535, 90_000, false)]
    {
        let mut bench = Bench::new();
        let mut hello = Hello::new(V311, "d");
        hello.keep_alive = keep_alive;
        let mut device = bench.open(&hello);
        bench.pass(Duration::from_secs(silence));
        bench.run(&mut device);
        assert_eq!(device.closed, closed, "{keep_alive} {silence}");
    }
    let mut bench = Bench::new();
    let mut hello = Hello::new(V5, "d");
    hello.keep_alive = 10;
    let mut device = bench.open(&hello);
    for _ in 0..10 {
        bench.pass(Duration::from_secs(14));
        bench.send(&mut device, &PINGREQ);
    }
    assert_eq!(device.got(), vec![Got::PingResp; 10]);
    bench.pass(Duration::from_secs(15));
    bench.run(&mut device);
    assert_eq!(device.got(), [Got::Disconnect(0x8d)]);
}

#[test]
fn a_byte_now_and_then_keeps_no_connection_but_a_large_packet_on_a_slow_line_does() {
    for (part, closed) in [(1, true), (1000, false)] {
        let mut bench = Bench::new();
        let mut hello = Hello::new(V311, "d");
        hello.keep_alive = 10;
        let mut device = bench.open(&hello);
        for part in publish(V311, "t", &[b'x'; 9_990], 1, 1).chunks(part).take(10) {
            bench.pass(Duration::from_secs(4));
            bench.send(&mut device, part);
        }
        assert_eq!(device.closed, closed, "{part}");
    }
}

#[test]
fn a_connect_that_takes_too_long_is_given_up() {
    let mut bench = Bench::new();
    let mut device = bench.dial(V311);
    for byte in &Hello::new(V311, "d").encode()[..3] {
        bench.send(&mut device, &[*byte]);
        bench.pass(Duration::from_secs(2));
    }
    bench.run(&mut device);
    assert!(device.closed);
    assert_eq!(bench.count(|c| &c.connect_timeouts), 1);
}

#[test]
fn a_client_that_never_reads_gets_no_more_memory() {
    let mut config = config();
    config.limits.queued_bytes = 64 << 10;
    let mut bench = Bench::with(config, Hub::prompt());
    let mut reader = bench.open(&Hello::new(V311, "r"));
    bench.send(&mut reader, &subscribe(V311, 1, &[("#", 0)]));
    reader.got();
    let mut device = bench.open(&Hello::new(V311, "d"));
    // Nothing is taken out of the reader's buffer.
    for _ in 0..500 {
        bench.send(&mut device, &publish(V311, "t", &[b'x'; 1000], 0, 0));
        reader.machine.turn(&mut bench.exchange, bench.now);
        assert!(reader.machine.out().len() < 64 * 1024);
    }
    assert!(bench.count(|c| &c.queue_dropped) > 300);
    assert_eq!(bench.hub.stored().len(), 500, "and Kafka gets everything");
    bench.pass(Duration::from_secs(61));
    reader.machine.turn(&mut bench.exchange, bench.now);
    assert_eq!(bench.count(|c| &c.stalled), 1);
}
