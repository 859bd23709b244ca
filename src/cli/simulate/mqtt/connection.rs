//! One device's connection: opens it, publishes the feed, opens it again when it is lost, until the feed is finished
//! and everything is acknowledged.
//!
//! Owns the window of unacknowledged messages, which outlives a connection; a `Session` owns what does not. No
//! message is dropped: one that was sent with QoS 1 or 2 stays in the window until it is acknowledged or refused.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{sleep_until, timeout};

use super::super::clock::Moment;
use super::super::dice::Dice;
use super::super::feed::{Feed, Message, Next};
use super::super::run::{Event, Outcome, Run, Stop, random_u64};
use super::session::{End, KEEP_ALIVE, Session};
use super::window::{Stage, Window};
use super::wire::{Head, Hello, Incoming};
use super::{Broker, Qos};

/// A broker on the other side of a slow line answers within this time, or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The feed rests while this much waits to be written. Bounds the buffer for QoS 0; the window does so for QoS 1 and 2.
const OUT_BYTES: usize = 64 * 1024;
/// A 3.1.1 broker cannot say how many QoS 2 messages it takes at once: Mosquitto closes the connection on the one after
/// its `max_inflight_messages`, by default this many.
const QOS2_IN_FLIGHT: u16 = 20;
/// The first pause after a failed connection, and the longest one.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// One client of a broker, with its feed.
pub struct Publisher<F> {
    run: Arc<Run>,
    broker: Arc<Broker>,
    client_id: String,
    feed: F,
    window: Window,
    finished: bool,
    /// A window that was full is filled again only when half of it is free: few large writes instead of many small.
    refilling: bool,
    stop: Stop,
    /// Set when we were told to stop: until when acknowledgements are waited for, since the start of the run.
    stop_by: Option<Duration>,
    sent: u64,
}

impl<F: Feed> Publisher<F> {
    pub fn new(run: &Arc<Run>, broker: &Arc<Broker>, number: usize, feed: F, stop: Stop) -> Self {
        Self {
            client_id: format!("sim-{}-{number}", run.limits.instance),
            window: Window::new(run.limits.window),
            run: Arc::clone(run),
            broker: Arc::clone(broker),
            feed,
            finished: false,
            refilling: true,
            stop,
            stop_by: None,
            sent: 0,
        }
    }

    /// Publishes the whole feed. Ends when all of it is acknowledged, when told to stop (after waiting for what is
    /// outstanding), when the broker will never take us, or when it was away for too long.
    pub async fn publish(mut self) -> Outcome {
        let mut dice = Dice::of(random_u64(), 0, 0);
        let (mut pause, mut away_since) = (BACK_OFF.0, self.run.clock.now().since_start);
        loop {
            let end = self.connect_and_drive(&mut away_since, &mut pause).await;
            let away = self.run.clock.now().since_start.saturating_sub(away_since);
            match end {
                End::Finished => return self.outcome(None),
                End::Lasting(reason) => return self.outcome(Some(reason)),
                End::Stopped if self.window.is_empty() || self.out_of_time() => return self.outcome(None),
                End::Lost(reason) if self.run.limits.give_up.is_some_and(|limit| away > limit) => {
                    return self.outcome(Some(reason));
                }
                End::Died(silent) => self.rest(silent).await,
                End::Lost(_) | End::Stopped => {
                    self.rest(pause.mul_f64(0.5 + dice.fraction())).await;
                    pause = (pause * 2).min(BACK_OFF.1);
                }
            }
        }
    }

    async fn connect_and_drive(&mut self, away_since: &mut Duration, pause: &mut Duration) -> End {
        let mut session = match self.connect().await {
            Ok(session) => session,
            Err(End::Lost(reason)) => {
                self.run.tell(Event::CannotConnect { client_id: self.client_id.clone(), reason: reason.clone() });
                return End::Lost(reason);
            }
            Err(end) => return end,
        };
        self.run.tally.add(|counts| counts.connected += 1);
        self.run.tell(Event::Connected { client_id: self.client_id.clone() });
        let end = self.drive(&mut session).await;
        self.note_end(&end);
        if matches!(end, End::Finished) {
            self.leave(session).await;
        }
        (*away_since, *pause) = (self.run.clock.now().since_start, BACK_OFF.0);
        end
    }

    fn note_end(&self, end: &End) {
        let lost = !matches!(end, End::Finished | End::Stopped);
        self.run.tally.add(|counts| {
            counts.connected -= 1;
            counts.disconnects += u64::from(lost);
        });
        if let End::Lost(reason) = end {
            self.run.tell(Event::Disconnected { client_id: self.client_id.clone(), reason: reason.clone() });
        }
    }

    /// A session is kept over connections only for QoS 2, which needs it (MQTT-4.3.3-1).
    fn is_clean(&self) -> bool {
        self.run.limits.qos != Qos::ExactlyOnce
    }

    async fn connect(&mut self) -> Result<Session, End> {
        let run = Arc::clone(&self.run);
        let (mut stop, stopping) = (self.stop.clone(), self.stop_by.is_some());
        let opened = tokio::select! {
            opened = timeout(CONNECT_TIMEOUT, self.greet(&run)) => opened,
            () = stop.stopped(), if !stopping => {
                self.note_stop();
                return Err(End::Stopped);
            }
        };
        opened.unwrap_or_else(|_| Err(End::Lost("no answer to the connection".into())))
    }

    async fn greet(&mut self, run: &Run) -> Result<Session, End> {
        // A thousand devices that come back at once would overrun the broker's accept queue. Closed never happens.
        let _turn = run.dialing.acquire().await;
        let mut session = Session::open(&self.broker).await?;
        let keep_alive_s = KEEP_ALIVE.as_secs() as u16;
        let hello =
            Hello { client_id: &self.client_id, login: self.broker.login(), keep_alive_s, clean: self.is_clean() };
        self.broker.version.connect(&hello, &mut session.output)?;
        let answer = session.first_answer(&self.broker).await?;
        let now = run.clock.now().since_start;
        (session.heard_at, session.spoke_at) = (now, now);
        match answer {
            Incoming::Connected { session_present, receive_max, packet_bytes_max } => {
                let unsaid = (self.run.limits.qos == Qos::ExactlyOnce).then_some(QOS2_IN_FLIGHT);
                self.window.reconnect(session_present, receive_max.or(unsaid));
                session.packet_bytes_max = packet_bytes_max;
                Ok(session)
            }
            Incoming::Refused { reason, lasting: true } => {
                Err(End::Lasting(format!("the broker refused us: {reason}")))
            }
            Incoming::Refused { reason, .. } => Err(End::Lost(format!("the broker refused us: {reason}"))),
            _ => Err(End::Lost("the broker's first packet is no CONNACK".into())),
        }
    }

    /// Publishes on one connection for as long as it lasts.
    async fn drive(&mut self, session: &mut Session) -> End {
        let mut due = self.run.clock.now().since_start;
        let mut sleep = pin!(sleep_until(self.run.clock.instant(due)));
        let mut stop = self.stop.clone();
        let mut stopped = pin!(stop.stopped());
        loop {
            let wanted = match self.turn(session) {
                Ok(wanted) => wanted,
                Err(end) => return end,
            };
            if wanted != due {
                due = wanted;
                sleep.as_mut().reset(self.run.clock.instant(due));
            }
            let stopping = self.stop_by.is_some();
            let woken = poll_fn(|cx| match stopping || stopped.as_mut().poll(cx).is_pending() {
                true => session.poll(cx, sleep.as_mut()).map_ok(|()| false),
                false => Poll::Ready(Ok(true)),
            });
            match woken.await {
                Ok(true) => self.note_stop(),
                Ok(false) => {}
                Err(error) => return error.into(),
            }
        }
    }

    /// One turn of the loop, without waiting: takes in what the broker said and writes what is due. Answers when it
    /// wants to be woken, if nothing happens before, since the start of the run.
    fn turn(&mut self, session: &mut Session) -> Result<Duration, End> {
        let now = self.run.clock.now();
        self.take_in(session, now.since_start)?;
        self.send_again(session)?;
        let next_due = self.send_due(session, now)?;
        let ending = self.finished || self.stop_by.is_some();
        if ending && self.window.is_empty() && session.output.is_empty() {
            return Err(End::Finished);
        }
        if self.out_of_time() {
            return Err(End::Stopped);
        }
        session.wants_room = ending || session.output.len() >= OUT_BYTES;
        let sign_due = session.keep_alive(&self.broker, now.since_start)?;
        let stop_by = self.stop_by.unwrap_or(Duration::MAX);
        Ok(next_due.unwrap_or(Duration::MAX).min(sign_due).min(stop_by))
    }

    fn take_in(&mut self, session: &mut Session, now: Duration) -> Result<(), End> {
        while let Some(incoming) = self.broker.version.read(&mut session.input)? {
            session.heard_at = now;
            match incoming {
                Incoming::Acknowledged(pkid) => self.acknowledge(pkid, Stage::Published, now),
                Incoming::Completed(pkid) => self.acknowledge(pkid, Stage::Released, now),
                Incoming::Received(pkid) => self.release(pkid, session)?,
                Incoming::Rejected(pkid) => self.reject(pkid),
                Incoming::Closing(reason) => return Err(End::Lost(format!("the broker closes: {reason}"))),
                Incoming::Connected { .. } | Incoming::Refused { .. } => {
                    return Err(End::Lost("the broker sent a second CONNACK".into()));
                }
                Incoming::Other => {}
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, pkid: u16, stage: Stage, now: Duration) {
        let settled = self.window.settle(pkid, stage);
        self.run.tally.add(|counts| match settled {
            Some(in_flight) => counts.note_acknowledged(in_flight.sent_at, now),
            None => counts.stray += 1,
        });
    }

    fn release(&mut self, pkid: u16, session: &mut Session) -> Result<(), End> {
        if self.window.release(pkid) {
            self.broker.version.release(pkid, &mut session.output)?;
        } else {
            self.run.tally.add(|counts| counts.stray += 1);
        }
        Ok(())
    }

    fn reject(&mut self, pkid: u16) {
        let settled = self.window.settle(pkid, Stage::Published);
        self.run.tally.add(|counts| match settled {
            Some(_) => counts.refused += 1,
            None => counts.stray += 1,
        });
    }

    /// What an old connection left unacknowledged goes first, as far as the window of the new one allows.
    fn send_again(&mut self, session: &mut Session) -> Result<(), End> {
        let version = self.broker.version;
        while self.window.has_room() {
            let Some((pkid, in_flight)) = self.window.next_waiting() else { break };
            let head = Head { qos: self.run.limits.qos, pkid, dup: true };
            match in_flight.stage {
                Stage::Published => version.publish(&in_flight.message, head, &mut session.output)?,
                Stage::Released => version.release(pkid, &mut session.output)?,
            }
            self.run.tally.add(|counts| counts.resent += 1);
        }
        Ok(())
    }

    /// Sends what the feed has now. Answers when it has more, if it said so.
    fn send_due(&mut self, session: &mut Session, now: Moment) -> Result<Option<Duration>, End> {
        let before = self.sent;
        let asked = self.ask_feed(session, now);
        let messages = self.sent - before;
        if messages > 0 {
            // Counted once for all, and before the first of them can be acknowledged.
            self.run.tally.add(|counts| counts.note_sent(messages, now.since_start));
        }
        asked
    }

    fn ask_feed(&mut self, session: &mut Session, now: Moment) -> Result<Option<Duration>, End> {
        while self.may_send(session) {
            match self.feed.next(now) {
                Next::Message(message) => self.send(&message, now.since_start, session)?,
                Next::At(at) => return Ok(Some(at)),
                Next::Die { silent } => return Err(End::Died(silent)),
                Next::Finished => self.finished = true,
            }
        }
        Ok(None)
    }

    fn may_send(&mut self, session: &Session) -> bool {
        let qos_0 = self.run.limits.qos == Qos::AtMostOnce;
        self.refilling = self.window.has_room() && (self.refilling || self.window.is_half_free());
        let room = session.output.len() < OUT_BYTES && (qos_0 || self.refilling);
        room && !self.finished && self.stop_by.is_none()
    }

    fn send(&mut self, message: &Message, now: Duration, session: &mut Session) -> Result<(), End> {
        let (qos, version) = (self.run.limits.qos, self.broker.version);
        let before = session.output.len();
        self.sent += 1;
        if qos == Qos::AtMostOnce {
            version.publish(message, Head { qos, pkid: 0, dup: false }, &mut session.output)?;
        } else if let Some(pkid) = self.window.put(message.clone(), now) {
            version.publish(message, Head { qos, pkid, dup: false }, &mut session.output)?;
        }
        match session.packet_bytes_max {
            Some(max) if session.output.len() - before > max as usize => {
                Err(End::Lasting(format!("the broker takes no packets above {max} bytes")))
            }
            _ => Ok(()),
        }
    }

    fn note_stop(&mut self) {
        self.stop_by.get_or_insert(self.run.clock.now().since_start + self.run.limits.drain);
    }

    fn out_of_time(&self) -> bool {
        self.stop_by.is_some_and(|by| self.run.clock.now().since_start >= by)
    }

    /// Waits before the next connection, unless told to stop.
    async fn rest(&mut self, pause: Duration) {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.stopped(), if self.stop_by.is_none() => self.note_stop(),
        }
    }

    /// Takes leave, so that the broker has read everything when we are gone and keeps nothing for us.
    async fn leave(&mut self, session: Session) {
        let (broker, client_id, is_clean) = (Arc::clone(&self.broker), self.client_id.as_str(), self.is_clean());
        session.close(&broker).await;
        if is_clean {
            return;
        }
        // A clean connection deletes the session that QoS 2 needed (MQTT-3.1.2-6). What the broker makes of it is its
        // own affair: all messages are acknowledged.
        let forget = async {
            let mut session = Session::open(&broker).await?;
            let hello = Hello { client_id, login: broker.login(), keep_alive_s: 0, clean: true };
            broker.version.connect(&hello, &mut session.output)?;
            session.first_answer(&broker).await?;
            session.close(&broker).await;
            Ok::<(), End>(())
        };
        let _ = timeout(CONNECT_TIMEOUT, forget).await;
    }

    fn outcome(self, failure: Option<String>) -> Outcome {
        let unacknowledged = self.window.numbers().into_iter().map(|number| self.feed.id(number)).collect();
        Outcome { client_id: self.client_id, sent: self.sent, unacknowledged, failure }
    }
}
