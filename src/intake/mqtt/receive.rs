//! From PUBLISH to delivery: steps 1 and 2, and the book of what is unanswered. No I/O.
//!
//! It lives as long as the session: what an earlier connection has delivered still counts against the gate.

use std::sync::Arc;
use std::time::Duration;

use super::codec::{self, Publish};
use super::window::{Answer, Gate, Ledger};
use super::{MqttSession, SourceCounters};
use crate::intake::rate::Bucket;
use crate::intake::waits::Waits;
use crate::intake::{Ack, AckQueue, AckTicket, Delivery, Fate, Routed};
use crate::record::{Arrival, Reading};
use bytes::BytesMut;

/// Memory of a reading beside its packet: delivery, ticket, slot, allocations. It bounds how many tiny readings fit.
const OVERHEAD_BYTES: u64 = 128;
/// Acks taken in one go, so that a large burst does not keep the connection from reading.
const ACKS_PER_WAKE_UP: usize = 1024;

/// Why the next reading may not come in yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    Gate,
    /// Until this time since the session's start.
    Rate(Duration),
}

#[derive(Debug)]
pub(super) struct Receiver {
    ledger: Ledger,
    gate: Gate,
    rate: Option<Bucket>,
    queue: Arc<AckQueue>,
    /// Acks taken from the queue; those before `fired_next` are done.
    fired: Vec<Ack>,
    fired_next: usize,
    batch: Vec<Delivery>,
    scratch: Vec<u8>,
    /// Of the present batch; read from the clock at its first reading.
    arrival: Option<Arrival>,
    readings: u64,
    payload_bytes: u64,
    waits: Waits,
}

impl Receiver {
    pub(super) fn new(session: &MqttSession) -> Self {
        let config = &session.config;
        let queue = Arc::default();
        session.counters.pulse.begin(&queue);
        Receiver {
            ledger: Ledger::new(),
            gate: Gate::new(u64::from(config.receive_maximum), config.unacked_bytes_max),
            rate: config.rate_limit.map(Bucket::new),
            queue,
            fired: Vec::new(),
            fired_next: 0,
            batch: Vec::new(),
            scratch: Vec::new(),
            arrival: None,
            readings: 0,
            payload_bytes: 0,
            waits: Waits::default(),
        }
    }

    /// A new connection begins.
    pub(super) fn next_generation(&mut self) {
        self.ledger.next_generation();
        self.waits.clear();
    }

    /// Whether a reading in a packet of `packet_bytes` may come in at `now` (since the session's start).
    pub(super) fn obstacle(
        &mut self,
        packet_bytes: usize,
        now: Duration,
        counters: &SourceCounters,
    ) -> Option<Obstacle> {
        let was_closed = self.gate.is_closed();
        if !self.gate.admits(&self.ledger, cost(packet_bytes)) {
            if !was_closed {
                SourceCounters::add(&counters.gate_closed, 1);
            }
            return Some(Obstacle::Gate);
        }
        self.rate.as_mut().and_then(|bucket| bucket.take(now).err()).map(Obstacle::Rate)
    }

    /// Step 1: a reading has been received. Routes it and puts it into the batch.
    pub(super) fn take(&mut self, publish: Publish, packet_bytes: usize, now: Duration, session: &MqttSession) {
        let counters = &session.counters;
        let answer = match publish.qos {
            0 => Answer::Nothing,
            1 => Answer::PubAck(publish.pkid),
            _ => Answer::PubRec(publish.pkid),
        };
        let (ack, repeated) = self.ledger.push(answer, cost(packet_bytes));
        self.waits.begin(now);
        if repeated || publish.unfit.is_some() {
            SourceCounters::add(&counters.violations, 1);
        }
        self.readings += 1;
        self.payload_bytes += publish.payload.len() as u64;
        match self.route(&publish, session) {
            Routed::Deliver { lane, body, fate } => {
                let fate = publish.unfit.map_or(fate, Fate::DeadLetter);
                let ticket = AckTicket { queue: Arc::clone(&self.queue), ack };
                self.batch.push(Delivery { lane, body, fate, ack: Some(ticket), extra: None });
            }
            // Nobody wants it, so nobody needs to store it; its answer still keeps its place.
            Routed::Drop => {
                self.ledger.fire(ack);
            }
        }
    }

    fn route(&mut self, publish: &Publish, session: &MqttSession) -> Routed {
        let arrival = *self.arrival.get_or_insert_with(|| (session.clock)());
        let reading = Reading {
            source: &session.config.name,
            topic: &publish.topic,
            payload: &publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            properties: &publish.properties,
            arrival,
        };
        session.route.route(&reading, &mut self.scratch)
    }

    /// Step 2: hands the batch over, and brings the counters up to date.
    pub(super) fn hand_over(&mut self, session: &MqttSession) {
        self.arrival = None;
        if !self.batch.is_empty() {
            session.deliver.deliver(&mut self.batch);
        }
        if self.gate.is_closed() {
            session.deliver.urge();
        }
        let counters = &session.counters;
        SourceCounters::add(&counters.readings, std::mem::take(&mut self.readings));
        SourceCounters::add(&counters.payload_bytes, std::mem::take(&mut self.payload_bytes));
        self.show(counters);
    }

    /// Takes fired acks and writes the answers that may leave: step 5, after 4 or 8. A part of them at a time, see
    /// [`Receiver::has_fired`].
    pub(super) fn answer(&mut self, out: &mut BytesMut, now: Duration, counters: &SourceCounters) {
        if self.fired_next == self.fired.len() {
            self.queue.take(&mut self.fired);
            self.fired_next = 0;
        }
        let end = self.fired.len().min(self.fired_next + ACKS_PER_WAKE_UP);
        let mut stale = 0;
        for &ack in &self.fired[self.fired_next..end] {
            stale += u64::from(!self.ledger.fire(ack));
        }
        self.fired_next = end;
        let (mut done, mut pubacks) = (0, 0);
        while let Some(answer) = self.ledger.take_ready() {
            done += 1;
            match answer {
                Answer::Nothing => continue,
                Answer::PubAck(pkid) => codec::write_puback(pkid, out),
                Answer::PubRec(pkid) => codec::write_pubrec(pkid, out),
            }
            pubacks += 1;
        }
        if done > 0 {
            self.waits.end(done, now, &mut counters.answered.lock().expect("no holder of this lock panics"));
        }
        if stale > 0 {
            SourceCounters::add(&counters.acks_stale, stale);
        }
        if pubacks > 0 {
            SourceCounters::add(&counters.pubacks, pubacks);
        }
    }

    /// Whether acks that have been taken from the queue still wait.
    pub(super) fn has_fired(&self) -> bool {
        self.fired_next < self.fired.len()
    }

    /// Waits for acks. Cancel safe.
    pub(super) async fn wait_for_acks(&self) {
        self.queue.wait().await;
    }

    /// On which this waits, also between two connections.
    pub(super) fn queue(&self) -> Arc<AckQueue> {
        Arc::clone(&self.queue)
    }

    /// Whether the present connection owes no answer.
    pub(super) fn is_answered(&self) -> bool {
        self.ledger.is_answered()
    }

    /// Brings the gauges up to date.
    pub(super) fn show(&self, counters: &SourceCounters) {
        SourceCounters::set(&counters.unacked, self.ledger.count());
        SourceCounters::set(&counters.unacked_bytes, self.ledger.bytes());
    }
}

fn cost(packet_bytes: usize) -> u64 {
    packet_bytes as u64 + OVERHEAD_BYTES
}
