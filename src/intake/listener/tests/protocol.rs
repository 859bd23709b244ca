//! Readings in, messages out, limits: one case after the other.

use std::time::Duration;

use super::bench::{Bench, Hub, config};
use super::client::{Got, Hello, PINGREQ, ack, puback, publish, publish_with, subscribe, subscribe_with, unsubscribe};
use crate::config::MessageIdFrom;
use crate::intake::Kind;
use crate::intake::listener::packet::Version::{self, V5, V311};

const BOTH: [Version; 2] = [V311, V5];

fn published(got: &[Got]) -> Vec<(&str, &str, u8, bool)> {
    let one = |got: &_| match got {
        Got::Publish(p) => Some((p.topic.clone(), p.payload.clone(), p.qos, p.retain)),
        _ => None,
    };
    let all: Vec<_> = got.iter().filter_map(one).collect();
    all.into_iter()
        .map(|(topic, payload, qos, retain)| {
            let topic: &str = topic.leak();
            let payload: &str = String::from_utf8(payload.to_vec()).unwrap().leak();
            (topic, payload, qos, retain)
        })
        .collect()
}

#[test]
fn no_puback_before_the_commit_and_all_in_order_of_arrival() {
    for version in BOTH {
        let mut bench = Bench::held();
        let mut device = bench.open(&Hello::new(version, "d"));
        for id in 1..=3 {
            bench.send(&mut device, &publish(version, "t", id.to_string().as_bytes(), 1, id));
        }
        assert_eq!(device.got(), []);
        bench.hub.commit_one();
        bench.run(&mut device);
        assert_eq!(device.got(), [puback(1)]);
        bench.hub.commit_all();
        bench.run(&mut device);
        assert_eq!(device.got(), [puback(2), puback(3)]);
        assert_eq!(bench.hub.payloads(), ["1", "2", "3"]);
        assert_eq!(bench.exchange.gate.bytes(), 0);
    }
}

/// Only what is answered is timed, from the moment it came.
#[test]
fn the_wait_for_each_answer_is_timed() {
    let mut bench = Bench::held();
    let mut device = bench.open(&Hello::new(V5, "d"));
    bench.send(&mut device, &publish(V5, "t", b"1", 1, 1));
    bench.send(&mut device, &publish(V5, "t", b"2", 0, 0));
    bench.pass(Duration::from_millis(10));
    bench.send(&mut device, &publish(V5, "t", b"3", 2, 2));
    bench.send(&mut device, &publish(V5, "a/".repeat(40).as_str(), b"4", 1, 3));
    bench.pass(Duration::from_millis(5));
    bench.send(&mut device, &publish_with(V5, "t", b"3", 2, 2, 8, &[]));
    bench.pass(Duration::from_millis(5));
    bench.hub.commit_all();
    bench.run(&mut device);
    let times = bench.counters.answered.lock().unwrap().clone();
    assert_eq!((times.count(), times.sum_us), (2, 20_000 + 10_000), "the third is refused");
    assert_eq!(times.count(), bench.count(|c| &c.acks));
    bench.send(&mut device, &publish(V5, "t", b"5", 1, 4));
    bench.cut(&mut device);
    bench.hub.commit_all();
    bench.run(&mut device);
    assert_eq!(bench.counters.answered.lock().unwrap().count(), 2, "nobody was there to be answered");
}

#[test]
fn what_no_route_wants_is_answered_in_its_turn() {
    let mut bench = Bench::held();
    let mut device = bench.open(&Hello::new(V311, "d"));
    bench.send(&mut device, &publish(V311, "t", b"1", 1, 1));
    bench.send(&mut device, &publish(V311, "drop/t", b"2", 1, 2));
    assert_eq!(device.got(), []);
    bench.hub.commit_all();
    bench.run(&mut device);
    assert_eq!(device.got(), [puback(1), puback(2)]);
}

#[test]
fn the_same_unanswered_packet_id_is_the_same_message_and_dup_alone_means_nothing() {
    let mut bench = Bench::held();
    let mut device = bench.open(&Hello::new(V311, "d"));
    bench.send(&mut device, &publish(V311, "t", b"1", 1, 7));
    bench.send(&mut device, &publish_with(V311, "t", b"1", 1, 7, 8, &[]));
    bench.hub.commit_all();
    bench.run(&mut device);
    assert_eq!(device.got(), [puback(7)]);
    // Answered: from here on it is a new publication, whatever its DUP flag says.
    bench.send(&mut device, &publish_with(V311, "t", b"1", 1, 7, 8, &[]));
    bench.hub.commit_all();
    bench.run(&mut device);
    assert_eq!(device.got(), [puback(7)]);
    assert_eq!(bench.hub.payloads(), ["1", "1"]);
    // On another connection too.
    bench.send(&mut device, &publish(V311, "t", b"2", 1, 8));
    bench.cut(&mut device);
    let mut device = bench.open(&Hello::new(V311, "d"));
    bench.send(&mut device, &publish_with(V311, "t", b"2", 1, 8, 8, &[]));
    bench.hub.commit_all();
    bench.run(&mut device);
    assert_eq!(bench.hub.payloads(), ["1", "1", "2", "2"]);
    assert_eq!(bench.count(|c| &c.qos1_repeated), 1);
}

#[test]
fn an_ack_of_an_old_connection_is_never_sent_on_a_new_one() {
    let mut bench = Bench::held();
    let mut old = bench.open(&Hello::new(V311, "d"));
    bench.send(&mut old, &publish(V311, "t", b"1", 1, 1));
    bench.cut(&mut old);
    let mut new = bench.open(&Hello::new(V311, "d"));
    bench.hub.commit_all();
    bench.run(&mut old);
    bench.run(&mut new);
    assert_eq!(new.got(), []);
    assert!(old.machine.is_settled());
    assert_eq!(bench.exchange.gate.bytes(), 0);
}

#[test]
fn a_3_1_1_device_beyond_its_window_waits_and_still_gets_its_pings() {
    let mut config = config();
    config.limits.receive_maximum = 4;
    let mut bench = Bench::with(config, std::sync::Arc::default());
    let mut device = bench.open(&Hello::new(V311, "d"));
    for id in 1..=6 {
        bench.send(&mut device, &publish(V311, "t", b"x", 1, id));
    }
    bench.send(&mut device, &PINGREQ);
    bench.send(&mut device, &publish(V311, "t", b"x", 1, 7));
    bench.send(&mut device, &PINGREQ);
    assert_eq!(bench.hub.waiting(), 4);
    assert!(bench.hub.urged() > 0, "nobody else will share the commit");
    assert_eq!(device.got(), [Got::PingResp, Got::PingResp]);
    for _ in 0..3 {
        bench.hub.commit_all();
        bench.run(&mut device);
    }
    assert_eq!(device.got(), (1..=7).map(puback).collect::<Vec<_>>(), "and no ping is answered twice");
    assert_eq!(bench.count(|c| &c.gate_closed), 1);
}

#[test]
fn a_v5_device_beyond_its_receive_maximum_is_disconnected() {
    let mut config = config();
    config.limits.receive_maximum = 2;
    let mut bench = Bench::with(config, std::sync::Arc::default());
    let mut device = bench.open(&Hello::new(V5, "d"));
    for id in 1..=3 {
        bench.send(&mut device, &publish(V5, "t", b"x", 1, id));
    }
    assert_eq!(device.got(), [Got::Disconnect(0x93)]);
    assert_eq!(bench.count(|c| &c.receive_maximum_exceeded), 1);
}

#[test]
fn a_full_gate_rests_the_socket_and_its_keep_alive() {
    let mut bench = Bench::held();
    let mut hello = Hello::new(V311, "d");
    hello.keep_alive = 10;
    let mut device = bench.open(&hello);
    let payload = vec![b'x'; 3000];
    for id in 1..=200 {
        bench.send(&mut device, &publish(V311, "t", &payload, 1, id));
    }
    assert_eq!(device.machine.room(&bench.exchange), 0, "it rests");
    assert!(bench.exchange.gate.bytes() <= (1 << 20) / 4 + 4000);
    assert!(bench.exchange.input_bytes < 128 * 1024);
    bench.pass(Duration::from_secs(100));
    bench.run(&mut device);
    assert!(!device.closed, "nobody can be heard while the socket rests");
    assert_eq!(bench.count(|c| &c.rested), 1);
    bench.hub.set_prompt(true);
    for _ in 0..20 {
        bench.run(&mut device);
    }
    assert_eq!(bench.hub.stored().len(), 200);
    bench.pass(Duration::from_secs(16));
    bench.run(&mut device);
    assert!(device.closed, "then it counts again");
    assert_eq!(bench.count(|c| &c.keep_alive_timeouts), 1);
}

#[test]
fn a_greedy_device_leaves_room_for_the_others() {
    let mut bench = Bench::held();
    let mut greedy: Vec<_> = (0..8).map(|n| bench.open(&Hello::new(V311, &format!("greedy{n}")))).collect();
    let payload = vec![b'x'; 3500];
    for device in &mut greedy {
        for id in 1..=120 {
            bench.send(device, &publish(V311, "t", &payload, 1, id));
        }
    }
    let mut modest = bench.open(&Hello::new(V311, "modest"));
    let before = bench.hub.waiting();
    bench.send(&mut modest, &publish(V311, "t", b"mine", 1, 1));
    assert_eq!(bench.hub.waiting(), before + 1);
    bench.hub.commit_all();
    bench.run(&mut modest);
    assert_eq!(modest.got(), [puback(1)]);
}

#[test]
fn qos_0_is_dropped_and_counted_rather_than_block() {
    let mut bench = Bench::held();
    let mut device = bench.open(&Hello::new(V311, "d"));
    let payload = vec![b'x'; 3000];
    for _ in 0..200 {
        bench.send(&mut device, &publish(V311, "t", &payload, 0, 0));
    }
    bench.send(&mut device, &PINGREQ);
    assert_eq!(device.got(), [Got::PingResp]);
    let dropped = bench.count(|c| &c.qos0_dropped);
    assert!(dropped > 0);
    bench.hub.commit_all();
    bench.run(&mut device);
    assert_eq!(bench.hub.stored().len() as u64 + dropped, 200);
}

#[test]
fn a_fast_client_is_read_from_more_slowly() {
    let mut config = config();
    config.limits.message_rate = 100;
    let mut bench = Bench::with(config, Hub::prompt());
    let mut device = bench.open(&Hello::new(V311, "d"));
    for id in 1..=50 {
        bench.send(&mut device, &publish(V311, "t", b"x", 1, id));
    }
    let at_once = bench.hub.stored().len();
    assert!((5..=15).contains(&at_once), "a tenth of a second's worth: {at_once}");
    assert!(device.machine.due().is_some());
    bench.pass(Duration::from_secs(1));
    bench.run(&mut device);
    assert_eq!(bench.count(|c| &c.slowed), 1);
    bench.pass(Duration::from_secs(1));
    bench.run(&mut device);
    bench.pass(Duration::from_secs(1));
    bench.run(&mut device);
    bench.pass(Duration::from_secs(2));
    bench.run(&mut device);
    assert!(bench.hub.stored().len() >= 40, "{}", bench.hub.stored().len());
}

#[test]
fn a_window_of_one_urges_the_commit_when_the_device_waits_for_it() {
    let mut bench = Bench::held();
    let mut device = bench.open(&Hello::new(V311, "d"));
    bench.pass(Duration::from_secs(5));
    bench.send(&mut device, &publish(V311, "t", b"x", 1, 1));
    assert_eq!(bench.hub.urged(), 0, "a device that sends now and then");
    bench.hub.commit_all();
    bench.run(&mut device);
    bench.pass(Duration::from_millis(1));
    bench.send(&mut device, &publish(V311, "t", b"x", 1, 2));
    assert_eq!(bench.hub.urged(), 1, "one that goes on as soon as it may");
}

#[test]
fn subscribers_get_the_smaller_qos_and_their_options() {
    for version in BOTH {
        let mut bench = Bench::new();
        let mut reader = bench.open(&Hello::new(version, "r"));
        bench.send(&mut reader, &subscribe(version, 1, &[("a/#", 1), ("b", 0), ("#/x", 0), ("$share/g/c", 2)]));
        let refused = if version.is_v5() { 0x8f } else { 0x80 };
        assert_eq!(reader.got(), [Got::SubAck { id: 1, codes: vec![1, 0, refused, 2] }]);
        let mut device = bench.open(&Hello::new(version, "d"));
        for (topic, qos) in [("a/1", 0), ("a/2", 2), ("b", 1), ("c", 1), ("d", 1)] {
            bench.send(&mut device, &publish(version, topic, b"v", qos, 9));
            bench.send(&mut device, &ack(6, 9));
        }
        bench.run(&mut reader);
        let got = reader.got();
        let expected = [("a/1", "v", 0, false), ("a/2", "v", 1, false), ("b", "v", 0, false), ("c", "v", 1, false)];
        assert_eq!(published(&got), expected);
        bench.send(&mut reader, &unsubscribe(version, 2, &["a/#", "nothing"]));
        let codes = if version.is_v5() { vec![0, 0x11] } else { vec![] };
        assert_eq!(reader.got(), [Got::UnsubAck { id: 2, codes }]);
        bench.send(&mut device, &publish(version, "a/1", b"v", 0, 0));
        bench.run(&mut reader);
        assert_eq!(reader.got(), []);
    }
}

#[test]
fn v5_properties_reach_the_subscriber_in_order_with_identifiers_and_what_is_left_of_the_time() {
    let mut bench = Bench::new();
    let mut reader = bench.open(&Hello::new(V5, "r"));
    bench.send(&mut reader, &subscribe_with(V5, 1, &[("#", 0)], &[11, 0x80, 0x01]));
    let mut device = bench.open(&Hello::new(V5, "d"));
    let own: &[u8] =
        b"\x01\x01\x02\0\0\0\x3c\x03\0\x01c\x08\0\x01r\x09\0\x02\0\xff\x26\0\x01b\0\x011\x26\0\x01a\0\x012";
    bench.send(&mut device, &publish_with(V5, "t", b"v", 0, 0, 0, own));
    bench.pass(Duration::from_secs(20));
    bench.run(&mut reader);
    let got = reader.got();
    let Some(Got::Publish(received)) = got.last() else { panic!("{got:?}") };
    let expected: &[u8] =
        b"\x01\x01\x02\0\0\0\x28\x03\0\x01c\x08\0\x01r\x09\0\x02\0\xff\x26\0\x01b\0\x011\x26\0\x01a\0\x012\x0b\x80\x01";
    assert_eq!(received.properties, expected);
    // One whose time has run out is not sent at all.
    bench.send(&mut device, &publish_with(V5, "t", b"v", 0, 0, 0, &[2, 0, 0, 0, 5]));
    bench.pass(Duration::from_secs(5));
    bench.run(&mut reader);
    assert_eq!(reader.got(), []);
}

#[test]
fn aliases_stand_for_topics_and_bad_ones_end_the_connection() {
    let mut bench = Bench::new();
    let mut device = bench.open(&Hello::new(V5, "d"));
    bench.send(&mut device, &publish_with(V5, "long/topic", b"1", 1, 1, 0, &[35, 0, 5]));
    bench.send(&mut device, &publish_with(V5, "", b"2", 1, 2, 0, &[35, 0, 5]));
    bench.send(&mut device, &publish_with(V5, "other", b"3", 1, 3, 0, &[35, 0, 5]));
    bench.send(&mut device, &publish_with(V5, "", b"4", 1, 4, 0, &[35, 0, 5]));
    let topics: Vec<String> = bench.hub.stored().into_iter().map(|(topic, _)| topic).collect();
    assert_eq!(topics, ["long/topic", "long/topic", "other", "other"]);
    device.got();
    for (own, code) in [([35, 0, 0], 0x94), ([35, 0, 33], 0x94), ([35, 0, 6], 0x82)] {
        let mut device = bench.open(&Hello::new(V5, "x"));
        bench.send(&mut device, &publish_with(V5, "", b"5", 1, 5, 0, &own));
        assert_eq!(device.got(), [Got::Disconnect(code)], "{own:?}");
    }
}

#[test]
fn what_may_not_be_published_is_never_acknowledged_as_safe() {
    let mut bench = Bench::new();
    let mut device = bench.open(&Hello::new(V5, "d"));
    let deep = "a/".repeat(40);
    bench.send(&mut device, &publish(V5, "$SYS/x", b"1", 1, 1));
    bench.send(&mut device, &publish(V5, &deep, b"2", 2, 2));
    bench.send(&mut device, &publish_with(V5, "t", b"\xff", 1, 3, 0, &[1, 1]));
    bench.send(&mut device, &publish(V5, "$SYS/x", b"4", 0, 0));
    let refused = |kind, id, code| Got::Ack { kind, id, code };
    assert_eq!(device.got(), [refused(4, 1, 0x87), refused(5, 2, 0x90), refused(4, 3, 0x99)]);
    let mut device = bench.open(&Hello::new(V311, "e"));
    bench.send(&mut device, &publish(V311, "$SYS/x", b"1", 0, 0));
    assert!(!device.closed);
    bench.send(&mut device, &publish(V311, "$SYS/x", b"1", 1, 1));
    assert!(device.closed && device.got().is_empty());
    assert_eq!(bench.hub.stored(), []);
    assert_eq!(bench.count(|c| &c.publish_denied), 6);
}

#[test]
fn retained_messages_are_sent_as_asked_and_survive_a_restart() {
    for version in BOTH {
        let mut bench = Bench::new();
        let mut device = bench.open(&Hello::new(version, "d"));
        bench.send(&mut device, &publish_with(version, "a", b"1", 1, 1, 1, &[]));
        bench.send(&mut device, &publish_with(version, "b", b"2", 0, 0, 1, &[]));
        bench.send(&mut device, &publish_with(version, "a", b"3", 1, 2, 1, &[]));
        bench.send(&mut device, &publish_with(version, "b", b"", 0, 0, 1, &[]));
        assert_eq!(bench.hub.rows(Kind::Retained), 1);
        let mut bench = bench.crash();
        let mut reader = bench.open(&Hello::new(version, "r"));
        bench.send(&mut reader, &subscribe(version, 1, &[("#", 1), ("$share/g/#", 1)]));
        assert_eq!(published(&reader.got()), [("a", "3", 1, true)]);
        // Again for every SUBSCRIBE, unless v5 says otherwise.
        bench.send(&mut reader, &subscribe(version, 2, &[("#", 1)]));
        assert_eq!(published(&reader.got()).len(), 1);
        if version.is_v5() {
            bench.send(&mut reader, &subscribe(version, 3, &[("#", 1 | 0x10)]));
            bench.send(&mut reader, &subscribe(version, 4, &[("+", 1 | 0x20)]));
            assert_eq!(published(&reader.got()).len(), 0);
            bench.send(&mut reader, &subscribe(version, 5, &[("a", 1 | 0x10)]));
            assert_eq!(published(&reader.got()).len(), 1);
        }
        let mut device = bench.open(&Hello::new(version, "d"));
        bench.send(&mut device, &publish_with(version, "a", b"4", 0, 0, 1, &[]));
        bench.run(&mut reader);
        assert_eq!(published(&reader.got())[0], ("a", "4", 0, false), "not retained for who is there already");
    }
}

#[test]
fn a_packet_larger_than_the_subscriber_takes_is_as_if_it_had_been_sent() {
    let mut bench = Bench::new();
    let mut hello = Hello::new(V5, "r");
    hello.properties = vec![39, 0, 0, 0, 30, 33, 0, 1];
    let mut reader = bench.open(&hello);
    bench.send(&mut reader, &subscribe(V5, 1, &[("t", 1)]));
    reader.got();
    let mut device = bench.open(&Hello::new(V5, "d"));
    bench.send(&mut device, &publish(V5, "t", &[b'x'; 40], 1, 1));
    bench.send(&mut device, &publish(V5, "t", b"1", 1, 2));
    bench.send(&mut device, &publish(V5, "t", b"2", 1, 3));
    bench.run(&mut reader);
    let got = reader.got();
    assert_eq!(published(&got), [("t", "1", 1, false)], "and it took no place in the window of one");
    let Got::Publish(first) = &got[0] else { panic!() };
    bench.send(&mut reader, &ack(4, first.id));
    assert_eq!(published(&reader.got()), [("t", "2", 1, false)]);
}

#[test]
fn message_ids_travel_with_their_readings() {
    let mut config = config();
    config.message_id = Some(MessageIdFrom::Property("id".to_owned()));
    let mut bench = Bench::with(config, Hub::prompt());
    let mut device = bench.open(&Hello::new(V5, "d"));
    let own = b"\x26\0\x02id\0\x017";
    bench.send(&mut device, &publish_with(V5, "t", b"1", 1, 1, 0, own));
    bench.send(&mut device, &publish_with(V5, "t", b"1", 2, 2, 0, own));
    bench.send(&mut device, &publish_with(V5, "t", b"2", 0, 0, 0, own));
    bench.send(&mut device, &publish(V5, "t", b"3", 1, 3));
    let ids = bench.hub.message_ids();
    assert_eq!(ids.len(), 3);
    assert_eq!(ids[0], ids[1], "whatever the packet id");
    assert!(ids[2].id == ids[0].id && ids[2].payload != ids[0].payload);
    assert_eq!(bench.hub.rows(Kind::Qos2), 1, "beside the row of QoS 2");
    assert_eq!(bench.count(|c| &c.message_ids), 3);
}
