//! Over real connections: what depends on the socket, on time, and on tasks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::bench::{Hub, Straight, config};
use super::client::{self, Got, Hello, PINGREQ, ack, puback, pubcomp, publish, pubrec, subscribe};
use crate::config;
use crate::config::{Address, Endpoint};
use crate::intake::listener::Listener;
use crate::intake::listener::counters::ListenerCounters;
use crate::intake::listener::packet::Version::{self, V5, V311};
use crate::intake::{Deliver, SourceEvent};
use crate::record::Arrival;

/// Nothing here takes that long but on a machine that has stopped.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) hub: Arc<Hub>,
    pub(super) counters: Arc<ListenerCounters>,
    events: mpsc::Receiver<(String, SourceEvent)>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    pub(super) async fn start(hub: Arc<Hub>) -> Self {
        Server::with(config(), hub).await
    }

    async fn with(mut config: config::Listener, hub: Arc<Hub>) -> Self {
        config.endpoints = vec![Endpoint {
            address: Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))),
            tls: false,
            websocket: false,
            anonymous: true,
        }];
        config.limits.connect_rate = 10_000;
        let (bound_tx, mut bound) = watch::channel(Vec::new());
        let (stop, stopped) = watch::channel(false);
        let (events_tx, events) = mpsc::channel(10_000);
        let counters = Arc::new(ListenerCounters::default());
        let names = AtomicU64::new(0);
        let listener = Listener {
            config: Arc::new(config),
            facts: hub.facts(),
            route: Arc::new(Straight),
            deliver: Arc::clone(&hub) as Arc<dyn Deliver>,
            events: events_tx,
            counters: Arc::clone(&counters),
            clock: Arc::new(Arrival::default),
            random: Arc::new(move || names.fetch_add(1, Ordering::Relaxed)),
            stop_timeout: Duration::from_secs(20),
            bound: bound_tx,
        };
        let task = tokio::spawn(listener.run(stopped));
        let address =
            *timeout(LIMIT, bound.wait_for(|bound| !bound.is_empty())).await.unwrap().unwrap().first().unwrap();
        Server { address, hub, counters, events, stop, task }
    }

    async fn dial(&self, version: Version) -> Line {
        Line { stream: TcpStream::connect(self.address).await.unwrap(), version, input: BytesMut::new() }
    }

    async fn open(&self, hello: &Hello) -> Line {
        let mut line = self.dial(hello.version).await;
        line.send(&hello.encode()).await;
        match line.next().await {
            Some(Got::ConnAck { code: 0, .. }) => line,
            other => panic!("{other:?}"),
        }
    }

    async fn event(&mut self) -> SourceEvent {
        timeout(LIMIT, self.events.recv()).await.unwrap().unwrap().1
    }

    pub(super) async fn finish(self) {
        self.stop.send_replace(true);
        timeout(LIMIT, self.task).await.unwrap().unwrap();
    }
}

struct Line {
    stream: TcpStream,
    version: Version,
    input: BytesMut,
}

impl Line {
    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next packet; `None`: the server has closed.
    async fn next(&mut self) -> Option<Got> {
        loop {
            if let Some(got) = client::take(self.version, &mut self.input) {
                return Some(got);
            }
            match timeout(LIMIT, self.stream.read_buf(&mut self.input)).await.unwrap() {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn expect(&mut self, expected: &[Got]) {
        for expected in expected {
            assert_eq!(self.next().await.as_ref(), Some(expected));
        }
    }
}

#[tokio::test]
async fn all_three_qos_in_both_directions() {
    for version in [V311, V5] {
        let mut server = Server::start(Hub::prompt()).await;
        let mut reader = server.open(&Hello::new(version, "r")).await;
        reader.send(&subscribe(version, 1, &[("#", 2)])).await;
        reader.expect(&[Got::SubAck { id: 1, codes: vec![2] }]).await;
        let mut device = server.open(&Hello::new(version, "d")).await;
        device.send(&publish(version, "t", b"0", 0, 0)).await;
        device.send(&publish(version, "t", b"1", 1, 1)).await;
        device.send(&publish(version, "t", b"2", 2, 2)).await;
        device.expect(&[puback(1), pubrec(2)]).await;
        device.send(&ack(6, 2)).await;
        device.expect(&[pubcomp(2)]).await;
        for qos in 0..=2 {
            let Some(Got::Publish(received)) = reader.next().await else { panic!() };
            assert_eq!((received.qos, received.payload), (qos, qos.to_string().into()));
            match qos {
                1 => reader.send(&ack(4, received.id)).await,
                2 => {
                    reader.send(&ack(5, received.id)).await;
                    reader.expect(&[client::pubrel(received.id)]).await;
                    reader.send(&ack(7, received.id)).await;
                }
                _ => {}
            }
        }
        assert_eq!(server.hub.payloads(), ["0", "1", "2"]);
        for id in ["r", "d"] {
            assert!(matches!(server.event().await, SourceEvent::DeviceConnected { client, .. } if client == id));
        }
        device.send(&client::DISCONNECT).await;
        assert_eq!(device.next().await, None);
        assert!(matches!(server.event().await, SourceEvent::DeviceDisconnected { clean: true, .. }));
        server.finish().await;
    }
}

#[tokio::test]
async fn pubacks_leave_when_the_hub_says_so() {
    let server = Server::start(Arc::default()).await;
    let mut device = server.open(&Hello::new(V311, "d")).await;
    for id in 1..=50 {
        device.send(&publish(V311, "t", b"x", 1, id)).await;
    }
    device.send(&PINGREQ).await;
    device.expect(&[Got::PingResp]).await;
    server.hub.commit_all();
    device.expect(&(1..=50).map(puback).collect::<Vec<_>>()).await;
    server.finish().await;
}

#[tokio::test]
async fn a_packet_in_a_thousand_segments_and_a_thousand_packets_in_one() {
    let server = Server::start(Hub::prompt()).await;
    let mut device = server.open(&Hello::new(V311, "d")).await;
    device.stream.set_nodelay(true).unwrap();
    for byte in publish(V311, "t", &[b'x'; 990], 1, 1) {
        device.send(&[byte]).await;
    }
    device.expect(&[puback(1)]).await;
    let all: Vec<u8> = (1..=1000).flat_map(|id| publish(V311, "t", b"x", 1, id)).collect();
    device.send(&all).await;
    device.expect(&(1..=1000).map(puback).collect::<Vec<_>>()).await;
    server.finish().await;
}

#[tokio::test]
async fn a_connection_without_a_connect_is_closed_after_its_time() {
    let mut config = config();
    config.limits.connect_timeout = Duration::from_millis(200);
    let server = Server::with(config, Hub::prompt()).await;
    let mut idle = server.dial(V311).await;
    let mut slow = server.dial(V311).await;
    slow.send(&Hello::new(V311, "d").encode()[..5]).await;
    assert_eq!((idle.next().await, slow.next().await), (None, None));
    server.finish().await;
}

#[tokio::test]
async fn a_take_over_tells_the_old_connection_why() {
    let server = Server::start(Hub::prompt()).await;
    let mut old = server.open(&Hello::new(V5, "d")).await;
    let mut new = server.open(&Hello::new(V5, "d")).await;
    old.expect(&[Got::Disconnect(0x8e)]).await;
    assert_eq!(old.next().await, None);
    new.send(&PINGREQ).await;
    new.expect(&[Got::PingResp]).await;
    server.finish().await;
}

#[tokio::test]
async fn a_stop_answers_what_is_committed_and_says_goodbye() {
    let server = Server::start(Arc::default()).await;
    let hub = Arc::clone(&server.hub);
    let mut device = server.open(&Hello::new(V5, "d")).await;
    device.send(&publish(V5, "t", b"x", 1, 1)).await;
    device.send(&PINGREQ).await;
    device.expect(&[Got::PingResp]).await;
    let finished = tokio::spawn(server.finish());
    // What comes after the stop is not taken; what came before is answered.
    while TcpStream::connect(device.stream.peer_addr().unwrap()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    device.send(&publish(V5, "t", b"late", 1, 2)).await;
    hub.commit_all();
    device.expect(&[puback(1), Got::Disconnect(0x8b)]).await;
    assert_eq!(device.next().await, None);
    drop(device);
    finished.await.unwrap();
    assert_eq!(hub.payloads(), ["x"]);
}

#[tokio::test]
async fn a_restart_goes_on_with_sessions_and_qos_2() {
    let server = Server::start(Hub::prompt()).await;
    let hello = Hello::kept(V311, "d", 0);
    let mut device = server.open(&hello).await;
    device.send(&publish(V311, "t", b"x", 2, 1)).await;
    device.expect(&[pubrec(1)]).await;
    let hub = Arc::clone(&server.hub);
    server.finish().await;
    let server = Server::start(hub).await;
    let mut device = server.dial(V311).await;
    device.send(&hello.encode()).await;
    assert!(matches!(device.next().await, Some(Got::ConnAck { present: true, .. })));
    device.send(&client::publish_with(V311, "t", b"x", 2, 1, 8, &[])).await;
    device.send(&ack(6, 1)).await;
    device.expect(&[pubrec(1), pubcomp(1)]).await;
    assert_eq!(server.hub.payloads(), ["x"]);
    server.finish().await;
}

#[tokio::test]
async fn clients_without_a_name_do_not_take_each_other_over() {
    let server = Server::start(Hub::prompt()).await;
    let mut first = server.open(&Hello::new(V311, "")).await;
    let _second = server.open(&Hello::new(V5, "")).await;
    first.send(&PINGREQ).await;
    first.expect(&[Got::PingResp]).await;
    server.finish().await;
}

/// One device sends as fast as it can; the others publish with a window of one and must not starve.
#[tokio::test]
async fn a_greedy_device_does_not_starve_the_others() {
    let server = Server::start(Hub::prompt()).await;
    let mut greedy = server.open(&Hello::new(V311, "greedy")).await;
    let (mut from, mut to) = greedy.stream.split();
    let flood: Vec<u8> = (1..=1000).flat_map(|id| publish(V311, "flood", &[b'x'; 100], 1, id)).collect();
    let mut sink = vec![0; 65_536];
    let mut modest = Vec::new();
    for n in 0..10 {
        modest.push(server.open(&Hello::new(V311, &format!("d{n}"))).await);
    }
    let polite = async {
        for id in 1..=30 {
            for device in &mut modest {
                device.send(&publish(V311, "t", b"x", 1, id)).await;
            }
            for device in &mut modest {
                device.expect(&[puback(id)]).await;
            }
        }
    };
    let write = async {
        loop {
            to.write_all(&flood).await.unwrap();
        }
    };
    let read = async { while from.read(&mut sink).await.unwrap() > 0 {} };
    tokio::select! {
        () = polite => {}
        () = write => {}
        () = read => {}
    }
    assert!(server.counters.gate_closed.load(Ordering::Relaxed) > 0, "it was held back");
    let stored = server.hub.stored();
    assert_eq!(stored.iter().filter(|(topic, _)| topic == "t").count(), 300);
    assert!(stored.iter().any(|(topic, _)| topic == "flood"));
    drop(greedy);
    server.finish().await;
}

/// What a connection takes while nothing happens, but for its socket: task, machine, session. It has no buffers then.
#[test]
fn an_idle_connection_takes_little_memory() {
    use crate::intake::listener::{connection, machine::Machine, session::Session};
    fn size_of_task<A, B, C, D, E, F, T>(_: impl FnOnce(A, B, C, D, E, F) -> T) -> usize {
        size_of::<T>()
    }
    let all = size_of_task(connection::serve) + size_of::<Machine>() + size_of::<Session>();
    assert!(all < 4 * 1024, "{all}");
}

/// Not sessions alone: one that says nothing counts too.
#[tokio::test]
async fn the_gauges_follow_the_connections() {
    let mut config = config();
    config.limits.connect_timeout = LIMIT;
    let server = Server::with(config, Hub::prompt()).await;
    let shown = async |connections, sessions| {
        let counters = &server.counters;
        let is = || {
            let shown = [&counters.connections, &counters.sessions_connected].map(|n| n.load(Ordering::Relaxed));
            shown == [connections, sessions]
        };
        while !is() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (open, silent) = (server.open(&Hello::new(V311, "d")).await, server.dial(V311).await);
    timeout(LIMIT, shown(2, 1)).await.unwrap();
    drop((open, silent));
    timeout(LIMIT, shown(0, 0)).await.unwrap();
    server.finish().await;
}
