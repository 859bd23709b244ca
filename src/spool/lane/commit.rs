//! The lane's part of a commit: what goes into it (step 4), and what follows when it is durable (steps 5 and 9).

use super::{Burial, Dropped, Lane, Mode, THIS_RUN};
use crate::config::{Delivery as Guarantee, WhenFull};
use crate::spool::chunk::Numbered;
use crate::spool::window::{Held, HeldRecord, Open, RECORD_OVERHEAD, Stage};
use crate::spool::{Commit, Evict, EvictUntil, Freed, Loss, NewChunk, Reason, RowId, row_base};

/// A chunk takes what waits, up to these.
const CHUNK_RECORDS_MAX: usize = 4096;
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// One eviction frees this share of the limit more than needed, so that it does not run at every commit.
const EVICT_SHARE: u64 = 20;

/// A lane's part of the running commit, or what waits for the next.
#[derive(Debug, Default)]
pub struct Staged {
    pub settled: Vec<(RowId, bool)>,
    pub bitmaps: Vec<(RowId, Vec<u8>)>,
    /// Since when the first of `settled` waits, µs of this process.
    pub(super) settled_us: Option<u64>,
    dead: Vec<Burial>,
    dropped: Vec<Dropped>,
    /// Open records from the front that are in the commit's chunk.
    pub(super) open: usize,
    row: RowId,
}

impl Staged {
    /// The row of the chunk in the running commit.
    pub(super) fn row(&self) -> Option<RowId> {
        (self.open > 0).then_some(self.row)
    }

    pub fn is_empty(&self) -> bool {
        self.settled.is_empty()
            && self.bitmaps.is_empty()
            && self.dead.is_empty()
            && self.dropped.is_empty()
            && self.open == 0
    }
}

/// What waits for a commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    pub records: usize,
    pub bytes: usize,
    /// Acceptance of the oldest, µs of this process.
    pub since_us: Option<u64>,
}

impl Lane {
    /// What a sender waits for: the commit rule asks this.
    pub fn waiting(&self) -> Waiting {
        let mut waiting = Waiting::default();
        if self.mode == Mode::Spooling && self.staged.open == 0 && self.would_store() {
            waiting.records = self.open.len();
            waiting.bytes = self.stats.open_bytes as usize;
            waiting.since_us = self.open.front().map(|o| o.accepted_us);
        }
        // A dead letter's sender waits too.
        if !self.dead.is_empty() || !self.dropped.is_empty() {
            waiting.records += self.dead.len() + self.dropped.len();
            waiting.since_us = Some(waiting.since_us.unwrap_or(0));
        }
        waiting
    }

    /// Whether a commit would take open records, as far as is known.
    fn would_store(&self) -> bool {
        let droppable =
            self.when_full() == WhenFull::DropNewest && self.open.front().is_some_and(|o| o.stage == Stage::Waiting);
        self.config.delivery != Guarantee::AtMostOnce && (!self.stats.full || droppable)
    }

    /// Whether there is something to delete or mark: it goes along with the next insert, or once a second.
    pub fn has_tidying(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Puts this lane's part into `commit`. `room`: stored bytes that the whole spool can still take for this lane;
    /// `insert`: false while the disk is full, when only what frees space may be written.
    pub fn plan(&mut self, commit: &mut Commit, room: u64, insert: bool) {
        debug_assert!(self.staged.is_empty(), "one commit at a time");
        self.staged = std::mem::take(&mut self.pending);
        // A chunk may be deleted only together with the dead letters and ledger entries that settled it.
        self.staged.dead.extend(self.dead.extract_if(.., |b| insert || b.stored));
        if insert {
            self.plan_chunk(commit, room);
            // What made room for it.
            self.staged.settled.append(&mut self.pending.settled);
        }
        self.staged.dropped.extend(self.dropped.extract_if(.., |d| insert || d.attached.is_empty()));
        commit.settled.extend_from_slice(&self.staged.settled);
        commit.bitmaps.extend_from_slice(&self.staged.bitmaps);
        commit.dead.extend(self.staged.dead.iter().map(|b| b.letter.clone()));
        commit.losses.extend(self.staged.dropped.iter().map(|d| d.loss.clone()));
        let buried = self.staged.dead.iter().filter_map(|b| b.attached.as_deref());
        let dropped = self.staged.dropped.iter().flat_map(|d| &d.attached);
        let stored = self.open.iter().take(self.staged.open).filter_map(|o| o.attached.as_deref());
        buried.chain(dropped).chain(stored).for_each(|attached| attached.put_into(commit));
    }

    fn plan_chunk(&mut self, commit: &mut Commit, room: u64) {
        if self.mode != Mode::Spooling || self.open.is_empty() || self.config.delivery == Guarantee::AtMostOnce {
            return;
        }
        self.forget_settled();
        let records = self.next_records();
        let count = records.len();
        let bytes: usize = records.iter().map(|(_, b)| b.len()).sum();
        self.stats.full = !self.fits(commit, bytes as u64, records.len() as u64, room);
        if !self.stats.full {
            self.staged.open = count;
            self.staged.row = self.next_row;
            if let Some(chunk) = new_chunk(self.next_row, self.run, records) {
                self.next_row += 1;
                commit.chunks.push(chunk);
            }
        } else if self.when_full() == WhenFull::DropNewest {
            self.drop_newest(count);
        }
    }

    /// What has been delivered meanwhile needs no place in the chunk: the bitmap counts the chunk's records alone.
    fn forget_settled(&mut self) {
        let freed = &mut self.stats.open_bytes;
        self.open.retain(|o| {
            let stays = o.stage != Stage::Settled;
            if !stays {
                *freed -= (o.body.len() + RECORD_OVERHEAD) as u64;
            }
            stays
        });
        self.next_send = 0;
    }

    /// The records of the next chunk, from the front of `open`.
    fn next_records(&self) -> Vec<Numbered> {
        let bytes_max = CHUNK_BYTES_MAX.min(self.config.max_bytes as usize);
        let mut bytes = 0;
        let fits = |o: &&Open| {
            let first = bytes == 0;
            bytes += o.body.len();
            first || bytes <= bytes_max
        };
        // Never more than the lane may hold, else it would wait for ever.
        let records_max =
            self.config.max_records.map_or(CHUNK_RECORDS_MAX, |max| CHUNK_RECORDS_MAX.min(max.max(1) as usize));
        self.open.iter().take(records_max).take_while(fits).map(|o| (o.sequence, o.body.clone())).collect()
    }

    /// Whether the records may be stored; with `drop-oldest` it makes them fit, as far as anything lies behind the
    /// window.
    fn fits(&mut self, commit: &mut Commit, bytes: u64, records: u64, room: u64) -> bool {
        let backlog = self.stats.backlog;
        let held = backlog.bytes + backlog.history_bytes + backlog.settling_bytes;
        // A record larger than the limit still goes into an empty lane.
        let over_lane = if held == 0 { 0 } else { (held + bytes).saturating_sub(self.config.max_bytes) };
        let over_bytes = over_lane.max(bytes.saturating_sub(room));
        let over_bytes = over_bytes.saturating_sub(self.settle_early(over_bytes));
        let history = self.stats.backlog.history_bytes;
        let over_records = self.config.max_records.map_or(0, |max| (backlog.records + records).saturating_sub(max));
        if over_bytes == 0 && over_records == 0 {
            return true;
        }
        let history_does = over_records == 0 && history >= over_bytes;
        let oldest_may = self.when_full() == WhenFull::DropOldest && (self.unread || self.parks.left_behind());
        if self.reading || !(history_does || oldest_may) {
            return false;
        }
        if over_bytes > 0 {
            let spare = if oldest_may { self.config.max_bytes / EVICT_SHARE } else { 0 };
            self.evict_outside_window(commit, EvictUntil::Bytes(over_bytes + spare), Reason::DropOldest, oldest_may);
        }
        if over_records > 0 {
            self.evict_outside_window(commit, EvictUntil::Records(over_records), Reason::DropOldest, true);
        }
        true
    }

    /// Undelivered chunks may go where no record of theirs is in memory: behind the window, or, before it, those that
    /// hold only parked records. With `history_only` none may.
    fn evict_outside_window(&mut self, commit: &mut Commit, until: EvictUntil, reason: Reason, undelivered_too: bool) {
        let lane = self.number;
        if !undelivered_too {
            commit.evictions.push(Evict { lane, after: RowId::MAX, before: RowId::MAX, until, reason });
        } else if self.parks.left_behind() && !self.unread {
            // They are the oldest; what is left behind is looked for only when nothing waits behind the window.
            let before = self.window.first_row().unwrap_or(self.last_row + 1);
            self.evict(commit, (row_base(lane), before), until, reason);
        } else {
            self.evict(commit, self.behind_window(), until, reason);
        }
    }

    /// Undelivered chunks between two rows.
    fn evict(&mut self, commit: &mut Commit, (after, before): (RowId, RowId), until: EvictUntil, reason: Reason) {
        // Held ones look the same in the file.
        self.settle_between(after, before);
        commit.evictions.push(Evict { lane: self.number, after, before, until, reason });
    }

    /// The oldest rows that are still to be read. A chunk handed over by a `live-first` lane may lie behind them.
    fn behind_window(&self) -> (RowId, RowId) {
        let held = self.window.chunks().map(|c| c.row).find(|row| *row > self.last_row);
        (self.last_row, held.unwrap_or(self.next_row))
    }

    /// Whether a purge waits for a commit.
    pub fn is_purging(&self) -> bool {
        self.purging
    }

    /// `max_age`: chunks behind the window whose youngest record is older go; and history, and what is purged.
    pub fn plan_expiry(&mut self, commit: &mut Commit, wall_ms: i64) {
        if let Some(keep) = self.config.keep.filter(|_| self.stats.backlog.history_bytes > 0) {
            let until = EvictUntil::OlderThan(wall_ms - keep.as_millis() as i64);
            self.evict_outside_window(commit, until, Reason::Age, false);
        }
        if self.purging && !self.reading {
            self.plan_purge(commit);
        }
        if let Some(age) = self.config.max_age.filter(|_| self.unread && !self.reading) {
            let until = EvictUntil::OlderThan(wall_ms - age.as_millis() as i64);
            self.evict(commit, self.behind_window(), until, Reason::Age);
        }
    }

    fn plan_purge(&mut self, commit: &mut Commit) {
        (self.purging, self.purge_staged) = (false, true);
        let (until, reason) = (EvictUntil::Records(u64::MAX), Reason::Purged);
        let left_behind = (row_base(self.number), self.window.first_row().unwrap_or(self.last_row + 1));
        for rows in [left_behind, self.behind_window()] {
            self.evict(commit, rows, until, reason);
        }
    }

    fn drop_newest(&mut self, count: usize) {
        let (mut acks, mut attached) = (Vec::new(), Vec::new());
        let (mut first, mut last, mut n) = (None, 0, 0);
        for _ in 0..count {
            // What is with the producer is never dropped.
            if self.open.front().is_none_or(|o| o.stage != Stage::Waiting) {
                break;
            }
            let Some(open) = self.pop_open() else { break };
            first.get_or_insert(open.sequence);
            (last, n) = (open.sequence, n + 1);
            acks.extend(open.ack);
            attached.extend(open.attached.map(|boxed| *boxed));
        }
        if let Some(first) = first {
            self.stats.lost += n;
            let reason = Reason::DropNewest.as_str().to_owned();
            let loss = Loss { id: 0, at: 0, lane: self.number, run: self.run, first, last, n, exact: true, reason };
            self.dropped.push(Dropped { loss, acks, attached });
        }
    }

    /// A person gives the undelivered up: what waits in memory now, what lies behind it with the next commit. What is
    /// with the producer stays.
    pub fn purge(&mut self, now_us: u64) {
        let mut losses: Vec<Loss> = Vec::new();
        // Parked records lie before the cursor.
        self.window.rewind();
        while let Some(at) = self.window.next_waiting(|_| true) {
            let (run, sequence) = (self.window.chunk(at.0).run, self.window.get(at).sequence);
            match losses.last_mut().filter(|l| l.run == run) {
                Some(loss) => (loss.last, loss.n) = (sequence, loss.n + 1),
                None => losses.push(self.purged(run, sequence)),
            }
            self.settle_held(at, now_us);
        }
        self.stats.lost += losses.iter().map(|l| l.n).sum::<u64>();
        self.dropped.extend(losses.into_iter().map(|loss| Dropped { loss, acks: Vec::new(), attached: Vec::new() }));
        // The ledger tells exactly what is gone, also after a crash: what was purged of a chunk is marked with it.
        let partly =
            self.window.chunks().filter(|c| c.unsettled < c.records.len()).map(|c| (c.row, self.settling.marks(c)));
        self.pending.bitmaps.extend(partly);
        self.purging = true;
    }

    fn purged(&self, run: u64, sequence: u64) -> Loss {
        let reason = Reason::Purged.as_str().to_owned();
        Loss { id: 0, at: 0, lane: self.number, run, first: sequence, last: sequence, n: 1, exact: true, reason }
    }

    /// The commit is durable: acknowledges (step 5) and takes the chunk into the window if it follows what is there.
    /// `stored`: the chunk's bytes in the file, when this lane had one.
    pub fn committed(&mut self, stored: Option<u64>, now_us: u64) {
        let staged = std::mem::take(&mut self.staged);
        self.purge_staged = false;
        if let Some(since) = staged.settled_us {
            self.stats.settle_us.record(now_us.saturating_sub(since));
        }
        for ack in staged.dead.into_iter().filter_map(|b| b.ack) {
            ack.fire();
        }
        for ack in staged.dropped.into_iter().flat_map(|d| d.acks) {
            ack.fire();
        }
        if staged.open > 0 {
            let held = self.close_open(staged.open, staged.row, stored.unwrap_or_default(), now_us);
            self.take_in(held);
        }
        self.drop_settled_open();
    }

    /// Takes the committed records out of `open` and fires their acks.
    fn close_open(&mut self, count: usize, row: RowId, stored: u64, now_us: u64) -> Held {
        let mut records = Vec::with_capacity(count);
        let (mut bytes, mut unsettled) = (0, 0);
        for _ in 0..count {
            let Some(open) = self.pop_open() else { break };
            if let Some(ack) = open.ack {
                ack.fire();
            }
            self.stats.commit_us.record(now_us.saturating_sub(open.accepted_us));
            bytes += open.body.len() + RECORD_OVERHEAD;
            unsettled += usize::from(open.stage != Stage::Settled);
            let (sequence, body, stage, sent_us) = (open.sequence, open.body, open.stage, open.sent_us);
            records.push(HeldRecord { sequence, body, stage, delivered: None, sent_us });
        }
        Held { row, run: self.run, ordinal: THIS_RUN, records, unsettled, bytes, stored }
    }

    fn take_in(&mut self, held: Held) {
        self.tally.chunks += 1;
        self.tally.records += held.unsettled as i64;
        self.tally.bytes += held.stored as i64;
        if held.unsettled == 0 {
            self.retire(held.row, held.stored);
        }
        self.show_backlog();
        if held.unsettled == 0 {
            return;
        }
        // What is with the producer, or has come back from it already.
        let handed_over = held.records.iter().any(|r| r.stage != Stage::Waiting);
        let fits = self.window.bytes() + held.bytes <= self.window_bytes_max;
        let follows = !self.unread && !self.parks.rewinding();
        if follows && (handed_over || fits || self.window.is_empty()) {
            self.last_row = held.row;
            self.window.insert(held);
        } else {
            // What is with the producer stays in memory, even when older chunks are still to be read before it.
            if handed_over {
                self.window.insert(held);
            }
            self.unread = true;
        }
    }

    /// Nothing of the commit happened: it is all to be done again.
    pub fn commit_failed(&mut self) {
        let mut staged = std::mem::take(&mut self.staged);
        if staged.open > 0 {
            // The same row again: had the commit reached the disk after all, the next one deletes what it wrote.
            self.next_row = staged.row;
            if !staged.settled.contains(&(staged.row, false)) {
                staged.settled.push((staged.row, false));
            }
        }
        self.purging |= std::mem::take(&mut self.purge_staged);
        // What was to be written first stays first: of two bitmaps of a row the later one holds.
        staged.settled.append(&mut self.pending.settled);
        staged.bitmaps.append(&mut self.pending.bitmaps);
        (self.pending.settled, self.pending.bitmaps) = (staged.settled, staged.bitmaps);
        self.pending.settled_us = staged.settled_us.or(self.pending.settled_us);
        staged.dead.append(&mut self.dead);
        self.dead = staged.dead;
        staged.dropped.append(&mut self.dropped);
        self.dropped = staged.dropped;
        self.drop_settled_open();
    }

    /// What an eviction in the last commit freed.
    pub fn evicted(&mut self, freed: Freed) {
        self.discarded(freed);
    }
}

fn new_chunk(row: RowId, run: u64, records: Vec<Numbered>) -> Option<NewChunk> {
    let (mut ts_min, mut ts_max) = (i64::MAX, i64::MIN);
    for arrived in records.iter().filter_map(|(_, body)| body.arrived_ms().ok()) {
        ts_min = ts_min.min(arrived);
        ts_max = ts_max.max(arrived);
    }
    // No record decodes: then nothing of it will be sent, and the bounds mean nothing.
    let (ts_min, ts_max) = if ts_min > ts_max { (0, 0) } else { (ts_min, ts_max) };
    (!records.is_empty()).then_some(NewChunk { row, run, records, ts_min, ts_max })
}
