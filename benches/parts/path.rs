//! End to end: devices, Mosquitto, the gateway, Kafka.

use std::time::Instant;

use crate::harness::gateway::{Builder, Gateway};
use crate::harness::kafka::KafkaServer;
use crate::harness::mosquitto::{Mosquitto, Options};

use super::core::TOPIC;
use super::{Used, load, memory, quantile, scaled, used, wait_delivered};

fn gateway(port: u16, kafka: &KafkaServer, lane: &str) -> Gateway {
    kafka.create_topic(TOPIC, 2, &[]);
    kafka.create_topic("forebay.events", 1, &[]);
    let builder: Builder = Gateway::builder();
    let mut gateway = builder
        .mqtt(port, None)
        .kafka(&kafka.bootstrap_servers())
        .lane("telemetry", lane)
        .route("plant/{line}/{device}/status", TOPIC, "telemetry")
        .build();
    gateway.start();
    gateway
}

/// 50 connections, QoS 1, 200 bytes, as fast as it goes.
pub fn throughput() {
    for lane in ["when = \"offline\"", "when = \"always\""] {
        let (kafka, mosquitto) = (
            KafkaServer::start(),
            Mosquitto::start(&Options { max_inflight_messages: Some(1000), ..Options::default() }),
        );
        let gateway = gateway(mosquitto.port(), &kafka, lane);
        let count = scaled(1_000_000);
        let (before, began) = (used(gateway.pid()), Instant::now());
        let summary = load(mosquitto.port(), "max", count, &["--window", "100"]);
        wait_delivered(&gateway, count);
        let took = began.elapsed().as_secs_f64();
        let u: Used = used(gateway.pid()).since(before);
        let (rss, peak) = memory(gateway.pid());
        let spooled = gateway.metric("forebay_spool_payload_bytes_total");
        println!(
            "{lane}: {count} records in {took:.1} s = {:.0}/s; gateway CPU {:.2} s per million; device bytes {} \
             ({:.2} per payload byte); payload through the spool {spooled:.0} bytes; RSS {rss:.1} MiB, peak {peak:.1} \
             MiB; loader {}",
            count as f64 / took,
            u.cpu_s * 1e6 / count as f64,
            u.device_bytes,
            u.device_bytes as f64 / (count * 200) as f64,
            summary["rate"],
        );
    }
}

/// 2,000/s: device to consumer.
pub fn latency() {
    for lane in ["when = \"offline\"", "when = \"always\""] {
        let (kafka, mosquitto) = (
            KafkaServer::start(),
            Mosquitto::start(&Options { max_inflight_messages: Some(1000), ..Options::default() }),
        );
        let gateway = gateway(mosquitto.port(), &kafka, lane);
        let count = scaled(60_000);
        let before = used(gateway.pid());
        let latencies = std::thread::scope(|scope| {
            let consumer = scope.spawn(|| consume(&kafka, count));
            load(mosquitto.port(), "2000", count, &["--window", "100"]);
            wait_delivered(&gateway, count);
            consumer.join().unwrap()
        });
        let u = used(gateway.pid()).since(before);
        let (rss, peak) = memory(gateway.pid());
        println!(
            "{lane}: {} records at 2,000/s: device to consumer p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms; gateway CPU \
             {:.2} s per million; device bytes {}; RSS {rss:.1} MiB, peak {peak:.1} MiB",
            latencies.len(),
            quantile(&latencies, 0.5) as f64 / 1e6,
            quantile(&latencies, 0.99) as f64 / 1e6,
            quantile(&latencies, 1.0) as f64 / 1e6,
            u.cpu_s * 1e6 / count as f64,
            u.device_bytes,
        );
    }
}

/// Nanoseconds between a reading's `sentNs` and its arrival here, sorted. The first tenth is warm-up.
pub fn consume(kafka: &KafkaServer, count: u64) -> Vec<i64> {
    let mut seen = 0;
    let mut latencies = Vec::with_capacity(count as usize);
    kafka.consume_until(&[TOPIC], |record| {
        #[expect(clippy::disallowed_methods, reason = "the loader's clock is this machine's too")]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i64;
        let json: serde_json::Value = serde_json::from_slice(&record.payload).unwrap();
        seen += 1;
        if seen > count / 10 {
            latencies.push(now - json["sentNs"].as_i64().unwrap());
        }
        seen >= count
    });
    latencies.sort_unstable();
    latencies
}
