//! Step 6 of a lane: chunks from the file into the window, and the count of what a start found.

use super::tally::Tally;
use super::{Lane, READ_RETRY_US, Staged, THIS_RUN};
use crate::spool::window::{Held, HeldRecord, RECORD_OVERHEAD, Stage, bit};
use crate::spool::{Freed, RowId, StoredChunk};

impl Lane {
    /// Where and how much to read next, if the lane wants to read.
    pub fn wants_read(&self, now_us: u64) -> Option<(RowId, u64)> {
        let room = self.window_bytes_max.saturating_sub(self.window.bytes());
        let calm = now_us >= self.read_again_us && !self.parks.rewinding();
        let wants = self.unread && !self.reading && calm && self.pending.bitmaps.is_empty();
        (wants && self.staged.bitmaps.is_empty() && room * 2 >= self.window_bytes_max)
            .then_some((self.last_row, room as u64))
    }

    pub fn read_started(&mut self) {
        self.reading = true;
    }

    /// Nothing came: it is tried again after a pause.
    pub fn read_failed(&mut self, now_us: u64) {
        self.reading = false;
        self.read_again_us = now_us + READ_RETRY_US;
    }

    /// Chunks that could not be decoded have left the file for the ledger.
    pub fn discarded(&mut self, freed: Freed) {
        self.stats.lost += freed.records;
        self.tally.take(freed);
        self.show_backlog();
    }

    /// The file has been replaced by what could be salvaged: until the lane is empty, nobody knows how much that is.
    pub fn replaced(&mut self) {
        self.recount = true;
        self.unread = true;
    }

    /// Chunks read from the file, in order.
    pub fn read_done(&mut self, chunks: Vec<StoredChunk>, more: bool) {
        self.reading = false;
        self.unread = more;
        if self.recount && !more && chunks.is_empty() && self.window.is_empty() {
            self.recount = false;
            let Tally { history_bytes, settling_bytes, .. } = self.tally;
            self.tally = Tally { history_bytes, settling_bytes, ..Tally::default() };
            self.show_backlog();
        }
        // A row that this lane has not written yet is what a failed commit left behind: its records are still open.
        let unwritten = self.staged.row().unwrap_or(self.next_row);
        for chunk in chunks {
            if chunk.row >= unwritten {
                continue;
            }
            self.last_row = chunk.row;
            // All of it is settled, and its row goes with a commit that is still to come or on its way.
            let goes = |staged: &Staged| staged.settled.iter().any(|(row, _)| *row == chunk.row);
            if self.window.has_row(chunk.row)
                || self.settling.has(chunk.row)
                || goes(&self.pending)
                || goes(&self.staged)
            {
                continue;
            }
            let held = self.hold(chunk);
            if held.unsettled > 0 {
                self.window.insert(held);
            }
        }
    }

    pub(super) fn hold(&mut self, chunk: StoredChunk) -> Held {
        let ordinal = self.ordinal(chunk.run);
        let mut bytes = 0;
        let records: Vec<HeldRecord> = chunk
            .records
            .into_iter()
            .enumerate()
            .map(|(i, (sequence, body))| {
                bytes += body.len() + RECORD_OVERHEAD;
                let stage = if bit(&chunk.settled, i) { Stage::Settled } else { Stage::Waiting };
                HeldRecord { sequence, body, stage, delivered: None, sent_us: 0 }
            })
            .collect();
        let unsettled = records.iter().filter(|r| r.stage != Stage::Settled).count();
        Held { row: chunk.row, run: chunk.run, ordinal, records, unsettled, bytes, stored: chunk.bytes }
    }

    pub(super) fn ordinal(&mut self, run: u64) -> u32 {
        if run == self.run {
            return THIS_RUN;
        }
        match self.ordinals.iter().position(|r| *r == run) {
            Some(i) => i as u32,
            None => {
                self.ordinals.push(run);
                self.ordinals.len() as u32 - 1
            }
        }
    }

    /// A slice of the count after a start.
    pub fn counted(&mut self, found: Freed) {
        self.tally.add(found);
        self.show_backlog();
    }
}
