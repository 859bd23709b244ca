//! The gateway is killed with -9: at each numbered step of the path, and at random. It stops at the named fault point,
//! so the kill lands exactly there.

use crate::harness::readings::Dice;
use crate::harness::rig::Rig;

const COMMIT_FIRST: &str = "when = \"always\"";
const DIRECT: &str = "when = \"offline\"";

/// At the given passage: by then what the gateway has to say of its start is through, the path is warm, and readings are at
/// every later step too.
fn killed_at(point: &str, passage: usize, lane: &str) {
    let mut rig = Rig::builder().lane(lane).build();
    rig.gateway.start_with_fault(&format!("{point}:{passage}"));
    let load = rig.endless_load(500);
    rig.gateway.wait_for_fault(point);
    rig.gateway.kill9();
    rig.gateway.start();
    rig.saw("kill -9", rig.gateway.kills());
    rig.close_books(&load.stop());
}

macro_rules! kills {
    ($($name:ident: $point:literal, $passage:literal, $lane:expr;)*) => {
        $(#[test]
        fn $name() {
            killed_at($point, $passage, $lane);
        })*
    };
}

kills! {
    at_2_delivered: "2-delivered", 12, COMMIT_FIRST;
    at_4_before_commit: "4-before-commit", 4, COMMIT_FIRST;
    at_4_after_commit: "4-after-commit", 4, COMMIT_FIRST;
    at_5_before_puback: "5-before-puback", 4, COMMIT_FIRST;
    at_6_batch_read: "6-batch-read", 12, COMMIT_FIRST;
    at_7_produced: "7-produced", 12, COMMIT_FIRST;
    at_8_reported: "8-reported", 12, COMMIT_FIRST;
    at_9_before_settle: "9-before-settle", 12, COMMIT_FIRST;
    at_9_after_settle: "9-after-settle", 12, COMMIT_FIRST;
    at_2_delivered_direct: "2-delivered", 12, DIRECT;
    at_5_before_puback_direct: "5-before-puback", 4, DIRECT;
    at_7_produced_direct: "7-produced", 12, DIRECT;
    at_8_reported_direct: "8-reported", 12, DIRECT;
}

#[test]
fn at_random_under_load_commit_first() {
    killed_at_random(COMMIT_FIRST);
}

#[test]
fn at_random_under_load_direct() {
    killed_at_random(DIRECT);
}

/// `FOREBAY_KILLS` kills (6 if unset); `FOREBAY_SEED` repeats a run.
fn killed_at_random(lane: &str) {
    let kills = from_env("FOREBAY_KILLS").unwrap_or(6);
    let seed = from_env("FOREBAY_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("FOREBAY_KILLS={kills} FOREBAY_SEED={seed}");
    let mut dice = Dice::new(seed);
    let mut rig = Rig::builder().lane(lane).start();
    let load = rig.endless_load(1_000);
    for _ in 0..kills {
        // A PUBLISH is awaited, not a PUBACK: a kill may hit before anything of this life was acknowledged.
        let offered = rig.tap.history().offered.len() + usize::try_from(dice.between(1, 350)).unwrap();
        rig.tap.wait_for("more offered", |history| history.offered.len() >= offered);
        rig.gateway.kill9();
        rig.gateway.start();
    }
    rig.saw("kill -9", rig.gateway.kills());
    rig.close_books(&load.stop());
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// A gateway that stands still for a while is no gateway that crashed: nothing is lost or doubled under another id.
#[test]
fn paused_under_load() {
    let mut rig = Rig::builder().start();
    let load = rig.endless_load(500);
    rig.wait_accepted(500);
    let before = rig.accepted();
    rig.gateway.pause();
    load.wait_for(before + 700);
    rig.saw("published to a paused gateway", 700);
    rig.gateway.resume();
    rig.close_books(&load.stop());
}
