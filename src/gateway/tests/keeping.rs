//! Changes that stand alone: what goes into which commit.

use std::sync::Arc;

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
fn without_room_deletions_go_and_overtake_nothing_of_their_key() {
    let mut world = World::new();
    world.keep(vec![delete("before")]);
    world.keep(vec![put("dev-1/x")]);
    for change in [delete("dev-1/x"), delete_prefix("dev-1/"), delete_prefix("dev-"), delete("dev-2/x")] {
        world.keep(vec![change]);
    }
    // The prefixes wait, so all below them waits.
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
