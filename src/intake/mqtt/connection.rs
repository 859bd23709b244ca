//! One connection, from CONNACK to its end.
//!
//! The loop waits for four things: room to write, fired acks, bytes to read, a time. Everything between two waits is
//! synchronous. All pending answers leave in one write. Reading stops while the reading at the head of the buffer may
//! not come in; the rest of the buffer then waits with it, so that the gate's bound is exact.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::backoff::Backoff;
use super::codec::{self, ConnAck, Head, Inbound, Malformed, Publish, kind};
use super::liveness::{Liveness, Verdict};
use super::oversize::Skim;
use super::receive::{Obstacle, Receiver};
use super::topics::{Request, Subscriber};
use super::{MqttError, MqttSession, SourceCounters};
use crate::faults;
use crate::intake::SourceEvent;

/// Read at once. A hundred small readings share one delivery, and a stream of large ones does not need many turns.
const READ_SIZE: usize = 64 * 1024;
/// With this much unwritten nothing more is read: a broker that asks without reading answers gets no memory of ours.
const UNWRITTEN_MAX: usize = 256 * 1024;
/// Time for DISCONNECT and the peer's close even when the stop timeout has run out.
const GOODBYE_MIN: Duration = Duration::from_secs(1);
/// How long and how far to look for the reason of a connection that broke.
const LAST_WORDS: Duration = Duration::from_millis(250);
const LAST_WORDS_BYTES: usize = 4 << 20;
/// A timer far enough away to mean never.
const NEVER: Duration = Duration::from_secs(86_400);

/// An established connection.
pub(super) struct Connection<'a, S> {
    session: &'a MqttSession,
    receiver: &'a mut Receiver,
    subscriber: &'a mut Subscriber,
    rd: ReadHalf<S>,
    wr: WriteHalf<S>,
    input: BytesMut,
    out: BytesMut,
    written: u64,
    /// Something has not been written or flushed yet.
    unflushed: bool,
    skim: Option<Skim>,
    obstacle: Option<Obstacle>,
    liveness: Liveness,
    /// The session's start: the zero of the rate limit's time.
    zero: Instant,
    retry: Backoff,
    retry_at: Option<Instant>,
    subscribed: bool,
    stop_at: Option<Instant>,
}

/// What a connection is made of.
pub(super) struct Parts<'a, S> {
    pub(super) session: &'a MqttSession,
    pub(super) receiver: &'a mut Receiver,
    pub(super) subscriber: &'a mut Subscriber,
    pub(super) stream: S,
    /// What has been read behind the CONNACK.
    pub(super) input: BytesMut,
    pub(super) connack: ConnAck,
    pub(super) zero: Instant,
}

impl<'a, S: AsyncRead + AsyncWrite> Connection<'a, S> {
    pub(super) fn new(parts: Parts<'a, S>) -> Self {
        let Parts { session, receiver, subscriber, stream, input, connack, zero } = parts;
        let config = &session.config;
        let keep_alive = connack.keep_alive_s.map_or(config.keep_alive, |s| Duration::from_secs(u64::from(s)));
        let (rd, wr) = tokio::io::split(stream);
        receiver.next_generation();
        let requests = subscriber.connected(connack.session_present);
        let mut connection = Connection {
            session,
            receiver,
            subscriber,
            rd,
            wr,
            input,
            out: BytesMut::new(),
            written: 0,
            unflushed: false,
            skim: None,
            obstacle: None,
            liveness: Liveness::new(keep_alive, config.connect_timeout, Instant::now()),
            zero,
            retry: Backoff::new(config.backoff_min, config.backoff_max),
            retry_at: None,
            subscribed: false,
            stop_at: None,
        };
        connection.ask(&requests);
        connection
    }

    /// Runs until the connection fails, or until a stop has been asked for and everything is answered.
    ///
    /// # Errors
    /// Why the connection ended; never for a stop.
    pub(super) async fn run(mut self, stop: &mut watch::Receiver<bool>) -> Result<(), MqttError> {
        match self.serve(stop).await {
            Ok(()) => {
                self.goodbye().await;
                Ok(())
            }
            // Found by writing, while the broker's reason stands behind readings that could not come in.
            Err(MqttError::Io(e)) => match timeout_at(Instant::now() + LAST_WORDS, self.last_words()).await {
                Ok(Some(code)) => Err(MqttError::Disconnected { code }),
                _ => Err(MqttError::Io(e)),
            },
            Err(error) => Err(error),
        }
    }

    async fn serve(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), MqttError> {
        let timer = sleep_until(Instant::now() + NEVER);
        tokio::pin!(timer);
        loop {
            faults::hang("1-connection-hangs").await;
            let now = Instant::now();
            self.turn(now)?;
            if self.is_done(now) {
                return Ok(());
            }
            let due = self.due(now);
            if due < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(due);
            }
            tokio::select! {
                sent = send(&mut self.wr, &mut self.out, &mut self.written), if self.unflushed => {
                    sent?;
                    self.unflushed = false;
                    self.liveness.wrote_all(Instant::now());
                }
                () = self.receiver.wait_for_acks(), if !self.receiver.has_fired() => {}
                read = self.rd.read_buf(&mut self.input), if self.is_reading() => {
                    if read? == 0 {
                        return Err(MqttError::Closed);
                    }
                    self.liveness.heard(Instant::now());
                }
                () = &mut timer => {}
                () = std::future::ready(()), if self.receiver.has_fired() => {}
                () = asked_to_stop(stop), if self.stop_at.is_none() => {
                    self.stop_at = Some(Instant::now() + self.session.stop_timeout);
                }
            }
        }
    }

    /// Everything that can be done without waiting.
    fn turn(&mut self, now: Instant) -> Result<(), MqttError> {
        let counters = &self.session.counters;
        self.receiver.answer(&mut self.out, now - self.zero, counters);
        if self.stop_at.is_none() {
            let taken = self.take_packets(now);
            // Also after an error: what has been entered into the ledger must reach the hub, else its ack never comes.
            self.receiver.hand_over(self.session);
            taken?;
        }
        self.receiver.show(counters);
        self.retry_subscriptions(now)?;
        self.liveness.rest(!self.is_reading(), now);
        match self.liveness.check(self.written, now) {
            Verdict::Fine => {}
            Verdict::Ping => codec::write_pingreq(&mut self.out),
            Verdict::Silent => return Err(MqttError::Silent),
            Verdict::Stalled => return Err(MqttError::Stalled),
        }
        if !self.out.is_empty() {
            self.unflushed = true;
            self.liveness.wants_to_write(self.written, now);
        }
        Ok(())
    }

    /// Step 1, for all packets in the buffer that may come in.
    fn take_packets(&mut self, now: Instant) -> Result<(), MqttError> {
        self.obstacle = None;
        loop {
            if self.skim.is_some() {
                if !self.skim_on(now)? {
                    break;
                }
                continue;
            }
            let Some(head) = Head::peek(&self.input)? else { break };
            let whole = self.input.len() >= head.total();
            let oversize = head.total() > self.session.config.packet_size_max as usize;
            if !whole && !oversize {
                break;
            }
            if head.kind() == kind::PUBLISH {
                // An oversize packet leaves a few kilobytes in memory: no reason to count what streams past.
                let bytes = head.total().min(self.session.config.packet_size_max as usize);
                self.obstacle = self.receiver.obstacle(bytes, now - self.zero, &self.session.counters);
                if self.obstacle.is_some() {
                    break;
                }
            }
            if oversize {
                self.skim_begin(head)?;
                continue;
            }
            let frame = self.input.split_to(head.total()).freeze();
            let packet = codec::decode(self.session.config.version, head, frame)?;
            self.apply(packet, head.total(), now)?;
        }
        self.make_room();
        Ok(())
    }

    /// Room for the rest of the packet at the head of the buffer, or for a read of the usual size.
    fn make_room(&mut self) {
        let missing = match (&self.skim, Head::peek(&self.input)) {
            (None, Ok(Some(head))) => head.total().saturating_sub(self.input.len()),
            _ => 0,
        };
        // An oversize packet waits for the gate with a buffer of the usual size.
        let missing = if missing > self.session.config.packet_size_max as usize { 0 } else { missing };
        if self.obstacle.is_none() {
            self.input.reserve(missing.max(READ_SIZE));
        }
    }

    fn skim_begin(&mut self, head: Head) -> Result<(), MqttError> {
        if head.kind() != kind::PUBLISH {
            return Err(Malformed(format!("a packet of type {} with {} bytes", head.kind(), head.total())).into());
        }
        SourceCounters::add(&self.session.counters.oversize, 1);
        self.skim = Some(Skim::new(head));
        Ok(())
    }

    /// `false`: more of the oversize packet is to come.
    fn skim_on(&mut self, now: Instant) -> Result<bool, MqttError> {
        let Some(skim) = self.skim.as_mut() else { return Ok(true) };
        if !skim.feed(&mut self.input) {
            return Ok(false);
        }
        if let Some(skim) = self.skim.take() {
            let bytes = skim.total() as u64;
            let config = &self.session.config;
            let publish = skim.finish(config.version, config.packet_size_max)?;
            self.session.tell(SourceEvent::Oversize { topic: publish.topic.clone(), bytes });
            let kept = publish.topic.len() + publish.payload.len();
            self.receive(publish, kept, now);
        }
        Ok(true)
    }

    fn receive(&mut self, publish: Publish, bytes: usize, now: Instant) {
        self.receiver.take(publish, bytes, now - self.zero, self.session);
    }

    fn apply(&mut self, packet: Inbound, bytes: usize, now: Instant) -> Result<(), MqttError> {
        match packet {
            Inbound::Publish(publish) => self.receive(publish, bytes, now),
            Inbound::PingResp => {}
            Inbound::SubAck { pkid, results } => {
                let refusals = self.subscriber.suback(pkid, results).map_err(|_| unasked("SUBACK", pkid))?;
                for refusal in refusals {
                    self.session
                        .tell(SourceEvent::SubscriptionRefused { filter: refusal.filter, reason: refusal.reason });
                }
                self.asked_and_answered(now);
            }
            Inbound::UnsubAck { pkid } => {
                self.subscriber.unsuback(pkid).map_err(|_| unasked("UNSUBACK", pkid))?;
                self.asked_and_answered(now);
            }
            // Also for an id we do not know: the broker may have sent PUBREL on an earlier connection, and without an
            // answer it would do so for ever.
            Inbound::PubRel { pkid } => codec::write_pubcomp(pkid, &mut self.out),
            Inbound::Disconnect { code } => return Err(MqttError::Disconnected { code }),
            Inbound::ConnAck(_) => return Err(Malformed("a second CONNACK".to_owned()).into()),
        }
        Ok(())
    }

    fn asked_and_answered(&mut self, now: Instant) {
        if self.subscriber.has_refused() && !self.subscriber.is_waiting() {
            self.retry_at = Some(now + self.retry.pause((self.session.random)()));
        }
        if !self.subscriber.has_refused() {
            self.retry.reset();
        }
        if self.subscriber.is_settled() && !self.subscribed {
            self.subscribed = true;
            SourceCounters::set(&self.session.counters.subscribed, 1);
            self.session.tell(SourceEvent::Subscribed { subscriptions: self.subscriber.wanted().to_vec() });
        }
    }

    fn retry_subscriptions(&mut self, now: Instant) -> Result<(), MqttError> {
        if self.suback_due().is_some_and(|at| now >= at) {
            return Err(MqttError::SubscribeTimeout);
        }
        if self.retry_at.is_some_and(|at| now >= at) {
            self.retry_at = None;
            let requests = self.subscriber.retry();
            self.ask(&requests);
        }
        Ok(())
    }

    /// A SUBACK may stand behind a long backlog: only silence counts.
    fn suback_due(&self) -> Option<Instant> {
        let waiting = self.subscriber.is_waiting() && self.is_reading();
        waiting.then(|| self.liveness.last_heard() + self.session.config.connect_timeout)
    }

    fn ask(&mut self, requests: &[Request]) {
        let version = self.session.config.version;
        for request in requests {
            match request {
                Request::Subscribe { pkid, filters } => {
                    codec::write_subscribe(version, *pkid, filters, &mut self.out);
                }
                Request::Unsubscribe { pkid, filters } => {
                    codec::write_unsubscribe(version, *pkid, filters, &mut self.out);
                }
            }
        }
    }

    fn is_reading(&self) -> bool {
        self.obstacle.is_none() && self.stop_at.is_none() && self.out.len() < UNWRITTEN_MAX
    }

    /// When something is to be done even if nothing happens.
    fn due(&self, now: Instant) -> Instant {
        let rate = match self.obstacle {
            Some(Obstacle::Rate(at)) => Some(self.zero + at),
            _ => None,
        };
        let times = [self.liveness.due(), self.retry_at, self.suback_due(), rate, self.stop_at];
        times.into_iter().flatten().min().unwrap_or(now + NEVER)
    }

    /// Whether a stop has been asked for and nothing is left to wait for.
    fn is_done(&self, now: Instant) -> bool {
        self.stop_at.is_some_and(|at| now >= at || (self.receiver.is_answered() && !self.unflushed))
    }

    /// The reason of a DISCONNECT in what the broker sent before it closed. Readings on the way to it are passed over:
    /// they are unanswered, so they come again.
    async fn last_words(&mut self) -> Option<u8> {
        let mut passed = 0;
        while passed < LAST_WORDS_BYTES {
            let head = Head::peek(&self.input).ok()?;
            match head.filter(|head| self.input.len() >= head.total()) {
                Some(head) if head.kind() == kind::DISCONNECT => {
                    let frame = self.input.split_to(head.total()).freeze();
                    return match codec::decode(self.session.config.version, head, frame) {
                        Ok(Inbound::Disconnect { code }) => Some(code),
                        _ => None,
                    };
                }
                Some(head) if self.skim.is_none() => {
                    passed += head.total();
                    self.input.advance(head.total());
                }
                _ => {
                    self.input.reserve(READ_SIZE);
                    if self.skim.is_some() || self.rd.read_buf(&mut self.input).await.ok()? == 0 {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// DISCONNECT, then waiting for the peer's close: a written PUBACK is not yet a processed one.
    async fn goodbye(&mut self) {
        let now = Instant::now();
        codec::write_disconnect(&mut self.out);
        let deadline = self.stop_at.unwrap_or(now).max(now + GOODBYE_MIN);
        let farewell = async {
            send(&mut self.wr, &mut self.out, &mut self.written).await?;
            self.wr.shutdown().await?;
            loop {
                self.input.clear();
                self.input.reserve(READ_SIZE);
                if self.rd.read_buf(&mut self.input).await? == 0 {
                    return io::Result::Ok(());
                }
            }
        };
        // However it ends: what the broker has not processed it will send again.
        let _ = timeout_at(deadline, farewell).await;
    }
}

fn unasked(packet: &str, pkid: u16) -> Malformed {
    Malformed(format!("{packet} {pkid} that fits no request"))
}

/// Writes and flushes all of `out`. Cancel safe: what has been written is gone from `out`.
async fn send<W: AsyncWrite + Unpin>(wr: &mut W, out: &mut BytesMut, written: &mut u64) -> io::Result<()> {
    while !out.is_empty() {
        match wr.write_buf(out).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => *written += n as u64,
        }
    }
    wr.flush().await
}

/// Waits for the stop signal; a sender that is gone counts as one. Cancel safe.
pub(super) async fn asked_to_stop(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|&stop| stop).await;
}
