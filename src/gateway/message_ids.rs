//! Which messages are known by the ids that devices give them. Pure: time comes as an argument.
//!
//! A message is on its way until the commit that holds its reading is done; who sends it again meanwhile waits for that
//! same commit. Then it is stored, and remembered within a window of number and age. Memory: nothing until the first id
//! comes; 24 bytes an id and a table of 4-byte places, some 8 MiB for 200,000.

use std::collections::{HashMap, VecDeque};

use crate::clock;
use crate::config;
use crate::intake::MessageId;

/// Ages are kept by the minute.
const MINUTE_MS: i64 = 60_000;
/// A place in the table that is free. Ordinals have 31 bits, far more than a window.
const FREE: u32 = u32::MAX;
const ORDINAL_MASK: u32 = u32::MAX >> 1;
/// The smallest table.
const PLACES_MIN: usize = 1024;

/// What is known of a message that comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// Never seen, or too long ago, or with another payload: it is on its way from now on.
    New,
    /// The same message has not been stored yet.
    OnItsWay,
    Stored,
}

/// `W`: who waits for a message that is on its way.
#[derive(Debug)]
pub struct MessageIds<W> {
    max: config::MessageIds,
    known: Known,
    on_its_way: HashMap<MessageId, Vec<W>>,
    /// Messages that came again and were not stored again.
    pub duplicates: u64,
    /// Messages stored under an id that another payload had within the window.
    pub reused: u64,
}

impl<W> MessageIds<W> {
    /// `seed`: random, so that nobody can choose ids whose places in the table meet.
    pub fn new(max: config::MessageIds, seed: u64) -> Self {
        let known = Known { seed, ..Known::default() };
        MessageIds { max, known, on_its_way: HashMap::new(), duplicates: 0, reused: 0 }
    }

    /// A message comes at `now_ms` (since 1970).
    pub fn meet(&mut self, id: MessageId, now_ms: i64) -> Met {
        self.expire(now_ms);
        let met = if self.on_its_way.contains_key(&id) {
            Met::OnItsWay
        } else if self.known.payload(id.id) == Some(id.payload) {
            Met::Stored
        } else {
            self.on_its_way.insert(id, Vec::new());
            Met::New
        };
        self.duplicates += u64::from(met != Met::New);
        met
    }

    /// Lets `who` wait for a message that is on its way.
    pub fn wait(&mut self, id: MessageId, who: W) {
        self.on_its_way.entry(id).or_default().push(who);
    }

    /// A message is stored as of `at_ms` (since 1970). Returns who waited for it, in order.
    pub fn stored(&mut self, id: MessageId, at_ms: i64) -> Vec<W> {
        let before = self.known.insert(id, at_ms);
        self.reused += u64::from(before.is_some_and(|payload| payload != id.payload));
        while self.known.ring.len() > self.max.window {
            self.known.forget_oldest();
        }
        self.on_its_way.remove(&id).unwrap_or_default()
    }

    /// Takes in what an earlier run stored, oldest first.
    pub fn load(&mut self, ids: &[MessageId], at_ms: i64) {
        for id in ids {
            self.stored(*id, at_ms);
        }
        // What earlier runs have counted is not counted again.
        self.reused = 0;
    }

    /// Ids remembered.
    pub fn len(&self) -> usize {
        self.known.ring.len()
    }

    fn expire(&mut self, now_ms: i64) {
        let max_age = i64::try_from(self.max.max_age.as_millis()).unwrap_or(i64::MAX);
        while let Some(&(end, at)) = self.known.ages.front()
            && clock::plausible(at)
            && now_ms.saturating_sub(at) > max_age
        {
            while self.known.first < end {
                self.known.forget_oldest();
            }
        }
    }
}

/// The newest ids in a ring, oldest first, and a table that finds them (open addressing, linear probing).
#[derive(Debug, Default)]
struct Known {
    ring: VecDeque<Entry>,
    /// How many have left the ring: the ordinal of its first.
    first: u64,
    /// Low bits of ordinals. Only the newest entry of an id has a place.
    places: Vec<u32>,
    seed: u64,
    /// Up to which ordinal (exclusive) ids are of which time, ms since 1970.
    ages: VecDeque<(u64, i64)>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// In halves: a `u128` would be padded to 32 bytes with its payload.
    id: [u64; 2],
    payload: u64,
}

impl Known {
    fn payload(&self, id: u128) -> Option<u64> {
        if self.places.is_empty() {
            return None;
        }
        let place = self.find(halves(id)).ok()?;
        Some(self.entry(self.places[place]).payload)
    }

    /// Returns the payload that the id had before.
    fn insert(&mut self, id: MessageId, at_ms: i64) -> Option<u64> {
        if (self.ring.len() + 1) * 5 > self.places.len() * 4 {
            self.grow();
        }
        let halves = halves(id.id);
        let (place, before) = match self.find(halves) {
            Ok(place) => (place, Some(self.entry(self.places[place]).payload)),
            Err(place) => (place, None),
        };
        let ordinal = self.first + self.ring.len() as u64;
        self.places[place] = ordinal as u32 & ORDINAL_MASK;
        self.ring.push_back(Entry { id: halves, payload: id.payload });
        self.note_age(ordinal + 1, at_ms);
        before
    }

    fn note_age(&mut self, end: u64, at_ms: i64) {
        if clock::plausible(at_ms) {
            // What came before the clock was set is as old as the first that came after, at least.
            let timeless = self.ages.iter_mut().rev().take_while(|(_, at)| !clock::plausible(*at));
            timeless.for_each(|(_, at)| *at = at_ms);
        }
        match self.ages.back_mut().filter(|(_, at)| *at / MINUTE_MS == at_ms / MINUTE_MS) {
            Some(last) => *last = (end, at_ms),
            None => self.ages.push_back((end, at_ms)),
        }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.ring.front().copied() else { return };
        // A younger entry of the same id has taken over its place.
        if let Ok(place) = self.find(oldest.id)
            && self.places[place] == self.first as u32 & ORDINAL_MASK
        {
            self.free(place);
        }
        self.ring.pop_front();
        self.first += 1;
        while self.ages.front().is_some_and(|(end, _)| *end <= self.first) {
            self.ages.pop_front();
        }
    }

    fn entry(&self, ordinal: u32) -> &Entry {
        &self.ring[(ordinal.wrapping_sub(self.first as u32) & ORDINAL_MASK) as usize]
    }

    /// The place of an id, or the free place where it belongs.
    fn find(&self, id: [u64; 2]) -> Result<usize, usize> {
        let mut place = self.home(id);
        while self.places[place] != FREE {
            if self.entry(self.places[place]).id == id {
                return Ok(place);
            }
            place = self.next(place);
        }
        Err(place)
    }

    /// Frees a place and moves those behind it up, so that no probe ends early.
    fn free(&mut self, mut hole: usize) {
        let mask = self.places.len() - 1;
        let mut place = self.next(hole);
        while self.places[place] != FREE {
            let home = self.home(self.entry(self.places[place]).id);
            if place.wrapping_sub(home) & mask >= place.wrapping_sub(hole) & mask {
                self.places[hole] = self.places[place];
                hole = place;
            }
            place = self.next(place);
        }
        self.places[hole] = FREE;
    }

    fn home(&self, id: [u64; 2]) -> usize {
        let mixed = (id[0] ^ id[1].rotate_left(32) ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (64 - self.places.len().trailing_zeros())) as usize
    }

    fn next(&self, place: usize) -> usize {
        (place + 1) & (self.places.len() - 1)
    }

    fn grow(&mut self) {
        let places = (self.places.len() * 2).max(PLACES_MIN);
        let placed = std::mem::replace(&mut self.places, vec![FREE; places]);
        for ordinal in placed.into_iter().filter(|ordinal| *ordinal != FREE) {
            if let Err(place) = self.find(self.entry(ordinal).id) {
                self.places[place] = ordinal;
            }
        }
    }
}

fn halves(id: u128) -> [u64; 2] {
    [id as u64, (id >> 64) as u64]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SET: i64 = 1_790_000_000_000;
    const HOUR_MS: i64 = 3_600_000;

    fn id(id: u128, payload: u64) -> MessageId {
        MessageId { id, payload }
    }

    fn set(window: usize) -> MessageIds<u32> {
        MessageIds::new(config::MessageIds { window, max_age: Duration::from_secs(3600) }, 7)
    }

    #[test]
    fn a_message_is_new_then_on_its_way_then_stored() {
        let mut ids = set(10);
        let a = id(1, 1);
        assert_eq!(ids.meet(a, SET), Met::New);
        assert_eq!(ids.meet(a, SET), Met::OnItsWay);
        ids.wait(a, 4);
        ids.wait(a, 5);
        assert_eq!(ids.stored(a, SET), [4, 5]);
        assert_eq!(ids.meet(a, SET), Met::Stored);
        assert_eq!((ids.duplicates, ids.reused, ids.len()), (2, 0, 1));
    }

    #[test]
    fn another_payload_under_the_same_id_is_another_message() {
        let mut ids = set(10);
        let (a, b) = (id(1, 1), id(1, 2));
        assert_eq!((ids.meet(a, SET), ids.meet(b, SET)), (Met::New, Met::New));
        ids.wait(a, 4);
        ids.wait(b, 5);
        assert_eq!(ids.stored(b, SET), [5]);
        assert_eq!((ids.stored(a, SET), ids.reused), (vec![4], 1));
        assert_eq!(ids.meet(a, SET), Met::Stored);
        assert_eq!(ids.meet(b, SET), Met::New, "the latest payload is the one that counts");
    }

    #[test]
    fn an_id_is_as_young_as_its_last_message() {
        let mut ids = set(3);
        [1, 2, 3, 1].into_iter().for_each(|n| drop(ids.stored(id(n, 0), SET)));
        ids.stored(id(4, 0), SET);
        assert_eq!([1, 2, 3, 4].map(|n| ids.meet(id(n, 0), SET) == Met::Stored), [true, false, true, true]);
    }

    #[test]
    fn age_counts_from_the_first_moment_with_a_clock() {
        let mut ids = set(100);
        ids.stored(id(1, 0), 5_000);
        ids.stored(id(2, 0), SET);
        ids.stored(id(3, 0), SET + HOUR_MS);
        let stored = |ids: &mut MessageIds<u32>, now| [1, 2, 3].map(|n| ids.known.payload(n).is_some() && now > 0);
        ids.expire(SET + HOUR_MS);
        assert_eq!(stored(&mut ids, SET), [true, true, true]);
        ids.expire(SET + HOUR_MS + 1);
        assert_eq!(stored(&mut ids, SET), [false, false, true]);
    }

    #[test]
    fn without_ids_it_takes_no_memory_and_with_them_no_more_than_said() {
        for window in [1_000, 1_023, 1_024, 3_277, 209_715, 200_000] {
            let max = config::MessageIds { window, ..config::MessageIds::default() };
            let mut ids: MessageIds<u32> = MessageIds::new(max, 7);
            assert_eq!((ids.known.places.capacity(), ids.known.ring.capacity()), (0, 0));
            for n in 0..2 * window as u128 {
                ids.stored(id(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835), 0), SET);
            }
            let bytes = ids.known.places.capacity() * 4 + ids.known.ring.capacity() * size_of::<Entry>();
            assert!(ids.len() == window && bytes as u64 <= max.bytes_max(), "{window}: {bytes} of {}", max.bytes_max());
        }
        assert!(config::MessageIds::default().bytes_max() <= 8 << 20);
    }

    /// The same in a few lines.
    #[derive(Default)]
    struct Model {
        stored: Vec<(MessageId, i64)>,
        on_its_way: Vec<(MessageId, Vec<u32>)>,
    }

    impl Model {
        fn meet(&mut self, id: MessageId, now: i64) -> Met {
            self.stored.retain(|(_, at)| now - at / MINUTE_MS * MINUTE_MS <= HOUR_MS);
            if self.on_its_way.iter().any(|(i, _)| *i == id) {
                return Met::OnItsWay;
            }
            let last = self.stored.iter().rev().find(|(s, _)| s.id == id.id);
            if last.is_some_and(|(s, _)| s.payload == id.payload) {
                return Met::Stored;
            }
            self.on_its_way.push((id, Vec::new()));
            Met::New
        }

        fn stored(&mut self, id: MessageId, at: i64, window: usize) -> Vec<u32> {
            self.stored.push((id, at));
            let over = self.stored.len().saturating_sub(window);
            self.stored.drain(..over);
            let found = self.on_its_way.iter().position(|(i, _)| *i == id);
            found.map(|i| self.on_its_way.remove(i).1).unwrap_or_default()
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Meet(MessageId),
        /// The n-th of those on their way.
        Stored(usize),
        Minutes(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Few ids whose halves differ little: they meet in the table, and come again.
        let ids = (0..40_u128, 0..2_u128, 0..2_u64).prop_map(|(low, high, payload)| id(high << 64 | low, payload));
        prop_oneof![
            8 => ids.prop_map(Step::Meet),
            6 => (0..30_usize).prop_map(Step::Stored),
            1 => (1..50_i64).prop_map(Step::Minutes),
        ]
    }

    proptest! {
        #[test]
        fn it_does_what_a_plain_list_does(steps in prop::collection::vec(step(), 0..400), window in 1..40_usize, seed in any::<u64>()) {
            let mut ids: MessageIds<u32> = MessageIds::new(config::MessageIds { window, max_age: Duration::from_millis(HOUR_MS as u64) }, seed);
            // A table that is small enough to be full.
            ids.known.places = vec![FREE; 64];
            let (mut model, mut now, mut waiters) = (Model::default(), SET / MINUTE_MS * MINUTE_MS, 0);
            for step in steps {
                match step {
                    Step::Meet(id) => {
                        let met = ids.meet(id, now);
                        prop_assert_eq!(met, model.meet(id, now));
                        if met == Met::OnItsWay {
                            waiters += 1;
                            ids.wait(id, waiters);
                            model.on_its_way.iter_mut().find(|(i, _)| *i == id).expect("on its way").1.push(waiters);
                        }
                    }
                    Step::Stored(n) if !model.on_its_way.is_empty() => {
                        let id = model.on_its_way[n % model.on_its_way.len()].0;
                        prop_assert_eq!(ids.stored(id, now), model.stored(id, now, window));
                    }
                    Step::Stored(_) => {}
                    Step::Minutes(n) => now += n * MINUTE_MS,
                }
                prop_assert_eq!(ids.on_its_way.len(), model.on_its_way.len());
                prop_assert!(ids.len() <= window && ids.known.ages.len() <= ids.len());
                let placed = ids.known.places.iter().filter(|p| **p != FREE).count();
                prop_assert!(placed <= ids.len());
            }
        }
    }
}
