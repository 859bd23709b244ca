//! What has been received and not yet answered. Acks may be fired in any order; answers leave in order of arrival
//! (MQTT-4.6.0-2). Pure.
//!
//! [`Window`] is one connection's; [`Ledger`] owns the present one and those of earlier connections whose readings are
//! still on their way through the hub, so that a flapping connection cannot pile up readings beyond the gate's bound.
//! [`Gate`] decides whether the next reading may come in. None of them sends anything.

use crate::intake::Ack;
use crate::intake::window::{self, Window};

/// What the broker gets once the reading is durable (step 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// QoS 0: the slot only keeps the gate honest.
    Nothing,
    PubAck(u16),
    /// For a QoS 2 message out of a session that an earlier client subscribed at QoS 2.
    PubRec(u16),
}

impl window::Answer for Answer {
    const NOTHING: Self = Answer::Nothing;

    fn packet_id(&self) -> Option<u16> {
        match *self {
            Answer::Nothing => None,
            Answer::PubAck(pkid) | Answer::PubRec(pkid) => Some(pkid),
        }
    }
}

/// All that is unanswered in a session: the present connection's window and what earlier ones left in the hub.
#[derive(Debug)]
pub(super) struct Ledger {
    current: Window<Answer>,
    /// At most one for each reading still out: empty ones are removed.
    old: Vec<Window<Answer>>,
    count: u64,
    bytes: u64,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Ledger { current: Window::new(0), old: Vec::new(), count: 0, bytes: 0 }
    }

    /// A new connection begins: from here on, acks of earlier ones answer nobody.
    pub(super) fn next_generation(&mut self) {
        let next = Window::new(self.current.generation() + 1);
        let ended = std::mem::replace(&mut self.current, next);
        if !ended.is_empty() {
            self.old.push(ended);
        }
    }

    /// Enters a reading; see [`Window::push`].
    pub(super) fn push(&mut self, answer: Answer, bytes: u64) -> (Ack, bool) {
        self.count += 1;
        self.bytes += bytes;
        self.current.push(answer, bytes)
    }

    /// Marks a reading as durable. `false`: it belongs to an earlier connection, or to none.
    pub(super) fn fire(&mut self, ack: Ack) -> bool {
        if ack.generation == self.current.generation() {
            return self.current.fire(ack.number);
        }
        if let Some(at) = self.old.iter().position(|window| window.generation() == ack.generation) {
            let window = &mut self.old[at];
            window.fire(ack.number);
            while let Some((_, bytes)) = window.take_ready() {
                self.count -= 1;
                self.bytes -= bytes;
            }
            if window.is_empty() {
                self.old.swap_remove(at);
            }
        }
        false
    }

    /// Takes the next answer that may leave on the present connection.
    pub(super) fn take_ready(&mut self) -> Option<Answer> {
        let (answer, bytes) = self.current.take_ready()?;
        self.count -= 1;
        self.bytes -= bytes;
        Some(answer)
    }

    /// Whether the present connection owes no answer.
    pub(super) fn is_answered(&self) -> bool {
        self.current.is_empty()
    }

    /// Readings unanswered, those of earlier connections included.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Bytes unanswered, those of earlier connections included.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The read gate: closes at the bound, opens again at half of it, so that it does not flutter.
#[derive(Debug)]
pub(super) struct Gate {
    count_max: u64,
    bytes_max: u64,
    closed: bool,
}

impl Gate {
    pub(super) fn new(count_max: u64, bytes_max: u64) -> Self {
        Gate { count_max: count_max.max(1), bytes_max, closed: false }
    }

    /// Whether a reading of `bytes` may come in. A single reading always may: one that alone is larger than the bound
    /// would otherwise wait for ever.
    pub(super) fn admits(&mut self, ledger: &Ledger, bytes: u64) -> bool {
        self.closed = if self.closed {
            ledger.count() > self.count_max / 2 || ledger.bytes() > self.bytes_max / 2
        } else {
            ledger.count() >= self.count_max || ledger.bytes() + bytes > self.bytes_max
        };
        self.closed = self.closed && ledger.count() > 0;
        !self.closed
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    fn answers(ledger: &mut Ledger) -> Vec<Answer> {
        std::iter::from_fn(|| ledger.take_ready()).collect()
    }

    #[test]
    fn an_ack_of_an_old_connection_answers_nobody_but_frees_the_gate() {
        let mut ledger = Ledger::new();
        let (old, _) = ledger.push(Answer::PubAck(1), 10);
        ledger.next_generation();
        let (new, _) = ledger.push(Answer::PubAck(1), 10);
        assert_eq!((ledger.count(), ledger.bytes()), (2, 20));
        assert!(!ledger.fire(old));
        assert_eq!(answers(&mut ledger), []);
        assert_eq!((ledger.count(), ledger.bytes()), (1, 10));
        assert!(ledger.fire(new));
        assert_eq!(answers(&mut ledger), [Answer::PubAck(1)]);
        assert!(ledger.old.is_empty());
    }

    #[test]
    fn a_repeated_packet_id_is_answered_once_after_both_are_durable() {
        let mut window = Window::new(0);
        let (first, repeated) = window.push(Answer::PubAck(7), 1);
        assert!(!repeated);
        let (second, repeated) = window.push(Answer::PubAck(7), 1);
        assert!(repeated);
        assert!(window.fire(first.number));
        assert_eq!(window.take_ready(), Some((Answer::Nothing, 1)));
        assert_eq!(window.take_ready(), None);
        assert!(window.fire(second.number));
        assert_eq!(window.take_ready(), Some((Answer::PubAck(7), 1)));
        assert!(!window.push(Answer::PubAck(7), 1).1, "the id is free again");
    }

    #[test]
    fn the_gate_opens_at_half() {
        let mut ledger = Ledger::new();
        let mut gate = Gate::new(4, 1000);
        let acks: Vec<Ack> = (1..=4).map(|pkid| ledger.push(Answer::PubAck(pkid), 10).0).collect();
        assert!(!gate.admits(&ledger, 10));
        for (ack, open) in acks.iter().zip([false, true, true, true]) {
            ledger.fire(*ack);
            ledger.take_ready();
            assert_eq!(gate.admits(&ledger, 10), open);
        }
    }

    #[test]
    fn one_reading_larger_than_the_bound_still_comes_in_alone() {
        let mut ledger = Ledger::new();
        let mut gate = Gate::new(100, 50);
        assert!(gate.admits(&ledger, 80));
        ledger.push(Answer::Nothing, 80);
        assert!(!gate.admits(&ledger, 1));
    }

    /// Reconnects, arrivals and acks in any order.
    #[derive(Debug, Clone)]
    enum Step {
        Arrive(u16),
        /// Fires one of those still out.
        Fire(prop::sample::Index),
        Reconnect,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1u16..=65535).prop_map(Step::Arrive),
            4 => any::<prop::sample::Index>().prop_map(Step::Fire),
            1 => Just(Step::Reconnect),
        ]
    }

    proptest! {
        #[test]
        fn any_firing_order_answers_in_order_of_arrival_each_once(order in Just((0..200u64).collect::<Vec<_>>()).prop_shuffle()) {
            let mut window = Window::new(3);
            for pkid in 1..=200 {
                window.push(Answer::PubAck(pkid), 1);
            }
            let mut sent = Vec::new();
            for number in order {
                prop_assert!(window.fire(number));
                prop_assert!(!window.fire(number), "an ack counts once");
                while let Some((Answer::PubAck(pkid), _)) = window.take_ready() {
                    sent.push(pkid);
                }
            }
            prop_assert_eq!(sent, (1..=200).collect::<Vec<u16>>());
            prop_assert!(window.is_empty());
        }

        #[test]
        fn nothing_is_answered_before_it_is_durable(steps in prop::collection::vec(step(), 1..300)) {
            let mut ledger = Ledger::new();
            let mut out: Vec<(Ack, u16)> = Vec::new();
            // The plain model: the present connection's readings in order, each durable or not.
            let mut model: VecDeque<(Ack, u16, bool)> = VecDeque::new();
            for step in steps {
                match step {
                    Step::Arrive(pkid) if model.iter().all(|(_, known, _)| *known != pkid) => {
                        let (ack, _) = ledger.push(Answer::PubAck(pkid), 5);
                        out.push((ack, pkid));
                        model.push_back((ack, pkid, false));
                    }
                    Step::Arrive(_) => {}
                    Step::Fire(at) if !out.is_empty() => {
                        let (ack, _) = out.swap_remove(at.index(out.len()));
                        let present = model.iter_mut().find(|(known, ..)| *known == ack);
                        prop_assert_eq!(ledger.fire(ack), present.is_some());
                        if let Some((.., durable)) = present {
                            *durable = true;
                        }
                    }
                    Step::Fire(_) => {}
                    Step::Reconnect => {
                        ledger.next_generation();
                        model.clear();
                    }
                }
                let mut expected = Vec::new();
                while model.front().is_some_and(|(.., durable)| *durable) {
                    expected.extend(model.pop_front().map(|(_, pkid, _)| Answer::PubAck(pkid)));
                }
                prop_assert_eq!(answers(&mut ledger), expected);
                prop_assert!(ledger.count() >= out.len() as u64);
                prop_assert_eq!(ledger.bytes(), ledger.count() * 5);
            }
            for (ack, _) in out {
                ledger.fire(ack);
            }
            answers(&mut ledger);
            prop_assert_eq!((ledger.count(), ledger.bytes()), (0, 0));
        }
    }
}
