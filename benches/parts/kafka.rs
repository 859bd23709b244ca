//! The yardstick: a bare producer of the same crate, with the gateway's settings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use crate::harness::kafka::KafkaServer;

use super::core::{TOPIC, payload};
use super::used;

#[derive(Default)]
struct Count(Arc<AtomicU64>);

impl ClientContext for Count {}

impl ProducerContext for Count {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok(), "{result:?}");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Records a second, of payloads that are already in memory.
pub fn bare_producer(kafka: &KafkaServer, records: u64) -> f64 {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap_servers()).set("enable.idempotence", "true").set("acks", "all");
    config.set("compression.codec", "zstd").set("linger.ms", "5").set("partitioner", "murmur2_random");
    config.set("queue.buffering.max.kbytes", "6144").set("queue.buffering.max.messages", "20001");
    let count = Arc::new(AtomicU64::new(0));
    let producer: ThreadedProducer<Count> = config.create_with_context(Count(Arc::clone(&count))).unwrap();
    let payloads: Vec<String> = (0..records).map(payload).collect();
    let keys: Vec<String> = (0..50).map(|n| format!("press-{n:02}")).collect();
    let (before, began) = (used(std::process::id()), Instant::now());
    for (n, payload) in payloads.iter().enumerate() {
        let mut record = BaseRecord::to(TOPIC).key(&keys[n % 50]).payload(payload);
        while let Err((_, back)) = producer.send(record) {
            record = back;
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    let took = began.elapsed().as_secs_f64();
    let cpu = used(std::process::id()).since(before).cpu_s;
    println!("bare producer: {:.0}/s, CPU {:.2} s per million", records as f64 / took, cpu * 1e6 / records as f64);
    records as f64 / took
}
