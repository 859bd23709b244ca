//! What a listener has done, and its present state. Read by the metrics at any time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::intake::pulse::Pulse;
use crate::ops::histogram::Histogram;

#[derive(Debug, Default)]
pub struct ListenerCounters {
    /// Readings taken in, their payload, and those that no route wants.
    pub readings: AtomicU64,
    pub payload_bytes: AtomicU64,
    pub unrouted: AtomicU64,
    /// PUBACK and PUBREC sent, the positive ones.
    pub acks: AtomicU64,
    /// How long the readings of QoS 1 and 2 waited for them (steps 1 to 5).
    pub answered: Mutex<Histogram>,
    /// Readings of QoS 0 that were dropped because the gate was closed.
    pub qos0_dropped: AtomicU64,
    /// Readings refused because their client may not publish to the topic.
    pub publish_denied: AtomicU64,
    /// The same PUBLISH of QoS 1 again while it was unanswered: not stored again.
    pub qos1_repeated: AtomicU64,
    /// The same PUBLISH of QoS 2 again: not stored again.
    pub qos2_repeated: AtomicU64,
    /// Another PUBLISH under the packet id of a QoS 2 message that was not released: stored.
    pub qos2_reused: AtomicU64,
    /// Gauge: QoS 2 messages between PUBLISH and PUBCOMP.
    pub qos2_open: AtomicU64,
    /// Readings with a message id.
    pub message_ids: AtomicU64,
    /// Gauge: their bytes as the gate counts them, all connections together.
    pub unacked_bytes: AtomicU64,
    /// Times that a connection found the gate closed, that it was read from more slowly because of its rate, and that its
    /// socket rested because its buffer was full.
    pub gate_closed: AtomicU64,
    pub slowed: AtomicU64,
    pub rested: AtomicU64,
    /// Gauge: sessions, those with a connection, and subscriptions of all of them.
    pub sessions: AtomicU64,
    pub sessions_connected: AtomicU64,
    pub subscriptions: AtomicU64,
    /// Sessions ended before their time because `sessions` were there.
    pub sessions_evicted: AtomicU64,
    /// Subscriptions beyond `subscriptions`, and those that are not allowed.
    pub subscriptions_refused: AtomicU64,
    pub subscriptions_denied: AtomicU64,
    /// Sessions that another connection of the same client took over.
    pub takeovers: AtomicU64,
    /// Gauge: retained messages and their bytes; those that found no room.
    pub retained: AtomicU64,
    pub retained_bytes: AtomicU64,
    pub retained_refused: AtomicU64,
    /// Messages sent to subscribers; gauge: bytes that wait for them; messages that found no room.
    pub sent: AtomicU64,
    pub queued_bytes: AtomicU64,
    pub queue_dropped: AtomicU64,
    /// Messages larger than their subscriber takes.
    pub too_large_for_subscriber: AtomicU64,
    pub wills: AtomicU64,
    /// Connections that sent no CONNECT in time, or one that opens no session.
    pub connect_timeouts: AtomicU64,
    pub connect_refused: AtomicU64,
    /// Connections ended because of a packet that breaks the protocol, one that is too large, more messages at once than
    /// allowed, silence, and a client that does not read.
    pub malformed: AtomicU64,
    pub too_large: AtomicU64,
    pub receive_maximum_exceeded: AtomicU64,
    pub keep_alive_timeouts: AtomicU64,
    pub stalled: AtomicU64,
    /// Things tolerated that a client may not do: an ack for nothing, a packet id in use.
    pub violations: AtomicU64,
    /// Events that found no room.
    pub events_dropped: AtomicU64,
    /// Rows of the spool that were not understood at the start.
    pub facts_skipped: AtomicU64,
    /// Gauge: endpoints that are bound.
    pub endpoints_bound: AtomicU64,
    /// Gauge: connections, those that still shake hands among them.
    pub connections: AtomicU64,
    /// Connections let in.
    pub accepted: AtomicU64,
    /// Connections closed at once, because of `connections`, `connections_per_address` and `connect_rate`.
    pub refused_full: AtomicU64,
    pub refused_address: AtomicU64,
    pub refused_rate: AtomicU64,
    /// The system could not give a connection: no descriptors, no memory.
    pub accept_errors: AtomicU64,
    /// TLS handshakes that failed, and those that took longer than `connect_timeout`.
    pub tls_failed: AtomicU64,
    pub tls_timeouts: AtomicU64,
    /// WebSocket upgrades that failed or were refused, and those that took longer than `connect_timeout`.
    pub websocket_failed: AtomicU64,
    pub websocket_timeouts: AtomicU64,
    /// Gauge: when the server's certificate expires, in seconds since 1970; 0 without TLS.
    pub certificate_expiry_s: AtomicU64,
    /// Times that new certificate files came into use, and that they could not.
    pub certificate_reloads: AtomicU64,
    pub certificate_reloads_failed: AtomicU64,
    /// Logins let in, refused for a wrong user or password, refused for lack of rights, and put off because too many wait.
    pub logins: AtomicU64,
    pub logins_failed: AtomicU64,
    pub logins_denied: AtomicU64,
    pub logins_busy: AtomicU64,
    /// Logins that had to wait because of earlier failures from their address.
    pub logins_slowed: AtomicU64,
    /// Gauge: lines of the password file that are in use, and those that are not understood.
    pub users: AtomicU64,
    pub user_lines_skipped: AtomicU64,
    pub pulse: Pulse,
}

impl ListenerCounters {
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub fn sub(gauge: &AtomicU64, n: u64) {
        gauge.fetch_sub(n, Ordering::Relaxed);
    }

    pub fn set(gauge: &AtomicU64, value: u64) {
        gauge.store(value, Ordering::Relaxed);
    }
}
