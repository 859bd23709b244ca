//! A PUBLISH of the client: steps 1 and 2, and what is not taken.

use std::sync::Arc;
use std::time::Duration;

use super::input::Taken;
use super::{Answer, Closing, Machine, Obstacle};
use crate::faults;
use crate::intake::listener::counters::ListenerCounters;
use crate::intake::listener::exchange::{Arrived, Exchange};
use crate::intake::listener::gate::Asking;
use crate::intake::listener::packet::{Publish, Version, kind, reason};
use crate::intake::listener::{filter, identity};

/// A device whose next reading comes this soon after our last answer has been waiting for that answer.
const PROMPT: Duration = Duration::from_millis(10);

/// What a reading costs the gate.
#[derive(Clone, Copy)]
struct Cost(u64);

impl Machine {
    pub(super) fn publish(
        &mut self,
        publish: Publish<'_>,
        bytes: usize,
        exchange: &mut Exchange,
        now: Duration,
    ) -> Result<Taken, Closing> {
        if let Some(until) = self.too_fast(now) {
            return Ok(Taken::Wait(Obstacle::Rate(until)));
        }
        // Before anything else that may let it wait or drop it: later ones may come with the alias alone.
        let aliased = self.resolve(&publish, exchange)?;
        let publish = Publish { topic: aliased.as_deref().unwrap_or(publish.topic), ..publish };
        let cost = Cost(exchange.gate.cost(bytes));
        if !self.has_room(&publish, cost, exchange) {
            if publish.qos > 0 {
                return Ok(Taken::Wait(Obstacle::Gate));
            }
            ListenerCounters::add(&exchange.counters().qos0_dropped, 1);
            self.charge(bytes, exchange, now);
            return Ok(Taken::Done);
        }
        let taken = match self.objection(&publish, exchange) {
            Some(code) => self.deny(&publish, code, exchange)?,
            None => match publish.qos {
                0 => self.accept(&publish, Answer::Nothing, cost, exchange, now),
                1 => self.publish_1(&publish, cost, exchange, now)?,
                _ => self.publish_2(&publish, cost, exchange, now)?,
            },
        };
        if matches!(taken, Taken::Done) {
            self.charge(bytes, exchange, now);
            if self.reserved > 0 {
                exchange.gate.free(&mut self.share, std::mem::take(&mut self.reserved));
            }
        }
        Ok(taken)
    }

    fn too_fast(&self, now: Duration) -> Option<Duration> {
        let until = self.messages.ready_at().max(self.bytes_debt.ready_at());
        (until > now).then_some(until)
    }

    fn charge(&mut self, bytes: usize, exchange: &Exchange, now: Duration) {
        let limits = &exchange.config().limits;
        self.messages.charge(Duration::from_secs(1) / limits.message_rate.max(1), now);
        let nanoseconds = bytes as u64 * 1_000_000_000 / limits.byte_rate.max(1);
        self.bytes_debt.charge(Duration::from_nanos(nanoseconds), now);
    }

    /// The topic that an alias stands for; `None`: the topic is there.
    fn resolve(&mut self, publish: &Publish<'_>, exchange: &Exchange) -> Result<Option<Arc<str>>, Closing> {
        let Some(alias) = publish.alias else { return Ok(None) };
        // [MQTT-3.3.2-9]
        if alias > exchange.config().limits.topic_aliases {
            return Err(Closing::with(reason::ALIAS_INVALID, "a topic alias above the maximum"));
        }
        if publish.topic.is_empty() {
            let known = self.aliases.get(&alias).cloned();
            return known.map(Some).ok_or(Closing::with(reason::PROTOCOL_ERROR, "an unknown topic alias"));
        }
        if self.aliases.get(&alias).is_none_or(|known| **known != *publish.topic) {
            self.aliases.insert(alias, Arc::from(publish.topic));
        }
        Ok(None)
    }

    fn has_room(&mut self, publish: &Publish<'_>, cost: Cost, exchange: &mut Exchange) -> bool {
        let receive_maximum = u32::from(exchange.config().limits.receive_maximum.max(1));
        let count_max = match (publish.qos, self.version) {
            (0, _) => None,
            // 3.1.1 clients cannot be told: what is beyond it waits.
            (_, Version::V311) => Some(receive_maximum),
            // v5 clients have been told: see `count_open`.
            (_, Version::V5) => Some(u32::MAX),
        };
        if self.reserved > 0 {
            return count_max.is_none_or(|max| self.share.count < max);
        }
        let asking = Asking { connection: self.connection, queue: &self.queue, count_max };
        exchange.gate.admits(&mut self.share, asking, cost.0)
    }

    /// Why it is not taken, as a v5 reason.
    fn objection(&self, publish: &Publish<'_>, exchange: &Exchange) -> Option<u8> {
        if !filter::has_levels_at_most(publish.topic, exchange.config().limits.topic_levels) {
            return Some(reason::TOPIC_INVALID);
        }
        if !self.rights.may_publish(publish.topic) {
            return Some(reason::NOT_AUTHORIZED);
        }
        let is_text = publish.forwarded.is_text;
        (is_text && std::str::from_utf8(publish.payload).is_err()).then_some(reason::FORMAT_INVALID)
    }

    /// 3.1.1 has no way to say no but to close: PUBACK would say that the reading is safe.
    fn deny(&mut self, publish: &Publish<'_>, code: u8, exchange: &Exchange) -> Result<Taken, Closing> {
        ListenerCounters::add(&exchange.counters().publish_denied, 1);
        if publish.qos == 0 {
            return Ok(Taken::Done);
        }
        if self.version == Version::V311 {
            return Err(Closing::silent("it may not publish to this topic"));
        }
        if self.window.holds(publish.packet_id) {
            return Ok(Taken::Wait(Obstacle::Held));
        }
        self.count_open(exchange)?;
        let kind = if publish.qos == 1 { kind::PUBACK } else { kind::PUBREC };
        let (ack, _) = self.window.push(Answer::Refused { kind, packet_id: publish.packet_id, code }, 0);
        self.ticket(ack).fire();
        Ok(Taken::Done)
    }

    /// More than the receive maximum at once ends a v5 connection [MQTT-3.3.4-7].
    fn count_open(&mut self, exchange: &Exchange) -> Result<(), Closing> {
        self.open_count += 1;
        let max = u32::from(exchange.config().limits.receive_maximum.max(1));
        if self.version.is_v5() && self.open_count > max {
            return Err(Closing::with(reason::RECEIVE_MAXIMUM, "more messages at once than the receive maximum"));
        }
        Ok(())
    }

    fn publish_1(
        &mut self,
        publish: &Publish<'_>,
        cost: Cost,
        exchange: &mut Exchange,
        now: Duration,
    ) -> Result<Taken, Closing> {
        if self.window.holds(publish.packet_id) {
            if exchange.is_pending(self.session, publish.packet_id) {
                // The id of a QoS 2 message that is not answered.
                return Ok(Taken::Wait(Obstacle::Held));
            }
            ListenerCounters::add(&exchange.counters().qos1_repeated, 1);
            return Ok(Taken::Done);
        }
        self.count_open(exchange)?;
        Ok(self.accept(publish, Answer::PubAck(publish.packet_id), cost, exchange, now))
    }

    fn publish_2(
        &mut self,
        publish: &Publish<'_>,
        cost: Cost,
        exchange: &mut Exchange,
        now: Duration,
    ) -> Result<Taken, Closing> {
        let packet_id = publish.packet_id;
        let hash = identity::hash(publish.topic, publish.payload);
        let arrived = exchange.arrived(self.session, packet_id, &hash);
        if self.window.holds(packet_id) {
            // Its answer is on its way, or the id is one of QoS 1.
            let same = matches!(arrived, Arrived::Pending | Arrived::Stored);
            return Ok(if same { Taken::Done } else { Taken::Wait(Obstacle::Held) });
        }
        match arrived {
            Arrived::Wait => return Ok(Taken::Wait(Obstacle::Held)),
            Arrived::TooMany => {
                return Err(Closing::with(reason::QUOTA_EXCEEDED, "too many QoS 2 messages that are not released"));
            }
            Arrived::New => {
                self.count_open(exchange)?;
                exchange.begin(self.session, packet_id, hash);
                return Ok(self.accept(publish, Answer::PubRec(packet_id), cost, exchange, now));
            }
            Arrived::Pending | Arrived::Stored => self.count_open(exchange)?,
        }
        let bytes = self.pay(cost, exchange);
        let (ack, _) = self.window.push(Answer::PubRecAgain(packet_id), bytes);
        self.share.count += 1;
        self.waits.begin(now);
        let ticket = self.ticket(ack);
        match arrived {
            Arrived::Pending => exchange.answer_too(self.session, packet_id, ticket),
            _ => ticket.fire(),
        }
        Ok(Taken::Done)
    }

    /// Takes the room of a reading, or what has been reserved for it.
    fn pay(&mut self, cost: Cost, exchange: &mut Exchange) -> u64 {
        match std::mem::take(&mut self.reserved) {
            0 => {
                exchange.gate.take(&mut self.share, cost.0);
                cost.0
            }
            reserved => reserved,
        }
    }

    fn accept(
        &mut self,
        publish: &Publish<'_>,
        answer: Answer,
        cost: Cost,
        exchange: &mut Exchange,
        now: Duration,
    ) -> Taken {
        self.urge |= publish.qos > 0 && self.window.is_empty() && now.saturating_sub(self.answered_at) < PROMPT;
        let bytes = self.pay(cost, exchange);
        let (ack, _) = self.window.push(answer, bytes);
        if publish.qos > 0 {
            self.share.count += 1;
            self.waits.begin(now);
        }
        let ticket = self.ticket(ack);
        if let Answer::PubRec(packet_id) = answer {
            faults::point("q2-before-delivery");
            let change = exchange.qos2_row(self.session, packet_id);
            if exchange.accept(&self.client, publish, Some(ticket), change) {
                exchange.has_row(self.session, packet_id);
            }
        } else {
            exchange.accept(&self.client, publish, Some(ticket), None);
        }
        exchange.fan_out(publish, self.session, now);
        Taken::Done
    }
}
