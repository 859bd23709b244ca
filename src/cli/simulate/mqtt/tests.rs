//! The publisher against a real Mosquitto, which is started for each test on a port of its own.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rumqttc::mqttbytes::{QoS, v4};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use super::super::devices::DeviceOptions;
use super::super::load::{LoadOptions, Rate};
use super::super::report::Summary;
use super::super::run::{Event, Limits, Stop, Target, run_devices, run_load};
use super::{Broker, Login, Qos, Version};

/// A Mosquitto of our own. It dies with this value.
struct Mosquitto {
    child: Child,
    address: SocketAddr,
    dir: TempDir,
}

impl Mosquitto {
    fn start(extra: &str) -> Self {
        // The port is free again when the listener is dropped. Nobody else is given it so soon.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let port = address.port();
        let config = format!("listener {port} 127.0.0.1\nset_tcp_nodelay true\nmax_queued_messages 0\n{extra}\n");
        fs::write(dir.path().join("mosquitto.conf"), config).unwrap();
        Self { child: spawn(dir.path(), address), address, dir }
    }

    fn start_again(&mut self) {
        self.child = spawn(self.dir.path(), self.address);
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn broker(&self, version: Version) -> Broker {
        Broker { version, ..Broker::plain(self.address) }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        // A test that failed between kill and restart has nothing left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path, address: SocketAddr) -> Child {
    let program = if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" };
    let log = fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let mut command = Command::new(program);
    command.arg("-c").arg(dir.join("mosquitto.conf")).stdout(Stdio::null()).stderr(log);
    let child = command.spawn().unwrap();
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(started.elapsed() < Duration::from_secs(20), "mosquitto does not listen");
        std::thread::yield_now();
    }
    child
}

fn load(count: u64, connections: u32) -> LoadOptions {
    let topic = "load/{device}".parse().unwrap();
    LoadOptions { rate: Rate::Max, count: Some(count), connections, equipments: 1, size_bytes: 120, topic }
}

fn limits(qos: Qos) -> Limits {
    Limits { qos, give_up: Some(Duration::from_secs(30)), ..Limits::new() }
}

async fn loaded(broker: &Broker, options: &LoadOptions, limits: Limits) -> Summary {
    let (_sender, stop) = Stop::channel();
    run_load(broker, options, limits, stop, |_| {}).await
}

/// Collects the payloads of a topic filter until the last expected one has come.
struct Subscriber {
    payloads: Arc<Mutex<BTreeMap<String, u64>>>,
    changed: watch::Receiver<usize>,
}

impl Subscriber {
    /// Ready when the broker has answered the subscription.
    async fn start(address: SocketAddr) -> Self {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut out = BytesMut::new();
        let mut connect = v4::Connect::new("");
        // It never pings.
        connect.keep_alive = 0;
        connect.write(&mut out).unwrap();
        let mut subscribe = v4::Subscribe::new("#", QoS::AtLeastOnce);
        subscribe.pkid = 1;
        subscribe.write(&mut out).unwrap();
        stream.write_all(&out).await.unwrap();
        wait_for_suback(&mut stream).await;
        let payloads = Arc::new(Mutex::new(BTreeMap::new()));
        let (sender, changed) = watch::channel(0);
        tokio::spawn(witness(stream, Arc::clone(&payloads), sender));
        Self { payloads, changed }
    }

    /// Each payload and how often it came, once there are `count` different ones.
    async fn payloads(mut self, count: usize) -> BTreeMap<String, u64> {
        let enough = self.changed.wait_for(|seen| *seen >= count);
        let came = tokio::time::timeout(Duration::from_secs(30), enough).await.is_ok();
        assert!(came, "{} of {count} came", self.payloads.lock().unwrap().len());
        self.payloads.lock().unwrap().clone()
    }
}

async fn wait_for_suback(stream: &mut tokio::net::TcpStream) {
    let mut input = BytesMut::new();
    loop {
        match v4::Packet::read(&mut input, 1 << 20) {
            Ok(v4::Packet::SubAck(_)) => return,
            Ok(v4::Packet::ConnAck(ack)) => assert_eq!(ack.code, v4::ConnectReturnCode::Success),
            Ok(other) => panic!("{other:?} before SUBACK"),
            Err(_) => assert!(stream.read_buf(&mut input).await.unwrap() > 0, "closed before SUBACK"),
        }
    }
}

async fn witness(
    mut stream: tokio::net::TcpStream,
    payloads: Arc<Mutex<BTreeMap<String, u64>>>,
    changed: watch::Sender<usize>,
) {
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    while stream.read_buf(&mut input).await.unwrap_or(0) > 0 {
        while let Ok(packet) = v4::Packet::read(&mut input, 1 << 20) {
            if let v4::Packet::Publish(publish) = packet {
                let text = String::from_utf8_lossy(&publish.payload).into_owned();
                *payloads.lock().unwrap().entry(text).or_default() += 1;
                if publish.pkid > 0 {
                    v4::PubAck::new(publish.pkid).write(&mut out).unwrap();
                }
            }
            changed.send_replace(payloads.lock().unwrap().len());
        }
        if stream.write_all_buf(&mut out).await.is_err() {
            return;
        }
    }
}

fn ids(payloads: &BTreeMap<String, u64>) -> BTreeSet<String> {
    let id =
        |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap()["id"].as_str().unwrap().to_owned();
    payloads.keys().map(id).collect()
}

#[tokio::test]
async fn every_message_is_acknowledged_and_arrives_in_every_version_and_quality() {
    let mosquitto = Mosquitto::start("allow_anonymous true");
    for version in [Version::V311, Version::V5] {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let subscriber = Subscriber::start(mosquitto.address).await;
            // Mosquitto 2.0.11 completes QoS 2 messages of a 3.1.1 client beyond its limit of 20 without storing them.
            let limits = Limits { window: 20, ..limits(qos) };
            let summary = loaded(&mosquitto.broker(version), &load(500, 4), limits).await;
            assert!(summary.is_complete(), "{version:?} {qos:?}: {summary}");
            let acknowledged = if qos == Qos::AtMostOnce { 0 } else { 500 };
            assert_eq!((summary.sent, summary.acknowledged, summary.stray_acknowledgements), (500, acknowledged, 0));
            let payloads = subscriber.payloads(500).await;
            let expected = (0..4).flat_map(|c| (0..125).map(move |n| (c, n)));
            let expected = expected.map(|(c, n)| format!("{}-{c}-{n}", summary.instance)).collect();
            assert_eq!(ids(&payloads), expected, "{version:?} {qos:?}");
            assert!(payloads.values().all(|times| *times == 1));
        }
    }
}

#[tokio::test]
async fn a_killed_broker_costs_no_acknowledgement() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut mosquitto = Mosquitto::start("allow_anonymous true");
        let broker = mosquitto.broker(Version::V311);
        // Kills follow acknowledgements, not the clock, so that each of them hits a run in full flight.
        let (sender, mut progress) = watch::channel((0, 0));
        let listener = move |event| {
            if let Event::Progress(counts) = event {
                sender.send_replace((counts.acknowledged, counts.connected));
            }
        };
        let options = LoadOptions { rate: Rate::PerSecond(4000.0), ..load(24_000, 8) };
        let (_stopper, stop) = Stop::channel();
        let limits = limits(qos);
        let run = tokio::spawn(async move { run_load(&broker, &options, limits, stop, listener).await });
        for threshold in [500, 3000] {
            // A connection that still pauses after the first kill would not see the second.
            progress.wait_for(|(acknowledged, connected)| *acknowledged >= threshold && *connected == 8).await.unwrap();
            mosquitto.kill();
            progress.wait_for(|(_, connected)| *connected == 0).await.unwrap();
            mosquitto.start_again();
        }
        let summary = run.await.unwrap();
        assert!(summary.is_complete(), "{qos:?}: {summary}");
        assert_eq!((summary.sent, summary.acknowledged), (24_000, 24_000));
        assert!(summary.disconnects >= 16, "eight connections, killed twice: {}", summary.disconnects);
        assert_eq!(summary.unacknowledged_ids, Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_was_not_acknowledged_is_named() {
    // A broker that accepts connections and acknowledges nothing.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let broker = Broker::plain(listener.local_addr().unwrap());
    let (stopper, stop) = Stop::channel();
    let silent = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
        let mut input = BytesMut::new();
        // CONNECT and the three messages of the window, 120 bytes each.
        while input.len() < 3 * 120 {
            stream.read_buf(&mut input).await.unwrap();
        }
        // Acknowledges the second one only.
        stream.write_all(&[0x40, 2, 0, 2]).await.unwrap();
        stopper.send(true).unwrap();
        while stream.read_buf(&mut input).await.unwrap_or(0) > 0 {}
    });
    let limits = Limits { drain: Duration::from_millis(200), ..limits(Qos::AtLeastOnce) };
    let summary = run_load(&broker, &load(3, 1), limits, stop, |_| {}).await;
    let id = |n| format!("{}-0-{n}", summary.instance);
    assert!(!summary.is_complete());
    assert_eq!(summary.unacknowledged_ids, [id(0), id(2)]);
    assert_eq!((summary.acknowledged, summary.unacknowledged), (1, 2));
    silent.await.unwrap();
}

#[tokio::test]
async fn devices_publish_the_sample_and_come_back_from_the_dead() {
    let mosquitto = Mosquitto::start("allow_anonymous true");
    let subscriber = Subscriber::start(mosquitto.address).await;
    let options = DeviceOptions {
        devices: 3,
        equipments: 2,
        interval: Duration::from_millis(5),
        faults: "die=0.02".parse().unwrap(),
        count: Some(600),
        ..DeviceOptions::default()
    };
    let (_sender, stop) = Stop::channel();
    let target = Target::Mqtt(mosquitto.broker(Version::V5));
    let summary = run_devices(&target, options, limits(Qos::AtLeastOnce), stop, |_| {}).await.unwrap();
    assert!(summary.is_complete(), "{summary}");
    assert_eq!(summary.acknowledged, 600);
    assert!(summary.faults.die > 0);
    let payloads = subscriber.payloads(1).await;
    for text in payloads.keys() {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(value.as_object().unwrap().len(), 3, "{text}");
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let passwords = dir.path().join("passwords");
    fs::write(&passwords, "").unwrap();
    let mosquitto = Mosquitto::start(&format!("allow_anonymous false\npassword_file {}", passwords.display()));
    let login = Some(Login { user: "u".into(), password: "s3cret".into() });
    for version in [Version::V311, Version::V5] {
        let broker = Broker { login: login.clone(), ..mosquitto.broker(version) };
        let summary = loaded(&broker, &load(10, 1), limits(Qos::AtLeastOnce)).await;
        assert_eq!((summary.sent, summary.failures.len()), (0, 1));
        assert!(summary.failures[0].contains("NotAuthorized"), "{:?}", summary.failures);
    }
}
