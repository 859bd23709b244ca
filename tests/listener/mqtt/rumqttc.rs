//! rumqttc in the scenarios of tests/interop/README.md, in both versions of MQTT.

use crate::harness::jobs::PATIENCE;
use crate::listener::servers::{PACKET_MAX, Server};

const COUNT: usize = 20;
const LARGE: usize = 200 * 1024;

/// A message as both versions have it.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
}

/// A client and the scenarios. The library's two versions have the same shape and no type in common.
macro_rules! peer {
    () => {
        use std::collections::VecDeque;

        use super::{COUNT, LARGE, Message, PATIENCE, Server};

        struct Peer {
            client: Client,
            connection: Connection,
            present: bool,
            inbox: VecDeque<Message>,
        }

        impl Peer {
            fn connect(server: &Server, name: &str, clean: bool, will: Option<LastWill>) -> Peer {
                let mut options = options(server, name, clean);
                if let Some(will) = will {
                    options.set_last_will(will);
                }
                let (client, connection) = Client::new(options, 2 * COUNT);
                let mut peer = Peer { client, connection, present: false, inbox: VecDeque::new() };
                loop {
                    if let Some(Packet::ConnAck(ack)) = peer.step() {
                        peer.present = ack.session_present;
                        return peer;
                    }
                }
            }

            /// One step of the connection: messages go to the inbox.
            fn step(&mut self) -> Option<Packet> {
                let event = self.connection.recv_timeout(PATIENCE).expect("the server says something");
                match event.expect("the connection holds") {
                    Event::Incoming(Packet::Publish(p)) => {
                        let message = Message { payload: p.payload.to_vec(), qos: p.qos as u8, retain: p.retain };
                        self.inbox.push_back(message);
                        None
                    }
                    Event::Incoming(packet) => Some(packet),
                    Event::Outgoing(_) => None,
                }
            }

            fn wait(&mut self, is: impl Fn(&Packet) -> bool) {
                while !self.step().is_some_and(|packet| is(&packet)) {}
            }

            fn subscribe(&mut self, topic: &str, qos: QoS) {
                self.client.subscribe(topic, qos).unwrap();
                self.wait(|packet| matches!(packet, Packet::SubAck(_)));
            }

            /// Waits for the acknowledgement. At QoS 0 the next step sends it.
            fn publish(&mut self, topic: &str, qos: QoS, retain: bool, payload: Vec<u8>) {
                self.client.publish(topic, qos, retain, payload).unwrap();
                match qos {
                    QoS::AtMostOnce => {}
                    QoS::AtLeastOnce => self.wait(|packet| matches!(packet, Packet::PubAck(_))),
                    QoS::ExactlyOnce => self.wait(|packet| matches!(packet, Packet::PubComp(_))),
                }
            }

            fn message(&mut self) -> Message {
                loop {
                    if let Some(message) = self.inbox.pop_front() {
                        return message;
                    }
                    self.step();
                }
            }

            fn texts(&mut self, count: usize) -> Vec<String> {
                (0..count).map(|_| String::from_utf8(self.message().payload).unwrap()).collect()
            }

            /// DISCONNECT, and on until the server has closed.
            fn end(mut self) {
                self.client.disconnect().unwrap();
                while self.connection.recv_timeout(PATIENCE).expect("the server closes").is_ok() {}
            }
        }

        fn numbered(name: &str, count: usize) -> Vec<String> {
            (0..count).map(|n| format!("{name} {n}")).collect()
        }

        pub fn qos(server: &Server) {
            let root = server.name();
            let mut peer = Peer::connect(server, &root, true, None);
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let topic = format!("{root}/{}", qos as u8);
                peer.subscribe(&topic, qos);
                let sent = numbered("reading", COUNT);
                sent.iter().for_each(|payload| peer.publish(&topic, qos, false, payload.clone().into_bytes()));
                for payload in &sent {
                    let expected = Message { payload: payload.clone().into_bytes(), qos: qos as u8, retain: false };
                    assert_eq!(peer.message(), expected);
                }
            }
            peer.end();
        }

        pub fn resume(server: &Server) {
            let (topic, name) = (server.name(), server.name());
            let mut peer = Peer::connect(server, &name, false, None);
            assert!(!peer.present);
            peer.subscribe(&topic, QoS::AtLeastOnce);
            peer.end();
            let sent = numbered("while away", 5);
            let mut other = Peer::connect(server, &server.name(), true, None);
            let at = QoS::AtLeastOnce;
            sent.iter().for_each(|payload| other.publish(&topic, at, false, payload.clone().into_bytes()));
            other.end();
            let mut peer = Peer::connect(server, &name, false, None);
            assert!(peer.present);
            assert_eq!(peer.texts(5), sent);
            peer.end();
            Peer::connect(server, &name, true, None).end();
        }

        pub fn will(server: &Server) {
            let topic = server.name();
            let mut watcher = Peer::connect(server, &server.name(), true, None);
            watcher.subscribe(&topic, QoS::AtLeastOnce);
            // Dropped without a word: the connection is lost, as far as the server can see.
            drop(Peer::connect(server, &server.name(), true, Some(last_will(&topic))));
            assert_eq!(watcher.texts(1), ["gone"]);
            watcher.end();
        }

        pub fn retained(server: &Server) {
            let topic = server.name();
            let mut peer = Peer::connect(server, &server.name(), true, None);
            peer.publish(&topic, QoS::AtLeastOnce, true, b"kept".to_vec());
            let mut reader = Peer::connect(server, &server.name(), true, None);
            reader.subscribe(&topic, QoS::AtLeastOnce);
            assert_eq!(reader.message(), Message { payload: b"kept".to_vec(), qos: 1, retain: true });
            reader.end();
            peer.publish(&topic, QoS::AtLeastOnce, true, Vec::new());
            let mut reader = Peer::connect(server, &server.name(), true, None);
            reader.subscribe(&topic, QoS::AtLeastOnce);
            peer.publish(&topic, QoS::AtLeastOnce, false, b"after".to_vec());
            assert_eq!(reader.message(), Message { payload: b"after".to_vec(), qos: 1, retain: false });
            reader.end();
            peer.end();
        }

        pub fn large(server: &Server) {
            let topic = server.name();
            let mut peer = Peer::connect(server, &server.name(), true, None);
            peer.subscribe(&topic, QoS::AtLeastOnce);
            let sent: Vec<u8> = (0..LARGE).map(|n| (n * 7 % 251) as u8).collect();
            peer.publish(&topic, QoS::AtLeastOnce, false, sent.clone());
            assert!(peer.message().payload == sent);
            peer.end();
        }

        pub fn all(server: &Server) {
            qos(server);
            resume(server);
            will(server);
            retained(server);
            large(server);
        }
    };
}

mod v4 {
    use rumqttc::{Client, Connection, Event, LastWill, MqttOptions, Packet, QoS};

    peer!();

    fn options(server: &Server, name: &str, clean: bool) -> MqttOptions {
        let mut options = MqttOptions::new(name, "127.0.0.1", server.ports.tcp);
        options.set_clean_session(clean).set_max_packet_size(super::PACKET_MAX, super::PACKET_MAX);
        options
    }

    fn last_will(topic: &str) -> LastWill {
        LastWill::new(topic, "gone", QoS::AtLeastOnce, false)
    }
}

mod v5 {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{LastWill, Packet};
    use rumqttc::v5::{Client, Connection, Event, MqttOptions};

    peer!();

    fn options(server: &Server, name: &str, clean: bool) -> MqttOptions {
        let mut options = MqttOptions::new(name, "127.0.0.1", server.ports.tcp);
        options.set_clean_start(clean).set_session_expiry_interval(Some(if clean { 0 } else { 300 }));
        options.set_max_packet_size(Some(super::PACKET_MAX as u32));
        options
    }

    fn last_will(topic: &str) -> LastWill {
        LastWill::new(topic, "gone", QoS::AtLeastOnce, false, None)
    }
}

mod forebay {
    use super::{Server, v4, v5};

    #[test]
    fn rumqttc_v4() {
        v4::all(Server::forebay());
    }

    #[test]
    fn rumqttc_v5() {
        v5::all(Server::forebay());
    }
}

mod mosquitto {
    use super::{Server, v4, v5};

    #[test]
    fn rumqttc_v4() {
        v4::all(Server::mosquitto());
    }

    #[test]
    fn rumqttc_v5() {
        v5::all(Server::mosquitto());
    }
}
