//! MQTT over WebSocket (section 6), said by hand: one upgrade, and frames of our own making.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::*;
use crate::harness::jobs::PATIENCE;

cases! {
    packets_need_not_end_where_frames_end: ["6.0.0-2"], ["6.0.0-2"];
    text_frames_end_the_connection: ["6.0.0-1"], ["6.0.0-1"], not mosquitto: "2.0.11 reads them as binary";
    the_subprotocol_is_mqtt: ["6.0.0-3", "6.0.0-4"], ["6.0.0-3", "6.0.0-4"];
    without_the_subprotocol_nobody_gets_in: ["6.0.0-3"], ["6.0.0-3"], not mosquitto: "2.0.11 lets them in";
    pings_of_the_transport_are_answered: [], [];
    what_is_no_upgrade_is_refused: [], [];
}

const BINARY: u8 = 2;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const LAST: u8 = 0x80;

struct Socket {
    stream: TcpStream,
    inbox: Vec<u8>,
}

impl Socket {
    /// The server's answer to an upgrade that offers `protocols`, and the socket behind it.
    fn ask(server: &Server, protocols: &str) -> (String, Socket) {
        let mut stream = TcpStream::connect(("127.0.0.1", server.ports.ws)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let head = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
        let offer =
            if protocols.is_empty() { String::new() } else { format!("Sec-WebSocket-Protocol: {protocols}\r\n") };
        stream.write_all(format!("{head}{offer}\r\n").as_bytes()).unwrap();
        let mut socket = Socket { stream, inbox: Vec::new() };
        while !socket.inbox.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            if !socket.fill() {
                break;
            }
        }
        let end =
            socket.inbox.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(socket.inbox.len(), |at| at + 4);
        let head = socket.inbox.drain(..end).collect();
        (String::from_utf8(head).unwrap().to_ascii_lowercase(), socket)
    }

    fn open(server: &Server) -> Socket {
        let (answer, socket) = Socket::ask(server, "mqtt");
        assert!(answer.starts_with("http/1.1 101"), "{answer}");
        socket
    }

    /// False when the server has closed.
    fn fill(&mut self) -> bool {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(read) => {
                self.inbox.extend_from_slice(&chunk[..read]);
                read > 0
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("waited in vain: {error}"),
        }
    }

    /// A frame as clients send it, masked. `first`: the opcode, with [`LAST`] unless more of it follows.
    fn send(&mut self, first: u8, payload: &[u8]) {
        let mask = [7u8, 77, 177, 27];
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..=125 => frame.push(0x80 | length as u8),
            length => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.stream.write_all(&frame).unwrap();
    }

    /// Opcode and payload of the next frame; `None` when the server has closed.
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(length) = self.inbox.get(1).map(|byte| usize::from(byte & 0x7f)) {
                assert!(length < 126 && self.inbox[1] & 0x80 == 0, "the tests' answers are short, and never masked");
                if self.inbox.len() >= 2 + length {
                    let frame: Vec<u8> = self.inbox.drain(..2 + length).collect();
                    return Some((frame[0] & 0x0f, frame[2..].to_vec()));
                }
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Bytes of MQTT, however they are cut into frames.
    fn mqtt(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            match self.frame().expect("the server has closed") {
                (BINARY | 0, part) => bytes.extend(part),
                other => panic!("{other:?}"),
            }
        }
        bytes
    }

    /// The server must end it, at most after a close frame of its own or a DISCONNECT.
    fn closed(mut self) {
        while let Some((opcode, payload)) = self.frame() {
            let disconnect = opcode == BINARY && payload.first() == Some(&0xe0);
            assert!(opcode == CLOSE || disconnect, "{opcode}: {payload:02x?}");
            if opcode == CLOSE {
                // Whoever gets a close frame answers it: some servers wait for that.
                self.send(LAST | CLOSE, &payload);
            }
        }
    }
}

const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

fn packets_need_not_end_where_frames_end(server: &Server) {
    let mut socket = Socket::open(server);
    let connect = Connect::new(V4, &server.name()).bytes();
    // One packet in many frames, and in a frame of several parts.
    socket.send(LAST | BINARY, &connect[..1]);
    socket.send(LAST | BINARY, &[]);
    socket.send(LAST | BINARY, &connect[1..5]);
    socket.send(BINARY, &connect[5..8]);
    socket.send(LAST, &connect[8..]);
    assert_eq!(socket.mqtt(4), CONNACK);
    // Many packets in one frame, the last of them cut.
    let topic = server.name();
    let subscribe = packets::subscribe(V4, 1, &[(&topic, 0)], &Props::new());
    let publish = Publish::new(&topic, 1, 2, "x").bytes(V4);
    let all = [subscribe, packets::PINGREQ.to_vec(), publish, vec![packets::PINGREQ[0]]].concat();
    socket.send(LAST | BINARY, &all);
    socket.send(LAST | BINARY, &packets::PINGREQ[1..]);
    let delivered = Publish::new(&topic, 0, 0, "x").bytes(V4);
    let got = socket.mqtt(5 + 2 + 4 + delivered.len() + 2);
    let has = |part: &[u8]| got.windows(part.len()).any(|bytes| bytes == part);
    assert!(got.starts_with(&[0x90, 3, 0, 1, 0]), "{got:02x?}");
    assert!(has(&[0x40, 2, 0, 2]) && has(&delivered) && has(&[0xd0, 0]), "{got:02x?}");
    // Larger than any buffer of the transport.
    let large = Publish::new(&topic, 1, 3, vec![b'y'; 60_000]).bytes(V4);
    large.chunks(50_000).for_each(|part| socket.send(LAST | BINARY, part));
    let Some((BINARY, first)) = socket.frame_large() else { panic!() };
    assert!(!first.is_empty());
}

impl Socket {
    /// The same as [`Socket::frame`] for a frame of any length.
    fn frame_large(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let head = match self.inbox.get(1).map(|byte| byte & 0x7f) {
                Some(126) if self.inbox.len() >= 4 => {
                    Some((4, usize::from(u16::from_be_bytes([self.inbox[2], self.inbox[3]]))))
                }
                Some(127) if self.inbox.len() >= 10 => {
                    let bytes: [u8; 8] = self.inbox[2..10].try_into().unwrap();
                    Some((10, u64::from_be_bytes(bytes) as usize))
                }
                Some(length @ 0..126) => Some((2, usize::from(length))),
                _ => None,
            };
            if let Some((head, length)) = head.filter(|(head, length)| self.inbox.len() >= head + length) {
                let frame: Vec<u8> = self.inbox.drain(..head + length).collect();
                return Some((frame[0] & 0x0f, frame[head..].to_vec()));
            }
            if !self.fill() {
                return None;
            }
        }
    }
}

fn text_frames_end_the_connection(server: &Server) {
    let mut socket = Socket::open(server);
    socket.send(LAST | BINARY, &Connect::new(V4, &server.name()).bytes());
    assert_eq!(socket.mqtt(4), CONNACK);
    socket.send(LAST | TEXT, &packets::PINGREQ);
    socket.closed();
    let mut socket = Socket::open(server);
    socket.send(LAST | TEXT, &Connect::new(V4, &server.name()).bytes());
    socket.closed();
}

fn the_subprotocol_is_mqtt(server: &Server) {
    for offer in ["mqtt", "chat, mqtt"] {
        let (answer, _socket) = Socket::ask(server, offer);
        assert!(answer.starts_with("http/1.1 101"), "{offer}: {answer}");
        let said = answer.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol:"));
        assert_eq!(said.map(str::trim), Some("mqtt"), "{answer}");
    }
}

fn without_the_subprotocol_nobody_gets_in(server: &Server) {
    for offer in ["", "chat", "mqttv3.1x"] {
        let (answer, _socket) = Socket::ask(server, offer);
        assert!(!answer.starts_with("http/1.1 101"), "{offer}: {answer}");
    }
}

fn pings_of_the_transport_are_answered(server: &Server) {
    let mut socket = Socket::open(server);
    socket.send(LAST | PING, b"are you there");
    assert_eq!(socket.frame(), Some((PONG, b"are you there".to_vec())));
    socket.send(LAST | BINARY, &Connect::new(V4, &server.name()).bytes());
    assert_eq!(socket.mqtt(4), CONNACK);
}

fn what_is_no_upgrade_is_refused(server: &Server) {
    for bytes in [&b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], &Connect::new(V4, "x").bytes()] {
        let mut stream = TcpStream::connect(("127.0.0.1", server.ports.ws)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // Closed or reset: both are a refusal.
        drop(stream.read_to_end(&mut answer));
        assert!(!answer.starts_with(b"HTTP/1.1 101") && !answer.starts_with(&CONNACK), "{answer:?}");
    }
    let mut socket = Socket::open(server);
    socket.send(LAST | BINARY, &Connect::new(V4, &server.name()).bytes());
    assert_eq!(socket.mqtt(4), CONNACK);
}
