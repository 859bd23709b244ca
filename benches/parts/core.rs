//! The spool alone, the drain of a backlog beside a bare producer, memory and start with a full spool.

use std::path::Path;
use std::time::Instant;

use forebay::record::{Arrival, Body, RecordView, TimestampKind};
use forebay::spool::store::Store;
use forebay::spool::{Commit, NewChunk, row_base};

use crate::harness::gateway::Gateway;
use crate::harness::jobs;
use crate::harness::kafka::KafkaServer;
use crate::harness::mosquitto::{Mosquitto, Options};

use super::{file_len, load, memory, scaled, used, wait_delivered};

pub const TOPIC: &str = "EquipmentStatus";
const PER_COMMIT: u64 = 1_000;

pub fn size() {
    let path = Path::new(env!("CARGO_BIN_EXE_forebay"));
    println!("stripped release binary: {:.1} MiB", file_len(path) as f64 / (1 << 20) as f64);
}

/// 200 bytes of JSON that differ as readings do.
pub fn payload(n: u64) -> String {
    let noise = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut text = format!(
        r#"{{"equipment":"press-{:02}","jobPercentFinished":{}.{:02},"producing":true,"timestamp":"2026-11-21T10:{:02}:{:02}.{:03}Z","serial":"{noise:016x}","pad":""#,
        n % 50,
        n % 100,
        noise % 100,
        n / 60_000 % 60,
        n / 1000 % 60,
        n % 1000,
    );
    while text.len() < 198 {
        text.push('.');
    }
    text + "\"}"
}

fn body(n: u64, scratch: &mut Vec<u8>) -> Body {
    let (key, text) = (format!("press-{:02}", n % 50), payload(n));
    let arrival = Arrival { wall_ms: 1_790_000_000_000 + n as i64 / 2, boot_ms: n / 2 };
    RecordView {
        topic: TOPIC,
        key: Some(key.as_bytes()),
        headers: vec![("mqtt.topic", b"plant/line1/press/status")],
        payload: text.as_bytes(),
        timestamp_ms: arrival.wall_ms,
        timestamp_kind: TimestampKind::Arrival,
        arrival,
        old_id: None,
    }
    .encode(scratch)
}

/// Fills a lane of `store` as the gateway would: 1,000 records a commit.
fn fill(store: &mut Store, lane: u32, records: u64, run: u64) {
    let mut scratch = Vec::new();
    let base = store.last_row(lane).unwrap().max(row_base(lane));
    for commit in 0..records.div_ceil(PER_COMMIT) {
        let first = commit * PER_COMMIT;
        let numbered = (first..(first + PER_COMMIT).min(records)).map(|n| (n + 1, body(n, &mut scratch))).collect();
        let row = base + commit as i64 + 1;
        let chunk = NewChunk { row, run, records: numbered, ts_min: 0, ts_max: 0 };
        store.commit(&Commit { chunks: vec![chunk], ..Commit::default() }).unwrap();
    }
}

/// Append and read rates of the store itself, and what reaches the device.
pub fn spool() {
    let dir = jobs::scratch("bench-spool");
    let mut store = Store::open(&dir.path().join("spool.db"), 8 << 30, 1 << 20).unwrap();
    let lane = store.lane_number("telemetry").unwrap();
    let records = scaled(1_000_000);
    let pid = std::process::id();
    let (before, began) = (used(pid), Instant::now());
    fill(&mut store, lane, records, 7);
    let (u, took) = (used(pid).since(before), began.elapsed().as_secs_f64());
    println!(
        "append: {records} records of 200 bytes, {PER_COMMIT} a commit: {:.0}/s, CPU {:.2} s per million, {:.2} device \
         bytes per payload byte, {} fsyncs",
        records as f64 / took,
        u.cpu_s * 1e6 / records as f64,
        u.device_bytes as f64 / (records * 200) as f64,
        records / PER_COMMIT,
    );
    let (before, began) = (used(pid), Instant::now());
    let (mut after, mut read) = (row_base(lane), 0);
    loop {
        let forebay::spool::store::Read { chunks, more, .. } = store.read(lane, after, 2 << 20).unwrap();
        read += chunks.iter().map(|c| c.records.len() as u64).sum::<u64>();
        let Some(last) = chunks.last() else { break };
        after = last.row;
        if !more {
            break;
        }
    }
    let (u, took) = (used(pid).since(before), began.elapsed().as_secs_f64());
    println!("read: {read} records: {:.0}/s, CPU {:.2} s per million", read as f64 / took, u.cpu_s * 1e6 / read as f64);
}

/// A backlog of a million: the gateway from its start to the last delivery, and beside it a bare producer of the same
/// crate with the same settings and payloads that are already in memory.
pub fn drain() {
    let records = scaled(1_000_000);
    let kafka = KafkaServer::start();
    kafka.create_topic(TOPIC, 2, &[]);
    kafka.create_topic("forebay.events", 1, &[]);
    let bare = super::kafka::bare_producer(&kafka, records);
    let mosquitto = Mosquitto::start(&Options::default());
    let mut gateway = spooling_gateway(&mosquitto, &kafka, records);
    let began = Instant::now();
    gateway.start_alone();
    wait_delivered(&gateway, records);
    let rate = records as f64 / began.elapsed().as_secs_f64();
    let u = used(gateway.pid());
    println!(
        "drain of {records}: {rate:.0}/s, CPU {:.2} s per million, {:.2} of the bare producer ({bare:.0}/s); device bytes \
         {}; peak RSS {:.1} MiB",
        u.cpu_s * 1e6 / records as f64,
        rate / bare,
        u.device_bytes,
        memory(gateway.pid()).1,
    );
}

/// A gateway, not started, whose spool holds `records`.
fn spooling_gateway(mosquitto: &Mosquitto, kafka: &KafkaServer, records: u64) -> Gateway {
    let gateway = Gateway::builder()
        .mqtt(mosquitto.port(), None)
        .kafka(&kafka.bootstrap_servers())
        .spool("max_bytes = \"8GiB\"\n")
        .lane("telemetry", "when = \"offline\"\nmax_bytes = \"8GiB\"")
        .route("plant/{line}/{device}/status", TOPIC, "telemetry")
        .build();
    let path = gateway.config().parent().unwrap().join("state/spool.db");
    let mut store = Store::open(&path, 8 << 30, 64 << 20).unwrap();
    let lane = store.lane_number("telemetry").unwrap();
    fill(&mut store, lane, records, 7);
    gateway
}

/// Ten million spooled and no Kafka: memory, and the time from the start to the first PUBACK.
pub fn full() {
    let records = scaled(10_000_000);
    let (kafka, mosquitto) = (KafkaServer::start(), Mosquitto::start(&Options::default()));
    let mut gateway = spooling_gateway(&mosquitto, &kafka, records);
    kafka.stop();
    let began = Instant::now();
    gateway.start_alone();
    load(mosquitto.port(), "100", 1, &["--window", "1"]);
    jobs::wait_until("the first PUBACK", || (gateway.metric("forebay_source_pubacks_total") >= 1.0).then_some(()));
    let first = began.elapsed().as_secs_f64();
    jobs::wait_until("all counted", || {
        (gateway.metric("forebay_lane_backlog_records") >= records as f64).then_some(())
    });
    println!(
        "{records} spooled: start to first PUBACK {first:.2} s (the loader's start included), all counted after {:.1} s; \
         RSS {:.1} MiB, peak {:.1} MiB",
        began.elapsed().as_secs_f64(),
        memory(gateway.pid()).0,
        memory(gateway.pid()).1,
    );
}
