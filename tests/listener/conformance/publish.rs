//! PUBLISH and its answers at each QoS, in both directions (3.3 to 3.7, 4.3).

use super::*;

cases! {
    every_qos_is_delivered_as_it_was_sent: ["3.3.4-1", "7.0.0-2", "2.3.1-5", "2.3.1-6", "4.3.1-1", "4.3.2-1", "4.3.2-2", "4.3.3-1", "4.5.0-1", "3.3.2-3"], ["3.3.4-1", "3.4.2-1", "3.6.2-1", "2.2.1-2", "2.2.1-4", "2.2.1-5", "4.3.1-1", "4.3.2-1", "4.3.2-2", "4.3.2-4", "4.3.3-1", "4.3.3-2", "4.3.3-8", "4.3.3-11", "4.5.0-1", "3.3.2-3"];
    qos_bits_of_3_end_the_connection: ["3.3.1-4"], ["3.3.1-4"];
    dup_at_qos_0_is_refused: ["3.3.1-2"], ["3.3.1-2"], not mosquitto: "2.0.11 takes it in 3.1.1";
    packet_identifier_0_is_refused: ["2.3.1-1"], ["2.2.1-3"];
    the_smaller_qos_counts: ["3.8.4-6"], ["3.8.4-8"];
    dup_is_not_passed_on: ["3.3.1-3"], ["3.3.1-3"];
    an_identifier_is_free_again_after_puback: ["4.3.2-2"], ["4.3.2-5"];
    a_qos_2_message_repeated_before_pubrel_is_delivered_once: ["4.3.3-2"], ["4.3.3-10"], not mosquitto: "2.0.11 closes at the second repeat";
    an_identifier_is_free_again_after_pubcomp: ["4.3.3-2"], ["4.3.3-12"];
    qos_2_messages_cross_each_other: ["4.3.3-2", "4.6.0-6"], ["4.3.3-11", "4.6.0-5"];
    an_unknown_pubrel_is_answered: [], ["4.3.3-11", "3.5.2-1", "3.7.2-1"];
    answers_to_nothing_do_no_harm: [], [];
    messages_keep_their_order: ["4.6.0-5", "4.6.0-6"], ["4.6.0-5", "4.6.0-6"];
    pubacks_keep_the_order_of_arrival: [], [];
    the_sender_waits_for_each_step_of_qos_2: ["4.3.3-1"], ["4.3.3-3", "4.3.3-4", "4.3.3-5", "4.3.3-6"];
    a_refusing_pubrec_ends_the_exchange: [], ["4.4.0-2", "4.3.3-4"];
    flags_of_the_answers_are_checked: ["2.2.2-1", "2.2.2-2", "3.6.1-1"], ["2.1.3-1", "3.6.1-1"], not mosquitto: "2.0.11 takes some of them";
    payloads_of_any_content_pass_unchanged: [], [];
}

fn every_qos_is_delivered_as_it_was_sent(server: &Server) {
    for level in BOTH {
        let root = server.name();
        let mut reader = Line::subscribed(server, level, &format!("{root}/#"), 2);
        let mut writer = Line::quick(server, level);
        for qos in [0, 1, 2] {
            let topic = format!("{root}/{qos}");
            for n in 0..3 {
                writer.publish(&topic, qos, &format!("{qos}.{n}"));
                let message = reader.take();
                assert_eq!((message.topic.as_str(), message.text()), (topic.as_str(), format!("{qos}.{n}").as_str()));
                assert_eq!((message.qos, message.dup, message.retain), (qos, false, false));
            }
        }
        reader.ping();
    }
}

fn qos_bits_of_3_end_the_connection(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut watcher = Line::subscribed(server, level, &topic, 0);
        let mut line = Line::quick(server, level);
        line.send(&Publish::new(&topic, 3, 1, "x").bytes(level));
        line.refused(server, &[0x81, 0x82]);
        Line::quick(server, level).publish(&topic, 1, "after");
        assert_eq!(watcher.message().text(), "after");
    }
}

fn dup_at_qos_0_is_refused(server: &Server) {
    for level in BOTH {
        let mut line = Line::quick(server, level);
        line.send(&Publish::new("a", 0, 0, "x").dup().bytes(level));
        line.refused(server, &[0x81, 0x82]);
    }
}

fn packet_identifier_0_is_refused(server: &Server) {
    for level in BOTH {
        let packets = [
            Publish::new("a", 1, 0, "x").bytes(level),
            Publish::new("a", 2, 0, "x").bytes(level),
            packets::subscribe(level, 0, &[("a", 0)], &Props::new()),
            packets::unsubscribe(level, 0, &["a"]),
        ];
        for packet in packets {
            let mut line = Line::quick(server, level);
            line.send(&packet);
            line.refused(server, &[0x81, 0x82]);
        }
    }
}

fn the_smaller_qos_counts(server: &Server) {
    for level in BOTH {
        let root = server.name();
        let mut writer = Line::quick(server, level);
        for granted in [0, 1, 2] {
            let mut reader = Line::subscribed(server, level, &root, granted);
            for qos in [0, 1, 2] {
                writer.publish(&root, qos, "x");
                assert_eq!(reader.take().qos, qos.min(granted));
            }
        }
    }
}

fn dup_is_not_passed_on(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut reader = Line::subscribed(server, level, &topic, 2);
        let mut writer = Line::quick(server, level);
        for qos in [1, 2] {
            writer.publish_packet(Publish::new(&topic, qos, 0, "x").dup());
            assert!(!reader.take().dup);
        }
    }
}

fn an_identifier_is_free_again_after_puback(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut reader = Line::subscribed(server, level, &topic, 1);
        let mut writer = Line::quick(server, level);
        for (dup, payload) in [(false, "first"), (false, "second"), (true, "third"), (true, "third")] {
            let publish = Publish { dup, ..Publish::new(&topic, 1, 7, payload) };
            writer.send(&publish.bytes(level));
            writer.expect_acked(7);
        }
        assert_eq!(reader.take_texts(4), ["first", "second", "third", "third"]);
    }
}

/// PUBREC for an identifier; repeated ones may say so in version 5.
fn expect_received(line: &mut Line, id: u16) {
    let answer = line.answer();
    assert!(matches!(&answer, Packet::PubRec(ack) if ack.id == id && ack.reason < 0x80), "{answer:?}");
}

fn a_qos_2_message_repeated_before_pubrel_is_delivered_once(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut reader = Line::subscribed(server, level, &topic, 2);
        let mut writer = Line::quick(server, level);
        for dup in [false, true, true] {
            writer.send(&Publish { dup, ..Publish::new(&topic, 2, 9, "once") }.bytes(level));
            expect_received(&mut writer, 9);
        }
        writer.send(&packets::pubrel(9));
        assert_eq!(writer.answer(), Packet::PubComp(ack(9)));
        writer.publish(&topic, 2, "after");
        assert_eq!(reader.take_texts(2), ["once", "after"]);
    }
}

fn an_identifier_is_free_again_after_pubcomp(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut reader = Line::subscribed(server, level, &topic, 2);
        let mut writer = Line::quick(server, level);
        for _ in 0..3 {
            writer.send(&Publish::new(&topic, 2, 9, "same").bytes(level));
            expect_received(&mut writer, 9);
            writer.send(&packets::pubrel(9));
            assert_eq!(writer.answer(), Packet::PubComp(ack(9)));
        }
        assert_eq!(reader.take_texts(3), ["same", "same", "same"]);
    }
}

fn qos_2_messages_cross_each_other(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut reader = Line::subscribed(server, level, &topic, 2);
        let mut writer = Line::quick(server, level);
        let ids = [11, 5, 65_535, 1];
        for id in ids {
            writer.send(&Publish::new(&topic, 2, id, id.to_string()).bytes(level));
        }
        ids.iter().for_each(|id| expect_received(&mut writer, *id));
        for id in [1, 11, 65_535, 5] {
            writer.send(&packets::pubrel(id));
            assert_eq!(writer.answer(), Packet::PubComp(ack(id)));
        }
        let mut texts = reader.take_texts(4);
        if !server.is_ours() {
            // It delivers at the PUBREL.
            texts.sort_by_key(|text| ids.iter().position(|id| id.to_string() == *text));
        }
        assert_eq!(texts, ids.map(|id| id.to_string()));
    }
}

fn an_unknown_pubrel_is_answered(server: &Server) {
    for level in BOTH {
        let mut line = Line::quick(server, level);
        line.send(&packets::pubrel(77));
        let answer = line.answer();
        let Packet::PubComp(have) = &answer else { panic!("{answer:?}") };
        assert!(have.id == 77 && [0, 0x92].contains(&have.reason), "{answer:?}");
        line.publish("a", 2, "x");
    }
}

/// Late or doubled answers are met by every server whose client was slow.
fn answers_to_nothing_do_no_harm(server: &Server) {
    for level in BOTH {
        let mut line = Line::quick(server, level);
        line.send(&packets::puback(3));
        line.send(&packets::pubcomp(4));
        line.ping();
    }
}

fn messages_keep_their_order(server: &Server) {
    for level in BOTH {
        for qos in [0, 1, 2] {
            let topic = server.name();
            let mut reader = Line::subscribed(server, level, &topic, qos);
            let mut writer = Line::quick(server, level);
            // At most the identifiers that may be open at once.
            let ids: Vec<u16> = (1..=20).collect();
            let all: Vec<u8> =
                ids.iter().flat_map(|id| Publish::new(&topic, qos, *id, id.to_string()).bytes(level)).collect();
            writer.send(&all);
            for id in &ids {
                match qos {
                    0 => {}
                    1 => writer.expect_acked(*id),
                    _ => expect_received(&mut writer, *id),
                }
            }
            for id in ids.iter().filter(|_| qos == 2) {
                writer.send(&packets::pubrel(*id));
                assert_eq!(writer.answer(), Packet::PubComp(ack(*id)));
            }
            let expected: Vec<String> = ids.iter().map(u16::to_string).collect();
            assert_eq!(reader.take_texts(ids.len()), expected);
        }
    }
}

/// The statement is the client's; ours keeps it as a server too, whose PUBACKs come in groups.
fn pubacks_keep_the_order_of_arrival(server: &Server) {
    for level in BOTH {
        let mut line = Line::quick(server, level);
        let ids = [9u16, 2, 40_000, 1, 7];
        let all: Vec<u8> = ids.iter().flat_map(|id| Publish::new("order", 1, *id, "x").bytes(level)).collect();
        line.send(&all);
        ids.iter().for_each(|id| line.expect_acked(*id));
    }
}

fn the_sender_waits_for_each_step_of_qos_2(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let connect = Connect::new(level, &server.name()).kept();
        let mut reader = Line::connect(server, &connect);
        reader.subscribe(&topic, 2);
        Line::quick(server, level).publish(&topic, 2, "x");
        let first = reader.message();
        assert!(!first.dup);
        reader.cut();
        // No PUBREC was sent: the same PUBLISH again.
        let mut reader = Line::connect(server, &connect);
        let again = reader.message();
        assert_eq!((again.id, again.dup, again.text()), (first.id, true, "x"));
        reader.send(&packets::pubrec(first.id));
        assert_eq!(reader.answer(), Packet::PubRel(ack(first.id)));
        reader.cut();
        // No PUBCOMP was sent: PUBREL again, the PUBLISH never.
        let mut reader = Line::connect(server, &connect);
        assert_eq!(reader.next(), Packet::PubRel(ack(first.id)));
        reader.send(&packets::pubcomp(first.id));
        reader.ping();
        reader.leave();
        Line::connect(server, &Connect { clean: true, ..connect }).ping();
    }
}

fn a_refusing_pubrec_ends_the_exchange(server: &Server) {
    let topic = server.name();
    let connect = Connect::new(V5, &server.name()).kept();
    let mut reader = Line::connect(server, &connect);
    reader.subscribe(&topic, 2);
    let mut writer = Line::quick(server, V5);
    writer.publish(&topic, 2, "refused");
    let message = reader.message();
    reader.send(&frame(0x50, &[&message.id.to_be_bytes()[..], &[0x83, 0]].concat()));
    reader.ping();
    writer.publish(&topic, 1, "refused too");
    let message = reader.message();
    reader.send(&frame(0x40, &[&message.id.to_be_bytes()[..], &[0x97, 0]].concat()));
    reader.ping();
    reader.cut();
    // Neither comes again.
    let mut reader = Line::connect(server, &connect);
    writer.publish(&topic, 1, "after");
    assert_eq!(reader.take().text(), "after");
}

fn flags_of_the_answers_are_checked(server: &Server) {
    for level in BOTH {
        let id = [0, 1];
        for first in [0x41, 0x51, 0x60, 0x63, 0x71] {
            let mut line = Line::quick(server, level);
            line.send(&frame(first, &id));
            line.refused(server, &[0x81, 0x82]);
        }
        for bytes in [[0xc1, 0], [0x00, 0], [0xd0, 0], [0x20, 0]] {
            let mut line = Line::quick(server, level);
            line.send(&bytes);
            line.refused(server, &[0x81, 0x82]);
        }
    }
}

fn payloads_of_any_content_pass_unchanged(server: &Server) {
    let payloads: [Vec<u8>; 5] = [
        Vec::new(),
        vec![0],
        (0..=255).collect(),
        "\u{feff}Gr\u{fc}n".encode_utf16().flat_map(u16::to_be_bytes).collect(),
        vec![0xff; 70_000],
    ];
    for level in BOTH {
        let topic = server.name();
        let mut reader = Line::subscribed(server, level, &topic, 1);
        let mut writer = Line::quick(server, level);
        for payload in &payloads {
            writer.publish_packet(Publish::new(&topic, 1, 0, payload));
            assert_eq!(reader.take().payload, *payload);
        }
    }
}
