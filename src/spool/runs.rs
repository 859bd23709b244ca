//! The table of runs: each start of the gateway, with what is known of its clock.

use rusqlite::params;

use super::StoreError;
use super::owner::{RunRow, Settings};
use super::store::{Store, classify};

/// Runs remembered: records older than that many starts keep their arrival time as it was.
const RUNS_KEPT: i64 = 1000;

impl Store {
    /// Begins a run.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn add_run(&mut self, run: u64, started: i64, boot_id: &str, gateway: &str) -> Result<(), StoreError> {
        let add = || -> rusqlite::Result<()> {
            let c = self.connection();
            c.execute(
                "INSERT INTO run(run,started,boot_id,gateway) VALUES(?1,?2,?3,?4)",
                params![run as i64, started, boot_id, gateway],
            )?;
            let newest = c.last_insert_rowid();
            c.execute("DELETE FROM run WHERE ordinal<=?1", [newest - RUNS_KEPT]).map(|_| ())
        };
        add().map_err(|e| classify(&e))
    }

    /// After the file has been replaced: the running run, if its row did not come over.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn readd_run(&mut self, run: u64, settings: &Settings) -> Result<(), StoreError> {
        if self.runs()?.iter().any(|r| r.run == run) {
            return Ok(());
        }
        self.add_run(run, crate::clock::wall_ms(), &crate::clock::boot_id(), &settings.gateway)
    }

    /// Once the clock is right: wall minus boot time (ms) holds for every run of this boot.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn set_clock_offset(&mut self, boot_id: &str, offset_ms: i64) -> Result<(), StoreError> {
        self.connection()
            .execute("UPDATE run SET clock_offset=?2 WHERE boot_id=?1", params![boot_id, offset_ms])
            .map(|_| ())
            .map_err(|e| classify(&e))
    }

    /// # Errors
    /// [`StoreError`]
    pub fn runs(&self) -> Result<Vec<RunRow>, StoreError> {
        let list = || -> rusqlite::Result<Vec<RunRow>> {
            let mut rows = self.connection().prepare("SELECT run,boot_id,clock_offset FROM run ORDER BY ordinal")?;
            rows.query_map([], |r| {
                Ok(RunRow { run: r.get::<_, i64>(0)? as u64, boot_id: r.get(1)?, clock_offset: r.get(2)? })
            })?
            .collect()
        };
        list().map_err(|e| classify(&e))
    }
}
