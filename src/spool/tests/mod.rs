//! The spool on real files: the store against a model, cuts of the WAL, damage of every kind, full disks.

#![expect(clippy::unwrap_used, reason = "tests")]

mod damage;
mod full;
mod kept;
mod resume;
mod store;
mod wal;

use std::collections::BTreeMap;
use std::path::Path;

use super::store::Store;
use super::{Commit, NewChunk, RowId, StoredChunk, row_base};
use crate::record::{Arrival, Body, RecordView, TimestampKind};
use crate::spool::lane::tests::dice::Dice;

/// ms since 1970 of the first record.
const SET: i64 = 1_790_000_000_000;
const LANE: u32 = 1;
const RUN: u64 = 77;
const MAX_BYTES: u64 = 1 << 30;

/// A record that tells its number; `size` bytes that do not compress follow.
fn body(id: u64, size: usize) -> Body {
    let mut dice = Dice::new(id);
    let mut payload = id.to_le_bytes().to_vec();
    payload.extend((0..size).map(|_| dice.roll() as u8));
    let arrival = Arrival { wall_ms: id as i64, boot_ms: 0 };
    let view = RecordView {
        topic: "t",
        key: Some(b"k"),
        headers: Vec::new(),
        payload: &payload,
        timestamp_ms: 0,
        timestamp_kind: TimestampKind::Arrival,
        arrival,
        old_id: None,
    };
    view.encode(&mut Vec::new())
}

/// Chunk `i` of a lane: records `10 * i ..`, `n` of them.
fn chunk(lane: u32, i: u64, n: u64, size: usize) -> NewChunk {
    let records: Vec<_> = (10 * i..10 * i + n).map(|id| (id, body(id, size))).collect();
    // Behind the first plausible clock: what is older has no age.
    let (ts_min, ts_max) = (SET + 10 * i as i64, SET + (10 * i + n - 1) as i64);
    NewChunk { row: row_base(lane) + 1 + i as RowId, run: RUN, records, ts_min, ts_max }
}

fn insert(chunks: Vec<NewChunk>) -> Commit {
    Commit { at: 5, chunks, ..Commit::default() }
}

fn open(dir: &Path) -> Store {
    Store::open(&dir.join("spool.db"), MAX_BYTES, 1 << 20).unwrap()
}

/// Every undelivered chunk of a lane by its row.
fn read_all(store: &mut Store, lane: u32) -> BTreeMap<RowId, StoredChunk> {
    let mut found = BTreeMap::new();
    let mut after = row_base(lane);
    loop {
        let read = store.read(lane, after, 10_000).unwrap();
        after = read.chunks.last().map_or(after, |c| c.row);
        found.extend(read.chunks.into_iter().map(|c| (c.row, c)));
        if !read.more {
            return found;
        }
    }
}

fn copy(from: &Path, to: &Path, suffix: &str) {
    let name = format!("spool.db{suffix}");
    std::fs::copy(from.join(&name), to.join(&name)).unwrap();
}
