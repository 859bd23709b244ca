//! Lanes have permanent numbers: a name keeps its number for the life of the file, also when the config drops it.

use rusqlite::{Connection, OptionalExtension};

use super::StoreError;
use super::store::{Store, classify};

impl Store {
    /// The permanent number of a lane's name; made at first sight.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn lane_number(&self, name: &str) -> Result<u32, StoreError> {
        let known = |c: &Connection| {
            c.query_row("SELECT lane FROM lane WHERE name=?1", [name], |r| r.get::<_, u32>(0)).optional()
        };
        let made = |c: &Connection| -> rusqlite::Result<u32> {
            if let Some(n) = known(c)? {
                return Ok(n);
            }
            c.execute("INSERT INTO lane(lane,name) SELECT coalesce(max(lane),0)+1, ?1 FROM lane", [name])?;
            Ok(known(c)?.unwrap_or_default())
        };
        made(self.connection()).map_err(|e| classify(&e))
    }

    /// Every lane the file knows, also those that the config has dropped.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn lanes(&self) -> Result<Vec<(u32, String)>, StoreError> {
        let list = || -> rusqlite::Result<Vec<(u32, String)>> {
            let mut rows = self.connection().prepare("SELECT lane,name FROM lane ORDER BY lane")?;
            rows.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect()
        };
        list().map_err(|e| classify(&e))
    }
}
