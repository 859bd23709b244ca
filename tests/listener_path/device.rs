//! Devices: blocking, one socket each. They keep their state through every loss of the line and do what MQTT asks of a
//! client with a kept session: send again what is open, in order, and go on.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::packets::{self, Heard, Hello, Said, V5, V311};
use super::witness::{Promise, Witness};
use crate::harness::jobs::{PATIENCE, wait_until};
use crate::harness::readings::Reading;

/// One connection that was let in.
pub struct Line {
    stream: TcpStream,
    inbox: BytesMut,
    level: u8,
    pub session_present: bool,
}

impl Line {
    /// Tries until the gateway lets it in.
    pub fn open(port: u16, hello: &Hello) -> Line {
        wait_until(&format!("the gateway lets {} in", hello.client_id), || Self::try_open(port, hello).ok())
    }

    fn try_open(port: u16, hello: &Hello) -> io::Result<Line> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut line = Line { stream, inbox: BytesMut::new(), level: hello.level, session_present: false };
        line.send(&packets::connect(hello))?;
        match line.hear()? {
            Heard::ConnAck { code: 0, session_present } => line.session_present = session_present,
            other => return Err(io::Error::other(format!("no CONNACK: {other:?}"))),
        }
        Ok(line)
    }

    pub fn send(&mut self, bytes: &Bytes) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next packet, whenever it comes.
    pub fn hear(&mut self) -> io::Result<Heard> {
        self.hear_until(Instant::now() + PATIENCE)?.ok_or_else(|| ErrorKind::TimedOut.into())
    }

    /// The next packet, or `None` when it is not there by `until`.
    pub fn hear_until(&mut self, until: Instant) -> io::Result<Option<Heard>> {
        loop {
            let frame = packets::take_frame(&mut self.inbox).map_err(|_| ErrorKind::InvalidData)?;
            if let Some(frame) = frame {
                let heard = packets::read(&frame, self.level).map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
                return Ok(Some(heard));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.inbox.extend_from_slice(&chunk[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// How a device speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    pub level: u8,
    pub qos: u8,
    /// It puts its reading's id into the user property `message-id` (version 5).
    pub message_ids: bool,
    /// Messages that it has open at once.
    pub window: usize,
}

impl Manner {
    pub const QOS1: Manner = Manner { level: V311, qos: 1, message_ids: false, window: 20 };
    pub const QOS2: Manner = Manner { level: V5, qos: 2, message_ids: false, window: 20 };
    pub const QOS2_V311: Manner = Manner { level: V311, ..Manner::QOS2 };
    pub const QOS1_WITH_IDS: Manner = Manner { level: V5, qos: 1, message_ids: true, window: 20 };

    pub fn promise(self) -> Promise {
        if self.qos == 2 || self.message_ids { Promise::Once } else { Promise::AtLeastOnce }
    }
}

/// A message of which not all has been said.
struct Open {
    /// Packet ids wrap.
    order: u64,
    reading: Reading,
    /// PUBREC has come: only PUBREL is to be said.
    received: bool,
    since: Instant,
}

/// A device with a kept session.
pub struct Device {
    port: u16,
    hello: Hello,
    manner: Manner,
    witness: Arc<Witness>,
    line: Line,
    next_id: u16,
    order: u64,
    open: BTreeMap<u16, Open>,
    /// From the first byte of a reading to its PUBACK or PUBREC.
    latencies: Vec<Duration>,
}

impl Device {
    /// Tries until the gateway lets it in.
    pub fn connect(port: u16, client_id: &str, manner: Manner, witness: &Arc<Witness>) -> Device {
        let hello = Hello { level: manner.level, client_id: client_id.to_owned(), clean: false, will: None };
        let line = Line::open(port, &hello);
        witness.connected();
        let witness = Arc::clone(witness);
        let (open, latencies) = (BTreeMap::new(), Vec::new());
        Device { port, hello, manner, witness, line, next_id: 0, order: 0, open, latencies }
    }

    /// Sends, and waits only while its window is full.
    pub fn publish(&mut self, reading: &Reading) {
        while self.manner.qos > 0 && !self.has_room() {
            self.listen(Instant::now() + PATIENCE);
        }
        let packet_id = if self.manner.qos > 0 { self.free_packet_id() } else { 0 };
        self.order += 1;
        self.witness.offer(reading, self.manner.promise());
        let bytes = publish(self.manner, packet_id, reading, false);
        if self.manner.qos > 0 {
            let open = Open { order: self.order, reading: reading.clone(), received: false, since: Instant::now() };
            self.open.insert(packet_id, open);
        }
        if self.line.send(&bytes).is_err() {
            self.reconnect();
        }
    }

    /// Takes one packet, if one comes by `until`.
    pub fn listen(&mut self, until: Instant) {
        match self.line.hear_until(until) {
            Ok(Some(heard)) => self.take(&heard),
            Ok(None) => {}
            Err(_) => self.reconnect(),
        }
    }

    /// Asks for a sign of life, and takes what comes before it.
    pub fn ping(&mut self) {
        self.line.send(&packets::pingreq()).unwrap();
        loop {
            match self.line.hear().expect("a PINGRESP comes, whatever waits") {
                Heard::PingResp => return,
                heard => self.take(&heard),
            }
        }
    }

    /// Waits until nothing is open.
    pub fn finish(&mut self) {
        let deadline = Instant::now() + 2 * PATIENCE;
        while !self.open.is_empty() {
            assert!(Instant::now() < deadline, "{}: {} messages stay open", self.hello.client_id, self.open.len());
            self.listen(deadline);
        }
    }

    /// Messages without their last answer.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    pub fn has_room(&self) -> bool {
        self.open.len() < self.manner.window
    }

    pub fn latencies(&self) -> &[Duration] {
        &self.latencies
    }

    /// Says good-bye.
    pub fn leave(mut self) {
        // It has everything: whether it is heard does not matter.
        drop(self.line.send(&packets::disconnect()));
    }

    fn take(&mut self, heard: &Heard) {
        match *heard {
            Heard::PubAck(packet_id) => {
                let open = self.open.remove(&packet_id).expect("a PUBACK is for something open");
                self.accepted(&open);
            }
            Heard::PubRec(packet_id) => {
                if let Some(mut open) = self.open.remove(&packet_id) {
                    if !open.received {
                        self.accepted(&open);
                    }
                    open.received = true;
                    self.open.insert(packet_id, open);
                }
                if self.line.send(&packets::pubrel(packet_id)).is_err() {
                    self.reconnect();
                }
            }
            Heard::PubComp(packet_id) => {
                let open = self.open.remove(&packet_id).expect("a PUBCOMP is for something open");
                assert!(open.received, "PUBCOMP before PUBREC");
            }
            // The gateway has forgotten it already (5, 4.3.3): as good as a PUBCOMP.
            Heard::Refused { packet_id, reason: 0x92 } => drop(self.open.remove(&packet_id)),
            Heard::Refused { packet_id, reason } => {
                panic!("{}: {packet_id} refused: {reason:#x}", self.hello.client_id)
            }
            _ => {}
        }
    }

    fn accepted(&mut self, open: &Open) {
        self.latencies.push(open.since.elapsed());
        self.witness.accept(&open.reading);
    }

    fn free_packet_id(&mut self) -> u16 {
        loop {
            self.next_id = self.next_id.wrapping_add(1);
            if self.next_id != 0 && !self.open.contains_key(&self.next_id) {
                return self.next_id;
            }
        }
    }

    /// Says again what is open, in order [MQTT-4.4.0-1]. The session was durable before the first CONNACK.
    fn reconnect(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.resume() {
            assert!(Instant::now() < deadline, "{} cannot say again what is open", self.hello.client_id);
        }
    }

    fn resume(&mut self) -> bool {
        self.line = Line::open(self.port, &self.hello);
        self.witness.connected();
        assert!(self.line.session_present, "{}: the session is lost", self.hello.client_id);
        let mut again: Vec<_> = self.open.iter().collect();
        again.sort_by_key(|(_, open)| open.order);
        for (&packet_id, open) in again {
            let bytes = if open.received {
                packets::pubrel(packet_id)
            } else {
                self.witness.offer(&open.reading, self.manner.promise());
                publish(self.manner, packet_id, &open.reading, true)
            };
            if self.line.send(&bytes).is_err() {
                return false;
            }
        }
        true
    }
}

fn publish(manner: Manner, packet_id: u16, reading: &Reading, dup: bool) -> Bytes {
    let said = Said {
        topic: &reading.topic,
        payload: &reading.payload,
        qos: manner.qos,
        packet_id,
        dup,
        retain: false,
        message_id: manner.message_ids.then_some(reading.id.as_str()),
    };
    packets::publish(manner.level, said)
}
