//! SUBSCRIBE, UNSUBSCRIBE and their answers (3.8 to 3.11), shared subscriptions (4.8).

use super::*;

cases! {
    each_filter_gets_its_code_in_order: ["3.8.4-1", "3.8.4-2", "3.8.4-4", "3.8.4-5", "3.9.3-1", "3.9.3-2", "2.3.1-7"], ["3.8.4-1", "3.8.4-2", "3.8.4-5", "3.8.4-6", "3.8.4-7", "3.9.3-1", "3.9.3-2", "2.2.1-6"];
    flags_of_subscribe_and_unsubscribe_are_checked: ["3.8.1-1", "3.10.1-1"], ["3.8.1-1", "3.10.1-1"];
    no_filter_is_an_error: ["3.8.3-3", "3.10.3-2"], ["3.8.3-2", "3.10.3-2"];
    reserved_options_are_refused: ["3.8.3-4"], ["3.8.3-5"];
    filters_must_be_utf8: ["3.8.3-1", "3.10.3-1"], ["3.8.3-1", "3.10.3-1"];
    filters_that_are_wrong_are_refused: ["4.7.1-2", "4.7.1-3", "4.7.3-1", "4.7.3-2"], ["4.7.1-1", "4.7.1-2", "4.7.3-1", "4.7.3-2"];
    many_filters_in_one_packet: ["3.8.4-4"], ["3.8.4-5"];
    ten_thousand_filters_do_no_harm: [], [];
    a_subscription_is_replaced_by_the_same_filter: ["3.8.4-3"], ["3.8.4-3"];
    overlapping_subscriptions_get_the_highest_qos: ["3.3.5-1"], ["3.3.4-2"], not mosquitto: "2.0.11 takes the first that matches";
    unsubscribing_ends_new_messages: ["3.10.4-1", "3.10.4-2", "3.10.4-4"], ["3.10.4-1", "3.10.4-2", "3.10.4-4"];
    unsubscribing_from_nothing_is_answered: ["3.10.4-5", "3.10.4-6"], ["3.10.4-5", "3.10.4-6", "3.11.3-1", "3.11.3-2"];
    what_is_under_way_is_delivered_after_unsubscribing: ["3.10.4-3"], ["3.10.4-3"];
    no_local_keeps_own_messages_away: [], ["3.8.3-3"];
    no_local_on_a_shared_subscription_is_an_error: [], ["3.8.3-4"], not mosquitto: "2.0.11 takes it";
    a_share_gets_each_message_once: [], ["4.8.2-1", "4.8.2-3", "4.8.2-6"];
    wrong_share_names_are_refused: [], ["4.8.2-1", "4.8.2-2"], not mosquitto: "2.0.11 takes some of them";
    identifiers_come_with_the_messages: [], ["3.3.4-3", "3.3.4-4", "3.3.4-5"];
    identifiers_are_checked: [], ["3.3.4-6"], not mosquitto: "2.0.11 takes some of them";
}

fn each_filter_gets_its_code_in_order(server: &Server) {
    for level in BOTH {
        let root = server.name();
        let mut line = Line::quick(server, level);
        let filters = [2, 0, 1, 1, 0].map(|qos| (format!("{root}/{qos}/{}", line.fresh_id()), qos));
        let asked: Vec<(&str, u8)> = filters.iter().map(|(filter, qos)| (filter.as_str(), *qos)).collect();
        line.send(&packets::subscribe(level, 1234, &asked, &Props::new()));
        let Packet::SubAck { id, codes, .. } = line.next() else { panic!() };
        assert_eq!((id, codes), (1234, vec![2, 0, 1, 1, 0]));
        let mut writer = Line::quick(server, level);
        for (filter, qos) in &filters {
            writer.publish(filter, 2, filter);
            let message = line.take();
            assert_eq!((message.text(), message.qos), (filter.as_str(), *qos));
        }
    }
}

fn flags_of_subscribe_and_unsubscribe_are_checked(server: &Server) {
    for level in BOTH {
        let subscribe = packets::subscribe(level, 1, &[("a", 0)], &Props::new());
        let unsubscribe = packets::unsubscribe(level, 1, &["a"]);
        for (packet, firsts) in [(subscribe, [0x80, 0x83, 0x8a]), (unsubscribe, [0xa0, 0xa3, 0xaa])] {
            for first in firsts {
                let mut line = Line::quick(server, level);
                line.send(&[&[first], &packet[1..]].concat());
                line.refused(server, &[0x81, 0x82]);
            }
        }
    }
}

fn no_filter_is_an_error(server: &Server) {
    for level in BOTH {
        for packet in [packets::subscribe(level, 1, &[], &Props::new()), packets::unsubscribe(level, 1, &[])] {
            let mut line = Line::quick(server, level);
            line.send(&packet);
            line.refused(server, &[0x81, 0x82]);
        }
    }
}

fn reserved_options_are_refused(server: &Server) {
    for level in BOTH {
        let wrong: &[u8] = if level == V5 { &[0x40, 0x80, 0x03, 0x30] } else { &[0x04, 0x08, 0x10, 0x80, 0x03] };
        for options in wrong {
            let mut line = Line::quick(server, level);
            line.send(&packets::subscribe(level, 1, &[("a", *options)], &Props::new()));
            line.refused(server, &[0x81, 0x82]);
        }
    }
}

fn filters_must_be_utf8(server: &Server) {
    for level in BOTH {
        for wrong in [&b"\xff"[..], b"\xed\xa0\x80", b"a\0b"] {
            let options: &[u8] = if level == V5 { &[0] } else { &[] };
            let body = [&[0, 1], options, &text(wrong)].concat();
            for (first, end) in [(0x82, &[0u8][..]), (0xa2, &[])] {
                let mut line = Line::quick(server, level);
                line.send(&frame(first, &[&body, end].concat()));
                line.refused(server, &[0x81, 0x82, 0x8f]);
            }
        }
    }
}

/// A filter is refused by its own code, or the connection is closed.
fn filters_that_are_wrong_are_refused(server: &Server) {
    for level in BOTH {
        for filter in ["#/a", "a#", "a/#/b", "a/b#", "+a", "a+", "+/#/b", "a/+b/c", "##", "++", ""] {
            let mut line = Line::quick(server, level);
            line.send(&packets::subscribe(level, 1, &[(filter, 0)], &Props::new()));
            match line.answer_or_close() {
                Some(Packet::SubAck { codes, .. }) => {
                    assert_eq!(codes, [if level == V5 { 0x8f } else { 0x80 }], "{filter}");
                    line.ping();
                }
                Some(Packet::Disconnect { reason, .. }) => {
                    assert!([0x81, 0x82, 0x8f].contains(&reason), "{reason:#04x}");
                }
                None => {}
                Some(other) => panic!("{filter}: {other:?}"),
            }
        }
    }
}

fn many_filters_in_one_packet(server: &Server) {
    for level in BOTH {
        let root = server.name();
        let count = servers::SUBSCRIPTIONS;
        let filters: Vec<String> = (0..count).map(|n| format!("{root}/{n}/+")).collect();
        let asked: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 1)).collect();
        let mut line = Line::quick(server, level);
        line.send(&packets::subscribe(level, 1, &asked, &Props::new()));
        let Packet::SubAck { codes, .. } = line.next() else { panic!() };
        assert_eq!(codes, vec![1; count]);
        Line::quick(server, level).publish(&format!("{root}/{}/x", count - 1), 1, "last");
        assert_eq!(line.take().text(), "last");
    }
}

/// Granted or refused, each with its own code.
fn ten_thousand_filters_do_no_harm(server: &Server) {
    for level in BOTH {
        let root = server.name();
        let filters: Vec<String> = (0..10_000).map(|n| format!("{root}/{n}")).collect();
        let asked: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 1)).collect();
        let mut line = Line::quick(server, level);
        line.send(&packets::subscribe(level, 1, &asked, &Props::new()));
        let Packet::SubAck { codes, .. } = line.next() else { panic!() };
        assert_eq!(codes.len(), filters.len());
        assert!(codes[..servers::SUBSCRIPTIONS].iter().all(|code| *code == 1));
        if server.is_ours() {
            let no = if level == V5 { 0x97 } else { 0x80 };
            assert!(codes[servers::SUBSCRIPTIONS..].iter().all(|code| *code == no));
        }
        line.ping();
    }
}

fn a_subscription_is_replaced_by_the_same_filter(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut line = Line::subscribed(server, level, &topic, 2);
        line.subscribe(&topic, 0);
        Line::quick(server, level).publish(&topic, 2, "x");
        assert_eq!(line.take().qos, 0);
        line.ping();
    }
}

fn overlapping_subscriptions_get_the_highest_qos(server: &Server) {
    for level in BOTH {
        let root = server.name();
        let mut line = Line::quick(server, level);
        line.subscribe(&format!("{root}/#"), 0);
        line.subscribe(&format!("{root}/+"), 2);
        line.subscribe(&format!("{root}/a"), 1);
        Line::quick(server, level).publish(&format!("{root}/a"), 2, "x");
        // A server may send one copy for each. Ours sends one in all.
        assert_eq!(line.take().qos, 2);
        line.ping();
    }
}

fn unsubscribing_ends_new_messages(server: &Server) {
    for level in BOTH {
        let root = server.name();
        let mut line = Line::quick(server, level);
        line.subscribe(&format!("{root}/+"), 1);
        line.subscribe(&format!("{root}/b"), 1);
        // Compared as text, not by what it matches.
        line.unsubscribe(&format!("{root}/a"));
        let mut writer = Line::quick(server, level);
        writer.publish(&format!("{root}/a"), 1, "still");
        assert_eq!(line.take().text(), "still");
        line.unsubscribe(&format!("{root}/+"));
        writer.publish(&format!("{root}/a"), 1, "no more");
        writer.publish(&format!("{root}/b"), 1, "the other");
        assert_eq!(line.take().text(), "the other");
        line.ping();
    }
}

fn unsubscribing_from_nothing_is_answered(server: &Server) {
    for level in BOTH {
        let root = server.name();
        let mut line = Line::subscribed(server, level, &root, 0);
        let other = format!("{root}/other");
        line.send(&packets::unsubscribe(level, 99, &[&other, &root, &root]));
        let packet = line.next();
        let Packet::UnsubAck { id: 99, codes, .. } = &packet else { panic!("{packet:?}") };
        assert_eq!(*codes, if level == V5 { vec![0x11, 0, 0x11] } else { Vec::new() });
    }
}

fn what_is_under_way_is_delivered_after_unsubscribing(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut line = Line::subscribed(server, level, &topic, 2);
        Line::quick(server, level).publish(&topic, 2, "x");
        let message = line.message();
        line.unsubscribe(&topic);
        line.send(&packets::pubrec(message.id));
        assert_eq!(line.answer(), Packet::PubRel(ack(message.id)));
        line.send(&packets::pubcomp(message.id));
        line.ping();
    }
}

fn no_local_keeps_own_messages_away(server: &Server) {
    let topic = server.name();
    let mut line = Line::quick(server, V5);
    line.subscribe(&topic, 0b101);
    line.publish(&topic, 1, "own");
    Line::quick(server, V5).publish(&topic, 1, "another's");
    assert_eq!(line.take().text(), "another's");
}

fn no_local_on_a_shared_subscription_is_an_error(server: &Server) {
    let mut line = Line::quick(server, V5);
    line.send(&packets::subscribe(V5, 1, &[("$share/g/a", 0b101)], &Props::new()));
    line.refused(server, &[0x82]);
}

fn a_share_gets_each_message_once(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let share = format!("$share/{topic}/{topic}");
        let mut lines = [2, 1].map(|qos| Line::subscribed(server, level, &share, qos));
        let mut own = Line::subscribed(server, level, &topic, 0);
        let mut writer = Line::quick(server, level);
        for n in 0..10 {
            writer.publish(&topic, 2, &n.to_string());
        }
        // Whatever the server chooses: together each message once, each at the subscriber's own QoS.
        let mut got = Vec::new();
        for (line, qos) in lines.iter_mut().zip([2, 1]) {
            line.send(&packets::PINGREQ);
            let mut messages = Vec::new();
            while let Packet::Publish(message) = line.next() {
                messages.push(message);
            }
            for message in messages {
                assert_eq!(message.qos, qos);
                finish(line, level, &message);
                got.push(message.text().to_owned());
            }
        }
        got.sort();
        let all: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        assert_eq!(got, all);
        assert_eq!(own.take_texts(10), all);
        // What was refused has not been given to the other.
        lines.iter_mut().for_each(Line::ping);
    }
}

/// Refuses a message where the version has a way to, and takes it where it has none.
fn finish(line: &mut Line, level: u8, message: &Message) {
    let id = message.id.to_be_bytes();
    let first = if message.qos == 1 { 0x40 } else { 0x50 };
    if level == V5 {
        line.send(&frame(first, &[&id[..], &[0x83]].concat()));
        return;
    }
    line.send(&frame(first, &id));
    if message.qos == 2 {
        assert_eq!(line.answer(), Packet::PubRel(ack(message.id)));
        line.send(&packets::pubcomp(message.id));
    }
}

fn wrong_share_names_are_refused(server: &Server) {
    for filter in ["$share//x", "$share/g", "$share/", "$share/a+b/x", "$share/#/x", "$share/g/"] {
        let mut line = Line::quick(server, V5);
        line.send(&packets::subscribe(V5, 1, &[(filter, 0)], &Props::new()));
        match line.answer_or_close() {
            Some(Packet::SubAck { codes, .. }) => assert_eq!(codes, [0x8f], "{filter}"),
            Some(Packet::Disconnect { reason, .. }) => assert!([0x81, 0x82, 0x8f].contains(&reason), "{reason:#04x}"),
            None => {}
            Some(other) => panic!("{filter}: {other:?}"),
        }
    }
}

fn identifiers_come_with_the_messages(server: &Server) {
    let root = server.name();
    let mut line = Line::quick(server, V5);
    let with = |number| Props::new().var(id::SUBSCRIPTION_ID, number);
    line.subscribe_with(&format!("{root}/a"), 1, &with(1));
    line.subscribe_with(&format!("{root}/b"), 1, &with(268_435_455));
    line.subscribe(&format!("{root}/c"), 1);
    line.subscribe_with(&format!("{root}/d/#"), 1, &with(7));
    line.subscribe_with(&format!("{root}/d/+"), 1, &with(8));
    // Replaced with another identifier, and with none.
    line.subscribe_with(&format!("{root}/a"), 1, &with(2));
    line.subscribe_with(&format!("{root}/e"), 1, &with(9));
    line.subscribe(&format!("{root}/e"), 1);
    let mut writer = Line::quick(server, V5);
    for (topic, expected) in [("a", vec![2]), ("b", vec![268_435_455]), ("c", vec![]), ("e", vec![])] {
        writer.publish(&format!("{root}/{topic}"), 1, "x");
        assert_eq!(line.take().props.numbers(id::SUBSCRIPTION_ID), expected, "{topic}");
    }
    writer.publish(&format!("{root}/d/x"), 1, "x");
    let mut found = line.take().props.numbers(id::SUBSCRIPTION_ID);
    if found.len() == 1 {
        // A copy for each subscription, each with its own.
        found.extend(line.take().props.numbers(id::SUBSCRIPTION_ID));
    }
    found.sort_unstable();
    assert_eq!(found, [7, 8]);
}

fn identifiers_are_checked(server: &Server) {
    let twice = Props::new().var(id::SUBSCRIPTION_ID, 1).var(id::SUBSCRIPTION_ID, 2);
    for props in [Props::new().var(id::SUBSCRIPTION_ID, 0), twice, Props::new().two(id::TOPIC_ALIAS, 1)] {
        let mut line = Line::quick(server, V5);
        line.send(&packets::subscribe(V5, 1, &[("a", 0)], &props));
        line.refused(server, &[0x81, 0x82]);
    }
    // A client has none to give with a PUBLISH.
    let mut line = Line::quick(server, V5);
    line.send(&Publish::new("a", 0, 0, "x").props(Props::new().var(id::SUBSCRIPTION_ID, 1)).bytes(V5));
    line.refused(server, &[0x81, 0x82]);
}
