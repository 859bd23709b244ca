//! The in-flight window of one connection: what was sent with QoS 1 or 2 and is not acknowledged. Pure. It outlives a
//! connection: what was not acknowledged on the old one is sent again on the new one, oldest first (MQTT-4.4.0-1).

use std::collections::VecDeque;
use std::time::Duration;

use super::super::feed::Message;

/// How far a message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A PUBLISH has to be answered.
    Published,
    /// QoS 2: PUBREC has come, and PUBREL has to be answered.
    Released,
}

#[derive(Debug)]
pub struct InFlight {
    pub message: Message,
    /// Of the first sending, since the start of the run.
    pub sent_at: Duration,
    pub stage: Stage,
    order: u64,
    /// Whether it was sent on the present connection. An answer to something that was not is an answer to nothing.
    on_wire: bool,
}

/// Packet ids run from 1 to the size of the window; each belongs to one slot.
#[derive(Debug)]
pub struct Window {
    slots: Vec<Option<InFlight>>,
    /// First in, first out, so that an id rests as long as possible before it is used again.
    free: VecDeque<u16>,
    /// Left by an old connection, oldest first.
    waiting: VecDeque<u16>,
    on_wire: usize,
    /// The broker may allow less than we would (receive maximum, MQTT-3.3.4-9).
    limit: usize,
    next_order: u64,
}

impl Window {
    /// A window for up to `size` messages, at least one.
    pub fn new(size: u16) -> Self {
        let size = size.max(1);
        Self {
            slots: (0..size).map(|_| None).collect(),
            free: (1..=size).collect(),
            waiting: VecDeque::new(),
            on_wire: 0,
            limit: size.into(),
            next_order: 0,
        }
    }

    /// Whether another PUBLISH may go out on this connection.
    pub fn has_room(&self) -> bool {
        self.on_wire < self.limit && (!self.free.is_empty() || !self.waiting.is_empty())
    }

    pub fn is_half_free(&self) -> bool {
        self.on_wire <= self.limit / 2
    }

    pub fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// A new connection: nothing is on the wire. Without a session at the broker, QoS 2 begins again with PUBLISH.
    pub fn reconnect(&mut self, session_present: bool, receive_max: Option<u16>) {
        self.on_wire = 0;
        self.limit = receive_max.map_or(self.slots.len(), |max| self.slots.len().min(max.into()));
        let mut waiting = Vec::new();
        for (pkid, slot) in (1..).zip(&mut self.slots) {
            let Some(in_flight) = slot else { continue };
            in_flight.on_wire = false;
            if !session_present {
                in_flight.stage = Stage::Published;
            }
            waiting.push((in_flight.order, pkid));
        }
        waiting.sort_unstable();
        self.waiting = waiting.into_iter().map(|(_, pkid)| pkid).collect();
    }

    /// The next one that has to be sent again, which counts as sent from now on.
    pub fn next_waiting(&mut self) -> Option<(u16, &InFlight)> {
        let pkid = self.waiting.pop_front()?;
        let in_flight = self.slots[usize::from(pkid) - 1].as_mut()?;
        in_flight.on_wire = true;
        self.on_wire += 1;
        Some((pkid, in_flight))
    }

    /// Takes a new message and gives it a packet id; `None` when there is no free one. Those that wait go first.
    pub fn put(&mut self, message: Message, sent_at: Duration) -> Option<u16> {
        let pkid = self.free.pop_front()?;
        let order = self.next_order;
        self.next_order += 1;
        self.on_wire += 1;
        let in_flight = InFlight { message, sent_at, stage: Stage::Published, order, on_wire: true };
        self.slots[usize::from(pkid) - 1] = Some(in_flight);
        Some(pkid)
    }

    /// PUBREC: whether there is a PUBLISH that it answers, so that PUBREL is due. A repeated one is answered again.
    pub fn release(&mut self, pkid: u16) -> bool {
        let Some(in_flight) = self.outstanding(pkid) else { return false };
        in_flight.stage = Stage::Released;
        true
    }

    /// PUBACK, PUBCOMP or a refusal: the message is done with. `None` for an id that nothing on this connection has.
    pub fn settle(&mut self, pkid: u16, stage: Stage) -> Option<InFlight> {
        self.outstanding(pkid).filter(|in_flight| in_flight.stage == stage)?;
        self.free.push_back(pkid);
        self.on_wire -= 1;
        self.slots[usize::from(pkid) - 1].take()
    }

    fn outstanding(&mut self, pkid: u16) -> Option<&mut InFlight> {
        let slot = self.slots.get_mut(usize::from(pkid).checked_sub(1)?)?;
        slot.as_mut().filter(|in_flight| in_flight.on_wire)
    }

    /// The numbers of all messages that are not acknowledged, oldest first.
    pub fn numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.slots.iter().flatten().map(|in_flight| in_flight.message.number).collect();
        numbers.sort_unstable();
        numbers
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::super::feed::Place;
    use super::*;

    fn message(number: u64) -> Message {
        let place = Arc::new(Place { topic: "t".into(), equipment: "e".into() });
        Message { number, place, payload: Bytes::new() }
    }

    fn filled(size: u16, messages: u64) -> Window {
        let mut window = Window::new(size);
        for number in 0..messages {
            window.put(message(number), Duration::ZERO).unwrap();
        }
        window
    }

    #[test]
    fn is_full_at_its_size_and_has_room_after_an_acknowledgement() {
        let mut window = filled(3, 3);
        assert!(!window.has_room());
        assert!(window.put(message(3), Duration::ZERO).is_none());
        assert_eq!(window.settle(2, Stage::Published).unwrap().message.number, 1);
        assert!(window.has_room());
        assert!(window.settle(2, Stage::Published).is_none(), "acknowledged twice");
        assert!(window.settle(0, Stage::Published).is_none() && window.settle(4, Stage::Published).is_none());
    }

    #[test]
    fn a_smaller_receive_maximum_holds() {
        let mut window = filled(3, 3);
        window.reconnect(false, Some(2));
        assert!(window.next_waiting().is_some() && window.next_waiting().is_some());
        assert!(!window.has_room());
        assert!(window.settle(3, Stage::Published).is_none(), "not yet sent on this connection");
    }

    #[test]
    fn sends_again_in_the_order_of_the_first_sending() {
        let mut window = filled(3, 3);
        window.settle(1, Stage::Published).unwrap();
        assert_eq!(window.put(message(3), Duration::ZERO), Some(1));
        window.reconnect(false, None);
        let again: Vec<u64> = std::iter::from_fn(|| window.next_waiting().map(|(_, it)| it.message.number)).collect();
        assert_eq!(again, [1, 2, 3]);
        assert_eq!(window.numbers(), [1, 2, 3]);
    }

    #[test]
    fn qos_2_goes_on_where_the_session_is_and_begins_again_without() {
        for (session_present, stage) in [(true, Stage::Released), (false, Stage::Published)] {
            let mut window = filled(2, 1);
            assert!(window.release(1) && !window.release(2));
            assert!(window.settle(1, Stage::Published).is_none(), "PUBACK for a QoS 2 message");
            window.reconnect(session_present, None);
            assert_eq!(window.next_waiting().unwrap().1.stage, stage);
            assert!(window.settle(1, stage).is_some() && window.is_empty());
        }
    }

    proptest! {
        #[test]
        fn every_message_is_settled_once_however_connections_break(steps in prop::collection::vec(0_u8..8, 0..400)) {
            let mut window = Window::new(5);
            let (mut next, mut settled) = (0, BTreeSet::new());
            for step in steps {
                match step {
                    0 => window.reconnect(false, Some(3)),
                    1..=3 if window.has_room() => {
                        if window.next_waiting().is_none() && window.put(message(next), Duration::ZERO).is_some() {
                            next += 1;
                        }
                    }
                    pkid => {
                        if let Some(done) = window.settle(u16::from(pkid).saturating_sub(2), Stage::Published) {
                            prop_assert!(settled.insert(done.message.number));
                        }
                    }
                }
                prop_assert!(window.on_wire <= window.limit.max(5));
            }
            let open: BTreeSet<u64> = window.numbers().into_iter().collect();
            prop_assert!(open.is_disjoint(&settled));
            prop_assert_eq!((open.len() + settled.len()) as u64, next);
        }
    }
}
