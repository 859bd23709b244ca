//! The hub's commits (step 4): when one is due, what goes into it, and what follows when it is durable or has failed.

use std::collections::BTreeMap;

use super::hub::Hub;
use crate::clock;
use crate::faults;
use crate::spool::lane::Lane;
use crate::spool::owner::{ROOM_AGAIN, Request};
use crate::spool::{Commit, Committed, Loss, StoreError};

/// A commit starts when this much waits (design section 6).
const COMMIT_RECORDS: usize = 1000;
const COMMIT_BYTES: usize = 256 << 10;
/// Settled chunks are deleted along with the next insert, or after this long without one.
const TIDY_US: u64 = 1_000_000;
const EXPIRY_US: u64 = 10_000_000;
/// Ledger entries in memory that wait for their event. The file has them all; what is more is told after the next start.
const UNTOLD_MAX: usize = 10_000;
/// After a failed commit.
const RETRY_US: u64 = 1_000_000;

impl Hub {
    pub(super) fn commit_if_due(&mut self) {
        if self.state.committing.is_some() || self.state.now_us < self.state.retry_at_us {
            return;
        }
        let insert = self.insert_due();
        let tidy = self.state.now_us >= self.state.tidy_at_us && self.wants_tidying();
        if insert || tidy {
            let insert = insert || !self.state.disk_full || self.tries_insert();
            self.commit(insert);
        }
    }

    /// Whether it is time to find out if a full disk takes readings again: first what frees space, then a try.
    fn tries_insert(&mut self) -> bool {
        let tries = self.state.try_insert || !(self.lanes.iter().any(Lane::has_tidying) || self.keeping.has_deletes());
        self.state.try_insert = !tries;
        tries
    }

    /// The commit rule: 1,000 readings or 256 KiB wait, or one has waited `ack_delay`.
    fn insert_due(&self) -> bool {
        !self.state.disk_full && self.insert_due_at().is_some_and(|at| at <= self.state.now_us)
    }

    pub(super) fn insert_due_at(&self) -> Option<u64> {
        let delay = self.config.spool.ack_delay.as_micros() as u64;
        let lanes = self.lanes.iter().map(Lane::waiting).filter_map(|w| {
            let many = w.records >= COMMIT_RECORDS || w.bytes >= COMMIT_BYTES;
            w.since_us.map(|since| (many, since))
        });
        let kept = self.keeping.due().map(|(count, since)| (count >= COMMIT_RECORDS, since));
        let due = |(many, since)| if many || self.state.urgent { 0 } else { since + delay };
        lanes.chain(kept).map(due).min()
    }

    pub(super) fn wants_tidying(&self) -> bool {
        // A full lane tries again: what was settled or evicted since may have made room.
        let lanes = self.lanes.iter().any(|l| l.has_tidying() || l.stats.full);
        lanes
            || self.keeping.is_full()
            || self.expiry_due()
            || self.lanes.iter().any(Lane::is_purging)
            || self.has_losses_to_tell()
            || !self.state.revived.is_empty()
            || self.state.disk_full
    }

    fn has_losses_to_tell(&self) -> bool {
        !self.state.untold.is_empty() || !self.state.telling.is_empty()
    }

    fn expiry_due(&self) -> bool {
        self.state.now_us >= self.state.expiry_at_us
    }

    fn commit(&mut self, insert: bool) {
        let mut commit = Commit { at: clock::wall_ms(), ..Commit::default() };
        self.state.tidy_at_us = self.state.now_us + TIDY_US;
        self.state.urgent = false;
        if self.expiry_due() || self.lanes.iter().any(Lane::is_purging) {
            self.state.expiry_at_us = self.state.now_us + EXPIRY_US;
            self.lanes.iter_mut().for_each(|l| l.plan_expiry(&mut commit, clock::wall_ms()));
        }
        self.make_room();
        let mut chunk_lanes = Vec::new();
        // The events lane comes last: it tells of what the others put into this very commit.
        let others: Vec<usize> = self.order.iter().copied().filter(|i| *i != self.events_lane).collect();
        for i in others {
            self.plan_lane(i, &mut commit, insert, &mut chunk_lanes);
        }
        if insert {
            self.tell_losses();
        }
        self.copy_dead_letters(&commit);
        self.plan_lane(self.events_lane, &mut commit, insert, &mut chunk_lanes);
        self.mark_told(&mut commit);
        self.revive(&mut commit);
        self.plan_kept(&mut commit, insert);
        if commit.is_empty() {
            if insert && self.state.room_bytes >= ROOM_AGAIN {
                self.disk_is_full(false, "");
            }
            self.lanes.iter_mut().for_each(|l| l.committed(None, self.state.now_us));
            return;
        }
        self.count_payload(&commit);
        if self.owner.ask(Request::Commit(Box::new(commit))).is_err() {
            // The queue is full of commands: the same again in a moment.
            self.undo_commit();
            return;
        }
        self.state.committing = Some(chunk_lanes);
        self.state.commit_asked_us = self.state.now_us;
    }

    /// What is delivered and only held (`spool.settle`) goes before a reading is refused for want of room: on the disk, or in
    /// the file for another lane.
    fn make_room(&mut self) {
        let refused = (0..self.lanes.len()).any(|i| self.lanes[i].stats.full && self.room(i) < COMMIT_BYTES as u64);
        if self.state.disk_full || refused {
            self.lanes.iter_mut().for_each(Lane::settle_all_early);
        }
    }

    fn plan_lane(&mut self, i: usize, commit: &mut Commit, insert: bool, chunk_lanes: &mut Vec<usize>) {
        let before = commit.chunks.len();
        let room = self.room(i);
        self.lanes[i].plan(commit, room, insert);
        if commit.chunks.len() > before {
            chunk_lanes.push(i);
        }
    }

    /// A ledger entry is told when its event is durable: in the commit that holds the event, never before.
    fn mark_told(&mut self, commit: &mut Commit) {
        let lane = &self.lanes[self.events_lane];
        let safe = self.state.telling.iter().filter(|(sequence, _)| !lane.in_memory_alone(*sequence));
        self.state.told = safe.map(|(_, id)| *id).collect();
        commit.told.extend_from_slice(&self.state.told);
    }

    /// Stored bytes the spool can still take for this lane: some are kept for those that go before it.
    fn room(&self, lane: usize) -> u64 {
        self.ranks[lane].share(self.config.spool.max_bytes).saturating_sub(self.state.spool.used_bytes)
    }

    fn count_payload(&mut self, commit: &Commit) {
        let bytes: usize = commit.chunks.iter().flat_map(|c| &c.records).map(|(_, b)| b.len()).sum();
        self.state.spool.payload_bytes += bytes as u64;
    }

    pub(super) fn committed(&mut self, done: &Committed) {
        let chunk_lanes = self.state.committing.take().unwrap_or_default();
        let wrote_us = self.state.now_us.saturating_sub(self.state.commit_asked_us);
        let mut stored: BTreeMap<usize, u64> = BTreeMap::new();
        for (lane, bytes) in chunk_lanes.iter().zip(&done.chunk_bytes) {
            stored.insert(*lane, *bytes);
            self.lanes[*lane].stats.write_us.record(wrote_us);
            self.state.spool.chunk_bytes += bytes;
        }
        faults::point("5-before-puback");
        for i in 0..self.lanes.len() {
            self.lanes[i].committed(stored.get(&i).copied(), self.state.now_us);
        }
        let kept = self.kept_committed();
        self.state.spool.kept = done.kept.unwrap_or(self.state.spool.kept);
        self.evicted(done);
        self.state.spool.commits += 1;
        let (told, reviving) = (std::mem::take(&mut self.state.told), std::mem::take(&mut self.state.reviving));
        self.state.telling.retain(|(_, id)| !told.contains(id));
        self.state.revived.retain(|(_, _, id)| !reviving.contains(id));
        self.answer_requeues();
        self.state.copied.clear();
        self.note_losses(&done.losses);
        if self.state.disk_full && (kept || !done.chunk_bytes.is_empty()) {
            self.disk_is_full(false, "");
        }
    }

    pub(super) fn evicted(&mut self, done: &Committed) {
        for (number, freed) in &done.evicted {
            if let Some(lane) = self.lane_by_number(*number) {
                lane.evicted(*freed);
            }
        }
    }

    pub(super) fn note_losses(&mut self, losses: &[Loss]) {
        for loss in losses {
            *self.state.lost.entry(loss.reason.clone()).or_default() += loss.n;
            tracing::error!(
                lane = loss.lane,
                n = loss.n,
                first = loss.first,
                last = loss.last,
                reason = loss.reason,
                "records left the spool undelivered; they are in the loss ledger"
            );
        }
        let room = UNTOLD_MAX.saturating_sub(self.state.untold.len());
        self.state.untold.extend(losses.iter().take(room).cloned());
    }

    pub(super) fn commit_failed(&mut self, error: &StoreError) {
        self.undo_commit();
        self.state.spool.commit_failures += 1;
        self.state.retry_at_us = self.state.now_us + RETRY_US;
        self.disk_is_full(true, &error.to_string());
    }

    /// Nothing of the last commit happened. Events of ledger entries still wait in the events lane: their entries are
    /// marked by the commit that takes them.
    fn undo_commit(&mut self) {
        self.state.committing = None;
        self.lanes.iter_mut().for_each(Lane::commit_failed);
        self.kept_failed();
        self.state.told.clear();
        self.state.reviving.clear();
    }
}
