//! What commands ask of the spool: dead letters, export, totals. Every answer is a page, so that no read holds up a
//! commit for long.

use rusqlite::{OptionalExtension, params};

use super::chunk;
use super::store::{Store, classify};
use super::window::bit;
use super::{Commit, DeadLetter, Evict, EvictUntil, Loss, NewChunk, Reason, RowId, StoreError, row_base, row_lane};
use crate::record::{Body, OldId, RecordView};

/// A dead letter with its number in the table.
#[derive(Debug, Clone)]
pub struct DeadRow {
    pub id: i64,
    pub letter: DeadLetter,
}

/// An undelivered record, for `spool export`.
#[derive(Debug, Clone)]
pub struct Exported {
    pub lane: u32,
    pub run: u64,
    pub sequence: u64,
    pub body: Body,
}

/// Which records of a lane a page holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Undelivered,
    /// Delivered and kept, with a record timestamp between these (ms since 1970, both included).
    History {
        from: i64,
        to: i64,
    },
}

/// What lies in one lane, as far as rows tell.
#[derive(Debug, Clone, serde::Serialize)]
pub struct LaneTotals {
    pub lane: u32,
    pub name: String,
    pub chunks: u64,
    pub records: u64,
    pub bytes: u64,
}

impl Store {
    /// Dead letters after `after`, oldest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn dead_page(&self, after: i64, limit: u32) -> Result<Vec<DeadRow>, StoreError> {
        let list = || -> rusqlite::Result<Vec<DeadRow>> {
            let mut rows = self.connection().prepare_cached(
                "SELECT id,lane,run,sequence,at,cause,attempts,body FROM dead WHERE id>?1 ORDER BY id LIMIT ?2",
            )?;
            rows.query_map(params![after, limit], dead_row)?.collect()
        };
        list().map_err(|e| classify(&e))
    }

    /// # Errors
    /// [`StoreError`]
    pub fn dead_letter(&self, id: i64) -> Result<Option<DeadRow>, StoreError> {
        self.connection()
            .query_row("SELECT id,lane,run,sequence,at,cause,attempts,body FROM dead WHERE id=?1", [id], dead_row)
            .optional()
            .map_err(|e| classify(&e))
    }

    /// How many dead letters there are.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn dead_count(&self) -> Result<u64, StoreError> {
        self.connection()
            .query_row("SELECT count(*) FROM dead", [], |r| r.get::<_, i64>(0))
            .map(|n| n as u64)
            .map_err(|e| classify(&e))
    }

    /// A person gives dead letters up: each leaves with a ledger entry.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn drop_dead(&mut self, ids: &[i64], at: i64) -> Result<u64, StoreError> {
        let mut commit = Commit { at, ..Commit::default() };
        for id in ids {
            if let Some(row) = self.dead_letter(*id)? {
                let (lane, run, n) = (row.letter.lane, row.letter.run, row.letter.sequence);
                let reason = Reason::Purged.as_str().to_owned();
                commit.losses.push(Loss { id: 0, at, lane, run, first: n, last: n, n: 1, exact: true, reason });
                commit.revived.push(*id);
            }
        }
        let dropped = commit.revived.len() as u64;
        let done = self.commit(&commit)?;
        self.by_commands.extend(done.losses);
        Ok(dropped)
    }

    /// With the service stopped: all that is undelivered of a lane leaves with a ledger entry. How many records, `None`
    /// when the file knows no such lane.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn purge_lane(&mut self, name: &str, at: i64) -> Result<Option<u64>, StoreError> {
        let Some((lane, _)) = self.lanes()?.into_iter().find(|(_, known)| known == name) else { return Ok(None) };
        let until = EvictUntil::Records(u64::MAX);
        let all = Evict { lane, after: row_base(lane), before: RowId::MAX, until, reason: Reason::Purged };
        let done = self.commit(&Commit { at, evictions: vec![all], ..Commit::default() })?;
        Ok(Some(done.losses.iter().map(|l| l.n).sum()))
    }

    /// With the service stopped: dead letters go to the tail of their lane, under a run of their own.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn requeue_offline(&mut self, rows: &[DeadRow], at: i64) -> Result<u64, StoreError> {
        let run = super::schema::new_id();
        let mut done = 0;
        for (i, row) in rows.iter().enumerate() {
            let Some(body) = requeued(&row.letter) else { continue };
            let chunk = NewChunk {
                row: self.last_row(row.letter.lane)? + 1,
                run,
                records: vec![(i as u64 + 1, body)],
                ts_min: at,
                ts_max: at,
            };
            self.commit(&Commit { at, chunks: vec![chunk], revived: vec![row.id], ..Commit::default() })?;
            done += 1;
        }
        Ok(done)
    }

    /// Records of a lane behind row `after`, at most a chunk more than `limit`: with the row to go on from, `None` at
    /// the end.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn export_page(
        &self,
        lane: u32,
        after: RowId,
        limit: usize,
        which: Which,
    ) -> Result<(Vec<Exported>, Option<RowId>), StoreError> {
        let page = || -> rusqlite::Result<(Vec<Exported>, Option<RowId>)> {
            let mut rows = self.connection().prepare_cached(
                "SELECT seq,run,settled,data FROM chunk WHERE seq>?1 AND seq<?2
                 AND (settled IS NOT NULL AND length(settled)=0)=?3 ORDER BY seq",
            )?;
            let history = which != Which::Undelivered;
            let mut rows = rows.query(params![after.max(row_base(lane)), row_base(lane + 1), history])?;
            let mut found = Vec::new();
            let mut last = None;
            while let Some(r) = rows.next()? {
                if found.len() >= limit {
                    return Ok((found, last));
                }
                let row: RowId = r.get(0)?;
                last = Some(row);
                let settled: Option<Vec<u8>> = r.get(2)?;
                // A damaged chunk is the reader's to report; an export gives what can be read.
                let Ok((head, records)) = chunk::decode(r.get_ref(3)?.as_blob().unwrap_or_default()) else { continue };
                let settled = settled.unwrap_or_default();
                let wanted = |i: usize, body: &Body| match which {
                    Which::Undelivered => !bit(&settled, i),
                    Which::History { from, to } => body.view().is_ok_and(|v| (from..=to).contains(&v.timestamp_ms)),
                };
                let chosen = records.into_iter().enumerate().filter(|(i, (_, body))| wanted(*i, body));
                found.extend(chosen.map(|(_, (sequence, body))| Exported {
                    lane: row_lane(row),
                    run: head.run,
                    sequence,
                    body,
                }));
            }
            Ok((found, None))
        };
        page().map_err(|e| classify(&e))
    }

    /// Counts a whole lane: for commands with the service stopped.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn lane_totals(&self) -> Result<Vec<LaneTotals>, StoreError> {
        let mut totals = Vec::new();
        for (lane, name) in self.lanes()? {
            let mut t = LaneTotals { lane, name, chunks: 0, records: 0, bytes: 0 };
            let mut after = row_base(lane);
            while let Some((row, found)) = self.count(after, row_base(lane + 1) - 1, 10_000)? {
                after = row;
                t.chunks += found.chunks;
                t.records += found.records;
                t.bytes += found.bytes;
            }
            totals.push(t);
        }
        Ok(totals)
    }
}

/// The record of a dead letter as it goes to its lane again: with its old id, and counted.
pub fn requeued(letter: &DeadLetter) -> Option<Body> {
    let view = letter.body.view().ok()?;
    let old_id = Some(match view.old_id {
        Some(old) => OldId { requeues: old.requeues + 1, ..old },
        None => OldId { run: letter.run, lane: letter.lane, sequence: letter.sequence, requeues: 1 },
    });
    Some(RecordView { old_id, ..view }.encode(&mut Vec::new()))
}

fn dead_row(r: &rusqlite::Row<'_>) -> rusqlite::Result<DeadRow> {
    let letter = DeadLetter {
        lane: r.get(1)?,
        run: r.get::<_, i64>(2)? as u64,
        sequence: r.get::<_, i64>(3)? as u64,
        at: r.get(4)?,
        cause: r.get(5)?,
        attempts: r.get(6)?,
        body: Body::from_stored(r.get::<_, Vec<u8>>(7)?.into()),
    };
    Ok(DeadRow { id: r.get(0)?, letter })
}
