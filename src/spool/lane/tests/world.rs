//! One lane, its file and its producer, driven by chance. The world plays the hub and the owner thread.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::broker::{Broker, id_of};
use super::dice::Dice;
use super::file::File;
use super::{Incoming, Lane, Mode, Start};
use crate::config;
use crate::intake::{Ack, AckQueue, AckTicket, Change, Fate, Kind, MessageId};
use crate::record::{Arrival, RecordView, TimestampKind};
use crate::spool::window::{Attached, Stage};
use crate::spool::{Commit, Committed, Freed, RowId, StoredChunk, row_base};

const LANE: u32 = 3;
const WINDOW_BYTES: usize = 6_000;

enum Asked {
    Commit(Box<Commit>),
    Read(RowId, u64),
}

enum Answer {
    Committed(Committed),
    /// Of a commit that failed and yet happened.
    Evicted(Vec<(u32, Freed)>),
    Failed,
    Read(Vec<StoredChunk>, bool),
    ReadFailed,
}

pub struct World {
    pub dice: Dice,
    pub config: config::Lane,
    pub lane: Lane,
    pub broker: Broker,
    pub file: File,
    pub now_us: u64,
    /// One of so many records has something attached.
    pub attaches: u64,
    runs: u64,
    asked: VecDeque<Asked>,
    answers: VecDeque<Answer>,
    counts: Vec<Freed>,
    committing: bool,
    disk_full: bool,
    acks: Arc<AckQueue>,
    /// Of each accepted record: topic, key, and whether it has been acknowledged.
    pub accepted: Vec<(String, u8)>,
    pub acked: BTreeSet<u64>,
    /// Records that came with something attached, and those of them whose fate has been in a commit.
    pub attached: BTreeSet<u64>,
    committed: BTreeSet<u64>,
    /// Given up by a person. A crash before the commit takes that back, and others may have gone meanwhile.
    pub purged: BTreeSet<u64>,
    /// Ids by run and sequence, to read the ledger.
    ids: BTreeMap<(u64, u64), u64>,
    /// Whether anything has happened that may repeat a record or a ledger entry.
    pub crashed: bool,
    pub repeats: bool,
    /// Kafka has lost records: they come again behind what was delivered since.
    pub lost_power: bool,
    /// Chunks that earlier lives of the lane could not hold for long enough.
    pub settled_early: u64,
}

fn new_lane(config: &config::Lane, run: u64, last_row: RowId) -> Lane {
    let start = Start { index: 0, number: LANE, run, last_row, window_bytes_max: WINDOW_BYTES };
    Lane::new(config.clone(), &start)
}

impl World {
    pub fn new(seed: u64, config: config::Lane) -> Self {
        let mut dice = Dice::new(seed);
        let poison = dice.one_in(2).then(|| dice.below(19));
        let capacity = 4 + dice.below(60) as usize;
        // In half of the worlds nothing is: there a lane is direct for longer.
        let attaches = if dice.one_in(2) { u64::MAX } else { 3 + dice.below(40) };
        let broker = Broker::new(Dice::new(dice.roll()), poison, capacity);
        World {
            lane: new_lane(&config, 1, row_base(LANE)),
            dice,
            config,
            broker,
            file: File::default(),
            now_us: 1_000_000,
            attaches,
            runs: 1,
            asked: VecDeque::new(),
            answers: VecDeque::new(),
            counts: Vec::new(),
            committing: false,
            disk_full: false,
            acks: Arc::default(),
            accepted: Vec::new(),
            acked: BTreeSet::new(),
            attached: BTreeSet::new(),
            committed: BTreeSet::new(),
            purged: BTreeSet::new(),
            ids: BTreeMap::new(),
            crashed: false,
            repeats: false,
            lost_power: false,
            settled_early: 0,
        }
    }

    fn wall_ms(&self) -> i64 {
        1_700_000_000_000 + (self.now_us / 1000) as i64
    }

    pub fn accept(&mut self) {
        let id = self.accepted.len() as u64;
        let (topic, key) = (format!("t{}", self.dice.below(3)), self.dice.below(4) as u8);
        let arrival = Arrival { wall_ms: self.wall_ms(), boot_ms: 0 };
        let view = RecordView {
            topic: &topic,
            key: Some(&[key]),
            headers: vec![("fill", &[7; 60][..self.dice.below(60) as usize])],
            payload: &id.to_le_bytes(),
            timestamp_ms: arrival.wall_ms,
            timestamp_kind: TimestampKind::Arrival,
            arrival,
            old_id: None,
        };
        let body = view.encode(&mut Vec::new());
        let ack = AckTicket { queue: Arc::clone(&self.acks), ack: Ack { generation: self.runs, number: id } };
        let fate = if self.dice.one_in(60) { Fate::DeadLetter("no route".into()) } else { Fate::Forward };
        self.accepted.push((topic, key));
        // What is attached to a record of an at-most-once lane is kept apart from it.
        let attached = self.dice.one_in(self.attaches) && !self.at_most_once();
        let attached = attached.then(|| self.attach(id));
        let record = Incoming { body, fate, ack: Some(ack), attached };
        self.lane.accept_attached(record, self.now_us, self.wall_ms());
        self.ids.insert((self.runs, self.lane.last_sequence()), id);
    }

    fn attach(&mut self, id: u64) -> Box<Attached> {
        self.attached.insert(id);
        let change = Change::Put { kind: Kind::Qos2, key: id.to_le_bytes().to_vec(), value: Vec::new() };
        let message_id = Some(MessageId { id: id.into(), payload: id });
        Box::new(Attached { number: id, change: Some(change), message_id })
    }

    /// Step 5 may not precede 4 or 8: whoever is acknowledged now must be safe now.
    pub fn check_acks(&mut self) {
        let mut fired = Vec::new();
        self.acks.take(&mut fired);
        if fired.is_empty() {
            return;
        }
        let lost = self.ledger_ids();
        let kept = self.kept_ids();
        for ack in fired {
            let id = ack.number;
            assert!(
                kept.contains(&id) || !self.attached.contains(&id),
                "record {id} is acknowledged, its change is not there"
            );
            assert!(self.acked.insert(id), "record {id} is acknowledged twice");
            let safe = self.broker.delivered.contains(&id) || self.file.holds(id) || lost.contains(&id);
            assert!(safe || self.at_most_once(), "record {id} is acknowledged before it is durable");
        }
    }

    pub fn at_most_once(&self) -> bool {
        self.config.delivery == config::Delivery::AtMostOnce
    }

    /// Every id that an entry of the ledger covers.
    pub fn ledger_ids(&self) -> BTreeSet<u64> {
        let mut ids = self.file.evicted.clone();
        for loss in &self.file.losses {
            ids.extend(self.ids.range((loss.run, loss.first)..=(loss.run, loss.last)).map(|(_, id)| *id));
        }
        ids
    }

    pub fn pump(&mut self) {
        let wall_ms = self.wall_ms();
        self.broker.now_us = self.now_us;
        self.lane.tick(self.now_us);
        self.lane.pump(&mut self.broker, self.now_us, wall_ms);
    }

    pub fn plan(&mut self, insert: bool) {
        if self.committing {
            return;
        }
        let mut commit = Commit { at: self.wall_ms(), ..Commit::default() };
        if self.dice.one_in(3) || self.lane.is_purging() {
            let wall_ms = self.wall_ms();
            self.lane.plan_expiry(&mut commit, wall_ms);
        }
        self.lane.plan(&mut commit, u64::MAX, insert);
        assert!(insert || commit.grows_by() == 0, "a commit that only makes room must not ask for any");
        if commit.is_empty() {
            self.lane.committed(None, self.now_us);
            return;
        }
        self.committing = true;
        self.asked.push_back(Asked::Commit(Box::new(commit)));
    }

    pub fn read_ahead(&mut self) {
        if let Some((after, bytes)) = self.lane.wants_read(self.now_us) {
            self.lane.read_started();
            self.asked.push_back(Asked::Read(after, bytes));
        }
    }

    /// The owner thread does the next thing asked. `fail`: 0 not at all, 1 as it should, 2 though it happened.
    pub fn disk(&mut self, fail: u8) {
        let Some(asked) = self.asked.pop_front() else { return };
        let answer = match asked {
            Asked::Commit(commit) if fail == 0 => Answer::Committed(self.commit(&commit)),
            Asked::Commit(commit) => {
                if fail == 2 {
                    self.repeats = true;
                    let done = self.commit(&commit);
                    self.answers.push_back(Answer::Evicted(done.evicted));
                }
                Answer::Failed
            }
            Asked::Read(..) if fail == 1 => Answer::ReadFailed,
            Asked::Read(after, bytes) => {
                let (chunks, more) = self.file.read(after, bytes);
                Answer::Read(chunks, more)
            }
        };
        self.answers.push_back(answer);
    }

    /// As the owner does: rows are counted before they are changed.
    fn commit(&mut self, commit: &Commit) -> Committed {
        self.count_all();
        let done = self.file.commit(commit);
        let told = commit.losses.iter().flat_map(|l| self.ids.range((l.run, l.first)..=(l.run, l.last)));
        let stored = commit.chunks.iter().flat_map(|c| c.records.iter().map(|(_, body)| id_of(body)));
        let buried = commit.dead.iter().map(|d| id_of(&d.body));
        self.committed.extend(stored.chain(buried).chain(told.map(|(_, id)| *id)));
        self.check_attached();
        done
    }

    fn kept_ids(&self) -> BTreeSet<u64> {
        self.file.kept.keys().map(|(_, key)| u64::from_le_bytes(key[..].try_into().unwrap())).collect()
    }

    /// What is attached to a record is in the file if and only if the record's fate is, from the same commit on; and no
    /// such record reaches Kafka before.
    fn check_attached(&self) {
        let committed: BTreeSet<u64> = self.committed.intersection(&self.attached).copied().collect();
        assert_eq!(self.kept_ids(), committed, "a change came without its record, or the other way round");
        let ids: BTreeSet<u64> = self.file.message_ids.iter().map(|id| id.payload).collect();
        assert_eq!(ids, committed, "a message id came without its record, or the other way round");
        let early = self.broker.delivered.intersection(&self.attached).find(|id| !committed.contains(id));
        assert_eq!(early, None, "a record went to Kafka before the commit that it needs");
    }

    fn count_all(&mut self) {
        for found in std::mem::take(&mut self.counts) {
            self.lane.counted(found);
        }
    }

    pub fn count_one(&mut self) {
        if let Some(found) = self.counts.pop() {
            self.lane.counted(found);
        }
    }

    pub fn answer(&mut self) {
        let Some(answer) = self.answers.pop_front() else { return };
        match answer {
            Answer::Committed(done) => {
                self.committing = false;
                self.lane.committed(done.chunk_bytes.first().copied(), self.now_us);
                done.evicted.iter().for_each(|(_, freed)| self.lane.evicted(*freed));
            }
            Answer::Evicted(evicted) => evicted.iter().for_each(|(_, freed)| self.lane.evicted(*freed)),
            Answer::Failed => {
                self.committing = false;
                self.lane.commit_failed();
            }
            Answer::Read(chunks, more) => self.lane.read_done(chunks, more),
            Answer::ReadFailed => self.lane.read_failed(self.now_us),
        }
    }

    pub fn report(&mut self) {
        if let Some((key, outcome)) = self.broker.report() {
            let wall_ms = self.wall_ms();
            if self.broker.take_gave_twice() {
                self.lane.send_again();
            }
            self.lane.report(key, outcome, self.now_us, wall_ms);
        }
    }

    pub fn lose_producer(&mut self) {
        self.broker.lose_producer();
        self.lane.producer_lost(self.now_us);
        self.repeats = true;
    }

    /// kill -9: what the disk was asked for may still happen, nothing else is left.
    pub fn crash(&mut self) {
        while self.dice.one_in(2) && !self.asked.is_empty() {
            self.disk(0);
        }
        self.crashed = true;
        self.runs += 1;
        self.asked.clear();
        self.answers.clear();
        self.committing = false;
        self.broker.lose_producer();
        self.broker.forget_marks();
        // Acks that were fired but not fetched have been sent, for all the gateway knows.
        self.check_acks();
        self.settled_early += self.lane.stats.settled_early;
        let last_row = self.file.rows.keys().next_back().copied().unwrap_or(row_base(LANE));
        self.lane = new_lane(&self.config, self.runs, last_row);
        self.counts = self.file.count();
    }

    /// One thing that can happen, happens.
    pub fn happens(&mut self) {
        match self.dice.below(100) {
            0..24 => (0..=self.dice.below(6)).for_each(|_| self.accept()),
            24..40 => self.pump(),
            40..52 => self.broker.step(true),
            52..64 => self.report(),
            64..72 => {
                let insert = !self.disk_full || self.dice.one_in(4);
                self.plan(insert);
            }
            72..79 => {
                let fail = if self.dice.one_in(10) { 1 + self.dice.below(2) as u8 } else { u8::from(self.disk_full) };
                self.disk(fail);
            }
            79..86 => self.answer(),
            86..91 => self.read_ahead(),
            91..95 => self.now_us += 1_000 * (1 + self.dice.below(400)),
            95 => self.now_us += 1_000_000 * (1 + self.dice.below(12)),
            96 => self.count_one(),
            _ => self.rarely(),
        }
    }

    fn rarely(&mut self) {
        match self.dice.below(16) {
            0..3 => drop(self.broker.blocked.insert(format!("t{}", self.dice.below(3)))),
            3..8 => self.broker.blocked.clear(),
            8 => self.lose_producer(),
            9 => {
                self.lose_producer();
                self.lane.park_stuck("t1", self.now_us);
            }
            10 => self.crash(),
            11 => self.disk_full = true,
            12..14 => self.disk_full = false,
            14 if self.config.settle.is_some() => self.lose_power(),
            _ => self.purge(),
        }
    }

    /// What was on its way back from the broker has arrived by then: that it was stored `settle` ago means something.
    fn lose_power(&mut self) {
        while self.broker.has_reports() {
            self.report();
        }
        let settle = self.config.settle.unwrap_or_default();
        self.broker.lose_power(settle.as_micros() as u64);
        self.repeats = true;
        self.lost_power = true;
    }

    fn purge(&mut self) {
        let held = self.lane.window.chunks().flat_map(|c| &c.records);
        self.purged.extend(held.filter(|r| r.stage == Stage::Waiting).map(|r| id_of(&r.body)));
        self.lane.purge(self.now_us);
    }

    /// Kafka and the disk are well, nobody sends any more: everything must leave in bounded time.
    pub fn heal(&mut self) {
        self.broker.blocked.clear();
        self.disk_full = false;
        if let Some(settle) = self.config.settle {
            // What each partition acknowledges now shows what it has lost; what it does later proves the rest.
            for _ in 0..2 {
                self.accept_everywhere();
                self.recover();
                self.now_us += settle.as_micros() as u64;
            }
            let early = self.lane.stats.settled_early;
            self.lane.settle_early(u64::MAX);
            self.lane.stats.settled_early = early;
        }
        self.recover();
    }

    fn accept_everywhere(&mut self) {
        for _ in 0..200 {
            self.accept();
        }
    }

    fn recover(&mut self) {
        for _ in 0..3_000 {
            self.now_us += 200_000;
            self.count_all();
            self.pump();
            while self.broker.flying() > 0 {
                self.broker.step(false);
                self.report();
            }
            self.plan(true);
            self.read_ahead();
            while !self.asked.is_empty() {
                self.disk(0);
            }
            while !self.answers.is_empty() {
                self.answer();
            }
            self.check_acks();
            self.check_attached();
            if self.is_quiet() {
                return;
            }
        }
        panic!(
            "after 10 minutes of health something is stuck: {:?} unread {} reading {} parks {:?} pending {:?} window {:?}",
            self.lane.snapshot(),
            self.lane.unread,
            self.lane.reading,
            self.lane.parks,
            self.lane.pending,
            self.lane.window
        );
    }

    fn is_quiet(&mut self) -> bool {
        let direct = self.lane.mode() == Mode::Direct || self.config.when == config::When::Always;
        let parked = self.lane.snapshot().parked_topics.len();
        self.lane.is_drained()
            && parked == 0
            && !self.lane.has_tidying()
            && !self.committing
            && !self.lane.is_purging()
            && direct
    }

    /// What was accepted in the end: delivered, a dead letter, or in the ledger.
    pub fn accounted(&self, id: u64) -> bool {
        self.broker.delivered.contains(&id) || self.file.dead.contains(&id) || self.ledger_ids().contains(&id)
    }

    pub fn keep(config: &mut config::Lane) {
        config.keep = Some(Duration::from_secs(30));
        config.when = config::When::Always;
    }
}
