//! Parked topics: a topic that refuses its records waits, in order, while the lane's other topics go on.

use std::collections::HashMap;

use super::Lane;
use crate::config::{Delivery, Order};
use crate::record::Body;
use crate::spool::row_base;
use crate::spool::window::{Held, Key, Stage};

const RETRY_FIRST_US: u64 = 2_000_000;
const RETRY_MAX_US: u64 = 300_000_000;

#[derive(Debug, Default)]
pub struct Parks {
    topics: HashMap<Box<str>, Parked>,
    /// Topics of which a record came back while others are still with the producer, and how many: nothing of them is
    /// sent until all have answered, else a younger record could get between.
    regrouping: HashMap<Box<str>, usize>,
    /// Chunks with parked records have been dropped from memory.
    left_behind: bool,
    /// Arrival (wall clock, ms) of the oldest of them. What is evicted of them since counts until they are read again.
    oldest_left_ms: Option<i64>,
    /// Sending rests until nothing is in flight; then the lane is read again from its oldest chunk.
    rewinding: bool,
}

#[derive(Debug)]
struct Parked {
    cause: String,
    /// Held back now; false while a retry is on its way.
    held: bool,
    retry_at_us: u64,
    pause_us: u64,
}

impl Parks {
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.regrouping.is_empty()
    }

    /// The producer is gone, and with it all that was to answer.
    pub fn nothing_flies(&mut self) {
        let waited = !self.regrouping.is_empty();
        self.regrouping.clear();
        self.rewinding |= waited && self.left_behind;
    }

    /// Reads the lane again from its first chunk, once nothing is in flight.
    pub fn rewind(&mut self) {
        self.rewinding = true;
    }

    pub fn rewinding(&self) -> bool {
        self.rewinding
    }

    pub fn topics(&self) -> Vec<String> {
        let mut topics: Vec<_> = self.topics.iter().map(|(t, p)| format!("{t}: {}", p.cause)).collect();
        topics.sort();
        topics
    }

    /// Whether this record has to wait. The common case asks nothing of the record.
    pub fn holds(&self, body: &Body) -> bool {
        if self.is_empty() {
            return false;
        }
        let held = |t: &str| self.topics.get(t).is_some_and(|p| p.held) || self.regrouping.contains_key(t);
        body.topic().is_ok_and(held)
    }

    /// A report says that the topic refuses. Each round of refusals doubles the pause, once.
    pub fn park(&mut self, body: &Body, cause: String, now_us: u64) {
        let Ok(topic) = body.topic() else { return };
        let Some(parked) = self.topics.get_mut(topic) else {
            tracing::warn!(topic, cause, "a Kafka topic refuses records: they are parked, the other topics go on");
            let retry_at_us = now_us + RETRY_FIRST_US;
            let parked = Parked { cause, held: true, retry_at_us, pause_us: RETRY_FIRST_US };
            self.topics.insert(topic.into(), parked);
            return;
        };
        parked.cause = cause;
        if !parked.held {
            parked.held = true;
            parked.pause_us = (parked.pause_us * 2).min(RETRY_MAX_US);
            parked.retry_at_us = now_us + parked.pause_us;
        }
    }

    /// A delivery to a topic whose retry is on its way: it takes records again.
    pub fn delivered(&mut self, body: &Body) {
        if self.topics.is_empty() {
            return;
        }
        if let Ok(topic) = body.topic()
            && self.topics.get(topic).is_some_and(|p| !p.held)
        {
            tracing::info!(topic, "a parked Kafka topic takes records again");
            self.topics.remove(topic);
        }
    }

    /// Whether chunks older than the window wait in the file.
    pub fn left_behind(&self) -> bool {
        self.left_behind
    }

    /// Arrival of the oldest record that waits in the file for its topic.
    pub fn oldest_left_ms(&self) -> Option<i64> {
        self.oldest_left_ms
    }

    pub fn retry_due(&self, now_us: u64) -> bool {
        self.topics.values().any(|p| p.held && p.retry_at_us <= now_us)
    }

    pub fn next_retry_us(&self) -> Option<u64> {
        self.topics.values().filter(|p| p.held).map(|p| p.retry_at_us).min()
    }

    fn due(&self, now_us: u64) -> Vec<Box<str>> {
        self.topics.iter().filter(|(_, p)| p.held && p.retry_at_us <= now_us).map(|(t, _)| t.clone()).collect()
    }
}

impl Lane {
    /// A topic without a leader: nothing of it is with the producer any more, which has just been dropped.
    pub fn park_stuck(&mut self, topic: &str, now_us: u64) {
        if self.config.delivery == Delivery::AtMostOnce {
            return;
        }
        let of_topic = |b: &Body| b.topic().is_ok_and(|t| t == topic);
        let held = self.window.chunks().flat_map(|c| &c.records).map(|r| &r.body).find(|b| of_topic(b)).cloned();
        let body = held.or_else(|| self.open.iter().map(|o| &o.body).find(|b| of_topic(b)).cloned());
        if let Some(body) = body {
            self.parks.park(&body, "no delivery for 30 s while other topics had some".into(), now_us);
        }
    }

    /// Lets the records of due topics go again. Those of one topic only when none of it is in flight any more: a late
    /// report would put a younger record before an older one.
    pub(super) fn retry_parked(&mut self, now_us: u64) {
        for topic in self.parks.due(now_us) {
            let flying = self.flying(&topic) > 0;
            let Some(parked) = self.parks.topics.get_mut(&topic) else { continue };
            if flying {
                parked.retry_at_us = now_us + RETRY_FIRST_US;
                continue;
            }
            parked.held = false;
            self.look_again();
        }
    }

    /// From the oldest record on, in memory or, if some have left it, in the file.
    fn look_again(&mut self) {
        if self.parks.left_behind {
            self.parks.rewinding = true;
        } else {
            self.window.rewind();
        }
    }

    /// Records of a topic that are with the producer.
    fn flying(&self, topic: &str) -> usize {
        let of_topic = |b: &Body| b.topic().is_ok_and(|t| t == topic);
        let open = self.open.iter().filter(|o| o.stage == Stage::Sent && of_topic(&o.body)).count();
        open + self.window.count_sent(of_topic)
    }

    /// A record came back and is to be sent again: the others of its topic that fly must come back first.
    pub(super) fn regroup(&mut self, body: &Body) {
        let Ok(topic) = body.topic() else { return };
        if self.config.order != Order::InOrder || self.parks.regrouping.contains_key(topic) {
            return;
        }
        let flying = self.flying(topic);
        if flying > 0 {
            self.parks.regrouping.insert(topic.into(), flying);
        }
    }

    /// A report has come for this record: the last one of a regrouping topic lets it go on.
    pub(super) fn came_back(&mut self, key: Key) {
        if self.parks.regrouping.is_empty() {
            return;
        }
        let Some(body) = self.body(key) else { return };
        let Ok(topic) = body.topic() else { return };
        let Some(flying) = self.parks.regrouping.get_mut(topic) else { return };
        *flying -= 1;
        if *flying == 0 {
            self.parks.regrouping.remove(topic);
            self.look_again();
        }
    }

    fn body(&self, key: Key) -> Option<Body> {
        match self.find_open(key) {
            Some(i) => Some(self.open[i].body.clone()),
            None => self.window.find(key).map(|at| self.window.get(at).body.clone()),
        }
    }

    /// A topic whose records have all gone another way (dead letters, evicted, purged) is not parked any more: the lane
    /// has been looked through since its retry, and nothing of it is left.
    pub(super) fn forget_idle_parks(&mut self) {
        let looked_through = self.window.at_end() && !self.unread && !self.reading && !self.parks.rewinding;
        if self.parks.topics.is_empty() || !looked_through {
            return;
        }
        let retried = self.parks.topics.iter().filter(|(_, p)| !p.held).map(|(t, _)| t.clone());
        let idle: Vec<_> = retried.filter(|t| self.flying(t) == 0).collect();
        idle.iter().for_each(|t| drop(self.parks.topics.remove(t)));
    }

    /// Chunks at the front that hold nothing but parked records leave memory when room is needed behind them.
    pub(super) fn leave_behind(&mut self) {
        while self.unread
            && self.window.bytes() * 2 > self.window_bytes_max
            && let Some(front) = self.window.passed_front()
        {
            if !only_parked(front, &self.parks) {
                return;
            }
            if front.unsettled == 0 {
                // Its row goes with a commit, or is held as it is.
                self.window.pop_front();
                continue;
            }
            let (row, bits) = (front.row, front.settled());
            self.stats.settled_early += u64::from(self.settling.holds(front));
            let waits = front.records.iter().filter(|r| r.stage == Stage::Waiting);
            let oldest = waits.filter_map(|r| r.body.arrived_ms().ok()).min();
            self.parks.oldest_left_ms = [self.parks.oldest_left_ms, oldest].into_iter().flatten().min();
            if bits.iter().any(|b| *b != 0) {
                self.pending.bitmaps.push((row, bits));
            }
            self.parks.left_behind = true;
            self.window.pop_front();
        }
    }

    /// Once nothing is in flight: forget the window and read again from the lane's first row.
    pub(super) fn finish_rewind(&mut self) {
        if self.in_flight > 0 || self.reading || self.staged.open > 0 {
            return;
        }
        let again = self.settling.finish_again();
        while let Some(held) = self.window.pop_front() {
            if held.unsettled == 0 {
                continue;
            }
            let bits = if again { self.send_all_again(&held) } else { held.settled() };
            self.stats.settled_early += u64::from(!again && self.settling.holds(&held));
            if bits.iter().any(|b| *b != 0) {
                self.pending.bitmaps.push((held.row, bits));
            }
        }
        self.last_row = row_base(self.number);
        self.unread = true;
        self.parks.left_behind = false;
        self.parks.oldest_left_ms = None;
        self.parks.rewinding = false;
    }
}

fn only_parked(held: &Held, parks: &Parks) -> bool {
    held.records.iter().all(|r| match r.stage {
        Stage::Settled => true,
        Stage::Sent => false,
        Stage::Waiting => parks.holds(&r.body),
    })
}
