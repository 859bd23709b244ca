//! Bytes that are no MQTT, and MQTT that comes in odd pieces. After each the server must serve everybody else.

use super::*;

cases! {
    a_length_of_five_bytes_is_refused: [], [];
    a_length_of_more_bytes_than_it_needs_is_refused: [], ["1.5.5-1"], not mosquitto: "2.0.11 takes it";
    a_length_that_does_not_fit_its_packet: ["4.8.0-1"], ["4.13.1-1", "4.13.2-1"];
    packets_that_end_too_early: ["4.8.0-1"], ["4.13.1-1"];
    packets_that_end_too_late: ["4.8.0-1"], ["4.13.1-1"], not mosquitto: "2.0.11 takes some of them";
    every_first_byte_in_turn: ["4.8.0-1", "2.2.2-2"], ["4.13.1-1", "2.1.3-1"], not mosquitto: "2.0.11 takes some of them";
    one_byte_at_a_time: ["7.1.1-1"], ["4.2.0-1"];
    a_thousand_packets_in_one_piece: ["7.1.1-1"], ["4.2.0-1"];
    another_protocol_altogether: [], [];
    a_connect_that_is_too_large: [], [], not mosquitto: "no limit of its own for CONNECT";
    connections_that_come_and_go: [], [];
    noise_on_every_connection: [], [];
}

/// A client that is there all the time and must not notice anything.
struct Witness {
    line: Line,
    topic: String,
}

impl Witness {
    fn new(server: &Server) -> Witness {
        let topic = server.name();
        Witness { line: Line::subscribed(server, V5, &topic, 1), topic }
    }

    fn is_served(&mut self) {
        let topic = self.topic.clone();
        self.line.publish(&topic, 1, "alive");
        assert_eq!(self.line.take().text(), "alive");
    }
}

fn a_length_of_more_bytes_than_it_needs_is_refused(server: &Server) {
    for pingreq in [&[0xc0, 0x80, 0x00][..], &[0xc0, 0x80, 0x80, 0x00]] {
        let mut line = Line::quick(server, V5);
        line.send(pingreq);
        line.refused(server, &[0x81]);
    }
}

fn a_length_of_five_bytes_is_refused(server: &Server) {
    let mut witness = Witness::new(server);
    for level in BOTH {
        for first in [0x10, 0x30, 0x82, 0xc0] {
            let mut line = Line::quick(server, level);
            line.send(&[first, 0x80, 0x80, 0x80, 0x80, 0x01]);
            line.refused(server, &[0x81, 0x82]);
        }
        let mut line = Line::open(server, level);
        line.send(&[0x10, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        line.not_accepted(&[0x81]);
        // As large as can be said: nothing is kept ready for it.
        let mut line = Line::open(server, level);
        line.send(&[0x10, 0xff, 0xff, 0xff, 0x7f]);
        line.not_accepted(&[0x81, 0x95]);
    }
    witness.is_served();
}

fn a_length_that_does_not_fit_its_packet(server: &Server) {
    let mut witness = Witness::new(server);
    for level in BOTH {
        // Topic longer than the packet, identifier cut off, filter longer than the packet, options cut off.
        let cases: [&[u8]; 7] = [
            &[0x30, 0x02, 0x00, 0x09],
            &[0x30, 0x01, 0x00],
            &[0x30, 0x00],
            &[0x32, 0x04, 0x00, 0x01, b'a', 0x00],
            &[0x82, 0x06, 0x00, 0x01, 0x00, 0x00, 0x70, b'a'],
            &[0x40, 0x01, 0x00],
            &[0x62, 0x00],
        ];
        for bytes in cases {
            let mut line = Line::quick(server, level);
            line.send(bytes);
            line.refused(server, &[0x81, 0x82]);
        }
    }
    witness.is_served();
}

/// Every packet of a client, whole.
fn examples(level: u8) -> Vec<Vec<u8>> {
    let props = if level == V5 { Props::new().pair("a", "b").text(id::CONTENT_TYPE, "t") } else { Props::new() };
    vec![
        Publish::new("topic", 1, 7, "").props(props).bytes(level),
        packets::subscribe(level, 7, &[("a/+", 1), ("b", 0)], &Props::new()),
        packets::unsubscribe(level, 7, &["a/+", "b"]),
        packets::puback(7),
        packets::pubrel(7),
    ]
}

fn packets_that_end_too_early(server: &Server) {
    let mut witness = Witness::new(server);
    for level in BOTH {
        for example in examples(level) {
            let body = &example[2..];
            for end in 0..body.len() {
                let cut = frame(example[0], &body[..end]);
                let mut line = Line::quick(server, level);
                line.send(&[&cut[..], &packets::DISCONNECT].concat());
                // What is left may be a whole packet with fewer filters: then the DISCONNECT is heard.
                while let Some(packet) = line.answer_or_close() {
                    match packet {
                        Packet::Disconnect { reason, .. } => assert!([0x81, 0x82].contains(&reason), "{reason:#04x}"),
                        Packet::SubAck { codes, .. } => assert_eq!(codes.len(), 1),
                        Packet::UnsubAck { codes, .. } => assert!(codes.len() <= 1),
                        other => panic!("{cut:02x?}: {other:?}"),
                    }
                }
            }
        }
    }
    witness.is_served();
}

fn packets_that_end_too_late(server: &Server) {
    let mut witness = Witness::new(server);
    for level in BOTH {
        let wrong: [&[u8]; 5] = [
            &[0xc0, 1, 0],
            &[0x40, if level == V5 { 6 } else { 3 }, 0, 1, 0, 0, 0, 0][..if level == V5 { 8 } else { 5 }],
            &[0x62, if level == V5 { 6 } else { 3 }, 0, 1, 0, 0, 0, 0][..if level == V5 { 8 } else { 5 }],
            &[0xe0, if level == V5 { 3 } else { 1 }, 0, 0, 0][..if level == V5 { 5 } else { 3 }],
            &packets::subscribe(level, 1, &[("a", 0)], &Props::new())
                .iter()
                .copied()
                .enumerate()
                .map(|(at, byte)| if at == 1 { byte + 1 } else { byte })
                .chain([0])
                .collect::<Vec<u8>>(),
        ];
        for bytes in wrong {
            let mut line = Line::quick(server, level);
            line.send(bytes);
            line.refused(server, &[0x81, 0x82]);
        }
    }
    witness.is_served();
}

/// Each with an empty body: only PINGREQ and DISCONNECT are whole so.
fn every_first_byte_in_turn(server: &Server) {
    let mut witness = Witness::new(server);
    for level in BOTH {
        for first in (0..=255u8).filter(|first| ![0xc0, 0xe0].contains(first)) {
            let mut line = Line::quick(server, level);
            line.send(&[first, 0]);
            line.refused(server, &[0x81, 0x82]);
        }
    }
    witness.is_served();
}

fn one_byte_at_a_time(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut line = Line::open(server, level);
        let long = "y".repeat(1000);
        let all = [
            Connect::new(level, &server.name()).bytes(),
            packets::subscribe(level, 1, &[(&topic, 1)], &Props::new()),
            Publish::new(&topic, 1, 2, &long).bytes(level),
        ]
        .concat();
        all.iter().for_each(|byte| line.send(&[*byte]));
        assert!(matches!(line.next(), Packet::ConnAck { code: 0, .. }));
        assert!(matches!(line.answer(), Packet::SubAck { .. }));
        line.expect_acked(2);
        assert_eq!(line.take().text(), long);
    }
}

fn a_thousand_packets_in_one_piece(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut reader = Line::subscribed(server, level, &topic, 0);
        let mut line = Line::quick(server, level);
        let all: Vec<u8> = (0..1000).flat_map(|n| Publish::new(&topic, 0, 0, n.to_string()).bytes(level)).collect();
        line.send(&[all, packets::PINGREQ.to_vec()].concat());
        assert_eq!(line.next(), Packet::PingResp);
        // QoS 0 may be dropped, never changed and never swapped.
        Line::quick(server, level).publish(&topic, 1, "1000");
        let mut last = None;
        loop {
            let number: u32 = reader.take().text().parse().unwrap();
            assert!(last < Some(number), "{number} after {last:?}");
            last = Some(number);
            if number == 1000 {
                break;
            }
        }
    }
}

fn another_protocol_altogether(server: &Server) {
    let mut witness = Witness::new(server);
    let others: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        &[0; 64],
        &[0xff; 64],
    ];
    for bytes in others {
        let mut line = Line::open(server, V4);
        line.send_what_it_takes(bytes);
        line.not_accepted(&[]);
    }
    witness.is_served();
}

fn a_connect_that_is_too_large(server: &Server) {
    let mut witness = Witness::new(server);
    for level in BOTH {
        let will = Will { payload: vec![b'x'; 65_000], ..Will::new("w", "") };
        let mut line = Line::open(server, level);
        line.send_what_it_takes(&Connect::new(level, &server.name()).will(will).bytes());
        line.not_accepted(if level == V5 { &[0x95] } else { &[] });
    }
    witness.is_served();
}

fn connections_that_come_and_go(server: &Server) {
    let mut witness = Witness::new(server);
    for level in BOTH {
        for n in 0..100 {
            let connect = Connect::new(level, &server.name());
            let mut line = Line::open(server, level);
            match n % 4 {
                0 => {}
                1 => line.send(&connect.bytes()[..6]),
                2 => line.send(&connect.bytes()),
                _ => line.send(&[connect.bytes(), Publish::new("x", 1, 1, "y").bytes(level)].concat()),
            }
            line.cut();
        }
    }
    witness.is_served();
}

/// Valid packets with a byte changed here and there, from a fixed seed: whatever the answer, the witness is served.
fn noise_on_every_connection(server: &Server) {
    let mut witness = Witness::new(server);
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut dice = |sides: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % sides as u64) as usize
    };
    for round in 0..200 {
        let level = BOTH[round % 2];
        let mut bytes: Vec<u8> = examples(level).concat();
        // Publishes meant for others must not reach the witness by chance.
        for _ in 0..=dice(4) {
            let at = dice(bytes.len());
            bytes[at] = dice(256) as u8;
        }
        let mut line = if round % 5 == 0 { Line::open(server, level) } else { Line::quick(server, level) };
        line.send_what_it_takes(&bytes);
        line.cut();
    }
    witness.is_served();
}
