//! What a listener has done, and its present state. Read by the metrics at any time.

use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub struct ListenerCounters {
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
}

impl ListenerCounters {
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub fn set(gauge: &AtomicU64, value: u64) {
        gauge.store(value, Ordering::Relaxed);
    }
}
