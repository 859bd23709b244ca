//! What a connection takes that says nothing: resident memory of the server, from outside. What the kernel keeps for the
//! sockets is not in it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use forebay::cli::simulate::mqtt::tls::{TlsFiles, connector};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::harness::gateway::Gateway;
use crate::harness::jobs;
use crate::harness::kafka::KafkaServer;
use crate::harness::mosquitto::{Mosquitto, Options};

use super::listener::{builder, start};
use super::{memory, scaled};

/// Connections from one address, so that none runs out of ports.
const PER_ADDRESS: u32 = 2_000;
/// Before the measurement: buffers, threads and tables that the first connections bring about.
const FIRST: u32 = 20;
/// Descriptors beside those of the connections.
const OTHER_DESCRIPTORS: u64 = 500;
const DIRECT: &str = "when = \"offline\"";

trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// An open connection that has had its CONNACK.
type Device = Box<dyn Duplex>;

/// As many descriptors as are allowed, for this process and those that it starts.
pub fn raise_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

/// 1,000 and 10,000 connections by TCP, 1,000 by TLS, and Mosquitto.
pub fn idle() {
    println!("| server | idle connections | KiB for each | RSS before, MiB | RSS with them, MiB |");
    println!("| --- | --- | --- | --- | --- |");
    let [few, many] = [1_000, 10_000].map(|count| scaled(count) as u32);
    for count in [few, many] {
        if is_allowed("Forebay, TCP", count) {
            through_tcp(count);
        }
    }
    through_tls(few);
    for count in [few, many] {
        if is_allowed("Mosquitto, TCP", count) {
            let broker = Mosquitto::start(&Options::default());
            let (port, pid) = (broker.port(), broker.pid());
            // A device that has its CONNACK is all that Mosquitto tells.
            measure("Mosquitto, TCP", pid, count, &Door { port, tls: None }, |_| ());
        }
    }
}

fn is_allowed(name: &str, count: u32) -> bool {
    let (most, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let is_allowed = u64::from(count) + OTHER_DESCRIPTORS <= most;
    if !is_allowed {
        println!("| {name} | {count} | not measured: {most} descriptors (`ulimit -Hn`) | | |");
    }
    is_allowed
}

fn through_tcp(count: u32) {
    let (kafka, port) = (KafkaServer::start(), jobs::free_port());
    let gateway = start(builder(&kafka, &format!("listen = \"127.0.0.1:{port}\""), DIRECT));
    let door = Door { port, tls: None };
    measure("Forebay, TCP", gateway.pid(), count, &door, |connected| wait_quiet(&gateway, connected));
}

fn through_tls(count: u32) {
    let (kafka, port, dir) = (KafkaServer::start(), jobs::free_port(), jobs::scratch("bench-tls"));
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let builder = builder(&kafka, &format!("listen_tls = \"127.0.0.1:{port}\""), DIRECT);
    let gateway = start(builder.table("[source.listener.tls]", &format!("cert_file = {cert:?}\nkey_file = {key:?}\n")));
    let tls = connector(&TlsFiles { ca: Some(cert), identity: None }).unwrap();
    let door = Door { port, tls: Some(tls) };
    measure("Forebay, TLS", gateway.pid(), count, &door, |connected| wait_quiet(&gateway, connected));
}

/// Until the gateway counts so many sessions, and what it has to say of them has reached Kafka.
fn wait_quiet(gateway: &Gateway, connected: u32) {
    jobs::wait_until(&format!("{connected} connections, all told"), || {
        let metrics = gateway.metrics();
        let sum = |name: &str| -> f64 {
            metrics.iter().filter(|(full, _)| full.split('{').next() == Some(name)).map(|(_, value)| value).sum()
        };
        let is_quiet = sum("forebay_listener_sessions_connected") == f64::from(connected)
            && sum("forebay_listener_connections") == f64::from(connected)
            && sum("forebay_lane_backlog_records") == 0.0;
        is_quiet.then_some(())
    });
}

/// How to get in.
struct Door {
    port: u16,
    tls: Option<TlsConnector>,
}

/// `wait_quiet` waits until the server has done all that so many connections mean.
fn measure(name: &str, pid: u32, count: u32, door: &Door, wait_quiet: impl Fn(u32)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first: Vec<Device> = (0..FIRST).map(|n| runtime.block_on(door.enter(n))).collect();
    wait_quiet(FIRST);
    drop(first);
    wait_quiet(0);
    let before = settled_mib(pid);
    let devices: Vec<Device> = (0..count).map(|n| runtime.block_on(door.enter(FIRST + n))).collect();
    wait_quiet(count);
    let after = settled_mib(pid);
    drop(devices);
    let each = (after - before) * 1024.0 / f64::from(count);
    println!("| {name} | {count} | {each:.1} | {before:.1} | {after:.1} |");
}

/// Resident memory, once it has not changed for a second.
fn settled_mib(pid: u32) -> f64 {
    let mut known = (memory(pid).0, 0);
    jobs::wait_until("the memory rests", || {
        std::thread::sleep(Duration::from_millis(200));
        let now = memory(pid).0;
        known = if now == known.0 { (now, known.1 + 1) } else { (now, 0) };
        (known.1 == 5).then_some(now)
    })
}

impl Door {
    /// Connects as device `n`, from one of several addresses of this machine. A clean session without keep-alive.
    async fn enter(&self, n: u32) -> Device {
        let socket = TcpSocket::new_v4().unwrap();
        let source = Ipv4Addr::new(127, 0, 0, 2 + (n / PER_ADDRESS) as u8);
        socket.bind((source, 0).into()).unwrap();
        let stream = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))).await.unwrap();
        let mut device: Device = match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
                Box::new(tls.connect(name, stream).await.unwrap())
            }
        };
        device.write_all(&hello(&format!("idle-{n:05}"))).await.unwrap();
        device.flush().await.unwrap();
        let mut answer = [0; 4];
        device.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [0x20, 2, 0, 0], "CONNACK");
        device
    }
}

/// CONNECT of 3.1.1.
fn hello(client_id: &str) -> Vec<u8> {
    let mut packet = vec![0x10, 12 + client_id.len() as u8, 0, 4];
    packet.extend_from_slice(b"MQTT");
    packet.extend_from_slice(&[4, 2, 0, 0, 0, client_id.len() as u8]);
    packet.extend_from_slice(client_id.as_bytes());
    packet
}
