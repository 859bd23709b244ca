//! End to end: devices, Mosquitto, the gateway, Kafka.

use std::net::TcpListener;
use std::time::Instant;

use crate::harness::gateway::{Builder, Gateway};
use crate::harness::jobs;
use crate::harness::kafka::KafkaServer;
use crate::harness::kafka_setup::Extras;
use crate::harness::mosquitto::{Mosquitto, Options};

use super::core::TOPIC;
use super::link;
use super::{Used, load, memory, quantile, scaled, used, wait_delivered};

fn gateway(port: u16, kafka: &KafkaServer, lane: &str) -> Gateway {
    gateway_by(port, kafka, &kafka.bootstrap_servers(), lane)
}

/// A gateway that reaches Kafka by one of its listeners.
fn gateway_by(port: u16, kafka: &KafkaServer, bootstrap_servers: &str, lane: &str) -> Gateway {
    kafka.create_topic(TOPIC, 2, &[]);
    kafka.create_topic("forebay.events", 1, &[]);
    let builder: Builder = Gateway::builder();
    let mut gateway = builder
        .mqtt(port, None)
        .kafka(bootstrap_servers)
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

/// 300 ms round trip and 1 Mbit/s between the gateway and Kafka: as fast as it goes, then 500/s from device to consumer,
/// who stands beside Kafka.
pub fn thin() {
    for lane in ["when = \"offline\"", "when = \"always\""] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (link_port, far_port) = (listener.local_addr().unwrap().port(), jobs::free_port());
        let kafka = KafkaServer::shared_with(&Extras {
            listeners: vec![("LINK", "PLAINTEXT", far_port)],
            behind: vec![("LINK", link_port)],
            ..Extras::default()
        });
        link::start(listener, far_port);
        let mosquitto = Mosquitto::start(&Options { max_inflight_messages: Some(1000), ..Options::default() });
        let gateway = gateway_by(mosquitto.port(), &kafka, &format!("127.0.0.1:{link_port}"), lane);
        let count = scaled(60_000);
        let (before, began) = (used(gateway.pid()), Instant::now());
        load(mosquitto.port(), "max", count, &["--window", "100"]);
        wait_delivered(&gateway, count);
        let took = began.elapsed().as_secs_f64();
        let u = used(gateway.pid()).since(before);
        println!(
            "{lane}, thin link: {count} records in {took:.1} s = {:.0}/s; gateway CPU {:.2} s per million; to spooling {} \
             times; RSS {:.1} MiB, peak {:.1} MiB",
            count as f64 / took,
            u.cpu_s * 1e6 / count as f64,
            gateway.metric("forebay_lane_to_spooling_total"),
            memory(gateway.pid()).0,
            memory(gateway.pid()).1,
        );
        let count = scaled(15_000);
        let latencies = std::thread::scope(|scope| {
            let consumer = scope.spawn(|| consume_behind(&kafka, scaled(60_000), count));
            load(mosquitto.port(), "500", count, &["--window", "100"]);
            consumer.join().unwrap()
        });
        println!(
            "{lane}, thin link: {} records at 500/s: device to consumer p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms",
            latencies.len(),
            quantile(&latencies, 0.5) as f64 / 1e6,
            quantile(&latencies, 0.99) as f64 / 1e6,
            quantile(&latencies, 1.0) as f64 / 1e6,
        );
    }
}

/// Nanoseconds between a reading's `sentNs` and its arrival here, sorted. The first tenth is warm-up.
pub fn consume(kafka: &KafkaServer, count: u64) -> Vec<i64> {
    consume_behind(kafka, 0, count)
}

/// The same for the `count` records behind the first `skipped`, which are no part of it.
fn consume_behind(kafka: &KafkaServer, skipped: u64, count: u64) -> Vec<i64> {
    let mut skip = skipped;
    let mut seen = 0;
    let mut latencies = Vec::with_capacity(count as usize);
    kafka.consume_until(&[TOPIC], |record| {
        #[expect(clippy::disallowed_methods, reason = "the loader's clock is this machine's too")]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i64;
        if skip > 0 {
            skip -= 1;
            return false;
        }
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
