//! Wills (3.1.2.5, 3.1.3.2).

use super::*;

cases! {
    it_is_published_when_the_connection_is_lost: ["3.1.2-8", "3.1.2-9", "3.1.2-16"], ["3.1.2-7", "3.1.2-8", "3.1.2-9", "3.1.2-14"];
    it_is_published_after_a_protocol_error: ["3.1.2-8"], ["3.1.2-8"];
    it_is_published_at_a_take_over: ["3.1.2-8"], ["3.1.2-8"];
    a_disconnect_discards_it: ["3.1.2-10", "3.1.2-12", "3.14.4-3"], ["3.1.2-10", "3.14.4-3"];
    a_retained_will_is_retained: ["3.1.2-17"], ["3.1.2-15"];
    it_has_the_qos_that_was_asked: ["3.1.2-9"], ["3.1.2-9"];
    it_is_published_once: ["3.1.2-10"], ["3.1.2-10"];
    an_empty_will_is_a_message: [], [];
    its_topic_has_no_wildcards: [], ["3.1.3-11"];
    disconnect_with_will_publishes_it: [], ["3.1.2-8"];
    its_properties_go_with_it: [], ["3.1.3-10"];
    it_waits_for_its_delay: [], ["3.1.2-8"];
    a_client_that_is_back_in_time_has_none: [], ["3.1.3-9"];
    the_end_of_the_session_does_not_wait_for_the_delay: [], ["3.1.2-8"], not mosquitto: "2.0.11 waits all the same";
}

fn it_is_published_when_the_connection_is_lost(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut watcher = Line::subscribed(server, level, &topic, 1);
        Line::connect(server, &Connect::new(level, &server.name()).will(Will::new(&topic, "gone"))).cut();
        let message = watcher.take();
        assert_eq!((message.text(), message.retain), ("gone", false));
        // Nor is it retained.
        let mut late = Line::subscribed(server, level, &topic, 1);
        late.ping();
    }
}

fn it_is_published_after_a_protocol_error(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut watcher = Line::subscribed(server, level, &topic, 1);
        let mut line = Line::connect(server, &Connect::new(level, &server.name()).will(Will::new(&topic, "gone")));
        line.send(&[0x00, 0x00]);
        line.refused(server, &[0x81, 0x82]);
        assert_eq!(watcher.take().text(), "gone");
    }
}

fn it_is_published_at_a_take_over(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut watcher = Line::subscribed(server, level, &topic, 1);
        let connect = Connect::new(level, &server.name());
        let _first = Line::connect(server, &connect.clone().will(Will::new(&topic, "gone")));
        let mut second = Line::connect(server, &connect);
        assert_eq!(watcher.take().text(), "gone");
        second.ping();
    }
}

fn a_disconnect_discards_it(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut watcher = Line::subscribed(server, level, &topic, 1);
        Line::connect(server, &Connect::new(level, &server.name()).will(Will::new(&topic, "no"))).leave();
        // Without one nothing is published either.
        Line::connect(server, &Connect::new(level, &server.name())).cut();
        Line::connect(server, &Connect::new(level, &server.name()).will(Will::new(&topic, "marker"))).cut();
        assert_eq!(watcher.take().text(), "marker");
        watcher.ping();
    }
}

fn a_retained_will_is_retained(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut watcher = Line::subscribed(server, level, &topic, 1);
        let will = Will { retain: true, ..Will::new(&topic, "gone") };
        Line::connect(server, &Connect::new(level, &server.name()).will(will)).cut();
        assert!(!watcher.take().retain);
        let mut late = Line::subscribed(server, level, &topic, 1);
        let message = late.take();
        assert_eq!((message.text(), message.retain), ("gone", true));
        late.publish_packet(Publish::new(&topic, 1, 0, "").retain());
    }
}

fn it_has_the_qos_that_was_asked(server: &Server) {
    for level in BOTH {
        for qos in [0, 1, 2] {
            let topic = server.name();
            let mut watcher = Line::subscribed(server, level, &topic, 2);
            let will = Will { qos, ..Will::new(&topic, "gone") };
            Line::connect(server, &Connect::new(level, &server.name()).will(will)).cut();
            assert_eq!(watcher.take().qos, qos);
        }
    }
}

fn it_is_published_once(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut watcher = Line::subscribed(server, level, &topic, 1);
        let connect = Connect::new(level, &server.name()).kept();
        Line::connect(server, &connect.clone().will(Will::new(&topic, "gone"))).cut();
        assert_eq!(watcher.take().text(), "gone");
        // The session goes on, without the will.
        Line::connect(server, &connect).cut();
        Line::connect(server, &Connect::new(level, &server.name()).will(Will::new(&topic, "marker"))).cut();
        assert_eq!(watcher.take().text(), "marker");
        Line::connect(server, &Connect { clean: true, ..connect }).leave();
    }
}

fn an_empty_will_is_a_message(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut watcher = Line::subscribed(server, level, &topic, 1);
        Line::connect(server, &Connect::new(level, &server.name()).will(Will::new(&topic, ""))).cut();
        assert_eq!(watcher.take().text(), "");
    }
}

fn its_topic_has_no_wildcards(server: &Server) {
    for level in BOTH {
        for topic in ["#", "a/+", "a/#", ""] {
            let mut line = Line::open(server, level);
            line.send(&Connect::new(level, &server.name()).will(Will::new(topic, "x")).bytes());
            line.not_accepted(if level == V5 { &[0x81, 0x82, 0x90] } else { &[] });
        }
    }
}

fn disconnect_with_will_publishes_it(server: &Server) {
    let topic = server.name();
    let mut watcher = Line::subscribed(server, V5, &topic, 1);
    let mut line = Line::connect(server, &Connect::new(V5, &server.name()).will(Will::new(&topic, "gone")));
    line.send(&frame(0xe0, &[0x04]));
    assert_eq!(line.closed(), None);
    assert_eq!(watcher.take().text(), "gone");
}

fn its_properties_go_with_it(server: &Server) {
    let topic = server.name();
    let mut watcher = Line::subscribed(server, V5, &topic, 1);
    let props = Props::new()
        .pair("b", "1")
        .pair("a", "2")
        .pair("b", "3")
        .text(id::CONTENT_TYPE, "text/plain")
        .text(id::RESPONSE_TOPIC, "answers")
        .text(id::CORRELATION_DATA, b"\0\xff")
        .byte(id::PAYLOAD_FORMAT, 1);
    let will = Will { props, ..Will::new(&topic, "gone") };
    Line::connect(server, &Connect::new(V5, &server.name()).will(will)).cut();
    let message = watcher.take();
    let pairs = [("b", "1"), ("a", "2"), ("b", "3")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(message.props.pairs(), pairs);
    assert_eq!(message.props.bytes(id::CONTENT_TYPE), Some(&b"text/plain"[..]));
    assert_eq!(message.props.bytes(id::RESPONSE_TOPIC), Some(&b"answers"[..]));
    assert_eq!(message.props.bytes(id::CORRELATION_DATA), Some(&b"\0\xff"[..]));
    assert_eq!(message.props.number(id::PAYLOAD_FORMAT), Some(1));
    assert_eq!(message.props.number(id::WILL_DELAY), None);
}

fn delayed(topic: &str, payload: &str, seconds: u32) -> Will {
    Will { props: Props::new().four(id::WILL_DELAY, seconds), ..Will::new(topic, payload) }
}

fn it_waits_for_its_delay(server: &Server) {
    let topic = server.name();
    let mut watcher = Line::subscribed(server, V5, &topic, 1);
    let kept = || Connect::new(V5, &server.name()).kept();
    Line::connect(server, &kept().will(delayed(&topic, "later", 5))).cut();
    Line::connect(server, &kept().will(delayed(&topic, "now", 0))).cut();
    assert_eq!(watcher.take_texts(2), ["now", "later"]);
}

fn a_client_that_is_back_in_time_has_none(server: &Server) {
    let topic = server.name();
    let mut watcher = Line::subscribed(server, V5, &topic, 1);
    let connect = Connect::new(V5, &server.name()).kept();
    Line::connect(server, &connect.clone().will(delayed(&topic, "never", 60))).cut();
    let mut back = Line::accepted(server, &connect);
    assert!(back.present);
    back.line.ping();
    back.line.leave();
    // The end of the session would publish a will that was still waiting.
    Line::connect(server, &Connect { clean: true, ..connect }).leave();
    Line::connect(server, &Connect::new(V5, &server.name()).will(Will::new(&topic, "marker"))).cut();
    assert_eq!(watcher.take().text(), "marker");
}

fn the_end_of_the_session_does_not_wait_for_the_delay(server: &Server) {
    let topic = server.name();
    let mut watcher = Line::subscribed(server, V5, &topic, 1);
    let connect = Connect::new(V5, &server.name()).props(Props::new().four(id::SESSION_EXPIRY, 1));
    Line::connect(server, &connect.will(delayed(&topic, "gone", 100_000))).cut();
    assert_eq!(watcher.take().text(), "gone");
    // A clean start ends the session at once.
    let connect = Connect::new(V5, &server.name()).kept();
    Line::connect(server, &connect.clone().will(delayed(&topic, "gone too", 100_000))).cut();
    Line::connect(server, &Connect { clean: true, ..connect }).leave();
    assert_eq!(watcher.take().text(), "gone too");
}
