//! Direct or spooling: when a lane changes from one to the other.

use super::{CALM_US, Lane, Mode};
use crate::config::{Delivery as Guarantee, Order, When};
use crate::spool::window::Stage;

impl Lane {
    /// A producer error: from now on everything is committed.
    pub(super) fn trouble(&mut self, now_us: u64) {
        self.late_at = Some(now_us);
        self.begin_spooling();
    }

    /// A record came that must not go without a commit: it and what comes until all is calm again are committed.
    pub(super) fn commit_first(&mut self, now_us: u64) {
        self.commit_first_at = Some(now_us);
        self.begin_spooling();
    }

    pub(super) fn begin_spooling(&mut self) {
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
        if !self.pending.settled.is_empty() {
            self.pending.settled_us.get_or_insert(now_us);
        }
        self.let_settled_go(now_us);
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

    pub(super) fn is_late(&self, now_us: u64) -> bool {
        self.late_from_us().is_some_and(|from| now_us >= from)
    }

    /// When the oldest open record becomes late. What had to wait for the disk counts from the change to direct on.
    pub(super) fn late_from_us(&self) -> Option<u64> {
        // Who never spools is never late.
        if self.config.delivery == Guarantee::AtMostOnce {
            return None;
        }
        let since = self.open.front()?.accepted_us.max(self.direct_since_us);
        Some(since + self.times.grace_us() + 1)
    }

    pub(super) fn may_go_direct(&self, now_us: u64) -> bool {
        let calm_since = |at: Option<u64>| at.is_none_or(|at| now_us.saturating_sub(at) >= CALM_US);
        let calm = calm_since(self.late_at) && calm_since(self.commit_first_at);
        let nothing_waits = !self.unread && !self.reading && self.window.at_end() && self.staged.open == 0;
        // What flies must not be older than grace, else the next record would be late at once.
        self.config.when == When::Offline
            && calm
            && self.parks.is_empty()
            && (nothing_waits || self.config.order == Order::LiveFirst)
            && !self.flies_late(now_us)
            && self.open.iter().all(|o| o.attached.is_none())
    }

    /// Whether something durable has been with the producer for longer than `grace`: Kafka is silent, and the next
    /// record would be late as well. What was sent first is looked at, from the oldest chunk on.
    fn flies_late(&self, now_us: u64) -> bool {
        let grace = self.times.grace_us();
        let first = self.window.chunks().flat_map(|c| &c.records).find(|r| r.stage == Stage::Sent);
        first.is_some_and(|r| now_us.saturating_sub(r.sent_us) > grace)
    }

    /// When [`Lane::tick`] has something to decide next, if nothing else happens.
    pub fn next_deadline_us(&self) -> Option<u64> {
        let late = (self.mode == Mode::Direct).then(|| self.late_from_us()).flatten();
        [late, self.parks.next_retry_us()].into_iter().flatten().min()
    }
}
