//! CONNECT and CONNACK (3.1, 3.2).

use super::*;

cases! {
    the_first_packet_is_connect: ["3.1.0-1"], ["3.1.0-1"];
    a_second_connect_ends_the_connection: ["3.1.0-2"], ["3.1.0-2", "3.2.0-2", "4.13.1-1"];
    other_protocol_names_are_refused: ["3.1.2-1"], ["3.1.2-1"];
    other_levels_are_refused_with_a_code: ["3.1.2-2", "3.2.2-4", "3.2.2-5"], ["3.1.2-2", "3.2.2-6", "3.2.2-7"];
    the_reserved_flag_must_be_zero: ["3.1.2-3"], ["3.1.2-3"];
    will_flags_without_a_will_are_refused: ["3.1.2-11", "3.1.2-13", "3.1.2-15"], ["3.1.2-11", "3.1.2-13"];
    a_will_of_qos_3_is_refused: ["3.1.2-14"], ["3.1.2-12"];
    a_will_that_is_announced_must_be_there: ["3.1.2-9"], ["3.1.2-9"];
    user_and_password_are_there_as_announced: ["3.1.2-18", "3.1.2-19", "3.1.2-20", "3.1.2-21"], ["3.1.2-16", "3.1.2-17", "3.1.2-18", "3.1.2-19"];
    a_password_without_a_user: ["3.1.2-22"], [];
    every_short_client_id_is_taken: ["3.1.3-2", "3.1.3-3", "3.1.3-5", "3.1.4-4", "3.2.0-1", "3.2.2-1"], ["3.1.3-2", "3.1.3-3", "3.1.3-5", "3.1.4-5", "3.2.0-1", "3.2.2-1", "3.2.2-2"];
    strings_of_connect_must_be_utf8: ["3.1.3-4", "3.1.3-10", "3.1.3-11", "1.5.3-1"], ["3.1.3-4", "3.1.3-8", "3.1.3-11", "3.1.3-12", "1.5.4-1", "1.5.4-2"];
    fields_come_in_their_order_and_none_after_them: ["3.1.3-1", "3.1.4-1"], ["3.1.3-1", "3.1.4-1", "3.1.4-2"];
    an_empty_client_id_is_a_client_of_its_own: ["3.1.3-6"], ["3.1.3-6", "3.1.3-7", "3.2.2-16"];
    an_empty_client_id_cannot_keep_a_session: ["3.1.3-7", "3.1.3-8", "3.1.3-9"], [];
    a_second_client_of_the_same_id_takes_over: ["3.1.4-2"], ["3.1.4-3", "3.14.2-1", "3.14.2-2", "3.14.4-1", "3.14.4-2"];
    what_follows_a_refused_connect_is_not_read: ["3.1.4-5"], ["3.1.4-6"];
    pipelined_packets_are_answered_after_connack: [], [];
    duplicate_and_foreign_properties_are_refused: [], ["2.2.2-1"];
    values_out_of_range_are_refused: [], ["3.2.2-8"], not mosquitto: "2.0.11 takes some of them";
    an_unknown_authentication_method_is_refused: [], ["4.12.0-1"];
    nobody_is_asked_for_authentication_unasked: [], ["4.12.0-6", "3.1.2-28"];
    auth_without_a_method_is_an_error: [], ["3.15.1-1", "4.12.0-7"];
    the_server_says_its_limits: [], ["3.2.2-9"], not mosquitto: "announces only what it was told to";
}

/// Accepts whoever comes next: nothing that one client does may spoil it for another.
fn still_serves(server: &Server) {
    Line::quick(server, V4).ping();
}

fn refused_connect(server: &Server, connect: &Connect, codes: &[u8]) {
    let mut line = Line::open(server, connect.level);
    line.send(&connect.bytes());
    line.not_accepted(codes);
    still_serves(server);
}

/// CONNECT as bytes that no builder would make.
fn refused_body(server: &Server, level: u8, body: &[u8], codes: &[u8]) {
    let mut line = Line::open(server, level);
    line.send_what_it_takes(&frame(0x10, body));
    line.not_accepted(codes);
}

/// Name, level, flags, keep-alive and no properties.
fn head(level: u8, flags: u8) -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([level, flags, 0, 60]);
    if level == V5 {
        body.push(0);
    }
    body
}

fn malformed(level: u8) -> &'static [u8] {
    // Version 3.1.1 closes without a CONNACK.
    if level == V5 { &[0x80, 0x81, 0x82, 0x85] } else { &[] }
}

fn the_first_packet_is_connect(server: &Server) {
    for level in BOTH {
        let others: [&[u8]; 5] = [
            &Publish::new("a", 0, 0, "x").bytes(level),
            &packets::subscribe(level, 1, &[("a", 0)], &Props::new()),
            &packets::PINGREQ,
            &packets::DISCONNECT,
            &packets::pubrel(1),
        ];
        for other in others {
            let mut line = Line::open(server, level);
            line.send(other);
            line.not_accepted(&[]);
        }
    }
    still_serves(server);
}

fn a_second_connect_ends_the_connection(server: &Server) {
    for level in BOTH {
        let connect = Connect::new(level, &server.name());
        let mut line = Line::connect(server, &connect);
        line.send(&connect.bytes());
        line.refused(server, &[0x82]);
    }
}

fn other_protocol_names_are_refused(server: &Server) {
    for level in BOTH {
        for name in ["MQIsdp", "MQTT\0", "mqtt", "MQTTT", "", "HTTP"] {
            let connect = Connect { name: name.into(), ..Connect::new(level, &server.name()) };
            refused_connect(server, &connect, &[0x01, 0x84, 0x81]);
        }
    }
}

fn other_levels_are_refused_with_a_code(server: &Server) {
    for level in [0, 2, 6, 127, 255] {
        // A level above is answered in its own framing at best: the two bytes that both versions share are enough.
        let connect = Connect::new(level, &server.name());
        let mut line = Line::open(server, V4);
        line.send(&Connect { level, ..connect }.bytes());
        line.not_accepted(&[0x01, 0x84]);
    }
    still_serves(server);
}

fn the_reserved_flag_must_be_zero(server: &Server) {
    for level in BOTH {
        refused_connect(server, &Connect { twist: 1, ..Connect::new(level, &server.name()) }, malformed(level));
    }
}

fn will_flags_without_a_will_are_refused(server: &Server) {
    for level in BOTH {
        for twist in [0b0000_1000, 0b0001_0000, 0b0010_0000] {
            refused_connect(server, &Connect { twist, ..Connect::new(level, &server.name()) }, malformed(level));
        }
    }
}

fn a_will_of_qos_3_is_refused(server: &Server) {
    for level in BOTH {
        let will = Will { qos: 3, ..Will::new("a", "b") };
        refused_connect(server, &Connect::new(level, &server.name()).will(will), malformed(level));
    }
}

fn a_will_that_is_announced_must_be_there(server: &Server) {
    for level in BOTH {
        let body = [head(level, 0b110), text(server.name())].concat();
        refused_body(server, level, &body, malformed(level));
        // A will that was not announced.
        let body = [head(level, 0b10), text(server.name()), text("topic"), text("payload")].concat();
        refused_body(server, level, &body, malformed(level));
    }
    still_serves(server);
}

fn user_and_password_are_there_as_announced(server: &Server) {
    for level in BOTH {
        let name = || text(server.name());
        let cases = [
            (0x82, name()),
            (0xc2, [name(), text("user")].concat()),
            (0x02, [name(), text("user")].concat()),
            (0x82, [name(), text("user"), text("password")].concat()),
        ];
        for (flags, payload) in cases {
            refused_body(server, level, &[head(level, flags), payload].concat(), malformed(level));
        }
        let both = [head(level, 0xc2), name(), text("user"), text("password")].concat();
        let mut line = Line::open(server, level);
        line.send(&frame(0x10, &both));
        assert!(matches!(line.next(), Packet::ConnAck { code: 0, .. }), "anybody may come, with a name or without");
    }
}

/// Forbidden in 3.1.1, allowed in 5.
fn a_password_without_a_user(server: &Server) {
    let connect = |level| Connect { password: Some(b"p".to_vec()), ..Connect::new(level, &server.name()) };
    refused_connect(server, &connect(V4), &[]);
    Line::connect(server, &connect(V5)).ping();
}

fn every_short_client_id_is_taken(server: &Server) {
    for level in BOTH {
        for id in ["0", "abcdefghijklmnopqrstuvw", "xyzABCDEFGHIJKLMNOPQRST", "UVWXYZ0123456789"] {
            // Two servers and two versions share these names only one after the other.
            let accepted = Line::accepted(server, &Connect::new(level, id));
            assert!(!accepted.present, "a clean start has no session");
            accepted.line.leave();
        }
    }
}

fn strings_of_connect_must_be_utf8(server: &Server) {
    let wrong: [&[u8]; 5] = [b"\xff", b"a\0b", b"\xed\xa0\x80", b"\xc0\x80", b"\xf5\x80\x80\x80"];
    for level in BOTH {
        for bytes in wrong {
            let good = Connect::new(level, &server.name());
            refused_connect(server, &Connect { client_id: bytes.to_vec(), ..good.clone() }, malformed(level));
            let will = Will { topic: bytes.to_vec(), ..Will::new("a", "b") };
            refused_connect(server, &good.clone().will(will), malformed(level));
            refused_connect(server, &Connect { user: Some(bytes.to_vec()), ..good }, malformed(level));
        }
    }
}

fn fields_come_in_their_order_and_none_after_them(server: &Server) {
    for level in BOTH {
        let whole = Connect::new(level, &server.name()).will(Will::new("w", "gone")).login("u", "p").bytes();
        // Cut anywhere behind its level, with a length that is right again: never a whole CONNECT.
        for end in 10..whole.len() {
            refused_body(server, level, &whole[2..end], malformed(level));
        }
        refused_body(server, level, &[&whole[2..], b"\0"].concat(), malformed(level));
    }
    still_serves(server);
}

fn an_empty_client_id_is_a_client_of_its_own(server: &Server) {
    for level in BOTH {
        let mut first = Line::accepted(server, &Connect::new(level, ""));
        let mut second = Line::accepted(server, &Connect::new(level, ""));
        first.line.ping();
        second.line.ping();
        let assigned = |accepted: &Accepted| accepted.props.bytes(id::ASSIGNED_CLIENT_ID).map(<[u8]>::to_vec);
        match level {
            V5 => {
                let (a, b) = (assigned(&first).unwrap(), assigned(&second).unwrap());
                assert!(!a.is_empty() && a != b, "{a:?} {b:?}");
                // It is a name like any other: a client that comes with it takes over.
                let again = Connect::new(V5, std::str::from_utf8(&a).unwrap());
                Line::connect(server, &again).ping();
                first.line.refused(server, &[0x8e]);
            }
            _ => assert_eq!(assigned(&first), None),
        }
    }
}

fn an_empty_client_id_cannot_keep_a_session(server: &Server) {
    let mut line = Line::open(server, V4);
    line.send(&Connect::new(V4, "").kept().bytes());
    assert!(matches!(line.next(), Packet::ConnAck { code: 2, present: false, .. }));
    assert_eq!(line.closed(), None);
}

fn a_second_client_of_the_same_id_takes_over(server: &Server) {
    for level in BOTH {
        let connect = Connect::new(level, &server.name());
        let first = Line::connect(server, &connect);
        let mut second = Line::connect(server, &connect);
        let said = first.closed();
        if level == V4 || server.is_ours() {
            assert_eq!(said, (level == V5).then_some(0x8e));
        }
        second.ping();
    }
}

fn what_follows_a_refused_connect_is_not_read(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut watcher = Line::subscribed(server, level, &topic, 0);
        let mut line = Line::open(server, level);
        let refused = Connect { level: 9, ..Connect::new(level, &server.name()) };
        let publish = Publish::new(&topic, 0, 0, "smuggled").bytes(level);
        line.send_what_it_takes(&[refused.bytes(), publish].concat());
        line.not_accepted(&[0x01, 0x84]);
        Line::quick(server, level).publish(&topic, 0, "after");
        assert_eq!(watcher.message().text(), "after");
    }
}

/// A client need not wait for CONNACK; the server must still say it first.
fn pipelined_packets_are_answered_after_connack(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut line = Line::open(server, level);
        let subscribe = packets::subscribe(level, 1, &[(&topic, 0)], &Props::new());
        let publish = Publish::new(&topic, 0, 0, "x").bytes(level);
        line.send(
            &[Connect::new(level, &server.name()).bytes(), subscribe, publish, packets::PINGREQ.to_vec()].concat(),
        );
        assert!(matches!(line.next(), Packet::ConnAck { code: 0, .. }));
        assert!(matches!(line.answer(), Packet::SubAck { id: 1, .. }));
        assert_eq!(line.answer(), Packet::PingResp);
        assert_eq!(line.message().text(), "x");
    }
}

fn duplicate_and_foreign_properties_are_refused(server: &Server) {
    let connect = |props: Props| Connect::new(V5, &server.name()).props(props);
    let wrong = [
        Props::new().four(id::SESSION_EXPIRY, 1).four(id::SESSION_EXPIRY, 1),
        Props::new().two(id::RECEIVE_MAXIMUM, 1).two(id::RECEIVE_MAXIMUM, 1),
        Props::new().byte(id::PAYLOAD_FORMAT, 1),
        Props::new().two(id::TOPIC_ALIAS, 1),
        Props::new().text(id::ASSIGNED_CLIENT_ID, "x"),
        Props::new().raw(0x7f, &[0]),
        Props::new().raw(id::SESSION_EXPIRY, &[0]),
        Props::new().raw(id::USER_PROPERTY, &text("only a name")),
    ];
    for props in wrong {
        refused_connect(server, &connect(props), malformed(V5));
    }
    // The length of the properties is part of the packet, and itself a number that can be wrong.
    let mut body = text("MQTT");
    body.extend([V5, 2, 0, 60]);
    refused_body(server, V5, &body, malformed(V5));
    body.extend(var(1000));
    refused_body(server, V5, &body, malformed(V5));
    Line::connect(server, &connect(Props::new().pair("a", "1").pair("a", "1"))).ping();
}

fn values_out_of_range_are_refused(server: &Server) {
    let wrong = [
        Props::new().two(id::RECEIVE_MAXIMUM, 0),
        Props::new().four(id::MAXIMUM_PACKET_SIZE, 0),
        Props::new().byte(id::REQUEST_PROBLEM, 2),
        Props::new().byte(id::REQUEST_RESPONSE, 2),
        Props::new().text(id::AUTH_DATA, "data without a method"),
    ];
    for props in wrong {
        refused_connect(server, &Connect::new(V5, &server.name()).props(props), malformed(V5));
    }
}

fn an_unknown_authentication_method_is_refused(server: &Server) {
    let props = Props::new().text(id::AUTH_METHOD, "SCRAM-SHA-1").text(id::AUTH_DATA, "x");
    refused_connect(server, &Connect::new(V5, &server.name()).props(props), &[0x8c, 0x87]);
}

fn nobody_is_asked_for_authentication_unasked(server: &Server) {
    let props = Props::new().byte(id::REQUEST_RESPONSE, 0);
    let accepted = Line::accepted(server, &Connect::new(V5, &server.name()).props(props));
    assert_eq!(accepted.props.bytes(id::AUTH_METHOD), None);
    assert_eq!(accepted.props.bytes(id::RESPONSE_INFORMATION), None);
}

fn auth_without_a_method_is_an_error(server: &Server) {
    for bytes in [frame(0xf0, &[]), frame(0xf0, &[0x18, 0]), frame(0xf1, &[])] {
        let mut line = Line::quick(server, V5);
        line.send(&bytes);
        line.refused(server, &[0x81, 0x82, 0x8c]);
    }
    // Version 3.1.1 does not know the packet.
    let mut line = Line::quick(server, V4);
    line.send(&frame(0xf0, &[]));
    line.refused(server, &[]);
}

fn the_server_says_its_limits(server: &Server) {
    let accepted = Line::accepted(server, &Connect::new(V5, &server.name()));
    let said = |id| accepted.props.number(id);
    assert_eq!(said(id::RECEIVE_MAXIMUM), Some(u32::from(servers::RECEIVE_MAXIMUM)));
    assert_eq!(said(id::MAXIMUM_PACKET_SIZE), Some(servers::PACKET_MAX as u32));
    assert_eq!(said(id::TOPIC_ALIAS_MAXIMUM), Some(u32::from(servers::TOPIC_ALIASES)));
    // All that is left out is there: QoS 2, retained messages, wildcards, identifiers, shared subscriptions.
    assert_eq!(said(id::MAXIMUM_QOS), None);
    for id in [id::RETAIN_AVAILABLE, id::WILDCARDS_AVAILABLE, id::SUBSCRIPTION_IDS_AVAILABLE, id::SHARED_AVAILABLE] {
        assert_ne!(said(id), Some(0), "{id:#04x}");
    }
    // It keeps no session for longer than it is told to, and says so.
    let for_ever = Connect::new(V5, &server.name()).props(Props::new().four(id::SESSION_EXPIRY, u32::MAX));
    assert_eq!(Line::accepted(server, &for_ever).props.number(id::SESSION_EXPIRY), Some(7 * 24 * 3600));
    // The client's own 60 s hold.
    assert!(matches!(said(id::SERVER_KEEP_ALIVE), None | Some(60)));
}
