//! A Kafka topic that is not there: its records wait in order, the other topics go on.

use crate::harness::readings::{Reading, plant};
use crate::harness::rig::Rig;

/// Ten devices to the topic that exists, five to the one that may not.
fn both(first: usize) -> Vec<Reading> {
    let to_lost = |reading: Reading| {
        let topic = reading.topic.replace("/temp", "/lost");
        reading.on(&topic)
    };
    let lost = (0..100).flat_map(|number| (10..15).map(move |device| Reading::new(device, first + number)));
    plant(10, first, 100).into_iter().chain(lost.map(to_lost)).collect()
}

#[test]
fn an_unknown_topic_waits_while_the_other_goes_on() {
    let mut rig = Rig::builder().start();
    let published = rig.load(2_000, both(0)).finish();
    let mut arrived = 0;
    let readings = rig.topic("readings");
    rig.kafka.consume_until(&[&readings], |_| {
        arrived += 1;
        arrived == 1_000
    });
    rig.saw("arrived beside the unknown topic", arrived);
    rig.create_topic("lost");
    let verdict = rig.close_books(&published);
    assert_eq!((verdict.delivered, verdict.dead), (1_500, 0));
}

#[test]
fn a_topic_deleted_while_running_and_made_again_gets_the_rest() {
    let mut rig = Rig::builder().build();
    rig.create_topic("lost");
    rig.gateway.start();
    let first = rig.load(2_000, both(0)).finish();
    let mut arrived = 0;
    let lost = rig.topic("lost");
    rig.kafka.consume_until(&[&lost], |_| {
        arrived += 1;
        arrived == 500
    });
    rig.delete_topic("lost");
    let second = rig.load(2_000, both(100)).finish();
    rig.wait_accepted(first.len() + second.len());
    rig.saw("arrived before the topic was deleted", arrived);
    rig.create_topic("lost");
    let verdict = rig.close_books(&[first, second].concat());
    assert_eq!((verdict.delivered, verdict.dead), (3_000, 0));
}
