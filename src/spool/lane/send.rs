//! Steps 7 to 9 of a lane: what goes to the producer, and what its reports mean.

use super::{Burial, Lane, Mode, Outcome, Sent, Sink, THIS_RUN};
use crate::clock::plausible;
use crate::config::{Delivery as Guarantee, Order};
use crate::forward::marks::Mark;
use crate::record::Body;
use crate::spool::window::{HeldRecord, Key, Open, RECORD_OVERHEAD, Stage};
use crate::spool::{DeadLetter, RowId};

impl Lane {
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

    pub(super) fn pump_window(&mut self, sink: &mut dyn Sink, now_us: u64, wall_ms: i64) -> bool {
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

    pub(super) fn pump_open(&mut self, sink: &mut dyn Sink, now_us: u64, wall_ms: i64) -> bool {
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
            debug_assert!(open.attached.is_none(), "it must be committed first");
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
        if let Outcome::Delivered(Some(mark)) = outcome {
            self.settling.acknowledged(mark, now_us);
        }
        if let Some(sent_us) = self.sent_us(key) {
            let took = now_us.saturating_sub(sent_us);
            if matches!(outcome, Outcome::Delivered(_)) {
                self.times.record(took);
                self.stats.delivery_us.record(took);
                self.time_whole(key, now_us, wall_ms);
            }
            if took > self.times.grace_us() {
                self.late_at = Some(now_us);
            }
        }
        self.resolve(key, outcome, now_us, wall_ms);
    }

    /// Steps 1 to 8. What was on disk knows its arrival by the wall clock alone, which may have been unset.
    fn time_whole(&mut self, key: Key, now_us: u64, wall_ms: i64) {
        if let Some(i) = self.find_open(key) {
            let took = now_us.saturating_sub(self.open[i].accepted_us);
            self.stats.direct_us.record(took);
            self.stats.whole_us.record(took);
            return;
        }
        let Some(at) = self.window.find(key) else { return };
        if let Ok(arrived) = self.window.get(at).body.arrived_ms()
            && plausible(arrived)
        {
            self.stats.whole_us.record(wall_ms.saturating_sub(arrived).max(0) as u64 * 1000);
        }
    }

    pub(super) fn sent_us(&self, key: Key) -> Option<u64> {
        match self.find_open(key) {
            Some(i) => Some(self.open[i].sent_us),
            None => self.window.find(key).map(|at| self.window.get(at).sent_us),
        }
    }

    pub(super) fn resolve(&mut self, key: Key, outcome: Outcome, now_us: u64, wall_ms: i64) {
        match outcome {
            Outcome::Delivered(mark) => {
                self.stats.delivered += 1;
                if let Some(body) = self.settle(key, mark, now_us) {
                    self.parks.delivered(&body);
                }
            }
            Outcome::Faulty(cause) => self.fault(key, cause, now_us, wall_ms),
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

    pub(super) fn find_open(&self, key: Key) -> Option<usize> {
        if key.ordinal != THIS_RUN {
            return None;
        }
        self.open.binary_search_by_key(&key.sequence, |o| o.sequence).ok()
    }

    /// Step 9 (or 5, for a record that never was on disk). Returns the body, for those who ask for its topic.
    pub(super) fn settle(&mut self, key: Key, mark: Option<Mark>, now_us: u64) -> Option<Body> {
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
        let record = self.window.get_mut(at);
        record.delivered = Some(mark);
        let body = record.body.clone();
        self.settle_held(at, now_us);
        Some(body)
    }

    pub(super) fn settle_held(&mut self, at: (usize, usize), now_us: u64) {
        self.tally.records -= i64::from(self.window.get(at).stage != Stage::Settled);
        if self.window.settle(at).is_some() {
            self.settle_chunk(at.0, now_us);
        }
        self.show_backlog();
        self.window.pop_settled();
    }

    /// All records of a chunk are settled: it goes with the next commit, or becomes history.
    pub(super) fn retire(&mut self, row: RowId, stored: u64) {
        let keep = self.config.keep.is_some();
        self.pending.settled.push((row, keep));
        self.tally.chunks -= 1;
        self.tally.bytes -= stored as i64;
        if keep {
            self.tally.history_bytes += stored as i64;
        }
    }

    pub(super) fn show_backlog(&mut self) {
        self.stats.backlog = self.tally.shown();
    }

    pub(super) fn drop_settled_open(&mut self) {
        // A running commit still refers to the first ones.
        while self.staged.open == 0 && self.open.front().is_some_and(|o| o.stage == Stage::Settled) {
            self.pop_open();
        }
    }

    pub(super) fn pop_open(&mut self) -> Option<Open> {
        let open = self.open.pop_front()?;
        self.stats.open_bytes -= (open.body.len() + RECORD_OVERHEAD) as u64;
        self.next_send = self.next_send.saturating_sub(1);
        Some(open)
    }

    pub(super) fn unsend(&mut self, key: Key) -> Option<Body> {
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
    pub(super) fn fault(&mut self, key: Key, cause: String, now_us: u64, wall_ms: i64) {
        if let Some(i) = self.find_open(key) {
            let open = &mut self.open[i];
            let (body, ack) = (open.body.clone(), open.ack.take());
            open.stage = Stage::Settled;
            let attached = if i < self.staged.open { None } else { open.attached.take() };
            let letter = self.letter(self.run, key.sequence, body, cause, wall_ms);
            self.dead.push(Burial { letter, ack, attached, stored: i < self.staged.open });
            self.drop_settled_open();
        } else if let Some(at) = self.window.find(key) {
            let (body, run) = (self.window.get(at).body.clone(), self.window.chunk(at.0).run);
            let letter = self.letter(run, key.sequence, body, cause, wall_ms);
            self.dead.push(Burial { letter, ack: None, attached: None, stored: true });
            self.settle_held(at, now_us);
        }
    }

    pub(super) fn letter(&mut self, run: u64, sequence: u64, body: Body, cause: String, at: i64) -> DeadLetter {
        self.stats.dead_lettered += 1;
        DeadLetter { lane: self.number, run, sequence, at, cause, attempts: 1, body }
    }
}
