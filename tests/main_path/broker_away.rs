//! Mosquitto restarts, hangs, or the line to it is cut.

use crate::harness::readings::plant;
use crate::harness::rig::Rig;

#[test]
fn restarted_with_its_sessions() {
    let mut rig = Rig::builder().start();
    let load = rig.endless_load(500);
    rig.wait_accepted(500);
    rig.mosquitto.stop();
    rig.mosquitto.restart();
    rig.wait_accepted(1_000);
    let published = load.stop();
    rig.saw("reconnect", rig.tap.history().connects.len() - 1);
    rig.close_books(&published);
}

/// What Mosquitto had queued is gone and was never ours. The gateway subscribes again, and what it accepted arrives.
#[test]
fn restarted_without_its_sessions() {
    let mut rig = Rig::builder().start();
    let before = rig.load(2_000, plant(10, 0, 100)).finish();
    rig.wait_accepted(before.len());
    let subacks = rig.tap.history().subacks;
    rig.mosquitto.stop();
    rig.mosquitto.restart_without_sessions();
    let history = rig.tap.wait_for("the gateway subscribed again", |history| history.subacks > subacks);
    rig.saw("session lost", history.subacks - subacks);
    let after = rig.load(2_000, plant(10, 100, 100)).finish();
    rig.close_books(&[before, after].concat());
}

#[test]
fn cut_again_and_again_under_load() {
    let mut rig = Rig::builder().start();
    let load = rig.endless_load(500);
    for accepted in [300, 700, 1_100, 1_500] {
        rig.wait_accepted(accepted);
        rig.tap.cut();
    }
    let published = load.stop();
    rig.saw("reconnect", rig.tap.history().connects.len() - 1);
    rig.close_books(&published);
}

/// PUBACKs and publications are held back on the line, then the line is cut: what was acknowledged in vain comes again.
#[test]
fn held_and_then_cut() {
    let mut rig = Rig::builder().start();
    let load = rig.endless_load(500);
    rig.wait_accepted(500);
    rig.tap.hold();
    load.wait_for(1_000);
    rig.tap.cut();
    rig.tap.resume();
    rig.wait_accepted(1_200);
    let published = load.stop();
    rig.saw("reconnect", rig.tap.history().connects.len() - 1);
    rig.close_books(&published);
}
