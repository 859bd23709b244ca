//! From the first byte to CONNACK (3.1, 3.2).

use std::sync::Arc;
use std::time::Duration;

use super::{Closing, Flow, Machine, Stage};
use crate::intake::SourceEvent;
use crate::intake::listener::access::{Refusal, Rights};
use crate::intake::listener::counters::ListenerCounters;
use crate::intake::listener::exchange::{Exchange, Opening};
use crate::intake::listener::filter;
use crate::intake::listener::packet::{self, ConnAck, Connect, Head, NotConnect, Version, kind, reason};
use crate::intake::listener::session::Attached;
use crate::intake::listener::transport::Peer;

impl Machine {
    /// Nothing but a CONNECT may come first [MQTT-3.1.0-1], and it may not be large.
    pub(super) fn hello(&mut self, exchange: &Exchange, now: Duration) -> Result<Flow, Closing> {
        let Some(&first) = self.input.first() else { return Ok(Flow::Wait) };
        let refuse = |reason| {
            ListenerCounters::add(&exchange.counters().connect_refused, 1);
            Err(Closing::silent(reason))
        };
        if first >> 4 != kind::CONNECT {
            return refuse("the first packet is no CONNECT");
        }
        let head = match Head::peek(&self.input) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(Flow::Wait),
            Err(refused) => return refuse(refused.what),
        };
        if head.remaining > exchange.config().limits.connect_bytes as usize {
            return refuse("a CONNECT that is too large");
        }
        if self.input.len() < head.total() {
            return Ok(Flow::Wait);
        }
        let frame = self.input.split_to(head.total());
        match packet::decode_connect(head, &frame) {
            Ok(connect) => {
                self.version = connect.version;
                self.stage = Stage::Login;
                self.heard_at = now;
                Ok(Flow::Login(Box::new(connect)))
            }
            Err(not) => {
                if let NotConnect::Answered(version, refused) = not {
                    packet::write_refusal(version, refused.code, &mut self.out);
                }
                refuse(not.refused().what)
            }
        }
    }

    /// The client may not come in.
    pub(in crate::intake::listener) fn refused(&mut self, exchange: &mut Exchange, refusal: Refusal) -> Flow {
        let code = match refusal {
            Refusal::BadCredentials => reason::BAD_CREDENTIALS,
            Refusal::NotAuthorized => reason::NOT_AUTHORIZED,
            Refusal::Busy => reason::SERVER_BUSY,
        };
        self.turn_away(exchange, code, "not let in")
    }

    fn turn_away(&mut self, exchange: &mut Exchange, code: u8, why: &'static str) -> Flow {
        ListenerCounters::add(&exchange.counters().connect_refused, 1);
        packet::write_refusal(self.version, code, &mut self.out);
        self.close(exchange, Closing::silent(why))
    }

    /// The client may come in: opens its session. `random` names it if it has no name.
    pub(in crate::intake::listener) fn admitted(
        &mut self,
        exchange: &mut Exchange,
        mut connect: Box<Connect>,
        rights: Rights,
        random: u64,
        now: Duration,
    ) -> Flow {
        if self.stage != Stage::Login {
            return Flow::Close;
        }
        if exchange.is_behind() {
            return self.turn_away(exchange, reason::SERVER_BUSY, "the spool hangs");
        }
        if connect.client_id.is_empty() {
            if connect.version == Version::V311 && !connect.clean_start {
                // [MQTT-3.1.3-8] of 3.1.1
                return self.turn_away(exchange, reason::CLIENT_ID_INVALID, "a kept session without a client id");
            }
            connect.client_id = format!("forebay-{random:016x}");
            self.assigned = true;
        }
        let limits = exchange.config().limits.clone();
        if let Some(will) = &connect.will {
            if !filter::has_levels_at_most(&will.topic, limits.topic_levels) {
                return self.turn_away(exchange, reason::TOPIC_INVALID, "a will with too many levels");
            }
            if !rights.may_publish(&will.topic) {
                return self.turn_away(exchange, reason::NOT_AUTHORIZED, "a will that it may not publish");
            }
        }
        self.client = Arc::from(connect.client_id.as_str());
        self.rights = rights;
        self.packet_size_max = connect.packet_size_max as usize;
        self.send_window = usize::from(connect.receive_maximum.min(limits.send_maximum).max(1));
        self.settle_keep_alive(&connect, limits.keep_alive_max);
        let expiry_max = u32::try_from(limits.session_expiry.as_secs()).unwrap_or(u32::MAX);
        self.expiry_s = (connect.session_expiry_s > expiry_max).then_some(expiry_max);
        let attached = Attached { connection: self.connection, queue: self.queue() };
        self.session = exchange.open(&mut connect, &Arc::clone(&self.client), attached, now);
        self.stage = Stage::Opening;
        self.deadline = now + limits.connect_timeout;
        Flow::More
    }

    fn settle_keep_alive(&mut self, connect: &Connect, max: Duration) {
        let max_s = u16::try_from(max.as_secs()).unwrap_or(u16::MAX).max(1);
        let mut seconds = connect.keep_alive_s;
        // Only v5 clients can be told.
        if connect.version.is_v5() && seconds > max_s {
            seconds = max_s;
            self.keep_alive_s = Some(max_s);
        }
        self.silence_max = (seconds > 0).then(|| Duration::from_millis(u64::from(seconds) * 1500));
    }

    /// CONNACK, once everything that it says is durable.
    pub(super) fn opening(&mut self, exchange: &mut Exchange, now: Duration) -> Result<Flow, Closing> {
        let session_present = match exchange.opening(self.session, self.connection) {
            Opening::Waits => return Ok(Flow::Wait),
            Opening::Lost => return Err(Closing::silent("taken over")),
            Opening::Ready { session_present } => session_present,
        };
        let limits = &exchange.config().limits;
        let connack = ConnAck {
            session_present,
            session_expiry_s: self.expiry_s,
            receive_maximum: limits.receive_maximum.max(1),
            packet_size_max: limits.packet_size_max,
            topic_alias_maximum: limits.topic_aliases,
            assigned_client_id: self.assigned.then_some(&*self.client),
            keep_alive_s: self.keep_alive_s,
        };
        packet::write_connack(self.version, &connack, &mut self.out);
        self.wrote_at = now;
        self.heard_at = now;
        self.stage = Stage::Open;
        Ok(Flow::More)
    }

    /// What `forebay.events` learns of it, once, when CONNACK has been written.
    pub(in crate::intake::listener) fn presence(&self, exchange: &mut Exchange, peer: &Peer) -> Option<SourceEvent> {
        let session = exchange.session(self.session).filter(|_| self.stage == Stage::Open)?;
        if !session.is_attached_to(self.connection) || std::mem::replace(&mut session.announced, true) {
            return None;
        }
        Some(SourceEvent::DeviceConnected {
            client: self.client.to_string(),
            user: self.rights.user().map(str::to_owned).or_else(|| peer.certificate.clone()),
            address: peer.address,
            version: if self.version.is_v5() { "5" } else { "3.1.1" },
            session_present: session.present,
        })
    }
}
