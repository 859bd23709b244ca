//! Retained messages (3.3.1.3, 3.8.3.1).

use super::*;

cases! {
    a_new_subscriber_gets_the_last_one: ["3.3.1-5", "3.3.1-6", "3.3.1-8"], ["3.3.1-5", "3.3.1-9"];
    an_established_subscription_gets_no_flag: ["3.3.1-9"], ["3.3.1-12"];
    an_empty_one_removes_it: ["3.3.1-10", "3.3.1-11"], ["3.3.1-6", "3.3.1-7"];
    what_is_not_retained_changes_nothing: ["3.3.1-12"], ["3.3.1-8"];
    qos_0_replaces_too: ["3.3.1-7"], ["3.3.1-5"];
    a_clean_session_keeps_them: ["3.1.2-7"], [];
    subscribing_again_sends_them_again: ["3.8.4-3"], ["3.8.4-4"];
    retain_handling_is_kept: [], ["3.3.1-9", "3.3.1-10", "3.3.1-11"];
    retain_as_published_is_kept: [], ["3.3.1-12", "3.3.1-13"];
    a_share_gets_none: [], [], not mosquitto: "2.0.11 sends them to shares";
    properties_are_retained_too: [], ["3.3.2-6", "3.3.2-17"];
}

const AS_PUBLISHED: u8 = 0b1000;

/// Removes what a test has retained: the shared server has a bound.
fn forget(server: &Server, topics: &[&str]) {
    let mut line = Line::quick(server, V4);
    topics.iter().for_each(|topic| line.publish_packet(Publish::new(topic, 1, 0, "").retain()));
}

fn retain(line: &mut Line, topic: &str, qos: u8, payload: &str) {
    line.publish_packet(Publish::new(topic, qos, 0, payload).retain());
}

/// A new subscriber of `topic` finds nothing retained.
fn assert_none(server: &Server, level: u8, topic: &str) {
    let mut reader = Line::subscribed(server, level, topic, 1);
    reader.ping();
    Line::quick(server, level).publish(topic, 1, "marker");
    let message = reader.take();
    assert_eq!((message.text(), message.retain), ("marker", false));
}

/// A new subscriber of `topic` finds exactly this.
fn assert_retained(server: &Server, level: u8, topic: &str, payload: &str, qos: u8) {
    let mut reader = Line::subscribed(server, level, topic, 2);
    let message = reader.take();
    assert_eq!((message.text(), message.retain, message.dup, message.qos), (payload, true, false, qos));
    reader.ping();
}

fn a_new_subscriber_gets_the_last_one(server: &Server) {
    for level in BOTH {
        let root = server.name();
        let topics = ["a", "b", "c/d"].map(|topic| format!("{root}/{topic}"));
        let mut writer = Line::quick(server, level);
        for (topic, qos) in topics.iter().zip([1, 2, 1]) {
            retain(&mut writer, topic, qos, "old");
            retain(&mut writer, topic, qos, topic);
        }
        let mut reader = Line::subscribed(server, level, &format!("{root}/#"), 2);
        let mut got: Vec<(String, u8)> = (0..3)
            .map(|_| {
                let message = reader.take();
                assert!(message.retain);
                (message.text().to_owned(), message.qos)
            })
            .collect();
        got.sort();
        let expected: Vec<(String, u8)> = topics.iter().cloned().zip([1, 2, 1]).collect();
        assert_eq!(got, expected);
        reader.ping();
        assert_retained(server, level, &topics[1], &topics[1], 2);
        forget(server, &topics.each_ref().map(String::as_str));
    }
}

fn an_established_subscription_gets_no_flag(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut reader = Line::subscribed(server, level, &topic, 1);
        retain(&mut Line::quick(server, level), &topic, 1, "x");
        assert!(!reader.take().retain);
        forget(server, &[&topic]);
    }
}

fn an_empty_one_removes_it(server: &Server) {
    for level in BOTH {
        for qos in [0, 1, 2] {
            let topic = server.name();
            let mut reader = Line::subscribed(server, level, &topic, 1);
            let mut writer = Line::quick(server, level);
            retain(&mut writer, &topic, 1, "x");
            retain(&mut writer, &topic, qos, "");
            // It is a message like any other to those who are there.
            assert_eq!(reader.take_texts(2), ["x", ""]);
            writer.ping();
            assert_none(server, level, &topic);
        }
    }
}

fn what_is_not_retained_changes_nothing(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut writer = Line::quick(server, level);
        writer.publish(&topic, 1, "not kept");
        assert_none(server, level, &topic);
        retain(&mut writer, &topic, 1, "kept");
        writer.publish(&topic, 1, "not kept");
        writer.publish(&topic, 1, "");
        assert_retained(server, level, &topic, "kept", 1);
        forget(server, &[&topic]);
    }
}

fn qos_0_replaces_too(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        let mut writer = Line::quick(server, level);
        retain(&mut writer, &topic, 1, "old");
        retain(&mut writer, &topic, 0, "new");
        writer.ping();
        assert_retained(server, level, &topic, "new", 0);
        forget(server, &[&topic]);
    }
}

fn a_clean_session_keeps_them(server: &Server) {
    for level in BOTH {
        let (topic, client) = (server.name(), Connect::new(level, &server.name()));
        let mut writer = Line::connect(server, &client);
        retain(&mut writer, &topic, 1, "kept");
        writer.leave();
        Line::connect(server, &client).leave();
        assert_retained(server, level, &topic, "kept", 1);
        forget(server, &[&topic]);
    }
}

fn subscribing_again_sends_them_again(server: &Server) {
    for level in BOTH {
        let topic = server.name();
        retain(&mut Line::quick(server, level), &topic, 1, "kept");
        let mut reader = Line::subscribed(server, level, &topic, 1);
        assert_eq!(reader.take().text(), "kept");
        reader.subscribe(&topic, 1);
        let again = reader.take();
        assert_eq!((again.text(), again.retain), ("kept", true));
        reader.ping();
        forget(server, &[&topic]);
    }
}

fn retain_handling_is_kept(server: &Server) {
    let topic = server.name();
    retain(&mut Line::quick(server, V5), &topic, 1, "kept");
    let mut reader = Line::quick(server, V5);
    // 2: never.
    reader.subscribe(&topic, 0x21);
    reader.ping();
    // 1: only to a new subscription.
    reader.subscribe(&topic, 0x11);
    reader.ping();
    reader.unsubscribe(&topic);
    reader.subscribe(&topic, 0x11);
    assert_eq!(reader.take().text(), "kept");
    // 0: always.
    reader.subscribe(&topic, 0x01);
    assert_eq!(reader.take().text(), "kept");
    reader.ping();
    forget(server, &[&topic]);
}

fn retain_as_published_is_kept(server: &Server) {
    let topic = server.name();
    let mut reader = Line::quick(server, V5);
    reader.subscribe(&topic, AS_PUBLISHED | 1);
    let mut writer = Line::quick(server, V5);
    retain(&mut writer, &topic, 1, "flagged");
    writer.publish(&topic, 1, "not");
    assert_eq!([reader.take().retain, reader.take().retain], [true, false]);
    if server.is_ours() {
        // Mosquitto 2.0.11 keeps the old options of a subscription that is replaced.
        reader.subscribe(&topic, 0x21);
        retain(&mut writer, &topic, 1, "flag taken away");
        assert!(!reader.take().retain);
    }
    forget(server, &[&topic]);
}

fn a_share_gets_none(server: &Server) {
    let topic = server.name();
    let mut writer = Line::quick(server, V5);
    retain(&mut writer, &topic, 1, "kept");
    let mut reader = Line::subscribed(server, V5, &format!("$share/g/{topic}"), 1);
    reader.ping();
    writer.publish(&topic, 1, "live");
    assert_eq!(reader.take().text(), "live");
    forget(server, &[&topic]);
}

fn properties_are_retained_too(server: &Server) {
    let topic = server.name();
    let props = Props::new().pair("a", "1").text(id::CONTENT_TYPE, "text/plain").four(id::MESSAGE_EXPIRY, 1000);
    Line::quick(server, V5).publish_packet(Publish::new(&topic, 1, 0, "kept").props(props).retain());
    let message = Line::subscribed(server, V5, &topic, 1).take();
    assert_eq!(message.props.pairs(), [("a".to_owned(), "1".to_owned())]);
    assert_eq!(message.props.bytes(id::CONTENT_TYPE), Some(&b"text/plain"[..]));
    let left = message.props.number(id::MESSAGE_EXPIRY).unwrap();
    assert!((1..=1000).contains(&left), "{left}");
    forget(server, &[&topic]);
}
