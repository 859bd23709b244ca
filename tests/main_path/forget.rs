//! A broker comes back without what it had acknowledged: the power failed before its system wrote it to disk. With
//! `spool.settle` it gets it again.

use std::collections::HashSet;

use crate::harness::readings::id_of;
use crate::harness::rig::Rig;

/// Longer than any of these stories takes from an acknowledgement to the power cut.
const SETTLE: &str = "settle = \"120s\"";

/// What is in Kafka of the readings.
fn there(rig: &Rig) -> HashSet<String> {
    rig.kafka.consume_all(&rig.topic("readings")).iter().filter_map(|record| id_of(&record.payload)).collect()
}

/// Kafka acknowledges some readings and loses its power, and with it what it had in memory alone. The gateway is told to
/// stand still meanwhile, one way or the other. Returns how many readings it lost.
fn lose_power(rig: &mut Rig, still: impl FnOnce(&mut Rig)) -> usize {
    rig.wait_accepted(300);
    rig.kafka.remember();
    let before = there(rig).len();
    rig.wait_accepted(rig.accepted() + 500);
    let topics = [rig.topic("readings")];
    // The reader sees what is acknowledged by all in-sync replicas, that is by the one broker.
    let mut more = HashSet::new();
    rig.kafka.consume_until(&topics.each_ref().map(String::as_str), |record| {
        more.extend(id_of(&record.payload));
        more.len() > before + 100
    });
    still(rig);
    let acknowledged = there(rig);
    rig.kafka.forget();
    rig.kafka.restart();
    let left = there(rig);
    acknowledged.difference(&left).count()
}

#[test]
fn the_broker_loses_power_and_the_gateway_goes_on() {
    let mut rig = Rig::builder().own_kafka().spool(SETTLE).start();
    rig.expect_any_order();
    let load = rig.endless_load(300);
    let lost = lose_power(&mut rig, |rig| rig.gateway.pause());
    rig.saw("readings that Kafka had acknowledged and lost", lost);
    rig.gateway.resume();
    rig.gateway.wait_for_line("the broker has lost what it had acknowledged");
    rig.close_books(&load.stop());
}

/// Power fails in the whole plant: neither of the two remembers.
#[test]
fn the_broker_and_the_gateway_lose_power() {
    let mut rig = Rig::builder().own_kafka().spool(SETTLE).start();
    rig.expect_any_order();
    let load = rig.endless_load(300);
    let lost = lose_power(&mut rig, |rig| rig.gateway.kill9());
    rig.saw("readings that Kafka had acknowledged and lost", lost);
    rig.gateway.start();
    rig.close_books(&load.stop());
}

/// Others write to the same topic before the gateway does, so that no offset is given out twice to it: the broker misses
/// what came between two batches of its producer.
#[test]
fn others_come_first() {
    let mut rig = Rig::builder().own_kafka().spool(SETTLE).start();
    let load = rig.endless_load(300);
    let lost = lose_power(&mut rig, |rig| rig.gateway.pause());
    assert!(lost > 0, "Kafka has lost nothing");
    rig.kafka.fill(&rig.topic("readings"), 3, 2_000);
    rig.gateway.resume();
    rig.gateway.wait_for_line("the broker has lost what it had acknowledged");
    load.stop();
    rig.wait_all_arrived();
}
