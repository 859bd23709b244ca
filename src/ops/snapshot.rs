//! What the hub shows of itself, four times a second: the one source of `/metrics`, `status` and the heartbeat.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::Serialize;

use crate::intake::{KeptRows, Kind};
use crate::spool::lane::{LaneStats, Mode};

#[derive(Debug, Clone, Default, Serialize)]
pub struct Snapshot {
    pub gateway: String,
    pub version: &'static str,
    pub config_hash: String,
    /// ms since 1970.
    pub at: i64,
    /// Boot clock of the same moment: its age tells whether the hub turns.
    pub boot_ms: u64,
    pub uptime_s: u64,
    pub run: String,
    pub lanes: Vec<LaneSnapshot>,
    pub clusters: Vec<ClusterSnapshot>,
    pub spool: SpoolSnapshot,
    /// Records in the loss ledger, by reason.
    pub lost: BTreeMap<String, u64>,
    pub clock_set: bool,
    pub events_refused: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct LaneSnapshot {
    pub name: String,
    pub mode: Mode,
    pub why: String,
    pub max_bytes: u64,
    /// Age of the oldest undelivered record, seconds.
    pub oldest_age_s: f64,
    #[serde(flatten)]
    pub stats: LaneStats,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct ClusterSnapshot {
    pub name: String,
    pub up: bool,
    pub in_flight: u64,
    /// Producers made since the start, the first included.
    pub generation: u64,
    pub trouble: String,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct SpoolSnapshot {
    pub used_bytes: u64,
    pub max_bytes: u64,
    pub free_disk_bytes: u64,
    pub ballast: bool,
    pub full: bool,
    /// One fsync each.
    pub commits: u64,
    pub commit_failures: u64,
    /// Bytes of records put into chunks.
    pub payload_bytes: u64,
    /// Bytes of chunks written.
    pub chunk_bytes: u64,
    /// Bytes this process caused to be written to the storage layer.
    pub device_bytes: u64,
    pub device_bytes_today: u64,
    pub wear_budget_per_day: Option<u64>,
    pub counted: bool,
    /// Rows that sources keep, in the order of [`Kind::ALL`](crate::intake::Kind::ALL).
    #[serde(serialize_with = "by_kind")]
    pub kept: KeptRows,
    pub message_ids: MessageIdSnapshot,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MessageIdSnapshot {
    /// Remembered.
    pub known: u64,
    /// Messages that came again and were not stored again.
    pub duplicates: u64,
    /// Messages stored under an id that another payload had.
    pub reused: u64,
}

fn by_kind<S: serde::Serializer>(rows: &KeptRows, out: S) -> Result<S::Ok, S::Error> {
    out.collect_map(Kind::ALL.map(|kind| (kind.as_str(), rows[kind.index()])))
}

/// The latest snapshot, shared with those who show it.
#[derive(Debug, Default)]
pub struct Shown(Mutex<Snapshot>);

impl Shown {
    pub fn put(&self, snapshot: Snapshot) {
        *self.0.lock().expect("no holder of this lock panics") = snapshot;
    }

    pub fn get(&self) -> Snapshot {
        self.0.lock().expect("no holder of this lock panics").clone()
    }
}
