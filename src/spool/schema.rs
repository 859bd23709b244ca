//! The file's form: pragmas, tables, version and migrations. Set, re-read, explained.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::StoreError;
use super::store::classify;

/// "FBAY", so that `file` and a salvage know whose file this is.
const APPLICATION_ID: i32 = 0x4642_4159;
/// Version of the tables below. A migration for each older one stands in [`migrate`].
pub const VERSION: i32 = 2;

const PAGE_SIZE: i64 = 4096;

const TABLES: &str = "
    CREATE TABLE chunk(
        seq INTEGER PRIMARY KEY, lane INTEGER NOT NULL, run INTEGER NOT NULL, first INTEGER NOT NULL,
        last INTEGER NOT NULL, n INTEGER NOT NULL, bytes INTEGER NOT NULL, ts_min INTEGER NOT NULL,
        ts_max INTEGER NOT NULL, settled BLOB, data BLOB NOT NULL);
    CREATE TABLE run(
        ordinal INTEGER PRIMARY KEY, run INTEGER NOT NULL, started INTEGER NOT NULL, boot_id TEXT NOT NULL,
        clock_offset INTEGER, gateway TEXT NOT NULL);
    CREATE TABLE lane(lane INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE state(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
    CREATE TABLE loss(
        id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, lane INTEGER NOT NULL, run INTEGER NOT NULL,
        first INTEGER NOT NULL, last INTEGER NOT NULL, n INTEGER NOT NULL, exact INTEGER NOT NULL,
        reason TEXT NOT NULL, told INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE dead(
        id INTEGER PRIMARY KEY AUTOINCREMENT, lane INTEGER NOT NULL, run INTEGER NOT NULL, sequence INTEGER NOT NULL,
        at INTEGER NOT NULL, cause TEXT NOT NULL, attempts INTEGER NOT NULL, bytes INTEGER NOT NULL,
        body BLOB NOT NULL, UNIQUE(lane, run, sequence));
";

/// What version 2 added: what sources keep ([`crate::intake::Kind`]), and the ids of messages, a row a commit. `seq` of
/// such a row is the number of the last id in it, counted from the first ever.
const KEPT_TABLES: &str = "
    CREATE TABLE kept(
        kind INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY(kind, key)) WITHOUT ROWID;
    CREATE TABLE msgid(
        seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, n INTEGER NOT NULL, hashes BLOB NOT NULL);
";

/// Opens or creates the file with everything the promises need.
///
/// # Errors
/// [`StoreError::Corrupt`] when it is not a readable spool, [`StoreError::Open`] when it belongs to a newer version or
/// cannot be opened at all.
pub fn open(path: &Path, max_bytes: u64) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(|e| classify(&e))?;
    let run = || -> rusqlite::Result<i32> {
        conn.busy_timeout(Duration::ZERO)?;
        // Both only take effect before the first table exists; on an older file they are what they are.
        conn.pragma_update(None, "page_size", PAGE_SIZE)?;
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        conn.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?;
        // FULL syncs the WAL at each commit: NORMAL would lose acknowledged readings with the power.
        conn.pragma_update(None, "synchronous", "FULL")?;
        // The WAL is recycled in place and never truncated: overwriting costs a sixth of appending (facts of ext4).
        conn.query_row("PRAGMA journal_size_limit=-1", [], |_| Ok(()))?;
        conn.query_row("PRAGMA wal_autocheckpoint=1000", [], |_| Ok(()))?;
        conn.pragma_update(None, "cache_size", -2048)?;
        conn.pragma_update(None, "temp_store", "MEMORY")?;
        conn.query_row("PRAGMA user_version", [], |r| r.get(0))
    };
    let version = run().map_err(|e| classify(&e))?;
    prepare(&conn, version)?;
    confirm(&conn)?;
    verify(&conn)?;
    // The backstop behind the lanes' own limits: a page more than allowed is SQLITE_FULL, never a full disk.
    let pages = (max_bytes / PAGE_SIZE as u64).max(64) as i64;
    conn.query_row(&format!("PRAGMA max_page_count={pages}"), [], |_| Ok(())).map_err(|e| classify(&e))?;
    Ok(conn)
}

fn prepare(conn: &Connection, version: i32) -> Result<(), StoreError> {
    match version {
        0 => create(conn).map_err(|e| classify(&e)),
        VERSION => Ok(()),
        odd if stated(conn) != Some(i64::from(odd)) => {
            Err(StoreError::Corrupt(format!("its header speaks of schema version {odd}, its tables do not")))
        }
        older if (1..VERSION).contains(&older) => migrate(conn, older).map_err(|e| classify(&e)),
        newer => Err(StoreError::Open(format!(
            "it has schema version {newer} and this program knows {VERSION}: install the newer forebay again"
        ))),
    }
}

/// The schema version as the tables tell it: one flipped bit in the header must not look like a newer program.
fn stated(conn: &Connection) -> Option<i64> {
    conn.query_row("SELECT v FROM state WHERE k='schema'", [], |r| r.get(0)).ok()
}

/// Header and tables belong to each other, and to us.
fn confirm(conn: &Connection) -> Result<(), StoreError> {
    let id = conn.query_row("PRAGMA application_id", [], |r| r.get::<_, i32>(0)).map_err(|e| classify(&e))?;
    if id != APPLICATION_ID || stated(conn) != Some(i64::from(VERSION)) {
        return Err(StoreError::Corrupt("its header or its table of state is not a spool's".into()));
    }
    Ok(())
}

fn create(conn: &Connection) -> rusqlite::Result<()> {
    let id = new_id();
    conn.execute_batch("BEGIN IMMEDIATE")?;
    conn.execute_batch(TABLES)?;
    conn.execute_batch(KEPT_TABLES)?;
    conn.execute("INSERT INTO state VALUES('spool_id', ?1)", [id as i64])?;
    conn.execute("INSERT INTO state VALUES('schema', ?1)", [VERSION])?;
    conn.pragma_update(None, "application_id", APPLICATION_ID)?;
    conn.pragma_update(None, "user_version", VERSION)?;
    conn.execute_batch("COMMIT")
}

/// All steps from one version to the next within one transaction, so that a kill in the middle leaves the old version.
fn migrate(conn: &Connection, from: i32) -> rusqlite::Result<()> {
    tracing::info!(from, to = VERSION, "migrating the spool");
    conn.execute_batch("BEGIN IMMEDIATE")?;
    if from < 2 {
        conn.execute_batch(KEPT_TABLES)?;
    }
    conn.execute("INSERT OR REPLACE INTO state VALUES('schema', ?1)", [VERSION])?;
    conn.pragma_update(None, "user_version", VERSION)?;
    conn.execute_batch("COMMIT")
}

/// A pragma that did not take is a promise that does not hold.
fn verify(conn: &Connection) -> Result<(), StoreError> {
    let text = |pragma: &str| -> Result<String, StoreError> {
        conn.query_row(&format!("PRAGMA {pragma}"), [], |r| {
            r.get::<_, rusqlite::types::Value>(0).map(|v| match v {
                rusqlite::types::Value::Integer(i) => i.to_string(),
                rusqlite::types::Value::Text(t) => t,
                other => format!("{other:?}"),
            })
        })
        .map_err(|e| classify(&e))
    };
    for (pragma, wanted) in [("journal_mode", "wal"), ("synchronous", "2")] {
        let got = text(pragma)?;
        if got != wanted {
            return Err(StoreError::Open(format!(
                "{pragma} is {got} where it must be {wanted}; is this a local disk?"
            )));
        }
    }
    Ok(())
}

/// A spool's or a run's name. SQLite's integers are signed: 63 bits keep every number positive and readable in a query.
pub fn new_id() -> u64 {
    random_u64() >> 1
}

/// Uniform over all of `u64`.
pub fn random_u64() -> u64 {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut bytes = [0; 8];
    // The kernel's generator does not fail once it has been seeded, and ring waits for that.
    SystemRandom::new().fill(&mut bytes).expect("the kernel gives random bytes");
    u64::from_le_bytes(bytes)
}
