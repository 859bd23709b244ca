//! Whether the peer is still there: when to ping, when to give up. Pure: times come as arguments.
//!
//! Any byte from the peer is a sign of life, not only a PINGRESP, which may stand behind megabytes of readings. While
//! the connection rests (gate or rate limit) nothing is read, so that nothing can be heard: pings go on, because the
//! broker counts them, and the watch for an answer is suspended.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// Send a PINGREQ now.
    Ping,
    /// Nothing was heard for too long.
    Silent,
    /// Nothing could be written for too long.
    Stalled,
}

#[derive(Debug)]
pub(super) struct Liveness {
    /// Zero: no keep-alive (MQTT 3.1.2.10).
    keep_alive: Duration,
    write_timeout: Duration,
    heard: Instant,
    sent: Instant,
    /// When the ping went out that nothing has been heard since.
    pinged: Option<Instant>,
    /// Since when there has been something to write without any of it leaving, with the bytes written until then.
    writing: Option<(Instant, u64)>,
    resting: bool,
}

impl Liveness {
    pub(super) fn new(keep_alive: Duration, write_timeout: Duration, now: Instant) -> Self {
        Liveness { keep_alive, write_timeout, heard: now, sent: now, pinged: None, writing: None, resting: false }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = None;
    }

    pub(super) fn last_heard(&self) -> Instant {
        self.heard
    }

    /// Whether the connection rests. At its end the watch begins anew: what could not be read proves nothing.
    pub(super) fn rest(&mut self, resting: bool, now: Instant) {
        if self.resting && !resting {
            self.heard(now);
        }
        self.resting = resting;
    }

    /// There is something to write. `written`: all bytes of this connection so far.
    pub(super) fn wants_to_write(&mut self, written: u64, now: Instant) {
        self.writing.get_or_insert((now, written));
    }

    /// Everything has been written.
    pub(super) fn wrote_all(&mut self, now: Instant) {
        self.writing = None;
        self.sent = now;
    }

    /// What is to be done at `now`.
    pub(super) fn check(&mut self, written: u64, now: Instant) -> Verdict {
        if let Some((since, before)) = self.writing {
            if written > before {
                self.writing = Some((now, written));
            } else if now >= since + self.write_timeout {
                return Verdict::Stalled;
            }
        }
        if self.silent_at().is_some_and(|at| now >= at) {
            return Verdict::Silent;
        }
        if self.ping_at().is_some_and(|at| now >= at) {
            self.sent = now;
            self.pinged = (!self.resting).then_some(self.pinged.unwrap_or(now));
            return Verdict::Ping;
        }
        Verdict::Fine
    }

    /// When `check` may have something else to say.
    pub(super) fn due(&self) -> Option<Instant> {
        let stalled = self.writing.map(|(since, _)| since + self.write_timeout);
        [stalled, self.silent_at(), self.ping_at()].into_iter().flatten().min()
    }

    fn silent_at(&self) -> Option<Instant> {
        self.pinged.filter(|_| !self.resting).map(|at| at + self.keep_alive)
    }

    fn ping_at(&self) -> Option<Instant> {
        if self.keep_alive.is_zero() {
            return None;
        }
        // The peer is asked when it is quiet, too: acks alone would keep us believing in a connection that delivers none.
        let quiet = if self.resting || self.pinged.is_some() { self.sent } else { self.sent.min(self.heard) };
        Some(quiet + self.keep_alive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP_ALIVE: Duration = Duration::from_secs(10);

    fn start() -> (Liveness, Instant) {
        let now = Instant::now();
        (Liveness::new(KEEP_ALIVE, Duration::from_secs(4), now), now)
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn an_idle_connection_is_pinged_and_an_unanswered_one_given_up() {
        let (mut live, t) = start();
        assert_eq!(live.check(0, at(t, 9)), Verdict::Fine);
        assert_eq!(live.due(), Some(at(t, 10)));
        assert_eq!(live.check(0, at(t, 10)), Verdict::Ping);
        assert_eq!(live.check(0, at(t, 19)), Verdict::Fine);
        assert_eq!(live.check(0, at(t, 20)), Verdict::Silent);
    }

    #[test]
    fn any_byte_answers_a_ping() {
        let (mut live, t) = start();
        live.check(0, at(t, 10));
        live.heard(at(t, 19));
        assert_eq!(live.check(0, at(t, 20)), Verdict::Ping);
        assert_eq!(live.check(0, at(t, 29)), Verdict::Fine);
    }

    #[test]
    fn a_peer_that_takes_our_acks_but_says_nothing_is_pinged() {
        let (mut live, t) = start();
        live.wrote_all(at(t, 9));
        assert_eq!(live.check(0, at(t, 10)), Verdict::Ping);
        live.wrote_all(at(t, 19));
        assert_eq!(live.check(0, at(t, 20)), Verdict::Silent);
    }

    #[test]
    fn a_resting_connection_pings_and_is_never_silent() {
        let (mut live, t) = start();
        live.rest(true, at(t, 1));
        for seconds in [10, 20, 30, 40] {
            assert_eq!(live.check(0, at(t, seconds)), Verdict::Ping);
        }
        live.rest(false, at(t, 41));
        assert_eq!(live.check(0, at(t, 49)), Verdict::Fine);
        assert_eq!(live.check(0, at(t, 51)), Verdict::Ping);
        assert_eq!(live.check(0, at(t, 61)), Verdict::Silent);
    }

    #[test]
    fn a_write_without_progress_stalls() {
        let (mut live, t) = start();
        live.wants_to_write(100, at(t, 0));
        assert_eq!(live.check(150, at(t, 4)), Verdict::Fine, "some of it left");
        assert_eq!(live.check(150, at(t, 7)), Verdict::Fine);
        assert_eq!(live.check(150, at(t, 8)), Verdict::Stalled);
    }

    #[test]
    fn keep_alive_zero_never_pings() {
        let now = Instant::now();
        let mut live = Liveness::new(Duration::ZERO, KEEP_ALIVE, now);
        assert_eq!(live.due(), None);
        assert_eq!(live.check(0, at(now, 100_000)), Verdict::Fine);
    }
}
