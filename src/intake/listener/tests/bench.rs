//! An exchange, a hub that is told when to commit, and devices whose machines run in the test.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::mpsc;

use super::client::{self, Got, Hello};
use crate::config;
use crate::intake::listener::access::Rights;
use crate::intake::listener::counters::ListenerCounters;
use crate::intake::listener::exchange::{Exchange, Parts};
use crate::intake::listener::machine::{Flow, Machine};
use crate::intake::listener::packet::Version;
use crate::intake::listener::transport::Peer;
use crate::intake::{AckTicket, Change, Deliver, Delivery, Fact, Fate, Kind, MessageId, Route, Routed, SourceEvent};
use crate::record::{Arrival, Reading, RecordView};

pub const SOURCE: &str = "plant";

/// Everything goes to lane 0 as it is; topics below `drop/` are wanted by no route.
pub struct Straight;

impl Route for Straight {
    fn route(&self, reading: &Reading<'_>, scratch: &mut Vec<u8>) -> Routed {
        if reading.topic.starts_with("drop/") {
            return Routed::Drop;
        }
        Routed::Deliver { lane: 0, body: RecordView::plain(reading).encode(scratch), fate: Fate::Forward }
    }
}

enum Mail {
    Delivery(Delivery),
    Keep(Vec<Change>, AckTicket),
}

/// Stands for hub and spool: what has been committed outlives a crash.
#[derive(Default)]
pub struct Hub {
    state: Mutex<HubState>,
}

#[derive(Default)]
struct HubState {
    waiting: VecDeque<Mail>,
    /// Commit at once.
    prompt: bool,
    stored: Vec<(String, Vec<u8>)>,
    rows: BTreeMap<(Kind, Vec<u8>), Vec<u8>>,
    urged: u64,
    message_ids: Vec<MessageId>,
}

impl HubState {
    fn commit_one(&mut self) -> bool {
        let Some(mail) = self.waiting.pop_front() else { return false };
        self.commit(mail);
        true
    }

    fn commit(&mut self, mail: Mail) {
        match mail {
            Mail::Delivery(delivery) => {
                let view = delivery.body.view().unwrap();
                self.stored.push((view.topic.to_owned(), view.payload.to_vec()));
                if let Some(extra) = delivery.extra {
                    self.message_ids.extend(extra.message_id);
                    self.apply(extra.change.into_iter().collect());
                }
                if let Some(ticket) = delivery.ack {
                    ticket.fire();
                }
            }
            Mail::Keep(changes, ticket) => {
                self.apply(changes);
                ticket.fire();
            }
        }
    }

    fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put { kind, key, value } => {
                    self.rows.insert((kind, key), value);
                }
                Change::Delete { kind, key } => {
                    self.rows.remove(&(kind, key));
                }
                Change::DeletePrefix { kind, prefix } => {
                    self.rows.retain(|(known, key), _| *known != kind || !key.starts_with(&prefix));
                }
            }
        }
    }

    fn settle(&mut self) {
        while self.prompt && self.commit_one() {}
    }
}

impl Deliver for Hub {
    fn deliver(&self, batch: &mut Vec<Delivery>) {
        let mut state = self.state.lock().unwrap();
        state.waiting.extend(batch.drain(..).map(Mail::Delivery));
        state.settle();
    }

    fn urge(&self) {
        self.state.lock().unwrap().urged += 1;
    }

    fn keep(&self, changes: Vec<Change>, ack: AckTicket) {
        let mut state = self.state.lock().unwrap();
        state.waiting.push_back(Mail::Keep(changes, ack));
        state.settle();
    }
}

impl Hub {
    pub fn prompt() -> Arc<Self> {
        let hub = Arc::new(Hub::default());
        hub.state.lock().unwrap().prompt = true;
        hub
    }

    /// Commits from now on, and all that waits.
    pub fn set_prompt(&self, prompt: bool) {
        let mut state = self.state.lock().unwrap();
        state.prompt = prompt;
        state.settle();
    }

    /// Commits the oldest mail; `false`: there is none.
    pub fn commit_one(&self) -> bool {
        self.state.lock().unwrap().commit_one()
    }

    /// Commits the newest mail first.
    pub fn commit_newest(&self) {
        let mut state = self.state.lock().unwrap();
        let mail = state.waiting.pop_back().unwrap();
        state.commit(mail);
    }

    pub fn commit_all(&self) {
        while self.commit_one() {}
    }

    /// What waits is gone.
    pub fn crash(&self) {
        self.state.lock().unwrap().waiting.clear();
    }

    pub fn waiting(&self) -> usize {
        self.state.lock().unwrap().waiting.len()
    }

    pub fn urged(&self) -> u64 {
        self.state.lock().unwrap().urged
    }

    pub fn stored(&self) -> Vec<(String, Vec<u8>)> {
        self.state.lock().unwrap().stored.clone()
    }

    /// Payloads of what is stored, as texts.
    pub fn payloads(&self) -> Vec<String> {
        self.stored().into_iter().map(|(_, payload)| String::from_utf8(payload).unwrap()).collect()
    }

    pub fn message_ids(&self) -> Vec<MessageId> {
        self.state.lock().unwrap().message_ids.clone()
    }

    pub fn rows(&self, kind: Kind) -> usize {
        self.state.lock().unwrap().rows.keys().filter(|(known, _)| *known == kind).count()
    }

    pub fn facts(&self) -> Vec<Fact> {
        let rows = self.state.lock().unwrap().rows.clone();
        rows.into_iter().map(|((kind, key), value)| Fact { kind, key, value }).collect()
    }
}

pub fn config() -> config::Listener {
    config::Listener {
        name: SOURCE.to_owned(),
        endpoints: Vec::new(),
        tls: None,
        password_file: None,
        acl: Vec::new(),
        message_id: None,
        unacked_bytes_max: 1 << 20,
        fan_out_bytes_max: 1 << 20,
        limits: config::ListenerLimits { message_rate: 1_000_000, byte_rate: 1 << 40, ..Default::default() },
    }
}

/// A listener without sockets.
pub struct Bench {
    pub hub: Arc<Hub>,
    pub exchange: Exchange,
    pub counters: Arc<ListenerCounters>,
    pub events: mpsc::Receiver<(String, SourceEvent)>,
    pub now: Duration,
    last: u64,
}

/// One connection of a device.
pub struct Device {
    pub machine: Machine,
    version: Version,
    to_server: BytesMut,
    from_server: BytesMut,
    pub closed: bool,
    got: VecDeque<Got>,
}

impl Bench {
    /// Commits at once.
    pub fn new() -> Self {
        Bench::with(config(), Hub::prompt())
    }

    /// Commits when it is told to.
    pub fn held() -> Self {
        Bench::with(config(), Arc::default())
    }

    /// Begins with what `hub` has kept.
    pub fn with(config: config::Listener, hub: Arc<Hub>) -> Self {
        let (events_tx, events) = mpsc::channel(1000);
        let counters = Arc::new(ListenerCounters::default());
        let parts = Parts {
            config: Arc::new(config),
            route: Arc::new(Straight),
            deliver: Arc::clone(&hub) as Arc<dyn Deliver>,
            events: events_tx,
            counters: Arc::clone(&counters),
            clock: Arc::new(Arrival::default),
        };
        let exchange = Exchange::new(parts, hub.facts());
        let mut bench = Bench { hub, exchange, counters, events, now: Duration::from_secs(1), last: 0 };
        bench.house();
        bench
    }

    /// The same plant after kill -9.
    pub fn crash(self) -> Self {
        self.hub.crash();
        let config = self.exchange.config().clone();
        Bench::with(config, self.hub)
    }

    /// A connection without a CONNECT.
    pub fn dial(&mut self, version: Version) -> Device {
        self.last += 1;
        let deadline = self.now + Duration::from_secs(5);
        Device {
            machine: Machine::new(self.last, &self.exchange, deadline, self.now),
            version,
            to_server: BytesMut::new(),
            from_server: BytesMut::new(),
            closed: false,
            got: VecDeque::new(),
        }
    }

    /// A connection that has been let in; its CONNACK is the first that [`Device::got`] gives.
    pub fn connect(&mut self, hello: &Hello) -> Device {
        let mut device = self.dial(hello.version);
        self.send(&mut device, &hello.encode());
        device
    }

    /// A connection that has had its CONNACK.
    pub fn open(&mut self, hello: &Hello) -> Device {
        let mut device = self.connect(hello);
        match device.got().as_slice() {
            [Got::ConnAck { code: 0, .. }] => device,
            other => panic!("{other:?} instead of CONNACK"),
        }
    }

    pub fn send(&mut self, device: &mut Device, bytes: &[u8]) {
        device.to_server.extend_from_slice(bytes);
        self.run(device);
    }

    /// Everything that can happen without a commit and without time.
    pub fn run(&mut self, device: &mut Device) {
        self.house();
        // In a task, an ack or a write that comes meanwhile would wake it for another turn.
        let mut idle = 0;
        while !device.closed {
            let room = device.machine.room(&self.exchange).min(device.to_server.len());
            if room > 0 {
                let part = device.to_server.split_to(room);
                device.machine.received(&part, self.now);
            }
            let flow = device.machine.turn(&mut self.exchange, self.now);
            let peer = Peer { address: None, endpoint: "bench".into(), certificate: None, anonymous: true };
            if let Some(event) = device.machine.presence(&mut self.exchange, &peer) {
                self.exchange.tell(event);
            }
            match flow {
                Flow::Login(connect) => {
                    device.machine.admitted(&mut self.exchange, connect, Rights::everything(), 7, self.now);
                }
                Flow::More => {}
                Flow::Wait => {
                    self.house();
                    let wrote = device.take_out(self.now);
                    let more = device.machine.room(&self.exchange) > 0 && !device.to_server.is_empty();
                    idle = if wrote || more { 0 } else { idle + 1 };
                    if idle == 2 {
                        return;
                    }
                }
                Flow::Close => {
                    device.take_out(self.now);
                    device.machine.end(&mut self.exchange, self.now);
                    device.closed = true;
                }
            }
        }
        self.house();
        device.machine.settle(&mut self.exchange, self.now);
        self.house();
    }

    /// The line breaks.
    pub fn cut(&mut self, device: &mut Device) {
        if !device.closed {
            device.machine.broken(&mut self.exchange, "cut");
            device.machine.end(&mut self.exchange, self.now);
            device.closed = true;
        }
        self.run(device);
    }

    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.house();
    }

    pub fn house(&mut self) {
        let mut fired = Vec::new();
        loop {
            self.exchange.queue().take(&mut fired);
            for ack in fired.drain(..) {
                self.exchange.written(ack, self.now);
            }
            self.exchange.tend(self.now);
            self.exchange.write_retained_at(self.now);
            self.exchange.queue().take(&mut fired);
            if fired.is_empty() {
                return;
            }
            for ack in fired.drain(..) {
                self.exchange.written(ack, self.now);
            }
        }
    }

    pub fn told(&mut self) -> Vec<SourceEvent> {
        std::iter::from_fn(|| self.events.try_recv().ok()).map(|(_, event)| event).collect()
    }

    pub fn count(&self, counter: impl Fn(&ListenerCounters) -> &std::sync::atomic::AtomicU64) -> u64 {
        counter(&self.counters).load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl Device {
    fn take_out(&mut self, now: Duration) -> bool {
        let out = self.machine.out();
        let wrote = !out.is_empty();
        self.from_server.extend_from_slice(out);
        out.clear();
        self.machine.wrote(now);
        while let Some(got) = client::take(self.version, &mut self.from_server) {
            self.got.push_back(got);
        }
        wrote
    }

    /// What the server has sent since the last time.
    pub fn got(&mut self) -> Vec<Got> {
        self.got.drain(..).collect()
    }
}
