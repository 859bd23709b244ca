//! What the devices themselves know: what each has sent, and what the gateway has acknowledged to it.
//!
//! A reading is noted as offered before its first byte leaves, and as accepted when its PUBACK or PUBREC has been read.
//! What the gateway acknowledged and no device heard is no promise that anybody could hold it to.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::harness::checker::Publication;
use crate::harness::jobs::PATIENCE;
use crate::harness::readings::Reading;

/// How often the gateway may store what a device offers more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// QoS 1: as often as it is offered.
    AtLeastOnce,
    /// QoS 2, or a message id: once, however often it is offered.
    Once,
}

#[derive(Default)]
pub struct Witness {
    record: Mutex<Record>,
    news: Condvar,
}

#[derive(Debug, Default)]
pub struct Record {
    pub offered: Vec<Publication>,
    /// In order of acceptance.
    pub accepted: Vec<Publication>,
    /// Their ids.
    pub accepted_ids: HashSet<String>,
    /// Connections that were let in.
    pub connects: usize,
    /// Once-only readings that were offered again: not in `offered` a second time.
    pub offered_again: usize,
    once: HashSet<String>,
}

impl Witness {
    pub fn offer(&self, reading: &Reading, promise: Promise) {
        let mut record = self.lock();
        if promise == Promise::Once && !record.once.insert(reading.id.clone()) {
            record.offered_again += 1;
        } else {
            record.offered.push(publication(reading));
        }
        drop(record);
        self.news.notify_all();
    }

    pub fn accept(&self, reading: &Reading) {
        let mut record = self.lock();
        record.accepted_ids.insert(reading.id.clone());
        record.accepted.push(publication(reading));
        drop(record);
        self.news.notify_all();
    }

    pub fn connected(&self) {
        self.lock().connects += 1;
        self.news.notify_all();
    }

    pub fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap()
    }

    /// Distinct readings accepted so far.
    pub fn accepted(&self) -> usize {
        self.lock().accepted_ids.len()
    }

    pub fn wait_accepted(&self, count: usize) {
        self.wait_for(&format!("{count} readings accepted"), |record| record.accepted_ids.len() >= count);
    }

    pub fn wait_for(&self, what: &str, mut seen: impl FnMut(&Record) -> bool) {
        let waiting = |record: &mut Record| !seen(record);
        let (record, waited) = self.news.wait_timeout_while(self.lock(), PATIENCE, waiting).unwrap();
        let (offered, accepted) = (record.offered.len(), record.accepted_ids.len());
        assert!(!waited.timed_out(), "the devices never saw {what}: {offered} offered, {accepted} accepted");
    }

    /// Waits until nothing has been accepted for `silence`: the gateway pushes back, or there is nothing left. Returns
    /// the number of distinct readings accepted.
    pub fn wait_quiet(&self, silence: Duration) -> usize {
        let mut record = self.lock();
        loop {
            let before = record.accepted.len();
            let same = |record: &mut Record| record.accepted.len() == before;
            let (after, waited) = self.news.wait_timeout_while(record, silence, same).unwrap();
            if waited.timed_out() {
                return after.accepted_ids.len();
            }
            record = after;
        }
    }
}

fn publication(reading: &Reading) -> Publication {
    Publication { id: reading.id.clone(), stream: reading.topic.clone() }
}
