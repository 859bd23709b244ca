//! What a lane holds in memory: records not yet durable (open) and durable chunks near its head (held). Pure.

use std::collections::VecDeque;

use super::{Commit, RowId};
use crate::forward::marks::Mark;
use crate::intake::{AckTicket, Change, MessageId};
use crate::record::Body;

/// Place of a record in its lane. `ordinal` counts the runs in the order in which their chunks lie in the file, so that
/// keys of one lane are ordered as the records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub ordinal: u32,
    pub sequence: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Not with the producer.
    Waiting,
    /// With the producer, its delivery report is still to come.
    Sent,
    /// Delivered, or in the dead letters, or in the ledger.
    Settled,
}

/// Accepted, not durable yet: held for its delivery report (direct) or for the next commit (spooling).
#[derive(Debug)]
pub struct Open {
    pub sequence: u64,
    pub body: Body,
    pub stage: Stage,
    pub ack: Option<AckTicket>,
    pub attached: Option<Box<Attached>>,
    pub accepted_us: u64,
    pub sent_us: u64,
}

/// What becomes durable in the very commit that holds its record, or that says what else became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// In the order in which the hub took changes.
    pub number: u64,
    pub change: Option<Change>,
    pub message_id: Option<MessageId>,
}

impl Attached {
    pub fn put_into(&self, commit: &mut Commit) {
        commit.changes.extend(self.change.iter().map(|change| (self.number, change.clone())));
        commit.message_ids.extend(self.message_id);
    }
}

/// A record of a durable chunk.
#[derive(Debug)]
pub struct HeldRecord {
    pub sequence: u64,
    pub body: Body,
    pub stage: Stage,
    /// Kafka has acknowledged it: by the partition with this number, where that is known.
    pub delivered: Option<Option<Mark>>,
    pub sent_us: u64,
}

/// A durable chunk in memory.
#[derive(Debug)]
pub struct Held {
    pub row: RowId,
    pub run: u64,
    pub ordinal: u32,
    pub records: Vec<HeldRecord>,
    pub unsettled: usize,
    /// Bytes of the records in memory.
    pub bytes: usize,
    /// Bytes in the file.
    pub stored: u64,
}

/// What a record costs in memory besides its bytes.
pub const RECORD_OVERHEAD: usize = std::mem::size_of::<HeldRecord>();

impl Held {
    pub fn first_key(&self) -> Key {
        Key { ordinal: self.ordinal, sequence: self.records.first().map_or(0, |r| r.sequence) }
    }

    /// Which records are settled: one bit each, lowest first.
    pub fn settled(&self) -> Vec<u8> {
        self.bitmap(|record| record.stage == Stage::Settled)
    }

    /// Which are settled without having been delivered: in the dead letters, or in the ledger.
    pub fn given_up(&self) -> Vec<u8> {
        self.bitmap(|record| record.stage == Stage::Settled && record.delivered.is_none())
    }

    fn bitmap(&self, is_set: impl Fn(&HeldRecord) -> bool) -> Vec<u8> {
        let mut bits = vec![0u8; self.records.len().div_ceil(8)];
        for (i, _) in self.records.iter().enumerate().filter(|(_, record)| is_set(record)) {
            bits[i / 8] |= 1 << (i % 8);
        }
        bits
    }
}

/// Whether bit `i` is set.
pub fn bit(bits: &[u8], i: usize) -> bool {
    bits.get(i / 8).is_some_and(|b| b & 1 << (i % 8) != 0)
}

/// The chunks near the head of a lane, oldest first, and how far they have been sent.
#[derive(Debug, Default)]
pub struct Window {
    chunks: VecDeque<Held>,
    bytes: usize,
    /// Next record to look at: chunk and record.
    cursor: (usize, usize),
}

impl Window {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub fn chunks(&self) -> impl Iterator<Item = &Held> {
        self.chunks.iter()
    }

    /// Puts a chunk in its place by its row. Almost always that is the end; a chunk handed over by a `live-first` lane
    /// comes before older ones that are still to be read.
    pub fn insert(&mut self, held: Held) {
        self.bytes += held.bytes;
        let at = self.chunks.partition_point(|c| c.row < held.row);
        self.chunks.insert(at, held);
        if at <= self.cursor.0 {
            // What lies before the cursor is sent, settled or parked, and passed over again by that.
            self.cursor = (at, 0);
        }
    }

    pub fn has_row(&self, row: RowId) -> bool {
        self.chunks.binary_search_by_key(&row, |c| c.row).is_ok()
    }

    pub fn first_row(&self) -> Option<RowId> {
        self.chunks.front().map(|c| c.row)
    }

    /// Finds the record with this key.
    pub fn find(&self, key: Key) -> Option<(usize, usize)> {
        let after = self.chunks.partition_point(|c| c.first_key() <= key);
        let chunk = after.checked_sub(1)?;
        let held = &self.chunks[chunk];
        if held.ordinal != key.ordinal {
            return None;
        }
        let record = held.records.binary_search_by_key(&key.sequence, |r| r.sequence).ok()?;
        Some((chunk, record))
    }

    pub fn get(&self, (chunk, record): (usize, usize)) -> &HeldRecord {
        &self.chunks[chunk].records[record]
    }

    pub fn get_mut(&mut self, (chunk, record): (usize, usize)) -> &mut HeldRecord {
        &mut self.chunks[chunk].records[record]
    }

    pub fn chunk(&self, chunk: usize) -> &Held {
        &self.chunks[chunk]
    }

    /// Marks a record settled. Returns the chunk's row when that was its last.
    pub fn settle(&mut self, at: (usize, usize)) -> Option<RowId> {
        let held = &mut self.chunks[at.0];
        let record = &mut held.records[at.1];
        if record.stage == Stage::Settled {
            return None;
        }
        record.stage = Stage::Settled;
        held.unsettled -= 1;
        (held.unsettled == 0).then_some(held.row)
    }

    /// Drops settled chunks from the front, and gives their memory back.
    pub fn pop_settled(&mut self) {
        while self.chunks.front().is_some_and(|c| c.unsettled == 0) {
            self.pop_front();
        }
    }

    /// Takes the oldest chunk out, whatever its state.
    pub fn pop_front(&mut self) -> Option<Held> {
        let held = self.chunks.pop_front()?;
        self.bytes -= held.bytes;
        self.cursor = if self.cursor.0 == 0 { (0, 0) } else { (self.cursor.0 - 1, self.cursor.1) };
        Some(held)
    }

    /// The oldest chunk, when the cursor has left it behind.
    pub fn passed_front(&self) -> Option<&Held> {
        self.chunks.front().filter(|_| self.cursor.0 > 0)
    }

    /// Moves the cursor to the next waiting record at or behind it that `wanted` takes, and returns its place.
    pub fn next_waiting(&mut self, mut wanted: impl FnMut(&HeldRecord) -> bool) -> Option<(usize, usize)> {
        while let Some(held) = self.chunks.get(self.cursor.0) {
            while let Some(record) = held.records.get(self.cursor.1) {
                if record.stage == Stage::Waiting && wanted(record) {
                    return Some(self.cursor);
                }
                self.cursor.1 += 1;
            }
            self.cursor = (self.cursor.0 + 1, 0);
        }
        None
    }

    pub fn advance(&mut self) {
        self.cursor.1 += 1;
    }

    /// Looks at everything again from the oldest: what is sent or settled is passed over by its stage.
    pub fn rewind(&mut self) {
        self.cursor = (0, 0);
    }

    /// Whether every record has been passed.
    pub fn at_end(&self) -> bool {
        self.cursor.0 >= self.chunks.len()
    }

    /// The producer is gone: what it held waits again.
    pub fn unsend_all(&mut self) {
        for record in self.chunks.iter_mut().flat_map(|c| c.records.iter_mut()) {
            if record.stage == Stage::Sent {
                record.stage = Stage::Waiting;
            }
        }
        self.rewind();
    }

    /// What was delivered waits again: in chunks that are not all settled, and in those of which `held` says so. Returns
    /// how many records of the former there are; of the latter somebody else keeps the count.
    pub fn unsettle(&mut self, held: impl Fn(RowId) -> bool) -> u64 {
        let mut counted = 0;
        for chunk in &mut self.chunks {
            let partly = chunk.unsettled > 0;
            if !partly && !held(chunk.row) {
                continue;
            }
            for record in chunk.records.iter_mut().filter(|r| r.stage == Stage::Settled && r.delivered.is_some()) {
                record.stage = Stage::Waiting;
                record.delivered = None;
                chunk.unsettled += 1;
                counted += u64::from(partly);
            }
        }
        counted
    }

    /// Records with the producer that match.
    pub fn count_sent(&self, mut matches: impl FnMut(&Body) -> bool) -> usize {
        self.chunks.iter().flat_map(|c| &c.records).filter(|r| r.stage == Stage::Sent && matches(&r.body)).count()
    }
}
