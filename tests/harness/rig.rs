//! The whole rig: devices, Mosquitto, the tap, the gateway and Kafka, wired up; and the closing of the books.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::checker::{self, Arrival, Books, Problem, Publication, Verdict};
use super::gateway::{Builder as GatewayBuilder, Gateway, metric};
use super::jobs;
use super::kafka::{Consumed, KafkaServer};
use super::mosquitto::{Mosquitto, Options};
use super::mqtt::Load;
use super::readings::{Reading, id_of};
use super::tap::{Message, Tap};

/// The Kafka topic of `plant/…/lost`, which exists only if the scenario makes it.
const LOST: &str = "lost";
const LANE: &str = "telemetry";
const PARTITIONS: i32 = 3;

pub struct Rig {
    pub kafka: Arc<KafkaServer>,
    pub mosquitto: Mosquitto,
    pub tap: Tap,
    pub gateway: Gateway,
    /// Before the names of all topics of this rig: others use the same broker.
    prefix: String,
    /// Where the devices publish: Mosquitto's port, or that of the broker in its place.
    broker_port: u16,
    /// Arrivals in topics that the scenario has deleted since.
    kept: Vec<Consumed>,
    /// The scenario is one of those that promise no order.
    any_order: bool,
    faults: Vec<(String, u64)>,
}

/// Puts tables and routes of a scenario before those of the rig; it gets the prefix of the topics.
type Before = Box<dyn FnOnce(GatewayBuilder, &str) -> GatewayBuilder>;

pub struct Builder {
    own_kafka: bool,
    kafka: Option<(Arc<KafkaServer>, String)>,
    before: Before,
    lane: String,
    spool: String,
    memory: String,
    subscription: String,
    filter: String,
    other_broker: Option<u16>,
    source: String,
    broker_window: Option<u16>,
    topic_configs: Vec<(&'static str, &'static str)>,
}

impl Rig {
    pub fn builder() -> Builder {
        Builder {
            own_kafka: false,
            kafka: None,
            before: Box::new(|gateway, _| gateway),
            lane: String::new(),
            spool: String::new(),
            memory: String::new(),
            subscription: "plant/#".to_owned(),
            filter: "plant/#".to_owned(),
            other_broker: None,
            source: String::new(),
            broker_window: None,
            topic_configs: Vec::new(),
        }
    }

    /// Publishes in the background, from the moment on when Mosquitto has a session to keep the readings for.
    pub fn load(&self, per_second: u32, readings: Vec<Reading>) -> Load {
        self.start_load(per_second, readings.into_iter())
    }

    /// The same without an end, for scenarios that last as long as the machine takes: ten devices, until [`Load::stop`].
    pub fn endless_load(&self, per_second: u32) -> Load {
        self.start_load(per_second, (0..).flat_map(|number| (0..10).map(move |device| Reading::new(device, number))))
    }

    fn start_load(&self, per_second: u32, readings: impl Iterator<Item = Reading> + Send + 'static) -> Load {
        self.tap.wait_for("the gateway's subscription", |history| history.subacks > 0);
        Load::start(self.broker_port, self.mosquitto.login(), per_second, readings)
    }

    /// The same behind an MQTT connection of its own, beside other loads.
    pub fn load_as(&self, client_id: &str, per_second: u32, readings: Vec<Reading>) -> Load {
        self.tap.wait_for("the gateway's subscription", |history| history.subacks > 0);
        let (port, login) = (self.broker_port, self.mosquitto.login());
        Load::start_as(client_id, port, login, per_second, readings.into_iter())
    }

    pub fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// Waits until this gateway has delivered all that it holds.
    pub fn wait_empty(&self) {
        jobs::wait_until("the spool is empty", || (self.gateway.metric(metric::BACKLOG) == 0.0).then_some(()));
    }

    pub fn create_topic(&self, name: &str) {
        self.kafka.create_topic(&self.topic(name), PARTITIONS, &[]);
    }

    /// Deletes a topic, keeping what had arrived in it for the books.
    pub fn delete_topic(&mut self, name: &str) {
        let topic = self.topic(name);
        self.kept.extend(self.kafka.consume_all(&topic));
        self.kafka.delete_topic(&topic);
    }

    /// Arrivals in a topic that the rig does not know, for the books.
    pub fn keep(&mut self, records: Vec<Consumed>) {
        self.kept.extend(records);
    }

    /// The books are closed without a look at the order.
    pub fn expect_any_order(&mut self) {
        self.any_order = true;
    }

    /// Notes how often a fault was seen to work: none at all fails the test.
    pub fn saw(&mut self, fault: &str, times: usize) {
        self.faults.push((fault.to_owned(), times as u64));
    }

    /// The distinct readings accepted so far.
    pub fn accepted(&self) -> usize {
        let history = self.tap.history();
        history.accepted.iter().filter_map(|message| id_of(&message.payload)).collect::<HashSet<_>>().len()
    }

    /// Waits until `count` distinct readings have been accepted.
    pub fn wait_accepted(&self, count: usize) {
        let mut ids = HashSet::new();
        let mut read = 0;
        self.tap.wait_for(&format!("{count} readings accepted"), |history| {
            ids.extend(history.accepted[read..].iter().filter_map(|message| id_of(&message.payload)));
            read = history.accepted.len();
            ids.len() >= count
        });
    }

    /// Waits until each of `published` is accepted, all accepted have arrived and the spool is empty; stops the gateway,
    /// reads everything once more and has it judged. Any problem fails the test.
    pub fn close_books(mut self, published: &[String]) -> Verdict {
        let topics = self.topics();
        self.wait_all_accepted(published);
        self.wait_arrivals(&topics);
        self.wait_empty();
        self.settle_books(&topics)
    }

    /// The same for a lane that may drop: instead of waiting for each, it waits for the spool to be empty.
    pub fn close_books_with_losses(mut self, published: &[String]) -> Verdict {
        self.wait_all_accepted(published);
        self.wait_empty();
        let topics = self.topics();
        self.settle_books(&topics)
    }

    fn settle_books(&mut self, topics: &[String]) -> Verdict {
        let ledger = self.gateway.metric(metric::LEDGER) as u64;
        self.gateway.stop();
        let mut verdict = checker::judge(&self.books(topics, ledger));
        if self.any_order {
            verdict.problems.retain(|problem| !matches!(problem, Problem::OutOfOrder { .. }));
        }
        assert!(verdict.problems.is_empty(), "{verdict:#?}");
        // For the reader of a run with --nocapture: how hard it was, and what it cost in repeats.
        eprintln!("{}: {verdict:?}, faults {:?}", self.prefix, self.faults);
        verdict
    }

    fn wait_all_accepted(&self, published: &[String]) {
        let mut waiting: HashSet<&str> = published.iter().map(String::as_str).collect();
        let mut read = 0;
        self.tap.wait_for("every reading accepted", |history| {
            for id in history.accepted[read..].iter().filter_map(|message| id_of(&message.payload)) {
                waiting.remove(id.as_str());
            }
            read = history.accepted.len();
            waiting.is_empty()
        });
    }

    /// Waits until all that was accepted has arrived.
    pub fn wait_all_arrived(&self) {
        self.wait_arrivals(&self.topics());
        self.wait_empty();
    }

    fn wait_arrivals(&self, topics: &[String]) {
        let kept = self.kept.iter().filter_map(|record| id_of(&record.payload)).collect::<HashSet<_>>();
        let accepted = self.tap.history().accepted;
        let mut waiting: HashSet<String> = accepted.iter().filter_map(|message| id_of(&message.payload)).collect();
        waiting.retain(|id| !kept.contains(id));
        wait_arrivals(&self.kafka, topics, waiting);
    }

    fn books(&self, topics: &[String], ledger: u64) -> Books {
        let history = self.tap.history();
        let records: Vec<Consumed> = topics.iter().flat_map(|topic| self.kafka.consume_all(topic)).collect();
        let dead_letters = self.topic("dead");
        let (dead, delivered): (Vec<_>, Vec<_>) =
            self.kept.iter().chain(&records).partition(|record| record.topic == dead_letters);
        assert_eq!(history.malformed, 0, "the gateway or the broker sent what is not MQTT");
        Books {
            offered: history.offered.iter().map(publication).collect(),
            accepted: history.accepted.iter().map(publication).collect(),
            delivered: delivered.into_iter().map(arrival).collect(),
            dead: dead.into_iter().map(arrival).collect(),
            ledger,
            spooled: 0,
            stray_pubacks: history.stray_pubacks,
            faults: self.faults.clone(),
        }
    }

    /// Those that exist now.
    fn topics(&self) -> Vec<String> {
        let existing = self.kafka.topics();
        let names = ["readings", LOST, "dead"].map(|name| self.topic(name));
        names.into_iter().filter(|name| existing.contains(name)).collect()
    }
}

/// The key is the MQTT topic, which belongs to one Kafka topic: so it names the stream.
fn publication(message: &Message) -> Publication {
    let id = id_of(&message.payload).expect("the rig publishes readings only");
    Publication { id, stream: message.topic.clone() }
}

/// Waits until a reading of each of these ids is in one of the topics.
pub fn wait_arrivals(kafka: &KafkaServer, topics: &[String], mut waiting: HashSet<String>) {
    if waiting.is_empty() {
        return;
    }
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    kafka.consume_until(&topics, |record| {
        if let Some(id) = id_of(&record.payload) {
            waiting.remove(&id);
        }
        waiting.is_empty()
    });
}

/// What the judge wants to know of a record.
pub fn arrival(record: &Consumed) -> Arrival {
    Arrival {
        id: id_of(&record.payload).unwrap_or_else(|| format!("no reading: {record:?}")),
        stream: record.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned(),
        partition: format!("{}/{}", record.topic, record.partition),
        forebay_id: record.forebay_id(),
    }
}

impl Builder {
    /// For scenarios that disturb Kafka.
    pub fn own_kafka(mut self) -> Builder {
        self.own_kafka = true;
        self
    }

    /// This broker, which the gateway reaches by one of its listeners.
    pub fn kafka(mut self, server: &Arc<KafkaServer>, bootstrap_servers: String) -> Builder {
        self.kafka = Some((Arc::clone(server), bootstrap_servers));
        self
    }

    pub fn before(mut self, before: impl FnOnce(GatewayBuilder, &str) -> GatewayBuilder + 'static) -> Builder {
        self.before = Box::new(before);
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

    /// What the gateway subscribes to, instead of `plant/#`.
    pub fn subscription(mut self, filter: &str) -> Builder {
        filter.clone_into(&mut self.subscription);
        self
    }

    /// The route of the readings takes these, instead of `plant/#`.
    pub fn filter(mut self, filter: &str) -> Builder {
        filter.clone_into(&mut self.filter);
        self
    }

    /// A broker on this port in Mosquitto's place.
    pub fn other_broker(mut self, port: u16) -> Builder {
        self.other_broker = Some(port);
        self
    }

    /// Lines for the source.
    pub fn source(mut self, lines: &str) -> Builder {
        lines.clone_into(&mut self.source);
        self
    }

    /// Messages that Mosquitto has on the way to the gateway at once, instead of its 20.
    pub fn broker_window(mut self, messages: u16) -> Builder {
        self.broker_window = Some(messages);
        self
    }

    /// A property of the topic of the readings.
    pub fn topic_config(mut self, key: &'static str, value: &'static str) -> Builder {
        self.topic_configs.push((key, value));
        self
    }

    /// Everything runs, and the gateway is ready.
    pub fn start(self) -> Rig {
        let mut rig = self.build();
        rig.gateway.start();
        rig
    }

    /// Everything but the gateway runs.
    pub fn build(self) -> Rig {
        static RIGS: AtomicUsize = AtomicUsize::new(0);
        let prefix = format!("rig{}", RIGS.fetch_add(1, Ordering::Relaxed));
        let (kafka, bootstrap_servers) = self.kafka.clone().unwrap_or_else(|| {
            let kafka = if self.own_kafka { KafkaServer::start() } else { KafkaServer::shared() };
            let bootstrap_servers = kafka.bootstrap_servers();
            (kafka, bootstrap_servers)
        });
        let mosquitto = Mosquitto::start(&Options { max_inflight_messages: self.broker_window, ..Options::default() });
        let broker_port = self.other_broker.unwrap_or(mosquitto.port());
        let tap = Tap::start(broker_port);
        let topic_configs = self.topic_configs.clone();
        let gateway = self.gateway(&prefix, &bootstrap_servers, &mosquitto, &tap).build();
        let rig = Rig {
            kafka,
            mosquitto,
            tap,
            gateway,
            prefix,
            broker_port,
            kept: Vec::new(),
            any_order: false,
            faults: Vec::new(),
        };
        rig.kafka.create_topic(&rig.topic("readings"), PARTITIONS, &topic_configs);
        rig.kafka.create_topic(&rig.topic("dead"), 1, &[]);
        rig.kafka.create_topic(&rig.topic("events"), 1, &[]);
        rig
    }

    fn gateway(self, prefix: &str, bootstrap_servers: &str, mosquitto: &Mosquitto, tap: &Tap) -> GatewayBuilder {
        (self.before)(Gateway::builder(), prefix)
            .mqtt_with(tap.port(), mosquitto.login(), &self.subscription, &self.source)
            .kafka(bootstrap_servers)
            .lane(LANE, &self.lane)
            .spool(&self.spool)
            .table("[memory]", &self.memory)
            .table("[dead_letters]", &format!("topic = \"{prefix}.dead\""))
            .table("[events]", &format!("topic = \"{prefix}.events\""))
            .route("plant/+/lost", &format!("{prefix}.{LOST}"), LANE)
            .route(&self.filter, &format!("{prefix}.readings"), LANE)
    }
}
