//! A seeded simulation of the lane: chance decides what happens next, and after it all promises are looked at.
//! `FOREBAY_SEEDS=100000` runs as many seeds a variant, `FOREBAY_SEED=17` the one that failed.

#![expect(clippy::unwrap_used, reason = "tests")]

mod broker;
pub mod dice;
pub mod file;
mod world;

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use super::{CALM_US, Incoming, Key, Lane, Mode, Outcome, RowId, Sent, Sink, Staged, Start, Tally};
use crate::config::{self, Delivery, Grace, Order, When, WhenFull};
use world::World;

const STEPS: u64 = 500;

pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn lane_config() -> config::Lane {
    config::Lane {
        name: "lane".into(),
        priority: 0,
        order: Order::InOrder,
        when: When::Offline,
        when_reason: "default".into(),
        when_full: WhenFull::Refuse,
        delivery: Delivery::AtLeastOnce,
        grace: Grace::Fixed(Duration::from_millis(300)),
        max_bytes: 1 << 30,
        max_records: None,
        max_age: None,
        drain_rate: None,
        keep: None,
        settle: None,
        kafka: 0,
    }
}

/// Runs the seeds of one variant.
fn simulate(name: &str, config: &config::Lane) {
    let only = number("FOREBAY_SEED");
    let seeds = only.map_or(0..number("FOREBAY_SEEDS").unwrap_or(40), |s| s..s + 1);
    for seed in seeds {
        let run = || live(seed, config);
        if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(run)) {
            eprintln!("{name}: FOREBAY_SEED={seed} fails");
            std::panic::resume_unwind(panic);
        }
    }
}

fn live(seed: u64, config: &config::Lane) {
    let mut world = World::new(seed, config.clone());
    for _ in 0..world.dice.below(STEPS) {
        world.happens();
        world.check_acks();
        check_oldest(&world);
    }
    world.heal();
    check_end(&mut world);
    // A lane that has seen all that is as good as new.
    (0..20).for_each(|_| world.accept());
    world.heal();
    check_end(&mut world);
}

/// What waits in the file for a parked topic counts for the age of the oldest.
fn check_oldest(world: &World) {
    let lane = &world.lane;
    if !lane.parks.left_behind() || lane.parks.rewinding() {
        return;
    }
    // What the file does not know yet: rows whose marks wait for a commit or are in one.
    let unmarked = |s: &Staged, row| s.settled.iter().any(|r| r.0 == row) || s.bitmaps.iter().any(|r| r.0 == row);
    let left = |row: RowId| {
        row <= lane.last_row
            && !(lane.window.has_row(row)
                || lane.settling.has(row)
                || unmarked(&lane.pending, row)
                || unmarked(&lane.staged, row))
    };
    let parked = world.file.open_bodies().filter(|(row, body)| left(*row) && lane.parks.holds(body));
    if let Some(oldest) = parked.filter_map(|(_, body)| body.arrived_ms().ok()).min() {
        assert!(lane.oldest_arrival_ms().is_some_and(|at| at <= oldest), "the oldest is older than is said");
    }
}

fn check_end(world: &mut World) {
    for id in 0..world.accepted.len() as u64 {
        let held_briefly = world.lost_power && world.settled_early + world.lane.stats.settled_early > 0;
        let safe = world.accounted(id) || !world.acked.contains(&id) || world.at_most_once() || held_briefly;
        assert!(safe, "record {id} was acknowledged and is nowhere");
        // Who lost an ack in a crash sends again; everybody else has been answered.
        assert!(world.crashed || world.acked.contains(&id), "record {id} was never acknowledged");
    }
    if world.config.order == Order::InOrder && !world.lost_power {
        check_order(world);
    }
    check_ledger(world);
    assert_eq!(world.file.open_ids(), BTreeSet::new(), "left in the file");
    let tally = world.lane.tally;
    let history: u64 = world.file.count().iter().map(|f| f.history_bytes).sum();
    assert_eq!(tally, Tally { history_bytes: history as i64, ..Tally::default() }, "the backlog's counters drift");
    let stats = world.lane.snapshot();
    assert_eq!((stats.open, stats.open_bytes, stats.in_flight), (0, 0, 0));
    assert!(stats.parked_topics.is_empty(), "{:?}", stats.parked_topics);
}

/// First deliveries of one topic and key come in the order of acceptance.
fn check_order(world: &World) {
    for (place, log) in &world.broker.log {
        let mut seen = BTreeSet::new();
        for id in log.iter().filter(|id| !(world.crashed && world.purged.contains(id))) {
            if seen.insert(*id) {
                let last = seen.last();
                assert_eq!(last, Some(id), "{place:?}: {id} comes after {last:?}");
            }
        }
    }
}

/// Without crashes and without failures that were none, the ledger counts exactly what is missing.
fn check_ledger(world: &World) {
    if world.crashed || world.repeats || world.at_most_once() {
        return;
    }
    let missing = |id: &u64| !world.broker.delivered.contains(id) && !world.file.dead.contains(id);
    let missing = (0..world.accepted.len() as u64).filter(missing).count() as u64;
    let told: u64 = world.file.losses.iter().map(|l| l.n).sum();
    assert_eq!(told, missing, "the ledger tells of another number than is missing");
    assert_eq!(world.lane.stats.lost, missing, "the counter of lost records");
}

#[test]
fn offline_in_order() {
    simulate("offline_in_order", &lane_config());
}

#[test]
fn always_in_order() {
    simulate("always_in_order", &config::Lane { when: When::Always, ..lane_config() });
}

#[test]
fn live_first() {
    simulate("live_first", &config::Lane { order: Order::LiveFirst, ..lane_config() });
}

#[test]
fn live_first_always_drop_oldest() {
    let (order, when, when_full) = (Order::LiveFirst, When::Always, WhenFull::DropOldest);
    simulate("live_first_always", &config::Lane { order, when, when_full, max_bytes: 30_000, ..lane_config() });
}

#[test]
fn live_first_drop_oldest() {
    let (order, when_full) = (Order::LiveFirst, WhenFull::DropOldest);
    simulate("live_first_drop_oldest", &config::Lane { order, when_full, max_records: Some(100), ..lane_config() });
}

#[test]
fn small_and_refusing() {
    simulate("small_and_refusing", &config::Lane { max_bytes: 12_000, ..lane_config() });
}

#[test]
fn drop_oldest_by_bytes() {
    let when_full = WhenFull::DropOldest;
    simulate("drop_oldest_by_bytes", &config::Lane { when_full, max_bytes: 15_000, ..lane_config() });
}

#[test]
fn drop_oldest_by_records() {
    let (when, when_full) = (When::Always, WhenFull::DropOldest);
    simulate("drop_oldest_by_records", &config::Lane { when, when_full, max_records: Some(120), ..lane_config() });
}

#[test]
fn drop_newest() {
    let when_full = WhenFull::DropNewest;
    simulate("drop_newest", &config::Lane { when_full, max_bytes: 9_000, ..lane_config() });
}

#[test]
fn history() {
    let mut config = config::Lane { max_bytes: 20_000, ..lane_config() };
    World::keep(&mut config);
    simulate("history", &config);
}

#[test]
fn history_and_drop_oldest() {
    let mut config = config::Lane { max_records: Some(90), when_full: WhenFull::DropOldest, ..lane_config() };
    World::keep(&mut config);
    simulate("history_and_drop_oldest", &config);
}

fn settling() -> config::Lane {
    config::Lane { when: When::Always, settle: Some(Duration::from_secs(20)), ..lane_config() }
}

/// The broker loses its power now and then, and with it what it had acknowledged.
#[test]
fn brokers_that_forget() {
    simulate("brokers_that_forget", &settling());
}

#[test]
fn brokers_that_forget_and_little_room() {
    let (when_full, keep) = (WhenFull::DropOldest, Some(Duration::from_secs(30)));
    simulate("forget_drop_oldest", &config::Lane { when_full, max_records: Some(200), ..settling() });
    simulate("forget_live_first", &config::Lane { order: Order::LiveFirst, keep, ..settling() });
}

#[test]
fn old_age() {
    let max_age = Some(Duration::from_secs(8));
    simulate("old_age", &config::Lane { max_age, ..lane_config() });
}

#[test]
fn slow_drain() {
    simulate("slow_drain", &config::Lane { drain_rate: Some(4_000), ..lane_config() });
}

#[test]
fn at_most_once() {
    simulate("at_most_once", &config::Lane { delivery: Delivery::AtMostOnce, ..lane_config() });
}

#[test]
fn what_must_be_committed_makes_a_direct_lane_spool_until_none_has_come_for_ten_seconds() {
    let mut world = World::new(3, lane_config());
    let delivered = |world: &mut World| {
        while world.broker.flying() > 0 {
            world.broker.step(false);
            world.report();
        }
    };
    let committed = |world: &mut World| {
        world.plan(true);
        world.disk(0);
        world.answer();
        world.check_acks();
    };
    world.attaches = u64::MAX;
    world.accept();
    world.pump();
    assert_eq!(world.lane.mode(), Mode::Direct);
    world.attaches = 1;
    world.accept();
    assert_eq!(world.lane.mode(), Mode::Spooling, "from its arrival on");
    world.attaches = u64::MAX;
    world.accept();
    assert!(world.acked.is_empty());
    committed(&mut world);
    assert_eq!(world.acked, BTreeSet::from([0, 1, 2]), "what flew, what must be committed, and what came behind it");
    world.pump();
    delivered(&mut world);
    world.now_us += CALM_US - 1;
    world.attaches = 1;
    world.accept();
    committed(&mut world);
    world.pump();
    delivered(&mut world);
    for (passes_us, mode) in [(1, Mode::Spooling), (CALM_US - 2, Mode::Spooling), (1, Mode::Direct)] {
        world.now_us += passes_us;
        world.pump();
        assert_eq!(world.lane.mode(), mode, "{passes_us}");
    }
    check_order(&world);
    assert_eq!(world.lane.stats.to_spooling, 1);
}
