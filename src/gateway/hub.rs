//! The hub: the one owner of lanes, producers and the spool's handle. `run` takes the mail, applies it, and lets every
//! lane do what it can: pump (7), commit (4), read (6). Only one thing happens at a time, and nothing here blocks but
//! waiting for mail.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::events::EventWriter;
use super::inbox::{Ask, Inbox, Mail, RawReport};
use super::keeping::{Ids, Keeping};
use crate::clock;
use crate::config::{self, Rank};
use crate::faults;
use crate::forward::ProducerNote;
use crate::forward::kafka::{Cluster, Outgoing};
use crate::forward::times::Times;
use crate::ops::snapshot::Shown;
use crate::record::Body;
use crate::spool::lane::{Lane, Mode, Sent, Sink};
use crate::spool::owner::{Owner, Request};
use crate::spool::window::Key;
use crate::spool::{Loss, Reply};

pub(super) const SHOW_US: u64 = 250_000;
/// Pause before a producer that could not be made is tried again.
const PRODUCER_RETRY_US: u64 = 5_000_000;

/// Steps 7 and 8 for all lanes.
pub(super) struct Producers {
    pub clusters: Vec<Cluster>,
    /// Of each lane: its cluster, its permanent number, and its rank among the cluster's lanes.
    pub lanes: Vec<(usize, u32, Rank)>,
    pub times: Times,
    pub now_us: u64,
}

impl Sink for Producers {
    fn send(&mut self, lane: usize, key: Key, run: u64, body: &Body) -> Sent {
        let (cluster, number, rank) = self.lanes[lane];
        faults::point("6-batch-read");
        let sent =
            self.clusters[cluster].send(Outgoing { lane, number, rank, key, run, body }, &self.times, self.now_us);
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
    /// Of each lane, among all: the spool keeps room back for those that go first.
    pub ranks: Vec<Rank>,
    pub events_lane: usize,
    pub producers: Producers,
    pub owner: Owner,
    pub events: EventWriter,
    pub shown: Arc<Shown>,
    pub set_aside: Option<crate::spool::owner::SetAside>,
    pub keeping: Keeping,
    pub ids: Ids,
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
    /// Who waits for the commit of what is revived.
    pub revival: Vec<super::requeue::Waiting>,
    /// Dead letters of the running or a failed commit whose copy is on its way to the dead-letter topic.
    pub copied: std::collections::HashSet<(u32, u64, u64)>,
    /// When the running commit was asked for, and each lane's read (by its number), µs of this process.
    pub commit_asked_us: u64,
    pub reads: BTreeMap<u32, u64>,
    pub tidy_at_us: u64,
    pub expiry_at_us: u64,
    pub show_at_us: u64,
    pub heartbeat_at_us: u64,
    pub disk_full: bool,
    /// What chunks may still take, as the owner thread said last.
    pub room_bytes: u64,
    /// While the disk is full, commits that only free space and those that try to store take turns.
    pub try_insert: bool,
    pub retry_at_us: u64,
    pub producer_retry_at_us: Vec<u64>,
    /// What each cluster's producer was last dropped for, until something is delivered again.
    pub renewed_for: Vec<String>,
    pub reachable: Vec<Option<bool>>,
    pub trouble: Vec<String>,
    pub stop_at_us: Option<u64>,
    pub spool: crate::ops::snapshot::SpoolSnapshot,
    pub lost: BTreeMap<String, u64>,
    pub clock_set: bool,
    pub modes: Vec<Mode>,
    pub wear: super::wear::Wear,
    /// A sender has used up its window and waits for a commit.
    pub urgent: bool,
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
        self.take_mail_in(mail);
        self.state.urgent |= std::mem::take(&mut mail.urgent);
        self.lanes[self.events_lane].stats.dropped += std::mem::take(&mut mail.events_refused);
        for ask in mail.asks.drain(..) {
            self.asked(ask);
        }
    }

    /// Step 3.
    /// Deliveries and what sources want kept, in the order in which they came.
    fn take_mail_in(&mut self, mail: &mut Mail) {
        let (now_us, wall_ms) = (self.state.now_us, clock::wall_ms());
        let mut changes = mail.changes.drain(..).peekable();
        let mut batches = mail.batches.drain(..).peekable();
        for (i, delivery) in mail.deliveries.drain(..).enumerate() {
            faults::point("2-delivered");
            while let Some(kept) = changes.next_if(|kept| kept.behind <= i) {
                self.keep(kept);
            }
            while batches.next_if(|(end, _)| *end <= i).is_some() {}
            if let Some((_, handed_us)) = batches.peek() {
                self.lanes[delivery.lane].stats.hand_us.record(now_us.saturating_sub(*handed_us));
            }
            self.take_in(delivery, wall_ms);
        }
        changes.for_each(|kept| self.keep(kept));
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
        for &i in &self.order {
            self.lanes[i].pump(&mut self.producers, self.state.now_us, wall_ms);
        }
    }

    fn reported(&mut self, raw: RawReport) {
        let cluster = &mut self.producers.clusters[raw.cluster];
        if raw.generation != cluster.generation() {
            return;
        }
        faults::point("8-reported");
        let Some(report) = cluster.resolve(raw.slot, raw.result, self.state.now_us) else { return };
        if raw.result.is_ok() {
            self.state.renewed_for[raw.cluster].clear();
            self.reachable(raw.cluster, true, "");
        }
        // Before this record is settled: it is there.
        self.send_again(raw.cluster);
        faults::point("9-before-settle");
        self.lanes[report.lane].report(report.key, report.outcome, self.state.now_us, clock::wall_ms());
        faults::point("9-after-settle");
    }

    /// A broker that has lost what it had acknowledged gets it again, as far as it is held ([spool] settle).
    fn send_again(&mut self, cluster: usize) {
        let Some(cause) = self.producers.clusters[cluster].take_loss() else { return };
        let records: u64 = self.lanes_of(cluster).into_iter().map(|i| self.lanes[i].send_again()).sum();
        let name = self.producers.clusters[cluster].name().to_owned();
        tracing::warn!(
            cluster = name,
            cause,
            records,
            "the broker has lost what it had acknowledged; what is held goes again"
        );
        self.tell("broker-lost-records", serde_json::json!({ "cluster": name, "cause": cause, "records": records }));
    }

    fn noted(&mut self, note: ProducerNote) {
        match note {
            ProducerNote::Fatal { cluster, generation, cause } => {
                if generation == self.producers.clusters[cluster].generation() {
                    self.producers.clusters[cluster].note_fatal(cause, self.state.now_us);
                }
            }
            ProducerNote::Reachable { cluster, up, cause } => self.reachable(cluster, up, &cause),
        }
    }

    fn renew_producers(&mut self) {
        for i in 0..self.producers.clusters.len() {
            if let Some(cause) = self.producers.clusters[i].take_renewal(self.state.now_us) {
                self.renew(i, &cause);
                self.send_again(i);
            } else if !self.producers.clusters[i].is_up() && self.state.now_us >= self.state.producer_retry_at_us[i] {
                self.make_producer(i);
            }
        }
    }

    fn renew(&mut self, cluster: usize, cause: &str) {
        if self.state.renewed_for[cluster] == cause {
            return self.renew_later(cluster);
        }
        cause.clone_into(&mut self.state.renewed_for[cluster]);
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

    /// The last producer fell for the same cause without a delivery (Kafka refuses this user): another one at once would
    /// fare no better, and the same news again is none.
    fn renew_later(&mut self, cluster: usize) {
        self.producers.clusters[cluster].drop_producer();
        self.state.producer_retry_at_us[cluster] = self.state.now_us + PRODUCER_RETRY_US;
        for i in self.lanes_of(cluster) {
            self.lanes[i].producer_lost(self.state.now_us);
        }
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

    fn replied(&mut self, reply: Reply) {
        match reply {
            Reply::Committed(done) => self.committed(&done),
            Reply::Evicted(done) => {
                self.evicted(&done);
                self.note_losses(&done.losses);
            }
            Reply::Lost(losses) => self.note_losses(&losses),
            Reply::CommitFailed(error) => self.commit_failed(&error),
            Reply::Read { lane, read } => {
                let (now_us, asked_us) = (self.state.now_us, self.state.reads.remove(&lane));
                if let Some(lane) = self.lane_by_number(lane) {
                    if let Some(asked_us) = asked_us.filter(|_| !read.chunks.is_empty()) {
                        lane.stats.read_us.record(now_us.saturating_sub(asked_us));
                    }
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
            Reply::Disk { used, free, room, ballast } => {
                self.state.room_bytes = room;
                let spool = &mut self.state.spool;
                (spool.used_bytes, spool.free_disk_bytes, spool.ballast) = (used, free, ballast);
            }
        }
    }

    pub(super) fn lane_by_number(&mut self, number: u32) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|l| l.number == number)
    }

    fn read_ahead(&mut self) {
        for &i in &self.order {
            let lane = &mut self.lanes[i];
            if let Some((after, bytes)) = lane.wants_read(self.state.now_us)
                && self.owner.ask(Request::Read { lane: lane.number, after, bytes }).is_ok()
            {
                lane.read_started();
                self.state.reads.insert(lane.number, self.state.now_us);
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
                self.lanes[lane].purge(self.state.now_us);
                let _ = done.send(());
            }
            Ask::Tick(back) => {
                let _ = back.send(());
            }
            Ask::Stop { deadline_us } => {
                self.state.stop_at_us = Some(deadline_us);
                self.tell("stop", serde_json::json!({}));
            }
        }
    }

    fn stopped(&self) -> bool {
        let Some(deadline) = self.state.stop_at_us else { return false };
        let idle =
            self.state.committing.is_none() && self.keeping.is_empty() && self.lanes.iter().all(Lane::is_drained);
        idle || self.state.now_us >= deadline
    }

    fn end(mut self) {
        self.show();
        self.owner.stop();
    }
}
