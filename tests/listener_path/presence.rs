//! Which device is there and which is silent, as Kafka learns it from `forebay.events`; and what of sessions, wills and
//! retained messages outlives a kill -9.

use std::collections::VecDeque;

use serde_json::Value;

use super::device::Line;
use super::packets::{self, Heard, Hello, Said, V5, V311};
use super::plant::Plant;
use super::script::{Act, Script};
use super::witness::Promise;
use crate::harness::jobs;
use crate::harness::readings::Reading;

fn hello(level: u8, client_id: &str) -> Hello {
    Hello { level, client_id: client_id.to_owned(), clean: false, will: None }
}

fn of<'a>(events: &'a [Value], client: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["client"] == client).collect()
}

/// The events of the plant so far, read until `enough` of them are there.
fn events(plant: &Plant, what: &str, enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    jobs::wait_until(what, || {
        let records = plant.kafka.consume_all(&plant.topic("events"));
        let events: Vec<Value> = records.iter().map(|r| serde_json::from_slice(&r.payload).unwrap()).collect();
        enough(&events).then_some(events)
    })
}

#[test]
fn devices_come_go_and_die_and_kafka_knows() {
    let mut plant = Plant::builder().start();
    let mut leaving = Script::connect(&plant, V5, "leaving");
    leaving.say(&packets::disconnect());
    let will = Reading::new(7, 99).on("plant/d7/will");
    plant.witness.offer(&will, Promise::AtLeastOnce);
    let dying = Hello { will: Some((will.topic.clone(), will.payload.clone())), ..hello(V311, "dying") };
    drop(Script::connect_as(&plant, dying));
    let mut staying = Script::connect(&plant, V311, "staying");
    let seen = events(&plant, "the will is told", |events| events.iter().any(|e| e["event"] == "device-will"));

    let leaving = of(&seen, "leaving");
    let kinds = |events: &[&Value]| events.iter().map(|e| e["event"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(kinds(&leaving), ["device-connected", "device-disconnected"]);
    assert_eq!((&leaving[0]["version"], &leaving[0]["sessionPresent"]), (&Value::from("5"), &Value::from(false)));
    assert_eq!((&leaving[0]["source"], &leaving[1]["clean"]), (&Value::from("devices"), &Value::from(true)));
    let dying = of(&seen, "dying");
    let mut died = kinds(&dying);
    died[1..].sort();
    assert_eq!(died, ["device-connected", "device-disconnected", "device-will"]);
    let told = |kind: &str| dying.iter().find(|event| event["event"] == kind).unwrap();
    assert_eq!(told("device-disconnected")["clean"], Value::from(false));
    assert_eq!(told("device-will")["topic"], Value::from(will.topic.as_str()));

    // The next life knows the session of who stayed, and says so when the device comes back.
    plant.gateway.kill9();
    plant.gateway.start();
    assert!(staying.connect_again(false));
    let back = |events: &[Value]| of(events, "staying").iter().any(|event| event["sessionPresent"] == true);
    events(&plant, "the device is back", back);
    let closed = plant.close_books();
    assert_eq!(closed.stored(&will.id), 1, "the will is a reading like any other");
}

#[test]
fn sessions_subscriptions_and_retained_messages_outlive_a_kill() {
    let mut plant = Plant::builder().start();
    let retained = Reading::new(7, 1);
    let mut device = Script::connect(&plant, V311, "press-7");
    plant.witness.offer(&retained, Promise::AtLeastOnce);
    let said = Said {
        topic: &retained.topic,
        payload: &retained.payload,
        qos: 1,
        packet_id: 1,
        dup: false,
        retain: true,
        message_id: None,
    };
    device.say(&packets::publish(V311, said));
    assert_eq!(device.hear(), Heard::PubAck(1));
    plant.witness.accept(&retained);

    let mut panel = Panel::open(&plant, V5, "panel");
    panel.subscribe("plant/d7/#");
    assert_eq!(panel.next(), (retained.payload.clone(), true));
    // A SUBACK means durable, and what was to be written before it is too: the retained message.
    panel.subscribe("plant/d8/#");
    plant.gateway.kill9();
    plant.gateway.start();

    let mut panel = Panel::open(&plant, V5, "panel");
    assert!(panel.line.session_present);
    assert!(device.connect_again(false));
    let news = Reading::new(7, 2);
    let act = Act { reading: &news, packet_id: 1, qos: 1, dup: false, message_id: None, promise: Promise::AtLeastOnce };
    device.publish_and_hear(act);
    assert_eq!(panel.next(), (news.payload.clone(), false), "it is still subscribed");
    let mut other = Panel::open(&plant, V311, "other panel");
    other.subscribe("plant/+/temp");
    assert_eq!(other.next(), (retained.payload.clone(), true), "the message is still retained");
    plant.close_books();
}

/// A subscriber.
struct Panel {
    line: Line,
    level: u8,
    /// Payload, and whether it was retained.
    heard: VecDeque<(Vec<u8>, bool)>,
}

impl Panel {
    fn open(plant: &Plant, level: u8, client_id: &str) -> Panel {
        Panel { line: Line::open(plant.port, &hello(level, client_id)), level, heard: VecDeque::new() }
    }

    /// Messages may come before the SUBACK.
    fn subscribe(&mut self, filter: &str) {
        self.line.send(&packets::subscribe(self.level, filter)).unwrap();
        while self.take() != Heard::SubAck {}
    }

    fn next(&mut self) -> (Vec<u8>, bool) {
        while self.heard.is_empty() {
            self.take();
        }
        self.heard.pop_front().expect("it has heard something")
    }

    fn take(&mut self) -> Heard {
        let heard = self.line.hear().unwrap();
        if let Heard::Publish { payload, packet_id, retain, .. } = &heard {
            self.heard.push_back((payload.to_vec(), *retain));
            self.line.send(&packets::puback(*packet_id)).unwrap();
        }
        heard
    }
}
