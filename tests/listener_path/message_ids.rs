//! QoS 1 with a message id: exactly once from the device on, through kills and resends, within a bounded window.

use super::device::Manner;
use super::fleet::Fleet;
use super::kills::{BY_PROPERTY, DEVICES, PAUSE};
use super::packets::{V5, V311};
use super::plant::Plant;
use super::script::{Act, Script};
use super::witness::Promise;
use crate::harness::readings::Reading;

/// The id of a [`Reading`] lies in its payload.
const BY_POINTER: &str = "message_id_pointer = \"/id\"";
const KNOWN: &str = "forebay_message_ids";
const DUPLICATES: &str = "forebay_message_id_duplicates_total";
const REUSED: &str = "forebay_message_id_reused_total";

fn act<'a>(reading: &'a Reading, packet_id: u16, message_id: Option<&'a str>) -> Act<'a> {
    Act { reading, packet_id, qos: 1, dup: false, message_id, promise: Promise::Once }
}

/// The reading is stored and its PUBACK is lost with the gateway, as far as the device can tell. It sends the reading
/// again: the same PUBLISH, and then, having lost its packet ids, under another one in a new session.
fn resent_after_a_kill(source: &str, level: u8, message_id: Option<&str>) {
    let reading = Reading::new(7, 1);
    let mut plant = Plant::builder().source(source).start();
    let mut device = Script::connect(&plant, level, "press-7");
    device.publish_and_hear(act(&reading, 2, message_id));
    plant.gateway.kill9();
    plant.gateway.start();
    assert!(device.connect_again(false));
    device.publish_and_hear(act(&reading, 2, message_id).again());
    assert!(!device.connect_again(true));
    device.publish_and_hear(act(&reading, 9, message_id));
    assert_eq!((plant.count_of_hub(DUPLICATES), plant.count(REUSED)), (2, 0));
    assert_eq!(plant.close_books().stored(&reading.id), 1);
}

#[test]
fn resent_after_a_kill_with_its_id_in_a_property() {
    resent_after_a_kill(BY_PROPERTY, V5, Some("m-1"));
}

#[test]
fn resent_after_a_kill_with_its_id_in_the_payload() {
    resent_after_a_kill(BY_POINTER, V311, None);
}

/// Killed between commit and PUBACK, life after life, under load: what was stored is known by its id when it comes again.
#[test]
fn killed_again_and_again_before_puback() {
    const LIVES: usize = 3;
    let mut plant = Plant::builder().source(BY_POINTER).build();
    plant.gateway.start_with_fault("5-before-puback:8");
    let fleet = Fleet::start(&plant, 0..DEVICES, PAUSE, plain_but_once);
    let mut known = 0;
    for _ in 0..LIVES {
        plant.kill_at("5-before-puback");
        plant.gateway.start();
        plant.witness.wait_accepted(plant.witness.accepted() + 2 * DEVICES);
        known += plant.count_of_hub(DUPLICATES);
        plant.gateway.kill9();
        plant.gateway.start_with_fault("5-before-puback:8");
    }
    plant.kill_at("5-before-puback");
    plant.gateway.start();
    plant.saw("resends known by their ids", known as usize);
    fleet.stop();
    plant.close_books();
}

/// 3.1.1 devices whose readings carry their ids in the payload.
fn plain_but_once(_: usize) -> Manner {
    Manner { message_ids: true, ..Manner::QOS1 }
}

/// What has left the window is not known any more, and what is in it still is, in the next life too.
#[test]
fn the_window_is_bounded_and_kept() {
    const WINDOW: usize = 1_000;
    const SENT: usize = 1_500;
    let spool = format!("message_id_window = {WINDOW}");
    let mut plant = Plant::builder().lane("when = \"always\"").spool(&spool).source(BY_POINTER).start();
    let manner = Manner { window: 100, ..plain_but_once(0) };
    let mut sender = plant.device("press-7", manner);
    (0..SENT).for_each(|number| sender.publish(&Reading::new(7, number)));
    sender.finish();
    sender.leave();
    plant.gateway.kill9();
    plant.gateway.start();
    let known = plant.count_of_hub(KNOWN) as usize;
    assert!(known > WINDOW / 2 && known <= WINDOW, "{known} ids are known");
    let (first, last) = (Reading::new(7, 0), Reading::new(7, SENT - 1));
    let mut device = Script::connect(&plant, V311, "press-7");
    device.publish_and_hear(act(&last, 1, None));
    assert_eq!(plant.count_of_hub(DUPLICATES), 1);
    device.publish_and_hear(Act { promise: Promise::AtLeastOnce, ..act(&first, 2, None) });
    assert_eq!(plant.count_of_hub(DUPLICATES), 1);
    let closed = plant.close_books();
    assert_eq!((closed.stored(&last.id), closed.stored(&first.id)), (1, 2));
}

/// A device that counts its ids anew after a reset gives an old id to a new reading.
#[test]
fn another_payload_under_a_known_id_is_stored_and_counted() {
    let readings = [1, 2].map(|number| Reading::new(7, number));
    let mut plant = Plant::builder().source(BY_PROPERTY).start();
    let mut device = Script::connect(&plant, V5, "press-7");
    device.publish_and_hear(act(&readings[0], 1, Some("m-1")));
    plant.gateway.kill9();
    plant.gateway.start();
    assert!(device.connect_again(false));
    device.publish_and_hear(act(&readings[1], 1, Some("m-1")));
    assert_eq!((plant.count_of_hub(REUSED), plant.count(DUPLICATES)), (1, 0));
    device.publish_and_hear(act(&readings[1], 2, Some("m-1")).again());
    assert_eq!((plant.count_of_hub(REUSED), plant.count(DUPLICATES)), (1, 1));
    let closed = plant.close_books();
    assert_eq!([0, 1].map(|number: usize| closed.stored(&readings[number].id)), [1, 1]);
}
