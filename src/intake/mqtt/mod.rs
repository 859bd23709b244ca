//! `[[source.mqtt]]`: a client of an existing broker, on a connection loop of our own over rumqttc's codec.
//!
//! A session goes through these files: `session.rs` connects (`tls.rs`, `handshake.rs`) and reconnects, `connection.rs` is one connection's loop,
//! `receive.rs` turns packets into deliveries (steps 1 and 2), `window.rs` holds what is unanswered and decides which
//! PUBACK may leave (step 5). `codec.rs` is the only seam to rumqttc. The rest is pure: `liveness.rs`, `topics.rs`,
//! `oversize.rs`, `backoff.rs`, and `waits.rs`, `window.rs` and `rate.rs` one folder up.
//!
//! A session owns its connection, its unanswered readings and the subscriptions in the broker. It never answers a
//! reading whose ticket has not been fired, never sends an ack of one connection on another, and never holds more than
//! its gate allows: then it stops reading, which slows the broker down, and goes on pinging.

mod backoff;
mod codec;
mod connection;
mod handshake;
mod liveness;
mod oversize;
mod receive;
mod session;
pub(super) mod tls;
mod topics;
mod window;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::mpsc;

pub use codec::Malformed;
pub use tls::TlsError;

use super::{Deliver, Route, SourceEvent};
use crate::config::{MqttSource, MqttVersion, Subscription};
use crate::intake::pulse::Pulse;
use crate::ops::histogram::Histogram;
use crate::record::Arrival;

/// Tells the time of an arrival: the gateway's clock.
pub type Clock = Arc<dyn Fn() -> Arrival + Send + Sync>;

/// One MQTT session with one broker. With `session_per_lane` the gateway makes one for each lane.
pub struct MqttSession {
    pub config: MqttSource,
    /// All filters that earlier runs may have left in the broker's session: those not in the config any more are
    /// unsubscribed. Not empty also means that a session is expected. The caller saves `previous` and the config's
    /// filters together before the start, and what [`SourceEvent::Subscribed`] says when it comes.
    pub previous: Vec<Subscription>,
    pub route: Arc<dyn Route>,
    pub deliver: Arc<dyn Deliver>,
    /// With the source's name. An event that finds it full is dropped and counted.
    pub events: mpsc::Sender<(String, SourceEvent)>,
    pub counters: Arc<SourceCounters>,
    pub clock: Clock,
    /// Uniform over all of `u64`: the jitter of the pauses.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// How long a graceful stop waits for outstanding acks and for the broker's close.
    pub stop_timeout: Duration,
}

impl MqttSession {
    fn tell(&self, event: SourceEvent) {
        if self.events.try_send((self.config.name.clone(), event)).is_err() {
            SourceCounters::add(&self.counters.events_dropped, 1);
        }
    }
}

/// What a source has done, and its present state. Read by the metrics at any time.
#[derive(Debug, Default)]
pub struct SourceCounters {
    pub readings: AtomicU64,
    pub payload_bytes: AtomicU64,
    pub pubacks: AtomicU64,
    /// Acks that came after their connection had ended: the broker sends those readings again.
    pub acks_stale: AtomicU64,
    /// Connections beyond the first.
    pub reconnects: AtomicU64,
    pub sessions_lost: AtomicU64,
    /// Known by reason code 0x8E (v5), or supposed: the peer closed (3.1.1) or reset the connection within a minute.
    pub takeovers: AtomicU64,
    /// Times that the gate closed.
    pub gate_closed: AtomicU64,
    /// Packets above the size limit: their beginning went to the dead letters.
    pub oversize: AtomicU64,
    /// Packets that ended a connection because they broke the protocol.
    pub malformed: AtomicU64,
    /// Packets that broke the protocol and were taken nevertheless: a packet id in use, a topic that is none.
    pub violations: AtomicU64,
    pub events_dropped: AtomicU64,
    /// How long readings waited for their answers (steps 1 to 5).
    pub answered: Mutex<Histogram>,
    /// Gauge: readings delivered and not yet answered.
    pub unacked: AtomicU64,
    /// Gauge: their bytes in memory, as the gate counts them.
    pub unacked_bytes: AtomicU64,
    /// Gauge: 1 between CONNACK and the end of the connection.
    pub connected: AtomicU64,
    /// Gauge: 1 between the answer to the last SUBSCRIBE and the end of the connection: what is published now comes here.
    pub subscribed: AtomicU64,
    pub pulse: Pulse,
}

/// Cuts all packets off `data` and decodes them, each also as one that is too large to hold; for fuzzing.
pub(crate) fn decode_all(version: MqttVersion, data: &[u8]) {
    let mut input = BytesMut::from(data);
    while let Ok(Some(head)) = codec::Head::peek(&input) {
        assert!(head.total() > head.remaining, "the fixed header counts");
        if input.len() < head.total() {
            return;
        }
        let frame = input.split_to(head.total()).freeze();
        if head.kind() == codec::kind::PUBLISH {
            let mut skim = oversize::Skim::new(head);
            let mut streamed = BytesMut::from(&frame[..]);
            assert!(skim.feed(&mut streamed) && streamed.is_empty(), "it ends where the packet ends");
            let _ = skim.finish(version, 1024);
        }
        let _ = codec::decode(version, head, frame);
    }
}

impl SourceCounters {
    fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    fn set(gauge: &AtomicU64, value: u64) {
        gauge.store(value, Ordering::Relaxed);
    }
}

/// Why a connection did not come about or came to its end.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    #[error("connect to {host}:{port}: {source}")]
    Connect { host: String, port: u16, source: std::io::Error },
    #[error("get an answer to CONNECT within {} ms", timeout.as_millis())]
    ConnectTimeout { timeout: Duration },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("be accepted by the broker: {reason}")]
    Refused { reason: String },
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("keep the connection: the broker closed it")]
    Closed,
    #[error("keep the connection: {0}")]
    Io(#[from] std::io::Error),
    #[error("hear from the broker within two keep-alive intervals")]
    Silent,
    #[error("write to the broker: it does not read")]
    Stalled,
    #[error("get an answer to SUBSCRIBE or UNSUBSCRIBE")]
    SubscribeTimeout,
    #[error("keep the connection: the broker sent DISCONNECT with reason {code:#04x}")]
    Disconnected { code: u8 },
}
