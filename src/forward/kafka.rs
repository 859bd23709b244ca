//! The producer: the only file of `forward/` that names rdkafka.
//!
//! One idempotent producer per cluster. librdkafka never holds what the spool or an unacknowledged sender does not hold
//! too, so a producer may be dropped at any moment; its successor gets what is unsettled. Reports of a dropped producer
//! carry its generation and count for nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

use super::Report;
use super::client::kafka::{IN_FLIGHT_MAX, in_words, producer_config};
use super::errors::{Class, classify, misses_records};
use super::marks::Watch;
use super::reports::kafka::Context;
pub use super::reports::kafka::{Code, Place, Reports};
use super::times::{Stamp, Times};
use crate::config::{Kafka, Rank};
use crate::record::{Body, RecordView};
use crate::spool::lane::{Outcome, Sent};
use crate::spool::window::Key;

/// A topic without a delivery for this long, while others have some, has lost its leader.
const STUCK_US: u64 = 30_000_000;
/// "While others have": one of them within this time.
const OTHERS_US: u64 = 5_000_000;
/// How long an ending producer may take to report what it held.
const LAST_REPORTS_US: u64 = 500_000;
/// How long a producer sends each record alone after a batch was too large.
const CAREFUL_US: u64 = 20_000_000;

/// What goes to the producer.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Index of the lane in the hub.
    pub lane: usize,
    /// The lane's permanent number.
    pub number: u32,
    /// Its rank among the cluster's lanes: the producer keeps room back for those that go first.
    pub rank: Rank,
    pub key: Key,
    pub run: u64,
    pub body: &'a Body,
}

/// One record with the producer.
#[derive(Debug)]
struct Slot {
    lane: usize,
    key: Key,
    bytes: usize,
    topic: Arc<str>,
}

#[derive(Debug, Default)]
struct TopicState {
    in_flight: usize,
    /// When it last delivered, or began to have something in flight.
    moved_us: u64,
    /// When it last delivered.
    delivered_us: Option<u64>,
}

/// A cluster's producer as the hub uses it.
pub struct Cluster {
    index: usize,
    config: Kafka,
    gateway: String,
    bytes_max: u64,
    generation: u64,
    producer: Option<ThreadedProducer<Context>>,
    reports: Arc<dyn Reports>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    in_flight_bytes: u64,
    topics: HashMap<Arc<str>, TopicState>,
    /// Until then a new producer sends each record alone.
    careful_until_us: Option<u64>,
    /// Whether the present one does.
    careful: bool,
    /// Nothing more goes to this producer: since when, and why. It is dropped when all it held has been reported.
    ending: Option<(u64, String)>,
    /// Records whose timestamp the broker refused.
    restamp: HashSet<(usize, Key)>,
    /// Over all producers.
    watch: Watch,
    scratch: String,
}

impl Cluster {
    pub fn new(index: usize, config: Kafka, gateway: String, bytes_max: u64, reports: Arc<dyn Reports>) -> Self {
        Cluster {
            index,
            config,
            gateway,
            bytes_max,
            generation: 0,
            producer: None,
            reports,
            slots: Vec::new(),
            free: Vec::new(),
            in_flight_bytes: 0,
            topics: HashMap::new(),
            careful_until_us: None,
            careful: false,
            ending: None,
            restamp: HashSet::new(),
            watch: Watch::default(),
            scratch: String::new(),
        }
    }

    pub fn name(&self) -> &str {
        &self.config.name
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Drops the producer with all it holds.
    pub fn drop_producer(&mut self) {
        self.generation += 1;
        self.producer = None;
        self.slots.clear();
        self.free.clear();
        self.in_flight_bytes = 0;
        self.topics.clear();
        self.ending = None;
    }

    /// Drops the producer with all it holds and makes a new one.
    ///
    /// # Errors
    /// librdkafka's words when the configuration does not make a producer (a certificate that cannot be read).
    pub fn renew(&mut self) -> Result<(), String> {
        self.drop_producer();
        let context = Context::new(self.index, self.generation, &self.config, Arc::clone(&self.reports));
        self.careful = self.careful_until_us.is_some();
        let config = producer_config(&self.config, self.bytes_max, self.careful);
        self.producer = Some(config.create_with_context(context).map_err(|e| in_words(&e))?);
        Ok(())
    }

    pub fn is_up(&self) -> bool {
        self.producer.is_some()
    }

    /// librdkafka says that it can do no more. Its reports of what it held still come, and say whose fault it was.
    pub fn note_fatal(&mut self, cause: String, now_us: u64) {
        self.ending.get_or_insert((now_us, cause));
    }

    /// Whether a new producer is due, and why: the old one has reported all it held, or has had time to.
    pub fn take_renewal(&mut self, now_us: u64) -> Option<String> {
        if self.careful_until_us.is_some_and(|until| now_us >= until) {
            self.careful_until_us = None;
            self.note_fatal("batches again after records were sent alone".into(), now_us);
        }
        let (since, _) = self.ending.as_ref()?;
        let done = self.in_flight() == 0 || now_us.saturating_sub(*since) >= LAST_REPORTS_US;
        if !done {
            return None;
        }
        // Once for each producer, however many of its records have come back for it.
        let fatal = self.producer.as_ref().and_then(|producer| producer.client().fatal_error());
        if let Some((_, why)) = fatal.filter(|(code, _)| misses_records(*code)) {
            self.watch.lost(why);
        }
        self.ending.take().map(|(_, cause)| cause)
    }

    /// A topic that has not moved for long while another has: its partition has no leader.
    pub fn stuck_topic(&self, now_us: u64) -> Option<Arc<str>> {
        // A cluster that is silent as a whole has no stuck topic: somebody else must have got through just now.
        let lately = |at: u64| now_us.saturating_sub(at) < OTHERS_US;
        let others_move = self.topics.values().any(|t| t.delivered_us.is_some_and(lately));
        let stuck = |t: &TopicState| t.in_flight > 0 && now_us.saturating_sub(t.moved_us) >= STUCK_US;
        self.topics.iter().find(|(_, t)| others_move && stuck(t)).map(|(name, _)| Arc::clone(name))
    }

    /// Step 7.
    pub fn send(&mut self, out: Outgoing<'_>, times: &Times, now_us: u64) -> Sent {
        // What a producer about to be dropped got now would only be sent twice.
        if self.ending.is_some() {
            return Sent::Full;
        }
        let records_max = out.rank.share(IN_FLIGHT_MAX as u64);
        if self.in_flight() as u64 >= records_max || self.in_flight_bytes >= out.rank.share(self.bytes_max) {
            return Sent::Full;
        }
        let Ok(record) = out.body.view() else {
            return Sent::Refused(Outcome::Faulty("the stored record does not decode".into()));
        };
        if self.producer.is_none() {
            return Sent::Full;
        }
        let stamp = self.stamp(out, &record, times);
        let headers = self.headers(out, &record, stamp);
        let slot = self.take_slot(out, record.topic, now_us);
        let mut message = BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic, slot)
            .payload(record.payload)
            .headers(headers);
        if let Some(key) = record.key {
            message = message.key(key);
        }
        message = message.timestamp(stamp.ms());
        let Some(producer) = &self.producer else { return Sent::Full };
        match producer.send(message) {
            Ok(()) => Sent::Queued,
            Err((error, _)) => {
                self.give_back(slot, None);
                self.refused(&error, now_us)
            }
        }
    }

    fn refused(&mut self, error: &KafkaError, now_us: u64) -> Sent {
        let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
        if code == Code::QueueFull {
            return Sent::Full;
        }
        match classify(code) {
            // Here librdkafka measured the record itself, not a batch.
            class @ (Class::Record | Class::TopicBlocked | Class::BatchTooLarge) => {
                Sent::Refused(class.outcome(error.to_string(), true))
            }
            Class::Fatal => {
                self.note_fatal(error.to_string(), now_us);
                Sent::Full
            }
            Class::Transient | Class::Timestamp => Sent::Full,
        }
    }

    fn stamp(&self, out: Outgoing<'_>, record: &RecordView<'_>, times: &Times) -> Stamp {
        if !self.restamp.is_empty() && self.restamp.contains(&(out.lane, out.key)) {
            return Stamp::Corrected(crate::clock::wall_ms());
        }
        times.stamp(out.run, record)
    }

    fn headers(&mut self, out: Outgoing<'_>, record: &RecordView<'_>, stamp: Stamp) -> OwnedHeaders {
        use std::fmt::Write;
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len() + 3);
        self.scratch.clear();
        write_id(&mut self.scratch, &self.gateway, (out.run, out.number, out.key.sequence), record);
        headers = headers.insert(Header { key: "forebay-id", value: Some(self.scratch.as_bytes()) });
        if let Some(old) = record.old_id.filter(|old| old.requeues > 0) {
            self.scratch.clear();
            let _ = write!(self.scratch, "{}", old.requeues);
            headers = headers.insert(Header { key: "forebay-requeue", value: Some(self.scratch.as_bytes()) });
        }
        let time = match stamp {
            Stamp::AsRecorded(_) => None,
            Stamp::Corrected(_) => Some(record.timestamp_ms.to_string()),
            Stamp::Doubtful(_) => Some("unset".to_owned()),
        };
        if let Some(time) = time {
            headers = headers.insert(Header { key: "forebay-clock", value: Some(time.as_bytes()) });
        }
        for (name, value) in &record.headers {
            headers = headers.insert(Header { key: name, value: Some(*value) });
        }
        headers
    }

    fn take_slot(&mut self, out: Outgoing<'_>, topic: &str, now_us: u64) -> usize {
        let bytes = out.body.len();
        let topic = match self.topics.get_key_value(topic) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(topic),
        };
        let state = self.topics.entry(Arc::clone(&topic)).or_default();
        if state.in_flight == 0 {
            state.moved_us = now_us;
        }
        state.in_flight += 1;
        self.in_flight_bytes += bytes as u64;
        let slot = Some(Slot { lane: out.lane, key: out.key, bytes, topic });
        match self.free.pop() {
            Some(i) => {
                self.slots[i] = slot;
                i
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        }
    }

    fn give_back(&mut self, slot: usize, moved_us: Option<u64>) -> Option<Slot> {
        let taken = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        self.in_flight_bytes -= taken.bytes as u64;
        if let Some(topic) = self.topics.get_mut(&taken.topic) {
            topic.in_flight -= 1;
            if let Some(now) = moved_us {
                topic.moved_us = now;
                topic.delivered_us = Some(now);
            }
        }
        Some(taken)
    }

    /// Step 8: what librdkafka said of a slot.
    pub fn resolve(&mut self, slot: usize, result: Result<Place, Code>, now_us: u64) -> Option<Report> {
        let taken = self.give_back(slot, result.is_ok().then_some(now_us))?;
        let outcome = match result {
            Ok(place) => {
                if !self.restamp.is_empty() {
                    self.restamp.remove(&(taken.lane, taken.key));
                }
                Outcome::Delivered(self.watch.acknowledged(&taken.topic, place.partition, place.offset))
            }
            Err(code) => self.failed(&taken, code, now_us),
        };
        Some(Report { lane: taken.lane, key: taken.key, outcome })
    }

    /// Watches for brokers that come back without what they had acknowledged ([`Cluster::take_loss`]).
    pub fn watching(mut self) -> Self {
        self.watch.begin();
        self
    }

    /// That the broker has lost what it had acknowledged, told once.
    pub fn take_loss(&mut self) -> Option<String> {
        self.watch.take_loss()
    }

    fn failed(&mut self, slot: &Slot, code: Code, now_us: u64) -> Outcome {
        let class = classify(code);
        let cause = format!("{} ({code:?}) by topic {}", code, slot.topic);
        let alone = self.careful;
        match class {
            Class::BatchTooLarge if !alone => {
                self.careful_until_us = Some(now_us + CAREFUL_US);
                self.note_fatal("a batch was too large for its topic: records are sent alone".into(), now_us);
            }
            // A second refusal, now with the gateway's own time, is the record's fault.
            Class::Timestamp if !self.restamp.insert((slot.lane, slot.key)) => {
                self.restamp.remove(&(slot.lane, slot.key));
                return Outcome::Faulty(cause);
            }
            Class::Fatal => self.note_fatal(cause.clone(), now_us),
            _ => {}
        }
        class.outcome(cause, alone)
    }

    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// The record's id (design section 5): `gateway:run:lane:sequence`, the run in hex.
pub fn write_id(to: &mut String, gateway: &str, place: (u64, u32, u64), record: &RecordView<'_>) {
    use std::fmt::Write;
    let (run, lane, sequence) = record.old_id.map_or(place, |old| (old.run, old.lane, old.sequence));
    // Writing to a String cannot fail.
    let _ = write!(to, "{gateway}:{run:016x}:{lane}:{sequence}");
}

impl Stamp {
    fn ms(self) -> i64 {
        match self {
            Stamp::AsRecorded(ms) | Stamp::Corrected(ms) | Stamp::Doubtful(ms) => ms,
        }
    }
}
