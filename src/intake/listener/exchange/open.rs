//! Sessions begin, change their connection, and end (3.1.4, 4.1).

use std::sync::Arc;
use std::time::Duration;

use super::{Exchange, Job};
use crate::intake::listener::counters::ListenerCounters;
use crate::intake::listener::facts::{self, SessionRow};
use crate::intake::listener::filter;
use crate::intake::listener::packet::{Connect, Version};
use crate::intake::listener::session::{Attached, Session};
use crate::intake::{Change, Kind, SourceEvent};

/// How far the opening of a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::intake::listener) enum Opening {
    /// Something is still to be stored or deleted.
    Waits,
    /// CONNACK may leave.
    Ready { session_present: bool },
    /// Another connection has the session.
    Lost,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy)]
pub(in crate::intake::listener) struct Ended<'a> {
    /// The client said DISCONNECT, and not that it wants its will.
    pub(in crate::intake::listener) forget_will: bool,
    /// The server stops: no device has died.
    pub(in crate::intake::listener) stopping: bool,
    pub(in crate::intake::listener) clean: bool,
    pub(in crate::intake::listener) reason: &'a str,
}

impl Exchange {
    /// Gives the session of `client` to a connection; the one that had it finds out when it is woken [MQTT-3.1.4-3].
    pub(in crate::intake::listener) fn open(
        &mut self,
        connect: &mut Connect,
        client: &Arc<str>,
        attached: Attached,
        now: Duration,
    ) -> u64 {
        let is_new = !self.by_client.contains_key(client);
        let number = self.session_of(client, connect.version);
        let expiry = self.granted_expiry(connect);
        self.take_over(number, connect.clean_start, now);
        let Some(session) = self.sessions.get_mut(&number) else { return number };
        session.attached = Some(attached);
        session.present = !is_new && !session.ending && !connect.clean_start && !session.wipe;
        session.ending = false;
        session.version = connect.version;
        session.expiry = expiry;
        session.will = connect.will.take().map(Box::new);
        session.outgoing.reconnected();
        session.woken = true;
        let present = session.present;
        self.no_timer(number);
        if !present {
            self.reset(number);
        }
        self.progress(number);
        number
    }

    /// Ends the present connection's claim and decides about its will, or about the one that was put off.
    fn take_over(&mut self, number: u64, clean_start: bool, now: Duration) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let Some(old) = session.attached.take() else {
            // It is continued before the delay has passed [MQTT-3.1.3-9], or it ends here.
            if clean_start && session.will_at.is_some() {
                self.publish_will(number, now);
            } else if let Some(session) = self.sessions.get_mut(&number) {
                session.will = None;
            }
            return;
        };
        let delayed = session.will.as_ref().is_some_and(|will| will.delay_s > 0);
        // Without CONNACK there was no session whose end could be mourned.
        if (delayed && !clean_start) || !session.announced {
            session.will = None;
        }
        old.queue.wake();
        ListenerCounters::add(&self.parts.counters.takeovers, 1);
        self.publish_will(number, now);
        self.tell_gone(number, "taken over", false);
    }

    /// What the client asks for, within the limit. 3.1.1 sessions that are kept get the limit.
    fn granted_expiry(&self, connect: &Connect) -> Option<Duration> {
        let max = self.config().limits.session_expiry;
        Some(match connect.version {
            Version::V311 if connect.clean_start => Duration::ZERO,
            Version::V311 => max,
            Version::V5 => Duration::from_secs(u64::from(connect.session_expiry_s)).min(max),
        })
    }

    /// Forgets what the client had: subscriptions, messages for it, QoS 2.
    fn reset(&mut self, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        for text in std::mem::take(&mut session.subscriptions).into_keys() {
            if let Ok(parsed) = filter::parse(&text, u32::MAX) {
                self.router.unsubscribe(parsed, number);
            }
        }
        self.fan_out_bytes -= session.outgoing.bytes();
        session.outgoing = Default::default();
        session.wipe = true;
    }

    /// Deletes what is to be deleted, as soon as nothing is pending, and writes the session's row if it has changed.
    pub(super) fn progress(&mut self, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let source = &self.parts.config.name;
        let mut changes = Vec::new();
        if session.wipe {
            if session.pending > 0 {
                return;
            }
            session.wipe = false;
            ListenerCounters::sub(&self.parts.counters.qos2_open, session.inbound.len() as u64);
            session.inbound.clear();
            if std::mem::take(&mut session.has_qos2_rows) {
                changes.push(Change::DeletePrefix {
                    kind: Kind::Qos2,
                    prefix: facts::qos2_prefix(source, &session.client),
                });
            }
        }
        let row = row_of(session);
        if row != session.row {
            let key = facts::key(source, &session.client);
            changes.push(match &row {
                Some(value) => Change::Put { kind: Kind::Session, key, value: value.clone() },
                None => Change::Delete { kind: Kind::Session, key },
            });
            session.row = row;
        }
        if changes.is_empty() {
            self.forget_if_over(number);
            return;
        }
        session.asked += 1;
        session.unwritten.push(session.asked);
        let job = Job::Session { session: number, number: session.asked };
        self.ask(changes, job);
    }

    pub(super) fn session_written(&mut self, number: u64, write: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        session.unwritten.retain(|&number| number != write);
        session.wake();
        self.forget_if_over(number);
    }

    fn forget_if_over(&mut self, number: u64) {
        let Some(session) = self.sessions.get(&number) else { return };
        if session.ending && !session.wipe && session.unwritten.is_empty() && session.attached.is_none() {
            let client = Arc::clone(&session.client);
            self.no_timer(number);
            self.sessions.remove(&number);
            self.by_client.remove(&client);
        }
    }

    pub(in crate::intake::listener) fn opening(&self, number: u64, connection: u64) -> Opening {
        match self.sessions.get(&number) {
            Some(session) if session.is_attached_to(connection) => {
                if session.wipe || !session.unwritten.is_empty() {
                    Opening::Waits
                } else {
                    Opening::Ready { session_present: session.present }
                }
            }
            _ => Opening::Lost,
        }
    }

    /// A connection has ended. Does nothing if another one has the session by now.
    pub(in crate::intake::listener) fn detach(
        &mut self,
        number: u64,
        connection: u64,
        ended: Ended<'_>,
        now: Duration,
    ) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        if !session.is_attached_to(connection) {
            return;
        }
        session.attached = None;
        let before = session.outgoing.bytes();
        let dropped = session.outgoing.disconnected();
        self.fan_out_bytes -= before - session.outgoing.bytes();
        ListenerCounters::add(&self.parts.counters.queue_dropped, dropped);
        // A stop says nothing about the devices: their wills are not published, as MQTT allows (5, 3.1.2.5).
        if ended.forget_will || ended.stopping || !session.announced {
            session.will = None;
        }
        self.tell_gone(number, ended.reason, ended.clean);
        self.rest(number, now);
        self.keep_few_enough(now);
    }

    /// Nobody hears of the end of what never began.
    fn tell_gone(&mut self, number: u64, reason: &str, clean: bool) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        if std::mem::take(&mut session.announced) {
            let client = session.client.to_string();
            self.tell(SourceEvent::DeviceDisconnected { client, reason: reason.to_owned(), clean });
        }
    }

    /// A session without a connection: it ends now, or at a time, or never.
    pub(super) fn rest(&mut self, number: u64, now: Duration) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        session.expires_at = session.expiry.map(|expiry| now + expiry);
        let delay = session.will.as_ref().map(|will| Duration::from_secs(u64::from(will.delay_s)));
        session.will_at = delay.map(|delay| now + delay);
        if let Some(due) = session.due() {
            if due <= now {
                self.expire(number, now);
            } else {
                self.timers.insert((due, number));
                self.queue.wake();
            }
        }
    }

    fn no_timer(&mut self, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        if let Some(due) = session.due() {
            self.timers.remove(&(due, number));
        }
        session.expires_at = None;
        session.will_at = None;
    }

    /// Publishes a will whose time has come, and ends a session whose time has run out.
    fn expire(&mut self, number: u64, now: Duration) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        if let Some(due) = session.due() {
            self.timers.remove(&(due, number));
        }
        let is_over = session.expires_at.is_some_and(|at| at <= now);
        // At the end of its session at the latest (5, 3.1.3.2.2).
        if is_over || session.will_at.is_some_and(|at| at <= now) {
            session.will_at = None;
            self.publish_will(number, now);
        }
        if is_over {
            self.end(number);
        } else if let Some(due) = self.sessions.get(&number).and_then(Session::due) {
            self.timers.insert((due, number));
            self.queue.wake();
        }
    }

    fn end(&mut self, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        session.ending = true;
        session.expires_at = None;
        self.reset(number);
        self.progress(number);
    }

    /// The next time at which something is to be done.
    pub(in crate::intake::listener) fn due(&self) -> Option<Duration> {
        self.timers.first().map(|&(due, _)| due)
    }

    /// Everything whose time has come.
    pub(in crate::intake::listener) fn tend(&mut self, now: Duration) {
        while let Some(&(due, number)) = self.timers.first()
            && due <= now
        {
            self.timers.remove(&(due, number));
            self.expire(number, now);
        }
    }

    /// Above the limit, the session that would end first ends at once.
    pub(super) fn keep_few_enough(&mut self, now: Duration) {
        let max = self.config().limits.sessions as usize;
        while self.timers.len() > max {
            let Some(&(_, number)) = self.timers.first() else { return };
            ListenerCounters::add(&self.parts.counters.sessions_evicted, 1);
            self.publish_will(number, now);
            self.no_timer(number);
            self.end(number);
        }
    }

    /// A client has changed its mind about the expiry with its DISCONNECT (5, 3.14.2.2.2).
    pub(in crate::intake::listener) fn set_expiry(&mut self, number: u64, seconds: u32) {
        let max = self.config().limits.session_expiry;
        let Some(session) = self.sessions.get_mut(&number) else { return };
        session.expiry = Some(Duration::from_secs(u64::from(seconds)).min(max));
        self.progress(number);
    }
}

/// What the row of a session should hold: nothing if it ends with its connection.
fn row_of(session: &Session) -> Option<Vec<u8>> {
    let kept = !session.ending && !session.ends_with_connection();
    kept.then(|| SessionRow::encode(session.version, session.expiry, &session.subscriptions))
}
