//! The lane: which records go to the producer, which to disk, and who may be acknowledged. Pure: time, the producer and
//! the file come as arguments, so that a seeded sequence of events drives it in tests.
//!
//! States (design section 6):
//! 1. *direct*: records go to the producer in order of acceptance and stay in `open` until their delivery report (8),
//!    which acknowledges them (5). No byte is written to flash.
//! 2. *spooling*: every unreported record, in order, and every later one is committed (4), which acknowledges them (5);
//!    from memory or disk they go to the producer (7) and are settled by their report (9).
//!
//! direct → spooling: the oldest unreported record is older than `grace`, or the producer reports any error.
//! spooling → direct: nothing waits on disk or in memory, nothing is parked, and no record was late for 10 s. Records
//! still in flight may stay so: whatever is sent next goes through the same producer, behind them.
//!
//! Order: the producer keeps the order of what it is given per partition. The lane gives it window before open, each in
//! order of acceptance, and never a record of a parked topic before the older ones of that topic.

mod commit;
mod grace;
mod park;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::window::{Held, HeldRecord, Key, Open, RECORD_OVERHEAD, Stage, Window, bit};
use super::{DeadLetter, Freed, Loss, RowId, StoredChunk, row_base};
use crate::config::{self, Delivery as Guarantee, Order, When, WhenFull};
use crate::intake::{AckTicket, Fate};
use crate::ops::histogram::Histogram;
use crate::record::Body;
pub use commit::Staged;
use grace::DeliveryTimes;
use park::Parks;
use tally::Tally;

/// After a failed read: the file is being looked at, or the device is.
const READ_RETRY_US: u64 = 1_000_000;
/// No record may have been late for this long before a lane goes back to direct.
const CALM_US: u64 = 10_000_000;

/// Where a lane's records go at step 7.
pub trait Sink {
    fn send(&mut self, lane: usize, key: Key, run: u64, body: &Body) -> Sent;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    Queued,
    /// The producer holds all it may: try again after the next report.
    Full,
    /// It never got there.
    Refused(Outcome),
}

/// What a delivery report says (step 8), by the four error classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    /// Not delivered, or unknown; worth sending again.
    Again,
    /// The topic refuses: unknown, no right, no leader.
    TopicBlocked(String),
    /// The record's own fault: it will never be taken.
    Faulty(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    Direct,
    Spooling,
}

/// Counters and gauges of a lane, for metrics, events and `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct LaneStats {
    pub accepted: u64,
    pub delivered: u64,
    pub dead_lettered: u64,
    /// Drops of an at-most-once lane.
    pub dropped: u64,
    pub lost: u64,
    pub to_spooling: u64,
    pub to_direct: u64,
    pub resent: u64,
    /// Undelivered and durable.
    pub backlog: Backlog,
    /// Accepted, not durable, in memory.
    pub open: u64,
    pub open_bytes: u64,
    pub in_flight: u64,
    pub parked_topics: Vec<String>,
    pub full: bool,
    /// Acceptance to commit (steps 2 to 4).
    pub commit_us: Histogram,
    /// Acceptance to delivery of what was never on disk (steps 2 to 8).
    pub direct_us: Histogram,
    /// Hand-over to delivery report (steps 7 to 8).
    pub delivery_us: Histogram,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Backlog {
    pub chunks: u64,
    pub records: u64,
    pub bytes: u64,
    /// Delivered chunks kept as history.
    pub history_bytes: u64,
}

pub struct Lane {
    pub index: usize,
    pub number: u32,
    pub config: config::Lane,
    pub stats: LaneStats,
    run: u64,
    next_sequence: u64,
    mode: Mode,
    /// Runs in the order of their chunks in the file; this process's run is `u32::MAX`.
    ordinals: Vec<u64>,
    open: VecDeque<Open>,
    /// First open record not with the producer yet (direct).
    next_send: usize,
    window: Window,
    window_bytes_max: usize,
    /// The newest row in memory: reads go on behind it.
    last_row: RowId,
    next_row: RowId,
    /// The file holds chunks behind `last_row`.
    unread: bool,
    reading: bool,
    in_flight: u64,
    parks: Parks,
    times: DeliveryTimes,
    late_at: Option<u64>,
    direct_since_us: u64,
    read_again_us: u64,
    tally: Tally,
    dead: Vec<Burial>,
    dropped: Vec<(Loss, Vec<AckTicket>)>,
    /// A purge of what lies outside the window waits for the next commit, and is part of the running one.
    purging: bool,
    purge_staged: bool,
    pending: Staged,
    staged: Staged,
    rate: DrainRate,
}

/// A dead letter on its way into the table.
#[derive(Debug)]
struct Burial {
    letter: DeadLetter,
    ack: Option<AckTicket>,
    /// The record lies in a chunk that must not go before the letter is durable.
    stored: bool,
}

/// Bytes/s while draining, as a bucket of one second.
#[derive(Debug)]
struct DrainRate {
    per_second: Option<u64>,
    left: f64,
    at_us: u64,
}

impl DrainRate {
    fn allows(&mut self, now_us: u64) -> bool {
        let Some(rate) = self.per_second else { return true };
        let rate = rate as f64;
        self.left = (self.left + rate * (now_us - self.at_us) as f64 / 1e6).min(rate);
        self.at_us = now_us;
        // A record may overdraw the bucket, else one larger than a second's rate would never go.
        self.left > 0.0
    }

    fn took(&mut self, bytes: usize) {
        if self.per_second.is_some() {
            self.left -= bytes as f64;
        }
    }
}

/// What a lane begins with.
pub struct Start {
    pub index: usize,
    pub number: u32,
    pub run: u64,
    /// The last row in the file, `row_base(number)` when there is none.
    pub last_row: RowId,
    pub window_bytes_max: usize,
}

const THIS_RUN: u32 = u32::MAX;

impl Lane {
    pub fn new(config: config::Lane, start: &Start) -> Self {
        let unread = start.last_row > row_base(start.number);
        let direct = config.when == When::Offline && (!unread || config.order == Order::LiveFirst);
        let rate = DrainRate { per_second: config.drain_rate, left: 0.0, at_us: 0 };
        Lane {
            index: start.index,
            number: start.number,
            stats: LaneStats::default(),
            run: start.run,
            next_sequence: 1,
            mode: if direct { Mode::Direct } else { Mode::Spooling },
            ordinals: Vec::new(),
            open: VecDeque::new(),
            next_send: 0,
            window: Window::default(),
            window_bytes_max: start.window_bytes_max,
            last_row: row_base(start.number),
            next_row: start.last_row + 1,
            unread,
            reading: false,
            in_flight: 0,
            parks: Parks::default(),
            times: DeliveryTimes::new(config.grace),
            late_at: None,
            direct_since_us: 0,
            read_again_us: 0,
            tally: Tally::default(),
            dead: Vec::new(),
            dropped: Vec::new(),
            purging: false,
            purge_staged: false,
            pending: Staged::default(),
            staged: Staged::default(),
            rate,
            config,
        }
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Step 3: takes a record in. Its ack fires when it is durable.
    pub fn accept(&mut self, body: Body, fate: Fate, ack: Option<AckTicket>, now_us: u64, wall_ms: i64) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.stats.accepted += 1;
        if let Fate::DeadLetter(cause) = fate {
            let letter = self.letter(self.run, sequence, body, cause, wall_ms);
            self.dead.push(Burial { letter, ack, stored: false });
            return;
        }
        if self.config.delivery == Guarantee::AtMostOnce {
            self.accept_at_most_once(sequence, body, ack, now_us);
            return;
        }
        self.stats.open_bytes += (body.len() + RECORD_OVERHEAD) as u64;
        self.open.push_back(Open { sequence, body, stage: Stage::Waiting, ack, accepted_us: now_us, sent_us: 0 });
    }

    /// Never spooled, never blocks: what does not fit is dropped and counted.
    fn accept_at_most_once(&mut self, sequence: u64, body: Body, ack: Option<AckTicket>, now_us: u64) {
        if let Some(ack) = ack {
            ack.fire();
        }
        if self.stats.open_bytes as usize + body.len() > self.window_bytes_max {
            self.stats.dropped += 1;
            return;
        }
        self.stats.open_bytes += (body.len() + RECORD_OVERHEAD) as u64;
        self.open.push_back(Open { sequence, body, stage: Stage::Waiting, ack: None, accepted_us: now_us, sent_us: 0 });
    }

    /// Step 7: hands over what may go, until nothing is left or the sink is full. Returns whether the sink was full.
    pub fn pump(&mut self, sink: &mut dyn Sink, now_us: u64, wall_ms: i64) -> bool {
        if self.parks.rewinding() {
            self.finish_rewind();
        }
        if self.config.order == Order::LiveFirst {
            return self.pump_open(sink, now_us, wall_ms) || self.pump_window(sink, now_us, wall_ms);
        }
        self.pump_window(sink, now_us, wall_ms) || self.pump_open(sink, now_us, wall_ms)
    }

    fn pump_window(&mut self, sink: &mut dyn Sink, now_us: u64, wall_ms: i64) -> bool {
        if self.parks.rewinding() {
            return false;
        }
        while let Some(at) = {
            let parks = &mut self.parks;
            self.window.next_waiting(|r: &HeldRecord| !parks.holds(&r.body))
        } {
            if !self.rate.allows(now_us) {
                return false;
            }
            let (chunk, record) = (self.window.chunk(at.0), self.window.get(at));
            let key = Key { ordinal: chunk.ordinal, sequence: record.sequence };
            let (run, body) = (chunk.run, record.body.clone());
            match sink.send(self.index, key, run, &body) {
                Sent::Queued => {
                    let record = self.window.get_mut(at);
                    record.stage = Stage::Sent;
                    record.sent_us = now_us;
                    self.in_flight += 1;
                    self.rate.took(body.len());
                    self.window.advance();
                }
                Sent::Full => return true,
                Sent::Refused(Outcome::Again) => {
                    self.trouble(now_us);
                    return true;
                }
                Sent::Refused(outcome) => {
                    self.window.advance();
                    self.resolve(key, outcome, now_us, wall_ms);
                }
            }
        }
        self.leave_behind();
        false
    }

    fn pump_open(&mut self, sink: &mut dyn Sink, now_us: u64, wall_ms: i64) -> bool {
        // In order: nothing from here before all that is durable has gone.
        let behind = !self.window.at_end() || self.unread;
        if self.mode != Mode::Direct || (behind && self.config.order == Order::InOrder) {
            return false;
        }
        while let Some(open) = self.open.get_mut(self.next_send) {
            if open.stage != Stage::Waiting {
                self.next_send += 1;
                continue;
            }
            let key = Key { ordinal: THIS_RUN, sequence: open.sequence };
            match sink.send(self.index, key, self.run, &open.body) {
                Sent::Queued => {
                    open.stage = Stage::Sent;
                    open.sent_us = now_us;
                    self.in_flight += 1;
                    self.next_send += 1;
                }
                Sent::Full => return true,
                Sent::Refused(outcome) => {
                    self.resolve(key, outcome, now_us, wall_ms);
                    if self.mode != Mode::Direct {
                        return false;
                    }
                }
            }
        }
        false
    }

    /// Step 8: a delivery report of the current producer.
    pub fn report(&mut self, key: Key, outcome: Outcome, now_us: u64, wall_ms: i64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.came_back(key);
        if let Some(sent_us) = self.sent_us(key) {
            let took = now_us.saturating_sub(sent_us);
            if outcome == Outcome::Delivered {
                self.times.record(took);
                self.stats.delivery_us.record(took);
                if let Some(i) = self.find_open(key) {
                    self.stats.direct_us.record(now_us.saturating_sub(self.open[i].accepted_us));
                }
            }
            if took > self.times.grace_us() {
                self.late_at = Some(now_us);
            }
        }
        self.resolve(key, outcome, now_us, wall_ms);
    }

    fn sent_us(&self, key: Key) -> Option<u64> {
        match self.find_open(key) {
            Some(i) => Some(self.open[i].sent_us),
            None => self.window.find(key).map(|at| self.window.get(at).sent_us),
        }
    }

    fn resolve(&mut self, key: Key, outcome: Outcome, now_us: u64, wall_ms: i64) {
        match outcome {
            Outcome::Delivered => {
                self.stats.delivered += 1;
                if let Some(body) = self.settle(key) {
                    self.parks.delivered(&body);
                }
            }
            Outcome::Faulty(cause) => self.fault(key, cause, wall_ms),
            Outcome::Again => {
                if let Some(body) = self.unsend(key) {
                    self.regroup(&body);
                }
                self.trouble(now_us);
            }
            Outcome::TopicBlocked(cause) => {
                if let Some(body) = self.unsend(key) {
                    self.parks.park(&body, cause, now_us);
                }
                self.trouble(now_us);
            }
        }
    }

    fn find_open(&self, key: Key) -> Option<usize> {
        if key.ordinal != THIS_RUN {
            return None;
        }
        self.open.binary_search_by_key(&key.sequence, |o| o.sequence).ok()
    }

    /// Step 9 (or 5, for a record that never was on disk). Returns the body, for those who ask for its topic.
    fn settle(&mut self, key: Key) -> Option<Body> {
        if let Some(i) = self.find_open(key) {
            let open = &mut self.open[i];
            let body = open.body.clone();
            if open.stage != Stage::Settled {
                open.stage = Stage::Settled;
                if let Some(ack) = open.ack.take() {
                    ack.fire();
                }
            }
            self.drop_settled_open();
            return Some(body);
        }
        let at = self.window.find(key)?;
        let body = self.window.get(at).body.clone();
        self.settle_held(at);
        Some(body)
    }

    pub(super) fn settle_held(&mut self, at: (usize, usize)) {
        self.tally.records -= i64::from(self.window.get(at).stage != Stage::Settled);
        let stored = self.window.chunk(at.0).stored;
        if let Some(row) = self.window.settle(at) {
            self.retire(row, stored);
        }
        self.show_backlog();
        self.window.pop_settled();
    }

    /// All records of a chunk are settled: it goes with the next commit, or becomes history.
    fn retire(&mut self, row: RowId, stored: u64) {
        let keep = self.config.keep.is_some();
        self.pending.settled.push((row, keep));
        self.tally.chunks -= 1;
        self.tally.bytes -= stored as i64;
        if keep {
            self.tally.history_bytes += stored as i64;
        }
    }

    fn show_backlog(&mut self) {
        self.stats.backlog = self.tally.shown();
    }

    fn drop_settled_open(&mut self) {
        // A running commit still refers to the first ones.
        while self.staged.open == 0 && self.open.front().is_some_and(|o| o.stage == Stage::Settled) {
            self.pop_open();
        }
    }

    fn pop_open(&mut self) -> Option<Open> {
        let open = self.open.pop_front()?;
        self.stats.open_bytes -= (open.body.len() + RECORD_OVERHEAD) as u64;
        self.next_send = self.next_send.saturating_sub(1);
        Some(open)
    }

    fn unsend(&mut self, key: Key) -> Option<Body> {
        if let Some(i) = self.find_open(key) {
            if self.config.delivery == Guarantee::AtMostOnce {
                self.open[i].stage = Stage::Settled;
                self.stats.dropped += 1;
                self.drop_settled_open();
                return None;
            }
            let open = &mut self.open[i];
            if open.stage == Stage::Sent {
                open.stage = Stage::Waiting;
                self.stats.resent += 1;
            }
            let body = open.body.clone();
            self.next_send = self.next_send.min(i);
            return Some(body);
        }
        let at = self.window.find(key)?;
        let record = self.window.get_mut(at);
        if record.stage == Stage::Sent {
            record.stage = Stage::Waiting;
            self.stats.resent += 1;
        }
        let body = record.body.clone();
        // Sent again from the first that waits: `next_waiting` passes over the rest.
        self.window.rewind();
        Some(body)
    }

    /// The record's own fault: into the dead letters, in the transaction that settles it.
    fn fault(&mut self, key: Key, cause: String, wall_ms: i64) {
        if let Some(i) = self.find_open(key) {
            let open = &mut self.open[i];
            let (body, ack) = (open.body.clone(), open.ack.take());
            open.stage = Stage::Settled;
            let letter = self.letter(self.run, key.sequence, body, cause, wall_ms);
            self.dead.push(Burial { letter, ack, stored: i < self.staged.open });
            self.drop_settled_open();
        } else if let Some(at) = self.window.find(key) {
            let (body, run) = (self.window.get(at).body.clone(), self.window.chunk(at.0).run);
            let letter = self.letter(run, key.sequence, body, cause, wall_ms);
            self.dead.push(Burial { letter, ack: None, stored: true });
            self.settle_held(at);
        }
    }

    fn letter(&mut self, run: u64, sequence: u64, body: Body, cause: String, at: i64) -> DeadLetter {
        self.stats.dead_lettered += 1;
        DeadLetter { lane: self.number, run, sequence, at, cause, attempts: 1, body }
    }

    /// A producer error: from now on everything is committed.
    fn trouble(&mut self, now_us: u64) {
        self.late_at = Some(now_us);
        self.to_spooling();
    }

    fn to_spooling(&mut self) {
        let spools = self.config.when == When::Offline && self.config.delivery != Guarantee::AtMostOnce;
        if self.mode == Mode::Direct && spools {
            self.mode = Mode::Spooling;
            self.stats.to_spooling += 1;
        }
    }

    /// The producer is gone with all it held: everything unreported waits again, from the oldest on.
    pub fn producer_lost(&mut self, now_us: u64) {
        self.in_flight = 0;
        self.parks.nothing_flies();
        self.window.unsend_all();
        if self.config.delivery == Guarantee::AtMostOnce {
            for open in self.open.iter_mut().filter(|o| o.stage == Stage::Sent) {
                open.stage = Stage::Settled;
                self.stats.dropped += 1;
            }
            self.drop_settled_open();
        }
        for open in &mut self.open {
            if open.stage == Stage::Sent {
                open.stage = Stage::Waiting;
            }
        }
        self.next_send = 0;
        self.trouble(now_us);
    }

    /// Time passes: lateness, the way back to direct, parked topics.
    pub fn tick(&mut self, now_us: u64) {
        if self.parks.retry_due(now_us) {
            self.retry_parked(now_us);
        }
        self.forget_idle_parks();
        if self.mode == Mode::Direct && self.is_late(now_us) {
            self.trouble(now_us);
        } else if self.mode == Mode::Spooling && self.may_go_direct(now_us) {
            self.mode = Mode::Direct;
            self.direct_since_us = now_us;
            self.next_send = 0;
            self.stats.full = false;
            self.stats.to_direct += 1;
        }
    }

    fn is_late(&self, now_us: u64) -> bool {
        self.late_from_us().is_some_and(|from| now_us >= from)
    }

    /// When the oldest open record becomes late. What had to wait for the disk counts from the change to direct on.
    fn late_from_us(&self) -> Option<u64> {
        let since = self.open.front()?.accepted_us.max(self.direct_since_us);
        Some(since + self.times.grace_us() + 1)
    }

    fn may_go_direct(&self, now_us: u64) -> bool {
        let calm = self.late_at.is_none_or(|at| now_us.saturating_sub(at) >= CALM_US);
        let nothing_waits = !self.unread && !self.reading && self.window.at_end() && self.staged.open == 0;
        // What flies must not be older than grace, else the next record would be late at once.
        self.config.when == When::Offline
            && calm
            && self.parks.is_empty()
            && (nothing_waits || self.config.order == Order::LiveFirst)
    }

    /// When [`Lane::tick`] has something to decide next, if nothing else happens.
    pub fn next_deadline_us(&self) -> Option<u64> {
        let late = (self.mode == Mode::Direct).then(|| self.late_from_us()).flatten();
        [late, self.parks.next_retry_us()].into_iter().flatten().min()
    }

    /// Where and how much to read next, if the lane wants to read.
    pub fn wants_read(&self, now_us: u64) -> Option<(RowId, u64)> {
        let room = self.window_bytes_max.saturating_sub(self.window.bytes());
        let calm = now_us >= self.read_again_us && !self.parks.rewinding();
        let wants = self.unread && !self.reading && calm && self.pending.bitmaps.is_empty();
        (wants && self.staged.bitmaps.is_empty() && room * 2 >= self.window_bytes_max)
            .then_some((self.last_row, room as u64))
    }

    pub fn read_started(&mut self) {
        self.reading = true;
    }

    /// Nothing came: it is tried again after a pause.
    pub fn read_failed(&mut self, now_us: u64) {
        self.reading = false;
        self.read_again_us = now_us + READ_RETRY_US;
    }

    /// Chunks that could not be decoded have left the file for the ledger.
    pub fn discarded(&mut self, freed: Freed) {
        self.stats.lost += freed.records;
        self.tally.take(freed);
        self.show_backlog();
    }

    /// Chunks read from the file, in order.
    pub fn read_done(&mut self, chunks: Vec<StoredChunk>, more: bool) {
        self.reading = false;
        self.unread = more;
        for chunk in chunks {
            // A row that this lane has not written yet is what a failed commit left behind: its records are still open.
            if chunk.row >= self.next_row {
                continue;
            }
            self.last_row = chunk.row;
            // All of it is settled, and its row goes with a commit that is still to come or on its way.
            let goes = |staged: &Staged| staged.settled.iter().any(|(row, _)| *row == chunk.row);
            if self.window.has_row(chunk.row) || goes(&self.pending) || goes(&self.staged) {
                continue;
            }
            let held = self.hold(chunk);
            if held.unsettled > 0 {
                self.window.insert(held);
            }
        }
    }

    fn hold(&mut self, chunk: StoredChunk) -> Held {
        let ordinal = self.ordinal(chunk.run);
        let mut bytes = 0;
        let records: Vec<HeldRecord> = chunk
            .records
            .into_iter()
            .enumerate()
            .map(|(i, (sequence, body))| {
                bytes += body.len() + RECORD_OVERHEAD;
                let stage = if bit(&chunk.settled, i) { Stage::Settled } else { Stage::Waiting };
                HeldRecord { sequence, body, stage, sent_us: 0 }
            })
            .collect();
        let unsettled = records.iter().filter(|r| r.stage != Stage::Settled).count();
        Held { row: chunk.row, run: chunk.run, ordinal, records, unsettled, bytes, stored: chunk.bytes }
    }

    fn ordinal(&mut self, run: u64) -> u32 {
        if run == self.run {
            return THIS_RUN;
        }
        match self.ordinals.iter().position(|r| *r == run) {
            Some(i) => i as u32,
            None => {
                self.ordinals.push(run);
                self.ordinals.len() as u32 - 1
            }
        }
    }

    /// A slice of the count after a start.
    pub fn counted(&mut self, found: Freed) {
        self.tally.add(found);
        self.show_backlog();
    }

    /// Fills in the gauges.
    pub fn snapshot(&mut self) -> LaneStats {
        self.stats.open = self.open.len() as u64;
        self.stats.in_flight = self.in_flight;
        self.stats.parked_topics = self.parks.topics();
        self.stats.clone()
    }

    /// Nothing accepted is undelivered.
    pub fn is_drained(&self) -> bool {
        self.open.is_empty()
            && self.window.is_empty()
            && !self.unread
            && self.dead.is_empty()
            && self.dropped.is_empty()
    }

    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Arrival (wall clock, ms) of the oldest undelivered record in memory.
    pub fn oldest_arrival_ms(&self) -> Option<i64> {
        let held = self.window.chunks().flat_map(|c| &c.records).find(|r| r.stage != Stage::Settled).map(|r| &r.body);
        let oldest = held.or_else(|| self.open.front().map(|o| &o.body))?;
        oldest.view().ok().map(|v| v.arrival.wall_ms)
    }

    /// The sequence of the record accepted last.
    pub fn last_sequence(&self) -> u64 {
        self.next_sequence - 1
    }

    /// Whether a record of this run is still in memory alone, and not even in the running commit.
    pub fn in_memory_alone(&self, sequence: u64) -> bool {
        self.open.binary_search_by_key(&sequence, |o| o.sequence).is_ok_and(|i| i >= self.staged.open)
    }

    /// Commits what comes next, whatever Kafka does: for what must not be in memory alone.
    pub fn spool_now(&mut self, now_us: u64) {
        self.trouble(now_us);
    }

    fn when_full(&self) -> WhenFull {
        self.config.when_full
    }
}
