//! The loss ledger: every record that left the spool undelivered, and why.

use rusqlite::params;

use super::store::{Store, classify};
use super::{Loss, Reason, StoreError};

/// Entries that stay; older ones are told and counted.
const ENTRIES_KEPT: i64 = 10_000;
const TRIM_EVERY: i64 = 500;

impl Store {
    /// Entries that commands have made since the last call: the hub counts and tells them like its own.
    pub fn take_entries_of_commands(&mut self) -> Vec<Loss> {
        std::mem::take(&mut self.by_commands)
    }

    pub(super) fn insert_loss(&self, loss: &mut Loss) -> rusqlite::Result<()> {
        let mut insert = self.connection().prepare_cached(
            "INSERT INTO loss(at,lane,run,first,last,n,exact,reason) VALUES(?1,?2,?3,?4,?5,?6,?7,?8)",
        )?;
        insert.execute(params![
            loss.at,
            loss.lane,
            loss.run as i64,
            loss.first as i64,
            loss.last as i64,
            loss.n as i64,
            loss.exact,
            loss.reason
        ])?;
        loss.id = self.connection().last_insert_rowid();
        Ok(())
    }

    /// The table has a bound: told entries beyond it become part of the totals.
    pub(super) fn trim_ledger(&self, added: &[Loss]) -> rusqlite::Result<()> {
        // Rarely, and then many at once.
        let Some(due) = added.iter().find(|l| l.id % TRIM_EVERY == 0) else { return Ok(()) };
        let (c, last) = (self.connection(), due.id - ENTRIES_KEPT);
        let sums = "SELECT 'lost:'||reason, sum(n) FROM loss WHERE told=1 AND id<=?1 GROUP BY reason";
        c.execute(&format!("INSERT INTO state(k,v) {sums} ON CONFLICT(k) DO UPDATE SET v=v+excluded.v"), [last])?;
        c.execute("DELETE FROM loss WHERE told=1 AND id<=?1", [last]).map(|_| ())
    }

    /// Ledger entries that have not become an event yet, oldest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn untold_losses(&self, limit: u32) -> Result<Vec<Loss>, StoreError> {
        self.losses("WHERE told=0", limit)
    }

    /// The ledger, oldest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn all_losses(&self, limit: u32) -> Result<Vec<Loss>, StoreError> {
        self.losses("", limit)
    }

    fn losses(&self, which: &str, limit: u32) -> Result<Vec<Loss>, StoreError> {
        let list = || -> rusqlite::Result<Vec<Loss>> {
            let sql = format!("SELECT id,at,lane,run,first,last,n,exact,reason FROM loss {which} ORDER BY id LIMIT ?1");
            let mut rows = self.connection().prepare_cached(&sql)?;
            rows.query_map([limit], |r| {
                Ok(Loss {
                    id: r.get(0)?,
                    at: r.get(1)?,
                    lane: r.get(2)?,
                    run: r.get::<_, i64>(3)? as u64,
                    first: r.get::<_, i64>(4)? as u64,
                    last: r.get::<_, i64>(5)? as u64,
                    n: r.get::<_, i64>(6)? as u64,
                    exact: r.get(7)?,
                    reason: r.get(8)?,
                })
            })?
            .collect()
        };
        list().map_err(|e| classify(&e))
    }

    /// Sum of all lost records by reason.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn loss_totals(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let list = || -> rusqlite::Result<Vec<(String, u64)>> {
            let mut rows = self.connection().prepare(
                "SELECT reason,sum(n) FROM
                 (SELECT reason,n FROM loss UNION ALL SELECT substr(k,6),v FROM state WHERE k LIKE 'lost:%')
                 GROUP BY reason ORDER BY reason",
            )?;
            rows.query_map([], |r| Ok((r.get(0)?, r.get::<_, i64>(1)? as u64)))?.collect()
        };
        list().map_err(|e| classify(&e))
    }
}

/// Neighbouring losses of one run become one entry.
pub(super) fn add_loss(losses: &mut Vec<Loss>, lane: u32, run: u64, span: (u64, u64), n: u64, reason: Reason) {
    if let Some(l) = losses.last_mut()
        && l.lane == lane
        && l.run == run
        && l.reason == reason.as_str()
        && l.last < span.0
    {
        l.last = span.1;
        l.n += n;
        return;
    }
    let reason = reason.as_str().to_owned();
    losses.push(Loss { id: 0, at: 0, lane, run, first: span.0, last: span.1, n, exact: true, reason });
}
