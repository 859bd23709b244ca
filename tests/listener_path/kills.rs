//! The gateway is killed with -9 under load from fifty devices: at each numbered step, at each step of QoS 2, and at
//! random. Nothing acknowledged is lost, the order holds, and QoS 2 and message ids store nothing twice.

use std::time::Duration;

use super::device::Manner;
use super::fleet::Fleet;
use super::plant::Plant;
use crate::harness::readings::Dice;

pub const DEVICES: usize = 50;
pub const PAUSE: Duration = Duration::from_millis(100);
pub const BY_PROPERTY: &str = "message_id_property = \"message-id\"";
pub const COMMIT_FIRST: &str = "when = \"always\"";
pub const DIRECT: &str = "when = \"offline\"";

/// All ways to be acknowledged, side by side.
pub fn mixed(device: usize) -> Manner {
    [Manner::QOS1, Manner::QOS2, Manner::QOS1_WITH_IDS, Manner::QOS2_V311][device % 4]
}

/// What leaves a lane direct.
pub fn plain(_: usize) -> Manner {
    Manner::QOS1
}

/// The fourth passage: by then the path is warm, and readings are at every later step too.
fn killed_at(point: &str, lane: &str, manner: fn(usize) -> Manner) {
    let mut plant = Plant::builder().lane(lane).source(BY_PROPERTY).build();
    plant.gateway.start_with_fault(&format!("{point}:4"));
    let fleet = Fleet::start(&plant, 0..DEVICES, PAUSE, manner);
    plant.kill_at(point);
    let accepted = plant.witness.accepted();
    plant.gateway.start();
    plant.witness.wait_accepted(accepted + DEVICES);
    plant.saw("reconnects", fleet.reconnects(&plant));
    fleet.stop();
    plant.close_books();
}

macro_rules! kills {
    ($($name:ident: $point:literal, $lane:expr, $manner:expr;)*) => {
        $(#[test]
        fn $name() {
            killed_at($point, $lane, $manner);
        })*
    };
}

kills! {
    at_2_delivered: "2-delivered", COMMIT_FIRST, mixed;
    at_4_before_commit: "4-before-commit", COMMIT_FIRST, mixed;
    at_4_after_commit: "4-after-commit", COMMIT_FIRST, mixed;
    at_5_before_puback: "5-before-puback", COMMIT_FIRST, mixed;
    at_6_batch_read: "6-batch-read", COMMIT_FIRST, mixed;
    at_7_produced: "7-produced", COMMIT_FIRST, mixed;
    at_8_reported: "8-reported", COMMIT_FIRST, mixed;
    at_9_before_settle: "9-before-settle", COMMIT_FIRST, mixed;
    at_9_after_settle: "9-after-settle", COMMIT_FIRST, mixed;
    at_2_delivered_direct: "2-delivered", DIRECT, plain;
    at_7_produced_direct: "7-produced", DIRECT, plain;
    at_8_reported_direct: "8-reported", DIRECT, plain;
    at_q2_before_delivery: "q2-before-delivery", DIRECT, mixed;
    at_q2_before_pubrec: "q2-before-pubrec", DIRECT, mixed;
    at_q2_before_delete: "q2-before-delete", DIRECT, mixed;
    at_q2_before_pubcomp: "q2-before-pubcomp", DIRECT, mixed;
}

#[test]
fn at_random_under_load_commit_first() {
    killed_at_random(COMMIT_FIRST, mixed);
}

#[test]
fn at_random_under_load_direct() {
    killed_at_random(DIRECT, plain);
}

#[test]
fn at_random_under_load_in_a_direct_lane_that_gets_qos_2() {
    killed_at_random(DIRECT, mixed);
}

/// `FOREBAY_KILLS` kills (6 if unset); `FOREBAY_SEED` repeats a run.
fn killed_at_random(lane: &str, manner: fn(usize) -> Manner) {
    let (kills, mut dice) = (kills_wanted(6), seeded());
    let mut plant = Plant::builder().lane(lane).source(BY_PROPERTY).start();
    let fleet = Fleet::start(&plant, 0..DEVICES, PAUSE, manner);
    for _ in 0..kills {
        kill_some_time(&mut plant, &mut dice);
        plant.gateway.start();
    }
    plant.saw("reconnects", fleet.reconnects(&plant));
    fleet.stop();
    plant.close_books();
}

pub fn kill_some_time(plant: &mut Plant, dice: &mut Dice) {
    // A PUBLISH is awaited, not a PUBACK: a kill may hit before anything of this life was acknowledged.
    let more = usize::try_from(dice.between(1, 350)).unwrap();
    let offered = |record: &super::witness::Record| record.offered.len() + record.offered_again;
    let until = offered(&plant.witness.lock()) + more;
    plant.witness.wait_for("more offered", |record| offered(record) >= until);
    plant.gateway.kill9();
    plant.saw("kill -9", 1);
}

pub fn kills_wanted(unset: u64) -> u64 {
    from_env("FOREBAY_KILLS").unwrap_or(unset)
}

pub fn seeded() -> Dice {
    let seed = from_env("FOREBAY_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("FOREBAY_SEED={seed}");
    Dice::new(seed)
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}
