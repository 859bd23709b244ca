//! QoS 2 of devices: each message once, whatever breaks (4.3.3).

use super::bench::{Bench, config};
use super::client::{Got, Hello, ack, puback, pubcomp, publish, publish_with, pubrec};
use crate::intake::Kind;
use crate::intake::listener::packet::Version::{self, V5, V311};

const BOTH: [Version; 2] = [V311, V5];

fn kept(version: Version) -> Hello {
    Hello::kept(version, "d", 3600)
}

/// A device whose session is written.
fn open(bench: &mut Bench, hello: &Hello) -> super::bench::Device {
    let mut device = bench.connect(hello);
    bench.hub.commit_all();
    bench.run(&mut device);
    assert!(matches!(device.got().as_slice(), [Got::ConnAck { code: 0, .. }]));
    device
}

fn again(version: Version, payload: &[u8], id: u16) -> Vec<u8> {
    publish_with(version, "t", payload, 2, id, 8, &[])
}

#[test]
fn the_handshake_follows_the_commits() {
    for version in BOTH {
        let mut bench = Bench::held();
        let mut device = open(&mut bench, &Hello::new(version, "d"));
        bench.send(&mut device, &publish(version, "t", b"1", 2, 1));
        assert_eq!(device.got(), []);
        bench.hub.commit_all();
        bench.run(&mut device);
        assert_eq!(device.got(), [pubrec(1)]);
        assert_eq!(bench.hub.rows(Kind::Qos2), 1, "in the commit of the reading");
        bench.send(&mut device, &ack(6, 1));
        assert_eq!(device.got(), []);
        bench.hub.commit_all();
        bench.run(&mut device);
        assert_eq!(device.got(), [pubcomp(1)]);
        assert_eq!(bench.hub.rows(Kind::Qos2), 0);
        assert_eq!(bench.count(|c| &c.qos2_open), 0);
        // PUBREL for nothing is answered all the same.
        bench.send(&mut device, &ack(6, 1));
        let code = if version.is_v5() { 0x92 } else { 0 };
        assert_eq!(device.got(), [Got::Ack { kind: 7, id: 1, code }]);
    }
}

#[test]
fn the_same_message_again_is_stored_once_on_the_same_connection() {
    let mut bench = Bench::held();
    let mut device = open(&mut bench, &Hello::new(V311, "d"));
    bench.send(&mut device, &publish(V311, "t", b"1", 2, 1));
    bench.send(&mut device, &again(V311, b"1", 1));
    bench.hub.commit_all();
    bench.run(&mut device);
    assert_eq!(device.got(), [pubrec(1)]);
    bench.send(&mut device, &again(V311, b"1", 1));
    assert_eq!(device.got(), [pubrec(1)], "the answer may be lost: it is given again");
    assert_eq!(bench.hub.payloads(), ["1"]);
}

#[test]
fn a_reconnect_before_the_commit_neither_loses_nor_doubles() {
    for version in BOTH {
        let mut bench = Bench::held();
        let mut old = open(&mut bench, &kept(version));
        bench.send(&mut old, &publish(version, "t", b"1", 2, 1));
        bench.cut(&mut old);
        let mut new = open_present(&mut bench, &kept(version));
        bench.send(&mut new, &again(version, b"1", 1));
        assert_eq!(new.got(), []);
        bench.hub.commit_all();
        bench.run(&mut old);
        bench.run(&mut new);
        assert_eq!(new.got(), [pubrec(1)]);
        bench.send(&mut new, &ack(6, 1));
        bench.hub.commit_all();
        bench.run(&mut new);
        assert_eq!(new.got(), [pubcomp(1)]);
        assert_eq!(bench.hub.payloads(), ["1"]);
        assert_eq!((bench.hub.rows(Kind::Qos2), bench.exchange.gate.bytes()), (0, 0));
    }
}

fn open_present(bench: &mut Bench, hello: &Hello) -> super::bench::Device {
    let mut device = bench.connect(hello);
    assert!(matches!(device.got().as_slice(), [Got::ConnAck { present: true, code: 0, .. }]));
    device
}

#[test]
fn a_reconnect_while_the_row_is_being_deleted_gets_its_pubcomp() {
    let mut bench = Bench::held();
    let mut old = open(&mut bench, &kept(V311));
    bench.send(&mut old, &publish(V311, "t", b"1", 2, 1));
    bench.hub.commit_all();
    bench.run(&mut old);
    bench.send(&mut old, &ack(6, 1));
    bench.cut(&mut old);
    let mut new = open_present(&mut bench, &kept(V311));
    bench.send(&mut new, &ack(6, 1));
    bench.send(&mut new, &ack(6, 1));
    // A new message under the id waits until the deletion is done: it would take the new row with it.
    bench.send(&mut new, &publish(V311, "t", b"1", 2, 1));
    assert_eq!((new.got(), bench.hub.waiting()), (vec![], 1));
    bench.hub.commit_all();
    bench.run(&mut old);
    bench.run(&mut new);
    assert_eq!(new.got(), [pubcomp(1)]);
    bench.hub.commit_all();
    bench.run(&mut new);
    assert_eq!(new.got(), [pubrec(1)]);
    assert_eq!(bench.hub.payloads(), ["1", "1"]);
    assert_eq!(bench.hub.rows(Kind::Qos2), 1);
}

#[test]
fn another_message_under_a_known_id_is_stored_and_counted() {
    let mut bench = Bench::new();
    let mut device = bench.open(&kept(V311));
    bench.send(&mut device, &publish(V311, "t", b"1", 2, 1));
    // It has rebooted and lost its state, and says so by no flag at all.
    bench.cut(&mut device);
    let mut device = bench.open(&kept(V311));
    bench.send(&mut device, &publish(V311, "t", b"2", 2, 1));
    assert_eq!(device.got(), [pubrec(1)]);
    bench.send(&mut device, &again(V311, b"2", 1));
    assert_eq!(device.got(), [pubrec(1)]);
    assert_eq!(bench.hub.payloads(), ["1", "2"]);
    assert_eq!(bench.count(|c| &c.qos2_reused), 1);
}

#[test]
fn a_kill_at_each_step_neither_loses_nor_doubles() {
    for version in BOTH {
        // How much of the handshake is committed before the kill.
        for commits in 0..=2 {
            let mut bench = Bench::held();
            let mut device = open(&mut bench, &kept(version));
            bench.send(&mut device, &publish(version, "t", b"1", 2, 1));
            if commits > 0 {
                bench.hub.commit_one();
                bench.run(&mut device);
                assert_eq!(device.got(), [pubrec(1)]);
                bench.send(&mut device, &ack(6, 1));
            }
            if commits > 1 {
                bench.hub.commit_one();
                bench.run(&mut device);
                assert_eq!(device.got(), [pubcomp(1)]);
            }
            let mut bench = bench.crash();
            let mut device = open_present(&mut bench, &kept(version));
            // What an honest client sends then.
            let resent = if commits == 0 { again(version, b"1", 1) } else { ack(6, 1).clone() };
            bench.send(&mut device, &resent);
            bench.hub.commit_all();
            bench.run(&mut device);
            if commits == 0 {
                assert_eq!(device.got(), [pubrec(1)]);
                bench.send(&mut device, &ack(6, 1));
                bench.hub.commit_all();
                bench.run(&mut device);
            }
            let code = if commits == 2 && version.is_v5() { 0x92 } else { 0 };
            assert_eq!(device.got(), [Got::Ack { kind: 7, id: 1, code }], "{commits}");
            assert_eq!(bench.hub.payloads(), ["1"], "{commits}");
            assert_eq!(bench.hub.rows(Kind::Qos2), 0);
            // The id is free again, for the very same reading too.
            bench.send(&mut device, &publish(version, "t", b"1", 2, 1));
            bench.hub.commit_all();
            assert_eq!(bench.hub.payloads(), ["1", "1"], "{commits}");
        }
    }
}

#[test]
fn a_pubrec_that_was_lost_with_the_gateway_is_given_again() {
    let mut bench = Bench::held();
    let mut device = open(&mut bench, &kept(V311));
    bench.send(&mut device, &publish(V311, "t", b"1", 2, 1));
    bench.hub.commit_all();
    let mut bench = bench.crash();
    let mut device = open_present(&mut bench, &kept(V311));
    bench.send(&mut device, &again(V311, b"1", 1));
    assert_eq!(device.got(), [pubrec(1)]);
    assert_eq!((bench.hub.payloads(), bench.hub.waiting()), (vec!["1".to_owned()], 0));
}

#[test]
fn power_lost_between_pubrel_and_its_commit() {
    let mut bench = Bench::held();
    let mut device = open(&mut bench, &kept(V311));
    bench.send(&mut device, &publish(V311, "t", b"1", 2, 1));
    bench.hub.commit_all();
    bench.run(&mut device);
    bench.send(&mut device, &ack(6, 1));
    let mut bench = bench.crash();
    assert_eq!(bench.hub.rows(Kind::Qos2), 1);
    let mut device = open_present(&mut bench, &kept(V311));
    bench.send(&mut device, &ack(6, 1));
    bench.hub.commit_all();
    bench.run(&mut device);
    assert_eq!(device.got(), [pubcomp(1)]);
    assert_eq!(bench.hub.rows(Kind::Qos2), 0);
}

#[test]
fn a_clean_start_forgets_durably_before_connack() {
    for version in BOTH {
        let mut bench = Bench::held();
        let mut old = open(&mut bench, &kept(version));
        bench.send(&mut old, &publish(version, "t", b"1", 2, 1));
        bench.cut(&mut old);
        let mut new = bench.connect(&Hello::new(version, "d"));
        assert_eq!((new.got(), bench.hub.waiting()), (vec![], 1), "a row that comes later would survive");
        bench.hub.commit_one();
        bench.run(&mut old);
        bench.run(&mut new);
        assert_eq!((new.got(), bench.hub.waiting()), (vec![], 1));
        bench.hub.commit_one();
        bench.run(&mut new);
        assert!(matches!(new.got().as_slice(), [Got::ConnAck { present: false, code: 0, .. }]));
        assert_eq!((bench.hub.rows(Kind::Qos2), bench.hub.rows(Kind::Session)), (0, 0));
        assert_eq!(bench.count(|c| &c.qos2_open), 0);
        bench.send(&mut new, &publish(version, "t", b"1", 2, 1));
        bench.hub.commit_all();
        bench.run(&mut new);
        assert_eq!(new.got(), [pubrec(1)]);
        assert_eq!(bench.hub.payloads(), ["1", "1"], "an equal reading of a device without its state");
    }
}

#[test]
fn what_a_clean_session_left_behind_is_gone_after_a_crash() {
    let mut bench = Bench::held();
    let mut device = open(&mut bench, &Hello::new(V311, "d"));
    bench.send(&mut device, &publish(V311, "t", b"1", 2, 1));
    bench.hub.commit_all();
    bench.run(&mut device);
    assert_eq!(bench.hub.rows(Kind::Qos2), 1);
    let mut bench = bench.crash();
    let mut device = bench.connect(&Hello::new(V311, "d"));
    assert_eq!(device.got(), [], "the deletion comes first");
    bench.hub.commit_all();
    bench.run(&mut device);
    assert!(matches!(device.got().as_slice(), [Got::ConnAck { present: false, code: 0, .. }]));
    assert_eq!(bench.hub.rows(Kind::Qos2), 0);
    bench.send(&mut device, &publish(V311, "t", b"1", 2, 1));
    bench.hub.commit_all();
    bench.run(&mut device);
    assert_eq!(device.got(), [pubrec(1)]);
    assert_eq!(bench.hub.payloads(), ["1", "1"]);
}

#[test]
fn qos_1_and_2_share_their_ids() {
    let mut bench = Bench::held();
    let mut device = open(&mut bench, &Hello::new(V311, "d"));
    bench.send(&mut device, &publish(V311, "t", b"one", 1, 1));
    bench.send(&mut device, &publish(V311, "t", b"two", 2, 1));
    assert_eq!(bench.hub.waiting(), 1, "the id is in use");
    bench.hub.commit_all();
    bench.run(&mut device);
    bench.hub.commit_all();
    bench.run(&mut device);
    assert_eq!(device.got(), [puback(1), pubrec(1)]);
    bench.send(&mut device, &publish(V311, "t", b"three", 1, 1));
    bench.hub.commit_all();
    bench.run(&mut device);
    assert_eq!(device.got(), [puback(1)]);
    assert_eq!(bench.hub.payloads(), ["one", "two", "three"]);
}

#[test]
fn a_message_that_no_route_wants_leaves_no_row() {
    let mut bench = Bench::held();
    let mut device = open(&mut bench, &Hello::new(V311, "d"));
    bench.send(&mut device, &publish(V311, "drop/t", b"1", 2, 1));
    assert_eq!(device.got(), [pubrec(1)]);
    bench.send(&mut device, &ack(6, 1));
    assert_eq!(device.got(), [pubcomp(1)]);
    assert_eq!((bench.hub.waiting(), bench.hub.rows(Kind::Qos2)), (0, 0));
}

#[test]
fn pubrel_before_pubrec_ends_the_connection() {
    let mut bench = Bench::held();
    let mut device = open(&mut bench, &Hello::new(V5, "d"));
    bench.send(&mut device, &publish(V5, "t", b"1", 2, 1));
    bench.send(&mut device, &ack(6, 1));
    assert_eq!(device.got(), [Got::Disconnect(0x82)]);
}

#[test]
fn releases_of_one_turn_share_one_write() {
    let mut config = config();
    config.limits.receive_maximum = 50;
    let mut bench = Bench::with(config, std::sync::Arc::default());
    let mut device = open(&mut bench, &Hello::new(V5, "d"));
    let all: Vec<u8> = (1..=50).flat_map(|id| publish(V5, "t", b"x", 2, id)).collect();
    bench.send(&mut device, &all);
    bench.hub.commit_all();
    bench.run(&mut device);
    assert_eq!(device.got().len(), 50);
    let all: Vec<u8> = (1..=50).flat_map(|id| ack(6, id)).collect();
    bench.send(&mut device, &all);
    assert_eq!(bench.hub.waiting(), 1);
    bench.hub.commit_all();
    bench.run(&mut device);
    assert_eq!(device.got(), (1..=50).map(pubcomp).collect::<Vec<_>>());
    // The receive maximum is free again.
    let all: Vec<u8> = (1..=50).flat_map(|id| publish(V5, "t", b"x", 2, id)).collect();
    bench.send(&mut device, &all);
    assert!(!device.closed);
}
