//! Topic names and filters (4.7), and names that have broken others.

use super::*;

cases! {
    filters_match_as_the_standard_has_it: ["4.7.1-2", "4.7.1-3", "3.8.3-2"], ["4.7.1-1", "4.7.1-2"];
    wildcards_do_not_match_dollar_topics: ["4.7.2-1"], ["4.7.2-1"];
    topics_have_no_wildcards: ["3.3.2-2", "4.7.1-1"], ["3.3.2-2", "4.7.0-1"];
    topics_must_be_utf8_without_nul: ["3.3.2-1", "4.7.3-2", "1.5.3-1", "1.5.3-2"], ["3.3.2-1", "4.7.3-2", "1.5.4-1", "1.5.4-2"];
    an_empty_topic_is_refused: ["4.7.3-1"], ["4.7.3-1"];
    nothing_is_normalized: ["4.7.3-4", "1.5.3-3"], ["4.7.3-4", "1.5.4-3"];
    names_that_look_like_something_else_are_names: [], [];
    a_topic_of_65535_bytes_and_one_of_many_levels: ["4.7.3-3"], ["4.7.3-3"];
}

fn filters_match_as_the_standard_has_it(server: &Server) {
    let table: [(&str, &[&str], &[&str]); 9] = [
        ("#", &["", "/", "/a", "/a/b/c"], &[]),
        ("/#", &["", "/", "/a", "/a/b"], &["x"]),
        ("/a/#", &["/a", "/a/", "/a/b", "/a/b/c"], &["", "/", "/b", "/ab"]),
        ("/+", &["/", "/a"], &["", "/a/", "/a/b"]),
        ("/+/+", &["//", "/a/b", "/a/"], &["/a", "/a/b/c"]),
        ("/+/b", &["/a/b", "//b"], &["/a", "/b", "/a/b/c", "/a/c"]),
        ("/a/+/#", &["/a/b", "/a/b/c", "/a/"], &["/a", "/b"]),
        ("/+/b/#", &["/a/b", "//b", "/a/b/c/d"], &["/a/c", "/b"]),
        ("/a", &["/a"], &["/A", "/a/", "//a", "/ab", "/"]),
    ];
    for level in BOTH {
        for (filter, matching, others) in table {
            let root = server.name();
            // The first level keeps the tests apart: `#` alone would see them all.
            let filter = if filter == "#" { format!("{root}/#") } else { format!("{root}{filter}") };
            let mut reader = Line::subscribed(server, level, &filter, 0);
            let mut writer = Line::quick(server, level);
            for end in others.iter().chain(matching) {
                writer.publish(&format!("{root}{end}"), 0, end);
            }
            for end in matching.iter().filter(|end| !end.is_empty() || filter.ends_with("/#")) {
                assert_eq!(reader.take().text(), *end, "{filter}");
            }
            writer.ping();
            reader.ping();
        }
    }
}

fn wildcards_do_not_match_dollar_topics(server: &Server) {
    for level in BOTH {
        let root = server.name();
        let topic = format!("$own{root}/{root}");
        let mut exact = Line::subscribed(server, level, &topic, 1);
        let mut below = Line::subscribed(server, level, &format!("$own{root}/+"), 1);
        let mut wild = Line::quick(server, level);
        wild.subscribe(&format!("+/{root}"), 1);
        let mut writer = Line::quick(server, level);
        writer.send(&Publish::new(&topic, 1, 900, "dollar").bytes(level));
        // Whether clients may publish there is the server's choice. In 3.1.1 it can only say yes, or close.
        match writer.answer_or_close() {
            Some(Packet::PubAck(ack)) if ack.reason < 0x80 && !server.is_ours() => {
                assert_eq!(exact.take().text(), "dollar");
                assert_eq!(below.take().text(), "dollar");
            }
            Some(Packet::PubAck(_) | Packet::Disconnect { .. }) | None => {}
            Some(other) => panic!("{other:?}"),
        }
        Line::quick(server, level).publish(&format!("x/{root}"), 1, "marker");
        assert_eq!(wild.take().text(), "marker");
    }
}

fn refused_topic(server: &Server, level: u8, topic: &[u8]) {
    for qos in [0, 1] {
        let mut line = Line::quick(server, level);
        line.send(&Publish { topic: topic.to_vec(), ..Publish::new("", qos, u16::from(qos), "x") }.bytes(level));
        line.refused(server, &[0x81, 0x82, 0x90]);
    }
}

fn topics_have_no_wildcards(server: &Server) {
    for level in BOTH {
        for topic in ["#", "+", "a/#", "a/+/b", "a+b", "a#"] {
            refused_topic(server, level, topic.as_bytes());
        }
    }
}

fn topics_must_be_utf8_without_nul(server: &Server) {
    for level in BOTH {
        for topic in [&b"\xff"[..], b"a/\xed\xa0\x80", b"a\0b", b"\xc0\xaf", b"a/\xf0\x9f\x92"] {
            refused_topic(server, level, topic);
        }
    }
}

fn an_empty_topic_is_refused(server: &Server) {
    for level in BOTH {
        refused_topic(server, level, b"");
    }
}

fn nothing_is_normalized(server: &Server) {
    for level in BOTH {
        let root = server.name();
        let mut reader = Line::subscribed(server, level, &format!("{root}/a\u{301}"), 0);
        let mut writer = Line::quick(server, level);
        // The same letter in one code point, and with a mark of no width before it.
        for (topic, payload) in
            [("\u{e1}", "composed"), ("\u{feff}a\u{301}", "marked"), ("A\u{301}", "capital"), ("a\u{301}", "it")]
        {
            writer.publish(&format!("{root}/{topic}"), 0, payload);
        }
        let message = reader.take();
        assert_eq!((message.text(), message.topic.as_str()), ("it", format!("{root}/a\u{301}").as_str()));
    }
}

fn names_that_look_like_something_else_are_names(server: &Server) {
    for level in BOTH {
        let root = server.name();
        let mut reader = Line::subscribed(server, level, &format!("{root}/#"), 1);
        let mut writer = Line::quick(server, level);
        let names = [
            "..",
            "../../etc/passwd",
            "%s%n",
            "{{x}}",
            "${jndi:ldap}",
            " ",
            "a b",
            "é",
            "\u{202e}rtl",
            "a:b|c",
            "$SYS",
            ".",
            "//",
            "a\tb",
            "a\nb",
            "\u{1f680}",
            "'; --",
        ];
        for name in names {
            let topic = format!("{root}/{name}");
            // The standard lets a receiver refuse control characters; whoever takes them must not change them.
            if name.contains(char::is_control) {
                let mut line = Line::quick(server, level);
                line.send(&Publish::new(&topic, 1, 1, name).bytes(level));
                match line.answer_or_close() {
                    Some(Packet::PubAck(ack)) if ack.reason < 0x80 => assert_eq!(reader.take().topic, topic),
                    Some(Packet::PubAck(_) | Packet::Disconnect { .. }) | None => {}
                    Some(other) => panic!("{other:?}"),
                }
            } else {
                writer.publish(&topic, 1, name);
                let message = reader.take();
                assert_eq!((message.topic.as_str(), message.text()), (topic.as_str(), name));
            }
        }
    }
}

/// Both may be refused by a limit; what is taken arrives whole, and nobody else notices.
fn a_topic_of_65535_bytes_and_one_of_many_levels(server: &Server) {
    for level in BOTH {
        let root = server.name();
        let mut reader = Line::subscribed(server, level, &format!("{root}/#"), 1);
        let long = format!("{root}/{}", "x".repeat(65_534 - root.len()));
        let deep = format!("{root}{}", "/x".repeat(1000));
        let within = format!("{root}{}", "/x".repeat(servers::TOPIC_LEVELS - 1));
        for topic in [long, deep] {
            let mut line = Line::quick(server, level);
            line.send(&Publish::new(&topic, 1, 1, "x").bytes(level));
            match line.answer_or_close() {
                Some(Packet::PubAck(ack)) if ack.reason < 0x80 => assert_eq!(reader.take().topic, topic),
                Some(Packet::PubAck(_) | Packet::Disconnect { .. }) | None => {}
                Some(other) => panic!("{other:?}"),
            }
        }
        Line::quick(server, level).publish(&within, 1, "x");
        assert_eq!(reader.take().topic, within);
    }
}
