//! Spool: readings on disk while the uplink is away (steps 3, 4 and 9). One SQLite file, one owner thread.
//!
//! [`lane`] decides (pure), [`store`] does: the hub passes what lanes want to the owner thread as [`Commit`]s and
//! reads, and its answers come back as [`Reply`]s. Crash order: whatever a commit holds becomes durable together or
//! not at all, and nobody is told before it is.

mod aside;
pub mod chunk;
pub mod disk;
mod kept;
pub mod lane;
mod ledger;
pub mod lock;
mod numbers;
pub mod owner;
pub mod queries;
mod rawscan;
mod runs;
pub mod salvage;
pub mod schema;
mod space;
mod start;
pub mod store;
#[cfg(test)]
mod tests;
pub mod window;

use crate::intake::{Change, KeptRows, MessageId};
use crate::record::Body;
use chunk::Numbered;

/// Place of a chunk in its lane and in the file: `lane << 40 | n`. Each lane is one range of the table, so that its
/// next chunk is found without a secondary index, however long the other lanes are.
pub type RowId = i64;

const LANE_SHIFT: u32 = 40;

/// Below every row of this lane.
pub fn row_base(lane: u32) -> RowId {
    i64::from(lane) << LANE_SHIFT
}

/// The lane of a row.
pub fn row_lane(row: RowId) -> u32 {
    (row >> LANE_SHIFT) as u32
}

/// A chunk to be written.
#[derive(Debug, Clone)]
pub struct NewChunk {
    pub row: RowId,
    pub run: u64,
    /// At least one, sequences ascending.
    pub records: Vec<Numbered>,
    /// Smallest and largest record timestamp, ms since 1970.
    pub ts_min: i64,
    pub ts_max: i64,
}

/// A chunk as it came back from the file.
#[derive(Debug, Clone)]
pub struct StoredChunk {
    pub row: RowId,
    pub run: u64,
    pub records: Vec<Numbered>,
    /// One bit a record, lowest first; empty: none is settled.
    pub settled: Vec<u8>,
    /// Bytes in the file.
    pub bytes: u64,
}

/// Why records left the spool without delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// `when_full = "drop-oldest"`.
    DropOldest,
    /// `when_full = "drop-newest"`.
    DropNewest,
    /// `max_age`.
    Age,
    /// A stored chunk could not be read any more.
    Corrupt,
    /// The table of dead letters reached its bound.
    DeadLettersFull,
    /// A person said so: `spool purge`, `dlq drop`.
    Purged,
}

impl Reason {
    pub const ALL: [Reason; 6] =
        [Reason::DropOldest, Reason::DropNewest, Reason::Age, Reason::Corrupt, Reason::DeadLettersFull, Reason::Purged];

    pub fn as_str(self) -> &'static str {
        match self {
            Reason::DropOldest => "drop-oldest",
            Reason::DropNewest => "drop-newest",
            Reason::Age => "age",
            Reason::Corrupt => "corrupt",
            Reason::DeadLettersFull => "dead-letters-full",
            Reason::Purged => "purged",
        }
    }
}

/// An entry of the loss ledger.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Loss {
    /// Number in the ledger; 0 until written.
    pub id: i64,
    /// ms since 1970.
    pub at: i64,
    pub lane: u32,
    pub run: u64,
    pub first: u64,
    pub last: u64,
    pub n: u64,
    /// False: `n` is an upper bound ("unknown, at most n").
    pub exact: bool,
    pub reason: String,
}

/// A record that will never be accepted by Kafka, or could not be routed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub lane: u32,
    pub run: u64,
    pub sequence: u64,
    pub at: i64,
    pub cause: String,
    pub attempts: u32,
    pub body: Body,
}

/// Which undelivered chunks of a lane may go, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evict {
    pub lane: u32,
    /// Rows up to this one stay: they are in memory or with the producer.
    pub after: RowId,
    /// Rows from this one on stay too.
    pub before: RowId,
    pub until: EvictUntil,
    pub reason: Reason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvictUntil {
    /// This many stored bytes are free.
    Bytes(u64),
    /// This many records are gone.
    Records(u64),
    /// Every chunk whose youngest record is older than this (ms since 1970).
    OlderThan(i64),
}

/// All that becomes durable together.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// When it was put together, ms since 1970: the time of its ledger entries.
    pub at: i64,
    pub chunks: Vec<NewChunk>,
    /// Partly settled chunks that leave memory: their bitmaps.
    pub bitmaps: Vec<(RowId, Vec<u8>)>,
    /// Fully settled chunks, and whether they stay as history.
    pub settled: Vec<(RowId, bool)>,
    pub evictions: Vec<Evict>,
    pub dead: Vec<DeadLetter>,
    pub losses: Vec<Loss>,
    /// Ledger entries whose event lies in one of `chunks`.
    pub told: Vec<i64>,
    /// Rows of dead letters that lie in one of `chunks` again.
    pub revived: Vec<i64>,
    /// What sources keep, with the number of each change in the order in which the hub took them. Applied in the order
    /// of the list.
    pub changes: Vec<(u64, Change)>,
    /// Of messages whose readings lie in `chunks` or `dead`, or were dropped with one of `losses`.
    pub message_ids: Vec<MessageId>,
}

impl Commit {
    pub fn is_empty(&self) -> bool {
        let inserts = !(self.chunks.is_empty() && self.dead.is_empty() && self.losses.is_empty());
        !inserts && self.changes.is_empty() && self.message_ids.is_empty() && !self.tidies()
    }

    /// Bytes that it brings into the file and that can wait for room. 0: it only makes room, or says what went.
    pub fn grows_by(&self) -> u64 {
        let records = self.chunks.iter().flat_map(|c| &c.records).map(|(_, body)| body.len() as u64);
        let changes = self.changes.iter().map(|(_, change)| change.bytes() as u64);
        records.chain(changes).sum()
    }

    /// Whether it settles or evicts anything: work that frees space and can wait a second.
    pub fn tidies(&self) -> bool {
        !(self.bitmaps.is_empty()
            && self.settled.is_empty()
            && self.evictions.is_empty()
            && self.told.is_empty()
            && self.revived.is_empty())
    }
}

/// What a commit did.
#[derive(Debug, Clone, Default)]
pub struct Committed {
    /// Stored bytes of each chunk, in the order of `Commit::chunks`.
    pub chunk_bytes: Vec<u64>,
    /// Ledger entries written, ids filled in.
    pub losses: Vec<Loss>,
    /// What evictions freed, per lane: chunks, unsettled records, stored bytes.
    pub evicted: Vec<(u32, Freed)>,
    /// How many rows are kept now, when the commit changed any.
    pub kept: Option<KeptRows>,
}

/// Ids of one commit as a start finds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdBatch {
    /// ms since 1970.
    pub at: i64,
    pub ids: Vec<MessageId>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freed {
    /// Undelivered chunks, their unsettled records, their stored bytes.
    pub chunks: u64,
    pub records: u64,
    pub bytes: u64,
    /// Stored bytes of delivered chunks kept as history.
    pub history_bytes: u64,
}

/// Why a commit or read did not happen. Nothing of it is durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("write the spool: the disk is full ({0})")]
    DiskFull(String),
    #[error("use the spool: {0}")]
    Io(String),
    #[error("use the spool: the file is damaged ({0})")]
    Corrupt(String),
    #[error("open the spool: {0}")]
    Open(String),
}

/// Answers of the owner thread.
#[derive(Debug)]
pub enum Reply {
    Committed(Committed),
    /// Before the `CommitFailed` of a commit that nevertheless shows in the file: what it evicted, and its entries.
    Evicted(Committed),
    CommitFailed(StoreError),
    /// Ledger entries that a command has made.
    Lost(Vec<Loss>),
    Read {
        lane: u32,
        read: store::Read,
    },
    /// The file was damaged: what could be read of it lies in a new one, under the same rows.
    SetAside {
        aside: owner::SetAside,
        losses: Vec<Loss>,
    },
    ReadFailed {
        lane: u32,
        error: StoreError,
    },
    /// A slice of the count after a start: what lies in the file, to be added up.
    Counted {
        lane: u32,
        found: Freed,
    },
    CountDone,
    /// Size of the file in bytes, of the space free on its disk, and of what chunks may still take in file and disk
    /// together: after each commit, and in idle moments.
    Disk {
        used: u64,
        free: u64,
        room: u64,
        ballast: bool,
    },
}
