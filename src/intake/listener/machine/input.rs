//! Cutting packets out of what has been read, and deciding how much may be read.

use std::time::Duration;

use bytes::{Buf, BytesMut};

use super::{Closing, Machine, Obstacle, Stage, UNWRITTEN_MAX};
use crate::intake::listener::counters::ListenerCounters;
use crate::intake::listener::exchange::Exchange;
use crate::intake::listener::filter;
use crate::intake::listener::gate::Asking;
use crate::intake::listener::outgoing::{Answered, Outgoing};
use crate::intake::listener::packet::{
    self, Acked, Disconnect, Head, Packet, Refused, Subscribe, Unsubscribe, kind, reason,
};

/// Read at once while there is room.
const READ: usize = 64 * 1024;
/// Read while there is none, or while the packet at the head waits: enough to find a PINGREQ.
const READ_AHEAD: usize = 8 * 1024;
/// An incomplete packet that is larger counts against the gate.
const SMALL: usize = 4 * 1024;
/// Packets taken in one turn, so that one connection does not hold up the others.
const PACKETS: usize = 256;
/// Fewer bytes at once are no sign of life until they complete a packet: what keeps a connection is packets
/// [MQTT-3.1.2-22], and large ones on slow lines, but not a byte now and then.
const TRICKLE: usize = 64;
/// Answers to SUBSCRIBE that may wait for the spool.
const REPLIES: usize = 16;

/// What has become of a packet.
pub(super) enum Taken {
    Done,
    /// It stays where it is.
    Wait(Obstacle),
}

impl Machine {
    /// Bytes that may be read now; 0: the socket rests.
    pub(in crate::intake::listener) fn room(&self, exchange: &Exchange) -> usize {
        if self.stage == Stage::Closed || self.out.len() >= UNWRITTEN_MAX || self.stopping || self.deaf {
            return 0;
        }
        if self.stage == Stage::Hello {
            return (exchange.config().limits.connect_bytes as usize + 5).saturating_sub(self.input.len());
        }
        let ample = exchange.gate.is_roomy() && exchange.input_bytes < exchange.config().unacked_bytes_max / 4;
        let bound = if self.obstacle.is_none() && ample { READ } else { READ_AHEAD };
        bound.max(self.wanted()).saturating_sub(self.input.len())
    }

    /// Bytes of the packet at the head, once there is room for all of it.
    fn wanted(&self) -> usize {
        if self.obstacle.is_none() { self.wanted } else { 0 }
    }

    /// Bytes have come.
    pub(in crate::intake::listener) fn received(&mut self, bytes: &[u8], now: Duration) {
        if bytes.len() >= TRICKLE {
            self.heard_at = now;
        }
        if self.input.is_empty() {
            self.input = BytesMut::from(bytes);
        } else {
            self.input.reserve(bytes.len().max(self.wanted().saturating_sub(self.input.len())));
            self.input.extend_from_slice(bytes);
        }
    }

    /// The peer has closed. Whether what it had sent is still to be taken: it waits for nothing but its rate.
    pub(in crate::intake::listener) fn hung_up(&mut self) -> bool {
        self.deaf = self.stage == Stage::Open && matches!(self.obstacle, Some(Obstacle::Rate(_)));
        self.deaf
    }

    /// Whether the peer has closed and nothing more can be taken of what it had sent.
    pub(in crate::intake::listener) fn is_done(&self) -> bool {
        self.deaf && !matches!(self.obstacle, Some(Obstacle::Rate(_)))
    }

    /// What waits behind a packet for which there is no room when the peer has gone: readings of QoS 0 are counted as
    /// dropped, and a DISCONNECT holds. Others come again.
    pub(super) fn leave_behind(&mut self, exchange: &mut Exchange) {
        let attached = exchange.session(self.session).is_some_and(|session| session.is_attached_to(self.connection));
        if self.stage != Stage::Open || !attached {
            return;
        }
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[self.skip.min(input.len())..];
        while let Ok(Some(head)) = Head::peek(rest) {
            let Some((frame, behind)) = rest.split_at_checked(head.total()) else { return };
            match packet::decode(self.version, head, frame) {
                Ok(Packet::Publish(publish)) if publish.qos == 0 => {
                    ListenerCounters::add(&exchange.counters().qos0_dropped, 1);
                }
                Ok(Packet::Disconnect(disconnect)) => {
                    let closing = self.disconnected(disconnect, exchange);
                    self.close(exchange, closing);
                    return;
                }
                Ok(_) => {}
                Err(_) => return,
            }
            rest = behind;
        }
    }

    pub(super) fn count_input(&mut self, exchange: &mut Exchange) {
        exchange.input_bytes -= self.input_counted as u64;
        self.input_counted = self.input.len();
        exchange.input_bytes += self.input_counted as u64;
    }

    /// Takes packets until none is whole, one has to wait, or it is enough for now. Whether it was enough.
    pub(super) fn take_packets(&mut self, exchange: &mut Exchange, now: Duration) -> Result<bool, Closing> {
        let mut input = std::mem::take(&mut self.input);
        let before = std::mem::take(&mut self.obstacle);
        self.wanted = 0;
        let mut at = 0;
        let result = self.take_from(&input, &mut at, exchange, now);
        self.scanned = self.scanned.saturating_sub(at);
        if at < input.len() {
            input.advance(at);
            self.input = input;
        }
        if let Some(obstacle) = self.obstacle {
            self.answer_pings(now);
            self.count_obstacle(exchange, before, obstacle);
        }
        result
    }

    fn take_from(
        &mut self,
        input: &[u8],
        at: &mut usize,
        exchange: &mut Exchange,
        now: Duration,
    ) -> Result<bool, Closing> {
        for _ in 0..PACKETS {
            if self.skip > 0 {
                let skipped = self.skip.min(input.len() - *at);
                self.skip -= skipped;
                *at += skipped;
            }
            if self.out.len() >= UNWRITTEN_MAX {
                self.obstacle = Some(Obstacle::Unwritten);
                return Ok(false);
            }
            let rest = &input[*at..];
            let Some(head) = Head::peek(rest)? else { return Ok(false) };
            if head.total() > exchange.config().limits.packet_size_max as usize {
                return Err(Closing::with(reason::TOO_LARGE, "a packet that is too large"));
            }
            head.check()?;
            let Some(frame) = rest.get(..head.total()) else {
                self.incomplete(head, exchange);
                return Ok(false);
            };
            let answered = *at < self.scanned;
            match self.take(head, frame, answered, exchange, now)? {
                Taken::Done => {
                    *at += head.total();
                    self.heard_at = now;
                }
                Taken::Wait(obstacle) => {
                    self.obstacle = Some(obstacle);
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// A large packet needs its room before it is read, not only when it is complete.
    fn incomplete(&mut self, head: Head, exchange: &mut Exchange) {
        self.wanted = head.total();
        if head.total() <= SMALL || self.reserved > 0 {
            return;
        }
        let cost = exchange.gate.cost(head.total());
        let best_effort = head.kind() == kind::PUBLISH && head.qos() == 0;
        let count_max = if best_effort { None } else { Some(u32::MAX) };
        let asking = Asking { connection: self.connection, queue: &self.queue, count_max };
        if exchange.gate.admits(&mut self.share, asking, cost) {
            exchange.gate.take(&mut self.share, cost);
            self.reserved = cost;
        } else if best_effort {
            ListenerCounters::add(&exchange.counters().qos0_dropped, 1);
            self.skip = head.total();
            self.wanted = 0;
            self.scanned = 0;
            self.queue.wake();
        } else {
            self.obstacle = Some(Obstacle::Gate);
        }
    }

    /// Answers the PINGREQs behind a packet that waits: the client must not think that we are gone.
    fn answer_pings(&mut self, now: Duration) {
        while let Ok(Some(head)) = Head::peek(&self.input[self.scanned..]) {
            if self.input.len() - self.scanned < head.total() {
                return;
            }
            if head.kind() == kind::PINGREQ && head.remaining == 0 {
                packet::write_pingresp(&mut self.out);
            }
            self.scanned += head.total();
            self.heard_at = now;
        }
    }

    fn count_obstacle(&mut self, exchange: &Exchange, before: Option<Obstacle>, now: Obstacle) {
        let counters = exchange.counters();
        match (before, now) {
            (Some(Obstacle::Gate), Obstacle::Gate) | (Some(Obstacle::Rate(_)), Obstacle::Rate(_)) => {}
            (_, Obstacle::Gate) => ListenerCounters::add(&counters.gate_closed, 1),
            (_, Obstacle::Rate(_)) => ListenerCounters::add(&counters.slowed, 1),
            _ => {}
        }
        // No reading will come to share the commit.
        self.urge |= now == Obstacle::Gate;
    }

    fn take(
        &mut self,
        head: Head,
        frame: &[u8],
        answered: bool,
        exchange: &mut Exchange,
        now: Duration,
    ) -> Result<Taken, Closing> {
        let packet = packet::decode(self.version, head, frame)?;
        if let Packet::Publish(publish) = packet {
            return self.publish(publish, head.total(), exchange, now);
        }
        if matches!(packet, Packet::Subscribe(_) | Packet::Unsubscribe(_)) && self.replies.len() >= REPLIES {
            return Ok(Taken::Wait(Obstacle::Held));
        }
        if self.reserved > 0 {
            exchange.gate.free(&mut self.share, std::mem::take(&mut self.reserved));
        }
        match packet {
            Packet::Publish(_) => {}
            Packet::PubAck(ack) => {
                let known = self.answer_to(exchange, |outgoing| outgoing.puback(ack.packet_id));
                self.count_unknown(exchange, known);
            }
            Packet::PubRec(ack) => self.pubrec(ack, exchange),
            Packet::PubRel(ack) => self.pubrel(ack.packet_id, exchange)?,
            Packet::PubComp(ack) => {
                let known = self.answer_to(exchange, |outgoing| outgoing.pubcomp(ack.packet_id));
                self.count_unknown(exchange, known);
            }
            Packet::Subscribe(subscribe) => self.subscribe(&subscribe, exchange, now),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe, exchange),
            Packet::PingReq if answered => {}
            Packet::PingReq => packet::write_pingresp(&mut self.out),
            Packet::Disconnect(disconnect) => return Err(self.disconnected(disconnect, exchange)),
        }
        Ok(Taken::Done)
    }

    fn answer_to(&self, exchange: &mut Exchange, apply: impl FnOnce(&mut Outgoing) -> Answered) -> Answered {
        exchange.answered(self.session, apply).unwrap_or(Answered::Unknown)
    }

    fn count_unknown(&self, exchange: &Exchange, answered: Answered) {
        if answered == Answered::Unknown {
            ListenerCounters::add(&exchange.counters().violations, 1);
        }
    }

    fn pubrec(&mut self, ack: Acked, exchange: &mut Exchange) {
        let answered = self.answer_to(exchange, |outgoing| outgoing.pubrec(ack.packet_id, ack.code >= 0x80));
        self.count_unknown(exchange, answered);
        let code = match answered {
            Answered::Known => return,
            Answered::Release => reason::SUCCESS,
            Answered::Unknown if ack.code >= 0x80 => return,
            Answered::Unknown => reason::ID_NOT_FOUND,
        };
        packet::write_ack(self.version, kind::PUBREL, ack.packet_id, code, &mut self.out);
    }

    fn subscribe(&mut self, subscribe: &Subscribe<'_>, exchange: &mut Exchange, now: Duration) {
        let mut codes = Vec::with_capacity(subscribe.filters.len());
        let levels_max = exchange.config().limits.topic_levels;
        for wish in &subscribe.filters {
            codes.push(if filter::parse(wish.filter, levels_max).is_err() {
                // Before the rights: no rule could allow it.
                reason::FILTER_INVALID
            } else if self.rights.may_subscribe(wish.filter) {
                exchange.subscribe(self.session, wish, subscribe.id, now)
            } else {
                ListenerCounters::add(&exchange.counters().subscriptions_denied, 1);
                reason::NOT_AUTHORIZED
            });
        }
        let mut reply = BytesMut::new();
        packet::write_suback(self.version, subscribe.packet_id, &codes, &mut reply);
        let write = exchange.subscribed(self.session);
        self.replies.push_back((write, reply.freeze()));
        self.send_replies(exchange);
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>, exchange: &mut Exchange) {
        let mut codes = Vec::with_capacity(unsubscribe.filters.len());
        for filter in &unsubscribe.filters {
            codes.push(exchange.unsubscribe(self.session, filter));
        }
        let mut reply = BytesMut::new();
        packet::write_unsuback(self.version, unsubscribe.packet_id, &codes, &mut reply);
        let write = exchange.subscribed(self.session);
        self.replies.push_back((write, reply.freeze()));
        self.send_replies(exchange);
    }

    fn disconnected(&mut self, disconnect: Disconnect, exchange: &mut Exchange) -> Closing {
        if let Some(seconds) = disconnect.session_expiry_s {
            let ends = exchange.session(self.session).is_some_and(|session| session.ends_with_connection());
            if ends && seconds > 0 {
                // 5, 3.14.2.2.2
                return Refused::protocol("a session expiry where CONNECT had none").into();
            }
            exchange.set_expiry(self.session, seconds);
        }
        // 5, [MQTT-3.14.4-3]
        let forget_will = disconnect.code == reason::SUCCESS;
        Closing { code: None, reason: "DISCONNECT", clean: true, forget_will }
    }
}
