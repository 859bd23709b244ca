//! Flow control and sizes (3.1.2.11.3 and .4, 3.3.4, 4.9).

use super::*;

cases! {
    no_more_is_under_way_than_the_client_takes: [], ["3.3.4-9", "4.9.0-1", "4.9.0-2"], not mosquitto: "2.0.11 does not hold its own window";
    a_full_window_holds_up_nothing_else: [], ["3.3.4-10", "4.9.0-3"];
    qos_2_holds_its_place_until_pubcomp: [], ["4.9.0-2"];
    pubrels_come_in_the_order_of_the_pubrecs: ["4.6.0-4"], [];
    all_that_was_announced_is_taken: [], ["3.3.4-7"];
    more_than_was_announced_ends_the_connection: [], ["3.3.4-7"], not mosquitto: "2.0.11 does not look";
    version_4_may_send_as_much_as_it_likes: [], [], not mosquitto: "its own limit is another";
    who_never_reads_holds_up_nobody: [], [];
    packets_up_to_the_limit_are_taken: [], ["3.2.2-15"];
    packets_above_the_limit_are_refused: [], ["3.2.2-15"], not mosquitto: "its limit does not count the header";
    nothing_is_sent_that_is_too_large_for_the_client: [], ["3.1.2-24", "3.1.2-25", "3.2.2-19", "3.2.2-20"];
    every_answer_fits_the_client: [], ["3.4.2-2", "3.4.2-3", "3.5.2-2", "3.5.2-3", "3.6.2-2", "3.6.2-3", "3.7.2-2", "3.7.2-3", "3.9.2-1", "3.9.2-2", "3.11.2-1", "3.11.2-2", "3.14.2-3", "3.14.2-4"];
}

fn with_window(server: &Server, window: u16) -> Line {
    Line::connect(server, &Connect::new(V5, &server.name()).props(Props::new().two(id::RECEIVE_MAXIMUM, window)))
}

fn no_more_is_under_way_than_the_client_takes(server: &Server) {
    let topic = server.name();
    let mut reader = with_window(server, 3);
    reader.subscribe(&topic, 2);
    let mut writer = Line::quick(server, V5);
    (0..10).for_each(|n| writer.publish(&topic, 1, &n.to_string()));
    let mut open: Vec<Message> = (0..3).map(|_| reader.message()).collect();
    for n in 3..10 {
        reader.ping();
        reader.send(&packets::puback(open.remove(0).id));
        open.push(reader.message());
        assert_eq!(open[2].text(), n.to_string());
    }
    reader.ping();
}

fn a_full_window_holds_up_nothing_else(server: &Server) {
    let topic = server.name();
    let mut reader = with_window(server, 1);
    reader.subscribe(&topic, 1);
    let mut writer = Line::quick(server, V5);
    (0..3).for_each(|n| writer.publish(&topic, 1, &n.to_string()));
    let first = reader.message();
    let other = server.name();
    reader.subscribe(&other, 0);
    reader.publish(&server.name(), 2, "own");
    reader.ping();
    reader.unsubscribe(&other);
    reader.send(&packets::puback(first.id));
    assert_eq!(reader.take().text(), "1");
}

fn qos_2_holds_its_place_until_pubcomp(server: &Server) {
    let topic = server.name();
    let mut reader = with_window(server, 1);
    reader.subscribe(&topic, 2);
    let mut writer = Line::quick(server, V5);
    (0..2).for_each(|n| writer.publish(&topic, 2, &n.to_string()));
    let first = reader.message();
    reader.ping();
    reader.send(&packets::pubrec(first.id));
    assert_eq!(reader.next(), Packet::PubRel(ack(first.id)));
    reader.ping();
    reader.send(&packets::pubcomp(first.id));
    assert_eq!(reader.take().text(), "1");
}

fn pubrels_come_in_the_order_of_the_pubrecs(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut reader = Line::subscribed(server, level, &topic, 2);
        let mut writer = Line::quick(server, level);
        (0..3).for_each(|n| writer.publish(&topic, 2, &n.to_string()));
        let ids: Vec<u16> = (0..3).map(|_| reader.message().id).collect();
        // In one piece, and not in the order in which they were sent.
        let turned = [ids[2], ids[0], ids[1]];
        let pubrecs: Vec<u8> = turned.iter().flat_map(|id| packets::pubrec(*id)).collect();
        reader.send(&pubrecs);
        for id in turned {
            assert_eq!(reader.next(), Packet::PubRel(ack(id)));
        }
    }
}

/// QoS 2, because its identifiers stay open until the client says PUBREL.
fn opened(server: &Server, level: u8, count: u16) -> Line {
    let mut line = Line::quick(server, level);
    let all: Vec<u8> = (1..=count).flat_map(|id| Publish::new("window", 2, id, "x").bytes(level)).collect();
    line.send_what_it_takes(&all);
    line
}

fn all_that_was_announced_is_taken(server: &Server) {
    let accepted = Line::accepted(server, &Connect::new(V5, &server.name()));
    let most = accepted.props.number(id::RECEIVE_MAXIMUM).map_or(65_535, |most| most as u16);
    let mut line = opened(server, V5, most);
    for id in 1..=most {
        let answer = line.answer();
        assert!(matches!(&answer, Packet::PubRec(ack) if ack.id == id && ack.reason == 0), "{answer:?}");
    }
    line.send(&packets::pubrel(1));
    assert_eq!(line.answer(), Packet::PubComp(ack(1)));
    line.publish("window", 1, "a place is free");
}

fn more_than_was_announced_ends_the_connection(server: &Server) {
    let accepted = Line::accepted(server, &Connect::new(V5, &server.name()));
    let most = accepted.props.number(id::RECEIVE_MAXIMUM).map_or(65_535, |most| most as u16);
    let mut line = opened(server, V5, most + 1);
    let reason = loop {
        match line.answer_or_close() {
            Some(Packet::PubRec(_)) => {}
            Some(Packet::Disconnect { reason, .. }) => break Some(reason),
            None => break None,
            Some(other) => panic!("{other:?}"),
        }
    };
    assert!(reason == Some(0x93) || !server.is_ours(), "{reason:?}");
}

/// It cannot be told a limit. Ours reads on when there is room again.
fn version_4_may_send_as_much_as_it_likes(server: &Server) {
    let topic = server.name();
    let mut line = Line::quick(server, V4);
    let count = servers::RECEIVE_MAXIMUM * 3;
    let all: Vec<u8> = (1..=count).flat_map(|id| Publish::new(&topic, 1, id, "x").bytes(V4)).collect();
    line.send(&all);
    (1..=count).for_each(|id| line.expect_acked(id));
}

/// A subscriber that takes nothing off its socket, and far more for it than any buffer holds.
fn who_never_reads_holds_up_nobody(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let deaf = Line::subscribed(server, level, &topic, 0);
        let mut writer = Line::quick(server, level);
        let other = server.name();
        let mut reader = Line::subscribed(server, level, &other, 1);
        let payload = "x".repeat(100_000);
        for n in 0..80 {
            writer.publish(&topic, 1, &payload);
            writer.publish(&other, 1, &n.to_string());
            assert_eq!(reader.take().text(), n.to_string());
        }
        deaf.cut();
    }
}

/// A PUBLISH of `size` bytes in all.
fn sized(level: u8, topic: &str, size: usize) -> Vec<u8> {
    let empty = Publish::new(topic, 1, 1, "").bytes(level);
    // The length's own bytes grow with it: one of them is there already.
    let body = empty.len() - 2;
    let head = 1 + (1..=4).find(|bytes| size - 1 - bytes < 1 << (7 * bytes)).unwrap();
    let packet = Publish::new(topic, 1, 1, vec![b'x'; size - head - body]).bytes(level);
    assert_eq!(packet.len(), size);
    packet
}

fn packets_up_to_the_limit_are_taken(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut line = Line::quick(server, level);
        for size in [129, 131, 16_386, 16_388, servers::PACKET_MAX - 1, servers::PACKET_MAX] {
            line.send(&sized(level, &topic, size));
            line.expect_acked(1);
        }
    }
}

fn packets_above_the_limit_are_refused(server: &Server) {
    for level in BOTH {
        let mut watcher = Line::quick(server, level);
        for size in [servers::PACKET_MAX + 1, servers::PACKET_MAX * 2] {
            let mut line = Line::quick(server, level);
            line.send_what_it_takes(&sized(level, "large", size));
            line.refused(server, &[0x95]);
        }
        // Announced only: nobody has that much to send.
        for length in [[0xff, 0xff, 0xff, 0x7f], [0x80, 0x80, 0x80, 0x01]] {
            let mut line = Line::quick(server, level);
            line.send(&[&[0x32], &length[..]].concat());
            line.refused(server, &[0x95, 0x81]);
        }
        watcher.ping();
    }
}

fn nothing_is_sent_that_is_too_large_for_the_client(server: &Server) {
    let topic = server.name();
    let most = 200;
    let props = Props::new().four(id::MAXIMUM_PACKET_SIZE, most);
    let mut reader = Line::open(server, V5);
    reader.limit(most as usize);
    reader.send(&Connect::new(V5, "").props(props).bytes());
    assert!(matches!(reader.next(), Packet::ConnAck { code: 0, .. }));
    reader.subscribe(&topic, 1);
    let mut other = Line::subscribed(server, V5, &topic, 1);
    let mut writer = Line::quick(server, V5);
    for payload in ["y".repeat(300), "x".to_owned()] {
        writer.publish(&topic, 1, &payload);
        assert_eq!(other.take().text(), payload);
    }
    // Left out without a word, as if it had been delivered.
    let message = reader.message();
    assert_eq!(message.text(), "x");
    reader.send(&packets::puback(message.id));
    reader.ping();
}

/// Whatever the server would like to say in words: a client with room for very little gets very little.
fn every_answer_fits_the_client(server: &Server) {
    let topic = server.name();
    let most = 48;
    let props = Props::new().four(id::MAXIMUM_PACKET_SIZE, most);
    let mut line = Line::open(server, V5);
    line.limit(most as usize);
    line.send(&Connect::new(V5, &server.name()).props(props).bytes());
    assert!(matches!(line.next(), Packet::ConnAck { code: 0, .. }));
    line.subscribe(&topic, 2);
    line.send(&packets::subscribe(V5, 900, &[("$share/g/a", 0), ("a/+", 1)], &Props::new()));
    assert!(matches!(line.answer(), Packet::SubAck { id: 900, .. }));
    line.send(&packets::unsubscribe(V5, 901, &["nothing", "a/+"]));
    assert!(matches!(line.answer(), Packet::UnsubAck { id: 901, .. }));
    for qos in [1, 2] {
        line.publish(&topic, qos, "x");
        assert_eq!(line.take().text(), "x");
    }
    line.send(&packets::pubrel(950));
    assert!(matches!(line.answer(), Packet::PubComp(ack) if ack.id == 950));
    line.send(&[0x00, 0x00]);
    line.refused(server, &[0x81, 0x82]);
}
