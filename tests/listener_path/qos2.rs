//! QoS 2, step by step: the gateway is killed with -9 at each of the four steps of the handshake, and devices come back
//! with their state and without it. Each message is stored once; what is another message by the standard is stored too.

use super::packets::{Heard, V5, V311};
use super::plant::Plant;
use super::script::{Act, Script};
use crate::harness::readings::Reading;

const REPEATED: &str = "forebay_listener_qos2_repeated_total";
const REUSED: &str = "forebay_listener_qos2_reused_total";

/// A gateway that stops at `point`, and a device that has come in.
fn about_to_stop_at(point: &str, level: u8) -> (Plant, Script) {
    let mut plant = Plant::builder().build();
    plant.gateway.start_with_fault(point);
    let device = Script::connect(&plant, level, "press-7");
    (plant, device)
}

/// The next life; the device finds its session.
fn revived(plant: &mut Plant, device: &mut Script) {
    plant.gateway.start();
    assert!(device.connect_again(false), "the session is kept");
}

fn killed_before_pubrec(point: &str, level: u8, known: u64) {
    let reading = Reading::new(7, 1);
    let (mut plant, mut device) = about_to_stop_at(point, level);
    device.publish(Act::qos2(&reading, 1));
    plant.kill_at(point);
    revived(&mut plant, &mut device);
    device.publish_and_hear(Act::qos2(&reading, 1).again());
    device.pubrel_and_hear(1);
    assert_eq!(plant.count(REPEATED), known);
    assert_eq!(plant.close_books().stored(&reading.id), 1);
}

#[test]
fn killed_before_the_message_is_stored() {
    killed_before_pubrec("q2-before-delivery", V311, 0);
    killed_before_pubrec("q2-before-delivery", V5, 0);
}

#[test]
fn killed_after_the_commit_and_before_pubrec() {
    killed_before_pubrec("q2-before-pubrec", V311, 1);
    killed_before_pubrec("q2-before-pubrec", V5, 1);
}

/// The message is not forgotten yet: it may come again, and is not stored again, until PUBREL has its PUBCOMP.
fn killed_between_pubrel_and_the_deleting_commit(level: u8) {
    let reading = Reading::new(7, 1);
    let (mut plant, mut device) = about_to_stop_at("q2-before-delete", level);
    device.publish_and_hear(Act::qos2(&reading, 1));
    device.pubrel(1);
    plant.kill_at("q2-before-delete");
    revived(&mut plant, &mut device);
    device.publish_and_hear(Act::qos2(&reading, 1).again());
    device.pubrel_and_hear(1);
    assert_eq!(plant.count(REPEATED), 1);
    // From PUBCOMP on the id is free, and an equal message under it is another one.
    device.publish_and_hear(Act::qos2(&reading, 1).anew());
    device.pubrel_and_hear(1);
    assert_eq!(plant.close_books().stored(&reading.id), 2);
}

#[test]
fn the_power_is_lost_between_pubrel_and_the_deleting_commit() {
    killed_between_pubrel_and_the_deleting_commit(V311);
    killed_between_pubrel_and_the_deleting_commit(V5);
}

/// The message is forgotten: PUBREL gets its PUBCOMP all the same, in version 5 with the reason.
fn killed_after_the_deleting_commit(level: u8, answer: &Heard) {
    let reading = Reading::new(7, 1);
    let (mut plant, mut device) = about_to_stop_at("q2-before-pubcomp", level);
    device.publish_and_hear(Act::qos2(&reading, 1));
    device.pubrel(1);
    plant.kill_at("q2-before-pubcomp");
    revived(&mut plant, &mut device);
    device.pubrel(1);
    assert_eq!(device.hear(), *answer);
    device.publish_and_hear(Act::qos2(&reading, 1).anew());
    device.pubrel_and_hear(1);
    assert_eq!(plant.count(REPEATED), 0);
    assert_eq!(plant.close_books().stored(&reading.id), 2);
}

#[test]
fn killed_before_pubcomp() {
    killed_after_the_deleting_commit(V311, &Heard::PubComp(1));
    killed_after_the_deleting_commit(V5, &Heard::Refused { packet_id: 1, reason: 0x92 });
}

/// What the client's clean start forgets is gone for good with its CONNACK: killed right after it, the next life does
/// not know the packet id either, and an equal payload under it is stored.
#[test]
fn a_clean_start_after_a_crash_forgets_for_good() {
    let reading = Reading::new(7, 1);
    let mut plant = Plant::builder().start();
    let mut device = Script::connect(&plant, V5, "press-7");
    device.publish_and_hear(Act::qos2(&reading, 1));
    plant.gateway.kill9();
    plant.gateway.start();
    assert!(!device.connect_again(true), "a clean start has no session");
    plant.gateway.kill9();
    plant.gateway.start();
    assert!(device.connect_again(false), "the new session was durable before CONNACK");
    device.publish_and_hear(Act::qos2(&reading, 1).anew());
    device.pubrel_and_hear(1);
    assert_eq!((plant.count(REPEATED), plant.count(REUSED)), (0, 0));
    assert_eq!(plant.close_books().stored(&reading.id), 2);
}

/// The same in 3.1.1, where the clean session also ends with its connection.
#[test]
fn a_clean_session_after_a_crash_stores_an_equal_payload_under_a_reused_id() {
    let reading = Reading::new(7, 1);
    let mut plant = Plant::builder().start();
    let mut device = Script::connect(&plant, V311, "press-7");
    device.publish_and_hear(Act::qos2(&reading, 1));
    plant.gateway.kill9();
    plant.gateway.start();
    assert!(!device.connect_again(true), "a clean session is a new one");
    device.publish_and_hear(Act::qos2(&reading, 1).anew());
    device.pubrel_and_hear(1);
    plant.gateway.kill9();
    plant.gateway.start();
    assert!(!device.connect_again(false), "nothing is left of a clean session");
    assert_eq!(plant.close_books().stored(&reading.id), 2);
}

/// It counts its packet ids from 1 again, and under a known one comes another payload: stored and counted, never taken
/// for the first. From then on the second is the one that is known.
#[test]
fn a_device_that_reboots_without_its_state_loses_nothing() {
    let readings = [1, 2, 3].map(|number| Reading::new(7, number));
    let mut plant = Plant::builder().start();
    let mut device = Script::connect(&plant, V311, "press-7");
    device.publish_and_hear(Act::qos2(&readings[0], 1));
    // Both lose their power.
    plant.gateway.kill9();
    plant.gateway.start();
    assert!(device.connect_again(false));
    device.publish_and_hear(Act::qos2(&readings[1], 1));
    assert_eq!((plant.count(REUSED), plant.count(REPEATED)), (1, 0));
    plant.gateway.kill9();
    plant.gateway.start();
    assert!(device.connect_again(false));
    device.publish_and_hear(Act::qos2(&readings[1], 1).again());
    assert_eq!((plant.count(REUSED), plant.count(REPEATED)), (0, 1));
    // The device alone reboots.
    assert!(device.connect_again(false));
    device.publish_and_hear(Act::qos2(&readings[2], 1));
    device.pubrel_and_hear(1);
    assert_eq!((plant.count(REUSED), plant.count(REPEATED)), (1, 1));
    let closed = plant.close_books();
    assert_eq!([0, 1, 2].map(|number: usize| closed.stored(&readings[number].id)), [1, 1, 1]);
}
