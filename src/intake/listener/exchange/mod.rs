//! What the connections of a listener share: sessions, subscriptions, retained messages, the gate. One object behind one
//! lock, which is never held across an await. It does no I/O itself: it hands deliveries and writes to [`Deliver`], which
//! never blocks, and gets the time passed in.

mod open;
mod publish;
mod qos2;
mod subscribe;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

pub(super) use open::{Ended, Opening};
pub(super) use qos2::{Arrived, Release};

use super::counters::ListenerCounters;
use super::facts::{self, SessionRow};
use super::filter;
use super::gate::Gate;
use super::packet::Version;
use super::retained::{Retained, Row};
use super::router::{Match, Router};
use super::session::{Inbound, Progress, Session};
use crate::config;
use crate::intake::mqtt::Clock;
use crate::intake::{Ack, AckQueue, AckTicket, Change, Deliver, Delivery, Fact, Kind, Route, SourceEvent};
use crate::record::Arrival;

/// What the exchange needs of the gateway.
pub(super) struct Parts {
    pub(super) config: Arc<config::Listener>,
    pub(super) route: Arc<dyn Route>,
    pub(super) deliver: Arc<dyn Deliver>,
    pub(super) events: mpsc::Sender<(String, SourceEvent)>,
    pub(super) counters: Arc<ListenerCounters>,
    pub(super) clock: Clock,
}

pub(super) struct Exchange {
    parts: Parts,
    sessions: HashMap<u64, Session>,
    by_client: HashMap<Arc<str>, u64>,
    last_session: u64,
    router: Router,
    retained: Retained,
    pub(super) gate: Gate,
    /// Bytes of all messages that wait for subscribers.
    fan_out_bytes: u64,
    /// Bytes that connections have read and not taken yet.
    pub(super) input_bytes: u64,
    /// Sessions without a connection that have something to do at a time.
    timers: BTreeSet<(Duration, u64)>,
    jobs: BTreeMap<u64, Job>,
    last_job: u64,
    /// Fired writes come here; also woken when the first timer has changed.
    queue: Arc<AckQueue>,
    is_writing_retained: bool,
    batch: Vec<Delivery>,
    scratch: Vec<u8>,
    arrival: Option<Arrival>,
    matches: Vec<Match>,
}

/// A write that has been asked for.
#[derive(Debug)]
enum Job {
    Session { session: u64, number: u64 },
    Retained,
}

impl Exchange {
    /// `facts` are those of this source; others are passed over.
    pub(super) fn new(parts: Parts, facts: Vec<Fact>) -> Self {
        let limits = &parts.config.limits;
        let mut exchange = Exchange {
            sessions: HashMap::new(),
            by_client: HashMap::new(),
            last_session: 0,
            router: Router::default(),
            retained: Retained::new(limits.retained_messages, limits.retained_bytes),
            gate: Gate::new(parts.config.unacked_bytes_max),
            fan_out_bytes: 0,
            input_bytes: 0,
            timers: BTreeSet::new(),
            jobs: BTreeMap::new(),
            last_job: 0,
            queue: Arc::default(),
            is_writing_retained: false,
            batch: Vec::new(),
            scratch: Vec::new(),
            arrival: None,
            matches: Vec::new(),
            parts,
        };
        for fact in facts {
            if exchange.load(&fact).is_none() {
                ListenerCounters::add(&exchange.parts.counters.facts_skipped, 1);
            }
        }
        exchange.loaded();
        exchange
    }

    fn load(&mut self, fact: &Fact) -> Option<()> {
        let source = self.parts.config.name.clone();
        match fact.kind {
            Kind::Session => {
                let client = facts::name_in(&fact.key, &source)?;
                let row = SessionRow::decode(&fact.value).ok()?;
                let number = self.session_of(&client.into(), row.version);
                let session = self.sessions.get_mut(&number)?;
                session.version = row.version;
                session.expiry = row.expiry;
                session.row = Some(fact.value.clone());
                for (text, options) in row.subscriptions {
                    // The limit of levels may have been lowered since.
                    let Ok(parsed) = filter::parse(&text, u32::MAX) else { continue };
                    self.router.subscribe(parsed, number, options);
                    session.subscriptions.insert(text, options);
                }
            }
            Kind::Qos2 => {
                let (client, packet_id) = facts::qos2_in(&fact.key, &source)?;
                let hash = fact.value.as_slice().try_into().ok()?;
                let number = self.session_of(&client.into(), Version::V311);
                let session = self.sessions.get_mut(&number)?;
                session.has_qos2_rows = true;
                session.inbound.insert(packet_id, Inbound { hash, progress: Progress::Stored, row: true });
                ListenerCounters::add(&self.parts.counters.qos2_open, 1);
            }
            Kind::Retained => {
                let topic = facts::name_in(&fact.key, &source)?;
                self.retained.load(Arc::new(facts::decode_retained(topic, &fact.value).ok()?));
            }
        }
        Some(())
    }

    /// Sessions that were to end with their connection have ended with the process; the time of the others runs anew.
    fn loaded(&mut self) {
        let numbers: Vec<u64> = self.sessions.keys().copied().collect();
        for number in numbers {
            self.rest(number, Duration::ZERO);
        }
        self.keep_few_enough(Duration::ZERO);
    }

    /// The session of this client, new if there is none.
    fn session_of(&mut self, client: &Arc<str>, version: Version) -> u64 {
        if let Some(&number) = self.by_client.get(client) {
            return number;
        }
        self.last_session += 1;
        self.by_client.insert(Arc::clone(client), self.last_session);
        self.sessions.insert(self.last_session, Session::new(Arc::clone(client), version));
        self.last_session
    }

    pub(super) fn config(&self) -> &config::Listener {
        &self.parts.config
    }

    pub(super) fn counters(&self) -> &ListenerCounters {
        &self.parts.counters
    }

    pub(super) fn deliver(&self) -> &dyn Deliver {
        self.parts.deliver.as_ref()
    }

    pub(super) fn session(&mut self, number: u64) -> Option<&mut Session> {
        self.sessions.get_mut(&number)
    }

    pub(super) fn queue(&self) -> Arc<AckQueue> {
        Arc::clone(&self.queue)
    }

    /// An event that finds no room is dropped and counted.
    pub(super) fn tell(&self, event: SourceEvent) {
        if self.parts.events.try_send((self.parts.config.name.clone(), event)).is_err() {
            ListenerCounters::add(&self.parts.counters.events_dropped, 1);
        }
    }

    /// Step 2: hands over what has been accepted since the last time.
    pub(super) fn hand_over(&mut self) {
        self.arrival = None;
        if !self.batch.is_empty() {
            self.parts.deliver.deliver(&mut self.batch);
        }
        self.write_retained();
    }

    /// More writes wait than there may be sessions: the spool hangs, and each new session would only add to them.
    pub(super) fn is_behind(&self) -> bool {
        let limits = &self.parts.config.limits;
        self.jobs.len() >= (limits.connections + limits.sessions) as usize
    }

    /// Asks for a write and remembers whose it is.
    fn ask(&mut self, changes: Vec<Change>, job: Job) {
        self.last_job += 1;
        self.jobs.insert(self.last_job, job);
        let ack = Ack { generation: 0, number: self.last_job };
        self.parts.deliver.keep(changes, AckTicket { queue: Arc::clone(&self.queue), ack });
    }

    /// A write has become durable.
    pub(super) fn written(&mut self, ack: Ack, now: Duration) {
        match self.jobs.remove(&ack.number) {
            Some(Job::Session { session, number }) => self.session_written(session, number),
            Some(Job::Retained) => {
                self.is_writing_retained = false;
                self.write_retained_at(now);
            }
            None => {}
        }
    }

    /// Retained messages are written behind everything else: one write at a time, of what has changed since the last.
    fn write_retained(&mut self) {
        if self.retained.has_changed() && !self.is_writing_retained {
            // Asked for in the housekeeping task, which knows the time.
            self.queue.wake();
        }
    }

    pub(super) fn write_retained_at(&mut self, now: Duration) {
        if self.is_writing_retained || !self.retained.has_changed() {
            return;
        }
        let source = &self.parts.config.name;
        let change = |row| match row {
            Row::Put(message) => Change::Put {
                kind: Kind::Retained,
                key: facts::key(source, &message.topic),
                value: facts::encode_retained(&message, now),
            },
            Row::Delete(topic) => Change::Delete { kind: Kind::Retained, key: facts::key(source, &topic) },
        };
        let changes = self.retained.take_changed().into_iter().map(change).collect();
        self.is_writing_retained = true;
        self.ask(changes, Job::Retained);
    }

    /// Brings the gauges up to date.
    pub(super) fn show(&self) {
        let counters = &self.parts.counters;
        let attached = self.sessions.values().filter(|session| session.attached.is_some()).count();
        ListenerCounters::set(&counters.sessions, self.sessions.len() as u64);
        ListenerCounters::set(&counters.sessions_connected, attached as u64);
        ListenerCounters::set(&counters.subscriptions, self.router.len() as u64);
        ListenerCounters::set(&counters.retained, self.retained.len() as u64);
        ListenerCounters::set(&counters.retained_bytes, self.retained.bytes());
        ListenerCounters::set(&counters.queued_bytes, self.fan_out_bytes);
        ListenerCounters::set(&counters.unacked_bytes, self.gate.bytes());
    }
}
