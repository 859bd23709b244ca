//! What sources keep, on its way into a commit: changes that stand alone, readings with something attached, and who waits
//! for a message that has come before.

use std::collections::{BTreeSet, VecDeque};

use super::hub::Hub;
use super::inbox::Kept;
use super::message_ids::{MessageIds, Met};
use crate::config::Delivery as Guarantee;
use crate::intake::{AckTicket, Change, Delivery, Extra, Fate, Kind, MessageId};
use crate::spool::Commit;
use crate::spool::lane::Incoming;
use crate::spool::window::Attached;

/// One commit takes changes up to these.
const CHANGES_MAX: usize = 4096;
const BYTES_MAX: usize = 1 << 20;

/// Changes that one ticket waits for.
#[derive(Debug)]
struct Standing {
    number: u64,
    changes: Vec<Change>,
    ack: Option<AckTicket>,
    since_us: u64,
}

impl Standing {
    fn deletes(&self) -> bool {
        self.changes.iter().all(Change::deletes)
    }
}

/// Changes that stand alone, in the order in which they came. Bounded by the gates of the sources that ask for them.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    next: u64,
    waiting: VecDeque<Standing>,
    /// In the running commit.
    staged: Vec<Standing>,
    /// The last plan left some behind that need room.
    full: bool,
    /// Since then something has come that only deletes: when.
    deletes_since_us: Option<u64>,
}

impl Keeping {
    /// The place of the next change in the order of all.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn keep(&mut self, changes: Vec<Change>, ack: Option<AckTicket>, now_us: u64) {
        if changes.is_empty() {
            return fire(ack);
        }
        let standing = Standing { number: self.number(), changes, ack, since_us: now_us };
        if standing.deletes() {
            self.deletes_since_us.get_or_insert(now_us);
        }
        self.waiting.push_back(standing);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.staged.is_empty()
    }

    /// Whether something waits for room: it is looked for each second.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn has_deletes(&self) -> bool {
        self.waiting.iter().any(Standing::deletes)
    }

    /// How many wait for a commit, and since when (µs of this process).
    pub(super) fn due(&self) -> Option<(usize, u64)> {
        let since_us = if self.full { self.deletes_since_us? } else { self.waiting.front()?.since_us };
        Some((self.waiting.len(), since_us))
    }

    /// Puts into `commit` what goes: with `room` the oldest, without it what only deletes. No deletion overtakes a
    /// row that it would delete.
    pub(super) fn plan(&mut self, commit: &mut Commit, room: bool) {
        debug_assert!(self.staged.is_empty(), "one commit at a time");
        if room {
            self.plan_oldest();
        } else {
            self.plan_deletes();
        }
        self.full = !room && !self.waiting.is_empty();
        self.deletes_since_us = None;
        for standing in &self.staged {
            commit.changes.extend(standing.changes.iter().map(|change| (standing.number, change.clone())));
        }
    }

    fn plan_oldest(&mut self) {
        let (mut changes, mut bytes) = (0, 0);
        while let Some(first) = self.waiting.front() {
            changes += first.changes.len();
            bytes += first.changes.iter().map(Change::bytes).sum::<usize>();
            if !self.staged.is_empty() && (changes > CHANGES_MAX || bytes > BYTES_MAX) {
                return;
            }
            self.staged.extend(self.waiting.pop_front());
        }
    }

    fn plan_deletes(&mut self) {
        let mut held = Held::default();
        let mut changes = 0;
        for standing in std::mem::take(&mut self.waiting) {
            let goes = changes < CHANGES_MAX && standing.deletes() && !standing.changes.iter().any(|c| held.meets(c));
            if goes {
                changes += standing.changes.len();
                self.staged.push(standing);
            } else {
                held.add(&standing.changes);
                self.waiting.push_back(standing);
            }
        }
    }

    /// The commit is durable: tells who waits, in order. Returns whether it held anything that needed room.
    pub(super) fn committed(&mut self) -> bool {
        let grew = self.staged.iter().any(|standing| !standing.deletes());
        self.staged.drain(..).for_each(|standing| fire(standing.ack));
        grew
    }

    /// Nothing of the commit happened: the same again, in its old place.
    pub(super) fn failed(&mut self) {
        self.waiting.extend(self.staged.drain(..));
        self.waiting.make_contiguous().sort_by_key(|standing| standing.number);
    }
}

fn fire(ack: Option<AckTicket>) {
    if let Some(ack) = ack {
        ack.fire();
    }
}

/// Keys of rows that wait to be put: only those can tell a deletion that overtakes from one that does not.
#[derive(Debug, Default)]
struct Held(BTreeSet<(Kind, Vec<u8>)>);

impl Held {
    fn add(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Put { kind, key, .. } = change {
                self.0.insert((*kind, key.clone()));
            }
        }
    }

    fn meets(&self, change: &Change) -> bool {
        match change {
            Change::Put { kind, key, .. } | Change::Delete { kind, key } => self.0.contains(&(*kind, key.clone())),
            Change::DeletePrefix { kind, prefix } => {
                let first = self.0.range((*kind, prefix.clone())..).next();
                first.is_some_and(|(k, key)| k == kind && key.starts_with(prefix))
            }
        }
    }
}

/// Who has sent a message again that is still on its way: told when it is stored, and what came along is kept then.
#[derive(Debug)]
pub(super) struct Waiter {
    change: Option<Change>,
    ack: Option<AckTicket>,
}

/// The ids of messages, and those of the running commit with its time (ms since 1970).
#[derive(Debug)]
pub(super) struct Ids {
    pub met: MessageIds<Waiter>,
    pub staged: Vec<MessageId>,
    pub at: i64,
}

impl Ids {
    pub(super) fn new(met: MessageIds<Waiter>) -> Self {
        Ids { met, staged: Vec::new(), at: 0 }
    }
}

impl Hub {
    /// Step 3: to its lane, with what it brings along.
    pub(super) fn take_in(&mut self, delivery: Delivery, wall_ms: i64) {
        let Delivery { lane, body, fate, ack, extra } = delivery;
        let now_us = self.state.now_us;
        let Some(extra) = extra else {
            return self.lanes[lane].accept(body, fate, ack, now_us, wall_ms);
        };
        let Extra { change, message_id } = *extra;
        if let Some(id) = message_id {
            match self.ids.met.meet(id, wall_ms) {
                Met::New => {}
                Met::OnItsWay => return self.ids.met.wait(id, Waiter { change, ack }),
                Met::Stored => return self.keep_or_fire(change, ack),
            }
        }
        let lane = &mut self.lanes[lane];
        if lane.config.delivery == Guarantee::AtMostOnce && fate == Fate::Forward {
            // Such a lane stores nothing. What comes along is kept all the same, before anybody is told.
            lane.accept(body, fate, None, now_us, wall_ms);
            self.keep_or_fire(change, ack);
            return message_id.into_iter().for_each(|id| self.message_stored(id, wall_ms));
        }
        if change.is_none() && message_id.is_none() {
            return lane.accept(body, fate, ack, now_us, wall_ms);
        }
        let number = self.keeping.number();
        let attached = Some(Box::new(Attached { number, change, message_id }));
        lane.accept_attached(Incoming { body, fate, ack, attached }, now_us, wall_ms);
    }

    pub(super) fn keep(&mut self, kept: Kept) {
        self.keeping.keep(kept.changes, Some(kept.ack), self.state.now_us);
    }

    fn keep_or_fire(&mut self, change: Option<Change>, ack: Option<AckTicket>) {
        self.keeping.keep(change.into_iter().collect(), ack, self.state.now_us);
    }

    fn message_stored(&mut self, id: MessageId, at_ms: i64) {
        for waiter in self.ids.met.stored(id, at_ms) {
            self.keep_or_fire(waiter.change, waiter.ack);
        }
    }

    /// Completes the commit when all lanes have planned theirs.
    pub(super) fn plan_kept(&mut self, commit: &mut Commit, insert: bool) {
        let room = insert && self.state.spool.used_bytes < self.config.spool.max_bytes;
        self.keeping.plan(commit, room);
        commit.changes.sort_by_key(|(number, _)| *number);
        self.ids.staged.clone_from(&commit.message_ids);
        self.ids.at = commit.at;
    }

    /// Step 5 for what is kept. Returns whether the commit held anything of it that needed room.
    pub(super) fn kept_committed(&mut self) -> bool {
        let grew = self.keeping.committed();
        let at = self.ids.at;
        for id in std::mem::take(&mut self.ids.staged) {
            self.message_stored(id, at);
        }
        grew
    }

    pub(super) fn kept_failed(&mut self) {
        self.keeping.failed();
        self.ids.staged.clear();
    }
}
