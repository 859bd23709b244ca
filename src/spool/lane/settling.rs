//! `spool.settle`: delivered chunks that stay in the file until the broker must have them on disk, and go again when it
//! has come back without them. Pure.
//!
//! A chunk may go once each partition that took a record of it has acknowledged something that much later, without
//! giving an offset out twice: time alone proves nothing while the broker is away. In the file it looks undelivered, so
//! that a restart of the gateway sends it again: whether the power failed for both is not known then.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Lane;
use crate::forward::marks::Mark;
use crate::spool::RowId;
use crate::spool::window::Held;

/// Chunks held for each lane at most. The oldest goes early then, and is counted.
const ROWS_MAX: usize = 16_384;
/// How often it is looked which may go.
const LOOK_US: u64 = 250_000;

#[derive(Debug, Default)]
pub struct Settling {
    /// `None`: nothing is held.
    hold_us: Option<u64>,
    rows: BTreeMap<RowId, Settled>,
    /// When each partition acknowledged last, by its number minus one.
    acknowledged_us: Vec<u64>,
    look_at_us: u64,
    /// What was held is about to be read and sent again.
    again: bool,
}

/// A delivered chunk.
#[derive(Debug)]
struct Settled {
    stored: u64,
    /// Records that would go again.
    records: u64,
    /// The partitions that took them.
    marks: Box<[Mark]>,
    /// Of the last one's report.
    at_us: u64,
}

impl Settling {
    pub fn new(hold: Option<Duration>) -> Self {
        Settling { hold_us: hold.map(|hold| hold.as_micros() as u64), ..Settling::default() }
    }

    pub fn has(&self, row: RowId) -> bool {
        self.rows.contains_key(&row)
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether something of a chunk that leaves memory would have been held.
    pub fn holds(&self, chunk: &Held) -> bool {
        self.hold_us.is_some() && chunk.records.iter().any(|r| r.delivered.is_some())
    }

    /// Which records of a chunk in the window are marked in the file: delivered ones too, unless they are held.
    pub fn marks(&self, chunk: &Held) -> Vec<u8> {
        if self.hold_us.is_some() { chunk.given_up() } else { chunk.settled() }
    }

    /// What was held is read again from now on; whether anything was.
    pub fn finish_again(&mut self) -> bool {
        std::mem::take(&mut self.again)
    }

    /// A partition has acknowledged something.
    pub fn acknowledged(&mut self, mark: Mark, now_us: u64) {
        let index = usize::from(mark.get()) - 1;
        if index >= self.acknowledged_us.len() {
            self.acknowledged_us.resize(index + 1, 0);
        }
        self.acknowledged_us[index] = now_us;
    }

    /// Whether time and the partitions say that the broker must have it on disk.
    fn is_proven(&self, settled: &Settled, now_us: u64) -> bool {
        let until = settled.at_us + self.hold_us.unwrap_or(0);
        let proven = |mark: &Mark| self.acknowledged_us.get(usize::from(mark.get()) - 1).is_some_and(|at| *at >= until);
        now_us >= until && settled.marks.iter().all(proven)
    }
}

impl Settled {
    fn of(held: &Held, at_us: u64) -> Self {
        let delivered = held.records.iter().filter_map(|r| r.delivered);
        let mut marks: Vec<_> = delivered.clone().flatten().collect();
        marks.sort_unstable();
        marks.dedup();
        Settled { stored: held.stored, records: delivered.count() as u64, marks: marks.into(), at_us }
    }
}

impl Lane {
    /// All records of a chunk of the window are settled: it is held, or it goes.
    pub(super) fn settle_chunk(&mut self, chunk: usize, now_us: u64) {
        let held = self.window.chunk(chunk);
        let (row, stored) = (held.row, held.stored);
        if !self.settling.holds(held) {
            self.retire(row, stored);
            return;
        }
        let settled = Settled::of(held, now_us);
        // Dead letters and what was purged must not come back with the others, also not after a restart.
        let given_up = held.given_up();
        if given_up.iter().any(|byte| *byte != 0) {
            self.pending.bitmaps.push((row, given_up));
        }
        self.tally.chunks -= 1;
        self.tally.bytes -= stored as i64;
        self.tally.settling_bytes += stored as i64;
        self.settling.rows.insert(row, settled);
        if self.settling.rows.len() > ROWS_MAX {
            self.stats.settled_early += 1;
            self.let_oldest_go();
        }
    }

    /// Lets go what is proven.
    pub(super) fn let_settled_go(&mut self, now_us: u64) {
        if self.settling.is_empty() || now_us < self.settling.look_at_us {
            return;
        }
        self.settling.look_at_us = now_us + LOOK_US;
        let proven = |(row, settled): (&RowId, &Settled)| self.settling.is_proven(settled, now_us).then_some(*row);
        let rows: Vec<RowId> = self.settling.rows.iter().filter_map(proven).collect();
        for row in rows {
            self.let_go(row);
        }
        self.show_backlog();
    }

    fn let_oldest_go(&mut self) -> Option<u64> {
        let row = *self.settling.rows.keys().next()?;
        self.let_go(row)
    }

    fn let_go(&mut self, row: RowId) -> Option<u64> {
        let settled = self.settling.rows.remove(&row)?;
        self.tally.settling_bytes -= settled.stored as i64;
        // As it was before it was held, so that `retire` counts it like any other.
        self.tally.chunks += 1;
        self.tally.bytes += settled.stored as i64;
        self.retire(row, settled.stored);
        Some(settled.stored)
    }

    /// Room is needed, `bytes` of it: what was delivered goes before what was not. Returns how much went for good: a lane
    /// with history keeps it as that.
    pub(super) fn settle_early(&mut self, bytes: u64) -> u64 {
        let mut freed = 0;
        while freed < bytes
            && let Some(stored) = self.let_oldest_go()
        {
            self.stats.settled_early += 1;
            freed += stored;
        }
        self.show_backlog();
        if self.config.keep.is_some() { 0 } else { freed }
    }

    /// Lets go of all that is held: others need the room.
    pub fn settle_all_early(&mut self) {
        self.settle_early(u64::MAX);
    }

    /// Lets go of what is held between two rows.
    pub(super) fn settle_between(&mut self, after: RowId, before: RowId) {
        let held = self.settling.rows.range(after.saturating_add(1).min(before)..before);
        let rows: Vec<RowId> = held.map(|(row, _)| *row).collect();
        self.stats.settled_early += rows.len() as u64;
        for row in rows {
            self.let_go(row);
        }
    }

    /// A chunk is read again, and a broker that has just lost records may lack what it has acknowledged of it since.
    /// Returns which of its records stay settled.
    pub(super) fn send_all_again(&mut self, chunk: &Held) -> Vec<u8> {
        let delivered = chunk.records.iter().filter(|r| r.delivered.is_some()).count();
        self.tally.records += delivered as i64;
        self.stats.sent_again += delivered as u64;
        chunk.given_up()
    }

    /// The broker has come back without what it had acknowledged: all that is held goes again, in order, with the same
    /// ids. Returns how many records.
    pub fn send_again(&mut self) -> u64 {
        let held_back = std::mem::take(&mut self.settling.rows);
        let mut again = self.window.unsettle(|row| held_back.contains_key(&row));
        self.tally.records += again as i64;
        for settled in held_back.into_values() {
            self.tally.settling_bytes -= settled.stored as i64;
            self.tally.chunks += 1;
            self.tally.bytes += settled.stored as i64;
            self.tally.records += settled.records as i64;
            again += settled.records;
        }
        if again > 0 {
            self.settling.again = true;
            self.parks.rewind();
            self.stats.sent_again += again;
        }
        self.show_backlog();
        again
    }
}
