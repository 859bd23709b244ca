//! A message for local subscribers, and how much memory it takes. Pure.

use std::time::Duration;

use bytes::Bytes;

use super::packet::{Forwarded, Publish};

/// Memory of a queued message beside topic, payload and properties.
const OVERHEAD_BYTES: u64 = 160;

/// Shared by all who wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) topic: Box<str>,
    /// A copy: a slice would keep a whole read buffer in memory.
    pub(super) payload: Bytes,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) forwarded: Forwarded,
    /// Since the listener's start.
    pub(super) expires_at: Option<Duration>,
    /// Number of the session that published it; 0: none.
    pub(super) publisher: u64,
}

impl Message {
    pub(super) fn of(publish: &Publish<'_>, topic: &str, publisher: u64, now: Duration) -> Self {
        let expiry = publish.forwarded.properties.message_expiry_s;
        Message {
            topic: topic.into(),
            payload: Bytes::copy_from_slice(publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            forwarded: publish.forwarded.clone(),
            expires_at: expiry.map(|seconds| now + Duration::from_secs(u64::from(seconds))),
            publisher,
        }
    }

    /// What it takes in memory, in bytes.
    pub(super) fn cost(&self) -> u64 {
        OVERHEAD_BYTES + (self.topic.len() + self.payload.len() + self.forwarded_bytes()) as u64
    }

    fn forwarded_bytes(&self) -> usize {
        let properties = &self.forwarded.properties;
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let user: usize = properties.user.iter().map(|(name, text)| 48 + name.len() + text.len()).sum();
        text(&properties.content_type)
            + text(&properties.response_topic)
            + properties.correlation_data.as_ref().map_or(0, Bytes::len)
            + user
    }

    pub(super) fn is_expired(&self, now: Duration) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// What is left of its time, in seconds [MQTT-3.3.2-6].
    pub(super) fn left_s(&self, now: Duration) -> Option<u32> {
        let left = self.expires_at?.saturating_sub(now).as_secs();
        Some(u32::try_from(left).unwrap_or(u32::MAX).max(1))
    }
}
