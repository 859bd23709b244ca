//! A real Apache Kafka (KRaft, one node) and the reader that tells what arrived.
//!
//! Owns the broker's process, port and data. The shared broker serves all tests that do not disturb it; a test that
//! stops, kills or pauses its broker has one of its own.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tempfile::TempDir;

use super::jobs::{self, Job, PATIENCE};
use super::kafka_setup::{Extras, Node, Role, java, properties};

/// Sixteen bytes in Kafka's base 64: all that a cluster id has to be.
const CLUSTER_ID: &str = "Zm9yZWJheS10ZXN0LTAwMQ";

/// Brokers of their own that may run at once: each takes up to 800 MB.
const OWN_BROKERS_MAX: usize = 2;

const REQUEST: Duration = Duration::from_secs(2);

/// One broker. All methods take `&self`, so that a scenario and its background load can share it.
pub struct KafkaServer {
    port: u16,
    /// Where the cluster's one controller listens.
    controller_port: u16,
    shared: bool,
    job: Mutex<Option<Job>>,
    dir: TempDir,
    _seat: Option<Seat>,
}

/// A record as a consumer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumed {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub payload: Vec<u8>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub timestamp_ms: Option<i64>,
}

impl Consumed {
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_slice())
    }

    /// The record's identity (design section 5) as text.
    pub fn forebay_id(&self) -> Option<String> {
        self.header("forebay-id").map(|id| String::from_utf8_lossy(id).into_owned())
    }
}

impl KafkaServer {
    /// A broker for one test, which may do with it what it likes.
    pub fn start() -> Arc<KafkaServer> {
        Arc::new(Self::launch(false, Some(Seat::take()), &Extras::default()))
    }

    /// The broker that all undisturbing tests of this run share. It ends with the test process.
    pub fn shared() -> Arc<KafkaServer> {
        static SHARED: OnceLock<Arc<KafkaServer>> = OnceLock::new();
        Arc::clone(SHARED.get_or_init(|| Self::shared_with(&Extras::default())))
    }

    /// A broker of its own kind that several tests share.
    pub fn shared_with(extras: &Extras) -> Arc<KafkaServer> {
        Arc::new(Self::launch(true, None, extras))
    }

    fn launch(shared: bool, seat: Option<Seat>, extras: &Extras) -> KafkaServer {
        let node = Node { role: Role::First, controller_port: jobs::free_port() };
        Self::launch_as(node, shared, seat, extras)
    }

    /// A second broker for this one's cluster, node 2. It depends on this one, which holds the controller.
    pub fn join(&self) -> Arc<KafkaServer> {
        let node = Node { role: Role::Second, controller_port: self.controller_port };
        let second = Self::launch_as(node, false, None, &Extras::default());
        let client: BaseConsumer = self.client().create().unwrap();
        jobs::wait_until("both brokers are in the cluster", || {
            let metadata = client.fetch_metadata(None, REQUEST).ok()?;
            (metadata.brokers().len() == 2).then_some(())
        });
        Arc::new(second)
    }

    fn launch_as(node: Node, shared: bool, seat: Option<Seat>, extras: &Extras) -> KafkaServer {
        let dir = jobs::scratch("kafka");
        let port = jobs::free_port();
        fs::write(dir.path().join("server.properties"), properties(node, port, dir.path(), extras)).unwrap();
        let controller_port = node.controller_port;
        let server = KafkaServer { port, controller_port, shared, job: Mutex::new(None), dir, _seat: seat };
        server.format(node.role, &extras.scrams);
        server.restart();
        server
    }

    pub fn bootstrap_servers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// SIGTERM: an orderly stop. Clients are refused from then on.
    pub fn stop(&self) {
        self.disturb().stop();
    }

    /// SIGKILL. What the broker has acknowledged is in the page cache and survives this.
    pub fn kill(&self) {
        self.disturb().kill();
    }

    /// Remembers all data as it is now, as a disk would after a power cut: [`KafkaServer::forget`] goes back to it.
    pub fn remember(&self) {
        self.pause();
        let copied = Command::new("cp").arg("-a").arg(self.data()).arg(self.remembered()).status();
        self.resume();
        assert!(copied.unwrap().success(), "copy the broker's data");
    }

    /// The power fails: what has come since [`KafkaServer::remember`] was in memory alone.
    pub fn forget(&self) {
        self.kill();
        fs::remove_dir_all(self.data()).unwrap();
        fs::rename(self.remembered(), self.data()).unwrap();
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn remembered(&self) -> PathBuf {
        self.dir.path().join("remembered")
    }

    /// SIGSTOP: connections stay open and are never answered.
    pub fn pause(&self) {
        self.with_job(|job| job.signal(Signal::SIGSTOP));
    }

    pub fn resume(&self) {
        self.with_job(|job| job.signal(Signal::SIGCONT));
    }

    /// Starts again, with the same port and data, and waits until it answers.
    pub fn restart(&self) {
        let mut command = java("kafka.Kafka");
        command.arg(self.dir.path().join("server.properties"));
        *self.job.lock().unwrap() = Some(Job::start("kafka", command, &self.dir.path().join("log")));
        self.wait_ready();
    }

    /// Another producer writes `count` records into each partition.
    pub fn fill(&self, topic: &str, partitions: i32, count: usize) {
        let producer: BaseProducer = self.client().create().unwrap();
        for partition in 0..partitions {
            for _ in 0..count {
                producer.send(BaseRecord::<(), _>::to(topic).partition(partition).payload("another's")).unwrap();
            }
        }
        producer.flush(PATIENCE).unwrap();
    }

    pub fn create_topic(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) {
        self.create_replicated(name, partitions, TopicReplication::Fixed(1), configs);
    }

    /// One partition, whose only replica is on node `node`.
    pub fn create_topic_on(&self, node: i32, name: &str) {
        self.create_replicated(name, 1, TopicReplication::Variable(&[&[node]]), &[]);
    }

    fn create_replicated(&self, name: &str, partitions: i32, replicas: TopicReplication<'_>, configs: &[(&str, &str)]) {
        let topic = NewTopic::new(name, partitions, replicas);
        let topic = configs.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        let made = block_on(self.admin().create_topics([&topic], &admin_options())).unwrap();
        made.into_iter().for_each(|result| drop(result.unwrap_or_else(|(name, code)| panic!("create {name}: {code}"))));
        self.wait_for_topic(name, |leaders| leaders == usize::try_from(partitions).unwrap());
    }

    /// Sets one property of a topic; the others go back to their defaults.
    pub fn alter_topic(&self, name: &str, key: &str, value: &str) {
        let resource = AlterConfig::new(ResourceSpecifier::Topic(name)).set(key, value);
        let done = block_on(self.admin().alter_configs([&resource], &admin_options())).unwrap();
        done.into_iter().for_each(|result| drop(result.unwrap_or_else(|(_, code)| panic!("alter {name}: {code}"))));
    }

    pub fn delete_topic(&self, name: &str) {
        let gone = block_on(self.admin().delete_topics(&[name], &admin_options())).unwrap();
        gone.into_iter().for_each(|result| drop(result.unwrap_or_else(|(name, code)| panic!("delete {name}: {code}"))));
        self.wait_for_topic(name, |leaders| leaders == 0);
        // The broker goes on acknowledging records for a dying topic until its log is set aside.
        let data = self.data();
        let is_log = |entry: std::fs::DirEntry| {
            let file = entry.file_name().to_string_lossy().into_owned();
            file.rsplit_once('-').is_some_and(|(topic, partition)| topic == name && partition.parse::<u32>().is_ok())
        };
        super::jobs::wait_until("the topic's log is gone", || {
            let left = std::fs::read_dir(&data).unwrap().flatten().any(is_log);
            (!left).then_some(())
        });
    }

    /// The names of all topics.
    pub fn topics(&self) -> HashSet<String> {
        let client: BaseConsumer = self.client().create().unwrap();
        let metadata = client.fetch_metadata(None, PATIENCE).unwrap();
        metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
    }

    /// Everything in `topic`, per partition up to where it ended when the reader came to its end.
    pub fn consume_all(&self, topic: &str) -> Vec<Consumed> {
        Reader::new(self, topic).read_to_end()
    }

    /// The first record of `topic` that is wanted, from the beginning on. For topics that grow all the time: nobody comes to
    /// the end of one.
    #[allow(dead_code, reason = "the tests look; the benchmark does not")]
    pub fn find(&self, topic: &str, mut wanted: impl FnMut(&Consumed) -> bool) -> Consumed {
        let (mut reader, deadline) = (Reader::new(self, topic), Instant::now() + PATIENCE);
        while Instant::now() < deadline {
            if let Some(record) = reader.poll().filter(|record| wanted(record)) {
                return record.clone();
            }
        }
        panic!("what was wanted of {topic} did not come within {PATIENCE:?}");
    }

    /// Reads `topics` until `enough` says so of the record that has just come, then on to the end.
    /// Returns what there is when nothing has come for [`PATIENCE`]: the judge finds what is missing.
    pub fn consume_until(&self, topics: &[&str], mut enough: impl FnMut(&Consumed) -> bool) -> Vec<Consumed> {
        let mut readers: Vec<Reader> = topics.iter().map(|topic| Reader::new(self, topic)).collect();
        // The deadline is for silence: a slow drain that moves is no failure.
        let mut deadline = Instant::now() + PATIENCE;
        'reading: while Instant::now() < deadline {
            for reader in &mut readers {
                while let Some(record) = reader.poll() {
                    if enough(record) {
                        break 'reading;
                    }
                    deadline = Instant::now() + PATIENCE;
                }
            }
        }
        readers.into_iter().flat_map(Reader::read_to_end).collect()
    }

    /// Adds or removes (`--add`, `--remove`) a user's right to write to `topics`, and waits until the broker knows.
    pub fn change_rights(&self, change: &str, user: &str, topics: &[String]) {
        let mut command = java("org.apache.kafka.tools.AclCommand");
        command.args(["--bootstrap-server", &self.bootstrap_servers(), change, "--force", "--operation", "Write"]);
        command.args(["--allow-principal", &format!("User:{user}")]);
        for topic in topics {
            command.args(["--topic", topic]);
        }
        self.finish("kafka acls", command);
    }

    /// The compression of the first batch of a partition: bits 0 to 2 of its attributes (message format 2).
    pub fn compression(&self, topic: &str, partition: i32) -> Option<u8> {
        const ATTRIBUTES_LOW: usize = 22;
        let log = self.dir.path().join("data").join(format!("{topic}-{partition}/00000000000000000000.log"));
        fs::read(log).unwrap().get(ATTRIBUTES_LOW).map(|attributes| attributes & 7)
    }

    /// Formatting is for a new directory only: the node's identity and its voters are written once.
    fn format(&self, role: Role, scrams: &[String]) {
        let mut command = java("kafka.tools.StorageTool");
        command.args(["format", "-t", CLUSTER_ID, "-c"]).arg(self.dir.path().join("server.properties"));
        if role == Role::First {
            command.arg("--standalone");
        }
        for scram in scrams {
            command.args(["--add-scram", scram]);
        }
        self.finish("kafka format", command);
    }

    /// Runs one of Kafka's tools to its end.
    fn finish(&self, name: &str, command: Command) {
        let mut job = Job::start(name, command, &self.dir.path().join("tools.log"));
        let status = jobs::wait_until(&format!("{name} has ended"), || job.ended());
        assert!(status.success(), "{name}: {status}\n{}", job.log_end());
    }

    /// Ready is when a metadata request is answered, not when the port is open.
    fn wait_ready(&self) {
        let client: BaseConsumer = self.client().create().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while client.fetch_metadata(None, REQUEST).map_or(true, |metadata| metadata.brokers().is_empty()) {
            self.with_job(|job| {
                assert!(job.ended().is_none(), "kafka ended:\n{}", job.log_end());
                assert!(Instant::now() < deadline, "kafka does not answer:\n{}", job.log_end());
            });
        }
    }

    /// Metadata lags behind the controller's answer by a moment.
    fn wait_for_topic(&self, name: &str, settled: impl Fn(usize) -> bool) {
        let client: BaseConsumer = self.client().create().unwrap();
        jobs::wait_until(&format!("the metadata of {name} have settled"), || {
            let metadata = client.fetch_metadata(None, REQUEST).ok()?;
            let partitions =
                metadata.topics().iter().filter(|topic| topic.name() == name).flat_map(MetadataTopic::partitions);
            settled(partitions.filter(|partition| partition.leader() >= 0).count()).then_some(())
        });
    }

    fn with_job<T>(&self, act: impl FnOnce(&mut Job) -> T) -> T {
        act(self.job.lock().unwrap().as_mut().expect("the broker runs"))
    }

    /// Takes the job out for its end.
    fn disturb(&self) -> Job {
        assert!(!self.shared, "other tests use the shared broker: take one of your own");
        self.job.lock().unwrap().take().expect("the broker runs")
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap_servers());
        // Without a group librdkafka refuses `assign`. Nothing is ever committed to it.
        config.set("group.id", "forebay-rig").set("enable.auto.commit", "false");
        config.set("enable.partition.eof", "true").set("auto.offset.reset", "earliest");
        config.set("reconnect.backoff.ms", "50").set("reconnect.backoff.max.ms", "200");
        // A broker that is starting or gone is what many tests are about, not news.
        config.set("log_level", "0");
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }
}

/// Reads one topic from its beginning, and knows when it has come to the end of each partition.
struct Reader {
    consumer: BaseConsumer,
    records: Vec<Consumed>,
    /// Whether the reader stands at the end of the partition, as far as it has heard.
    partitions: BTreeMap<i32, bool>,
}

impl Reader {
    fn new(server: &KafkaServer, topic: &str) -> Reader {
        let consumer: BaseConsumer = server.client().create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
        let ids = metadata.topics().iter().flat_map(MetadataTopic::partitions).map(MetadataPartition::id);
        let partitions: BTreeMap<i32, bool> = ids.map(|id| (id, false)).collect();
        assert!(!partitions.is_empty(), "no such topic: {topic}");
        let mut list = TopicPartitionList::new();
        for &id in partitions.keys() {
            list.add_partition_offset(topic, id, Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        Reader { consumer, records: Vec::new(), partitions }
    }

    fn read_to_end(mut self) -> Vec<Consumed> {
        while !self.at_end() {
            self.poll();
        }
        self.records
    }

    fn at_end(&self) -> bool {
        self.partitions.values().all(|&ended| ended)
    }

    fn poll(&mut self) -> Option<&Consumed> {
        match self.consumer.poll(Duration::from_millis(100))? {
            Ok(message) => {
                let record = consumed(&message);
                self.partitions.insert(record.partition, false);
                self.records.push(record);
                self.records.last()
            }
            Err(KafkaError::PartitionEOF(partition)) => {
                self.partitions.insert(partition, true);
                None
            }
            // The broker may be away at this moment. Whoever waits for more has a deadline.
            Err(_) => None,
        }
    }
}

fn consumed<M: Message>(message: &M) -> Consumed {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect::<Vec<_>>()
    });
    Consumed {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        payload: message.payload().unwrap_or_default().to_vec(),
        headers: headers.unwrap_or_default(),
        timestamp_ms: message.timestamp().to_millis(),
    }
}

/// A place for a broker of one's own: many cores run many tests at once, and each such broker costs memory.
struct Seat;

static SEATS: (Mutex<usize>, Condvar) = (Mutex::new(OWN_BROKERS_MAX), Condvar::new());

impl Seat {
    fn take() -> Seat {
        let mut free = SEATS.1.wait_while(SEATS.0.lock().unwrap(), |free| *free == 0).unwrap();
        *free -= 1;
        Seat
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        *SEATS.0.lock().unwrap() += 1;
        SEATS.1.notify_one();
    }
}

fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[cfg(test)]
mod tests {
    use rdkafka::message::{Header, OwnedHeaders};
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    use super::*;

    fn produce(server: &KafkaServer, topic: &str, numbers: std::ops::Range<u32>) {
        let producer: BaseProducer = server.client().set("acks", "all").create().unwrap();
        for number in numbers {
            let id = format!("id-{number}");
            let headers = OwnedHeaders::new().insert(Header { key: "forebay-id", value: Some(&id) });
            let payload = number.to_string();
            producer.send(BaseRecord::to(topic).key("k").payload(&payload).headers(headers)).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    }

    fn numbers(records: &[Consumed]) -> Vec<u32> {
        records.iter().map(|record| String::from_utf8_lossy(&record.payload).parse().unwrap()).collect()
    }

    #[test]
    fn what_was_produced_is_consumed_with_key_headers_and_order() {
        let kafka = KafkaServer::shared();
        kafka.create_topic("rig-consume", 3, &[("retention.ms", "-1")]);
        produce(&kafka, "rig-consume", 0..500);
        let records = kafka.consume_all("rig-consume");
        assert_eq!(numbers(&records), (0..500).collect::<Vec<_>>());
        assert_eq!(records[7].key.as_deref(), Some(b"k".as_slice()));
        assert_eq!(records[7].forebay_id().as_deref(), Some("id-7"));
        assert!(records[7].timestamp_ms.is_some());
    }

    #[test]
    fn an_empty_topic_is_consumed_to_its_end_and_a_deleted_one_is_gone() {
        let kafka = KafkaServer::shared();
        kafka.create_topic("rig-delete", 1, &[]);
        assert_eq!(kafka.consume_all("rig-delete"), []);
        kafka.delete_topic("rig-delete");
        assert!(!kafka.topics().contains("rig-delete"));
    }

    #[test]
    fn a_broker_keeps_its_port_and_records_through_stop_kill_and_pause() {
        let kafka = KafkaServer::start();
        kafka.create_topic("kept", 1, &[]);
        produce(&kafka, "kept", 0..10);
        kafka.kill();
        kafka.restart();
        produce(&kafka, "kept", 10..20);
        kafka.stop();
        kafka.restart();
        kafka.pause();
        let client: BaseConsumer = kafka.client().create().unwrap();
        assert!(client.fetch_metadata(None, Duration::from_millis(300)).is_err(), "a paused broker does not answer");
        kafka.resume();
        assert_eq!(numbers(&kafka.consume_until(&["kept"], |record| record.offset == 19)), (0..20).collect::<Vec<_>>());
    }

    #[test]
    #[should_panic(expected = "other tests use the shared broker")]
    fn the_shared_broker_cannot_be_disturbed() {
        KafkaServer::shared().kill();
    }
}
