//! MQTT clients of our own: devices that publish at QoS 1 and know what was acknowledged, and a plain subscriber.
//!
//! Blocking, one socket each. They take a broker that is away for a while as a matter of course and resend what has not
//! been acknowledged, as a good device does.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::jobs::{PATIENCE, wait_until};
use super::readings::Reading;
use super::wire::{self, Packet};

/// Readings a publisher has unacknowledged at most.
const WINDOW: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: String,
}

/// Starts rumqttd on a free port. It keeps a session's queue up to a bound and drops the oldest without a word: this
/// bound is far beyond what a test queues. It cannot be stopped: its threads end with the process.
#[allow(dead_code, reason = "the benchmark has Mosquitto alone")]
pub fn rumqttd() -> u16 {
    let port = super::jobs::free_port();
    let text = format!(
        "id = 0\n[router]\nid = 0\nmax_connections = 10\nmax_outgoing_packet_count = 200\n\
         max_segment_size = 104857600\nmax_segment_count = 10\n\
         [v4.1]\nname = \"v4\"\nlisten = \"127.0.0.1:{port}\"\nnext_connection_delay_ms = 1\n\
         [v4.1.connections]\nconnection_timeout_ms = 60000\nmax_payload_size = 20480\nmax_inflight_count = 100\n\
         dynamic_filters = true\n"
    );
    let config: rumqttd::Config = toml::from_str(&text).unwrap();
    std::thread::spawn(move || drop(rumqttd::Broker::new(config).start()));
    Client::connect(port, "rig-ready", None);
    port
}

/// One accepted connection.
pub struct Client {
    stream: TcpStream,
    inbox: BytesMut,
    session_present: bool,
}

impl Client {
    /// Tries until a broker accepts.
    pub fn connect(port: u16, client_id: &str, login: Option<&Login>) -> Client {
        wait_until(&format!("the broker accepts {client_id}"), || Self::try_connect(port, client_id, login).ok())
    }

    fn try_connect(port: u16, client_id: &str, login: Option<&Login>) -> io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Client { stream, inbox: BytesMut::new(), session_present: false };
        let login = login.map(|login| (login.user.as_str(), login.password.as_str()));
        client.send(&wire::connect(client_id, login))?;
        match client.receive()? {
            Packet::ConnAck { code: 0, session_present } => client.session_present = session_present,
            other => return Err(io::Error::other(format!("no CONNACK: {other:?}"))),
        }
        Ok(client)
    }

    fn send(&mut self, bytes: &Bytes) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Blocks until a packet is whole.
    fn receive(&mut self) -> io::Result<Packet> {
        loop {
            let frame = wire::take_frame(&mut self.inbox).map_err(|_| ErrorKind::InvalidData)?;
            if let Some(frame) = frame {
                return wire::read(&frame, wire::V311).map_err(|_| ErrorKind::InvalidData.into());
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => self.inbox.extend_from_slice(&chunk[..read]),
            }
        }
    }
}

/// A device, or a whole plant behind one connection: publishes in order at QoS 1.
pub struct Publisher {
    client: Client,
    port: u16,
    client_id: String,
    login: Option<Login>,
    next_id: u16,
    /// By packet id, with the order of publishing, since packet ids wrap.
    waiting: BTreeMap<u16, (u64, Reading)>,
    published: u64,
    acknowledged: Vec<String>,
}

impl Publisher {
    pub fn connect(port: u16, client_id: &str, login: Option<&Login>) -> Publisher {
        Publisher {
            client: Client::connect(port, client_id, login),
            port,
            client_id: client_id.to_owned(),
            login: login.cloned(),
            next_id: 1,
            waiting: BTreeMap::new(),
            published: 0,
            acknowledged: Vec::new(),
        }
    }

    /// Sends, and waits only while the window is full.
    pub fn publish(&mut self, reading: &Reading) {
        while self.waiting.len() >= WINDOW {
            self.take_puback();
        }
        let packet_id = self.free_packet_id();
        self.waiting.insert(packet_id, (self.published, reading.clone()));
        self.published += 1;
        if self.client.send(&wire::publish(&reading.topic, packet_id, false, &reading.payload)).is_err() {
            self.reconnect();
        }
    }

    /// Ids of the readings the broker has acknowledged so far.
    pub fn acknowledged(&self) -> &[String] {
        &self.acknowledged
    }

    /// Waits until all is acknowledged.
    pub fn finish(mut self) -> Vec<String> {
        while !self.waiting.is_empty() {
            self.take_puback();
        }
        // It has everything: whether it still hears the good-bye does not matter.
        drop(self.client.send(&wire::disconnect()));
        self.acknowledged
    }

    fn free_packet_id(&mut self) -> u16 {
        while self.waiting.contains_key(&self.next_id) || self.next_id == 0 {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        id
    }

    fn take_puback(&mut self) {
        match self.client.receive() {
            Ok(Packet::PubAck { packet_id, .. }) => {
                let (_, reading) = self.waiting.remove(&packet_id).expect("a PUBACK is for a publication");
                self.acknowledged.push(reading.id);
            }
            Ok(_) => {}
            Err(_) => self.reconnect(),
        }
    }

    /// Sends what is unacknowledged again, in the order of publishing (MQTT-4.6.0-1).
    fn reconnect(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "{} is refused for {PATIENCE:?}", self.client_id);
            self.client = Client::connect(self.port, &self.client_id, self.login.as_ref());
            let mut again: Vec<_> = self.waiting.iter().collect();
            again.sort_by_key(|(_, (order, _))| *order);
            let mut resend = again.into_iter().map(|(id, (_, r))| wire::publish(&r.topic, *id, true, &r.payload));
            if resend.all(|bytes| self.client.send(&bytes).is_ok()) {
                return;
            }
        }
    }
}

/// A subscriber with a persistent session that acknowledges what it takes.
pub struct Subscriber {
    client: Client,
}

impl Subscriber {
    /// Subscribes at QoS 1 and waits for the SUBACK.
    pub fn connect(port: u16, client_id: &str, login: Option<&Login>, filter: &str) -> Subscriber {
        let mut client = Client::connect(port, client_id, login);
        if !client.session_present {
            client.send(&wire::subscribe(filter)).unwrap();
            while client.receive().unwrap() != Packet::SubAck {}
        }
        Subscriber { client }
    }

    pub fn session_present(&self) -> bool {
        self.client.session_present
    }

    /// The next publication, not acknowledged yet: topic, payload, packet id.
    pub fn next(&mut self) -> (String, Vec<u8>, u16) {
        loop {
            if let Packet::Publish { topic, packet_id, payload, .. } = self.client.receive().unwrap() {
                return (topic, payload.to_vec(), packet_id);
            }
        }
    }

    pub fn acknowledge(&mut self, packet_id: u16) {
        self.client.send(&wire::puback(packet_id)).unwrap();
    }

    /// The next `count` publications, each acknowledged.
    pub fn take(&mut self, count: usize) -> Vec<(String, Vec<u8>)> {
        let take_one = |_| {
            let (topic, payload, packet_id) = self.next();
            self.acknowledge(packet_id);
            (topic, payload)
        };
        (0..count).map(take_one).collect()
    }
}

/// A plant that publishes in the background at a steady pace while the scenario does its worst.
pub struct Load {
    progress: Arc<Progress>,
    thread: JoinHandle<Vec<String>>,
}

#[derive(Default)]
struct Progress {
    acknowledged: Mutex<usize>,
    news: Condvar,
    stopping: AtomicBool,
}

impl Load {
    /// Publishes `readings`, `per_second` of them, to their end or until [`Load::stop`].
    pub fn start(
        port: u16,
        login: Option<&Login>,
        per_second: u32,
        readings: impl Iterator<Item = Reading> + Send + 'static,
    ) -> Load {
        Self::start_as("plant", port, login, per_second, readings)
    }

    /// The same under another client id.
    pub fn start_as(
        client_id: &str,
        port: u16,
        login: Option<&Login>,
        per_second: u32,
        readings: impl Iterator<Item = Reading> + Send + 'static,
    ) -> Load {
        let progress = Arc::new(Progress::default());
        let shown = Arc::clone(&progress);
        let mut publisher = Publisher::connect(port, client_id, login);
        let thread = std::thread::spawn(move || {
            let begin = Instant::now();
            for (sent, reading) in (0u32..).zip(readings).take_while(|_| !shown.stopping.load(Ordering::Relaxed)) {
                // The pace is the point here: it keeps the load going on while the scenario acts.
                std::thread::sleep((begin + Duration::from_secs(1) * sent / per_second).duration_since(Instant::now()));
                publisher.publish(&reading);
                shown.show(publisher.acknowledged().len());
            }
            let acknowledged = publisher.finish();
            shown.show(acknowledged.len());
            acknowledged
        });
        Load { progress, thread }
    }

    /// Waits until Mosquitto has acknowledged `count` readings.
    pub fn wait_for(&self, count: usize) {
        let acknowledged = self.progress.acknowledged.lock().unwrap();
        let news = &self.progress.news;
        let (have, waited) = news.wait_timeout_while(acknowledged, PATIENCE, |have| *have < count).unwrap();
        assert!(!waited.timed_out(), "the load stands at {} of {count}", *have);
    }

    /// Waits for the end: the ids of all readings.
    pub fn finish(self) -> Vec<String> {
        self.thread.join().expect("the load's own failure is above")
    }

    /// Publishes nothing more, and waits until all that was published is acknowledged: their ids.
    pub fn stop(self) -> Vec<String> {
        self.progress.stopping.store(true, Ordering::Relaxed);
        self.finish()
    }
}

impl Progress {
    fn show(&self, acknowledged: usize) {
        *self.acknowledged.lock().unwrap() = acknowledged;
        self.news.notify_all();
    }
}
