//! A device that says exactly what the scenario wants, when it wants it, and knows what must be answered.

use std::sync::Arc;

use super::device::Line;
use super::packets::{self, Heard, Hello, Said};
use super::plant::Plant;
use super::witness::{Promise, Witness};
use crate::harness::readings::Reading;

pub struct Script {
    port: u16,
    hello: Hello,
    line: Line,
    witness: Arc<Witness>,
}

/// One PUBLISH of a script.
#[derive(Clone, Copy)]
pub struct Act<'a> {
    pub reading: &'a Reading,
    pub packet_id: u16,
    pub qos: u8,
    pub dup: bool,
    pub message_id: Option<&'a str>,
    pub promise: Promise,
}

impl Act<'_> {
    pub fn qos2(reading: &Reading, packet_id: u16) -> Act<'_> {
        Act { reading, packet_id, qos: 2, dup: false, message_id: None, promise: Promise::Once }
    }

    pub fn again(self) -> Self {
        Act { dup: true, ..self }
    }

    /// For the standard it is another message, though it looks the same: it may be stored beside the first.
    pub fn anew(self) -> Self {
        Act { promise: Promise::AtLeastOnce, ..self }
    }
}

impl Script {
    /// With a kept session.
    pub fn connect(plant: &Plant, level: u8, client_id: &str) -> Script {
        let hello = Hello { level, client_id: client_id.to_owned(), clean: false, will: None };
        Script::connect_as(plant, hello)
    }

    pub fn connect_as(plant: &Plant, hello: Hello) -> Script {
        let line = Line::open(plant.port, &hello);
        Script { port: plant.port, hello, line, witness: Arc::clone(&plant.witness) }
    }

    /// Whether the gateway says that it knows the session.
    pub fn connect_again(&mut self, clean: bool) -> bool {
        self.line = Line::open(self.port, &Hello { clean, ..self.hello.clone() });
        self.line.session_present
    }

    pub fn publish(&mut self, act: Act<'_>) {
        self.witness.offer(act.reading, act.promise);
        let said = Said {
            topic: &act.reading.topic,
            payload: &act.reading.payload,
            qos: act.qos,
            packet_id: act.packet_id,
            dup: act.dup,
            retain: false,
            message_id: act.message_id,
        };
        self.say(&packets::publish(self.hello.level, said));
    }

    /// The same, and its PUBACK or PUBREC.
    pub fn publish_and_hear(&mut self, act: Act<'_>) {
        self.publish(act);
        let answer = if act.qos == 2 { Heard::PubRec(act.packet_id) } else { Heard::PubAck(act.packet_id) };
        assert_eq!(self.hear(), answer);
        self.witness.accept(act.reading);
    }

    pub fn pubrel(&mut self, packet_id: u16) {
        self.say(&packets::pubrel(packet_id));
    }

    pub fn pubrel_and_hear(&mut self, packet_id: u16) {
        self.pubrel(packet_id);
        assert_eq!(self.hear(), Heard::PubComp(packet_id));
    }

    pub fn say(&mut self, bytes: &bytes::Bytes) {
        self.line.send(bytes).unwrap();
    }

    pub fn hear(&mut self) -> Heard {
        self.line.hear().unwrap()
    }
}
