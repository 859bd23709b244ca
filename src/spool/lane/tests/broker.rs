//! A producer and its cluster as the lane meets them: FIFO per partition, any order across partitions, answers that come
//! late, fail or never come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::dice::Dice;
use super::{Key, Outcome, Sent, Sink};
use crate::forward::marks::Marks;
use crate::record::Body;

pub type Partition = (String, u8);

/// One record with the producer.
#[derive(Debug, Clone)]
struct Flying {
    key: Key,
    id: u64,
}

/// The offset of what was stored, or what became of it.
type Answer = Result<i64, Outcome>;

/// In flight to one partition, each with its place in the log.
type Queue = VecDeque<(Flying, (String, Vec<u8>))>;

#[derive(Debug, Default)]
pub struct Broker {
    pub dice: Dice,
    /// What is in Kafka, in order, repeats included.
    pub log: BTreeMap<(String, Vec<u8>), Vec<u64>>,
    pub delivered: BTreeSet<u64>,
    /// Topics that refuse.
    pub blocked: BTreeSet<String>,
    /// Records that Kafka never takes: ids with this remainder.
    pub poison: Option<u64>,
    pub capacity: usize,
    queues: BTreeMap<Partition, Queue>,
    reports: BTreeMap<Partition, VecDeque<(Key, Answer)>>,
    /// Partitions whose failure nobody has heard of yet: what is sent to them meanwhile fails too, as with a producer
    /// that leaves no gaps.
    sick: BTreeMap<Partition, Outcome>,
    /// What each partition holds, by offset: id, place in the log, when it was stored.
    stored: BTreeMap<Partition, Vec<Stored>>,
    marks: Marks,
    /// An offset was given twice, and nobody has asked yet.
    gave_twice: bool,
    pub now_us: u64,
}

type Stored = (u64, (String, Vec<u8>), u64);

/// The record's number in the simulation: its payload.
pub fn id_of(body: &Body) -> u64 {
    u64::from_le_bytes(body.view().unwrap().payload[..8].try_into().unwrap())
}

fn partition_of(body: &Body) -> (Partition, Vec<u8>) {
    let view = body.view().unwrap();
    let key = view.key.unwrap().to_vec();
    ((view.topic.to_owned(), key[0] % 2), key)
}

fn is_poison(poison: Option<u64>, id: u64) -> bool {
    poison.is_some_and(|p| id % 19 == p)
}

impl Broker {
    pub fn new(dice: Dice, poison: Option<u64>, capacity: usize) -> Self {
        Broker { dice, poison, capacity, ..Broker::default() }
    }

    pub fn has_reports(&self) -> bool {
        self.reports.values().any(|reports| !reports.is_empty())
    }

    pub fn flying(&self) -> usize {
        self.queues.values().map(VecDeque::len).sum::<usize>() + self.reports.values().map(VecDeque::len).sum::<usize>()
    }

    /// One partition answers: its oldest record is stored, or refused, or all that it holds comes back. The report
    /// waits to be fetched.
    pub fn step(&mut self, may_fail: bool) {
        let busy: Vec<Partition> = self.queues.iter().filter(|(_, q)| !q.is_empty()).map(|(p, _)| p.clone()).collect();
        let Some(partition) = self.dice.pick(&busy).cloned() else { return };
        let Some(queue) = self.queues.get_mut(&partition) else { return };
        let reports = self.reports.entry(partition.clone()).or_default();
        let fails = if let Some(sick) = self.sick.get(&partition) {
            Some(sick.clone())
        } else if self.blocked.contains(&partition.0) {
            Some(Outcome::TopicBlocked("blocked".into()))
        } else {
            (may_fail && self.dice.one_in(12)).then_some(Outcome::Again)
        };
        if let Some(outcome) = fails {
            reports.extend(queue.drain(..).map(|(f, _)| (f.key, Err(outcome.clone()))));
            self.sick.insert(partition, outcome);
        } else if let Some((flying, place)) = queue.pop_front() {
            if is_poison(self.poison, flying.id) {
                reports.push_back((flying.key, Err(Outcome::Faulty("poison".into()))));
                return;
            }
            self.log.entry(place.clone()).or_default().push(flying.id);
            self.delivered.insert(flying.id);
            let stored = self.stored.entry(partition).or_default();
            stored.push((flying.id, place, self.now_us));
            reports.push_back((flying.key, Ok(stored.len() as i64 - 1)));
        }
    }

    /// The next report of some partition.
    pub fn report(&mut self) -> Option<(Key, Outcome)> {
        let busy: Vec<Partition> = self.reports.iter().filter(|(_, q)| !q.is_empty()).map(|(p, _)| p.clone()).collect();
        let partition = self.dice.pick(&busy)?.clone();
        let (key, answer) = self.reports.get_mut(&partition)?.pop_front()?;
        let outcome = match answer {
            Ok(offset) => {
                let topic = format!("{}-{}", partition.0, partition.1).into();
                let acknowledged = self.marks.acknowledged(&topic, 0, offset);
                self.gave_twice |= acknowledged.again.is_some();
                Outcome::Delivered(acknowledged.mark)
            }
            Err(outcome) => outcome,
        };
        if matches!(outcome, Outcome::Again | Outcome::TopicBlocked(_)) {
            self.recover(&partition);
        }
        Some((key, outcome))
    }

    /// The lane has heard of the failure: what it had sent before fails too, what it sends from now on may pass.
    fn recover(&mut self, partition: &Partition) {
        let (Some(outcome), Some(queue)) = (self.sick.remove(partition), self.queues.get_mut(partition)) else {
            return;
        };
        let failed = queue.drain(..).map(|(f, _)| (f.key, Err(outcome.clone())));
        self.reports.entry(partition.clone()).or_default().extend(failed);
    }

    /// The power fails where Kafka runs: each partition loses some of what it stored less than `settle` ago.
    pub fn lose_power(&mut self, settle_us: u64) {
        for stored in self.stored.values_mut() {
            let young = stored.iter().rev().take_while(|(.., at)| self.now_us - at < settle_us).count();
            let keep = stored.len() - self.dice.below(young as u64 + 1) as usize;
            for (id, place, _) in stored.drain(keep..) {
                if let Some(log) = self.log.get_mut(&place)
                    && let Some(at) = log.iter().rposition(|known| *known == id)
                {
                    log.remove(at);
                }
            }
        }
        self.delivered = self.log.values().flatten().copied().collect();
    }

    /// What has been sent again is known to be so.
    pub fn take_gave_twice(&mut self) -> bool {
        if self.gave_twice {
            self.marks.forget();
        }
        std::mem::take(&mut self.gave_twice)
    }

    /// A new process knows nothing of what the old one was told.
    pub fn forget_marks(&mut self) {
        self.marks = Marks::default();
        self.gave_twice = false;
    }

    /// The producer is dropped: what it stored stays stored, and nobody hears of it.
    pub fn lose_producer(&mut self) {
        self.queues.clear();
        self.reports.clear();
        self.sick.clear();
    }
}

impl Sink for Broker {
    fn send(&mut self, _: usize, key: Key, _: u64, body: &Body) -> Sent {
        let (partition, record_key) = partition_of(body);
        let id = id_of(body);
        if self.queues.values().map(VecDeque::len).sum::<usize>() >= self.capacity {
            return Sent::Full;
        }
        if is_poison(self.poison, id) && self.dice.one_in(2) {
            return Sent::Refused(Outcome::Faulty("poison".into()));
        }
        if self.blocked.contains(&partition.0) && self.dice.one_in(3) {
            return Sent::Refused(Outcome::TopicBlocked("blocked".into()));
        }
        let place = (partition.0.clone(), record_key);
        self.queues.entry(partition).or_default().push_back((Flying { key, id }, place));
        Sent::Queued
    }
}
