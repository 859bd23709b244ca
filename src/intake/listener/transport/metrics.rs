//! The names of what doors and access count, for `/metrics`.

use std::sync::atomic::AtomicU64;

use crate::intake::listener::counters::ListenerCounters;

/// Name, help, whether it only ever grows, and where it is counted.
pub type Metric = (&'static str, &'static str, bool, fn(&ListenerCounters) -> &AtomicU64);

pub const METRICS: [Metric; 20] = [
    ("listener_endpoints_bound", "Endpoints that are bound", false, |c| &c.endpoints_bound),
    ("listener_accepted", "Connections let in", true, |c| &c.accepted),
    ("listener_refused_full", "Connections closed because of `connections`", true, |c| &c.refused_full),
    ("listener_refused_address", "Closed because of `connections_per_address`", true, |c| &c.refused_address),
    ("listener_refused_rate", "Closed because of `connect_rate`", true, |c| &c.refused_rate),
    ("listener_accept_errors", "Connections the system could not give", true, |c| &c.accept_errors),
    ("listener_tls_failed", "TLS handshakes that failed", true, |c| &c.tls_failed),
    ("listener_tls_timeouts", "TLS handshakes longer than `connect_timeout`", true, |c| &c.tls_timeouts),
    ("listener_websocket_failed", "WebSocket upgrades that failed", true, |c| &c.websocket_failed),
    ("listener_websocket_timeouts", "Upgrades longer than `connect_timeout`", true, |c| &c.websocket_timeouts),
    ("listener_certificate_expiry_seconds", "When the certificate expires, since 1970", false, |c| {
        &c.certificate_expiry_s
    }),
    ("listener_certificate_reloads", "New certificate files taken into use", true, |c| &c.certificate_reloads),
    ("listener_certificate_reloads_failed", "Certificate files that cannot be used", true, |c| {
        &c.certificate_reloads_failed
    }),
    ("listener_logins", "Logins let in", true, |c| &c.logins),
    ("listener_logins_failed", "Wrong users or passwords", true, |c| &c.logins_failed),
    ("listener_logins_denied", "Logins of clients that no rule allows anything", true, |c| &c.logins_denied),
    ("listener_logins_busy", "Logins put off because too many waited", true, |c| &c.logins_busy),
    ("listener_logins_slowed", "Logins that waited for earlier failures", true, |c| &c.logins_slowed),
    ("listener_users", "Users in the password file", false, |c| &c.users),
    ("listener_user_lines_skipped", "Its lines that are not understood", false, |c| &c.user_lines_skipped),
];
