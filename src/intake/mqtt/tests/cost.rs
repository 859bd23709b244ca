//! What a reading costs in the connection's task: a measurement that fails when it grows.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use tokio::sync::Notify;

use super::support::{Hub, Running, publish, soon, source};
use crate::config::MqttVersion::{self, V5, V311};
use crate::intake::{AckTicket, Change, Deliver, Delivery};

const READINGS: u64 = 500_000;

/// Acknowledges at once.
#[derive(Default)]
struct Instantly {
    count: AtomicU64,
    all: Notify,
}

impl Deliver for Instantly {
    fn deliver(&self, batch: &mut Vec<Delivery>) {
        let count = self.count.fetch_add(batch.len() as u64, Ordering::Relaxed) + batch.len() as u64;
        batch.drain(..).filter_map(|delivery| delivery.ack).for_each(AckTicket::fire);
        if count == READINGS {
            self.all.notify_one();
        }
    }

    fn keep(&self, _: Vec<Change>, _: AckTicket) {
        unreachable!("a client of a broker keeps nothing beside its readings");
    }
}

/// Sends all readings as fast as they are taken, and reads the PUBACKs.
fn flood(listener: &TcpListener, version: MqttVersion) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut buffer = [0; 65_536];
    assert!(stream.read(&mut buffer).unwrap() > 0);
    stream.write_all(if version == V5 { &[0x20, 3, 0, 0, 0] } else { &[0x20, 2, 0, 0] }).unwrap();
    assert!(stream.read(&mut buffer).unwrap() > 0);
    let reader: TcpStream = stream.try_clone().unwrap();
    let acks = std::thread::spawn(move || drain(reader));
    let mut block = BytesMut::new();
    for n in 1..=1000 {
        block.extend_from_slice(&publish(version, 1, n, b"plant/line/7/temperature", &[b'x'; 200]));
    }
    for _ in 0..READINGS / 1000 {
        stream.write_all(&block).unwrap();
    }
    acks.join().unwrap();
}

fn drain(mut stream: TcpStream) {
    let (mut left, mut buffer) = (READINGS as usize * 4, vec![0; 65_536]);
    while left > 0 {
        left -= stream.read(&mut buffer).unwrap();
    }
}

/// Nanoseconds this thread has run.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
#[ignore = "a measurement: CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo test --lib cost_tests -- --ignored --nocapture"]
async fn a_reading_costs_less_than_a_microsecond_beside_the_system_calls() {
    for version in [V311, V5] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = source(listener.local_addr().unwrap().port(), version);
        config.receive_maximum = 10_000;
        let broker = std::thread::spawn(move || flood(&listener, version));
        let deliver = Arc::new(Instantly::default());
        let before = cpu_ns();
        let hub = Arc::new(Hub::default());
        let run = Running::start_with(config, Vec::new(), &hub, Arc::clone(&deliver) as Arc<dyn Deliver>);
        soon("all readings", deliver.all.notified()).await;
        let each = (cpu_ns() - before) / READINGS;
        eprintln!("{version:?} {each} ns");
        assert!(each < 1500, "{version:?}: {each} ns per reading, the reads and writes of the socket included");
        let counters = Arc::clone(&run.counters);
        soon("all PUBACKs", async {
            while Running::read(&counters.pubacks) < READINGS {
                tokio::task::yield_now().await;
            }
        })
        .await;
        tokio::task::spawn_blocking(move || broker.join().unwrap()).await.unwrap();
        run.stop().await;
    }
}
