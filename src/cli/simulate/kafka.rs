//! Devices that write to Kafka themselves, as the classic sample does: a keyed record for each status.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use tokio::sync::Notify;
use tokio::time::{sleep_until, timeout};

use super::SimulateError;
use super::feed::{Feed, Message, Next};
use super::run::{Event, Outcome, Run, Stop};

/// Which cluster and topic.
#[derive(Clone)]
pub struct KafkaTarget {
    pub bootstrap: String,
    pub topic: String,
    /// Of librdkafka. May hold secrets.
    pub properties: Vec<(String, String)>,
}

impl fmt::Debug for KafkaTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.properties.iter().map(|(name, _)| name).collect();
        write!(f, "KafkaTarget {{ {} at {}, properties: {names:?} }}", self.topic, self.bootstrap)
    }
}

/// A full producer queue is looked at again after this time, if no delivery report comes before.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(100);

/// One producer for all devices.
pub struct Producer {
    producer: ThreadedProducer<Reports>,
    run: Arc<Run>,
    topic: String,
}

impl Producer {
    /// # Errors
    /// librdkafka refuses the properties.
    pub fn new(target: &KafkaTarget, run: &Arc<Run>) -> Result<Self, SimulateError> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &target.bootstrap);
        config.set("client.id", format!("sim-{}", run.limits.instance));
        // The partition of a key must be that of Java clients.
        config.set("partitioner", "murmur2_random").set("linger.ms", "5");
        for (name, value) in &target.properties {
            config.set(name, value);
        }
        // After the properties: what is acknowledged must be safe, whatever was asked.
        config.set("acks", "all").set("enable.idempotence", "true").set("message.timeout.ms", "0");
        let reports = Reports { run: Arc::clone(run), reported: Notify::new() };
        let producer = config.create_with_context(reports).map_err(|error| SimulateError::Kafka(error.to_string()))?;
        Ok(Self { producer, run: Arc::clone(run), topic: target.topic.clone() })
    }

    /// Publishes the feed of one device and waits until everything of all devices that was sent is reported, or the
    /// run is stopped and the time for that is over.
    pub async fn publish<F: Feed>(self: Arc<Self>, mut feed: F, mut stop: Stop) -> Outcome {
        let mut sent = 0;
        loop {
            let now = self.run.clock.now();
            let wake_at = match feed.next(now) {
                Next::Message(message) => {
                    self.send(&message, now.since_start).await;
                    sent += 1;
                    continue;
                }
                Next::At(at) => at,
                Next::Die { silent } => now.since_start + silent,
                Next::Finished => break,
            };
            tokio::select! {
                () = sleep_until(self.run.clock.instant(wake_at)) => {}
                () = stop.stopped() => break,
            }
        }
        self.drained(stop).await;
        Outcome { client_id: feed.id(0), sent, unacknowledged: Vec::new(), failure: None }
    }

    async fn send(&self, message: &Message, now: Duration) {
        // Before sending: the report may come at once.
        self.run.tally.add(|counts| counts.note_sent(1, now));
        let record = || {
            let record = BaseRecord::with_opaque_to(&self.topic, Box::new(now));
            record.key(message.place.equipment.as_str()).payload(&message.payload[..])
        };
        loop {
            match self.producer.send(record()) {
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    let _ = timeout(QUEUE_FULL_PAUSE, self.reports().reported.notified()).await;
                }
                Ok(()) => return,
                Err((error, _)) => return self.reports().refuse(&error),
            }
        }
    }

    /// A stopped run waits no longer than its limit, a finished one until the end or until it is stopped.
    async fn drained(&self, mut stop: Stop) {
        let limit = async {
            stop.stopped().await;
            tokio::time::sleep(self.run.limits.drain).await;
        };
        let mut limit = std::pin::pin!(limit);
        loop {
            let reported = self.reports().reported.notified();
            if self.run.tally.counts().outstanding() == 0 {
                // Each one that waits here wakes the next: a permit wakes only one.
                self.reports().reported.notify_one();
                return;
            }
            tokio::select! {
                () = reported => {}
                () = &mut limit => return,
            }
        }
    }

    fn reports(&self) -> &Reports {
        use rdkafka::producer::Producer as _;
        self.producer.context()
    }
}

/// Takes the delivery reports, on librdkafka's thread.
struct Reports {
    run: Arc<Run>,
    reported: Notify,
}

impl Reports {
    fn refuse(&self, error: &KafkaError) {
        self.run.tally.add(|counts| counts.refused += 1);
        self.run.tell(Event::Disconnected { client_id: "kafka".into(), reason: error.to_string() });
    }
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        let reason = format!("{error}: {reason}");
        self.run.tell(Event::CannotConnect { client_id: "kafka".into(), reason });
    }
}

impl ProducerContext for Reports {
    /// When the record was sent, since the start of the run.
    type DeliveryOpaque = Box<Duration>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent_at: Box<Duration>) {
        match result {
            Ok(_) => {
                let now = self.run.clock.now().since_start;
                self.run.tally.add(|counts| counts.note_acknowledged(*sent_at, now));
            }
            Err((error, _)) => self.refuse(error),
        }
        self.reported.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;
    use std::time::Instant;

    use rdkafka::Message as _;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::mocking::MockCluster;

    use super::super::devices::DeviceOptions;
    use super::super::run::{Limits, Target, run_devices};
    use super::*;

    /// How many records of each key the topic holds, once there are `count` in all.
    fn keys(bootstrap: &str, count: usize) -> BTreeMap<String, usize> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("group.id", "witness").set("auto.offset.reset", "earliest");
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.subscribe(&["EquipmentStatus"]).unwrap();
        let (started, mut keys) = (Instant::now(), BTreeMap::new());
        while keys.values().sum::<usize>() < count {
            assert!(started.elapsed() < Duration::from_secs(60), "{keys:?} of {count}");
            if let Some(Ok(record)) = consumer.poll(QUEUE_FULL_PAUSE) {
                let key = String::from_utf8(record.key().unwrap().to_vec()).unwrap();
                assert!(serde_json::from_slice::<serde_json::Value>(record.payload().unwrap()).is_ok());
                *keys.entry(key).or_default() += 1;
            }
        }
        keys
    }

    #[tokio::test]
    async fn each_status_becomes_a_record_with_the_key_of_its_equipment() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("EquipmentStatus", 3, 1).unwrap();
        let bootstrap = cluster.bootstrap_servers();
        let target = KafkaTarget { bootstrap, topic: "EquipmentStatus".into(), properties: Vec::new() };
        let options = DeviceOptions {
            devices: 2,
            equipments: 2,
            interval: Duration::from_millis(5),
            count: Some(40),
            ..DeviceOptions::default()
        };
        let (_sender, stop) = Stop::channel();
        let target = Target::Kafka(target);
        let summary = run_devices(&target, options, Limits::new(), stop, |_| {}).await.unwrap();
        assert!(summary.is_complete(), "{summary}");
        assert_eq!((summary.sent, summary.acknowledged), (40, 40));
        let expected = ["0001-01", "0001-02", "0002-01", "0002-02"].map(|n| (format!("equipment-{n}"), 10));
        assert_eq!(keys(&cluster.bootstrap_servers(), 40), BTreeMap::from(expected));
    }

    #[test]
    fn properties_do_not_show() {
        let properties = vec![("sasl.password".to_owned(), "s3cret".to_owned())];
        let target = KafkaTarget { bootstrap: "b".into(), topic: "t".into(), properties };
        assert!(!format!("{target:?}").contains("s3cret"));
    }
}
