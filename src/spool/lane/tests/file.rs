//! The spool's file in a few lines: what `Store` does to its rows, without SQLite.

use std::collections::{BTreeMap, BTreeSet};

use super::broker::id_of;
use crate::intake::{Change, Kind, MessageId};
use crate::record::Body;
use crate::spool::chunk::Numbered;
use crate::spool::window::bit;
use crate::spool::{Commit, Committed, Evict, EvictUntil, Freed, Loss, RowId, StoredChunk, row_base};

#[derive(Debug, Clone)]
pub struct Row {
    run: u64,
    records: Vec<Numbered>,
    settled: Vec<u8>,
    history: bool,
    ts_max: i64,
}

#[derive(Debug, Clone, Default)]
pub struct File {
    pub rows: BTreeMap<RowId, Row>,
    pub dead: BTreeSet<u64>,
    pub losses: Vec<Loss>,
    pub kept: BTreeMap<(Kind, Vec<u8>), Vec<u8>>,
    pub message_ids: Vec<MessageId>,
    /// Ids that an eviction took.
    pub evicted: BTreeSet<u64>,
}

impl Row {
    fn open_ids(&self) -> impl Iterator<Item = u64> {
        let open = |(i, _): &(usize, &Numbered)| !self.history && !bit(&self.settled, *i);
        self.records.iter().enumerate().filter(open).map(|(_, (_, body))| id_of(body))
    }

    pub fn is_history(&self) -> bool {
        self.history
    }

    fn bytes(&self) -> u64 {
        self.records.iter().map(|(_, b)| b.len() as u64).sum::<u64>() + 52
    }
}

impl File {
    pub fn holds(&self, id: u64) -> bool {
        self.dead.contains(&id)
            || self.evicted.contains(&id)
            || self.rows.values().any(|r| r.records.iter().any(|(_, b)| id_of(b) == id))
    }

    pub fn open_ids(&self) -> BTreeSet<u64> {
        self.rows.values().flat_map(Row::open_ids).collect()
    }

    /// Every undelivered record, as far as the file knows, with its row.
    pub fn open_bodies(&self) -> impl Iterator<Item = (RowId, &Body)> {
        self.rows.iter().flat_map(|(number, row)| {
            let open = |(i, _): &(usize, &Numbered)| !row.history && !bit(&row.settled, *i);
            row.records.iter().enumerate().filter(open).map(|(_, (_, body))| (*number, body))
        })
    }

    pub fn commit(&mut self, commit: &Commit) -> Committed {
        for (row, bits) in &commit.bitmaps {
            if let Some(row) = self.rows.get_mut(row) {
                row.settled.clone_from(bits);
            }
        }
        for (row, keep) in &commit.settled {
            match self.rows.get_mut(row) {
                Some(r) if *keep => r.history = true,
                _ => drop(self.rows.remove(row)),
            }
        }
        let mut done = Committed { losses: commit.losses.clone(), ..Committed::default() };
        for evict in &commit.evictions {
            let freed = self.evict(evict, &mut done.losses);
            done.evicted.push((evict.lane, freed));
        }
        for new in &commit.chunks {
            let settled = Vec::new();
            let row = Row { run: new.run, records: new.records.clone(), settled, history: false, ts_max: new.ts_max };
            done.chunk_bytes.push(row.bytes());
            self.rows.insert(new.row, row);
        }
        commit.changes.iter().for_each(|(_, change)| self.apply(change));
        self.message_ids.extend(&commit.message_ids);
        self.dead.extend(commit.dead.iter().map(|d| id_of(&d.body)));
        self.losses.extend(done.losses.iter().cloned());
        done
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Put { kind, key, value } => drop(self.kept.insert((*kind, key.clone()), value.clone())),
            Change::Delete { kind, key } => drop(self.kept.remove(&(*kind, key.clone()))),
            Change::DeletePrefix { kind, prefix } => {
                self.kept.retain(|(k, key), _| k != kind || !key.starts_with(prefix));
            }
        }
    }

    fn evict(&mut self, evict: &Evict, losses: &mut Vec<Loss>) -> Freed {
        let mut freed = Freed::default();
        for history in [true, false] {
            if history && matches!(evict.until, EvictUntil::Records(_)) {
                continue;
            }
            let from = if history { row_base(evict.lane) } else { evict.after };
            let rows: Vec<RowId> = self
                .rows
                .range(from.saturating_add(1).min(evict.before)..evict.before)
                .filter(|(_, r)| r.history == history)
                .map(|(row, _)| *row)
                .collect();
            for row in rows {
                let enough = match evict.until {
                    EvictUntil::Bytes(b) => freed.bytes + freed.history_bytes >= b,
                    EvictUntil::Records(n) => freed.records >= n,
                    EvictUntil::OlderThan(t) => self.rows[&row].ts_max >= t,
                };
                if enough {
                    break;
                }
                let Some(gone) = self.rows.remove(&row) else { continue };
                let ids: Vec<u64> = gone.open_ids().collect();
                if history {
                    freed.history_bytes += gone.bytes();
                    continue;
                }
                freed.chunks += 1;
                freed.bytes += gone.bytes();
                freed.records += ids.len() as u64;
                let span = (gone.records[0].0, gone.records[gone.records.len() - 1].0);
                let (lane, run, n, reason) = (evict.lane, gone.run, ids.len() as u64, evict.reason.as_str().to_owned());
                losses.push(Loss { id: 0, at: 0, lane, run, first: span.0, last: span.1, n, exact: true, reason });
                self.evicted.extend(ids);
            }
        }
        freed
    }

    pub fn read(&self, after: RowId, bytes: u64) -> (Vec<StoredChunk>, bool) {
        let mut found = Vec::new();
        let mut total = 0;
        for (&row, r) in self.rows.range(after + 1..).filter(|(_, r)| !r.history) {
            if total >= bytes {
                return (found, true);
            }
            total += r.bytes();
            let (settled, bytes) = (r.settled.clone(), r.bytes());
            found.push(StoredChunk { row, run: r.run, records: r.records.clone(), settled, bytes });
        }
        (found, false)
    }

    /// What the owner thread counts after a start, a slice a row.
    pub fn count(&self) -> Vec<Freed> {
        let slice = |r: &Row| match r.history {
            true => Freed { history_bytes: r.bytes(), ..Freed::default() },
            false => Freed { chunks: 1, records: r.open_ids().count() as u64, bytes: r.bytes(), history_bytes: 0 },
        };
        self.rows.values().map(slice).collect()
    }
}
