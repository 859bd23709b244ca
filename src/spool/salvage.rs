//! Salvage: what can still be read of a damaged spool goes into the new one, each chunk under its old row, so that the
//! order of acceptance stays, and lanes that are running need not know.
//!
//! First SQLite itself scans from both ends up to the damage. If that does not reach all, every page of file and WAL is
//! searched for table cells that hold a chunk, whose own checksum proves it. A chunk deleted not long ago may be found
//! again: then records are sent twice, with the same ids, rather than lost. The ledger says "unknown, at most n" for
//! the numbers missing between two chunks. Memory holds one batch, however large the spool is.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::chunk;
use super::lock::with_suffix;
use super::store::{Store, classify};
use super::{Commit, LANE_SHIFT, Loss, NewChunk, Reason, RowId, StoreError, row_lane};
use crate::clock;

/// Bytes of records that one transaction brings over.
const BATCH_BYTES: usize = 1 << 20;
/// A larger number is no lane's: its rows would not fit into SQLite's.
const LANE_MAX: u32 = (1 << (63 - LANE_SHIFT)) - 1;

/// What came over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    pub chunks: u64,
    pub records: u64,
    /// Upper bound of what did not.
    pub missing_at_most: u64,
    /// The ledger's new entries.
    pub losses: Vec<Loss>,
}

/// Renames the file and its WAL to `<spool>.damaged-<ms>`; the shared-memory file is worthless and goes. Until
/// [`finish`] a note beside the spool says so: a start that finds it begins the salvage again, for what lies in the
/// spool's place is then only a part.
///
/// # Errors
/// When the note cannot be written or the file not renamed.
pub fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let aside = super::aside::name(path, clock::wall_ms());
    let mut note = std::fs::File::create(note(path))?;
    std::io::Write::write_all(&mut note, aside.as_os_str().as_encoded_bytes())?;
    note.sync_all()?;
    move_aside(path, &aside)?;
    Ok(aside)
}

fn move_aside(path: &Path, aside: &Path) -> std::io::Result<()> {
    if path.exists() {
        std::fs::rename(path, aside)?;
    }
    let wal = suffixed(path, "-wal");
    if wal.exists() {
        std::fs::rename(wal, suffixed(aside, "-wal"))?;
    }
    let _ = std::fs::remove_file(suffixed(path, "-shm"));
    if let Some(dir) = path.parent() {
        std::fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// The file that the note beside the spool names.
pub fn noted(path: &Path) -> Option<PathBuf> {
    std::fs::read_to_string(note(path)).ok().map(PathBuf::from)
}

/// The file of a salvage that was cut off, ready to be read again; `None` when there was none. `is_whole` says whether
/// the spool in its place has all of the file it is given: the note may outlive its removal when the power fails, and
/// what has been accepted since must not be thrown away for it.
///
/// # Errors
/// When the damaged WAL cannot be put beside its file.
pub fn unfinished(path: &Path, is_whole: impl Fn(&Path) -> bool) -> std::io::Result<Option<PathBuf>> {
    let Some(aside) = noted(path) else { return Ok(None) };
    // Not there: cut off before the rename, and the damaged file in its place will be found damaged again.
    if !aside.exists() || (path.exists() && is_whole(&aside)) {
        finish(path);
        return Ok(None);
    }
    // What lies in the spool's place stays: it may hold what has been accepted since, and a chunk that comes over twice
    // lands on its own row.
    if !path.exists() {
        // Cut off between the two renames.
        move_aside(path, &aside)?;
    }
    Ok(Some(aside))
}

/// Puts a file that cannot even be opened out of the way, for a person to look at.
///
/// # Errors
/// When it cannot be renamed.
pub fn put_away(path: &Path) -> std::io::Result<()> {
    move_aside(path, &with_suffix(path, &format!("damaged-{}-unread", clock::wall_ms())))
}

/// All that could be read lies in the new spool.
pub fn finish(path: &Path) {
    let _ = std::fs::remove_file(note(path));
}

fn note(path: &Path) -> PathBuf {
    with_suffix(path, "salvaging")
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// Copies all that can be read into `store`. Never fails: what cannot be read is what the ledger says. `last_rows`: the
/// newest row that each lane can have, where that is known; what lies behind it was deleted long ago.
pub fn salvage(aside: &Path, store: &mut Store, last_rows: &HashMap<u32, RowId>) -> Saved {
    let mut rescue = Rescue {
        store,
        last_rows,
        batch: Vec::new(),
        batch_bytes: 0,
        ordinals: HashMap::new(),
        unreadable: false,
        lost: Vec::new(),
    };
    let complete = rescue.scan_with_sqlite(aside).unwrap_or(false);
    if !complete {
        super::rawscan::scan(aside, &mut |row, bytes| rescue.take(row, bytes, None));
    }
    rescue.write();
    let lost = std::mem::take(&mut rescue.lost);
    account(store, complete, lost)
}

struct Found {
    chunk: NewChunk,
    settled: Option<Vec<u8>>,
}

struct Rescue<'a> {
    store: &'a mut Store,
    last_rows: &'a HashMap<u32, RowId>,
    batch: Vec<Found>,
    batch_bytes: usize,
    /// Runs in the order of their starts.
    ordinals: HashMap<u64, i64>,
    /// A chunk was found that does not decode.
    unreadable: bool,
    /// What was read but could not be written.
    lost: Vec<Loss>,
}

impl Rescue<'_> {
    /// Returns whether every row could be read.
    fn scan_with_sqlite(&mut self, aside: &Path) -> rusqlite::Result<bool> {
        // SQLite would take an empty file for a new one and delete the WAL beside it.
        if std::fs::metadata(aside).is_ok_and(|m| m.len() == 0) {
            return Ok(false);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let old = Connection::open_with_flags(aside, flags)?;
        // The damaged file stays as it is, for the raw scan and for a person.
        old.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let copied = copy_small_tables(&old, self.store);
        super::kept::salvage(&old, self.store.connection());
        self.learn_ordinals()?;
        let up = self.scan_rows(&old, "ORDER BY seq");
        if up.is_err() {
            // It stops at the damage from the other side.
            let _ = self.scan_rows(&old, "ORDER BY seq DESC");
        }
        Ok(up.is_ok() && copied.is_ok() && !self.unreadable)
    }

    fn learn_ordinals(&mut self) -> rusqlite::Result<()> {
        let mut rows = self.store.connection().prepare("SELECT run,ordinal FROM run")?;
        let runs = rows.query_map([], |r| Ok((r.get::<_, i64>(0)? as u64, r.get(1)?)))?;
        self.ordinals = runs.collect::<rusqlite::Result<_>>()?;
        Ok(())
    }

    fn scan_rows(&mut self, old: &Connection, order: &str) -> rusqlite::Result<()> {
        let open = "SELECT seq,settled,data FROM chunk WHERE settled IS NULL OR length(settled)>0";
        let mut rows = old.prepare(&format!("{open} {order}"))?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            if let Ok(bytes) = row.get_ref(2)?.as_blob() {
                self.take(row.get(0)?, bytes, row.get(1).unwrap_or_default());
            }
        }
        Ok(())
    }

    fn take(&mut self, row: RowId, bytes: &[u8], settled: Option<Vec<u8>>) {
        let Ok((head, records)) = chunk::decode(bytes) else {
            self.unreadable = true;
            return;
        };
        let stale = self.last_rows.get(&head.lane).is_some_and(|last| row > *last);
        let last = records.last().map_or(0, |r| r.0);
        if row_lane(row) != head.lane || stale || !self.is_newer(row, head.run, last) {
            return;
        }
        self.batch_bytes += records.iter().map(|(_, b)| b.len()).sum::<usize>();
        let at = clock::wall_ms();
        self.batch.push(Found { chunk: NewChunk { row, run: head.run, records, ts_min: 0, ts_max: at }, settled });
        if self.batch_bytes >= BATCH_BYTES {
            self.write();
        }
    }

    /// Of two chunks found for one row the later one counts: the other had been deleted before the row was used again.
    fn is_newer(&self, row: RowId, run: u64, last: u64) -> bool {
        let written = |r: &rusqlite::Row<'_>| Ok((r.get::<_, i64>(0)? as u64, r.get::<_, i64>(1)? as u64));
        let batched = self.batch.iter().rev().find(|f| f.chunk.row == row);
        let there = match batched {
            Some(f) => Some((f.chunk.run, f.chunk.records.last().map_or(0, |r| r.0))),
            None => {
                let sql = "SELECT run,last FROM chunk WHERE seq=?1";
                self.store.connection().query_row(sql, [row], written).optional().unwrap_or_default()
            }
        };
        let ordinal = |run: u64| self.ordinals.get(&run).copied().unwrap_or(-1);
        there.is_none_or(|(r, l)| if r == run { last > l } else { ordinal(run) > ordinal(r) })
    }

    fn write(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        if let Err(error) = self.store.restore(&batch) {
            tracing::error!(%error, "failed to bring salvaged chunks over; they are in the file set aside");
            for found in &batch {
                let numbers = found.chunk.records.iter().map(|r| r.0);
                let (first, last) = (numbers.clone().min().unwrap_or(0), numbers.max().unwrap_or(0));
                let n = found.chunk.records.len() as u64;
                self.lost.push(loss(row_lane(found.chunk.row), found.chunk.run, (first, last), n));
            }
        }
    }
}

/// Lanes, runs, dead letters and the ledger, each as far as it can be read. A page that landed in the wrong place may look
/// like rows of another table: only what this program could have written comes over, else the next start would stumble.
fn copy_small_tables(old: &Connection, store: &Store) -> rusqlite::Result<()> {
    let copy = |table: &str, integers: &str, others: &str, genuine: &str| {
        let whole = integers.split(',').map(|column| format!("typeof({column})='integer' AND ")).collect::<String>();
        let which = format!("WHERE {whole}{genuine}");
        copy_table(old, store.connection(), table, &format!("{integers},{others}"), &which)
    };
    let of_a_lane = format!("lane BETWEEN 0 AND {LANE_MAX}");
    let lanes = copy("lane", "lane", "name", &format!("{of_a_lane} AND typeof(name)='text'"));
    let runs = copy(
        "run",
        "ordinal,run,started",
        "boot_id,gateway,clock_offset",
        "typeof(boot_id)='text' AND typeof(gateway)='text' AND typeof(clock_offset) IN ('integer','null')",
    );
    let dead = copy(
        "dead",
        "lane,run,sequence,at,attempts,bytes",
        "cause,body",
        &format!("{of_a_lane} AND attempts BETWEEN 0 AND 4294967295 AND typeof(cause)='text' AND typeof(body)='blob'"),
    );
    let loss = copy(
        "loss",
        "id,at,lane,run,first,last,n,exact,told",
        "reason",
        &format!("{of_a_lane} AND exact IN (0,1) AND typeof(reason)='text'"),
    );
    // The new file has its own identity already; what it lacks, the totals of old ledger entries, comes over.
    let totals = copy_table(old, store.connection(), "state", "k,v", "WHERE k LIKE 'lost:%' AND typeof(v)='integer'");
    lanes.and(runs).and(dead).and(loss).and(totals)
}

/// Copies the rows that `which` (conditions and order) names, up to the first that cannot be read. What the new file has
/// already stays.
pub(super) fn copy_table(
    old: &Connection,
    new: &Connection,
    table: &str,
    columns: &str,
    which: &str,
) -> rusqlite::Result<()> {
    let mut rows = old.prepare(&format!("SELECT {columns} FROM {table} {which}"))?;
    let width = rows.column_count();
    let mut rows = rows.query([])?;
    let marks = vec!["?"; width].join(",");
    let mut insert = new.prepare(&format!("INSERT OR IGNORE INTO {table}({columns}) VALUES({marks})"))?;
    new.execute_batch("BEGIN")?;
    let mut read = || -> rusqlite::Result<()> {
        while let Some(row) = rows.next()? {
            let values: Vec<rusqlite::types::Value> = (0..width).map(|i| row.get(i)).collect::<Result<_, _>>()?;
            insert.execute(rusqlite::params_from_iter(values))?;
        }
        Ok(())
    };
    let read = read();
    new.execute_batch("COMMIT")?;
    read
}

/// Counts what came over, and writes into the ledger what did not: between two chunks of one run that do not touch,
/// numbers are missing: delivered, or lost.
fn account(store: &mut Store, complete: bool, lost: Vec<Loss>) -> Saved {
    let mut saved = Saved { missing_at_most: lost.iter().map(|l| l.n).sum(), ..Saved::default() };
    let mut commit = Commit { at: clock::wall_ms(), losses: lost, ..Commit::default() };
    let mut before: Option<(u32, u64, u64)> = None;
    let mut count = |row: RowId, run: u64, first: u64, last: u64, n: u64| {
        saved.chunks += 1;
        saved.records += n;
        let lane = row_lane(row);
        if let Some((l, r, next)) = before.replace((lane, run, last + 1))
            && !complete
            && (l, r) == (lane, run)
            && next < first
        {
            saved.missing_at_most += first - next;
            commit.losses.push(loss(lane, run, (next, first - 1), first - next));
        }
    };
    if let Err(error) = store.each_chunk(&mut count) {
        tracing::error!(%error, "failed to count what was salvaged");
    }
    match store.commit(&commit) {
        Ok(done) => saved.losses = done.losses,
        Err(error) => tracing::error!(%error, "failed to write what is missing into the ledger"),
    }
    saved
}

fn loss(lane: u32, run: u64, (first, last): (u64, u64), n: u64) -> Loss {
    let reason = Reason::Corrupt.as_str().to_owned();
    Loss { id: 0, at: 0, lane, run, first, last, n, exact: false, reason }
}

impl Store {
    /// All that could be read of this file has come over.
    pub(super) fn note_salvaged(&self, aside: &Path) -> Result<(), StoreError> {
        self.connection()
            .execute("INSERT OR REPLACE INTO state(k,v) VALUES('salvaged',?1)", [aside.to_string_lossy()])
            .map(|_| ())
            .map_err(|e| classify(&e))
    }

    pub(super) fn salvaged_from(&self) -> Option<PathBuf> {
        let row = self.connection().query_row("SELECT v FROM state WHERE k='salvaged'", [], |r| r.get::<_, String>(0));
        row.ok().map(PathBuf::from)
    }
    /// Writes salvaged chunks with what was settled of them, all or nothing.
    fn restore(&mut self, batch: &[Found]) -> Result<(), StoreError> {
        let write = || -> rusqlite::Result<()> {
            let tx = self.connection().unchecked_transaction()?;
            for found in batch {
                let lane = row_lane(found.chunk.row);
                // A chunk may outlive the name of its lane: then the lane is called after its number.
                let name = format!("salvaged-{lane}");
                tx.execute("INSERT OR IGNORE INTO lane(lane,name) VALUES(?1,?2)", params![lane, name])?;
                self.insert_chunk(&found.chunk)?;
                tx.execute("UPDATE chunk SET settled=?2 WHERE seq=?1", params![found.chunk.row, found.settled])?;
            }
            tx.commit()
        };
        write().map_err(|e| classify(&e))
    }

    fn each_chunk(&self, visit: &mut dyn FnMut(RowId, u64, u64, u64, u64)) -> Result<(), StoreError> {
        let mut read = || -> rusqlite::Result<()> {
            let mut rows = self.connection().prepare("SELECT seq,run,first,last,n FROM chunk ORDER BY seq")?;
            let mut rows = rows.query([])?;
            while let Some(r) = rows.next()? {
                let word = |i| r.get::<_, i64>(i).map(|v| v as u64);
                visit(r.get(0)?, word(1)?, word(2)?, word(3)?, word(4)?);
            }
            Ok(())
        };
        read().map_err(|e| classify(&e))
    }
}
