//! Devices, the gateway's listener, Kafka; and Mosquitto in the gateway's place.

use std::time::Instant;

use crate::harness::gateway::{Builder, Gateway};
use crate::harness::jobs;
use crate::harness::kafka::KafkaServer;
use crate::harness::mosquitto::{Mosquitto, Options};
use crate::harness::mqtt::Subscriber;

use super::core::TOPIC;
use super::path::consume;
use super::{Loaded, Used, load_over, memory, quantile, scaled, used, wait_delivered};

const LANES: [(&str, &str); 2] =
    [("direct", "when = \"offline\""), ("durable (`when = \"always\"`)", "when = \"always\"")];
/// Hundreds of connections at once, and thousands that idle; all else is the default.
const LIMITS: &str = "connections = 20000\nsessions = 20000\nconnect_rate = 20000";

/// Mosquitto with a session file and without.
const BROKERS: [(&str, bool); 2] = [("Mosquitto, persistence on", false), ("Mosquitto, persistence off", true)];

/// A gateway whose listener has these lines, and a lane of this kind.
pub fn builder(kafka: &KafkaServer, listener: &str, lane: &str) -> Builder {
    kafka.create_topic(TOPIC, 2, &[]);
    kafka.create_topic("forebay.events", 1, &[]);
    Gateway::builder()
        .kafka(&kafka.bootstrap_servers())
        .table("[[source.listener]]", &format!("name = \"plant\"\n{listener}"))
        .table("[source.listener.limits]", LIMITS)
        .lane("telemetry", lane)
        .route("plant/{line}/{device}/status", TOPIC, "telemetry")
}

/// Until devices can reach it.
pub fn start(builder: Builder) -> Gateway {
    let mut gateway = builder.build();
    gateway.start();
    jobs::wait_until("the listener is bound", || {
        (gateway.metric("forebay_listener_endpoints_bound") > 0.0).then_some(())
    });
    gateway
}

fn gateway(kafka: &KafkaServer, port: u16, lane: &str) -> Gateway {
    start(builder(kafka, &format!("listen = \"127.0.0.1:{port}\""), lane))
}

/// A broker with a subscriber that is away: what is published must be queued, as it would be for a bridge in an outage.
fn broker(forgetful: bool) -> Mosquitto {
    let broker = Mosquitto::start(&Options { forgetful, ..Options::default() });
    drop(Subscriber::connect(broker.port(), "bridge", None, "plant/#"));
    broker
}

/// One server under one load.
struct Measured {
    server: String,
    count: u64,
    loaded: Loaded,
    usage: Used,
    /// MiB.
    peak: f64,
}

impl Measured {
    /// CPU seconds of a million messages.
    fn per_million(&self, cpu_s: f64) -> f64 {
        cpu_s * 1e6 / self.count as f64
    }

    fn number(&self, key: &str) -> f64 {
        self.loaded.summary[key].as_f64().unwrap()
    }
}

/// QoS 1, 200 bytes, 50 and 1,000 connections, as fast as it goes. A tenth of it, which warms everything up, comes before.
pub fn throughput() {
    println!(
        "| server | connections | PUBACK/s | into Kafka/s | server CPU s per million | loader CPU s per million | loader's \
         share of a core | device bytes per payload byte | RSS, peak MiB |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let count = scaled(1_000_000);
    for connections in [50, 1_000] {
        for (name, lane) in LANES {
            forward(name, lane, connections, count);
        }
        for (name, forgetful) in BROKERS {
            let broker = broker(forgetful);
            max_load(connections, broker.port(), count / 10);
            let before = used(broker.pid());
            let loaded = max_load(connections, broker.port(), count);
            let (usage, peak) = (used(broker.pid()).since(before), memory(broker.pid()).1);
            throughput_row(connections, None, &Measured { server: name.to_owned(), count, loaded, usage, peak });
        }
    }
}

/// Through the gateway into Kafka.
fn forward(name: &str, lane: &str, connections: u32, count: u64) {
    let (kafka, port) = (KafkaServer::start(), jobs::free_port());
    let gateway = gateway(&kafka, port, lane);
    max_load(connections, port, count / 10);
    wait_delivered(&gateway, count / 10);
    let before = used(gateway.pid());
    let loaded = max_load(connections, port, count);
    let answered = Instant::now();
    wait_delivered(&gateway, count / 10 + count);
    let rest = answered.elapsed().as_secs_f64();
    let (usage, peak) = (used(gateway.pid()).since(before), memory(gateway.pid()).1);
    let measured = Measured { server: format!("Forebay, {name}"), count, loaded, usage, peak };
    // From the first message to the last answer, and from there to Kafka's last acknowledgement as the gateway shows it,
    // four times a second: a floor.
    let rate = count as f64 / (measured.number("seconds") + rest);
    throughput_row(connections, Some(rate), &measured);
}

fn max_load(connections: u32, port: u16, count: u64) -> Loaded {
    load_over(connections, port, "max", count, &["--window", "100"])
}

fn throughput_row(connections: u32, kafka_rate: Option<f64>, m: &Measured) {
    println!(
        "| {} | {connections} | {:.0} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} |",
        m.server,
        m.number("rate"),
        kafka_rate.map_or("-".to_owned(), |rate| format!("{rate:.0}")),
        m.per_million(m.usage.cpu_s),
        m.per_million(m.loaded.cpu_s),
        m.loaded.cpu_s / m.number("seconds"),
        m.usage.device_bytes as f64 / (m.count * 200) as f64,
        m.peak,
    );
}

/// 2,000/s over 50 connections: device to PUBACK, and device to consumer.
pub fn latency() {
    println!(
        "| server | PUBACK p50 | p99 | p99.9 | max | device to consumer p50 | p99 | p99.9 | max | server CPU s per million \
         | loader CPU s per million | RSS, peak MiB |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let count = scaled(60_000);
    for (name, lane) in LANES {
        let (kafka, port) = (KafkaServer::start(), jobs::free_port());
        let gateway = gateway(&kafka, port, lane);
        let before = used(gateway.pid());
        let (loaded, consumed) = std::thread::scope(|scope| {
            let consumer = scope.spawn(|| consume(&kafka, count));
            let loaded = paced_load(port, count);
            (loaded, consumer.join().unwrap())
        });
        let (usage, peak) = (used(gateway.pid()).since(before), memory(gateway.pid()).1);
        let server = format!("Forebay, {name}");
        latency_row(Some(&consumed), &Measured { server, count, loaded, usage, peak });
    }
    for (name, forgetful) in BROKERS {
        let broker = broker(forgetful);
        let before = used(broker.pid());
        let loaded = paced_load(broker.port(), count);
        let (usage, peak) = (used(broker.pid()).since(before), memory(broker.pid()).1);
        latency_row(None, &Measured { server: name.to_owned(), count, loaded, usage, peak });
    }
}

fn paced_load(port: u16, count: u64) -> Loaded {
    load_over(50, port, "2000", count, &["--window", "100"])
}

fn latency_row(consumed: Option<&[i64]>, m: &Measured) {
    let answers = ["p50", "p99", "p999", "max"].map(|q| m.loaded.summary["latencyMs"][q].as_f64().unwrap());
    let answers = answers.map(|ms| format!("{ms:.1} ms"));
    let arrivals = [0.5, 0.99, 0.999, 1.0].map(|q| match consumed {
        Some(sorted) => format!("{:.1} ms", quantile(sorted, q) as f64 / 1e6),
        None => "-".to_owned(),
    });
    println!(
        "| {} | {} | {} | {:.1} | {:.1} | {:.1} |",
        m.server,
        answers.join(" | "),
        arrivals.join(" | "),
        m.per_million(m.usage.cpu_s),
        m.per_million(m.loaded.cpu_s),
        m.peak,
    );
}
