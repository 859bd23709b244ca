//! librdkafka's answer: a producer against its built-in mock cluster.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer, ProducerContext};

use super::partition;

/// Notes the partition of every delivered key.
#[derive(Debug, Clone, Default)]
struct Delivered(Arc<Mutex<HashMap<Vec<u8>, i32>>>);

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let message = result.as_ref().unwrap();
        self.0.lock().unwrap().insert(message.key().unwrap().to_vec(), message.partition());
    }
}

fn keys() -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = (0..500).map(|n| format!("plant/line{}/device-{n}", n % 7).into_bytes()).collect();
    keys.extend((1..40).map(|len| vec![0xff; len]));
    keys.extend(["21", "foobar", "é", "a|b:c", " "].map(|key| key.as_bytes().to_vec()));
    keys.push(vec![b'k'; 65_535]);
    keys
}

#[test]
fn librdkafka_and_java_choose_the_same_partition() {
    const PARTITIONS: i32 = 12;
    let cluster: MockCluster<'static, DefaultProducerContext> = MockCluster::new(1).unwrap();
    cluster.create_topic("t", PARTITIONS, 1).unwrap();
    let delivered = Delivered::default();
    let producer: BaseProducer<Delivered> = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("partitioner", "murmur2_random")
        .create_with_context(delivered.clone())
        .unwrap();
    for key in keys() {
        producer.send(BaseRecord::to("t").key(&key).payload("x")).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    let delivered = delivered.0.lock().unwrap();
    for key in keys() {
        let shown = String::from_utf8_lossy(&key[..key.len().min(40)]).into_owned();
        assert_eq!(delivered.get(&key), Some(&partition(&key, PARTITIONS)), "{shown}");
    }
}
