//! Retained messages, bounded by number and bytes (3.3.1.3). Pure: what is to be written is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::filter;
use super::message::Message;

/// Topics written in one go.
const BATCH: usize = 64;

#[derive(Debug)]
pub(super) struct Retained {
    messages: BTreeMap<Box<str>, Arc<Message>>,
    bytes: u64,
    count_max: usize,
    bytes_max: u64,
    /// Topics whose row in the spool is not what is here. At most one for each message or row.
    changed: BTreeSet<Box<str>>,
    /// Topics that have a row.
    rows: BTreeSet<Box<str>>,
}

/// What becomes of a topic's row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Row {
    Put(Arc<Message>),
    Delete(Box<str>),
}

impl Retained {
    pub(super) fn new(count_max: u32, bytes_max: u64) -> Self {
        Retained {
            messages: BTreeMap::new(),
            bytes: 0,
            count_max: count_max as usize,
            bytes_max,
            changed: BTreeSet::new(),
            rows: BTreeSet::new(),
        }
    }

    /// A message as it was found at the start.
    pub(super) fn load(&mut self, message: Arc<Message>) {
        let topic = message.topic.clone();
        self.rows.insert(topic.clone());
        if self.set(message) {
            self.changed.remove(&topic);
        }
    }

    /// Keeps the latest message of its topic; one without payload removes it [MQTT-3.3.1-6]. `false`: it does not fit.
    /// What the topic had is gone then too: an old value is worse than none.
    pub(super) fn set(&mut self, message: Arc<Message>) -> bool {
        self.remove(&message.topic);
        if message.payload.is_empty() {
            return true;
        }
        let cost = message.cost();
        let fits = self.messages.len() < self.count_max && self.bytes + cost <= self.bytes_max;
        if fits {
            self.bytes += cost;
            self.changed.insert(message.topic.clone());
            self.messages.insert(message.topic.clone(), message);
        } else if self.rows.contains(&message.topic) {
            self.changed.insert(message.topic.clone());
        }
        fits
    }

    fn remove(&mut self, topic: &str) {
        let Some(old) = self.messages.remove(topic) else { return };
        self.bytes -= old.cost();
        if self.rows.contains(topic) {
            self.changed.insert(topic.into());
        } else {
            self.changed.remove(topic);
        }
    }

    /// Those that a filter matches and whose time has not run out.
    pub(super) fn matching(&mut self, filter: &str, now: Duration) -> Vec<Arc<Message>> {
        let expired: Vec<Box<str>> =
            self.messages.values().filter(|message| message.is_expired(now)).map(|m| m.topic.clone()).collect();
        for topic in expired {
            self.remove(&topic);
        }
        self.messages.values().filter(|message| filter::matches(filter, &message.topic)).cloned().collect()
    }

    /// The next rows to be written, as they are now: many changes of a topic are one.
    pub(super) fn take_changed(&mut self) -> Vec<Row> {
        let topics: Vec<Box<str>> = self.changed.iter().take(BATCH).cloned().collect();
        let row = |topic: Box<str>| {
            self.changed.remove(&topic);
            match self.messages.get(&topic) {
                Some(message) => {
                    self.rows.insert(topic);
                    Row::Put(Arc::clone(message))
                }
                None => {
                    self.rows.remove(&topic);
                    Row::Delete(topic)
                }
            }
        };
        topics.into_iter().map(row).collect()
    }

    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::intake::listener::packet::Forwarded;

    fn message(topic: &str, payload: &'static str, expires_s: Option<u64>) -> Arc<Message> {
        Arc::new(Message {
            topic: topic.into(),
            payload: Bytes::from_static(payload.as_bytes()),
            qos: 1,
            retain: true,
            forwarded: Forwarded::default(),
            expires_at: expires_s.map(Duration::from_secs),
            publisher: 0,
        })
    }

    #[test]
    fn the_latest_of_each_topic_stays_and_an_empty_one_removes_it() {
        let mut retained = Retained::new(10, 1 << 20);
        assert!(retained.set(message("a", "1", None)));
        assert!(retained.set(message("a", "2", None)));
        assert!(retained.set(message("b/c", "3", None)));
        assert_eq!(retained.matching("#", Duration::ZERO).len(), 2);
        assert_eq!(retained.matching("a", Duration::ZERO)[0].payload, "2");
        assert!(retained.set(message("a", "", None)));
        assert_eq!((retained.len(), retained.bytes()), (1, message("b/c", "3", None).cost()));
    }

    #[test]
    fn what_does_not_fit_leaves_no_old_value_behind() {
        let cost = message("a", "1", None).cost();
        let mut retained = Retained::new(2, cost * 2);
        assert!(retained.set(message("a", "1", None)));
        assert!(retained.set(message("b", "1", None)));
        assert!(!retained.set(message("c", "1", None)), "a third");
        assert!(!retained.set(message("a", "a value too long for what is left", None)));
        assert!(retained.matching("a", Duration::ZERO).is_empty());
        assert_eq!((retained.len(), retained.bytes()), (1, cost));
    }

    #[test]
    fn many_changes_of_a_topic_are_one_row() {
        let mut retained = Retained::new(10, 1 << 20);
        for _ in 0..3 {
            retained.set(message("a", "1", None));
        }
        assert_eq!(retained.take_changed(), [Row::Put(message("a", "1", None))]);
        assert!(retained.take_changed().is_empty());
        retained.set(message("a", "", None));
        assert_eq!(retained.take_changed(), [Row::Delete("a".into())]);
        retained.set(message("b", "1", None));
        retained.set(message("b", "", None));
        assert!(!retained.has_changed(), "it was never written");
    }

    #[test]
    fn a_row_that_has_no_place_any_more_is_deleted() {
        let mut retained = Retained::new(1, 1 << 20);
        retained.load(message("a", "1", None));
        retained.load(message("b", "1", None));
        assert_eq!(retained.take_changed(), [Row::Delete("b".into())]);
    }

    #[test]
    fn an_expired_one_is_not_sent() {
        let mut retained = Retained::new(10, 1 << 20);
        retained.set(message("a", "1", Some(5)));
        assert_eq!(retained.matching("a", Duration::from_secs(4)).len(), 1);
        assert!(retained.matching("a", Duration::from_secs(5)).is_empty());
        assert_eq!(retained.len(), 0);
    }
}
