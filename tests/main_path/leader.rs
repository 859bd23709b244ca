//! A Kafka topic whose partition has lost its leader, while the rest of the cluster works.

use std::time::{Duration, Instant};

use crate::harness::jobs;
use crate::harness::readings::{Reading, plant};
use crate::harness::rig::Rig;

/// What the gateway waits before it parks a topic without deliveries.
const STUCK: Duration = Duration::from_secs(30);

/// Ten devices to the topic on the first broker, five to that on the second.
fn both(first: usize) -> Vec<Reading> {
    let lost = (first..first + 100).flat_map(|number| {
        (10..15).map(move |device| Reading::new(device, number).on(&format!("plant/d{device}/lost")))
    });
    plant(10, first, 100).into_iter().chain(lost).collect()
}

fn parked(rig: &Rig) -> usize {
    rig.gateway.metric("forebay_lane_parked_topics") as usize
}

#[test]
fn a_topic_without_leader_is_parked_and_the_others_go_on() {
    let mut rig = Rig::builder().own_kafka().build();
    let second = rig.kafka.join();
    rig.kafka.create_topic_on(2, &rig.topic("lost"));
    rig.gateway.start();
    let before = rig.load(2_000, both(0)).finish();
    rig.wait_accepted(before.len());
    second.kill();
    let killed = Instant::now();
    // The others must go on moving, else nothing tells a lost leader from a slow cluster.
    let live = rig.load_as("live", 20, (1_000..1_100).flat_map(|n| (0..10).map(move |d| Reading::new(d, n))).collect());
    let during = rig.load(2_000, both(100)).finish();
    let patience = STUCK + jobs::PATIENCE;
    let topics = jobs::wait_long("the topic is parked", patience, || Some(parked(&rig)).filter(|topics| *topics > 0));
    let waited = killed.elapsed();
    assert!(waited > STUCK / 2, "parked after {waited:?}: that is no patience");
    rig.saw("parked topic", topics);
    let beside = rig.load_as("beside", 2_000, plant(10, 300, 20)).finish();
    let goes_on = || (rig.gateway.metrics()["forebay_kafka_up{cluster=\"main\"}"] == 1.0).then_some(());
    jobs::wait_until("Kafka answers beside the parked topic", goes_on);
    let readings = rig.topic("readings");
    let mut left = beside.len();
    rig.kafka.consume_until(&[&readings], |record| {
        left -=
            usize::from(beside.iter().any(|id| record.payload.starts_with(format!("{{\"id\":\"{id}\"").as_bytes())));
        left == 0
    });
    assert_eq!(left, 0, "all readings of the other topic arrive while one is parked");
    assert_eq!(parked(&rig), 1);
    second.restart();
    let published = [before, during, live.stop(), beside].concat();
    let verdict = rig.close_books(&published);
    assert_eq!((verdict.delivered, verdict.dead), (published.len(), 0));
}
