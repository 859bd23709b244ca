//! What devices send, for fuzzing: packets one by one, and scripts of several connections on one exchange. Called by
//! `src/fuzz`; panics when a rule is broken.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::access::Rights;
use super::counters::ListenerCounters;
use super::exchange::{Exchange, Parts};
use super::machine::{Flow, Machine};
use super::packet::{self, Head, Packet, Version, kind};
use crate::config;
use crate::intake::{AckTicket, Change, Deliver, Delivery, Fate, Route, Routed};
use crate::record::{Arrival, Reading, RecordView};

/// More turns than any input needs to come to rest.
const TURNS: usize = 10_000;

/// Cuts all packets off `data` and decodes them as a connection does after its CONNECT, and each CONNECT as its first.
pub(crate) fn packets(version: Version, data: &[u8]) {
    let mut rest = data;
    while let Ok(Some(head)) = Head::peek(rest) {
        assert!(head.total() > head.remaining, "the fixed header counts");
        let Some((frame, behind)) = rest.split_at_checked(head.total()) else { return };
        if head.kind() == kind::CONNECT {
            let _ = packet::decode_connect(head, frame);
        }
        match packet::decode(version, head, frame) {
            Ok(Packet::Publish(publish)) => {
                assert!(!publish.topic.contains(['#', '+', '\0']), "a topic without wildcards");
                assert_eq!(publish.qos > 0, publish.packet_id > 0, "a packet id where there is a QoS");
                assert!(frame.ends_with(publish.payload), "the payload is the end of the packet");
            }
            Ok(Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack)) => {
                assert_ne!(ack.packet_id, 0);
            }
            Ok(Packet::Subscribe(subscribe)) => assert!(!subscribe.filters.is_empty(), "it asks for something"),
            _ => {}
        }
        rest = behind;
    }
}

/// A script: an operation, then what belongs to it. Its two lowest bits say which connection, the next three what
/// happens: bytes come (0 to 3, their number follows), a commit (4), the line breaks (5), seconds pass (6, their number
/// follows), the client reads or stops reading (7). Nothing is acknowledged before it is durable, and nothing stays
/// behind. Returns how many readings were acknowledged.
pub(crate) fn connections(data: &[u8]) -> u64 {
    let mut plant = Plant::new();
    let mut script = data.iter().copied();
    while let Some(operation) = script.next() {
        let which = usize::from(operation & 3);
        match (operation >> 2) & 7 {
            0..=3 => {
                let count = usize::from(script.next().unwrap_or(0));
                let bytes: Vec<u8> = script.by_ref().take(count).collect();
                plant.send(which, &bytes);
            }
            4 => plant.spool.commit_one(),
            5 => plant.cut(which),
            6 => plant.now += Duration::from_secs(u64::from(script.next().unwrap_or(0))),
            _ => plant.lines[which].reads ^= true,
        }
        plant.run();
    }
    plant.finish()
}

/// Routes everything.
struct Everything;

impl Route for Everything {
    fn route(&self, reading: &Reading<'_>, scratch: &mut Vec<u8>) -> Routed {
        Routed::Deliver { lane: 0, body: RecordView::plain(reading).encode(scratch), fate: Fate::Forward }
    }
}

/// Commits when the script says so.
#[derive(Default)]
struct Spool {
    waiting: Mutex<(VecDeque<Option<AckTicket>>, u64)>,
}

impl Spool {
    fn commit_one(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ticket) = waiting.0.pop_front() {
            waiting.1 += 1;
            ticket.into_iter().for_each(AckTicket::fire);
        }
    }

    fn committed(&self) -> u64 {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    fn is_empty(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).0.is_empty()
    }
}

impl Deliver for Spool {
    fn deliver(&self, batch: &mut Vec<Delivery>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.0.extend(batch.drain(..).map(|delivery| delivery.ack));
    }

    fn urge(&self) {}

    fn keep(&self, _: Vec<Change>, ack: AckTicket) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).0.push_back(Some(ack));
    }
}

struct Line {
    machine: Option<Machine>,
    /// Connections that have ended while something of theirs was on its way.
    ended: Vec<Machine>,
    reads: bool,
    to_server: VecDeque<u8>,
}

struct Plant {
    exchange: Exchange,
    spool: Arc<Spool>,
    lines: [Line; 4],
    connections: u64,
    acknowledged: u64,
    now: Duration,
}

impl Plant {
    fn new() -> Self {
        let spool = Arc::<Spool>::default();
        let parts = Parts {
            config: Arc::new(config::Listener {
                name: "fuzz".to_owned(),
                endpoints: Vec::new(),
                tls: None,
                password_file: None,
                acl: Vec::new(),
                message_id: None,
                unacked_bytes_max: 16 << 10,
                fan_out_bytes_max: 16 << 10,
                limits: config::ListenerLimits { receive_maximum: 4, queued_messages: 4, ..Default::default() },
            }),
            route: Arc::new(Everything),
            deliver: Arc::clone(&spool) as Arc<dyn Deliver>,
            // Nobody listens: what is told is dropped.
            events: mpsc::channel(1).0,
            counters: Arc::new(ListenerCounters::default()),
            clock: Arc::new(Arrival::default),
        };
        let line = || Line { machine: None, ended: Vec::new(), reads: true, to_server: VecDeque::new() };
        let lines = [line(), line(), line(), line()];
        let exchange = Exchange::new(parts, Vec::new());
        Plant { exchange, spool, lines, connections: 0, acknowledged: 0, now: Duration::from_secs(1) }
    }

    fn send(&mut self, which: usize, bytes: &[u8]) {
        let line = &mut self.lines[which];
        if line.machine.is_none() {
            self.connections += 1;
            line.machine =
                Some(Machine::new(self.connections, &self.exchange, self.now + Duration::from_secs(5), self.now));
            line.to_server.clear();
        }
        line.to_server.extend(bytes);
    }

    fn cut(&mut self, which: usize) {
        if let Some(machine) = &mut self.lines[which].machine {
            machine.broken(&mut self.exchange, "cut");
        }
        self.end(which);
    }

    fn end(&mut self, which: usize) {
        let line = &mut self.lines[which];
        if let Some(mut machine) = line.machine.take() {
            machine.end(&mut self.exchange, self.now);
            line.ended.push(machine);
        }
    }

    /// Everything that can happen without a commit and without time.
    fn run(&mut self) {
        for _ in 0..TURNS {
            let mut busy = self.house();
            for which in 0..self.lines.len() {
                busy |= self.turn(which);
            }
            if !busy {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// One turn of a connection; whether anything came of it.
    fn turn(&mut self, which: usize) -> bool {
        let line = &mut self.lines[which];
        for machine in &mut line.ended {
            machine.settle(&mut self.exchange, self.now);
        }
        line.ended.retain(|machine| !machine.is_settled());
        let Some(machine) = &mut line.machine else { return false };
        let room = machine.room(&self.exchange).min(line.to_server.len());
        if room > 0 {
            let part: Vec<u8> = line.to_server.drain(..room).collect();
            machine.received(&part, self.now);
        }
        let flow = machine.turn(&mut self.exchange, self.now);
        let wrote = line.reads && take_out(machine, &self.spool, &mut self.acknowledged, self.now);
        match flow {
            Flow::Login(connect) => {
                machine.admitted(&mut self.exchange, connect, Rights::everything(), 7, self.now);
                true
            }
            Flow::More => true,
            Flow::Wait => wrote || room > 0,
            Flow::Close => {
                take_out(machine, &self.spool, &mut self.acknowledged, self.now);
                self.end(which);
                true
            }
        }
    }

    fn house(&mut self) -> bool {
        let mut fired = Vec::new();
        self.exchange.tend(self.now);
        self.exchange.write_retained_at(self.now);
        self.exchange.queue().take(&mut fired);
        let busy = !fired.is_empty();
        for ack in fired {
            self.exchange.written(ack, self.now);
        }
        busy
    }

    /// Everybody goes, everything is committed: nothing is left of readings and of what was read.
    fn finish(mut self) -> u64 {
        for which in 0..self.lines.len() {
            self.cut(which);
        }
        for _ in 0..TURNS {
            self.run();
            if self.spool.is_empty() {
                break;
            }
            self.spool.commit_one();
        }
        assert!(self.spool.is_empty(), "what is kept brings ever more to keep");
        assert!(self.lines.iter().all(|line| line.ended.is_empty()), "an ack that never comes");
        assert_eq!((self.exchange.gate.bytes(), self.exchange.input_bytes), (0, 0), "room that is not given back");
        self.acknowledged
    }
}

/// Takes what is to be written: whole packets that a server may send, and no positive answer before the first commit.
fn take_out(machine: &mut Machine, spool: &Spool, acknowledged: &mut u64, now: Duration) -> bool {
    let out = machine.out().split();
    let mut rest = &out[..];
    while !rest.is_empty() {
        let head = Head::peek(rest).ok().flatten().filter(|head| head.total() <= rest.len());
        let Some(head) = head else { panic!("half a packet: {:?}", rest.escape_ascii().to_string()) };
        let (frame, behind) = rest.split_at(head.total());
        // CONNACK, PUBLISH, PUBACK to PUBCOMP, SUBACK, UNSUBACK, PINGRESP, DISCONNECT
        assert!(matches!(head.kind(), 2..=7 | 9 | 11 | 13 | 14), "packet type {} from a server", head.kind());
        if matches!(head.kind(), kind::PUBACK | kind::PUBREC) {
            let refused = frame.get(4).is_some_and(|code| *code >= 0x80);
            assert!(refused || spool.committed() > 0, "acknowledged before anything was durable");
            *acknowledged += u64::from(!refused);
        }
        rest = behind;
    }
    if out.is_empty() {
        return false;
    }
    machine.wrote(now);
    true
}
