//! What needs a listener of its own: one that is killed, one with passwords and rules, one with small limits.

use super::*;
use crate::harness::jobs;

cases! {
    own:
    sessions_and_subscriptions_outlive_a_kill: ["3.1.2-4", "4.1.0-1"], ["3.1.2-5", "3.1.2-23", "4.1.0-1"];
    retained_messages_outlive_a_kill: ["3.1.2-7", "3.3.1-5"], ["3.3.1-5"];
    inbound_qos_2_outlives_a_kill: ["4.3.3-2"], ["4.3.3-10", "4.3.3-12"];
    sessions_expire_after_a_restart_too: [], ["4.1.0-2"];
    a_slow_connect_is_cut_off: [], [];
    equal_readings_are_all_stored: [], [];
    a_stop_says_so: [], [];
    wrong_passwords_get_a_code: ["3.2.2-4", "3.2.2-5"], ["3.1.4-2", "3.2.2-6", "3.2.2-7", "4.13.2-1"];
    what_is_not_allowed_is_not_delivered: ["3.3.5-2"], ["4.3.3-9"];
    filters_that_are_not_allowed_get_a_code: ["3.8.4-5"], ["3.8.4-7"];
    more_subscriptions_than_allowed_get_a_code: ["3.8.4-5"], ["3.8.4-7"];
    queues_of_those_who_are_away_have_a_bound: [], [];
    retained_messages_have_a_bound: [], [];
    connections_have_a_bound: [], [];
    a_full_spool_keeps_the_senders_waiting: [], [];
}

fn sessions_and_subscriptions_outlive_a_kill() {
    let server = Server::forebay_with("", "");
    for level in BOTH {
        let root = server.name();
        let kept = Connect::new(level, &server.name()).kept();
        let clean = Connect::new(level, &server.name());
        let mut line = Line::connect(&server, &kept);
        line.subscribe(&format!("{root}/+/x"), 2);
        line.subscribe(&format!("{root}/gone"), 1);
        line.unsubscribe(&format!("{root}/gone"));
        let mut other = Line::connect(&server, &clean);
        other.subscribe(&root, 1);
        server.kill_and_restart();
        let mut resumed = Line::accepted(&server, &kept);
        assert!(resumed.present, "version {level}");
        assert!(!Line::accepted(&server, &Connect { clean: false, ..clean }).present);
        let mut writer = Line::quick(&server, level);
        writer.publish(&format!("{root}/gone"), 2, "not subscribed any more");
        writer.publish(&format!("{root}/a/x"), 2, "x");
        let message = resumed.line.take();
        assert_eq!((message.text(), message.qos), ("x", 2));
    }
}

fn retained_messages_outlive_a_kill() {
    let server = Server::forebay_with("", "");
    let root = server.name();
    let mut writer = Line::quick(&server, V5);
    let props = Props::new().pair("a", "1").text(id::CONTENT_TYPE, "text/plain");
    writer.publish_packet(Publish::new(&format!("{root}/a"), 1, 0, "kept").props(props).retain());
    writer.publish_packet(Publish::new(&format!("{root}/b"), 1, 0, "old").retain());
    writer.publish_packet(Publish::new(&format!("{root}/b"), 1, 0, "new").retain());
    writer.publish_packet(Publish::new(&format!("{root}/c"), 1, 0, "removed").retain());
    writer.publish_packet(Publish::new(&format!("{root}/c"), 1, 0, "").retain());
    // They are written without anybody waiting; a reading that came after them stands for the commit.
    jobs::wait_until("retained messages are in the file", || {
        writer.publish(&format!("{root}/d"), 1, "x");
        (server.gateway().metric("forebay_spool_kept_rows") >= 2.0).then_some(())
    });
    (0..3).for_each(|_| writer.publish(&format!("{root}/d"), 1, "x"));
    server.kill_and_restart();
    for level in BOTH {
        let mut reader = Line::subscribed(&server, level, &format!("{root}/#"), 1);
        let mut got = [reader.take(), reader.take()];
        reader.ping();
        got.sort_by(|a, b| a.topic.cmp(&b.topic));
        assert!(got.iter().all(|message| message.retain));
        assert_eq!([got[0].text(), got[1].text()], ["kept", "new"]);
        if level == V5 {
            assert_eq!(got[0].props.bytes(id::CONTENT_TYPE), Some(&b"text/plain"[..]));
            assert_eq!(got[0].props.pairs(), [("a".to_owned(), "1".to_owned())]);
        }
    }
}

/// PUBREC was sent: after a kill the same message is not stored again, and PUBREL is answered.
fn inbound_qos_2_outlives_a_kill() {
    let server = Server::forebay_with("", "");
    for level in BOTH {
        let topic = server.name();
        let connect = Connect::new(level, &server.name()).kept();
        let received = |answer: &Packet| matches!(answer, Packet::PubRec(ack) if ack.id == 5 && ack.reason < 0x80);
        let mut line = Line::connect(&server, &connect);
        line.send(&Publish::new(&topic, 2, 5, "once").bytes(level));
        assert!(received(&line.answer()));
        server.kill_and_restart();
        let readings = count_readings(&server, &topic);
        assert_eq!(readings, 1);
        let mut line = Line::accepted(&server, &connect);
        assert!(line.present);
        line.line.send(&Publish::new(&topic, 2, 5, "once").dup().bytes(level));
        assert!(received(&line.line.answer()));
        server.kill_and_restart();
        let mut line = Line::connect(&server, &connect);
        line.send(&packets::pubrel(5));
        assert_eq!(line.answer(), Packet::PubComp(ack(5)));
        assert_eq!(count_readings(&server, &topic), 1);
        // The identifier is new again, whatever it carries.
        line.send(&Publish::new(&topic, 2, 5, "once").bytes(level));
        assert!(received(&line.answer()));
        line.send(&packets::pubrel(5));
        assert_eq!(line.answer(), Packet::PubComp(ack(5)));
        assert_eq!(count_readings(&server, &topic), 2);
    }
}

/// Readings of a topic that lie in the spool: Kafka is away, so all that were accepted do.
fn count_readings(server: &Server, topic: &str) -> usize {
    let answer = server.gateway().command(&["spool", "export"]).text();
    answer.lines().filter(|line| line.contains(topic)).count()
}

/// The time begins anew at the start: a session never ends too early.
fn sessions_expire_after_a_restart_too() {
    let server = Server::forebay_with("", "");
    let expiring = |seconds| {
        let connect = Connect::new(V5, &server.name());
        Connect { clean: false, ..connect }.props(Props::new().four(id::SESSION_EXPIRY, seconds))
    };
    let (short, long) = (expiring(1), expiring(600));
    Line::connect(&server, &short).leave();
    Line::connect(&server, &long).leave();
    server.kill_and_restart();
    session::let_seconds_pass(&server, 3);
    assert!(!Line::accepted(&server, &short).present);
    assert!(Line::accepted(&server, &long).present);
}

fn a_slow_connect_is_cut_off() {
    let server = Server::forebay_with("", "connect_timeout = \"1s\"");
    let mut witness = Line::quick(&server, V4);
    let mut slow = Line::open(&server, V4);
    slow.send(&Connect::new(V4, &server.name()).bytes()[..5]);
    let silent = Line::open(&server, V4);
    slow.not_accepted(&[]);
    silent.not_accepted(&[]);
    witness.ping();
}

/// Without an id of its own a message is told from another by its packet identifier alone, and that only while it is open.
fn equal_readings_are_all_stored() {
    let server = Server::forebay_with("", "");
    for level in BOTH {
        let topic = server.name();
        let mut line = Line::quick(&server, level);
        for qos in [1, 2] {
            let all: Vec<u8> = (1..=100).flat_map(|id| Publish::new(&topic, qos, id, "42").bytes(level)).collect();
            for _ in 0..5 {
                line.send(&all);
                for id in 1..=100 {
                    if qos == 1 {
                        line.expect_acked(id);
                    } else {
                        assert!(matches!(line.answer(), Packet::PubRec(ack) if ack.id == id && ack.reason < 0x80));
                    }
                }
                for id in (1..=100).filter(|_| qos == 2) {
                    line.send(&packets::pubrel(id));
                    assert_eq!(line.answer(), Packet::PubComp(ack(id)));
                }
            }
        }
        assert_eq!(count_readings(&server, &topic), 1000);
    }
}

fn a_stop_says_so() {
    let server = Server::forebay_with("", "");
    let new = Line::quick(&server, V5);
    let old = Line::quick(&server, V4);
    server.gateway().stop();
    assert_eq!(new.closed(), Some(0x8b));
    assert_eq!(old.closed(), None);
}

/// `plant` with the password `word`, who may publish and subscribe below `plant/`.
fn guarded() -> (Server, tempfile::TempDir) {
    let dir = jobs::scratch("passwords");
    let file = dir.path().join("passwords");
    add_user(&file, "plant", "word");
    let lines = [
        format!("password_file = {file:?}"),
        "[[source.listener.acl]]".to_owned(),
        "user = \"plant\"".to_owned(),
        "publish = [\"plant/#\"]".to_owned(),
        "subscribe = [\"plant/#\"]".to_owned(),
    ];
    (Server::forebay_with(&lines.join("\n"), ""), dir)
}

fn add_user(file: &std::path::Path, user: &str, password: &str) {
    use std::io::Write;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_forebay"));
    let stdin = std::process::Stdio::piped();
    let mut child = command.arg("passwd").arg(file).arg(user).stdin(stdin).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{password}\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn wrong_passwords_get_a_code() {
    let (server, _files) = guarded();
    for level in BOTH {
        let connect = |user: &str, password: &str| Connect::new(level, &server.name()).login(user, password);
        Line::connect(&server, &connect("plant", "word")).leave();
        let nobody = Connect::new(level, &server.name());
        for wrong in [connect("plant", "wrong"), connect("stranger", "word"), nobody] {
            let mut line = Line::open(&server, level);
            line.send(&wrong.bytes());
            let Packet::ConnAck { code, present: false, .. } = line.next() else { panic!() };
            assert!(if level == V5 { [0x86, 0x87] } else { [4, 5] }.contains(&code), "{code:#04x}");
            assert_eq!(line.closed(), None);
        }
        Line::connect(&server, &connect("plant", "word")).ping();
    }
}

fn what_is_not_allowed_is_not_delivered() {
    let (server, _files) = guarded();
    let login = |level| Connect::new(level, &server.name()).login("plant", "word");
    let mut watcher = Line::connect(&server, &login(V5));
    watcher.subscribe("plant/#", 1);
    // Version 5 can say so, and the connection goes on.
    let mut line = Line::connect(&server, &login(V5));
    line.send(&Publish::new("elsewhere", 1, 1, "x").bytes(V5));
    assert!(matches!(line.answer(), Packet::PubAck(ack) if ack.reason == 0x87));
    for _ in 0..2 {
        // The identifier is free after each refusal.
        line.send(&Publish::new("elsewhere", 2, 2, "x").bytes(V5));
        assert!(matches!(line.answer(), Packet::PubRec(ack) if ack.reason == 0x87));
    }
    line.send(&Publish::new("plant/a", 2, 2, "allowed").bytes(V5));
    assert!(matches!(line.answer(), Packet::PubRec(ack) if ack.reason < 0x80));
    assert_eq!(watcher.take().text(), "allowed");
    // Version 3.1.1 cannot: it is answered as if all were well, or closed.
    let mut line = Line::connect(&server, &login(V4));
    line.send(&Publish::new("elsewhere", 1, 1, "x").bytes(V4));
    assert!(matches!(line.answer_or_close(), Some(Packet::PubAck(_)) | None));
    assert_eq!(count_readings(&server, "elsewhere"), 0);
}

fn filters_that_are_not_allowed_get_a_code() {
    let (server, _files) = guarded();
    for level in BOTH {
        let mut line = Line::connect(&server, &Connect::new(level, &server.name()).login("plant", "word"));
        let filters = [("plant/+", 1), ("#", 1), ("elsewhere", 0), ("$share/g/#", 0), ("$share/g/plant/a", 2)];
        line.send(&packets::subscribe(level, 1, &filters, &Props::new()));
        let Packet::SubAck { codes, .. } = line.next() else { panic!() };
        let no = if level == V5 { 0x87 } else { 0x80 };
        assert_eq!(codes, [1, no, no, no, 2]);
    }
}

fn more_subscriptions_than_allowed_get_a_code() {
    let server = Server::forebay_with("", "subscriptions = 3");
    for level in BOTH {
        let mut line = Line::quick(&server, level);
        let filters = [("a", 0), ("b", 0), ("c", 0), ("d", 0), ("a", 1)];
        line.send(&packets::subscribe(level, 1, &filters, &Props::new()));
        let Packet::SubAck { codes, .. } = line.next() else { panic!() };
        assert_eq!(codes, [0, 0, 0, if level == V5 { 0x97 } else { 0x80 }, 1]);
        line.unsubscribe("b");
        line.subscribe("d", 2);
    }
}

fn queues_of_those_who_are_away_have_a_bound() {
    let server = Server::forebay_with("", "queued_messages = 10");
    for level in BOTH {
        let topic = server.name();
        let connect = Connect::new(level, &server.name()).kept();
        let mut line = Line::connect(&server, &connect);
        line.subscribe(&topic, 1);
        line.leave();
        let mut writer = Line::quick(&server, level);
        (0..30).for_each(|n| writer.publish(&topic, 1, &n.to_string()));
        let mut line = Line::connect(&server, &connect);
        // The oldest, in order: what came when the queue was full was dropped.
        let oldest: Vec<String> = (0..10).map(|n| n.to_string()).collect();
        assert_eq!(line.take_texts(10), oldest);
        line.ping();
        line.publish(&topic, 1, "there is room again");
        assert_eq!(line.take().text(), "there is room again");
        // None of them was lost on its way to Kafka.
        assert_eq!(count_readings(&server, &topic), 31);
    }
}

fn retained_messages_have_a_bound() {
    let server = Server::forebay_with("", "retained_messages = 5");
    let root = server.name();
    let mut writer = Line::quick(&server, V5);
    (0..8).for_each(|n| writer.publish_packet(Publish::new(&format!("{root}/{n}"), 1, 0, "x").retain()));
    let mut reader = Line::subscribed(&server, V5, &format!("{root}/#"), 1);
    (0..5).for_each(|_| assert!(reader.take().retain));
    reader.ping();
    // All of them went to Kafka, whatever was retained.
    assert_eq!(count_readings(&server, &root), 8);
}

fn connections_have_a_bound() {
    let server = Server::forebay_with("", "connections = 3");
    let mut lines: Vec<Line> = (0..3).map(|_| Line::quick(&server, V5)).collect();
    let mut line = Line::open(&server, V5);
    line.send_what_it_takes(&Connect::new(V5, &server.name()).bytes());
    line.not_accepted(&[0x97, 0x89, 0x88, 0x9f]);
    lines.iter_mut().for_each(Line::ping);
    lines.pop().unwrap().leave();
    jobs::wait_until("a place is free", || {
        let mut line = Line::open(&server, V5);
        line.send_what_it_takes(&Connect::new(V5, &server.name()).bytes());
        matches!(line.answer_or_close(), Some(Packet::ConnAck { code: 0, .. })).then_some(())
    });
}

/// Kafka is away and the lane is full: no PUBACK, no loss, and PINGREQ is answered all the same.
fn a_full_spool_keeps_the_senders_waiting() {
    let server = Server::forebay_with_lane("when = \"always\"\nwhen_full = \"refuse\"\nmax_records = 1000");
    let mut line = Line::quick(&server, V4);
    let mut sent = 0u16;
    let mut acknowledged = 0u16;
    jobs::wait_until("nothing is taken any more", || {
        sent += 1;
        line.send(&Publish::new("full", 1, sent, "x".repeat(1000)).bytes(V4));
        line.send(&packets::PINGREQ);
        loop {
            match line.next() {
                Packet::PubAck(_) => acknowledged += 1,
                Packet::PingResp => break,
                other => panic!("{other:?}"),
            }
        }
        (sent - acknowledged >= 50).then_some(())
    });
    assert_eq!(count_readings(&server, "full"), usize::from(acknowledged));
    line.ping();
}
