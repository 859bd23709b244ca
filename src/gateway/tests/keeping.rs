//! Changes that stand alone: what goes into which commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::keeping::Keeping;
use crate::intake::{Ack, AckQueue, AckTicket, Change, Kind};
use crate::spool::Commit;

struct World {
    keeping: Keeping,
    acks: Arc<AckQueue>,
    asked: u64,
}

fn put(key: &str) -> Change {
    Change::Put { kind: Kind::Session, key: key.into(), value: vec![0; 100] }
}

fn delete(key: &str) -> Change {
    Change::Delete { kind: Kind::Session, key: key.into() }
}

fn delete_prefix(prefix: &str) -> Change {
    Change::DeletePrefix { kind: Kind::Session, prefix: prefix.into() }
}

impl World {
    fn new() -> Self {
        World { keeping: Keeping::default(), acks: Arc::default(), asked: 0 }
    }

    /// The ticket's number counts the calls.
    fn keep(&mut self, changes: Vec<Change>) {
        let ack = Ack { generation: 0, number: self.asked };
        self.asked += 1;
        let ticket = AckTicket { queue: Arc::clone(&self.acks), ack };
        self.keeping.keep(changes, Some(ticket), self.asked * 10);
    }

    fn plan(&mut self, room: bool) -> Vec<Change> {
        let mut commit = Commit::default();
        self.keeping.plan(&mut commit, room);
        assert!(commit.changes.is_sorted_by_key(|(number, _)| *number));
        commit.changes.into_iter().map(|(_, change)| change).collect()
    }

    fn fired(&self) -> Vec<u64> {
        let mut fired = Vec::new();
        self.acks.take(&mut fired);
        fired.iter().map(|ack| ack.number).collect()
    }
}

#[test]
fn all_that_waits_goes_in_order_and_is_told_when_it_is_durable() {
    let mut world = World::new();
    world.keep(vec![put("a"), delete("a")]);
    world.keep(vec![put("a")]);
    assert_eq!(world.keeping.due(), Some((2, 10)));
    assert_eq!(world.plan(true), [put("a"), delete("a"), put("a")]);
    world.keep(vec![delete("a")]);
    assert_eq!(world.fired(), [] as [u64; 0], "nobody before the commit");
    assert!(world.keeping.committed());
    assert_eq!(world.fired(), [0, 1]);
    assert_eq!(world.plan(true), [delete("a")]);
    assert!(!world.keeping.committed(), "a deletion needs no room");
    assert_eq!(world.fired(), [2]);
    assert!(world.keeping.is_empty() && world.keeping.due().is_none());
}

#[test]
fn a_failed_commit_is_made_again_with_what_has_come_since_behind_it() {
    let mut world = World::new();
    world.keep(vec![put("a")]);
    world.keep(vec![delete("a")]);
    world.plan(true);
    world.keep(vec![put("a")]);
    world.keeping.failed();
    assert_eq!(world.fired(), [] as [u64; 0]);
    assert_eq!(world.plan(true), [put("a"), delete("a"), put("a")]);
    world.keeping.committed();
    assert_eq!(world.fired(), [0, 1, 2]);
}

#[test]
fn without_room_deletions_go_and_overtake_nothing_that_they_delete() {
    let mut world = World::new();
    world.keep(vec![delete("before")]);
    world.keep(vec![put("dev-1/x")]);
    for change in [delete("dev-1/x"), delete_prefix("dev-1/"), delete_prefix("dev-"), put("dev-2/x")] {
        world.keep(vec![change]);
    }
    world.keep(vec![delete("other"), delete_prefix("thing")]);
    world.keep(vec![delete("third"), put("fourth")]);
    assert_eq!(world.plan(false), [delete("before"), delete("other"), delete_prefix("thing")]);
    world.keeping.committed();
    assert_eq!(world.fired(), [0, 6]);
    assert!(world.keeping.is_full());
    assert_eq!(world.keeping.due(), None, "what waits for room does not call for commits");
    world.keep(vec![delete("fifth")]);
    assert_eq!(world.keeping.due(), Some((7, 90)), "what only deletes does");
    assert_eq!(world.plan(false), [delete("fifth")]);
    world.keeping.failed();
    assert!(world.keeping.has_deletes());
    let all = world.plan(true);
    assert_eq!((all.len(), &all[0], &all[7]), (8, &put("dev-1/x"), &delete("fifth")));
    assert!(world.keeping.committed() && !world.keeping.is_full());
    assert_eq!(world.fired(), [1, 2, 3, 4, 5, 7, 8]);
}

#[test]
fn one_commit_takes_a_bounded_part() {
    let mut world = World::new();
    for i in 0..20_000 {
        world.keep(vec![put(&i.to_string())]);
    }
    let mut parts = Vec::new();
    while !world.keeping.is_empty() {
        parts.push(world.plan(true).len());
        world.keeping.committed();
    }
    assert_eq!(parts.iter().sum::<usize>(), 20_000);
    assert!(parts.iter().all(|part| *part <= 4096), "{parts:?}");
    assert_eq!(world.fired(), (0..20_000).collect::<Vec<_>>());
    world.keep(vec![Change::Put { kind: Kind::Retained, key: vec![1], value: vec![0; 5 << 20] }]);
    assert_eq!(world.plan(true).len(), 1, "one that is larger than a part goes alone");
}

#[test]
fn nothing_to_change_is_done_at_once() {
    let mut world = World::new();
    world.keep(Vec::new());
    assert_eq!((world.fired(), world.keeping.is_empty()), (vec![0], true));
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn apply(rows: &mut Rows, change: &Change) {
    match change {
        Change::Put { key, value, .. } => drop(rows.insert(key.clone(), value.clone())),
        Change::Delete { key, .. } => drop(rows.remove(key)),
        Change::DeletePrefix { prefix, .. } => rows.retain(|key, _| !key.starts_with(prefix)),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Keep(Vec<Change>),
    /// A commit with room or without, and whether it fails.
    Commit(bool, bool),
}

fn step() -> impl Strategy<Value = Step> {
    // Short keys of two letters: most of them meet each other.
    let key = prop::collection::vec(prop_oneof![Just(b'a'), Just(0xff)], 0..4);
    let kind = Kind::Session;
    let change = (key, any::<u8>(), 0..6).prop_map(move |(key, value, what)| match what {
        0 => Change::DeletePrefix { kind, prefix: key },
        1 | 2 => Change::Delete { kind, key },
        _ => Change::Put { kind, key, value: vec![value] },
    });
    prop_oneof![
        3 => prop::collection::vec(change, 1..4).prop_map(Step::Keep),
        1 => (any::<bool>(), prop::bool::weighted(0.3)).prop_map(|(room, fails)| Step::Commit(room, fails)),
    ]
}

proptest! {
    /// Whatever overtakes what, the rows come out as if everything had gone in its turn.
    #[test]
    fn what_overtakes_changes_nothing(steps in prop::collection::vec(step(), 0..60)) {
        let (mut world, mut rows, mut in_turn) = (World::new(), Rows::new(), Rows::new());
        for step in steps.into_iter().chain([Step::Commit(true, false)]) {
            match step {
                Step::Keep(changes) => {
                    changes.iter().for_each(|change| apply(&mut in_turn, change));
                    world.keep(changes);
                }
                Step::Commit(room, true) => {
                    world.plan(room);
                    world.keeping.failed();
                }
                Step::Commit(room, false) => {
                    let planned = world.plan(room);
                    prop_assert!(room || planned.iter().all(Change::deletes));
                    planned.iter().for_each(|change| apply(&mut rows, change));
                    world.keeping.committed();
                }
            }
        }
        prop_assert_eq!(rows, in_turn);
        let mut fired = world.fired();
        fired.sort_unstable();
        prop_assert_eq!(fired, (0..world.asked).collect::<Vec<_>>());
    }
}
