//! kill -9 of the gateway at each step of a QoS 2 exchange, seen from the device: every reading is stored, none twice.

use std::collections::BTreeMap;

use super::line::{Line, ack};
use super::packets::{self, Connect, Packet, Publish, V4, V5};
use super::servers::Server;

/// Readings of a device. The fault comes at about a third of them.
const COUNT: u16 = 30;

/// What a device has reached with the message under its identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    Nothing,
    Sent,
    /// PUBREC has come: from here on PUBREL, never PUBLISH.
    Received,
}

/// Publishes one message after the other, each to the end, over as many connections as it takes. Keeps its state, as a
/// good device does.
fn device(server: &Server, level: u8, qos: u8, topic: &str) {
    let connect = Connect::new(level, &server.name()).kept();
    let mut line = Line::persistent(server, &connect);
    for n in 0..COUNT {
        // Few identifiers, so that they are used again.
        let id = 1 + n % 3;
        let mut reached = Reached::Nothing;
        while !exchange(&mut line, level, &mut reached, &Publish::new(topic, qos, id, format!("reading {n}."))) {
            line = Line::persistent(server, &connect);
        }
    }
}

/// False when the connection ended before the exchange did.
fn exchange(line: &mut Line, level: u8, reached: &mut Reached, publish: &Publish) -> bool {
    if *reached != Reached::Received {
        let publish = Publish { dup: *reached == Reached::Sent, ..publish.clone() };
        *reached = Reached::Sent;
        line.send_what_it_takes(&publish.bytes(level));
        match line.answer_or_close() {
            Some(Packet::PubAck(ack)) if publish.qos == 1 && ack.id == publish.id => return true,
            Some(Packet::PubRec(ack)) if ack.id == publish.id && ack.reason < 0x80 => *reached = Reached::Received,
            None => return false,
            other => panic!("{other:?}"),
        }
    }
    line.send_what_it_takes(&packets::pubrel(publish.id));
    match line.answer_or_close() {
        // Version 5 may say that it does not know it any more: it was said before a kill.
        Some(Packet::PubComp(ack)) if ack.id == publish.id && [0, 0x92].contains(&ack.reason) => true,
        None => false,
        other => panic!("{other:?}"),
    }
}

/// How often each reading of a topic lies in the spool: Kafka is away, so all that were accepted do.
fn stored(server: &Server, topic: &str) -> BTreeMap<String, usize> {
    let export = server.gateway().command(&["spool", "export"]).text();
    let mut found = BTreeMap::new();
    for line in export.lines().filter(|line| line.contains(topic)) {
        let start = line.find("reading ").unwrap_or_else(|| panic!("no reading in {line}"));
        let reading = line[start..].split('.').next().expect("split gives at least one");
        *found.entry(reading.to_owned()).or_default() += 1;
    }
    found
}

/// Kills the gateway when it comes to `fault`, while a device publishes at `qos`: the readings and how often each is stored.
fn killed_at(fault: &str, level: u8, qos: u8) -> BTreeMap<String, usize> {
    let server = Server::forebay_with("", "");
    let topic = server.name();
    server.restart_with_fault(fault);
    std::thread::scope(|scope| {
        let publishing = scope.spawn(|| device(&server, level, qos, &topic));
        let point = fault.split(':').next().expect("split gives at least one");
        server.gateway().wait_for_fault(point);
        server.kill_and_restart();
        publishing.join().expect("the device's own failure is above");
    });
    stored(&server, &topic)
}

fn exactly_once(fault: &str) {
    for level in [V4, V5] {
        let found = killed_at(fault, level, 2);
        let expected: BTreeMap<String, usize> = (0..COUNT).map(|n| (format!("reading {n}"), 1)).collect();
        assert_eq!(found, expected, "{fault}, version {level}");
    }
}

/// Returns how many readings are stored twice.
fn at_least_once(fault: &str) -> usize {
    let mut doubled = 0;
    for level in [V4, V5] {
        let found = killed_at(fault, level, 1);
        doubled += found.values().filter(|times| **times > 1).count();
        let missing: Vec<u16> = (0..COUNT).filter(|n| !found.contains_key(&format!("reading {n}"))).collect();
        assert!(missing.is_empty(), "{fault}, version {level}: {missing:?} are lost");
        assert!(found.values().all(|times| *times <= 2), "{fault}, version {level}: {found:?}");
    }
    doubled
}

#[test]
fn qos_2_before_the_reading_reaches_the_hub() {
    exactly_once("q2-before-delivery:10");
}

#[test]
fn qos_2_before_the_commit_that_stores_it() {
    // Each message needs two commits: one that stores, one that deletes its identifier.
    exactly_once("4-before-commit:20");
}

#[test]
fn qos_2_before_the_commit_that_deletes_its_identifier() {
    exactly_once("4-before-commit:21");
}

#[test]
fn qos_2_after_a_commit() {
    exactly_once("4-after-commit:20");
}

#[test]
fn qos_2_after_the_other_commit() {
    exactly_once("4-after-commit:21");
}

#[test]
fn qos_2_before_pubrec() {
    exactly_once("q2-before-pubrec:10");
}

#[test]
fn qos_2_between_pubrel_and_the_delete() {
    exactly_once("q2-before-delete:10");
}

#[test]
fn qos_2_before_pubcomp() {
    exactly_once("q2-before-pubcomp:10");
}

#[test]
fn qos_1_before_and_after_the_commit() {
    assert_eq!(at_least_once("4-before-commit:10"), 0);
    at_least_once("4-after-commit:10");
}

#[test]
fn qos_1_before_puback() {
    // What is stored and not answered is sent again, on a new connection: the price of QoS 1. It also shows that these
    // tests would see what QoS 2 stored twice.
    assert_eq!(at_least_once("5-before-puback:10"), 2);
}

/// The device has forgotten what it sent, and begins with the same identifiers again.
#[test]
fn a_device_that_lost_its_state_loses_no_reading() {
    let server = Server::forebay_with("", "");
    for level in [V4, V5] {
        let topic = server.name();
        let connect = Connect::new(level, &server.name()).kept();
        let send = |line: &mut Line, n: u16| {
            line.send(&Publish::new(&topic, 2, 5, format!("reading {n}.")).bytes(level));
            let answer = line.answer();
            assert!(matches!(&answer, Packet::PubRec(ack) if ack.id == 5 && ack.reason < 0x80), "{answer:?}");
        };
        let mut line = Line::connect(&server, &connect);
        send(&mut line, 0);
        server.kill_and_restart();
        // Same identifier, other content: a new publication.
        let mut line = Line::connect(&server, &connect);
        send(&mut line, 1);
        line.cut();
        let mut line = Line::connect(&server, &connect);
        send(&mut line, 2);
        line.send(&packets::pubrel(5));
        assert_eq!(line.answer(), Packet::PubComp(ack(5)));
        assert_eq!(stored(&server, &topic).into_values().collect::<Vec<_>>(), [1, 1, 1], "version {level}");
    }
}

/// A clean start forgets the identifiers, and that lasts.
#[test]
fn a_clean_start_after_a_kill_begins_anew() {
    let server = Server::forebay_with("", "");
    for level in [V4, V5] {
        let topic = server.name();
        let connect = Connect::new(level, &server.name()).kept();
        let send = |line: &mut Line| {
            line.send(&Publish::new(&topic, 2, 5, "reading 0.").bytes(level));
            assert!(matches!(line.answer(), Packet::PubRec(ack) if ack.id == 5 && ack.reason < 0x80));
        };
        send(&mut Line::connect(&server, &connect));
        server.kill_and_restart();
        let clean = Line::accepted(&server, &Connect { clean: true, ..connect.clone() });
        assert!(!clean.present);
        // Before anything else could be committed.
        server.kill_and_restart();
        let mut line = Line::connect(&server, &connect);
        send(&mut line);
        assert_eq!(stored(&server, &topic), BTreeMap::from([("reading 0".to_owned(), 2)]), "version {level}");
    }
}
