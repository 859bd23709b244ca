//! Where a publication goes: through route to its lane, into the retained messages, to local subscribers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Exchange;
use crate::intake::listener::counters::ListenerCounters;
use crate::intake::listener::identity;
use crate::intake::listener::message::Message;
use crate::intake::listener::outgoing::{Bounds, Item, Send};
use crate::intake::listener::packet::{Publish, Will};
use crate::intake::{AckTicket, Change, Delivery, Extra, Routed, SourceEvent};
use crate::record::Reading;

impl Exchange {
    /// Steps 1 and 2: makes a record of a reading and puts it into the batch for the hub. `change` becomes durable with
    /// it. `false`: no route wants it, and `ack` has been fired.
    pub(in crate::intake::listener) fn accept(
        &mut self,
        client: &str,
        publish: &Publish<'_>,
        ack: Option<AckTicket>,
        change: Option<Change>,
    ) -> bool {
        let counters = &self.parts.counters;
        ListenerCounters::add(&counters.readings, 1);
        ListenerCounters::add(&counters.payload_bytes, publish.payload.len() as u64);
        let arrival = *self.arrival.get_or_insert_with(|| (self.parts.clock)());
        let source = &self.parts.config.name;
        let reading = Reading {
            source,
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            properties: &publish.forwarded.properties,
            arrival,
        };
        match self.parts.route.route(&reading, &mut self.scratch) {
            Routed::Deliver { lane, body, fate } => {
                let from = self.parts.config.message_id.as_ref();
                let message_id = from.and_then(|from| identity::message_id(from, source, client, publish));
                if message_id.is_some() {
                    ListenerCounters::add(&counters.message_ids, 1);
                }
                let has_extra = change.is_some() || message_id.is_some();
                let extra = has_extra.then(|| Box::new(Extra { change, message_id }));
                self.batch.push(Delivery { lane, body, fate, ack, extra });
                true
            }
            Routed::Drop => {
                ListenerCounters::add(&counters.unrouted, 1);
                if let Some(ticket) = ack {
                    ticket.fire();
                }
                false
            }
        }
    }

    /// Best effort: nobody's PUBACK depends on it. Costs nothing while nobody subscribes and nothing is to be retained.
    pub(in crate::intake::listener) fn fan_out(&mut self, publish: &Publish<'_>, publisher: u64, now: Duration) {
        let mut message = None;
        if publish.retain {
            let retained = Arc::new(Message::of(publish, publish.topic, publisher, now));
            if !self.retained.set(Arc::clone(&retained)) {
                ListenerCounters::add(&self.parts.counters.retained_refused, 1);
            }
            message = Some(retained);
        }
        if self.router.is_empty() {
            return;
        }
        let mut matches = std::mem::take(&mut self.matches);
        let sessions = &self.sessions;
        let is_connected = |number| sessions.get(&number).is_some_and(|session| session.attached.is_some());
        self.router.find(publish.topic, publisher, &is_connected, &mut matches);
        for found in matches.drain(..) {
            let message = message.get_or_insert_with(|| Arc::new(Message::of(publish, publish.topic, publisher, now)));
            let retain = found.retain_as_published && publish.retain;
            let item = Item { message: Arc::clone(message), qos: found.qos.min(publish.qos), retain, ids: found.ids };
            self.queue_for(found.session, item);
        }
        self.matches = matches;
    }

    /// Queues a message for one session within all bounds.
    pub(super) fn queue_for(&mut self, number: u64, item: Item) {
        let limits = &self.parts.config.limits;
        let bounds = Bounds { messages: limits.queued_messages as usize, bytes: limits.queued_bytes };
        let left = self.parts.config.fan_out_bytes_max.saturating_sub(self.fan_out_bytes);
        let Some(session) = self.sessions.get_mut(&number) else { return };
        // Messages of QoS 0 are for those who are there (4.1).
        if session.attached.is_none() && item.qos == 0 {
            return;
        }
        let before = session.outgoing.bytes();
        let dropped = session.outgoing.push(item, bounds, left);
        self.fan_out_bytes = self.fan_out_bytes - before + session.outgoing.bytes();
        if dropped > 0 {
            self.parts.counters.queue_dropped.fetch_add(dropped, Ordering::Relaxed);
        }
        if !session.woken {
            session.woken = true;
            session.wake();
        }
    }

    /// The next message for a session's client.
    pub(in crate::intake::listener) fn next_for(&mut self, number: u64, window: usize, now: Duration) -> Option<Send> {
        let session = self.sessions.get_mut(&number)?;
        session.woken = false;
        let before = session.outgoing.bytes();
        let next = session.outgoing.next(window, now);
        self.fan_out_bytes = self.fan_out_bytes - before + session.outgoing.bytes();
        next
    }

    /// Applies an answer of a session's client.
    pub(in crate::intake::listener) fn answered<T>(
        &mut self,
        number: u64,
        apply: impl FnOnce(&mut crate::intake::listener::outgoing::Outgoing) -> T,
    ) -> Option<T> {
        let session = self.sessions.get_mut(&number)?;
        let before = session.outgoing.bytes();
        let answer = apply(&mut session.outgoing);
        self.fan_out_bytes = self.fan_out_bytes - before + session.outgoing.bytes();
        Some(answer)
    }

    /// Publishes a session's will, if it has one: to Kafka like any reading, which nobody waits for, and to subscribers.
    pub(super) fn publish_will(&mut self, number: u64, now: Duration) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let Some(will) = session.will.take() else { return };
        let client = Arc::clone(&session.client);
        let Will { topic, payload, qos, retain, forwarded, .. } = *will;
        let publish =
            Publish { topic: &topic, payload: &payload, packet_id: 0, qos, retain, dup: false, alias: None, forwarded };
        ListenerCounters::add(&self.parts.counters.wills, 1);
        self.accept(&client, &publish, None, None);
        self.fan_out(&publish, number, now);
        self.tell(SourceEvent::DeviceWill { client: client.to_string(), topic: topic.clone() });
        self.hand_over();
    }
}
