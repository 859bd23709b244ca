//! Test doubles: a hub that holds tickets until it is told, a route that echoes, a scripted broker.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use super::super::codec::Head;
use super::super::{MqttSession, SourceCounters};
use crate::config::{MqttSource, MqttVersion, Subscription};
use crate::intake::{AckTicket, Change, Deliver, Delivery, Fate, Route, Routed, SourceEvent};
use crate::record::{Arrival, Reading, RecordView};

/// Long enough for a busy machine; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// Sends every reading to lane 0, its topic as Kafka topic, except those on topic `drop`.
struct EchoRoute;

impl Route for EchoRoute {
    fn route(&self, reading: &Reading<'_>, scratch: &mut Vec<u8>) -> Routed {
        if reading.topic == "drop" {
            return Routed::Drop;
        }
        Routed::Deliver { lane: 0, body: RecordView::plain(reading).encode(scratch), fate: Fate::Forward }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) fate: Fate,
}

#[derive(Default)]
pub(super) struct Hub {
    taken: Mutex<Vec<Taken>>,
    held: Mutex<Vec<AckTicket>>,
    held_most: AtomicU64,
    arrived: Notify,
}

impl Deliver for Hub {
    fn deliver(&self, batch: &mut Vec<Delivery>) {
        let (mut taken, mut held) = (self.taken.lock().unwrap(), self.held.lock().unwrap());
        for delivery in batch.drain(..) {
            let view = delivery.body.view().unwrap();
            taken.push(Taken { topic: view.topic.to_owned(), payload: view.payload.to_vec(), fate: delivery.fate });
            held.extend(delivery.ack);
        }
        self.held_most.fetch_max(held.len() as u64, Ordering::Relaxed);
        self.arrived.notify_one();
    }

    fn keep(&self, _: Vec<Change>, _: AckTicket) {
        unreachable!("a client of a broker keeps nothing beside its readings");
    }
}

impl Hub {
    pub(super) fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }

    pub(super) fn count(&self) -> usize {
        self.taken.lock().unwrap().len()
    }

    pub(super) fn held_most(&self) -> u64 {
        self.held_most.load(Ordering::Relaxed)
    }

    /// The tickets held, oldest first.
    pub(super) fn tickets(&self) -> Vec<AckTicket> {
        std::mem::take(&mut self.held.lock().unwrap())
    }

    pub(super) fn fire_all(&self) {
        self.tickets().into_iter().for_each(AckTicket::fire);
    }

    pub(super) async fn has(&self, count: usize) {
        soon("readings", async {
            while self.count() < count {
                self.arrived.notified().await;
            }
        })
        .await;
    }

    /// Fires all that is held, over and over, until `done`. Every other time in reverse, as lanes may.
    pub(super) async fn commit_until(&self, done: impl Fn(&Hub) -> bool) {
        soon("the drain", async {
            let mut turn = 0;
            while !done(self) {
                // The time that a commit takes.
                tokio::time::sleep(Duration::from_millis(1)).await;
                let mut tickets = self.tickets();
                turn += 1;
                if turn % 2 == 0 {
                    tickets.reverse();
                }
                tickets.into_iter().for_each(AckTicket::fire);
            }
        })
        .await;
    }
}

pub(in crate::intake::mqtt) fn source(port: u16, version: MqttVersion) -> MqttSource {
    MqttSource {
        name: "plant".to_owned(),
        host: "127.0.0.1".to_owned(),
        port,
        tls: None,
        version,
        client_id: "fb-test-plant".to_owned(),
        user: None,
        password: None,
        subscriptions: vec![Subscription { filter: "t/#".to_owned(), qos: 1 }],
        keep_alive: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(10),
        session_expiry: Duration::from_secs(3600),
        receive_maximum: 100,
        unacked_bytes_max: 4 << 20,
        packet_size_max: 1 << 20,
        rate_limit: None,
        backoff_min: Duration::from_millis(5),
        backoff_max: Duration::from_millis(20),
        session_per_lane: false,
    }
}

/// A session under test.
pub(super) struct Running {
    pub(super) hub: Arc<Hub>,
    pub(super) counters: Arc<SourceCounters>,
    pub(super) events: mpsc::Receiver<(String, SourceEvent)>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    pub(super) fn start(config: MqttSource) -> Self {
        Self::start_after(config, Vec::new())
    }

    pub(super) fn start_after(config: MqttSource, previous: Vec<Subscription>) -> Self {
        let hub = Arc::new(Hub::default());
        Self::start_with(config, previous, &hub, Arc::clone(&hub) as Arc<dyn Deliver>)
    }

    /// Delivers to something else than the hub.
    pub(super) fn start_with(
        config: MqttSource,
        previous: Vec<Subscription>,
        hub: &Arc<Hub>,
        deliver: Arc<dyn Deliver>,
    ) -> Self {
        let hub = Arc::clone(hub);
        let counters = Arc::new(SourceCounters::default());
        let (tell, events) = mpsc::channel(1024);
        let (stop, stopped) = watch::channel(false);
        let session = MqttSession {
            config,
            previous,
            route: Arc::new(EchoRoute),
            deliver,
            events: tell,
            counters: Arc::clone(&counters),
            // 2026: certificates made now must be valid.
            clock: Arc::new(|| Arrival {
                wall_ms: time::OffsetDateTime::now_utc().unix_timestamp() * 1000,
                boot_ms: 7,
            }),
            random: Arc::new(|| u64::MAX / 2),
            stop_timeout: Duration::from_secs(10),
        };
        Running { hub, counters, events, stop, task: tokio::spawn(session.run(stopped)) }
    }

    /// The next event that `pick` makes something of.
    pub(super) async fn event<T>(&mut self, what: &str, pick: impl Fn(&SourceEvent) -> Option<T>) -> T {
        soon(what, async {
            loop {
                let (source, event) = self.events.recv().await.unwrap();
                assert_eq!(source, "plant");
                if let Some(found) = pick(&event) {
                    return found;
                }
            }
        })
        .await
    }

    pub(super) async fn subscribed(&mut self) {
        self.event("subscription", |event| matches!(event, SourceEvent::Subscribed { .. }).then_some(())).await;
    }

    pub(super) fn ask_to_stop(&self) {
        self.stop.send(true).unwrap();
    }

    /// Waits for the end; panics if the session did.
    pub(super) async fn ended(self) {
        soon("the session's end", self.task).await.unwrap();
    }

    pub(super) async fn stop(self) {
        self.ask_to_stop();
        self.ended().await;
    }

    pub(super) fn read(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

/// A broker that does what the test says.
pub(super) struct Scripted {
    listener: TcpListener,
    version: MqttVersion,
}

impl Scripted {
    pub(super) async fn new(version: MqttVersion) -> Self {
        Scripted { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), version }
    }

    pub(super) fn config(&self) -> MqttSource {
        source(self.listener.local_addr().unwrap().port(), self.version)
    }

    /// Accepts a connection and reads its CONNECT.
    pub(super) async fn accept(&self) -> Peer {
        let (stream, _) = soon("a connection", self.listener.accept()).await.unwrap();
        let mut peer = Peer { stream, input: BytesMut::new(), version: self.version };
        assert_eq!(peer.packet().await[0] >> 4, 1, "CONNECT");
        peer
    }

    /// Accepts a connection, answers CONNECT and the first SUBSCRIBE.
    pub(super) async fn welcome(&self, session_present: bool) -> Peer {
        let mut peer = self.accept().await;
        peer.connack(session_present).await;
        peer.answer_subscribe(1).await;
        peer
    }
}

pub(super) struct Peer {
    stream: TcpStream,
    input: BytesMut,
    version: MqttVersion,
}

impl Peer {
    /// The next packet. Panics when the client closes.
    pub(super) async fn packet(&mut self) -> Bytes {
        self.packet_or_close().await.expect("a packet, not the client's close")
    }

    pub(super) async fn packet_or_close(&mut self) -> Option<Bytes> {
        soon("a packet", async {
            loop {
                if let Some(head) = Head::peek(&self.input).unwrap()
                    && self.input.len() >= head.total()
                {
                    return Some(self.input.split_to(head.total()).freeze());
                }
                if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
        })
        .await
    }

    /// The packet id of the next packet, which must be of type `kind`.
    pub(super) async fn id_of(&mut self, kind: u8) -> u16 {
        let packet = self.packet().await;
        assert_eq!(packet[0] >> 4, kind, "{packet:?}");
        u16::from_be_bytes([packet[2], packet[3]])
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    pub(super) async fn connack(&mut self, session_present: bool) {
        match self.version {
            MqttVersion::V311 => self.send(&[0x20, 2, u8::from(session_present), 0]).await,
            MqttVersion::V5 => self.send(&[0x20, 3, u8::from(session_present), 0, 0]).await,
        }
    }

    /// Reads a SUBSCRIBE of one filter and answers it.
    pub(super) async fn answer_subscribe(&mut self, code: u8) {
        let pkid = self.id_of(8).await.to_be_bytes();
        match self.version {
            MqttVersion::V311 => self.send(&[0x90, 3, pkid[0], pkid[1], code]).await,
            MqttVersion::V5 => self.send(&[0x90, 4, pkid[0], pkid[1], 0, code]).await,
        }
    }

    pub(super) async fn publish(&mut self, qos: u8, pkid: u16, topic: &[u8], payload: &[u8]) {
        let bytes = publish(self.version, qos, pkid, topic, payload);
        self.send(&bytes).await;
    }
}

/// Encodes a PUBLISH by hand: it must be possible to make wrong ones.
pub(in crate::intake::mqtt) fn publish(
    version: MqttVersion,
    qos: u8,
    pkid: u16,
    topic: &[u8],
    payload: &[u8],
) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_u16(topic.len() as u16);
    body.put_slice(topic);
    if qos > 0 {
        body.put_u16(pkid);
    }
    if version == MqttVersion::V5 {
        body.put_u8(0);
    }
    body.put_slice(payload);
    frame(0x30 | qos << 1, &body)
}

pub(in crate::intake::mqtt) fn frame(first: u8, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::from(&[first][..]);
    let mut length = body.len();
    while length >= 128 {
        out.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
    out.put_slice(body);
    out
}
