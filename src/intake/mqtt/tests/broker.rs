//! A session against real brokers: Debian 12's Mosquitto (2.0.11, which ignores its own window) and rumqttd (which
//! disconnects a client whose PUBACKs come out of order).

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::BytesMut;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::codec::{self, Head, kind};
use super::support::{Hub, Running, publish, source};
use crate::config::MqttVersion::{self, V5, V311};
use crate::intake::SourceEvent;

const BOTH: [MqttVersion; 2] = [V311, V5];
const MOSQUITTO: &str = "/usr/sbin/mosquitto";

/// Mosquitto on a free port with a directory of its own; ends with the value.
struct Mosquitto {
    dir: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Mosquitto {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nmax_queued_messages 0\n\
             max_inflight_messages 100\nset_tcp_nodelay true\npersistence true\npersistence_location {}/\n\
             autosave_interval 0\nlog_type error\n",
            dir.path().display()
        );
        std::fs::write(dir.path().join("mosquitto.conf"), config).unwrap();
        let child = spawn(dir.path(), port);
        Mosquitto { dir, port, child }
    }

    /// Ends it gracefully: it saves its sessions.
    fn stop(&mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = spawn(self.dir.path(), self.port);
    }

    fn forget_sessions(&self) {
        std::fs::remove_file(self.dir.path().join("mosquitto.db")).unwrap();
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path, port: u16) -> Child {
    assert!(Path::new(MOSQUITTO).exists(), "{MOSQUITTO} is missing: install the Debian package mosquitto");
    let mut command = Command::new(MOSQUITTO);
    command.arg("-c").arg(dir.join("mosquitto.conf")).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    wait_for_port(port);
    child
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A broker does not say when it listens: connecting is the only way to know.
fn wait_for_port(port: u16) {
    for _ in 0..500 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no broker came up on port {port}");
}

/// A plain blocking 3.1.1 client.
struct Plain {
    stream: TcpStream,
    input: BytesMut,
}

impl Plain {
    fn connect(port: u16, client_id: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut client = Plain { stream, input: BytesMut::new() };
        let mut config = source(port, V311);
        config.client_id = client_id.to_owned();
        let mut out = BytesMut::new();
        codec::write_connect(&config, &mut out).unwrap();
        client.stream.write_all(&out).unwrap();
        assert_eq!(client.kind(), kind::CONNACK);
        client
    }

    /// The type of the next packet.
    fn kind(&mut self) -> u8 {
        loop {
            if let Some(head) = Head::peek(&self.input).unwrap()
                && self.input.len() >= head.total()
            {
                let _ = self.input.split_to(head.total());
                return head.kind();
            }
            let mut buffer = [0; 8192];
            let n = self.stream.read(&mut buffer).unwrap();
            assert!(n > 0, "the broker closed");
            self.input.extend_from_slice(&buffer[..n]);
        }
    }

    /// Publishes the numbers at QoS 1 and waits until the broker has them all.
    fn publish(&mut self, numbers: std::ops::Range<u64>) {
        let numbers: Vec<u64> = numbers.collect();
        for block in numbers.chunks(1000) {
            let mut out = BytesMut::new();
            for (n, number) in block.iter().enumerate() {
                out.extend_from_slice(&publish(V311, 1, n as u16 + 1, b"t/a", &payload(*number)));
            }
            self.stream.write_all(&out).unwrap();
            for _ in block {
                assert_eq!(self.kind(), 4, "PUBACK");
            }
        }
    }

    /// How many readings the broker holds for this client: it sends them ahead of the PINGRESP.
    fn waiting(&mut self) -> usize {
        self.stream.write_all(&[0xc0, 0]).unwrap();
        let mut count = 0;
        loop {
            match self.kind() {
                kind::PUBLISH => count += 1,
                kind::PINGRESP => return count,
                other => panic!("packet type {other}"),
            }
        }
    }
}

/// 200 bytes that begin with the number.
fn payload(number: u64) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(200, b'.');
    payload
}

fn numbers(hub: &Hub) -> Vec<u64> {
    hub.taken().iter().map(|taken| u64::from_be_bytes(taken.payload[..8].try_into().unwrap())).collect()
}

fn distinct(hub: &Hub) -> usize {
    numbers(hub).into_iter().collect::<BTreeSet<_>>().len()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Makes the session at the broker and queues numbers for it.
async fn queue(port: u16, version: MqttVersion, count: u64) {
    let mut run = Running::start(source(port, version));
    run.subscribed().await;
    run.stop().await;
    blocking(move || Plain::connect(port, "loader").publish(0..count)).await;
}

/// Everything fired, the session stopped: nothing may be left at the broker.
async fn stop_and_find_nothing_left(run: Running, port: u16) {
    run.stop().await;
    let left = blocking(move || Plain::connect(port, "fb-test-plant").waiting()).await;
    assert_eq!(left, 0);
}

#[tokio::test]
async fn twenty_thousand_queued_messages_drain_and_nothing_is_left() {
    for version in BOTH {
        let broker = Mosquitto::start();
        queue(broker.port, version, 20_000).await;
        let run = Running::start(source(broker.port, version));
        run.hub.commit_until(|hub| hub.count() >= 20_000).await;
        assert_eq!(numbers(&run.hub), (0..20_000).collect::<Vec<u64>>(), "in order, each once");
        // 2.0.11 sends hundreds beyond its window.
        assert!(run.hub.held_most() <= 100, "{}", run.hub.held_most());
        run.hub.fire_all();
        stop_and_find_nothing_left(run, broker.port).await;
    }
}

#[tokio::test]
async fn a_broker_that_restarts_with_its_sessions_loses_nothing() {
    let mut broker = Mosquitto::start();
    queue(broker.port, V311, 5000).await;
    let mut config = source(broker.port, V311);
    // Behind the closed gate nothing is read: it is a ping that finds the connection gone.
    config.keep_alive = Duration::from_secs(1);
    let mut run = Running::start(config);
    run.hub.commit_until(|hub| hub.count() > 1500).await;
    broker.stop();
    broker.start_again();
    let back = |event: &SourceEvent| match event {
        SourceEvent::Connected { session_present } => Some(*session_present),
        _ => None,
    };
    run.event("the first connection", back).await;
    assert!(run.event("the second connection", back).await, "the session was kept");
    run.hub.commit_until(|hub| hub.count() >= 5000 && distinct(hub) == 5000).await;
    assert_eq!(Running::read(&run.counters.sessions_lost), 0);
    run.hub.fire_all();
    stop_and_find_nothing_left(run, broker.port).await;
}

#[tokio::test]
async fn a_broker_that_forgets_its_sessions_is_told_and_subscribed_again() {
    let mut broker = Mosquitto::start();
    let mut run = Running::start(source(broker.port, V5));
    run.subscribed().await;
    broker.stop();
    broker.forget_sessions();
    broker.start_again();
    run.event("the loss", |event| (*event == SourceEvent::SessionLost).then_some(())).await;
    run.subscribed().await;
    let port = broker.port;
    blocking(move || Plain::connect(port, "loader").publish(0..100)).await;
    run.hub.commit_until(|hub| hub.count() == 100).await;
    run.hub.fire_all();
    run.stop().await;
}

#[tokio::test]
async fn a_take_over_in_the_middle_of_a_drain_loses_nothing() {
    for version in BOTH {
        let broker = Mosquitto::start();
        queue(broker.port, version, 10_000).await;
        let run = Running::start(source(broker.port, version));
        for more in [2000, 4000, 6000] {
            run.hub.commit_until(|hub| hub.count() > more).await;
            let port = broker.port;
            // A rival with our id, which acknowledges nothing and goes away.
            blocking(move || drop(Plain::connect(port, "fb-test-plant"))).await;
        }
        run.hub.commit_until(|hub| hub.count() >= 10_000 && distinct(hub) == 10_000).await;
        assert!(Running::read(&run.counters.takeovers) >= 1, "{version:?}");
        assert!(Running::read(&run.counters.reconnects) >= 3);
        assert!(run.hub.held_most() <= 100, "{}", run.hub.held_most());
        // The last readings may come twice.
        let counters = std::sync::Arc::clone(&run.counters);
        run.hub.commit_until(move |_| Running::read(&counters.unacked) == 0).await;
        stop_and_find_nothing_left(run, broker.port).await;
    }
}

#[tokio::test]
async fn rumqttd_is_content_with_the_order_of_our_pubacks() {
    let port = free_port();
    let config: rumqttd::Config = toml::from_str(&format!(
        "id = 0\n[router]\nid = 0\nmax_connections = 10\nmax_outgoing_packet_count = 200\n\
         max_segment_size = 104857600\nmax_segment_count = 10\n\
         [v4.1]\nname = \"v4\"\nlisten = \"127.0.0.1:{port}\"\nnext_connection_delay_ms = 1\n\
         [v4.1.connections]\nconnection_timeout_ms = 60000\nmax_payload_size = 20480\nmax_inflight_count = 100\n\
         dynamic_filters = true\n"
    ))
    .unwrap();
    // It has no way to stop: its threads end with the test process.
    std::thread::spawn(move || drop(rumqttd::Broker::new(config).start()));
    wait_for_port(port);
    let mut run = Running::start(source(port, V311));
    run.subscribed().await;
    let publisher = tokio::task::spawn_blocking(move || Plain::connect(port, "loader").publish(0..3000));
    run.hub.commit_until(|hub| hub.count() == 3000).await;
    publisher.await.unwrap();
    assert_eq!(Running::read(&run.counters.reconnects), 0);
    assert_eq!(numbers(&run.hub), (0..3000).collect::<Vec<u64>>());
    run.hub.fire_all();
    run.stop().await;
}
