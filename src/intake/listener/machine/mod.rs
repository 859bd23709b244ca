//! One connection of a device, without its I/O: bytes and time in, bytes and decisions out.
//!
//! `input.rs` cuts packets and decides when the socket rests, `publish.rs` takes readings, `answer.rs` sends what has
//! become durable and what waits for the client, `open.rs` brings a session about. What other connections may see is in
//! the [`Exchange`], which every call gets passed in.

mod answer;
mod input;
mod open;
mod publish;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::access::Rights;
use super::counters::ListenerCounters;
use super::exchange::{Ended, Exchange};
use super::gate::Share;
use super::packet::{self, Connect, Refused, Version, reason};
use crate::intake::rate::Bucket;
use crate::intake::waits::Waits;
use crate::intake::window::{self, Window};
use crate::intake::{Ack, AckQueue, AckTicket};

/// With this much unwritten nothing more is taken: a client that asks without reading gets no memory of ours.
const UNWRITTEN_MAX: usize = 64 * 1024;
/// A client that takes nothing of what is written to it for this long is gone.
const STALL: Duration = Duration::from_secs(60);
/// [`Ack::generation`] of readings and of deletions.
const READINGS: u64 = 0;
const RELEASES: u64 = 1;

/// What the connection's task has to do next.
#[derive(Debug)]
pub(super) enum Flow {
    /// Wait for something to happen.
    Wait,
    /// Let others have their turn, then go on.
    More,
    /// Ask whether this client may come in: [`Machine::admitted`] or [`Machine::refused`].
    Login(Box<Connect>),
    /// Write what is to be written, and close.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No CONNECT yet.
    Hello,
    Login,
    /// CONNACK waits for a write.
    Opening,
    Open,
    Closed,
}

/// What a client gets once its reading is durable (step 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// QoS 0.
    Nothing,
    PubAck(u16),
    PubRec(u16),
    /// For the same message once more.
    PubRecAgain(u16),
    /// v5: it was not taken.
    Refused {
        kind: u8,
        packet_id: u16,
        code: u8,
    },
}

impl window::Answer for Answer {
    const NOTHING: Self = Answer::Nothing;

    fn packet_id(&self) -> Option<u16> {
        match *self {
            Answer::Nothing => None,
            Answer::PubAck(id) | Answer::PubRec(id) | Answer::PubRecAgain(id) => Some(id),
            Answer::Refused { packet_id, .. } => Some(packet_id),
        }
    }
}

/// Why the packet at the head of the buffer waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Obstacle {
    Gate,
    /// Until this time.
    Rate(Duration),
    /// For an ack that is on its way: its packet id is in use.
    Held,
    /// The client does not read its answers.
    Unwritten,
}

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Closing {
    /// v5 reason for a DISCONNECT; `None`: none is sent.
    code: Option<u8>,
    reason: &'static str,
    /// By the client's DISCONNECT.
    clean: bool,
    forget_will: bool,
}

impl Closing {
    fn with(code: u8, reason: &'static str) -> Self {
        Closing { code: Some(code), reason, clean: false, forget_will: false }
    }

    fn silent(reason: &'static str) -> Self {
        Closing { code: None, reason, clean: false, forget_will: false }
    }
}

impl From<Refused> for Closing {
    fn from(refused: Refused) -> Self {
        Closing::with(refused.code, refused.what)
    }
}

/// v5 topic aliases that the client has set (3.3.2.3.4). They end with the connection.
type Aliases = std::collections::BTreeMap<u16, Arc<str>>;

pub(super) struct Machine {
    connection: u64,
    queue: Arc<AckQueue>,
    stage: Stage,
    closing: Option<Closing>,
    stopping: bool,
    version: Version,
    client: Arc<str>,
    assigned: bool,
    session: u64,
    rights: Rights,
    /// The client's own limits.
    packet_size_max: usize,
    send_window: usize,
    /// What CONNACK says about the expiry, if it is not what was asked for.
    expiry_s: Option<u32>,
    keep_alive_s: Option<u16>,

    window: Window<Answer>,
    /// Since when those wait who get a positive answer.
    waits: Waits,
    share: Share,
    /// Messages of QoS 1 and 2 whose last answer has not left, for the receive maximum of v5.
    open_count: u32,
    /// Deletions asked for, by number, with their packet ids.
    releases: VecDeque<(u64, Vec<u16>)>,
    last_release: u64,
    /// Of the present turn.
    releasing: Vec<u16>,
    /// PUBCOMPs that wait for a deletion of an earlier connection.
    owed: Vec<u16>,
    /// SUBACKs and UNSUBACKs that wait for the session's row.
    replies: VecDeque<(u64, Bytes)>,
    aliases: Aliases,
    messages: Bucket,
    bytes_debt: Bucket,

    input: BytesMut,
    /// Bytes of `input` as the exchange counts them.
    input_counted: usize,
    /// PINGREQs in this much of `input` have been answered.
    scanned: usize,
    /// Of an unwanted packet still to come.
    skip: usize,
    /// Whole length of the packet at the head of `input`, if it is not complete.
    wanted: usize,
    /// What the gate counts for it.
    reserved: u64,
    obstacle: Option<Obstacle>,
    resting: bool,
    /// The peer has closed; what it had sent is still being taken.
    deaf: bool,

    out: BytesMut,
    wrote_at: Duration,
    /// One and a half of the keep-alive [MQTT-3.1.2-22].
    silence_max: Option<Duration>,
    heard_at: Duration,
    /// By when CONNECT, and then the session, must be complete.
    deadline: Duration,
    answered_at: Duration,
    urge: bool,
}

impl Machine {
    /// `deadline`: by when CONNECT must be complete. Times are since the listener's start.
    pub(super) fn new(connection: u64, exchange: &Exchange, deadline: Duration, now: Duration) -> Self {
        let limits = &exchange.config().limits;
        Machine {
            connection,
            queue: Arc::default(),
            stage: Stage::Hello,
            closing: None,
            stopping: false,
            version: Version::V311,
            client: Arc::from(""),
            assigned: false,
            session: 0,
            rights: Rights::everything(),
            packet_size_max: usize::MAX,
            send_window: 1,
            expiry_s: None,
            keep_alive_s: None,
            window: Window::new(READINGS),
            waits: Waits::default(),
            share: Share::default(),
            open_count: 0,
            releases: VecDeque::new(),
            last_release: 0,
            releasing: Vec::new(),
            owed: Vec::new(),
            replies: VecDeque::new(),
            aliases: Aliases::new(),
            messages: Bucket::new(limits.message_rate),
            // It counts in time, so its own rate means nothing.
            bytes_debt: Bucket::new(1_000),
            input: BytesMut::new(),
            input_counted: 0,
            scanned: 0,
            skip: 0,
            wanted: 0,
            reserved: 0,
            obstacle: None,
            resting: false,
            deaf: false,
            out: BytesMut::new(),
            wrote_at: now,
            silence_max: None,
            heard_at: now,
            deadline,
            answered_at: Duration::ZERO,
            urge: false,
        }
    }

    /// Fired acks come here; it is also woken for everything else that concerns this connection.
    pub(super) fn queue(&self) -> Arc<AckQueue> {
        Arc::clone(&self.queue)
    }

    /// Everything that can be done without waiting, but a bounded part of it.
    pub(super) fn turn(&mut self, exchange: &mut Exchange, now: Duration) -> Flow {
        self.take_acks(exchange, now);
        let flow = match self.stage {
            Stage::Hello => self.hello(exchange, now),
            Stage::Opening => self.opening(exchange, now),
            Stage::Open => self.serve(exchange, now),
            Stage::Login => Ok(Flow::Wait),
            Stage::Closed => Ok(Flow::Close),
        };
        // Also after an error: what has a slot must reach the hub, else its ack never comes.
        exchange.hand_over();
        self.ask_for_releases(exchange);
        if std::mem::take(&mut self.urge) {
            exchange.deliver().urge();
        }
        let flow = flow.and_then(|flow| self.check_time(exchange, now).map(|()| flow));
        self.count_input(exchange);
        flow.unwrap_or_else(|closing| self.close(exchange, closing))
    }

    fn serve(&mut self, exchange: &mut Exchange, now: Duration) -> Result<Flow, Closing> {
        if exchange.session(self.session).is_none_or(|session| !session.is_attached_to(self.connection)) {
            return Err(Closing::with(reason::TAKEN_OVER, "taken over"));
        }
        self.send_replies(exchange);
        let more = if self.stopping { false } else { self.take_packets(exchange, now)? };
        if !self.stopping {
            self.pump(exchange, now);
        }
        if self.stopping && self.window.is_empty() && self.releases.is_empty() && self.out.is_empty() {
            return Err(Closing::with(reason::SHUTTING_DOWN, "the gateway stops"));
        }
        Ok(if more { Flow::More } else { Flow::Wait })
    }

    fn check_time(&mut self, exchange: &Exchange, now: Duration) -> Result<(), Closing> {
        let counters = exchange.counters();
        match self.stage {
            Stage::Hello if now >= self.deadline => {
                ListenerCounters::add(&counters.connect_timeouts, 1);
                Err(Closing::silent("no CONNECT in time"))
            }
            Stage::Opening if now >= self.deadline => {
                packet::write_refusal(self.version, reason::SERVER_UNAVAILABLE, &mut self.out);
                Err(Closing::silent("the session could not be stored in time"))
            }
            Stage::Open => {
                self.rest(exchange, now);
                if !self.out.is_empty() && now >= self.wrote_at + STALL {
                    ListenerCounters::add(&counters.stalled, 1);
                    return Err(Closing::silent("it does not read"));
                }
                if self.silence_due().is_some_and(|at| now >= at) {
                    ListenerCounters::add(&counters.keep_alive_timeouts, 1);
                    return Err(Closing::with(reason::KEEP_ALIVE_TIMEOUT, "keep-alive"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// While the socket rests nobody can be heard: the keep-alive rests too.
    fn rest(&mut self, exchange: &Exchange, now: Duration) {
        let resting = !self.deaf && self.room(exchange) == 0;
        if resting && !self.resting {
            ListenerCounters::add(&exchange.counters().rested, 1);
        }
        if self.resting && !resting {
            self.heard_at = now;
        }
        self.resting = resting;
    }

    fn silence_due(&self) -> Option<Duration> {
        self.silence_max.filter(|_| !self.resting).map(|max| self.heard_at + max)
    }

    /// When something is to be done even if nothing happens.
    pub(super) fn due(&self) -> Option<Duration> {
        let connect = matches!(self.stage, Stage::Hello | Stage::Opening).then_some(self.deadline);
        let stall = (!self.out.is_empty()).then(|| self.wrote_at + STALL);
        let rate = match self.obstacle {
            Some(Obstacle::Rate(until)) => Some(until),
            _ => None,
        };
        let silence = if self.stage == Stage::Open { self.silence_due() } else { None };
        [connect, stall, rate, silence].into_iter().flatten().min()
    }

    /// Takes no more packets; closes once everything is answered.
    pub(super) fn stop(&mut self) {
        self.stopping = true;
        // Nothing waits for a time any more.
        self.obstacle = None;
        if self.stage != Stage::Open {
            self.stage = Stage::Closed;
        }
    }

    /// The time for a graceful stop has run out.
    pub(super) fn stop_now(&mut self, exchange: &mut Exchange) {
        self.close(exchange, Closing::with(reason::SHUTTING_DOWN, "the gateway stops"));
    }

    /// The peer has closed, or the connection has broken.
    pub(super) fn broken(&mut self, exchange: &mut Exchange, reason: &'static str) {
        self.out.clear();
        self.leave_behind(exchange);
        self.close(exchange, Closing::silent(reason));
    }

    fn close(&mut self, exchange: &mut Exchange, closing: Closing) -> Flow {
        if self.closing.is_none() {
            let counters = exchange.counters();
            match closing.code {
                Some(reason::TOO_LARGE) => ListenerCounters::add(&counters.too_large, 1),
                Some(reason::RECEIVE_MAXIMUM) => ListenerCounters::add(&counters.receive_maximum_exceeded, 1),
                Some(reason::MALFORMED..=reason::PROTOCOL_ERROR | reason::ALIAS_INVALID | reason::TOPIC_INVALID) => {
                    ListenerCounters::add(&counters.malformed, 1);
                }
                _ => {}
            }
            if self.stage == Stage::Open
                && let Some(code) = closing.code
            {
                packet::write_disconnect(self.version, code, &mut self.out);
            }
            self.closing = Some(closing);
        }
        self.stage = Stage::Closed;
        Flow::Close
    }

    /// The connection is over, but for [`Machine::out`]: gives everything back but what is on its way through the hub.
    pub(super) fn end(&mut self, exchange: &mut Exchange, now: Duration) {
        self.stage = Stage::Closed;
        exchange.gate.forget(self.connection);
        if self.reserved > 0 {
            exchange.gate.free(&mut self.share, std::mem::take(&mut self.reserved));
        }
        self.waits.clear();
        self.input = BytesMut::new();
        self.count_input(exchange);
        if self.session == 0 {
            return;
        }
        let (reason, clean, forget_will) =
            self.closing.as_ref().map_or(("closed", false, false), |c| (c.reason, c.clean, c.forget_will));
        let ended = Ended { forget_will, stopping: self.stopping, clean, reason };
        exchange.detach(self.session, self.connection, ended, now);
    }

    /// Nothing of it is on its way through the hub any more.
    pub(super) fn is_settled(&self) -> bool {
        self.window.is_empty() && self.releases.is_empty()
    }

    /// Takes acks after the end.
    pub(super) fn settle(&mut self, exchange: &mut Exchange, now: Duration) {
        self.take_acks(exchange, now);
        self.out.clear();
    }

    /// What is to be written.
    pub(super) fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Something of it has been written.
    pub(super) fn wrote(&mut self, now: Duration) {
        self.wrote_at = now;
        if self.out.is_empty() {
            self.out = BytesMut::new();
        }
    }

    /// A ticket that answers the next reading.
    fn ticket(&self, ack: Ack) -> AckTicket {
        AckTicket { queue: Arc::clone(&self.queue), ack }
    }

    /// For logs.
    pub(super) fn client(&self) -> &str {
        &self.client
    }

    pub(super) fn why_closed(&self) -> &'static str {
        self.closing.as_ref().map_or("closed", |closing| closing.reason)
    }
}
