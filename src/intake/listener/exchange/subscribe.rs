//! Subscriptions of sessions, and the retained messages that they bring (3.8, 3.10).

use std::sync::Arc;
use std::time::Duration;

use super::Exchange;
use crate::intake::listener::counters::ListenerCounters;
use crate::intake::listener::filter;
use crate::intake::listener::outgoing::Item;
use crate::intake::listener::packet::{Filter, reason};
use crate::intake::listener::router::Options;

impl Exchange {
    /// Enters one subscription. Returns the code for SUBACK: the QoS, or why not. The session's row is written by
    /// [`Exchange::subscribed`].
    pub(in crate::intake::listener) fn subscribe(
        &mut self,
        number: u64,
        wish: &Filter<'_>,
        id: u32,
        now: Duration,
    ) -> u8 {
        let limits = &self.config().limits;
        let (levels_max, count_max) = (limits.topic_levels, limits.subscriptions as usize);
        let Ok(parsed) = filter::parse(wish.filter, levels_max) else { return reason::FILTER_INVALID };
        let Some(session) = self.sessions.get_mut(&number) else { return reason::UNSPECIFIED };
        let is_known = session.subscriptions.contains_key(wish.filter);
        if !is_known && session.subscriptions.len() >= count_max {
            ListenerCounters::add(&self.parts.counters.subscriptions_refused, 1);
            return reason::QUOTA_EXCEEDED;
        }
        let options =
            Options { qos: wish.qos, no_local: wish.no_local, retain_as_published: wish.retain_as_published, id };
        session.subscriptions.insert(wish.filter.into(), options);
        self.router.subscribe(parsed, number, options);
        // Never for a shared one (5, 3.3.1.3).
        let wanted = wish.retain_handling == 0 || (wish.retain_handling == 1 && !is_known);
        if wanted && parsed.share.is_none() {
            self.send_retained(number, parsed.filter, options, now);
        }
        wish.qos
    }

    fn send_retained(&mut self, number: u64, filter: &str, options: Options, now: Duration) {
        for message in self.retained.matching(filter, now) {
            let qos = options.qos.min(message.qos);
            let ids = if options.id == 0 { Vec::new() } else { vec![options.id] };
            self.queue_for(number, Item { message: Arc::clone(&message), qos, retain: true, ids });
        }
    }

    /// Returns the code for UNSUBACK.
    pub(in crate::intake::listener) fn unsubscribe(&mut self, number: u64, text: &str) -> u8 {
        let Ok(parsed) = filter::parse(text, u32::MAX) else { return reason::FILTER_INVALID };
        let Some(session) = self.sessions.get_mut(&number) else { return reason::UNSPECIFIED };
        if session.subscriptions.remove(text).is_none() {
            return reason::NO_SUBSCRIPTION;
        }
        self.router.unsubscribe(parsed, number);
        reason::SUCCESS
    }

    /// Writes the session's row if its subscriptions have changed. Returns the write that an answer has to wait for.
    pub(in crate::intake::listener) fn subscribed(&mut self, number: u64) -> u64 {
        self.progress(number);
        self.sessions.get(&number).map_or(0, |session| session.asked)
    }

    /// Whether a write and those before it are durable.
    pub(in crate::intake::listener) fn is_written(&self, number: u64, write: u64) -> bool {
        self.sessions.get(&number).is_none_or(|session| session.unwritten.iter().all(|&number| number > write))
    }
}
