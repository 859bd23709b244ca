//! The owner thread: the only one that touches the file. Requests come through a bounded queue, answers go to the
//! hub's inbox in the order of the requests. Between requests it counts, vacuums and tends the ballast in slices.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::disk::Disk;
use super::store::{Read, Store};
use super::{Commit, IdBatch, Loss, Reply, RowId, StoreError, lock, row_base, row_lane, schema, start};
use crate::intake::Fact;

/// One commit and one read per lane are outstanding at most; the rest is for commands.
const REQUESTS_MAX: usize = 64;
/// Rows counted in one slice after a start: some 20 ms on an SD card.
const COUNT_SLICE: u32 = 500;
const VACUUM_PAGES: u32 = 64;
/// With so much room, the largest chunk's, a disk that was full counts as writable although nothing waits to prove it.
pub const ROOM_AGAIN: u64 = 1 << 20;
/// Between two replacements of a damaged file.
const REPLACE_PAUSE: Duration = Duration::from_secs(600);
const IDLE: Duration = Duration::from_secs(1);

/// A question from a command, answered between two requests. Its own channel carries the answer.
pub type Job = Box<dyn FnOnce(&mut Store) + Send>;

pub enum Request {
    Commit(Box<Commit>),
    Read {
        lane: u32,
        after: RowId,
        bytes: u64,
    },
    Run(Job),
    /// A watchdog tick: proves that this thread still takes requests.
    Tick(oneshot::Sender<()>),
    Stop,
}

/// Where answers go.
pub type Answer = Box<dyn Fn(Reply) + Send>;

pub struct Settings {
    pub path: PathBuf,
    pub max_bytes: u64,
    pub dead_bytes_max: u64,
    pub reserve_bytes: u64,
    pub ballast_bytes: u64,
    pub gateway: String,
    /// Names of the configured lanes.
    pub lanes: Vec<String>,
    pub message_ids: crate::config::MessageIds,
}

/// What a start found and made.
#[derive(Debug, Clone)]
pub struct Opened {
    pub spool_id: u64,
    /// This process's run.
    pub run: u64,
    /// Configured lanes first, in the order of `Settings::lanes`, then those that only the file knows.
    pub lanes: Vec<OpenedLane>,
    pub untold: Vec<Loss>,
    /// Records in the ledger so far, by reason.
    pub lost: Vec<(String, u64)>,
    /// Clock offsets (wall minus boot, ms) of earlier runs, for records whose clock was unset.
    pub runs: Vec<RunRow>,
    /// What sources have kept.
    pub kept: Vec<Fact>,
    /// The ids of messages within the window, oldest first.
    pub message_ids: Vec<IdBatch>,
    /// The damaged file's new name and what was saved from it.
    pub set_aside: Option<SetAside>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedLane {
    pub number: u32,
    pub name: String,
    pub last_row: RowId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRow {
    pub run: u64,
    pub boot_id: String,
    pub clock_offset: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    pub path: PathBuf,
    pub cause: String,
    pub chunks: u64,
    pub records: u64,
    pub missing_at_most: u64,
}

/// The hub's handle. Dropping it does not stop the thread; [`Owner::stop`] does.
#[derive(Debug)]
pub struct Owner {
    requests: SyncSender<Request>,
    thread: Option<JoinHandle<()>>,
}

impl Owner {
    /// Locks and opens the spool, then starts the thread.
    ///
    /// # Errors
    /// The lock's or the file's, in words. A damaged file is no error: it is set aside and a new one begun.
    pub fn start(settings: Settings, answer: Answer) -> Result<(Owner, Opened), String> {
        if let Some(dir) = settings.path.parent() {
            std::fs::create_dir_all(dir).map_err(|e| format!("create {}: {e}", dir.display()))?;
        }
        let lock = lock::take(&settings.path).map_err(|e| e.to_string())?;
        let run = schema::new_id();
        let (store, opened) = start::open_or_set_aside(&settings, run)?;
        let disk = Disk::new(&settings.path, settings.ballast_bytes, settings.reserve_bytes);
        let (requests, queue) = sync_channel(REQUESTS_MAX);
        let counts = opened.lanes.iter().map(Count::new).collect();
        let last_rows = opened.lanes.iter().map(|l| (l.number, l.last_row)).collect();
        let body = move || {
            let _lock = lock;
            let replaced_at = None;
            Worker { store, disk, answer, counts, counted: false, last_rows, settings, run, replaced_at }.serve(&queue);
        };
        let thread = std::thread::Builder::new()
            .name("spool".into())
            .spawn(body)
            .map_err(|e| format!("start the spool's thread: {e}"))?;
        Ok((Owner { requests, thread: Some(thread) }, opened))
    }

    /// Never blocks: the hub bounds its own requests below the queue's size, and commands get a refusal.
    pub fn ask(&self, request: Request) -> Result<(), Request> {
        use std::sync::mpsc::TrySendError;
        self.requests.try_send(request).map_err(|e| match e {
            TrySendError::Full(r) | TrySendError::Disconnected(r) => r,
        })
    }

    /// A sender for commands: the control socket asks through it.
    pub fn requests(&self) -> SyncSender<Request> {
        self.requests.clone()
    }

    /// Waits until everything asked so far is done and the lock is free.
    pub fn stop(mut self) {
        if self.requests.send(Request::Stop).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

struct Worker {
    store: Store,
    disk: Disk,
    answer: Answer,
    /// Lanes still to be counted after the start.
    counts: Vec<Count>,
    counted: bool,
    /// The newest row of each lane: what a salvage finds behind it was deleted long ago.
    last_rows: HashMap<u32, RowId>,
    settings: Settings,
    run: u64,
    replaced_at: Option<Instant>,
}

/// How far a lane has been counted. Its rows count as they were at the start: each before it is changed.
#[derive(Debug)]
struct Count {
    lane: u32,
    next_after: RowId,
    last: RowId,
}

impl Count {
    fn new(lane: &OpenedLane) -> Self {
        Count { lane: lane.number, next_after: row_base(lane.number), last: lane.last_row }
    }
}

impl Worker {
    fn serve(mut self, queue: &Receiver<Request>) {
        self.disk.restore_ballast();
        self.report_disk();
        loop {
            let patience = if self.counted { IDLE } else { Duration::from_millis(1) };
            match queue.recv_timeout(patience) {
                Ok(Request::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Request::Commit(commit)) => self.commit(&commit),
                Ok(Request::Read { lane, after, bytes }) => self.read(lane, after, bytes),
                Ok(Request::Run(job)) => self.run(job),
                // A tick nobody waits for any more is no harm.
                Ok(Request::Tick(back)) => {
                    let _ = back.send(());
                }
                Err(RecvTimeoutError::Timeout) => self.idle(),
            }
        }
    }

    fn run(&mut self, job: Job) {
        job(&mut self.store);
        let entries = self.store.take_entries_of_commands();
        if !entries.is_empty() {
            (self.answer)(Reply::Lost(entries));
        }
    }

    fn commit(&mut self, commit: &Commit) {
        let bytes = commit.grows_by();
        let grows = bytes > 0;
        if grows && !self.has_room(bytes) {
            // What settles and deletes may still go through: the hub asks for it apart when it hears of the full disk.
            (self.answer)(Reply::CommitFailed(StoreError::DiskFull("less than reserve_bytes is free".into())));
            self.report_disk();
            return;
        }
        self.count_before(commit);
        for new in &commit.chunks {
            self.last_rows.insert(row_lane(new.row), new.row);
        }
        let done = match self.store.commit(commit) {
            Err(StoreError::DiskFull(_)) if !grows && self.give_up_ballast() => self.store.commit(commit),
            other => other,
        };
        match done {
            Ok(committed) => (self.answer)(Reply::Committed(committed)),
            Err(e) => {
                self.recover(&e);
                if let Some(done) = self.store.happened() {
                    (self.answer)(Reply::Evicted(done));
                }
                (self.answer)(Reply::CommitFailed(e));
            }
        }
        self.report_disk();
    }

    /// What has been delivered leaves free pages in the file: with enough of them a commit needs nothing of the disk, if the
    /// WAL can begin anew. It must not grow into the last room: it could then never be written back.
    fn has_room(&self, bytes: u64) -> bool {
        self.disk.room() > 0 || (self.write_back() && (self.store.free_bytes() > bytes || self.disk.room() > 0))
    }

    /// Empties the WAL into the file, which may have to grow for that: then the ballast makes room.
    fn write_back(&self) -> bool {
        self.store.write_back() || (self.give_up_ballast() && self.store.write_back())
    }

    fn give_up_ballast(&self) -> bool {
        let given_up = self.disk.drop_ballast();
        if given_up {
            tracing::warn!("the disk is full: the ballast is given up so that the drain goes on");
        }
        given_up
    }

    /// After an I/O error nothing is known about the open file (a failed fsync may have dropped dirty pages).
    fn recover(&mut self, e: &StoreError) {
        match e {
            StoreError::DiskFull(_) => return,
            StoreError::Corrupt(cause) => return self.replace_damaged(cause),
            _ => {}
        }
        tracing::error!(error = %e, "a commit failed; the spool is closed and opened again");
        if let Err(e) = self.store.reopen() {
            tracing::error!(error = %e, "failed to reopen the spool; the next commit tries again");
        }
    }

    /// The file turns out to be damaged while it is used: what can be read of it moves into a new one, under the same
    /// rows. A disk that damages one file after the other must not be filled with them.
    fn replace_damaged(&mut self, cause: &str) {
        if self.replaced_at.is_some_and(|at| at.elapsed() < REPLACE_PAUSE) {
            tracing::error!(cause, "the spool is damaged again; it is set aside in some minutes");
            return;
        }
        self.replaced_at = Some(Instant::now());
        let replaced = self.store.let_go().map_err(|e| e.to_string());
        match replaced.and_then(|()| start::replace(&self.settings, cause.to_owned(), &self.last_rows)) {
            Ok((store, aside, losses)) => {
                self.store = store;
                self.counts.clear();
                if let Err(error) = self.store.readd_run(self.run, &self.settings) {
                    tracing::error!(%error, "failed to write this run into the new spool");
                }
                (self.answer)(Reply::SetAside { aside, losses });
            }
            Err(error) => {
                tracing::error!(error, "failed to replace the damaged spool; the next commit tries again");
                if let Err(error) = self.store.reopen() {
                    tracing::error!(%error, "failed to reopen the spool");
                }
            }
        }
    }

    fn read(&mut self, lane: u32, after: RowId, bytes: u64) {
        match self.store.read(lane, after, bytes) {
            Ok(read) => {
                self.count_discarded(lane, &read);
                (self.answer)(Reply::Read { lane, read });
            }
            Err(error) => {
                if let StoreError::Corrupt(cause) = &error {
                    self.replace_damaged(cause);
                }
                (self.answer)(Reply::ReadFailed { lane, error });
            }
        }
    }

    /// Counts up to the rows that this commit changes.
    fn count_before(&mut self, commit: &Commit) {
        if self.counts.is_empty() {
            return;
        }
        let rows = commit.settled.iter().map(|s| s.0).chain(commit.bitmaps.iter().map(|b| b.0));
        for row in rows {
            self.count_to(row_lane(row), row);
        }
        for eviction in &commit.evictions {
            self.count_to(eviction.lane, RowId::MAX);
        }
    }

    /// A read has taken damaged chunks out: those not counted yet are counted as they were.
    fn count_discarded(&self, lane: u32, read: &Read) {
        let Some(count) = self.counts.iter().find(|c| c.lane == lane) else { return };
        for (_, found) in read.discarded.iter().filter(|(row, _)| *row > count.next_after && *row <= count.last) {
            (self.answer)(Reply::Counted { lane, found: *found });
        }
    }

    fn count_to(&mut self, lane: u32, row: RowId) {
        while let Some(i) = self.counts.iter().position(|c| c.lane == lane && c.next_after < row) {
            self.count_slice(i);
        }
    }

    fn count_slice(&mut self, i: usize) {
        let Count { lane, next_after, last } = self.counts[i];
        match self.store.count(next_after, last, COUNT_SLICE) {
            Ok(Some((row, found))) => {
                self.counts[i].next_after = row;
                (self.answer)(Reply::Counted { lane, found });
            }
            Ok(None) => drop(self.counts.swap_remove(i)),
            Err(e) => {
                tracing::error!(lane, error = %e, "failed to count the lane's chunks");
                self.counts.swap_remove(i);
                if let StoreError::Corrupt(cause) = &e {
                    self.replace_damaged(cause);
                }
            }
        }
    }

    fn idle(&mut self) {
        if !self.counts.is_empty() {
            self.count_slice(0);
        } else if !self.counted {
            self.counted = true;
            (self.answer)(Reply::CountDone);
        } else {
            self.store.vacuum_slice(VACUUM_PAGES);
            if self.disk.room() < ROOM_AGAIN {
                // Nobody may have anything to commit, and pages given up in the WAL alone are no room.
                self.write_back();
            }
            self.disk.restore_ballast();
            self.report_disk();
        }
    }

    fn report_disk(&self) {
        let (used, free, ballast) = (self.store.used_bytes(), self.disk.free(), self.disk.has_ballast());
        let room = self.disk.room().saturating_add(self.store.free_bytes());
        (self.answer)(Reply::Disk { used, free, room, ballast });
    }
}
