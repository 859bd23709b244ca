//! The unanswered readings of one connection. Acks may be fired in any order; answers leave in order of arrival
//! (MQTT-4.6.0-2). Pure.

use std::collections::{BTreeMap, VecDeque};

use super::Ack;

/// What a peer gets once its reading is durable (step 5).
pub(super) trait Answer: Copy + PartialEq {
    /// The answer to a reading that nobody waits for: its slot only keeps the gate honest.
    const NOTHING: Self;

    /// The packet id that is in use until the answer has left.
    fn packet_id(&self) -> Option<u16>;
}

/// A set of packet ids. Ids in use lie close together, so that few words of 64 hold them all; an empty set takes nothing.
#[derive(Debug, Default)]
pub(super) struct PacketIds {
    words: BTreeMap<u16, u64>,
}

impl PacketIds {
    /// `false`: it was in already.
    pub(super) fn insert(&mut self, id: u16) -> bool {
        let word = self.words.entry(id / 64).or_default();
        let free = *word & (1 << (id % 64)) == 0;
        *word |= 1 << (id % 64);
        free
    }

    pub(super) fn remove(&mut self, id: u16) {
        if let Some(word) = self.words.get_mut(&(id / 64)) {
            *word &= !(1 << (id % 64));
            if *word == 0 {
                self.words.remove(&(id / 64));
            }
        }
    }

    pub(super) fn contains(&self, id: u16) -> bool {
        self.words.get(&(id / 64)).is_some_and(|word| word & (1 << (id % 64)) != 0)
    }
}

#[derive(Debug)]
struct Slot<A> {
    answer: A,
    bytes: u64,
    fired: bool,
}

/// The unanswered readings of one connection, in order of arrival.
#[derive(Debug)]
pub(super) struct Window<A> {
    generation: u64,
    /// Number of the reading in the first slot.
    first: u64,
    slots: VecDeque<Slot<A>>,
    packet_ids: PacketIds,
}

impl<A: Answer> Window<A> {
    pub(super) fn new(generation: u64) -> Self {
        Window { generation, first: 0, slots: VecDeque::new(), packet_ids: PacketIds::default() }
    }

    /// Opens a slot. Returns its ack and whether the packet id was already unanswered here.
    ///
    /// Such a repeat breaks MQTT-2.3.1-4. Only the latest slot then keeps the answer: a first PUBACK would let the
    /// broker reuse the id, and the second one would acknowledge a message that we have not stored.
    pub(super) fn push(&mut self, answer: A, bytes: u64) -> (Ack, bool) {
        let repeated = answer.packet_id().is_some_and(|pkid| !self.packet_ids.insert(pkid));
        if repeated {
            self.withdraw(answer.packet_id());
        }
        let number = self.first + self.slots.len() as u64;
        self.slots.push_back(Slot { answer, bytes, fired: false });
        (Ack { generation: self.generation, number }, repeated)
    }

    fn withdraw(&mut self, packet_id: Option<u16>) {
        for slot in self.slots.iter_mut().filter(|slot| slot.answer.packet_id() == packet_id) {
            slot.answer = A::NOTHING;
        }
    }

    /// Marks a reading as durable. `false`: no such reading is unanswered, or it was marked before.
    pub(super) fn fire(&mut self, number: u64) -> bool {
        let slot = number.checked_sub(self.first).and_then(|at| self.slots.get_mut(usize::try_from(at).ok()?));
        slot.is_some_and(|slot| !std::mem::replace(&mut slot.fired, true))
    }

    /// Takes the next answer that may leave, with the bytes it frees: the first slot, if it has been fired.
    pub(super) fn take_ready(&mut self) -> Option<(A, u64)> {
        if !self.slots.front()?.fired {
            return None;
        }
        let slot = self.slots.pop_front()?;
        self.first += 1;
        if let Some(pkid) = slot.answer.packet_id() {
            self.packet_ids.remove(pkid);
        }
        Some((slot.answer, slot.bytes))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the answer to this id has not left yet.
    pub(super) fn holds(&self, packet_id: u16) -> bool {
        self.packet_ids.contains(packet_id)
    }

    /// Gives the memory of a burst back once nothing is unanswered.
    pub(super) fn shrink(&mut self) {
        if self.slots.is_empty() {
            self.slots = VecDeque::new();
        }
    }
}
