//! A plant whose devices publish straight to the gateway: Kafka, the gateway with its listener, the devices' witness; and
//! the closing of the books.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::device::{Device, Manner};
use super::witness::Witness;
use crate::harness::checker::{self, Books};
use crate::harness::gateway::{Gateway, metric};
use crate::harness::jobs;
use crate::harness::kafka::KafkaServer;
use crate::harness::rig::{arrival, wait_arrivals};

const LANE: &str = "telemetry";
const PARTITIONS: i32 = 3;

pub struct Plant {
    pub kafka: Arc<KafkaServer>,
    pub gateway: Gateway,
    pub witness: Arc<Witness>,
    /// Where the listener listens, in every life.
    pub port: u16,
    /// Before the names of all topics of this plant: others use the same broker.
    prefix: String,
    faults: Vec<(String, u64)>,
}

#[derive(Default)]
pub struct Builder {
    own_kafka: bool,
    lane: String,
    spool: String,
    memory: String,
    source: String,
    limits: String,
}

/// Books that are closed.
pub struct Closed {
    /// The identities under which each reading is in Kafka.
    identities: BTreeMap<String, BTreeSet<String>>,
}

impl Closed {
    /// How often a reading has been stored.
    pub fn stored(&self, id: &str) -> usize {
        self.identities.get(id).map_or(0, BTreeSet::len)
    }
}

impl Plant {
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub fn device(&self, client_id: &str, manner: Manner) -> Device {
        Device::connect(self.port, client_id, manner, &self.witness)
    }

    pub fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// Notes how often a fault was seen to work: none at all fails the test.
    pub fn saw(&mut self, fault: &str, times: usize) {
        self.faults.push((fault.to_owned(), times as u64));
    }

    /// The sum of a counter of this life over all labels.
    pub fn count(&self, name: &str) -> u64 {
        self.gateway.metric(name) as u64
    }

    /// The same for what the hub counts: it shows its numbers from time to time, and this waits for the next time.
    pub fn count_of_hub(&self, name: &str) -> u64 {
        const SHOWN: &str = "forebay_uptime_seconds";
        let before = self.gateway.metric(SHOWN);
        jobs::wait_until("the hub shows its numbers", || (self.gateway.metric(SHOWN) > before).then_some(()));
        self.count(name)
    }

    /// Waits until a counter of this life is above zero.
    pub fn wait_counted(&self, name: &str) {
        jobs::wait_until(&format!("{name} counts"), || (self.gateway.metric(name) > 0.0).then_some(()));
    }

    /// kill -9 at a fault point that the gateway has been started with.
    pub fn kill_at(&mut self, point: &str) {
        self.gateway.wait_for_fault(point);
        self.gateway.kill9();
        self.saw(&format!("kill -9 at {point}"), 1);
    }

    /// Waits until all accepted have arrived and the spool is empty; stops the gateway, reads everything once more and
    /// has it judged. Any problem fails the test. Devices must have finished: what they have open is no obligation.
    pub fn close_books(mut self) -> Closed {
        let topics = [self.topic("readings"), self.topic("dead")];
        let accepted = self.witness.lock().accepted_ids.clone();
        wait_arrivals(&self.kafka, &topics, accepted);
        jobs::wait_until("the spool is empty", || (self.gateway.metric(metric::BACKLOG) == 0.0).then_some(()));
        let ledger = self.gateway.metric(metric::LEDGER) as u64;
        self.gateway.stop();
        let books = self.books(ledger);
        let verdict = checker::judge(&books);
        assert!(verdict.problems.is_empty(), "{verdict:#?}");
        // For the reader of a run with --nocapture: how hard it was, and what it cost in repeats.
        let again = self.witness.lock().offered_again;
        eprintln!("{}: {verdict:?}, once-only offered again {again}, faults {:?}", self.prefix, self.faults);
        let mut identities: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for arrival in &books.delivered {
            identities.entry(arrival.id.clone()).or_default().extend(arrival.forebay_id.clone());
        }
        Closed { identities }
    }

    fn books(&self, ledger: u64) -> Books {
        let arrivals = |topic: String| self.kafka.consume_all(&topic).iter().map(arrival).collect();
        let (delivered, dead) = (arrivals(self.topic("readings")), arrivals(self.topic("dead")));
        let record = self.witness.lock();
        Books {
            offered: record.offered.clone(),
            accepted: record.accepted.clone(),
            delivered,
            dead,
            ledger,
            spooled: 0,
            stray_pubacks: 0,
            faults: self.faults.clone(),
        }
    }
}

impl Builder {
    /// For scenarios that disturb Kafka.
    pub fn own_kafka(mut self) -> Builder {
        self.own_kafka = true;
        self
    }

    /// Lines for the lane that carries the readings.
    pub fn lane(mut self, lines: &str) -> Builder {
        lines.clone_into(&mut self.lane);
        self
    }

    pub fn spool(mut self, lines: &str) -> Builder {
        lines.clone_into(&mut self.spool);
        self
    }

    pub fn memory(mut self, lines: &str) -> Builder {
        lines.clone_into(&mut self.memory);
        self
    }

    /// Lines for the listener.
    pub fn source(mut self, lines: &str) -> Builder {
        lines.clone_into(&mut self.source);
        self
    }

    /// Lines for its limits.
    pub fn limits(mut self, lines: &str) -> Builder {
        lines.clone_into(&mut self.limits);
        self
    }

    /// Everything runs, and the gateway is ready.
    pub fn start(self) -> Plant {
        let mut plant = self.build();
        plant.gateway.start();
        plant
    }

    /// Everything but the gateway runs.
    pub fn build(self) -> Plant {
        static PLANTS: AtomicUsize = AtomicUsize::new(0);
        let prefix = format!("plant{}", PLANTS.fetch_add(1, Ordering::Relaxed));
        let kafka = if self.own_kafka { KafkaServer::start() } else { KafkaServer::shared() };
        let port = jobs::free_port();
        let listen = format!("name = \"devices\"\nlisten = \"127.0.0.1:{port}\"\n{}", self.source);
        // Fifty devices come back at once after each kill, to a machine that may have much else to do.
        let limits = format!("connect_rate = 10000\nconnect_timeout = \"60s\"\n{}", self.limits);
        let gateway = Gateway::builder()
            .table("[[source.listener]]", &listen)
            .table("[source.listener.limits]", &limits)
            .kafka(&kafka.bootstrap_servers())
            .lane(LANE, &self.lane)
            .spool(&self.spool)
            .table("[memory]", &self.memory)
            .table("[dead_letters]", &format!("topic = \"{prefix}.dead\""))
            .table("[events]", &format!("topic = \"{prefix}.events\""))
            .route("plant/#", &format!("{prefix}.readings"), LANE)
            .build();
        let plant = Plant { kafka, gateway, witness: Arc::default(), port, prefix, faults: Vec::new() };
        plant.kafka.create_topic(&plant.topic("readings"), PARTITIONS, &[]);
        plant.kafka.create_topic(&plant.topic("dead"), 1, &[]);
        plant.kafka.create_topic(&plant.topic("events"), 1, &[]);
        plant
    }
}
