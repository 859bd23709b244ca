//! Parked topics: a topic that refuses its records waits, in order, while the lane's other topics go on.

use std::collections::HashMap;

use super::Lane;
use crate::record::Body;
use crate::spool::row_base;
use crate::spool::window::Held;

const RETRY_FIRST_US: u64 = 2_000_000;
const RETRY_MAX_US: u64 = 300_000_000;

#[derive(Debug, Default)]
pub struct Parks {
    topics: HashMap<Box<str>, Parked>,
    /// Chunks with parked records have been dropped from memory.
    left_behind: bool,
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
        self.topics.is_empty()
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
        !self.topics.is_empty() && body.topic().is_ok_and(|t| self.topics.get(t).is_some_and(|p| p.held))
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
            let flying = self.window.any_sent(|b| b.topic().is_ok_and(|t| t == &*topic));
            let Some(parked) = self.parks.topics.get_mut(&topic) else { continue };
            if flying {
                parked.retry_at_us = now_us + RETRY_FIRST_US;
                continue;
            }
            parked.held = false;
            if self.parks.left_behind {
                self.parks.rewinding = true;
            } else {
                self.window.rewind();
            }
        }
        self.forget_idle_parks();
    }

    /// A parked topic whose records have all gone another way (evicted, purged) is not parked any more.
    fn forget_idle_parks(&mut self) {
        if self.stats.backlog.records == 0 && self.open.is_empty() && self.in_flight == 0 {
            self.parks.topics.clear();
        }
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
            let (row, bits) = (front.row, front.bitmap());
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
        while let Some(held) = self.window.pop_front() {
            let bits = held.bitmap();
            if bits.iter().any(|b| *b != 0) {
                self.pending.bitmaps.push((held.row, bits));
            }
        }
        self.last_row = row_base(self.number);
        self.unread = true;
        self.parks.left_behind = false;
        self.parks.rewinding = false;
    }
}

fn only_parked(held: &Held, parks: &Parks) -> bool {
    use crate::spool::window::Stage;
    held.records.iter().all(|r| match r.stage {
        Stage::Settled => true,
        Stage::Sent => false,
        Stage::Waiting => parks.holds(&r.body),
    })
}
