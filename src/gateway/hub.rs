//! The hub: the one owner of lanes, producers and the spool's handle. `run` takes the mail, applies it, and lets every
//! lane do what it can: pump (7), commit (4), read (6). Only one thing happens at a time, and nothing here blocks but
//! waiting for mail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::events::EventWriter;
use super::inbox::{Ask, Inbox, Mail, RawReport};
use crate::clock;
use crate::config;
use crate::faults;
use crate::forward::ProducerNote;
use crate::forward::kafka::{Cluster, Outgoing};
use crate::forward::times::Times;
use crate::ops::snapshot::Shown;
use crate::record::Body;
use crate::spool::lane::{Lane, Mode, Sent, Sink};
use crate::spool::owner::{Owner, Request};
use crate::spool::window::Key;
use crate::spool::{Commit, Committed, Loss, Reply, StoreError};

/// A commit starts when this much waits (design section 6).
const COMMIT_RECORDS: usize = 1000;
const COMMIT_BYTES: usize = 256 << 10;
/// Settled chunks are deleted along with the next insert, or after this long without one.
const TIDY_US: u64 = 1_000_000;
pub(super) const SHOW_US: u64 = 250_000;
const EXPIRY_US: u64 = 10_000_000;
/// Ledger entries in memory that wait for their event. The file has them all; what is more is told after the next start.
const UNTOLD_MAX: usize = 10_000;
/// After a failed commit.
const RETRY_US: u64 = 1_000_000;
/// Pause before a producer that could not be made is tried again.
const PRODUCER_RETRY_US: u64 = 5_000_000;

/// Steps 7 and 8 for all lanes.
pub(super) struct Producers {
    pub clusters: Vec<Cluster>,
    /// Of each lane: its cluster and permanent number.
    pub lanes: Vec<(usize, u32)>,
    pub times: Times,
    pub now_us: u64,
}

impl Sink for Producers {
    fn send(&mut self, lane: usize, key: Key, run: u64, body: &Body) -> Sent {
        let (cluster, number) = self.lanes[lane];
        faults::point("6-batch-read");
        let sent = self.clusters[cluster].send(Outgoing { lane, number, key, run, body }, &self.times, self.now_us);
        if sent == Sent::Queued {
            faults::point("7-produced");
        }
        sent
    }
}

pub(super) struct Hub {
    pub inbox: Arc<Inbox>,
    pub config: Arc<config::Config>,
    pub lanes: Vec<Lane>,
    /// Lane indices, highest priority first.
    pub order: Vec<usize>,
    pub events_lane: usize,
    pub producers: Producers,
    pub owner: Owner,
    pub events: EventWriter,
    pub shown: Arc<Shown>,
    pub set_aside: Option<crate::spool::owner::SetAside>,
    pub state: State,
}

/// What the hub remembers between two turns.
#[derive(Default)]
pub(super) struct State {
    pub now_us: u64,
    pub started_us: u64,
    pub run: u64,
    /// A commit is with the owner thread: lanes that have a chunk in it, in the order of the chunks.
    pub committing: Option<Vec<usize>>,
    /// Ledger entries whose event lies in the events lane (its sequence) and that are not marked yet; those that the
    /// running commit marks; those without an event.
    pub telling: Vec<(u64, i64)>,
    pub told: Vec<i64>,
    pub untold: Vec<Loss>,
    /// Requeued dead letters (lane, sequence, row), and the rows that the running commit deletes.
    pub revived: Vec<(usize, u64, i64)>,
    pub reviving: Vec<i64>,
    /// Dead letters of the running or a failed commit whose copy is on its way to the dead-letter topic.
    pub copied: std::collections::HashSet<(u32, u64, u64)>,
    pub tidy_at_us: u64,
    pub expiry_at_us: u64,
    pub show_at_us: u64,
    pub heartbeat_at_us: u64,
    pub disk_full: bool,
    /// While the disk is full, commits that only free space and those that try to store take turns.
    pub try_insert: bool,
    pub retry_at_us: u64,
    pub producer_retry_at_us: Vec<u64>,
    pub reachable: Vec<Option<bool>>,
    pub trouble: Vec<String>,
    pub stop_at_us: Option<u64>,
    pub spool: crate::ops::snapshot::SpoolSnapshot,
    pub lost: BTreeMap<String, u64>,
    pub clock_set: bool,
    pub modes: Vec<Mode>,
    pub wear: super::wear::Wear,
    pub sink_full: bool,
}

impl Hub {
    /// Until an orderly stop has drained or its deadline has passed.
    pub fn run(mut self) {
        let mut mail = Mail::default();
        self.begin();
        loop {
            let patience = self.patience();
            self.inbox.take(&mut mail, patience);
            self.state.now_us = clock::now_us();
            self.producers.now_us = self.state.now_us;
            self.apply(&mut mail);
            self.advance();
            if self.stopped() {
                break;
            }
        }
        self.end();
    }

    fn apply(&mut self, mail: &mut Mail) {
        // Replies first: they may close the gap that lets deliveries go direct.
        for reply in mail.replies.drain(..) {
            self.replied(reply);
        }
        for raw in mail.reports.drain(..) {
            self.reported(raw);
        }
        for note in mail.notes.drain(..) {
            self.noted(note);
        }
        let wall_ms = clock::wall_ms();
        for d in mail.deliveries.drain(..) {
            faults::point("2-delivered");
            self.lanes[d.lane].accept(d.body, d.fate, d.ack, self.state.now_us, wall_ms);
        }
        for ask in mail.asks.drain(..) {
            self.asked(ask);
        }
    }

    /// Everything that follows from the state, not from one event.
    fn advance(&mut self) {
        self.renew_producers();
        self.park_stuck_topics();
        for i in 0..self.lanes.len() {
            self.lanes[i].tick(self.state.now_us);
            self.tell_mode(i);
        }
        self.pump();
        self.commit_if_due();
        self.read_ahead();
        if self.state.now_us >= self.state.show_at_us {
            self.state.show_at_us = self.state.now_us + SHOW_US;
            self.show();
        }
    }

    fn pump(&mut self) {
        let wall_ms = clock::wall_ms();
        self.state.sink_full = false;
        for &i in &self.order {
            self.state.sink_full |= self.lanes[i].pump(&mut self.producers, self.state.now_us, wall_ms);
        }
    }

    fn reported(&mut self, raw: RawReport) {
        let cluster = &mut self.producers.clusters[raw.cluster];
        if raw.generation != cluster.generation() {
            return;
        }
        faults::point("8-reported");
        let Some(report) = cluster.resolve(raw.slot, raw.code, self.state.now_us) else { return };
        if raw.code.is_none() {
            self.reachable(raw.cluster, true, "");
        }
        faults::point("9-before-settle");
        self.lanes[report.lane].report(report.key, report.outcome, self.state.now_us, clock::wall_ms());
        faults::point("9-after-settle");
    }

    fn noted(&mut self, note: ProducerNote) {
        match note {
            ProducerNote::Fatal { cluster, generation, cause } => {
                if generation == self.producers.clusters[cluster].generation() {
                    self.renew(cluster, &cause);
                }
            }
            ProducerNote::Reachable { cluster, up, cause } => self.reachable(cluster, up, &cause),
        }
    }

    fn renew_producers(&mut self) {
        for i in 0..self.producers.clusters.len() {
            if let Some(cause) = self.producers.clusters[i].take_renewal(self.state.now_us) {
                self.renew(i, &cause);
            } else if !self.producers.clusters[i].is_up() && self.state.now_us >= self.state.producer_retry_at_us[i] {
                self.make_producer(i);
            }
        }
    }

    fn renew(&mut self, cluster: usize, cause: &str) {
        let name = self.producers.clusters[cluster].name().to_owned();
        tracing::warn!(
            cluster = name,
            cause,
            "the producer is dropped and a new one made; what is unsettled goes again"
        );
        self.make_producer(cluster);
        for i in self.lanes_of(cluster) {
            self.lanes[i].producer_lost(self.state.now_us);
        }
        self.tell("producer-renewed", serde_json::json!({ "cluster": name, "cause": cause }));
    }

    pub(super) fn make_producer(&mut self, cluster: usize) {
        if let Err(cause) = self.producers.clusters[cluster].renew() {
            self.state.producer_retry_at_us[cluster] = self.state.now_us + PRODUCER_RETRY_US;
            self.reachable(cluster, false, &cause);
        }
    }

    fn lanes_of(&self, cluster: usize) -> Vec<usize> {
        (0..self.lanes.len()).filter(|i| self.producers.lanes[*i].0 == cluster).collect()
    }

    fn park_stuck_topics(&mut self) {
        for c in 0..self.producers.clusters.len() {
            if let Some(topic) = self.producers.clusters[c].stuck_topic(self.state.now_us) {
                self.renew(c, &format!("topic {topic} has had no delivery for 30 s while others have"));
                for i in self.lanes_of(c) {
                    self.lanes[i].park_stuck(&topic, self.state.now_us);
                }
            }
        }
    }

    fn commit_if_due(&mut self) {
        if self.state.committing.is_some() || self.state.now_us < self.state.retry_at_us {
            return;
        }
        let insert = self.insert_due();
        let tidy = self.state.now_us >= self.state.tidy_at_us && self.wants_tidying();
        if insert || tidy {
            let insert = insert || !self.state.disk_full || self.tries_insert();
            self.commit(insert);
        }
    }

    /// Whether it is time to find out if a full disk takes readings again: first what frees space, then a try.
    fn tries_insert(&mut self) -> bool {
        let tries = self.state.try_insert || !self.lanes.iter().any(Lane::has_tidying);
        self.state.try_insert = !tries;
        tries
    }

    /// The commit rule: 1,000 readings or 256 KiB wait, or one has waited `ack_delay`.
    fn insert_due(&self) -> bool {
        !self.state.disk_full && self.insert_due_at().is_some_and(|at| at <= self.state.now_us)
    }

    fn insert_due_at(&self) -> Option<u64> {
        let delay = self.config.spool.ack_delay.as_micros() as u64;
        let lanes = self.lanes.iter().map(Lane::waiting);
        lanes
            .filter_map(|w| {
                let now = w.records >= COMMIT_RECORDS || w.bytes >= COMMIT_BYTES;
                w.since_us.map(|since| if now { 0 } else { since + delay })
            })
            .min()
    }

    fn wants_tidying(&self) -> bool {
        // A full lane tries again: what was settled or evicted since may have made room.
        let lanes = self.lanes.iter().any(|l| l.has_tidying() || l.stats.full);
        lanes
            || self.expiry_due()
            || self.lanes.iter().any(Lane::is_purging)
            || self.has_losses_to_tell()
            || self.state.disk_full
    }

    fn has_losses_to_tell(&self) -> bool {
        !self.state.untold.is_empty() || !self.state.telling.is_empty()
    }

    fn expiry_due(&self) -> bool {
        self.state.now_us >= self.state.expiry_at_us
    }

    fn commit(&mut self, insert: bool) {
        let mut commit = Commit { at: clock::wall_ms(), ..Commit::default() };
        self.state.tidy_at_us = self.state.now_us + TIDY_US;
        if self.expiry_due() || self.lanes.iter().any(Lane::is_purging) {
            self.state.expiry_at_us = self.state.now_us + EXPIRY_US;
            self.lanes.iter_mut().for_each(|l| l.plan_expiry(&mut commit, clock::wall_ms()));
        }
        let mut chunk_lanes = Vec::new();
        // The events lane comes last: it tells of what the others put into this very commit.
        let others: Vec<usize> = self.order.iter().copied().filter(|i| *i != self.events_lane).collect();
        for i in others {
            self.plan_lane(i, &mut commit, insert, &mut chunk_lanes);
        }
        if insert {
            self.tell_losses();
        }
        self.copy_dead_letters(&commit);
        self.plan_lane(self.events_lane, &mut commit, insert, &mut chunk_lanes);
        self.mark_told(&mut commit);
        self.revive(&mut commit);
        if commit.is_empty() {
            self.lanes.iter_mut().for_each(|l| l.committed(None, self.state.now_us));
            return;
        }
        self.count_payload(&commit);
        if self.owner.ask(Request::Commit(Box::new(commit))).is_err() {
            // The queue is full of commands: the same again in a moment.
            self.undo_commit();
            return;
        }
        self.state.committing = Some(chunk_lanes);
    }

    fn plan_lane(&mut self, i: usize, commit: &mut Commit, insert: bool, chunk_lanes: &mut Vec<usize>) {
        let before = commit.chunks.len();
        let room = self.room(i);
        self.lanes[i].plan(commit, room, insert);
        if commit.chunks.len() > before {
            chunk_lanes.push(i);
        }
    }

    /// A ledger entry is told when its event is durable: in the commit that holds the event, never before.
    fn mark_told(&mut self, commit: &mut Commit) {
        let lane = &self.lanes[self.events_lane];
        let safe = self.state.telling.iter().filter(|(sequence, _)| !lane.in_memory_alone(*sequence));
        self.state.told = safe.map(|(_, id)| *id).collect();
        commit.told.extend_from_slice(&self.state.told);
    }

    /// Requeued dead letters leave their table in the commit that holds them again, never before.
    fn revive(&mut self, commit: &mut Commit) {
        let safe =
            self.state.revived.iter().filter(|(lane, sequence, _)| !self.lanes[*lane].in_memory_alone(*sequence));
        self.state.reviving = safe.map(|(_, _, id)| *id).collect();
        commit.revived.extend_from_slice(&self.state.reviving);
    }

    /// Stored bytes the spool can still take for this lane: 5 % are kept for the highest.
    fn room(&self, lane: usize) -> u64 {
        let max = self.config.spool.max_bytes;
        let share = if Some(&lane) == self.order.first() || lane == self.events_lane { max } else { max - max / 20 };
        share.saturating_sub(self.state.spool.used_bytes)
    }

    fn count_payload(&mut self, commit: &Commit) {
        let bytes: usize = commit.chunks.iter().flat_map(|c| &c.records).map(|(_, b)| b.len()).sum();
        self.state.spool.payload_bytes += bytes as u64;
    }

    fn replied(&mut self, reply: Reply) {
        match reply {
            Reply::Committed(done) => self.committed(&done),
            Reply::Evicted(done) => {
                self.evicted(&done);
                self.note_losses(&done.losses);
            }
            Reply::CommitFailed(error) => self.commit_failed(&error),
            Reply::Read { lane, read } => {
                if let Some(lane) = self.lane_by_number(lane) {
                    read.discarded.iter().for_each(|(_, freed)| lane.discarded(*freed));
                    lane.read_done(read.chunks, read.more);
                }
                self.note_losses(&read.losses);
            }
            Reply::SetAside { aside, losses } => {
                self.lanes.iter_mut().for_each(Lane::replaced);
                self.note_losses(&losses);
                self.tell_set_aside(&aside);
            }
            Reply::ReadFailed { lane, error } => {
                tracing::error!(lane, %error, "failed to read a lane's chunks; it is tried again");
                let now_us = self.state.now_us;
                if let Some(lane) = self.lane_by_number(lane) {
                    lane.read_failed(now_us);
                }
            }
            Reply::Counted { lane, found } => {
                if let Some(lane) = self.lane_by_number(lane) {
                    lane.counted(found);
                }
            }
            Reply::CountDone => self.state.spool.counted = true,
            Reply::Disk { used, free, ballast } => {
                let spool = &mut self.state.spool;
                (spool.used_bytes, spool.free_disk_bytes, spool.ballast) = (used, free, ballast);
            }
        }
    }

    fn lane_by_number(&mut self, number: u32) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|l| l.number == number)
    }

    fn committed(&mut self, done: &Committed) {
        let chunk_lanes = self.state.committing.take().unwrap_or_default();
        let mut stored: BTreeMap<usize, u64> = BTreeMap::new();
        for (lane, bytes) in chunk_lanes.iter().zip(&done.chunk_bytes) {
            stored.insert(*lane, *bytes);
            self.state.spool.chunk_bytes += bytes;
        }
        faults::point("5-before-puback");
        for i in 0..self.lanes.len() {
            self.lanes[i].committed(stored.get(&i).copied(), self.state.now_us);
        }
        self.evicted(done);
        self.state.spool.commits += 1;
        let (told, reviving) = (std::mem::take(&mut self.state.told), std::mem::take(&mut self.state.reviving));
        self.state.telling.retain(|(_, id)| !told.contains(id));
        self.state.revived.retain(|(_, _, id)| !reviving.contains(id));
        self.state.copied.clear();
        self.note_losses(&done.losses);
        if self.state.disk_full && !done.chunk_bytes.is_empty() {
            self.disk_is_full(false, "");
        }
    }

    fn evicted(&mut self, done: &Committed) {
        for (number, freed) in &done.evicted {
            if let Some(lane) = self.lane_by_number(*number) {
                lane.evicted(*freed);
            }
        }
    }

    fn note_losses(&mut self, losses: &[Loss]) {
        for loss in losses {
            *self.state.lost.entry(loss.reason.clone()).or_default() += loss.n;
            tracing::error!(
                lane = loss.lane,
                n = loss.n,
                first = loss.first,
                last = loss.last,
                reason = loss.reason,
                "records left the spool undelivered; they are in the loss ledger"
            );
        }
        let room = UNTOLD_MAX.saturating_sub(self.state.untold.len());
        self.state.untold.extend(losses.iter().take(room).cloned());
    }

    fn commit_failed(&mut self, error: &StoreError) {
        self.undo_commit();
        self.state.spool.commit_failures += 1;
        self.state.retry_at_us = self.state.now_us + RETRY_US;
        self.disk_is_full(true, &error.to_string());
    }

    /// Nothing of the last commit happened. Events of ledger entries still wait in the events lane: their entries are
    /// marked by the commit that takes them.
    fn undo_commit(&mut self) {
        self.state.committing = None;
        self.lanes.iter_mut().for_each(Lane::commit_failed);
        self.state.told.clear();
        self.state.reviving.clear();
    }

    fn read_ahead(&mut self) {
        for &i in &self.order {
            let lane = &mut self.lanes[i];
            if let Some((after, bytes)) = lane.wants_read(self.state.now_us)
                && self.owner.ask(Request::Read { lane: lane.number, after, bytes }).is_ok()
            {
                lane.read_started();
            }
        }
    }

    fn patience(&self) -> Duration {
        let s = &self.state;
        let mut next = s.show_at_us.min(s.heartbeat_at_us);
        if s.committing.is_none() {
            if let Some(at) = self.insert_due_at().filter(|_| !s.disk_full) {
                next = next.min(at.max(s.retry_at_us));
            }
            if self.wants_tidying() {
                next = next.min(s.tidy_at_us.max(s.retry_at_us));
            }
        }
        for lane in &self.lanes {
            next = next.min(lane.next_deadline_us().unwrap_or(u64::MAX));
        }
        next = next.min(s.stop_at_us.unwrap_or(u64::MAX));
        Duration::from_micros(next.saturating_sub(clock::now_us()))
    }

    fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Source { name, event } => self.tell_source(&name, &event),
            Ask::Requeue { lane, letters, done } => self.requeue(lane, letters, done),
            Ask::Purge { lane, done } => {
                self.lanes[lane].purge();
                let _ = done.send(());
            }
            Ask::Tick(back) => drop(back.try_send(())),
            Ask::Stop { deadline_us } => {
                self.state.stop_at_us = Some(deadline_us);
                self.tell("stop", serde_json::json!({}));
            }
        }
    }

    fn requeue(&mut self, number: u32, letters: Vec<(i64, Body)>, done: tokio::sync::oneshot::Sender<usize>) {
        let now_us = self.state.now_us;
        let wall_ms = clock::wall_ms();
        let count = letters.len();
        let default = self.order.last().copied().unwrap_or(0);
        let lane = self.lanes.iter().position(|l| l.number == number).unwrap_or(default);
        for (id, body) in letters {
            self.lanes[lane].accept(body, crate::intake::Fate::Forward, None, now_us, wall_ms);
            self.state.revived.push((lane, self.lanes[lane].last_sequence(), id));
        }
        // From direct they would go without a commit, and the table would keep them.
        self.lanes[lane].spool_now(now_us);
        let _ = done.send(count);
    }

    fn stopped(&self) -> bool {
        let Some(deadline) = self.state.stop_at_us else { return false };
        let idle = self.state.committing.is_none() && self.lanes.iter().all(Lane::is_drained);
        idle || self.state.now_us >= deadline
    }

    fn end(mut self) {
        self.show();
        for cluster in &mut self.producers.clusters {
            cluster.flush(Duration::ZERO);
        }
        self.owner.stop();
    }
}
