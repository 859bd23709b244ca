//! Sessions: kept, resumed, discarded (3.1.2.4, 3.2.2.2, 4.1, 4.4).

use super::*;

cases! {
    a_kept_session_is_resumed: ["3.1.2-4", "3.2.2-2", "4.1.0-1", "3.1.3-2"], ["3.1.2-5", "3.2.2-3", "4.1.0-1", "3.1.2-23"];
    without_one_a_new_session_begins: ["3.2.2-3", "3.1.4-3"], ["3.1.2-6", "3.1.4-4"];
    a_clean_start_discards_the_old_one: ["3.1.2-6", "3.1.4-3", "3.2.2-1"], ["3.1.2-4", "3.1.4-4", "3.2.2-2"];
    a_clean_session_ends_with_its_connection: ["3.1.2-6", "4.1.0-2"], ["4.1.0-2"];
    messages_are_kept_while_it_is_away: ["3.1.2-5"], ["4.5.0-1"];
    what_was_not_acknowledged_comes_again: ["4.4.0-1", "3.3.1-1", "2.3.1-4", "4.6.0-1", "4.3.2-1"], ["4.4.0-1", "3.3.1-1", "4.3.2-3"];
    nothing_comes_again_on_the_same_connection: [], ["4.4.0-1"];
    inbound_qos_2_goes_on_after_a_break: ["4.3.3-2", "4.4.0-1"], ["4.3.3-10", "4.3.3-12"];
    a_take_over_keeps_the_session: ["3.1.4-2", "4.1.0-2"], ["3.1.4-3", "4.1.0-1"];
    a_session_expires: [], ["4.1.0-2"];
    disconnect_can_change_the_expiry: [], [];
    an_expiry_cannot_be_raised_from_0: [], [];
    a_message_expires_while_it_waits: [], ["3.3.2-5"];
    what_was_sent_does_not_expire: [], ["4.3.3-7", "4.3.3-13"], not mosquitto: "2.0.11 lets it expire";
    what_expires_counts_down: [], ["3.3.2-6"];
    a_share_completes_qos_2_with_the_same_client: [], ["4.8.2-4", "4.8.2-5"];
}

/// A kept client that is gone, subscribed to `topic`.
fn away(server: &Server, level: u8, topic: &str, qos: u8) -> Connect {
    let connect = Connect::new(level, &server.name()).kept();
    let mut line = Line::connect(server, &connect);
    line.subscribe(topic, qos);
    line.leave();
    connect
}

/// Ends a kept session.
fn discard(server: &Server, connect: &Connect) {
    let clean = Connect { clean: true, props: Props::new(), ..connect.clone() };
    Line::connect(server, &clean).leave();
}

fn a_kept_session_is_resumed(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let connect = away(server, level, &topic, 1);
        let mut resumed = Line::accepted(server, &connect);
        assert!(resumed.present);
        Line::quick(server, level).publish(&topic, 1, "x");
        assert_eq!(resumed.line.take().text(), "x");
        resumed.line.leave();
        discard(server, &connect);
    }
}

fn without_one_a_new_session_begins(server: &Server) {
    for level in BOTH {
        let connect = Connect::new(level, &server.name()).kept();
        let accepted = Line::accepted(server, &connect);
        assert!(!accepted.present);
        accepted.line.leave();
        discard(server, &connect);
    }
}

fn a_clean_start_discards_the_old_one(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let connect = away(server, level, &topic, 1);
        Line::quick(server, level).publish(&topic, 1, "for the old one");
        let mut clean = Line::accepted(server, &Connect { clean: true, ..connect.clone() });
        assert!(!clean.present);
        clean.line.ping();
        clean.line.subscribe(&topic, 1);
        Line::quick(server, level).publish(&topic, 1, "for the new one");
        assert_eq!(clean.line.take().text(), "for the new one");
        clean.line.leave();
        discard(server, &connect);
    }
}

fn a_clean_session_ends_with_its_connection(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let connect = Connect::new(level, &server.name());
        let mut line = Line::connect(server, &connect);
        line.subscribe(&topic, 1);
        line.leave();
        Line::quick(server, level).publish(&topic, 1, "x");
        let mut accepted = Line::accepted(server, &connect.clone().kept());
        assert!(!accepted.present);
        accepted.line.ping();
        accepted.line.leave();
        discard(server, &connect);
    }
}

fn messages_are_kept_while_it_is_away(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let connect = away(server, level, &topic, 2);
        let mut writer = Line::quick(server, level);
        let payloads: Vec<String> = (0..15).map(|n| n.to_string()).collect();
        payloads.iter().zip([1, 2].iter().cycle()).for_each(|(payload, qos)| writer.publish(&topic, *qos, payload));
        let mut line = Line::connect(server, &connect);
        assert_eq!(line.take_texts(15), payloads);
        line.ping();
        line.leave();
        discard(server, &connect);
    }
}

fn what_was_not_acknowledged_comes_again(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let connect = Connect::new(level, &server.name()).kept();
        let mut line = Line::connect(server, &connect);
        line.subscribe(&topic, 1);
        let mut writer = Line::quick(server, level);
        (0..4).for_each(|n| writer.publish(&topic, 1, &n.to_string()));
        let first: Vec<Message> = (0..4).map(|_| line.message()).collect();
        assert!(first.iter().all(|message| !message.dup));
        let mut ids: Vec<u16> = first.iter().map(|message| message.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 4, "each has an identifier of its own");
        line.send(&packets::puback(first[1].id));
        line.ping();
        line.cut();
        let mut line = Line::connect(server, &connect);
        for message in [&first[0], &first[2], &first[3]] {
            let again = line.take();
            assert_eq!((again.id, again.text(), again.dup), (message.id, message.text(), true));
        }
        line.ping();
        line.leave();
        discard(server, &connect);
    }
}

fn nothing_comes_again_on_the_same_connection(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut line = Line::subscribed(server, level, &topic, 1);
        let mut writer = Line::quick(server, level);
        writer.publish(&topic, 1, "not answered");
        let message = line.message();
        (0..3).for_each(|_| line.ping());
        writer.publish(&topic, 1, "next");
        assert_eq!(line.message().text(), "next");
        line.send(&packets::puback(message.id));
        line.ping();
    }
}

fn inbound_qos_2_goes_on_after_a_break(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut reader = Line::subscribed(server, level, &topic, 1);
        let connect = Connect::new(level, &server.name()).kept();
        let received = |answer: &Packet| matches!(answer, Packet::PubRec(ack) if ack.id == 5 && ack.reason < 0x80);
        let mut line = Line::connect(server, &connect);
        line.send(&Publish::new(&topic, 2, 5, "once").bytes(level));
        assert!(received(&line.answer()));
        line.cut();
        let mut line = Line::connect(server, &connect);
        line.send(&Publish::new(&topic, 2, 5, "once").dup().bytes(level));
        assert!(received(&line.answer()));
        line.cut();
        let mut line = Line::connect(server, &connect);
        line.send(&packets::pubrel(5));
        assert_eq!(line.answer(), Packet::PubComp(ack(5)));
        line.publish(&topic, 1, "after");
        assert_eq!(reader.take_texts(2), ["once", "after"]);
        line.leave();
        discard(server, &connect);
    }
}

fn a_take_over_keeps_the_session(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let connect = Connect::new(level, &server.name()).kept();
        let mut first = Line::connect(server, &connect);
        first.subscribe(&topic, 1);
        Line::quick(server, level).publish(&topic, 1, "x");
        let message = first.message();
        let mut second = Line::accepted(server, &connect);
        assert!(second.present);
        let again = second.line.take();
        assert_eq!((again.text(), again.dup, again.id), ("x", true, message.id));
        drop(first);
        second.line.leave();
        discard(server, &connect);
    }
}

/// Waits by the server's own clock: a will with a delay.
pub fn let_seconds_pass(server: &Server, seconds: u32) {
    let topic = server.name();
    let mut watcher = Line::subscribed(server, V5, &topic, 1);
    let will = Will { props: Props::new().four(id::WILL_DELAY, seconds), ..Will::new(&topic, "time is up") };
    Line::connect(server, &Connect::new(V5, &server.name()).kept().will(will)).cut();
    assert_eq!(watcher.take().text(), "time is up");
}

fn a_session_expires(server: &Server) {
    let expiring = |seconds| {
        let connect = Connect::new(V5, &server.name());
        Connect { clean: false, ..connect }.props(Props::new().four(id::SESSION_EXPIRY, seconds))
    };
    let (short, long) = (expiring(1), expiring(600));
    Line::connect(server, &short).leave();
    Line::connect(server, &long).leave();
    let_seconds_pass(server, 3);
    assert!(!Line::accepted(server, &short).present);
    assert!(Line::accepted(server, &long).present);
    discard(server, &long);
}

fn disconnect_can_change_the_expiry(server: &Server) {
    let connect = Connect::new(V5, &server.name()).kept();
    let mut line = Line::connect(server, &connect);
    line.send(&frame(0xe0, &[0, 5, id::SESSION_EXPIRY, 0, 0, 0, 0]));
    assert_eq!(line.closed(), None);
    assert!(!Line::accepted(server, &connect).present);
    discard(server, &connect);
}

/// Section 3.14.2.2.2: a Protocol Error.
fn an_expiry_cannot_be_raised_from_0(server: &Server) {
    let mut line = Line::quick(server, V5);
    line.send(&frame(0xe0, &[0, 5, id::SESSION_EXPIRY, 0, 0, 0, 9]));
    line.refused(server, &[0x82]);
}

fn a_message_expires_while_it_waits(server: &Server) {
    let topic = server.name();
    let connect = away(server, V5, &topic, 1);
    let mut writer = Line::quick(server, V5);
    let expiring = |seconds| Props::new().four(id::MESSAGE_EXPIRY, seconds);
    writer.publish_packet(Publish::new(&topic, 1, 0, "short").props(expiring(1)));
    writer.publish_packet(Publish::new(&topic, 1, 0, "long").props(expiring(600)));
    let_seconds_pass(server, 3);
    let mut line = Line::connect(server, &connect);
    let message = line.take();
    assert_eq!(message.text(), "long");
    let left = message.props.number(id::MESSAGE_EXPIRY).unwrap();
    assert!((1..=598).contains(&left), "{left} s are left of 600 after 3");
    line.leave();
    discard(server, &connect);
}

fn what_was_sent_does_not_expire(server: &Server) {
    let topic = server.name();
    let connect = Connect::new(V5, &server.name()).kept();
    let mut reader = Line::connect(server, &connect);
    reader.subscribe(&topic, 2);
    let mut writer = Line::connect(server, &Connect::new(V5, &server.name()).kept());
    let props = Props::new().four(id::MESSAGE_EXPIRY, 1);
    writer.send(&Publish::new(&topic, 2, 9, "x").props(props.clone()).bytes(V5));
    assert!(matches!(writer.answer(), Packet::PubRec(ack) if ack.id == 9 && ack.reason < 0x80));
    let first = reader.message();
    reader.cut();
    let_seconds_pass(server, 3);
    // Nor does the exchange with the sender end with the message.
    writer.send(&Publish::new(&topic, 2, 9, "x").props(props).dup().bytes(V5));
    assert!(matches!(writer.answer(), Packet::PubRec(ack) if ack.id == 9 && ack.reason < 0x80));
    writer.send(&packets::pubrel(9));
    assert_eq!(writer.answer(), Packet::PubComp(ack(9)));
    let mut reader = Line::connect(server, &connect);
    let again = reader.take();
    assert_eq!((again.id, again.dup, again.text()), (first.id, true, "x"));
    reader.ping();
    reader.leave();
    discard(server, &connect);
}

fn what_expires_counts_down(server: &Server) {
    let topic = server.name();
    let mut reader = Line::subscribed(server, V5, &topic, 1);
    let props = Props::new().four(id::MESSAGE_EXPIRY, 600);
    Line::quick(server, V5).publish_packet(Publish::new(&topic, 1, 0, "x").props(props));
    let left = reader.take().props.number(id::MESSAGE_EXPIRY).unwrap();
    assert!((1..=600).contains(&left), "{left}");
}

fn a_share_completes_qos_2_with_the_same_client(server: &Server) {
    let topic = server.name();
    let share = format!("$share/{topic}/{topic}");
    let connect = Connect::new(V5, &server.name()).kept();
    let mut first = Line::connect(server, &connect);
    first.subscribe(&share, 2);
    Line::quick(server, V5).publish(&topic, 2, "x");
    let message = first.message();
    let mut second = Line::subscribed(server, V5, &share, 2);
    first.cut();
    second.ping();
    let mut first = Line::connect(server, &connect);
    let again = first.message();
    assert_eq!((again.text(), again.id, again.dup), ("x", message.id, true));
    first.cut();
    // Its session ends before it has answered: the message goes to nobody else.
    discard(server, &connect);
    second.ping();
}
