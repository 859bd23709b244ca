//! The names of what a listener counts, for `/metrics`.

use std::sync::atomic::AtomicU64;

use super::counters::ListenerCounters;

/// Name, help, whether it only ever grows, and where it is counted.
pub type Metric = (&'static str, &'static str, bool, fn(&ListenerCounters) -> &AtomicU64);

pub const METRICS: [Metric; 61] = [
    ("source_readings", "Readings taken in (step 1)", true, |c| &c.readings),
    ("source_payload_bytes", "Their payloads", true, |c| &c.payload_bytes),
    ("source_pubacks", "PUBACKs sent (step 5)", true, |c| &c.acks),
    ("source_unacked_bytes", "Their bytes in memory", false, |c| &c.unacked_bytes),
    ("source_gate_closed", "Times reading was paused", true, |c| &c.gate_closed),
    ("source_takeovers", "Times another client took the session", true, |c| &c.takeovers),
    ("source_malformed", "Packets that broke the protocol", true, |c| &c.malformed),
    ("source_oversize", "Packets above packet_size_max", true, |c| &c.too_large),
    ("source_violations", "Packets that broke the protocol and were taken nevertheless", true, |c| &c.violations),
    ("source_events_dropped", "Events that found no room", true, |c| &c.events_dropped),
    ("listener_connections", "Connections, those that shake hands among them", false, |c| &c.connections),
    ("listener_unrouted", "Readings that no route wants", true, |c| &c.unrouted),
    ("listener_qos0_dropped", "Readings of QoS 0 that found the gate closed", true, |c| &c.qos0_dropped),
    ("listener_publish_denied", "Readings that no rule allows", true, |c| &c.publish_denied),
    ("listener_qos1_repeated", "PUBLISHes of QoS 1 repeated while unanswered", true, |c| &c.qos1_repeated),
    ("listener_qos2_repeated", "PUBLISHes of QoS 2 repeated, not stored again", true, |c| &c.qos2_repeated),
    ("listener_qos2_reused", "Other messages under an unreleased packet id, stored", true, |c| &c.qos2_reused),
    ("listener_qos2_open", "QoS 2 messages between PUBLISH and PUBCOMP", false, |c| &c.qos2_open),
    ("listener_message_ids", "Readings with a message id", true, |c| &c.message_ids),
    ("listener_slowed", "Times a client was read from more slowly for its rate", true, |c| &c.slowed),
    ("listener_rested", "Times a socket rested because its buffer was full", true, |c| &c.rested),
    ("listener_sessions", "Sessions", false, |c| &c.sessions),
    ("listener_sessions_connected", "Those with a connection", false, |c| &c.sessions_connected),
    ("listener_sessions_evicted", "Sessions ended early because of `sessions`", true, |c| &c.sessions_evicted),
    ("listener_subscriptions", "Subscriptions of all sessions", false, |c| &c.subscriptions),
    ("listener_subscriptions_refused", "Subscriptions beyond `subscriptions`", true, |c| &c.subscriptions_refused),
    ("listener_subscriptions_denied", "Subscriptions that no rule allows", true, |c| &c.subscriptions_denied),
    ("listener_retained", "Retained messages", false, |c| &c.retained),
    ("listener_retained_bytes", "Their bytes", false, |c| &c.retained_bytes),
    ("listener_retained_refused", "Retained messages that found no room", true, |c| &c.retained_refused),
    ("listener_sent", "Messages sent to subscribers", true, |c| &c.sent),
    ("listener_queued_bytes", "Bytes that wait for subscribers", false, |c| &c.queued_bytes),
    ("listener_queue_dropped", "Messages to subscribers that found no room", true, |c| &c.queue_dropped),
    ("listener_too_large_for_subscriber", "Messages larger than their subscriber takes", true, |c| {
        &c.too_large_for_subscriber
    }),
    ("listener_wills", "Wills published", true, |c| &c.wills),
    ("listener_connect_timeouts", "Connections without CONNECT in time", true, |c| &c.connect_timeouts),
    ("listener_connect_refused", "CONNECTs that were refused", true, |c| &c.connect_refused),
    ("listener_receive_maximum_exceeded", "Connections ended for too many messages at once", true, |c| {
        &c.receive_maximum_exceeded
    }),
    ("listener_keep_alive_timeouts", "Connections ended for silence", true, |c| &c.keep_alive_timeouts),
    ("listener_stalled", "Connections ended because their client does not read", true, |c| &c.stalled),
    ("listener_facts_skipped", "Rows of the spool not understood at the start", true, |c| &c.facts_skipped),
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
