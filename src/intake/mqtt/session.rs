//! A session's life: connect, serve, pause, again. It ends only when it is asked to stop.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::backoff::{Backoff, TakeOvers};
use super::codec::ConnAck;
use super::connection::{Connection, Parts, asked_to_stop};
use super::handshake::handshake;
use super::receive::Receiver;
use super::topics::Subscriber;
use super::{Clock, MqttError, MqttSession, SourceCounters, tls};
use crate::config::MqttVersion;
use crate::intake::SourceEvent;

/// v5 reason code "session taken over" (MQTT 5, 3.14.2.1).
const SESSION_TAKEN_OVER: u8 = 0x8e;
/// 3.1.1 has no reason codes. A connection that the peer closes this soon may have been taken over; by then a rival
/// with a usual back-off has come back.
const SHORT_LIFE: Duration = Duration::from_secs(60);

impl MqttSession {
    /// Runs the session until `stop` says true or its sender is gone. Never fails: what goes wrong is told as events
    /// and counted, and tried again.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut life = Life::new(&self);
        // Attempts and pauses end by themselves: to be in one is not to hang. A connection's first turn takes what was
        // fired meanwhile.
        let queue = life.receiver.queue();
        while !*stop.borrow() {
            let ended = tokio::select! {
                biased;
                ended = life.connect() => ended,
                () = asked_to_stop(&mut stop) => return,
                never = queue.answer_ticks() => match never {},
            };
            let error = match ended {
                Ok(established) => match life.serve(established, &mut stop).await {
                    Ok(()) => return,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            let pause = life.judge(&error);
            tokio::select! {
                () = sleep(pause) => {}
                () = asked_to_stop(&mut stop) => return,
                never = queue.answer_ticks() => match never {},
            }
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A stream on which the broker has accepted us.
struct Established {
    stream: Box<dyn Stream>,
    input: BytesMut,
    connack: ConnAck,
}

/// What a session remembers from one connection to the next.
struct Life<'a> {
    session: &'a MqttSession,
    receiver: Receiver,
    subscriber: Subscriber,
    backoff: Backoff,
    takeovers: TakeOvers,
    started: Instant,
    /// When the last connection was accepted, if it was.
    accepted: Option<Instant>,
    session_expected: bool,
    connections: u64,
}

impl<'a> Life<'a> {
    fn new(session: &'a MqttSession) -> Self {
        let config = &session.config;
        Life {
            session,
            receiver: Receiver::new(session),
            subscriber: Subscriber::new(&config.subscriptions, &session.previous),
            backoff: Backoff::new(config.backoff_min, config.backoff_max),
            takeovers: TakeOvers::default(),
            started: Instant::now(),
            accepted: None,
            session_expected: !session.previous.is_empty(),
            connections: 0,
        }
    }

    /// One attempt, within the connect timeout in all.
    async fn connect(&mut self) -> Result<Established, MqttError> {
        self.accepted = None;
        let timeout = self.session.config.connect_timeout;
        let established = timeout_at(Instant::now() + timeout, establish(self.session)).await;
        let established = established.map_err(|_| MqttError::ConnectTimeout { timeout })??;
        if let Some(reason) = established.connack.refused.clone() {
            return Err(MqttError::Refused { reason });
        }
        Ok(established)
    }

    /// Serves a connection to its end. `Ok`: it was asked to stop.
    async fn serve(&mut self, established: Established, stop: &mut watch::Receiver<bool>) -> Result<(), MqttError> {
        self.accepted = Some(Instant::now());
        self.greet(established.connack.session_present);
        let connected = &self.session.counters.connected;
        SourceCounters::set(connected, 1);
        let connection = Connection::new(Parts {
            session: self.session,
            receiver: &mut self.receiver,
            subscriber: &mut self.subscriber,
            stream: established.stream,
            input: established.input,
            connack: established.connack,
            zero: self.started,
        });
        let ended = connection.run(stop).await;
        SourceCounters::set(connected, 0);
        SourceCounters::set(&self.session.counters.subscribed, 0);
        ended
    }

    fn greet(&mut self, session_present: bool) {
        let counters = &self.session.counters;
        SourceCounters::add(&counters.reconnects, u64::from(self.connections > 0));
        self.connections += 1;
        self.session.tell(SourceEvent::Connected { session_present });
        if self.session_expected && !session_present {
            SourceCounters::add(&counters.sessions_lost, 1);
            self.session.tell(SourceEvent::SessionLost);
        }
        self.session_expected = true;
    }

    /// Counts and tells how a connection or an attempt ended. Returns how long to wait.
    fn judge(&mut self, error: &MqttError) -> Duration {
        let now = Instant::now();
        let lifetime = self.accepted.map(|at| now - at);
        if matches!(error, MqttError::Malformed(_)) {
            SourceCounters::add(&self.session.counters.malformed, 1);
        }
        self.session.tell(SourceEvent::Disconnected { reason: error.to_string() });
        if let Some(lifetime) = lifetime {
            self.backoff.connection_lived(lifetime);
        }
        let pause = self.backoff.pause((self.session.random)());
        if !self.is_takeover(error, lifetime) {
            return pause;
        }
        SourceCounters::add(&self.session.counters.takeovers, 1);
        let Some(takeovers) = self.takeovers.note(now - self.started) else { return pause };
        self.session.tell(SourceEvent::IdentityConflict { takeovers });
        TakeOvers::pause(takeovers, self.session.config.backoff_max)
    }

    fn is_takeover(&self, error: &MqttError, lifetime: Option<Duration>) -> bool {
        match error {
            MqttError::Disconnected { code } => *code == SESSION_TAKEN_OVER,
            MqttError::Closed => self.session.config.version == MqttVersion::V311 && is_short(lifetime),
            // Also in v5: a broker that still has unread PUBACKs of ours resets the connection, and with it its reason.
            MqttError::Io(e) => is_close(e.kind()) && is_short(lifetime),
            _ => false,
        }
    }
}

fn is_short(lifetime: Option<Duration>) -> bool {
    lifetime.is_some_and(|lifetime| lifetime < SHORT_LIFE)
}

/// A close by the peer with data unread.
fn is_close(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted)
}

async fn establish(session: &MqttSession) -> Result<Established, MqttError> {
    let mut stream = open(session).await?;
    let mut input = BytesMut::new();
    let connack = handshake(&mut stream, session, &mut input).await?;
    Ok(Established { stream, input, connack })
}

async fn open(session: &MqttSession) -> Result<Box<dyn Stream>, MqttError> {
    let config = &session.config;
    let stream = TcpStream::connect((config.host.as_str(), config.port)).await;
    let stream =
        stream.map_err(|source| MqttError::Connect { host: config.host.clone(), port: config.port, source })?;
    // PUBACKs are small and already gathered into one write.
    stream.set_nodelay(true)?;
    match &config.tls {
        None => Ok(Box::new(stream)),
        Some(tls) => Ok(Box::new(tls::connect(stream, &config.host, tls, Clock::clone(&session.clock)).await?)),
    }
}
