//! What waits for one subscriber, and what is under way to it (4.3, 4.4, 4.9). Pure.
//!
//! Messages leave in the order in which they came. What does not fit is dropped: the way to Kafka does not pass here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::message::Message;
use crate::intake::window::PacketIds;

/// A message as this subscriber gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) message: Arc<Message>,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) ids: Vec<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// QoS 1, waits for PUBACK.
    Published1,
    /// QoS 2, waits for PUBREC.
    Published2,
    /// QoS 2, waits for PUBCOMP.
    Released,
}

#[derive(Debug)]
struct Flight {
    packet_id: u16,
    stage: Stage,
    /// `None` once the subscriber has it.
    item: Option<Item>,
}

/// What to send next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Send {
    Publish {
        item: Item,
        /// 0 with QoS 0.
        packet_id: u16,
        dup: bool,
    },
    PubRel(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    Known,
    /// PUBREL is due.
    Release,
    Unknown,
}

/// Bounds of one subscriber's queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) messages: usize,
    pub(super) bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct Outgoing {
    waiting: VecDeque<Item>,
    flying: VecDeque<Flight>,
    /// Of `flying`, how many have been sent on the present connection.
    sent: usize,
    ids: PacketIds,
    last_id: u16,
    bytes: u64,
    /// Of `waiting`, those of QoS 0.
    best_effort: usize,
}

impl Outgoing {
    /// Queues a message. What does not fit drops messages of QoS 0, and then itself. Returns how many were dropped.
    /// `left` is what all queues together may still take.
    pub(super) fn push(&mut self, item: Item, bounds: Bounds, left: u64) -> u64 {
        let cost = item.message.cost();
        let mut dropped = 0;
        let mut freed = 0;
        while !self.fits(cost, bounds) || cost > left + freed {
            let Some(bytes) = self.drop_best_effort(item.qos) else { return dropped + 1 };
            dropped += 1;
            freed += bytes;
        }
        self.bytes += cost;
        self.best_effort += usize::from(item.qos == 0);
        self.waiting.push_back(item);
        dropped
    }

    fn fits(&self, cost: u64, bounds: Bounds) -> bool {
        self.waiting.len() + self.flying.len() < bounds.messages && self.bytes + cost <= bounds.bytes
    }

    /// Makes room for a message of QoS 1 or 2 by the oldest of QoS 0.
    fn drop_best_effort(&mut self, qos: u8) -> Option<u64> {
        if qos == 0 || self.best_effort == 0 {
            return None;
        }
        let at = self.waiting.iter().position(|item| item.qos == 0)?;
        let bytes = self.waiting.remove(at)?.message.cost();
        self.best_effort -= 1;
        self.bytes -= bytes;
        Some(bytes)
    }

    /// The next to send, with at most `window` of QoS 1 and 2 under way. On a new connection, first what the earlier
    /// one left unanswered, in its order and with its ids [MQTT-4.4.0-1].
    pub(super) fn next(&mut self, window: usize, now: Duration) -> Option<Send> {
        if let Some(flight) = self.flying.get(self.sent) {
            // After a reconnect too, the client's window holds [MQTT-4.9.0-2].
            if self.sent >= window {
                return None;
            }
            self.sent += 1;
            return Some(match &flight.item {
                Some(item) => Send::Publish { item: item.clone(), packet_id: flight.packet_id, dup: true },
                None => Send::PubRel(flight.packet_id),
            });
        }
        loop {
            let first = self.waiting.front()?;
            let expired = first.message.is_expired(now);
            if !expired && first.qos > 0 && self.flying.len() >= window {
                return None;
            }
            let item = self.waiting.pop_front()?;
            if item.qos == 0 {
                self.best_effort -= 1;
            }
            if expired || item.qos == 0 {
                self.bytes -= item.message.cost();
            }
            if expired {
                continue;
            }
            return Some(self.launch(item));
        }
    }

    fn launch(&mut self, item: Item) -> Send {
        if item.qos == 0 {
            return Send::Publish { item, packet_id: 0, dup: false };
        }
        let packet_id = self.next_id();
        let stage = if item.qos == 1 { Stage::Published1 } else { Stage::Published2 };
        self.flying.push_back(Flight { packet_id, stage, item: Some(item.clone()) });
        self.sent = self.flying.len();
        Send::Publish { item, packet_id, dup: false }
    }

    /// The window is smaller than the number of ids, so one is free.
    fn next_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if self.ids.insert(self.last_id) {
                return self.last_id;
            }
        }
    }

    pub(super) fn puback(&mut self, packet_id: u16) -> Answered {
        self.finish(packet_id, Stage::Published1)
    }

    /// `refused`: the subscriber did not take it, and that was it [MQTT-4.3.3-4].
    pub(super) fn pubrec(&mut self, packet_id: u16, refused: bool) -> Answered {
        let Some(flight) = self.flying.iter_mut().find(|flight| flight.packet_id == packet_id) else {
            return Answered::Unknown;
        };
        match flight.stage {
            Stage::Published1 => Answered::Unknown,
            Stage::Published2 if refused => self.finish(packet_id, Stage::Published2),
            Stage::Published2 | Stage::Released => {
                flight.stage = Stage::Released;
                if let Some(item) = flight.item.take() {
                    self.bytes -= item.message.cost();
                }
                Answered::Release
            }
        }
    }

    pub(super) fn pubcomp(&mut self, packet_id: u16) -> Answered {
        self.finish(packet_id, Stage::Released)
    }

    fn finish(&mut self, packet_id: u16, stage: Stage) -> Answered {
        let is_it = |flight: &Flight| flight.packet_id == packet_id && flight.stage == stage;
        let Some(at) = self.flying.iter().position(is_it) else { return Answered::Unknown };
        if let Some(Flight { item: Some(item), .. }) = self.flying.remove(at) {
            self.bytes -= item.message.cost();
        }
        self.sent -= usize::from(at < self.sent);
        self.ids.remove(packet_id);
        Answered::Known
    }

    /// A message that cannot be sent is as if it had been answered.
    pub(super) fn forget(&mut self, packet_id: u16) -> Answered {
        match self.finish(packet_id, Stage::Published1) {
            Answered::Unknown => self.finish(packet_id, Stage::Published2),
            known => known,
        }
    }

    /// A new connection of the same session begins.
    pub(super) fn reconnected(&mut self) {
        self.sent = 0;
    }

    /// The connection has ended: messages of QoS 0 are not kept for the next.
    pub(super) fn disconnected(&mut self) -> u64 {
        let dropped = self.best_effort as u64;
        while self.best_effort > 0 && self.drop_best_effort(1).is_some() {}
        self.waiting.shrink_to_fit();
        dropped
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::intake::listener::packet::Forwarded;

    const BOUNDS: Bounds = Bounds { messages: 8, bytes: 1 << 20 };

    fn item(number: usize, qos: u8) -> Item {
        let message = Message {
            topic: "t".into(),
            payload: Bytes::from(number.to_string()),
            qos,
            retain: false,
            forwarded: Forwarded::default(),
            expires_at: None,
            publisher: 0,
        };
        Item { message: Arc::new(message), qos, retain: false, ids: Vec::new() }
    }

    fn sent(send: Send) -> (String, u16, bool) {
        match send {
            Send::Publish { item, packet_id, dup } => {
                (String::from_utf8(item.message.payload.to_vec()).unwrap(), packet_id, dup)
            }
            Send::PubRel(packet_id) => ("PUBREL".to_owned(), packet_id, false),
        }
    }

    #[test]
    fn the_room_of_all_queues_together_counts_too() {
        let mut outgoing = Outgoing::default();
        let cost = item(1, 0).message.cost();
        assert_eq!(outgoing.push(item(1, 0), BOUNDS, cost), 0);
        assert_eq!(outgoing.push(item(2, 1), BOUNDS, cost - 1), 1, "the one of QoS 0 makes room");
        assert_eq!(outgoing.push(item(3, 1), BOUNDS, 0), 1, "nothing can make room");
        assert_eq!(sent(outgoing.next(10, Duration::ZERO).unwrap()), ("2".to_owned(), 1, false));
        assert_eq!(outgoing.next(10, Duration::ZERO), None);
    }

    #[test]
    fn a_smaller_window_after_a_reconnect_is_kept() {
        let mut outgoing = Outgoing::default();
        for number in 1..=3 {
            outgoing.push(item(number, 1), BOUNDS, 1 << 20);
            outgoing.next(10, Duration::ZERO).unwrap();
        }
        outgoing.reconnected();
        assert_eq!(sent(outgoing.next(1, Duration::ZERO).unwrap()), ("1".to_owned(), 1, true));
        assert_eq!(outgoing.next(1, Duration::ZERO), None);
        assert_eq!(outgoing.puback(1), Answered::Known);
        assert_eq!(sent(outgoing.next(1, Duration::ZERO).unwrap()), ("2".to_owned(), 2, true));
        assert_eq!(outgoing.puback(3), Answered::Known, "not sent on this connection, but answered on the last");
        assert_eq!(outgoing.puback(2), Answered::Known);
        assert_eq!((outgoing.next(1, Duration::ZERO), outgoing.bytes()), (None, 0));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8),
        Next,
        Answer(usize),
        Reconnect,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u8..3).prop_map(Step::Push),
            4 => Just(Step::Next),
            3 => any::<usize>().prop_map(Step::Answer),
            1 => Just(Step::Reconnect),
        ]
    }

    proptest! {
        /// Against a subscriber that answers when it likes: order, ids, window, bounds, and nothing left in the end.
        #[test]
        fn each_message_of_qos_1_and_2_arrives_in_order(steps in prop::collection::vec(step(), 1..200), window in 1usize..5) {
            let mut outgoing = Outgoing::default();
            // Ids that the subscriber has to answer, with the packet that it is to answer.
            let mut open: Vec<(u16, &str)> = Vec::new();
            let (mut pushed, mut expected, mut arrived) = (0, Vec::new(), Vec::new());
            let turn = [Step::Next, Step::Answer(0)];
            let drain = turn.iter().cycle().take(400).cloned();
            for step in steps.into_iter().chain(drain) {
                match step {
                    Step::Push(qos) => {
                        pushed += 1;
                        if outgoing.push(item(pushed, qos), BOUNDS, 1 << 20) == 0 && qos > 0 {
                            expected.push(pushed.to_string());
                        }
                    }
                    Step::Next => match outgoing.next(window, Duration::ZERO) {
                        Some(Send::Publish { item, packet_id, dup }) if packet_id > 0 => {
                            if !dup {
                                arrived.push(String::from_utf8(item.message.payload.to_vec()).unwrap());
                            }
                            prop_assert!(open.iter().all(|(id, _)| *id != packet_id), "an id twice");
                            open.push((packet_id, if item.qos == 1 { "puback" } else { "pubrec" }));
                        }
                        Some(Send::PubRel(packet_id)) => open.push((packet_id, "pubcomp")),
                        _ => {}
                    },
                    Step::Answer(_) if open.is_empty() => {}
                    Step::Answer(at) => {
                        let (id, with) = open.remove(at % open.len());
                        let answered = match with {
                            "puback" => outgoing.puback(id),
                            "pubrec" => outgoing.pubrec(id, false),
                            _ => outgoing.pubcomp(id),
                        };
                        prop_assert_ne!(answered, Answered::Unknown, "{} {}", with, id);
                        if with == "pubrec" {
                            open.push((id, "pubcomp"));
                        }
                    }
                    Step::Reconnect => {
                        outgoing.disconnected();
                        outgoing.reconnected();
                        open.clear();
                    }
                }
                prop_assert!(open.len() <= window);
            }
            // What was dropped to make room was of QoS 0; what counts as dropped with it is not expected.
            arrived.retain(|payload| expected.contains(payload));
            prop_assert_eq!(arrived, expected);
            prop_assert_eq!(outgoing.bytes(), 0);
        }
    }
}
