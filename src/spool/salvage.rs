//! Salvage: what can still be read of a damaged spool goes into the new one.
//!
//! First SQLite itself scans from both ends up to the damage. If that does not reach all, every page of file and WAL is
//! searched for table cells that hold a chunk, whose own checksum proves it. A chunk deleted not long ago may be found
//! again: then records are sent twice, with the same ids, rather than lost. The ledger says "unknown, at most n" for
//! the numbers missing between two chunks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, params};

use super::chunk;
use super::lock::with_suffix;
use super::store::Store;
use super::{Commit, Loss, NewChunk, Reason, RowId, row_base};
use crate::clock;

/// What came over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Saved {
    pub chunks: u64,
    pub records: u64,
    /// Upper bound of what did not.
    pub missing_at_most: u64,
}

/// Renames the file and its WAL to `<spool>.damaged-<ms>`; the shared-memory file is worthless and goes.
///
/// # Errors
/// When the file itself cannot be renamed.
pub fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let aside = with_suffix(path, &format!("damaged-{}", clock::wall_ms()));
    std::fs::rename(path, &aside)?;
    let suffixed = |p: &Path, s: &str| PathBuf::from(format!("{}{s}", p.display()));
    let wal = suffixed(path, "-wal");
    if wal.exists() {
        std::fs::rename(wal, suffixed(&aside, "-wal"))?;
    }
    let _ = std::fs::remove_file(suffixed(path, "-shm"));
    Ok(aside)
}

/// Chunks by (lane, run, first): found twice, they count once.
type Found = BTreeMap<(u32, u64, u64), Vec<u8>>;

/// Copies all that can be read into `store`. Never fails: what cannot be read is what the ledger says.
pub fn salvage(aside: &Path, store: &mut Store) -> Saved {
    let mut found = Found::new();
    let complete = scan_with_sqlite(aside, store, &mut found).unwrap_or(false);
    if !complete {
        super::rawscan::scan(aside, &mut |bytes| keep(&mut found, bytes));
    }
    copy(&found, complete, store)
}

fn keep(found: &mut Found, bytes: &[u8]) {
    if let Ok(head) = chunk::header(bytes) {
        found.entry((head.lane, head.run, head.first)).or_insert_with(|| bytes[..head.total_len()].to_vec());
    }
}

/// Returns whether every row could be read.
fn scan_with_sqlite(aside: &Path, store: &Store, found: &mut Found) -> rusqlite::Result<bool> {
    let old = Connection::open_with_flags(aside, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    let kept = copy_small_tables(&old, store);
    let up = scan_rows(&old, "SELECT data FROM chunk WHERE settled IS NULL OR length(settled)>0 ORDER BY seq", found);
    if up.is_err() {
        let down = "SELECT data FROM chunk WHERE settled IS NULL OR length(settled)>0 ORDER BY seq DESC";
        // It stops at the damage from the other side.
        let _ = scan_rows(&old, down, found);
    }
    Ok(up.is_ok() && kept.is_ok())
}

fn scan_rows(old: &Connection, sql: &str, found: &mut Found) -> rusqlite::Result<()> {
    let mut rows = old.prepare(sql)?;
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        if let Ok(bytes) = row.get_ref(0)?.as_blob() {
            keep(found, bytes);
        }
    }
    Ok(())
}

/// Lanes, runs, dead letters and the ledger, each as far as it can be read.
fn copy_small_tables(old: &Connection, store: &Store) -> rusqlite::Result<()> {
    let new = store.connection();
    let copy = |table: &str, columns: &str, marks: &str| -> rusqlite::Result<()> {
        let mut rows = old.prepare(&format!("SELECT {columns} FROM {table}"))?;
        let width = rows.column_count();
        let mut rows = rows.query([])?;
        let mut insert = new.prepare(&format!("INSERT OR IGNORE INTO {table}({columns}) VALUES({marks})"))?;
        while let Some(row) = rows.next()? {
            let values: Vec<rusqlite::types::Value> = (0..width).map(|i| row.get(i)).collect::<Result<_, _>>()?;
            insert.execute(rusqlite::params_from_iter(values))?;
        }
        Ok(())
    };
    let lanes = copy("lane", "lane,name", "?1,?2");
    let runs = copy("run", "run,started,boot_id,clock_offset,gateway", "?1,?2,?3,?4,?5");
    let dead = copy("dead", "lane,run,sequence,at,cause,attempts,bytes,body", "?1,?2,?3,?4,?5,?6,?7,?8");
    let loss = copy("loss", "id,at,lane,run,first,last,n,exact,reason,told", "?1,?2,?3,?4,?5,?6,?7,?8,?9,?10");
    lanes.and(runs).and(dead).and(loss)
}

fn copy(found: &Found, complete: bool, store: &mut Store) -> Saved {
    let mut saved = Saved::default();
    let mut rows: BTreeMap<u32, RowId> = BTreeMap::new();
    let mut before: Option<(u32, u64, u64)> = None;
    for (&(lane, run, first), bytes) in found {
        let Ok((_, records)) = chunk::decode(bytes) else { continue };
        let (Some(last), n) = (records.last().map(|r| r.0), records.len() as u64) else { continue };
        let mut commit = Commit { at: clock::wall_ms(), ..Commit::default() };
        // Between two chunks of one run that do not touch, numbers are missing: delivered, or lost.
        if let Some((l, r, next)) = before.replace((lane, run, last + 1))
            && !complete
            && (l, r) == (lane, run)
            && next < first
        {
            saved.missing_at_most += first - next;
            commit.losses.push(gap(lane, run, next, first - 1));
        }
        let row = rows.entry(lane).or_insert(row_base(lane));
        *row += 1;
        commit.chunks.push(NewChunk { row: *row, run, records, ts_min: 0, ts_max: commit.at });
        if store.ensure_lane(lane).is_ok() && store.commit(&commit).is_ok() {
            saved.chunks += 1;
            saved.records += n;
        }
    }
    saved
}

fn gap(lane: u32, run: u64, first: u64, last: u64) -> Loss {
    let reason = Reason::Corrupt.as_str().to_owned();
    Loss { id: 0, at: 0, lane, run, first, last, n: last - first + 1, exact: false, reason }
}

impl Store {
    /// A chunk may outlive the name of its lane: then the lane is called after its number.
    fn ensure_lane(&self, number: u32) -> rusqlite::Result<()> {
        self.connection()
            .execute(
                "INSERT OR IGNORE INTO lane(lane,name) VALUES(?1,?2)",
                params![number, format!("salvaged-{number}")],
            )
            .map(|_| ())
    }
}
