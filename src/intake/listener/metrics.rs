//! The names of what machines and exchange count, for `/metrics`.

use super::counters::ListenerCounters as C;
use super::transport::Metric;

pub const METRICS: [Metric; 40] = [
    ("listener_readings", "Readings taken in", true, |c: &C| &c.readings),
    ("listener_payload_bytes", "Their payload in bytes", true, |c| &c.payload_bytes),
    ("listener_unrouted", "Readings that no route wants", true, |c| &c.unrouted),
    ("listener_acks", "PUBACK and PUBREC sent", true, |c| &c.acks),
    ("listener_qos0_dropped", "Readings of QoS 0 dropped while the gate was closed", true, |c| &c.qos0_dropped),
    ("listener_publish_denied", "Readings that their client may not publish", true, |c| &c.publish_denied),
    ("listener_qos1_repeated", "Unanswered PUBLISH of QoS 1 that came again", true, |c| &c.qos1_repeated),
    ("listener_qos2_repeated", "PUBLISH of QoS 2 that came again", true, |c| &c.qos2_repeated),
    ("listener_qos2_reused", "Packet ids of QoS 2 used anew without PUBREL", true, |c| &c.qos2_reused),
    ("listener_qos2_open", "QoS 2 messages between PUBLISH and PUBCOMP", false, |c| &c.qos2_open),
    ("listener_message_ids", "Readings with a message id", true, |c| &c.message_ids),
    ("listener_unacked_bytes", "Bytes of readings that are not acknowledged", false, |c| &c.unacked_bytes),
    ("listener_gate_closed", "Times that a client had to wait for acknowledgements", true, |c| &c.gate_closed),
    ("listener_slowed", "Times that a client reached `message_rate` or `byte_rate`", true, |c| &c.slowed),
    ("listener_rested", "Times that a socket rested", true, |c| &c.rested),
    ("listener_sessions", "Sessions", false, |c| &c.sessions),
    ("listener_sessions_connected", "Sessions with a connection", false, |c| &c.sessions_connected),
    ("listener_sessions_evicted", "Sessions ended because of `sessions`", true, |c| &c.sessions_evicted),
    ("listener_subscriptions", "Subscriptions", false, |c| &c.subscriptions),
    ("listener_subscriptions_refused", "Refused because of `subscriptions`", true, |c| &c.subscriptions_refused),
    ("listener_subscriptions_denied", "Refused by the rules", true, |c| &c.subscriptions_denied),
    ("listener_takeovers", "Sessions taken over by another connection", true, |c| &c.takeovers),
    ("listener_retained", "Retained messages", false, |c| &c.retained),
    ("listener_retained_bytes", "Bytes of retained messages", false, |c| &c.retained_bytes),
    ("listener_retained_refused", "Retained messages without room", true, |c| &c.retained_refused),
    ("listener_sent", "Messages sent to subscribers", true, |c| &c.sent),
    ("listener_queued_bytes", "Bytes that wait for subscribers", false, |c| &c.queued_bytes),
    ("listener_queue_dropped", "Messages for subscribers without room", true, |c| &c.queue_dropped),
    ("listener_too_large_for_subscriber", "Messages larger than their subscriber takes", true, |c| {
        &c.too_large_for_subscriber
    }),
    ("listener_wills", "Wills published", true, |c| &c.wills),
    ("listener_connect_timeouts", "Connections without a CONNECT in time", true, |c| &c.connect_timeouts),
    ("listener_connect_refused", "First packets that opened no session", true, |c| &c.connect_refused),
    ("listener_malformed", "Connections ended by a packet that breaks the protocol", true, |c| &c.malformed),
    ("listener_too_large", "Connections ended by a packet above `packet_size_max`", true, |c| &c.too_large),
    ("listener_receive_maximum_exceeded", "Connections ended for too many messages at once", true, |c| {
        &c.receive_maximum_exceeded
    }),
    ("listener_keep_alive_timeouts", "Connections ended by silence", true, |c| &c.keep_alive_timeouts),
    ("listener_stalled", "Connections of clients that do not read", true, |c| &c.stalled),
    ("listener_violations", "Things tolerated that a client may not do", true, |c| &c.violations),
    ("listener_events_dropped", "Events without room", true, |c| &c.events_dropped),
    ("listener_facts_skipped", "Rows of the spool not understood at the start", true, |c| &c.facts_skipped),
];
