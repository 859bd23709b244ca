//! Sessions: kept, expired, taken over; wills, presence, queues for subscribers.

use std::time::Duration;

use super::bench::{Bench, Device, Hub, config};
use super::client::{DISCONNECT, Got, Hello, ack, packet, publish, pubrel, subscribe, text};
use crate::intake::listener::packet::Version::{self, V5, V311};
use crate::intake::{Kind, SourceEvent};

const BOTH: [Version; 2] = [V311, V5];

fn payloads(got: &[Got]) -> Vec<String> {
    let one = |got: &Got| match got {
        Got::Publish(received) => Some(String::from_utf8(received.payload.to_vec()).unwrap()),
        _ => None,
    };
    got.iter().filter_map(one).collect()
}

fn is_present(device: &mut Device) -> bool {
    match device.got().first() {
        Some(Got::ConnAck { present, code: 0, .. }) => *present,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_kept_session_stands_after_a_crash_with_its_subscriptions() {
    for version in BOTH {
        let mut bench = Bench::held();
        let hello = Hello::kept(version, "r", 3600);
        let mut reader = bench.connect(&hello);
        assert_eq!(reader.got(), [], "its row comes first");
        bench.hub.commit_all();
        bench.run(&mut reader);
        assert!(!is_present(&mut reader));
        bench.send(&mut reader, &subscribe(version, 1, &[("a/+", 1)]));
        assert_eq!(reader.got(), [], "what SUBACK says is durable");
        bench.hub.commit_all();
        bench.run(&mut reader);
        assert_eq!(reader.got(), [Got::SubAck { id: 1, codes: vec![1] }]);
        let mut bench = bench.crash();
        bench.hub.set_prompt(true);
        let mut device = bench.open(&Hello::new(version, "d"));
        bench.send(&mut device, &publish(version, "a/1", b"1", 1, 1));
        let mut reader = bench.connect(&hello);
        let got = reader.got();
        assert!(matches!(got[0], Got::ConnAck { present: true, .. }));
        assert_eq!(payloads(&got), ["1"], "queued while it was away");
    }
}

#[test]
fn a_later_write_does_not_stand_for_an_earlier_one() {
    let mut bench = Bench::held();
    let mut reader = bench.connect(&Hello::kept(V311, "r", 0));
    bench.hub.commit_all();
    bench.run(&mut reader);
    reader.got();
    bench.send(&mut reader, &subscribe(V311, 1, &[("a", 1)]));
    bench.send(&mut reader, &subscribe(V311, 2, &[("b", 1)]));
    bench.hub.commit_newest();
    bench.run(&mut reader);
    assert_eq!(reader.got(), []);
    bench.hub.commit_all();
    bench.run(&mut reader);
    let suback = |id| Got::SubAck { id, codes: vec![1] };
    assert_eq!(reader.got(), [suback(1), suback(2)]);
}

#[test]
fn a_clean_session_leaves_nothing() {
    let mut bench = Bench::new();
    let mut reader = bench.open(&Hello::new(V311, "r"));
    bench.send(&mut reader, &subscribe(V311, 1, &[("#", 1)]));
    bench.cut(&mut reader);
    assert_eq!(bench.hub.rows(Kind::Session), 0);
    let mut reader = bench.connect(&Hello::kept(V311, "r", 0));
    assert!(!is_present(&mut reader));
    let mut device = bench.open(&Hello::new(V311, "d"));
    bench.send(&mut device, &publish(V311, "t", b"1", 1, 1));
    bench.run(&mut reader);
    assert_eq!(reader.got(), []);
}

#[test]
fn a_session_expires_after_its_time_and_not_while_it_is_connected() {
    let mut bench = Bench::new();
    let hello = Hello::kept(V5, "r", 60);
    let mut reader = bench.open(&hello);
    bench.pass(Duration::from_secs(1000));
    bench.cut(&mut reader);
    bench.pass(Duration::from_secs(59));
    let mut reader = bench.connect(&hello);
    assert!(is_present(&mut reader));
    bench.cut(&mut reader);
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.hub.rows(Kind::Session), 0);
    let mut reader = bench.connect(&hello);
    assert!(!is_present(&mut reader));
}

#[test]
fn a_v5_client_may_change_the_expiry_when_it_leaves() {
    let mut bench = Bench::new();
    let mut reader = bench.open(&Hello::kept(V5, "r", 60));
    bench.send(&mut reader, &packet(0xe0, &[0, 5, 17, 0, 0, 0, 0]));
    assert!(reader.closed && reader.got().is_empty());
    assert_eq!(bench.hub.rows(Kind::Session), 0);
    let mut reader = bench.open(&Hello::new(V5, "r"));
    bench.send(&mut reader, &packet(0xe0, &[0, 5, 17, 0, 0, 0, 9]));
    assert_eq!(reader.got(), [Got::Disconnect(0x82)], "from none to some");
}

#[test]
fn what_the_server_grants_is_announced() {
    let mut bench = Bench::new();
    let mut hello = Hello::kept(V5, "", 0xffff_ffff);
    hello.keep_alive = 65_535;
    let mut device = bench.connect(&hello);
    let Some(Got::ConnAck { properties, code: 0, .. }) = device.got().pop() else { panic!() };
    let week = 7 * 24 * 3600u32;
    let mut expected = [&[17][..], &week.to_be_bytes(), &[33, 0, 100, 39, 0, 4, 0, 0, 34, 0, 32, 18]].concat();
    expected.extend(text("forebay-0000000000000007"));
    expected.extend([19, 3600u16.to_be_bytes()[0], 3600u16.to_be_bytes()[1]]);
    expected.extend([37, 1, 40, 1, 41, 1, 42, 1]);
    assert_eq!(&properties[..], expected);
}

#[test]
fn a_take_over_closes_the_old_connection_and_goes_on_with_the_session() {
    for version in BOTH {
        let mut bench = Bench::new();
        let hello = Hello::kept(version, "d", 60);
        let mut old = bench.open(&hello);
        let mut new = bench.connect(&hello);
        assert!(is_present(&mut new));
        bench.run(&mut old);
        let goodbye = if version.is_v5() { vec![Got::Disconnect(0x8e)] } else { vec![] };
        assert!(old.closed);
        assert_eq!(old.got(), goodbye);
        bench.send(&mut new, &publish(version, "t", b"1", 1, 1));
        assert_eq!(new.got().len(), 1);
        let told = bench.told();
        let is_it = |event: &&SourceEvent| matches!(event, SourceEvent::DeviceDisconnected { reason, .. } if reason == "taken over");
        assert_eq!(told.iter().filter(is_it).count(), 1);
        assert_eq!(bench.count(|c| &c.takeovers), 1);
    }
}

#[test]
fn a_thousand_take_overs_leave_one_session() {
    let mut bench = Bench::new();
    let mut devices = Vec::new();
    for _ in 0..1000 {
        devices.push(bench.connect(&Hello::kept(V5, "d", 60)));
        bench.told();
    }
    for device in &mut devices {
        bench.run(device);
    }
    assert_eq!(devices.iter().filter(|device| !device.closed).count(), 1);
    assert_eq!(bench.hub.rows(Kind::Session), 1);
    bench.exchange.show();
    assert_eq!(bench.count(|c| &c.sessions), 1);
}

#[test]
fn a_will_is_published_unless_the_client_says_goodbye() {
    for version in BOTH {
        let mut bench = Bench::new();
        let mut reader = bench.open(&Hello::new(version, "r"));
        bench.send(&mut reader, &subscribe(version, 1, &[("w", 1)]));
        let hello = Hello::new(version, "d").will("w", 1, true, 0);
        let mut device = bench.open(&hello);
        bench.send(&mut device, &DISCONNECT);
        assert_eq!(bench.hub.payloads(), Vec::<String>::new());
        let mut device = bench.open(&hello);
        bench.told();
        bench.cut(&mut device);
        assert_eq!(bench.hub.payloads(), ["gone"], "to Kafka like any reading");
        bench.run(&mut reader);
        assert_eq!(payloads(&reader.got()), ["gone"]);
        assert_eq!(bench.hub.rows(Kind::Retained), 1);
        let told = bench.told();
        assert!(matches!(&told[0], SourceEvent::DeviceDisconnected { clean: false, .. }), "{told:?}");
        assert!(matches!(&told[1], SourceEvent::DeviceWill { client, topic } if client == "d" && topic == "w"));
        if version.is_v5() {
            let mut device = bench.open(&hello);
            bench.send(&mut device, &packet(0xe0, &[4]));
            assert_eq!(bench.hub.payloads().len(), 2, "DISCONNECT with will");
        }
    }
}

#[test]
fn a_delayed_will_waits_for_the_client_to_come_back() {
    let mut bench = Bench::new();
    let hello = Hello::kept(V5, "d", 60).will("w", 0, false, 30);
    let mut device = bench.open(&hello);
    bench.cut(&mut device);
    bench.pass(Duration::from_secs(29));
    let mut device = bench.connect(&hello);
    assert!(is_present(&mut device));
    bench.pass(Duration::from_secs(100));
    assert_eq!(bench.hub.payloads().len(), 0, "it was back in time");
    bench.cut(&mut device);
    bench.pass(Duration::from_secs(30));
    assert_eq!(bench.hub.payloads().len(), 1);
    // The end of the session comes first.
    let mut device = bench.open(&Hello::kept(V5, "e", 10).will("w", 0, false, 30));
    bench.cut(&mut device);
    bench.pass(Duration::from_secs(10));
    assert_eq!(bench.hub.payloads().len(), 2);
    // A clean start ends the session.
    let mut device = bench.open(&Hello::kept(V5, "f", 60).will("w", 0, false, 30));
    bench.cut(&mut device);
    let _new = bench.open(&Hello::new(V5, "f"));
    assert_eq!(bench.hub.payloads().len(), 3);
}

#[test]
fn messages_for_an_absent_subscriber_are_bounded_and_qos_0_goes_first() {
    let mut config = config();
    config.limits.queued_messages = 4;
    let mut bench = Bench::with(config, Hub::prompt());
    let hello = Hello::kept(V311, "r", 60);
    let mut reader = bench.open(&hello);
    bench.send(&mut reader, &subscribe(V311, 1, &[("#", 1)]));
    bench.cut(&mut reader);
    let mut device = bench.open(&Hello::new(V311, "d"));
    for id in 1..=6 {
        bench.send(&mut device, &publish(V311, "t", id.to_string().as_bytes(), 1, id));
        bench.send(&mut device, &publish(V311, "t", b"zero", 0, 0));
    }
    assert_eq!(bench.count(|c| &c.queue_dropped), 2);
    let mut reader = bench.connect(&hello);
    assert_eq!(payloads(&reader.got()), ["1", "2", "3", "4"]);
}

#[test]
fn unanswered_messages_are_sent_again_in_order_with_their_ids() {
    let mut bench = Bench::new();
    let hello = Hello::kept(V311, "r", 60);
    let mut reader = bench.open(&hello);
    bench.send(&mut reader, &subscribe(V311, 1, &[("#", 2)]));
    reader.got();
    let mut device = bench.open(&Hello::new(V311, "d"));
    bench.send(&mut device, &publish(V311, "t", b"a", 2, 1));
    bench.send(&mut device, &publish(V311, "t", b"b", 1, 2));
    bench.send(&mut device, &publish(V311, "t", b"c", 2, 3));
    bench.run(&mut reader);
    let ids: Vec<u16> = reader
        .got()
        .iter()
        .map(|got| match got {
            Got::Publish(received) => received.id,
            other => panic!("{other:?}"),
        })
        .collect();
    bench.send(&mut reader, &ack(5, ids[0]));
    assert_eq!(reader.got(), [pubrel(ids[0])]);
    bench.cut(&mut reader);
    let mut reader = bench.connect(&hello);
    let got = reader.got();
    assert_eq!(got[1], pubrel(ids[0]), "PUBREL, not PUBLISH");
    let resent = |got: &Got, id, payload: &str| match got {
        Got::Publish(received) => received.dup && received.id == id && received.payload == payload,
        _ => false,
    };
    assert!(resent(&got[2], ids[1], "b") && resent(&got[3], ids[2], "c"), "{got:?}");
    bench.send(&mut reader, &ack(7, ids[0]));
    bench.send(&mut reader, &ack(4, ids[1]));
    bench.send(&mut reader, &ack(5, ids[2]));
    bench.send(&mut reader, &ack(7, ids[2]));
    bench.exchange.show();
    assert_eq!(bench.count(|c| &c.queued_bytes), 0);
    bench.send(&mut reader, &ack(4, 99));
    assert_eq!(bench.count(|c| &c.violations), 1);
}

#[test]
fn above_the_number_of_sessions_the_first_to_expire_goes() {
    let mut config = config();
    config.limits.sessions = 3;
    let mut bench = Bench::with(config, Hub::prompt());
    for n in 0..5 {
        let mut device = bench.open(&Hello::kept(V5, &format!("d{n}"), 100 - n));
        bench.cut(&mut device);
    }
    bench.exchange.show();
    assert_eq!(bench.count(|c| &c.sessions), 3);
    assert_eq!((bench.hub.rows(Kind::Session), bench.count(|c| &c.sessions_evicted)), (3, 2));
}

#[test]
fn while_the_spool_hangs_sessions_do_not_pile_up() {
    let mut config = config();
    (config.limits.connections, config.limits.sessions) = (10, 10);
    let mut bench = Bench::with(config, std::sync::Arc::default());
    for n in 0..200 {
        let mut device = bench.connect(&Hello::kept(V5, &format!("d{n}"), 60));
        bench.cut(&mut device);
    }
    bench.exchange.show();
    assert!(bench.count(|c| &c.sessions) <= 20 && bench.hub.waiting() <= 40, "{}", bench.hub.waiting());
    let mut device = bench.connect(&Hello::new(V5, "x"));
    assert!(matches!(device.got().as_slice(), [Got::ConnAck { code: 0x89, .. }]));
    bench.hub.set_prompt(true);
    bench.house();
    let mut device = bench.connect(&Hello::new(V5, "x"));
    assert!(!is_present(&mut device));
    bench.exchange.show();
    assert!(bench.count(|c| &c.sessions) <= 11);
}

#[test]
fn presence_is_told() {
    let mut bench = Bench::new();
    let mut device = bench.open(&Hello::new(V5, "d"));
    bench.send(&mut device, &DISCONNECT);
    let told = bench.told();
    let expected =
        SourceEvent::DeviceDisconnected { client: "d".to_owned(), reason: "DISCONNECT".to_owned(), clean: true };
    assert!(matches!(&told[0], SourceEvent::DeviceConnected { client, version: "5", .. } if client == "d"), "{told:?}");
    assert_eq!(told[1..], [expected]);
}

#[test]
fn a_kept_3_1_1_session_needs_a_client_id() {
    let mut bench = Bench::new();
    let mut device = bench.connect(&Hello::kept(V311, "", 0));
    assert!(matches!(device.got().as_slice(), [Got::ConnAck { code: 2, .. }]));
    assert!(device.closed);
    let mut device = bench.connect(&Hello::new(V311, ""));
    assert!(!is_present(&mut device));
}
