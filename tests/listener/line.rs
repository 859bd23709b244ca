//! A socket to an MQTT server: bytes out, packets in.
//!
//! Blocking, and patient: what must come is waited for, what must not come is shown by what comes instead of it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use bytes::BytesMut;

use super::packets::{self, Ack, Connect, Message, Packet, Properties, Props, Publish, V5};
use super::servers::Server;
use crate::harness::jobs::{self, PATIENCE};

pub struct Line {
    stream: TcpStream,
    inbox: BytesMut,
    level: u8,
    /// Messages that came while something else was waited for.
    early: VecDeque<Packet>,
    last_id: u16,
    /// Bytes that the client takes in a packet.
    limit: usize,
}

/// A connection that the server took.
pub struct Accepted {
    pub line: Line,
    pub present: bool,
    pub props: Properties,
}

impl Line {
    /// Connected, nothing sent.
    pub fn open(server: &Server, level: u8) -> Line {
        Line::over(TcpStream::connect(("127.0.0.1", server.ports.tcp)).expect("the server listens"), level)
    }

    pub fn over(stream: TcpStream, level: u8) -> Line {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Line { stream, inbox: BytesMut::new(), level, early: VecDeque::new(), last_id: 0, limit: usize::MAX }
    }

    /// Tries until a server that is restarted accepts.
    pub fn persistent(server: &Server, connect: &Connect) -> Line {
        jobs::wait_until("the server accepts", || {
            let stream = TcpStream::connect(("127.0.0.1", server.ports.tcp)).ok()?;
            let mut line = Line::over(stream, connect.level);
            line.send_what_it_takes(&connect.bytes());
            matches!(line.answer_or_close()?, Packet::ConnAck { code: 0, .. }).then_some(line)
        })
    }

    /// Sends CONNECT; it must be accepted.
    pub fn accepted(server: &Server, connect: &Connect) -> Accepted {
        let mut line = Line::open(server, connect.level);
        line.send(&connect.bytes());
        match line.next() {
            Packet::ConnAck { present, code: 0, props } => Accepted { line, present, props },
            other => panic!("{connect:?} got {other:?}"),
        }
    }

    pub fn connect(server: &Server, connect: &Connect) -> Line {
        Line::accepted(server, connect).line
    }

    /// A clean session under a name of its own.
    pub fn quick(server: &Server, level: u8) -> Line {
        Line::connect(server, &Connect::new(level, &server.name()))
    }

    /// A clean session with one subscription.
    pub fn subscribed(server: &Server, level: u8, filter: &str, qos: u8) -> Line {
        let mut line = Line::quick(server, level);
        line.subscribe(filter, qos);
        line
    }

    /// From here on packets must not be larger.
    pub fn limit(&mut self, bytes: usize) {
        self.limit = bytes;
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server takes it");
    }

    /// The same where the server may have closed in the middle of it.
    pub fn send_what_it_takes(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Err(error) if !is_closed(&error) => panic!("failed to send: {error}"),
            _ => {}
        }
    }

    /// The next packet.
    pub fn next(&mut self) -> Packet {
        self.early.pop_front().unwrap_or_else(|| self.next_off_the_wire())
    }

    fn next_off_the_wire(&mut self) -> Packet {
        self.read().expect("a packet was expected, and the server closed")
    }

    /// `None` when the server has closed.
    fn read(&mut self) -> Option<Packet> {
        loop {
            let found =
                packets::take(&mut self.inbox, self.level).unwrap_or_else(|error| panic!("from the server: {error}"));
            if let Some((packet, size)) = found {
                assert!(size <= self.limit, "{size} bytes of at most {}: {packet:?}", self.limit);
                return Some(packet);
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(read) => self.inbox.extend_from_slice(&chunk[..read]),
                Err(error) if is_closed(&error) => return None,
                Err(error) => panic!("waited {PATIENCE:?} in vain for a packet: {error}"),
            }
        }
    }

    /// The next packet that is no PUBLISH; those are kept for [`Line::next`].
    pub fn answer(&mut self) -> Packet {
        loop {
            match self.next_off_the_wire() {
                message @ Packet::Publish(_) => self.early.push_back(message),
                other => return other,
            }
        }
    }

    /// The same, or `None` if the server closes.
    pub fn answer_or_close(&mut self) -> Option<Packet> {
        loop {
            match self.read()? {
                message @ Packet::Publish(_) => self.early.push_back(message),
                other => return Some(other),
            }
        }
    }

    /// The next packet must be a PUBLISH. It is not answered.
    pub fn message(&mut self) -> Message {
        match self.next() {
            Packet::Publish(message) => message,
            other => panic!("a PUBLISH was expected: {other:?}"),
        }
    }

    /// The next packet must be a PUBLISH; it is answered to the end.
    pub fn take(&mut self) -> Message {
        let message = self.message();
        match message.qos {
            0 => {}
            1 => self.send(&packets::puback(message.id)),
            _ => {
                self.send(&packets::pubrec(message.id));
                assert_eq!(self.answer(), Packet::PubRel(ack(message.id)), "after a PUBREC");
                self.send(&packets::pubcomp(message.id));
            }
        }
        message
    }

    /// The payloads of the next messages, each answered.
    pub fn take_texts(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.take().text().to_owned()).collect()
    }

    pub fn fresh_id(&mut self) -> u16 {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.last_id
    }

    /// Subscribes; it must be granted as asked. `options`: the QoS, in version 5 with the other options.
    pub fn subscribe(&mut self, filter: &str, options: u8) {
        self.subscribe_with(filter, options, &Props::new());
    }

    pub fn subscribe_with(&mut self, filter: &str, options: u8, props: &Props) {
        let id = self.fresh_id();
        self.send(&packets::subscribe(self.level, id, &[(filter, options)], props));
        match self.answer() {
            Packet::SubAck { id: have, codes, .. } if have == id => assert_eq!(codes, [options & 3], "{filter}"),
            other => panic!("{filter}: {other:?}"),
        }
    }

    pub fn unsubscribe(&mut self, filter: &str) {
        let id = self.fresh_id();
        self.send(&packets::unsubscribe(self.level, id, &[filter]));
        assert!(matches!(self.answer(), Packet::UnsubAck { id: have, .. } if have == id), "{filter}");
    }

    /// Publishes and has it acknowledged to the end.
    pub fn publish(&mut self, topic: &str, qos: u8, payload: &str) {
        self.publish_packet(Publish::new(topic, qos, 0, payload));
    }

    /// The same; the identifier is put in.
    pub fn publish_packet(&mut self, mut publish: Publish) {
        publish.id = if publish.qos > 0 { self.fresh_id() } else { 0 };
        let (id, qos) = (publish.id, publish.qos);
        self.send(&publish.bytes(self.level));
        match qos {
            0 => {}
            1 => self.expect_acked(id),
            _ => {
                let answer = self.answer();
                assert!(matches!(&answer, Packet::PubRec(ack) if ack.id == id && ack.reason < 0x80), "{answer:?}");
                self.send(&packets::pubrel(id));
                assert_eq!(self.answer(), Packet::PubComp(ack(id)));
            }
        }
    }

    /// The next answer must be a PUBACK of success.
    pub fn expect_acked(&mut self, id: u16) {
        let answer = self.answer();
        assert!(matches!(&answer, Packet::PubAck(ack) if ack.id == id && ack.reason < 0x80), "{answer:?}");
    }

    /// The server answers and has nothing else to say.
    pub fn ping(&mut self) {
        self.send(&packets::PINGREQ);
        assert_eq!(self.next(), Packet::PingResp);
    }

    /// The server must close, in version 5 perhaps after a DISCONNECT: its reason.
    pub fn closed(mut self) -> Option<u8> {
        let mut reason = None;
        while let Some(packet) = self.read() {
            match packet {
                Packet::Disconnect { reason: said, .. } if reason.is_none() => reason = Some(said),
                Packet::Publish(_) if reason.is_none() => {}
                other => panic!("the server should have closed: {other:?}"),
            }
        }
        reason
    }

    /// The server must close because of what this client did. In version 5 our listener says why.
    pub fn refused(self, server: &Server, reasons: &[u8]) {
        let level = self.level;
        match self.closed() {
            Some(reason) => assert!(reasons.contains(&reason), "{reason:#04x} is not among {reasons:02x?}"),
            None => assert!(level < V5 || !server.is_ours(), "our listener closed without a reason"),
        }
    }

    /// The server must refuse CONNECT: with one of these codes, or by closing where it may.
    pub fn not_accepted(mut self, codes: &[u8]) {
        match self.read() {
            Some(Packet::ConnAck { present, code, .. }) => {
                assert!(codes.contains(&code) && !present, "{code:#04x} is not among {codes:02x?}, present {present}");
                assert_eq!(self.closed(), None, "nothing comes after a refusing CONNACK");
            }
            Some(Packet::Disconnect { reason, .. }) => panic!("a DISCONNECT ({reason:#04x}) before any CONNACK"),
            Some(other) => panic!("{other:?} before any CONNACK"),
            None => {}
        }
    }

    /// DISCONNECT, then waits until the server has taken note.
    pub fn leave(mut self) {
        self.send(&packets::DISCONNECT);
        self.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(self.closed(), None);
    }

    /// As a lost network does it: no DISCONNECT.
    pub fn cut(self) {
        drop(self.stream.shutdown(Shutdown::Both));
    }
}

/// A PUBREL or PUBCOMP without a complaint.
pub fn ack(id: u16) -> Ack {
    Ack { id, reason: 0, props: Properties::default() }
}

fn is_closed(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}
