//! Kafka is down, hangs or bounces. The gateway goes on accepting, and everything arrives afterwards, in order.

use crate::harness::rig::Rig;

#[test]
fn down_at_the_start_and_later_there() {
    let mut rig = Rig::builder().own_kafka().build();
    rig.kafka.stop();
    rig.gateway.start_alone();
    let load = rig.endless_load(1_000);
    rig.wait_accepted(1_500);
    rig.saw("accepted without Kafka", rig.accepted());
    rig.kafka.restart();
    rig.close_books(&load.stop());
}

#[test]
fn stopped_under_load() {
    let mut rig = Rig::builder().own_kafka().start();
    let load = rig.endless_load(500);
    rig.wait_accepted(500);
    rig.kafka.stop();
    let before = rig.accepted();
    rig.wait_accepted(before + 1_000);
    rig.saw("accepted without Kafka", rig.accepted() - before);
    rig.kafka.restart();
    rig.close_books(&load.stop());
}

#[test]
fn hung_under_load() {
    let mut rig = Rig::builder().own_kafka().start();
    let load = rig.endless_load(500);
    rig.wait_accepted(500);
    rig.kafka.pause();
    let before = rig.accepted();
    rig.wait_accepted(before + 1_000);
    rig.saw("accepted while Kafka hung", rig.accepted() - before);
    rig.kafka.resume();
    rig.close_books(&load.stop());
}

#[test]
fn killed_three_times() {
    let mut rig = Rig::builder().own_kafka().start();
    let load = rig.endless_load(400);
    for _ in 0..3 {
        rig.wait_accepted(rig.accepted() + 300);
        rig.kafka.kill();
        let before = rig.accepted();
        rig.wait_accepted(before + 300);
        rig.saw("accepted without Kafka", rig.accepted() - before);
        rig.kafka.restart();
    }
    rig.close_books(&load.stop());
}

/// The spool outlives the process that filled it.
#[test]
fn the_gateway_is_killed_while_kafka_is_away() {
    let mut rig = Rig::builder().own_kafka().start();
    let load = rig.endless_load(500);
    rig.wait_accepted(300);
    rig.kafka.stop();
    let before = rig.accepted();
    rig.wait_accepted(before + 300);
    rig.gateway.kill9();
    rig.gateway.start_alone();
    rig.wait_accepted(before + 600);
    rig.saw("accepted without Kafka", rig.accepted() - before);
    rig.kafka.restart();
    rig.close_books(&load.stop());
}
