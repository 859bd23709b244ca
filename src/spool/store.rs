//! The file's operations: commit, read, evict, count. No thread, no decisions.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use super::chunk::{self, ChunkError};
use super::ledger::add_loss;
use super::{
    Commit, Committed, DeadLetter, Evict, EvictUntil, Freed, Loss, NewChunk, Reason, RowId, StoreError, StoredChunk,
    row_base, row_lane, schema,
};
use crate::config::MessageIds;
use crate::intake::KeptRows;

/// What a read found.
#[derive(Debug, Default)]
pub struct Read {
    pub chunks: Vec<StoredChunk>,
    /// There are more behind them.
    pub more: bool,
    /// Damaged chunks that left the file for the ledger, and their entries.
    pub discarded: Vec<(RowId, Freed)>,
    pub losses: Vec<Loss>,
}

/// An open spool.
#[derive(Debug)]
pub struct Store {
    conn: Connection,
    path: PathBuf,
    max_bytes: u64,
    dead_bytes_max: u64,
    /// What a commit had done when its last step failed: whether it happened, the file shows when it is opened again.
    unsure: Option<Committed>,
    /// How long message ids stay.
    pub(super) message_ids: MessageIds,
    /// Rows that sources keep; `None`: not counted yet.
    pub(super) kept_rows: Option<KeptRows>,
    /// Ledger entries that commands made beside the hub, for [`Store::take_entries_of_commands`].
    pub(super) by_commands: Vec<Loss>,
    pub spool_id: u64,
}

/// Wraps SQLite's error in what the hub has to know: is the disk full, is the file broken, or is it the device?
pub fn classify(e: &rusqlite::Error) -> StoreError {
    // The file ends before a page that it speaks of: it has been cut.
    if e.sqlite_error().is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_IOERR_SHORT_READ) {
        return StoreError::Corrupt(e.to_string());
    }
    match e.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::DiskFull(e.to_string()),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Corrupt(e.to_string()),
        // A row or table that is not what this program wrote, and that SQLite has no objection to.
        Some(ErrorCode::Unknown | ErrorCode::TypeMismatch) | None => StoreError::Corrupt(e.to_string()),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            StoreError::Open(e.to_string())
        }
        _ => StoreError::Io(e.to_string()),
    }
}

impl Store {
    /// # Errors
    /// See [`schema::open`].
    pub fn open(path: &Path, max_bytes: u64, dead_bytes_max: u64) -> Result<Self, StoreError> {
        let conn = schema::open(path, max_bytes)?;
        let spool_id = conn
            .query_row("SELECT v FROM state WHERE k='spool_id'", [], |r| r.get::<_, i64>(0))
            .map_err(|e| classify(&e))? as u64;
        Ok(Store {
            conn,
            path: path.to_owned(),
            max_bytes,
            dead_bytes_max,
            unsure: None,
            message_ids: MessageIds::default(),
            kept_rows: None,
            by_commands: Vec::new(),
            spool_id,
        })
    }

    /// After a failed fsync nothing is known about the file: close, open, check.
    ///
    /// # Errors
    /// As [`Store::open`]; the old connection is gone either way.
    pub fn reopen(&mut self) -> Result<(), StoreError> {
        self.conn = schema::open(&self.path, self.max_bytes)?;
        self.kept_rows = None;
        Ok(())
    }

    /// Lets go of the file as it is, without another write, so that it can be renamed.
    ///
    /// # Errors
    /// [`StoreError`] when memory is short.
    pub fn let_go(&mut self) -> Result<(), StoreError> {
        let _ = self.conn.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        self.conn = Connection::open_in_memory().map_err(|e| classify(&e))?;
        Ok(())
    }

    /// After [`Store::reopen`]: evictions of a failed commit that the file shows nevertheless. Nobody may be acknowledged for
    /// it, but what it evicted is gone, and its ledger entries are there.
    pub fn happened(&mut self) -> Option<Committed> {
        let done = self.unsure.take()?;
        let entry = done.losses.first()?;
        let there = "SELECT 1 FROM loss WHERE id=?1 AND at=?2 AND lane=?3";
        let found = self.conn.query_row(there, params![entry.id, entry.at, entry.lane], |_| Ok(())).optional();
        matches!(found, Ok(Some(()))).then_some(done)
    }

    /// Writes all of `commit` or nothing; durable when this returns.
    ///
    /// # Errors
    /// [`StoreError`]; the transaction has been rolled back.
    pub fn commit(&mut self, commit: &Commit) -> Result<Committed, StoreError> {
        let done = self.transact(commit);
        if done.is_err() && !self.conn.is_autocommit() {
            // Some errors roll back by themselves; for the others this does. A failure here shows at the next BEGIN.
            let _ = self.conn.execute_batch("ROLLBACK");
        }
        done.map_err(|e| classify(&e))
    }

    fn transact(&mut self, commit: &Commit) -> rusqlite::Result<Committed> {
        let mut done = Committed::default();
        let mut losses = commit.losses.clone();
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        // Freed pages first: what is inserted next takes their place instead of growing the file.
        self.settle(commit)?;
        for eviction in &commit.evictions {
            let freed = self.evict(eviction, &mut losses)?;
            done.evicted.push((eviction.lane, freed));
        }
        done.kept = self.apply(&commit.changes)?;
        self.remember(&commit.message_ids, commit.at)?;
        for new in &commit.chunks {
            done.chunk_bytes.push(self.insert_chunk(new)?);
        }
        self.insert_dead(&commit.dead, &mut losses)?;
        for loss in &mut losses {
            loss.at = commit.at;
            self.insert_loss(loss)?;
        }
        self.trim_ledger(&losses)?;
        crate::faults::point("4-before-commit");
        done.losses = losses;
        if let Err(e) = self.conn.execute_batch("COMMIT") {
            self.unsure = Some(done);
            return Err(e);
        }
        crate::faults::point("4-after-commit");
        self.kept_rows = done.kept.or(self.kept_rows);
        Ok(done)
    }

    fn settle(&self, commit: &Commit) -> rusqlite::Result<()> {
        let mut bitmap = self.conn.prepare_cached("UPDATE chunk SET settled=?2 WHERE seq=?1")?;
        let mut delete = self.conn.prepare_cached("DELETE FROM chunk WHERE seq=?1")?;
        let mut told = self.conn.prepare_cached("UPDATE loss SET told=1 WHERE id=?1")?;
        for (row, bits) in &commit.bitmaps {
            bitmap.execute(params![row, bits])?;
        }
        for (row, keep) in &commit.settled {
            // An empty bitmap marks history: all delivered, kept for `replay`.
            if *keep {
                bitmap.execute(params![row, [0u8; 0]])?
            } else {
                delete.execute([row])?
            };
        }
        for id in &commit.told {
            told.execute([id])?;
        }
        for id in &commit.revived {
            self.conn.prepare_cached("DELETE FROM dead WHERE id=?1")?.execute([id])?;
        }
        Ok(())
    }

    pub(super) fn insert_chunk(&self, new: &NewChunk) -> rusqlite::Result<u64> {
        let lane = row_lane(new.row);
        let data = chunk::encode(self.spool_id, new.run, lane, &new.records);
        // OR REPLACE: after a commit whose fsync failed the same rows are written again, with the same content.
        let mut insert =
            self.conn.prepare_cached("INSERT OR REPLACE INTO chunk VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,NULL,?10)")?;
        let first = new.records.first().map_or(0, |r| r.0);
        let last = new.records.last().map_or(0, |r| r.0);
        insert.execute(params![
            new.row,
            lane,
            new.run as i64,
            first as i64,
            last as i64,
            new.records.len() as i64,
            data.len() as i64,
            new.ts_min,
            new.ts_max,
            data
        ])?;
        Ok(data.len() as u64)
    }

    fn insert_dead(&self, dead: &[DeadLetter], losses: &mut Vec<Loss>) -> rusqlite::Result<()> {
        if dead.is_empty() {
            return Ok(());
        }
        let mut insert = self.conn.prepare_cached(
            "INSERT OR REPLACE INTO dead(lane,run,sequence,at,cause,attempts,bytes,body) VALUES(?1,?2,?3,?4,?5,?6,?7,?8)",
        )?;
        for d in dead {
            insert.execute(params![
                d.lane,
                d.run as i64,
                d.sequence as i64,
                d.at,
                d.cause,
                d.attempts,
                d.body.len() as i64,
                d.body.as_bytes()
            ])?;
        }
        self.trim_dead(losses)
    }

    /// The table of dead letters has a bound: the oldest go, each with a ledger entry.
    fn trim_dead(&self, losses: &mut Vec<Loss>) -> rusqlite::Result<()> {
        let mut total: i64 = self.conn.query_row("SELECT coalesce(sum(bytes),0) FROM dead", [], |r| r.get(0))?;
        while total > self.dead_bytes_max as i64 {
            let oldest = self
                .conn
                .query_row("SELECT id,lane,run,sequence,bytes FROM dead ORDER BY id LIMIT 1", [], |r| {
                    Ok((r.get::<_, i64>(0)?, r.get(1)?, r.get::<_, i64>(2)?, r.get::<_, i64>(3)?, r.get::<_, i64>(4)?))
                })
                .optional()?;
            let Some((id, lane, run, sequence, bytes)) = oldest else { break };
            self.conn.execute("DELETE FROM dead WHERE id=?1", [id])?;
            total -= bytes;
            add_loss(losses, lane, run as u64, (sequence as u64, sequence as u64), 1, Reason::DeadLettersFull);
        }
        Ok(())
    }

    /// History goes first and needs no ledger entry; then the oldest chunks behind the window, with one.
    fn evict(&self, evict: &Evict, losses: &mut Vec<Loss>) -> rusqlite::Result<Freed> {
        let mut freed = Freed::default();
        if !matches!(evict.until, EvictUntil::Records(_)) {
            self.evict_rows(evict, true, &mut freed, losses)?;
        }
        if !enough(evict.until, freed) {
            self.evict_rows(evict, false, &mut freed, losses)?;
        }
        Ok(freed)
    }

    fn evict_rows(
        &self,
        evict: &Evict,
        history: bool,
        freed: &mut Freed,
        losses: &mut Vec<Loss>,
    ) -> rusqlite::Result<()> {
        let mut rows = self.conn.prepare_cached(
            "SELECT seq,run,first,last,n,bytes,ts_max,settled FROM chunk WHERE seq>?1 AND seq<?2
             AND (settled IS NOT NULL AND length(settled)=0)=?3 ORDER BY seq",
        )?;
        let mut delete = self.conn.prepare_cached("DELETE FROM chunk WHERE seq=?1")?;
        let lane = (row_base(evict.lane), row_base(evict.lane + 1));
        let (after, before) = if history { lane } else { (evict.after.max(lane.0), evict.before.min(lane.1)) };
        let mut rows = rows.query(params![after, before, history])?;
        let mut gone = Vec::new();
        while let Some(r) = rows.next()? {
            let ts_max: i64 = r.get(6)?;
            // A chunk from before the clock was set has no age to speak of.
            let timeless = matches!(evict.until, EvictUntil::OlderThan(_)) && !crate::clock::plausible(ts_max);
            if timeless {
                continue;
            }
            if enough(evict.until, *freed) || matches!(evict.until, EvictUntil::OlderThan(t) if ts_max >= t) {
                break;
            }
            gone.push(r.get::<_, i64>(0)?);
            let bytes = stored_bytes(r.get(5)?);
            if history {
                freed.history_bytes += bytes;
                continue;
            }
            let left = unsettled(r.get(4)?, r.get(7)?);
            freed.chunks += 1;
            freed.bytes += bytes;
            freed.records += left;
            if left > 0 {
                let span = (r.get::<_, i64>(2)? as u64, r.get::<_, i64>(3)? as u64);
                add_loss(losses, evict.lane, r.get::<_, i64>(1)? as u64, span, left, evict.reason);
            }
        }
        for row in gone {
            delete.execute([row])?;
        }
        Ok(())
    }

    /// Chunks of `lane` after `after`, in order, until `bytes` of stored data: with whether there are more. A chunk that
    /// does not hold is taken out, with a ledger entry, and the read goes on behind it.
    ///
    /// # Errors
    /// [`StoreError`] when the file itself cannot be read.
    pub fn read(&mut self, lane: u32, after: RowId, bytes: u64) -> Result<Read, StoreError> {
        let mut read = Read::default();
        let mut damaged = Vec::new();
        read.more = self.read_rows(lane, after, bytes, &mut read.chunks, &mut damaged).map_err(|e| classify(&e))?;
        if !damaged.is_empty() {
            self.discard_damaged(&damaged, &mut read)?;
        }
        Ok(read)
    }

    fn read_rows(
        &self,
        lane: u32,
        after: RowId,
        bytes: u64,
        found: &mut Vec<StoredChunk>,
        damaged: &mut Vec<(RowId, ChunkError)>,
    ) -> rusqlite::Result<bool> {
        let mut rows = self.conn.prepare_cached(
            "SELECT seq,run,settled,data FROM chunk WHERE seq>?1 AND seq<?2
             AND (settled IS NULL OR length(settled)>0) ORDER BY seq",
        )?;
        let mut rows = rows.query(params![after, row_base(lane + 1)])?;
        let mut total = 0;
        while let Some(r) = rows.next()? {
            if total >= bytes {
                return Ok(true);
            }
            let row: RowId = r.get(0)?;
            let data = r.get_ref(3)?.as_blob().unwrap_or_default();
            match chunk::decode(data) {
                Ok((head, records)) => {
                    total += records.iter().map(|(_, b)| b.len() as u64).sum::<u64>().max(1);
                    let settled = r.get::<_, Option<Vec<u8>>>(2)?.unwrap_or_default();
                    found.push(StoredChunk { row, run: head.run, records, settled, bytes: data.len() as u64 });
                }
                Err(e) => damaged.push((row, e)),
            }
        }
        Ok(false)
    }

    fn discard_damaged(&mut self, damaged: &[(RowId, ChunkError)], read: &mut Read) -> Result<(), StoreError> {
        let mut commit = Commit { at: crate::clock::wall_ms(), ..Commit::default() };
        for (row, error) in damaged {
            tracing::error!(row, %error, "a chunk of the spool is damaged; it goes into the ledger");
            commit.settled.push((*row, false));
            self.conn
                .query_row("SELECT run,first,last,n,settled,bytes FROM chunk WHERE seq=?1", [row], |r| {
                    let left = unsettled(r.get(3)?, r.get(4)?);
                    let span = (r.get::<_, i64>(1)? as u64, r.get::<_, i64>(2)? as u64);
                    let run = r.get::<_, i64>(0)? as u64;
                    add_loss(&mut commit.losses, row_lane(*row), run, span, left, Reason::Corrupt);
                    let bytes = stored_bytes(r.get(5)?);
                    read.discarded.push((*row, Freed { chunks: 1, records: left, bytes, history_bytes: 0 }));
                    Ok(())
                })
                .map_err(|e| classify(&e))?;
        }
        read.losses = self.commit(&commit)?.losses;
        Ok(())
    }

    /// Adds up at most `limit` rows of `lane` after `after` and up to `last`: the last row seen and what was found, `None`
    /// at the end.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn count(&self, after: RowId, last: RowId, limit: u32) -> Result<Option<(RowId, Freed)>, StoreError> {
        self.count_rows(after, last, limit).map_err(|e| classify(&e))
    }

    fn count_rows(&self, after: RowId, last: RowId, limit: u32) -> rusqlite::Result<Option<(RowId, Freed)>> {
        let mut rows = self
            .conn
            .prepare_cached("SELECT seq,n,bytes,settled FROM chunk WHERE seq>?1 AND seq<=?2 ORDER BY seq LIMIT ?3")?;
        let mut rows = rows.query(params![after, last, limit])?;
        let mut seen: Option<(RowId, Freed)> = None;
        while let Some(r) = rows.next()? {
            let (row, found) = seen.get_or_insert_default();
            *row = r.get(0)?;
            let settled: Option<Vec<u8>> = r.get(3)?;
            let bytes = stored_bytes(r.get(2)?);
            if settled.as_ref().is_some_and(Vec::is_empty) {
                found.history_bytes += bytes;
            } else {
                found.chunks += 1;
                found.bytes += bytes;
                found.records += unsettled(r.get(1)?, settled);
            }
        }
        Ok(seen)
    }

    /// The last row of a lane, or its base when it is empty.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn last_row(&self, lane: u32) -> Result<RowId, StoreError> {
        self.conn
            .query_row(
                "SELECT seq FROM chunk WHERE seq>?1 AND seq<?2 ORDER BY seq DESC LIMIT 1",
                params![row_base(lane), row_base(lane + 1)],
                |r| r.get(0),
            )
            .optional()
            .map(|row| row.unwrap_or(row_base(lane)))
            .map_err(|e| classify(&e))
    }

    /// For the modules beside this one that have statements of their own.
    pub(super) fn connection(&self) -> &Connection {
        &self.conn
    }
}

fn enough(until: EvictUntil, freed: Freed) -> bool {
    match until {
        EvictUntil::Bytes(bytes) => freed.bytes >= bytes,
        EvictUntil::Records(records) => freed.records >= records,
        EvictUntil::OlderThan(_) => false,
    }
}

/// A damaged length must not become a huge one.
fn stored_bytes(column: i64) -> u64 {
    u64::try_from(column).unwrap_or(0).min(chunk::RAW_BYTES_MAX as u64)
}

/// Records of a row that are not settled. Neither column has a checksum: a damaged one must not become a panic.
fn unsettled(n: i64, settled: Option<Vec<u8>>) -> u64 {
    let bits: u64 = settled.unwrap_or_default().iter().map(|b| u64::from(b.count_ones())).sum();
    u64::try_from(n).unwrap_or(0).saturating_sub(bits)
}
