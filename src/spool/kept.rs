//! What sources keep in the file beside their readings, and the ids of messages: both travel in the commits of what they
//! belong to.

use rusqlite::{Connection, params};

use super::store::{Store, classify};
use super::{IdBatch, StoreError};
use crate::clock;
use crate::intake::{Change, Fact, KeptRows, Kind, MessageId};

/// Rows of message ids that one commit looks at, to delete them: one comes with each commit, so the table shrinks.
const FORGET_SLICE: u32 = 64;
/// An id in the file: the id itself, then the hash of the payload, both little endian.
const ID_BYTES: usize = 24;
const MINUTE_MS: i64 = 60_000;

impl Store {
    /// Does what the changes say, in their order. Returns how many rows there are then, `None` when nothing was asked.
    pub(super) fn apply(&self, changes: &[(u64, Change)]) -> rusqlite::Result<Option<KeptRows>> {
        if changes.is_empty() {
            return Ok(None);
        }
        let mut rows = match self.kept_rows {
            Some(rows) => rows,
            None => self.count_kept()?,
        };
        for (_, change) in changes {
            match change {
                Change::Put { kind, key, value } => rows[kind.index()] += self.put(*kind, key, value)?,
                Change::Delete { kind, key } => {
                    let mut delete = self.connection().prepare_cached("DELETE FROM kept WHERE kind=?1 AND key=?2")?;
                    take(&mut rows, *kind, delete.execute(params![kind.number(), key])?);
                }
                Change::DeletePrefix { kind, prefix } => take(&mut rows, *kind, self.delete_prefix(*kind, prefix)?),
            }
        }
        Ok(Some(rows))
    }

    /// Returns 1 when the row is new.
    fn put(&self, kind: Kind, key: &[u8], value: &[u8]) -> rusqlite::Result<u64> {
        let c = self.connection();
        let mut update = c.prepare_cached("UPDATE kept SET value=?3 WHERE kind=?1 AND key=?2")?;
        if update.execute(params![kind.number(), key, value])? > 0 {
            return Ok(0);
        }
        c.prepare_cached("INSERT OR REPLACE INTO kept VALUES(?1,?2,?3)")?.execute(params![
            kind.number(),
            key,
            value
        ])?;
        Ok(1)
    }

    fn delete_prefix(&self, kind: Kind, prefix: &[u8]) -> rusqlite::Result<usize> {
        let c = self.connection();
        match behind_prefix(prefix) {
            Some(end) => c.prepare_cached("DELETE FROM kept WHERE kind=?1 AND key>=?2 AND key<?3")?.execute(params![
                kind.number(),
                prefix,
                end
            ]),
            None => {
                c.prepare_cached("DELETE FROM kept WHERE kind=?1 AND key>=?2")?.execute(params![kind.number(), prefix])
            }
        }
    }

    fn count_kept(&self) -> rusqlite::Result<KeptRows> {
        let mut counted = KeptRows::default();
        let mut rows = self.connection().prepare("SELECT kind,count(*) FROM kept GROUP BY kind")?;
        let mut rows = rows.query([])?;
        while let Some(r) = rows.next()? {
            if let Some(kind) = Kind::from_number(r.get(0)?) {
                counted[kind.index()] = r.get::<_, i64>(1)? as u64;
            }
        }
        Ok(counted)
    }

    /// All facts that are kept, in the order of their keys.
    ///
    /// # Errors
    /// [`StoreError`] when the file cannot be read.
    pub fn facts(&self) -> Result<Vec<Fact>, StoreError> {
        let list = || -> rusqlite::Result<Vec<Fact>> {
            let mut rows = self.connection().prepare("SELECT kind,key,value FROM kept ORDER BY kind,key")?;
            let mut rows = rows.query([])?;
            let mut facts = Vec::new();
            while let Some(r) = rows.next()? {
                // What no version wrote is not a fact.
                let kind = r.get_ref(0)?.as_i64().ok().and_then(Kind::from_number);
                if let (Some(kind), Ok(key), Ok(value)) = (kind, r.get_ref(1)?.as_blob(), r.get_ref(2)?.as_blob()) {
                    facts.push(Fact { kind, key: key.to_vec(), value: value.to_vec() });
                }
            }
            Ok(facts)
        };
        list().map_err(|e| classify(&e))
    }

    /// One row for the ids of a commit, and away with old ones.
    pub(super) fn remember(&self, ids: &[MessageId], at: i64) -> rusqlite::Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let c = self.connection();
        let last: i64 = c.prepare_cached("SELECT coalesce(max(seq),0) FROM msgid")?.query_row([], |r| r.get(0))?;
        let last = last.saturating_add(ids.len() as i64);
        let mut hashes = Vec::with_capacity(ids.len() * ID_BYTES);
        for id in ids {
            hashes.extend_from_slice(&id.id.to_le_bytes());
            hashes.extend_from_slice(&id.payload.to_le_bytes());
        }
        let mut insert = c.prepare_cached("INSERT OR REPLACE INTO msgid VALUES(?1,?2,?3,?4)")?;
        insert.execute(params![last, at, ids.len() as i64, hashes])?;
        let (beyond, too_old) = self.forgotten(last, at);
        let mut forget = c.prepare_cached(
            "DELETE FROM msgid WHERE seq IN
             (SELECT seq FROM (SELECT seq,at FROM msgid ORDER BY seq LIMIT ?1) WHERE seq<=?2 OR (at>=?3 AND at<?4))",
        )?;
        forget.execute(params![FORGET_SLICE, beyond, clock::FIRST_PLAUSIBLE_MS, too_old]).map(|_| ())
    }

    /// Rows up to this number lie outside the window; those from before this time (ms since 1970) are too old.
    fn forgotten(&self, last: i64, now_ms: i64) -> (i64, i64) {
        let window = i64::try_from(self.message_ids.window).unwrap_or(i64::MAX);
        let age = i64::try_from(self.message_ids.max_age.as_millis()).unwrap_or(i64::MAX);
        (last.saturating_sub(window), now_ms.saturating_sub(age))
    }

    /// The ids within the window, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the file cannot be read.
    pub fn known_message_ids(&self, now_ms: i64) -> Result<Vec<IdBatch>, StoreError> {
        let list = || -> rusqlite::Result<Vec<IdBatch>> {
            let c = self.connection();
            let last: i64 = c.query_row("SELECT coalesce(max(seq),0) FROM msgid", [], |r| r.get(0))?;
            let (beyond, too_old) = self.forgotten(last, now_ms);
            let mut rows = c.prepare("SELECT at,hashes FROM msgid WHERE seq>?1 ORDER BY seq")?;
            let mut rows = rows.query([beyond])?;
            let mut batches: Vec<IdBatch> = Vec::new();
            while let Some(r) = rows.next()? {
                if let (Ok(at), Ok(hashes)) = (r.get_ref(0)?.as_i64(), r.get_ref(1)?.as_blob())
                    && !(clock::plausible(at) && at < too_old)
                {
                    let ids = hashes.chunks_exact(ID_BYTES).map(message_id);
                    // At low rates each row holds one: what is of the same minute goes together.
                    match batches.last_mut().filter(|last| last.at / MINUTE_MS == at / MINUTE_MS) {
                        Some(last) => last.ids.extend(ids),
                        None => batches.push(IdBatch { at, ids: ids.collect() }),
                    }
                }
            }
            Ok(batches)
        };
        list().map_err(|e| classify(&e))
    }
}

fn take(rows: &mut KeptRows, kind: Kind, gone: usize) {
    let rows = &mut rows[kind.index()];
    *rows = rows.saturating_sub(gone as u64);
}

/// The first key behind all that begin with `prefix`; `None` when there is no such key.
fn behind_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

fn message_id(bytes: &[u8]) -> MessageId {
    let (mut id, mut payload) = ([0; 16], [0; 8]);
    id.copy_from_slice(&bytes[..16]);
    payload.copy_from_slice(&bytes[16..ID_BYTES]);
    MessageId { id: u128::from_le_bytes(id), payload: u64::from_le_bytes(payload) }
}

/// Brings over what can be read of a damaged file, from both ends. It is no chunk's loss when something cannot: only that
/// a device's message may be stored twice, or its session be new to us.
pub(super) fn salvage(old: &Connection, new: &Connection) {
    let kept = "kind,key,value";
    let genuine = "WHERE typeof(kind)='integer' AND typeof(key)='blob' AND typeof(value)='blob' ORDER BY kind";
    let ids = "seq,at,n,hashes";
    for (table, columns, up, down) in [
        ("kept", kept, format!("{genuine},key"), format!("{genuine} DESC,key DESC")),
        ("msgid", ids, "ORDER BY seq".to_owned(), "ORDER BY seq DESC".to_owned()),
    ] {
        if !has_table(old, table) {
            continue;
        }
        let copied = super::salvage::copy_table(old, new, table, columns, &up);
        if let Err(error) = copied {
            tracing::error!(table, %error, "not all of a table could be salvaged");
            // It stops at the damage from the other side.
            let _ = super::salvage::copy_table(old, new, table, columns, &down);
        }
    }
}

/// A file of version 1 has none of them.
fn has_table(conn: &Connection, table: &str) -> bool {
    conn.query_row("SELECT 1 FROM sqlite_schema WHERE name=?1", [table], |_| Ok(())).is_ok()
}
