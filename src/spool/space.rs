//! What the file takes of the disk, and what it has to give. Asks SQLite alone.

use super::store::Store;

impl Store {
    /// Bytes of the file that hold something.
    pub fn used_bytes(&self) -> u64 {
        (self.pragma("page_count") - self.pragma("freelist_count")).max(0) as u64 * self.page_bytes()
    }

    /// Bytes of the file that are free to be written again without growing it.
    pub fn free_bytes(&self) -> u64 {
        self.pragma("freelist_count").max(0) as u64 * self.page_bytes()
    }

    /// Gives up to `pages` free pages back to the file system. Cheap; for idle moments.
    pub fn vacuum_slice(&self, pages: u32) {
        let _ = self.connection().execute_batch(&format!("PRAGMA incremental_vacuum({pages})"));
    }

    /// Writes the WAL's pages back to where they belong. Only then does the file itself end where its last page does: what
    /// [`Store::vacuum_slice`] has given back is free on the disk. The WAL keeps its length, for what comes next.
    ///
    /// Returns whether all of it was written back: then the WAL begins anew and the next commit need not lengthen it.
    pub fn write_back(&self) -> bool {
        let pages = |r: &rusqlite::Row<'_>| Ok((r.get::<_, i64>(1)?, r.get::<_, i64>(2)?));
        let done = self.connection().query_row("PRAGMA wal_checkpoint(PASSIVE)", [], pages);
        done.is_ok_and(|(in_wal, written)| in_wal == written)
    }

    fn page_bytes(&self) -> u64 {
        self.pragma("page_size").max(0) as u64
    }

    fn pragma(&self, name: &str) -> i64 {
        self.connection().query_row(&format!("PRAGMA {name}"), [], |r| r.get(0)).unwrap_or(0)
    }
}
