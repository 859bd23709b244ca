//! Nothing goes wrong.

use crate::harness::readings::plant;
use crate::harness::rig::Rig;

#[test]
fn every_reading_arrives_once_with_its_topic_as_key() {
    let rig = Rig::builder().start();
    let published = rig.load(4_000, plant(10, 0, 200)).finish();
    let verdict = rig.close_books(&published);
    assert_eq!((verdict.accepted, verdict.delivered, verdict.repeats, verdict.dead), (2_000, 2_000, 0, 0));
}

#[test]
fn commit_first_changes_nothing_that_can_be_seen() {
    let rig = Rig::builder().lane("when = \"always\"").start();
    let published = rig.load(4_000, plant(10, 0, 200)).finish();
    let verdict = rig.close_books(&published);
    assert_eq!((verdict.accepted, verdict.delivered, verdict.repeats, verdict.dead), (2_000, 2_000, 0, 0));
}

#[test]
fn a_graceful_restart_under_load_repeats_nothing_under_another_id() {
    let mut rig = Rig::builder().start();
    let load = rig.endless_load(500);
    for accepted in [400, 900, 1_400] {
        rig.wait_accepted(accepted);
        rig.gateway.stop();
        rig.gateway.start();
    }
    let connects = rig.tap.history().connects;
    assert!(connects.iter().all(|client_id| *client_id == connects[0]), "one stable client id: {connects:?}");
    rig.saw("restart", connects.len() - 1);
    rig.close_books(&load.stop());
}
