//! What version 5 carries along with a message (3.3.2.3), and topic aliases.

use super::*;

cases! {
    all_that_belongs_to_a_message_arrives_unchanged: [], ["3.3.2-4", "3.3.2-13", "3.3.2-15", "3.3.2-16", "3.3.2-17", "3.3.2-18", "3.3.2-19", "3.3.2-20", "1.5.7-1"];
    version_4_subscribers_get_no_properties: [], [];
    a_response_topic_has_no_wildcards: [], ["3.3.2-14"], not mosquitto: "2.0.11 takes some of them";
    properties_that_do_not_belong_there_are_refused: [], ["2.2.2-1"];
    payloads_that_are_said_to_be_text_are_checked: [], [], not mosquitto: "2.0.11 does not look";
    an_alias_stands_for_its_topic: [], ["3.3.2-12"];
    aliases_end_with_their_connection: [], ["3.3.2-7"];
    wrong_aliases_are_refused: [], ["3.2.2-17", "3.3.2-8", "3.3.2-9"];
    no_alias_is_sent_that_was_not_allowed: [], ["3.1.2-26", "3.1.2-27", "3.3.2-11"];
    no_reasons_in_words_if_not_wanted: [], ["3.1.2-29"];
    an_answer_finds_its_question: [], ["3.3.2-15", "3.3.2-16"];
}

fn all_that_belongs_to_a_message_arrives_unchanged(server: &Server) {
    let topic = server.name();
    let mut reader = Line::subscribed(server, V5, &topic, 2);
    let mut writer = Line::quick(server, V5);
    for qos in [0, 1, 2] {
        let props = Props::new()
            .pair("b", "1")
            .text(id::CONTENT_TYPE, "application/x-é")
            .pair("a", "")
            .byte(id::PAYLOAD_FORMAT, 1)
            .text(id::CORRELATION_DATA, [0, 255, 1])
            .pair("b", "1")
            .text(id::RESPONSE_TOPIC, "answers/here")
            .pair("", "no name");
        writer.publish_packet(Publish::new(&topic, qos, 0, "ü").props(props));
        let message = reader.take();
        let pairs = [("b", "1"), ("a", ""), ("b", "1"), ("", "no name")];
        assert_eq!(message.props.pairs(), pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(message.props.bytes(id::CONTENT_TYPE), Some("application/x-é".as_bytes()));
        assert_eq!(message.props.bytes(id::CORRELATION_DATA), Some(&[0, 255, 1][..]));
        assert_eq!(message.props.bytes(id::RESPONSE_TOPIC), Some(&b"answers/here"[..]));
        assert_eq!(message.props.number(id::PAYLOAD_FORMAT), Some(1));
        assert_eq!(message.props.0.len(), 8, "{:?}", message.props);
    }
}

fn version_4_subscribers_get_no_properties(server: &Server) {
    let topic = server.name();
    let mut old = Line::subscribed(server, V4, &topic, 1);
    let mut new = Line::subscribed(server, V5, &topic, 1);
    Line::quick(server, V5).publish_packet(Publish::new(&topic, 1, 0, "x").props(Props::new().pair("a", "b")));
    assert_eq!(old.take().payload, b"x");
    assert_eq!(new.take().props.pairs().len(), 1);
    Line::quick(server, V4).publish(&topic, 1, "y");
    assert_eq!(new.take().props.pairs().len(), 0);
}

fn refused_publish(server: &Server, props: Props, reasons: &[u8]) {
    let mut line = Line::quick(server, V5);
    line.send(&Publish::new("a", 0, 0, "x").props(props).bytes(V5));
    line.refused(server, reasons);
}

fn a_response_topic_has_no_wildcards(server: &Server) {
    for topic in ["a/#", "+", "#"] {
        refused_publish(server, Props::new().text(id::RESPONSE_TOPIC, topic), &[0x81, 0x82, 0x90]);
    }
    for wrong in [&b"\xff"[..], b"a\0"] {
        refused_publish(server, Props::new().text(id::RESPONSE_TOPIC, wrong), &[0x81, 0x82, 0x90]);
        refused_publish(server, Props::new().text(id::CONTENT_TYPE, wrong), &[0x81, 0x82]);
    }
}

fn properties_that_do_not_belong_there_are_refused(server: &Server) {
    let wrong = [
        Props::new().four(id::SESSION_EXPIRY, 1),
        Props::new().two(id::RECEIVE_MAXIMUM, 1),
        Props::new().text(id::CONTENT_TYPE, "a").text(id::CONTENT_TYPE, "a"),
        Props::new().four(id::MESSAGE_EXPIRY, 1).four(id::MESSAGE_EXPIRY, 1),
        Props::new().raw(0x00, &[]),
        Props::new().raw(0xff, &[0x7f, 0]),
        Props::new().raw(id::MESSAGE_EXPIRY, &[0, 0]),
        Props::new().raw(id::USER_PROPERTY, &[0, 1, b'a', 0, 9, b'b']),
    ];
    for props in wrong {
        refused_publish(server, props, &[0x81, 0x82]);
    }
    // The properties' own length: beyond the packet, and of five bytes.
    for tail in [&[100u8][..], &[0x80, 0x80, 0x80, 0x80, 0x01]] {
        let mut line = Line::quick(server, V5);
        line.send(&frame(0x30, &[&text("a"), tail].concat()));
        line.refused(server, &[0x81, 0x82]);
    }
}

/// Section 3.3.2.3.2 lets a receiver look; ours does, since what is no text breaks who reads it in Kafka.
fn payloads_that_are_said_to_be_text_are_checked(server: &Server) {
    let topic = server.name();
    let mut reader = Line::subscribed(server, V5, &topic, 1);
    let mut line = Line::quick(server, V5);
    let said =
        |payload: &[u8]| Publish::new(&topic, 1, 7, payload).props(Props::new().byte(id::PAYLOAD_FORMAT, 1)).bytes(V5);
    line.send(&said(b"\xff"));
    match line.answer_or_close() {
        Some(Packet::PubAck(ack)) => assert_eq!(ack.reason, 0x99),
        Some(Packet::Disconnect { reason, .. }) => assert_eq!(reason, 0x99),
        other => panic!("{other:?}"),
    }
    refused_publish(server, Props::new().byte(id::PAYLOAD_FORMAT, 2), &[0x81, 0x82]);
    let mut line = Line::quick(server, V5);
    line.send(&said("é".as_bytes()));
    line.expect_acked(7);
    assert_eq!(reader.take().text(), "é");
}

fn aliased(topic: &str, alias: u16, qos: u8, id: u16, payload: &str) -> Vec<u8> {
    Publish::new(topic, qos, id, payload).props(Props::new().two(id::TOPIC_ALIAS, alias)).bytes(V5)
}

fn an_alias_stands_for_its_topic(server: &Server) {
    let root = server.name();
    let mut reader = Line::subscribed(server, V5, &format!("{root}/#"), 2);
    let mut writer = Line::accepted(server, &Connect::new(V5, &server.name()));
    let most = writer.props.number(id::TOPIC_ALIAS_MAXIMUM).unwrap() as u16;
    let (a, b) = (format!("{root}/a"), format!("{root}/b"));
    let line = &mut writer.line;
    line.send(&aliased(&a, 1, 0, 0, "set"));
    line.send(&aliased(&b, most, 0, 0, "the highest"));
    line.send(&aliased("", 1, 1, 1, "used"));
    line.expect_acked(1);
    line.send(&aliased("", most, 1, 2, "the highest used"));
    line.expect_acked(2);
    line.send(&aliased(&b, 1, 1, 3, "set anew"));
    line.expect_acked(3);
    line.send(&aliased("", 1, 1, 4, "used anew"));
    line.expect_acked(4);
    let got: Vec<(String, String)> = (0..6)
        .map(|_| {
            let message = reader.take();
            assert_eq!(message.props.number(id::TOPIC_ALIAS), None);
            (message.topic.clone(), message.text().to_owned())
        })
        .collect();
    let expected =
        [(&a, "set"), (&b, "the highest"), (&a, "used"), (&b, "the highest used"), (&b, "set anew"), (&b, "used anew")];
    assert_eq!(got, expected.map(|(topic, payload)| (topic.clone(), payload.to_owned())));
}

fn aliases_end_with_their_connection(server: &Server) {
    let topic = server.name();
    let connect = Connect::new(V5, &server.name()).kept();
    let mut line = Line::connect(server, &connect);
    line.send(&aliased(&topic, 1, 1, 1, "x"));
    line.expect_acked(1);
    line.leave();
    let mut line = Line::connect(server, &connect);
    line.send(&aliased("", 1, 1, 2, "x"));
    line.refused(server, &[0x82]);
    Line::connect(server, &Connect { clean: true, ..connect }).leave();
}

fn wrong_aliases_are_refused(server: &Server) {
    let accepted = Line::accepted(server, &Connect::new(V5, &server.name()));
    let most = accepted.props.number(id::TOPIC_ALIAS_MAXIMUM).unwrap() as u16;
    for (topic, alias) in [("a", 0), ("a", most + 1), ("a", 65_535), ("", 3)] {
        let mut line = Line::quick(server, V5);
        line.send(&aliased(topic, alias, 0, 0, "x"));
        line.refused(server, &[0x81, 0x82, 0x94]);
    }
    // No topic and no alias.
    let mut line = Line::quick(server, V5);
    line.send(&Publish::new("", 0, 0, "x").bytes(V5));
    line.refused(server, &[0x82, 0x81, 0x90]);
}

fn no_alias_is_sent_that_was_not_allowed(server: &Server) {
    let root = server.name();
    for most in [None, Some(0), Some(2)] {
        let props = most.map_or_else(Props::new, |most| Props::new().two(id::TOPIC_ALIAS_MAXIMUM, most));
        let mut reader = Line::connect(server, &Connect::new(V5, &server.name()).props(props));
        reader.subscribe(&format!("{root}/#"), 1);
        let mut writer = Line::quick(server, V5);
        let mut names = std::collections::HashMap::new();
        for n in 0..12 {
            let topic = format!("{root}/{}", n % 4);
            writer.publish(&topic, 1, "x");
            let message = reader.take();
            let name = match message.props.number(id::TOPIC_ALIAS) {
                None => message.topic,
                Some(alias) => {
                    assert!((1..=u32::from(most.unwrap_or(0))).contains(&alias), "alias {alias} of {most:?}");
                    if !message.topic.is_empty() {
                        names.insert(alias, message.topic);
                    }
                    names[&alias].clone()
                }
            };
            assert_eq!(name, topic);
        }
    }
}

fn no_reasons_in_words_if_not_wanted(server: &Server) {
    let props = Props::new().byte(id::REQUEST_PROBLEM, 0);
    let mut line = Line::connect(server, &Connect::new(V5, &server.name()).props(props));
    let quiet = |props: &packets::Properties| props.bytes(id::REASON_STRING).is_none() && props.pairs().is_empty();
    line.send(&packets::unsubscribe(V5, 1, &["nothing"]));
    let Packet::UnsubAck { props, .. } = line.answer() else { panic!() };
    assert!(quiet(&props));
    line.send(&packets::subscribe(V5, 2, &[("$share/g/a", 0), ("b/#", 0)], &Props::new()));
    let Packet::SubAck { props, .. } = line.answer() else { panic!() };
    assert!(quiet(&props));
    line.send(&packets::pubrel(77));
    let Packet::PubComp(answer) = line.answer() else { panic!() };
    assert!(quiet(&answer.props));
    line.send(&Publish::new("a", 1, 3, "x").bytes(V5));
    let Packet::PubAck(answer) = line.answer() else { panic!() };
    assert!(quiet(&answer.props));
}

fn an_answer_finds_its_question(server: &Server) {
    let root = server.name();
    let (questions, answers) = (format!("{root}/questions"), format!("{root}/answers"));
    let mut asks = Line::subscribed(server, V5, &answers, 1);
    let mut knows = Line::subscribed(server, V5, &questions, 1);
    let props = Props::new().text(id::RESPONSE_TOPIC, &answers).text(id::CORRELATION_DATA, "7");
    asks.publish_packet(Publish::new(&questions, 1, 0, "?").props(props));
    let question = knows.take();
    let topic = std::str::from_utf8(question.props.bytes(id::RESPONSE_TOPIC).unwrap()).unwrap();
    let number = question.props.bytes(id::CORRELATION_DATA).unwrap();
    knows.publish_packet(Publish::new(topic, 1, 0, "!").props(Props::new().text(id::CORRELATION_DATA, number)));
    let answer = asks.take();
    assert_eq!((answer.text(), answer.props.bytes(id::CORRELATION_DATA)), ("!", Some(&b"7"[..])));
}
