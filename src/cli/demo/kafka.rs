//! Kafka in the demo: the cluster inside this process, and the witness that counts what has arrived.
//!
//! The witness is a plain consumer. It shares nothing with the gateway: what it has not read from the topic does not
//! count as being in Kafka.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::metadata::MetadataTopic;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;

/// The record header by which every record of a gateway is known: `gateway:run:lane:sequence`.
const ID_HEADER: &str = "forebay-id";
/// How long a cluster may take to say where its partitions end.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// How often the witness looks whether it may go home.
const POLL: Duration = Duration::from_millis(100);
const ALL_BROKERS: i32 = -1;

/// A Kafka cluster of one broker inside this process: librdkafka's own, made for tests. It must outlive its clients.
pub struct Embedded {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Embedded {
    /// A cluster with these topics, by name and number of partitions.
    ///
    /// # Errors
    /// What librdkafka says.
    pub fn start(topics: &[(&str, i32)]) -> Result<Self, String> {
        let cluster = MockCluster::new(1).map_err(|error| error.to_string())?;
        for (name, partitions) in topics {
            cluster.create_topic(name, *partitions, 1).map_err(|error| format!("topic {name}: {error}"))?;
        }
        Ok(Self { cluster })
    }

    pub fn bootstrap_servers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Cuts all connections and takes no new ones.
    ///
    /// # Errors
    /// What librdkafka says.
    pub fn take_away(&self) -> Result<(), String> {
        self.cluster.broker_down(ALL_BROKERS).map_err(|error| error.to_string())
    }

    /// # Errors
    /// What librdkafka says.
    pub fn bring_back(&self) -> Result<(), String> {
        self.cluster.broker_up(ALL_BROKERS).map_err(|error| error.to_string())
    }
}

/// What the witness has seen so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Readings, each once.
    pub distinct: u64,
    /// Records of a reading that had been seen before.
    pub repeated: u64,
}

/// Why the witness cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    #[error(transparent)]
    Kafka(#[from] rdkafka::error::KafkaError),
    #[error("there is no topic {0}")]
    NoTopic(String),
    #[error(transparent)]
    Thread(#[from] std::io::Error),
}

/// Reads one topic from its present end on, in a thread of its own, and counts the readings of one gateway.
pub struct Witness {
    counted: watch::Receiver<Counted>,
    ending: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Witness {
    /// Waits for the cluster. `gateway` is the name in the ids of its records.
    ///
    /// # Errors
    /// The cluster does not answer or has no such topic.
    pub fn start(bootstrap_servers: &str, topic: &str, gateway: &str) -> Result<Self, WitnessError> {
        let consumer = consumer_at_the_end(bootstrap_servers, topic, gateway)?;
        let (count, counted) = watch::channel(Counted::default());
        let ending = Arc::new(AtomicBool::new(false));
        let (end, prefix) = (Arc::clone(&ending), format!("{gateway}:"));
        let thread = std::thread::Builder::new()
            .name("demo-witness".into())
            .spawn(move || watch_topic(&consumer, &prefix, &count, &end))?;
        Ok(Self { counted, ending, thread })
    }

    pub fn counted(&self) -> Counted {
        *self.counted.borrow()
    }

    /// Tells each new count.
    pub fn counts(&self) -> watch::Receiver<Counted> {
        self.counted.clone()
    }

    /// The last count, once the consumer is gone.
    pub fn finish(self) -> Counted {
        self.ending.store(true, Ordering::Relaxed);
        // A witness that panicked has still left its last count.
        let _ = self.thread.join();
        *self.counted.borrow()
    }
}

fn consumer_at_the_end(servers: &str, topic: &str, group: &str) -> Result<BaseConsumer, WitnessError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("client.id", "forebay-demo-witness")
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("allow.auto.create.topics", "false")
        // The embedded broker answers a fetch that found nothing only after this time, whatever comes meanwhile.
        .set("fetch.wait.max.ms", "50")
        // The outage of the demo is short; so is the patience of who watches it.
        .set("reconnect.backoff.max.ms", "500")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER_PATIENCE)?;
    let mut places = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(MetadataTopic::partitions) {
        let (_, end) = consumer.fetch_watermarks(topic, partition.id(), ANSWER_PATIENCE)?;
        places.add_partition_offset(topic, partition.id(), Offset::Offset(end))?;
    }
    if places.count() == 0 {
        return Err(WitnessError::NoTopic(topic.to_owned()));
    }
    consumer.assign(&places)?;
    Ok(consumer)
}

fn watch_topic(consumer: &BaseConsumer, prefix: &str, count: &watch::Sender<Counted>, end: &AtomicBool) {
    // Bounded by what the devices of one demo publish.
    let mut seen = HashSet::new();
    while !end.load(Ordering::Relaxed) {
        // Errors are those of the outage; the consumer goes on by itself.
        let Some(Ok(record)) = consumer.poll(POLL) else { continue };
        let Some(id) = reading_id(&record, prefix) else { continue };
        let new = seen.insert(id);
        count.send_modify(|counted| {
            counted.distinct += u64::from(new);
            counted.repeated += u64::from(!new);
        });
    }
}

/// The id that the device wrote into the reading; `None` for records of others.
fn reading_id(record: &BorrowedMessage<'_>, prefix: &str) -> Option<String> {
    let mut headers = record.headers()?.iter();
    let id = headers.find(|header| header.key == ID_HEADER)?.value?;
    if !id.starts_with(prefix.as_bytes()) {
        return None;
    }
    id_of_payload(record.payload()?)
}

fn id_of_payload(payload: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Status {
        id: String,
    }
    serde_json::from_slice::<Status>(payload).ok().map(|status| status.id)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use rdkafka::message::{Header, OwnedHeaders};
    use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};

    use super::*;

    fn publish(cluster: &Embedded, records: &[(&str, &str)]) {
        let mut config = ClientConfig::new();
        let producer: ThreadedProducer<DefaultProducerContext> =
            config.set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
        for (id, payload) in records {
            let headers = OwnedHeaders::new().insert(Header { key: ID_HEADER, value: Some(*id) });
            producer.send(BaseRecord::<(), _>::to("t").payload(*payload).headers(headers)).unwrap();
        }
        producer.flush(ANSWER_PATIENCE).unwrap();
    }

    #[tokio::test]
    async fn the_witness_counts_each_reading_of_its_gateway_once_and_from_its_start_on() {
        let cluster = Embedded::start(&[("t", 2)]).unwrap();
        publish(&cluster, &[("g:1:0:0", r#"{"id":"before"}"#)]);
        let witness = Witness::start(&cluster.bootstrap_servers(), "t", "g").unwrap();
        let records = [("g:1:0:1", "a"), ("g:1:0:2", "b"), ("other:1:0:1", "c"), ("g:1:0:2", "b"), ("g:1:0:9", "a")];
        let payloads = records.map(|(id, reading)| (id, format!(r#"{{"producing":true,"id":"{reading}"}}"#)));
        publish(&cluster, &payloads.each_ref().map(|(id, payload)| (*id, payload.as_str())));
        let expected = Counted { distinct: 2, repeated: 2 };
        let mut counts = witness.counts();
        let all = counts.wait_for(|counted| *counted == expected);
        tokio::time::timeout(ANSWER_PATIENCE, all).await.unwrap().unwrap();
        assert_eq!(witness.finish(), expected);
    }

    #[test]
    fn a_witness_without_a_topic_says_so() {
        let cluster = Embedded::start(&[("t", 2)]).unwrap();
        let refused = Witness::start(&cluster.bootstrap_servers(), "another", "g").err().unwrap();
        assert_eq!(refused.to_string(), "there is no topic another");
    }
}
