//! kill -9 while Kafka is stopped or hangs: PUBACK and PUBREC go on, the spool outlives each life, and when Kafka is back
//! everything is there, in order, QoS 2 and message ids once.

use super::device::Manner;
use super::fleet::Fleet;
use super::kills::{
    BY_PROPERTY, COMMIT_FIRST, DEVICES, DIRECT, PAUSE, kill_some_time, kills_wanted, mixed, plain, seeded,
};
use super::plant::Plant;
use crate::harness::kafka::KafkaServer;

#[derive(Clone, Copy)]
enum Away {
    Stopped,
    Hung,
}

impl Away {
    fn begin(self, kafka: &KafkaServer) {
        match self {
            Away::Stopped => kafka.stop(),
            Away::Hung => kafka.pause(),
        }
    }

    fn end(self, kafka: &KafkaServer) {
        match self {
            Away::Stopped => kafka.restart(),
            Away::Hung => kafka.resume(),
        }
    }
}

/// One life for each point, one after the other, and none of them sees Kafka.
fn killed_at_each_of(points: &[&str], away: Away, lane: &str, manner: fn(usize) -> Manner) {
    let mut plant = Plant::builder().own_kafka().lane(lane).source(BY_PROPERTY).start();
    let fleet = Fleet::start(&plant, 0..DEVICES, PAUSE, manner);
    plant.witness.wait_accepted(4 * DEVICES);
    away.begin(&plant.kafka);
    plant.gateway.kill9();
    for point in points {
        plant.gateway.start_with_fault(&format!("{point}:4"));
        plant.kill_at(point);
    }
    plant.gateway.start_alone();
    let before = plant.witness.accepted();
    plant.witness.wait_accepted(before + 4 * DEVICES);
    plant.saw("accepted without Kafka", plant.witness.accepted() - before);
    away.end(&plant.kafka);
    plant.saw("reconnects", fleet.reconnects(&plant));
    fleet.stop();
    plant.close_books();
}

const POINTS: &[&str] = &[
    "2-delivered",
    "4-before-commit",
    "4-after-commit",
    "5-before-puback",
    "7-produced",
    "q2-before-delivery",
    "q2-before-pubrec",
    "q2-before-delete",
    "q2-before-pubcomp",
];

/// Steps 8 and 9 need Kafka; a lane that was direct becomes spooling in each of these lives.
const DIRECT_POINTS: &[&str] = &["2-delivered", "7-produced", "4-before-commit", "4-after-commit", "5-before-puback"];

#[test]
fn at_each_step_while_kafka_is_stopped_commit_first() {
    killed_at_each_of(POINTS, Away::Stopped, COMMIT_FIRST, mixed);
}

#[test]
fn at_each_step_while_kafka_hangs_commit_first() {
    killed_at_each_of(POINTS, Away::Hung, COMMIT_FIRST, mixed);
}

#[test]
fn at_each_step_while_kafka_is_stopped_direct() {
    killed_at_each_of(DIRECT_POINTS, Away::Stopped, DIRECT, plain);
}

#[test]
fn at_each_step_while_kafka_hangs_direct() {
    killed_at_each_of(DIRECT_POINTS, Away::Hung, DIRECT, plain);
}

/// Kafka goes and comes; in each of its states kills at moments that chance chooses. `FOREBAY_KILLS` rounds (2 if unset).
#[test]
fn at_random_while_kafka_comes_and_goes() {
    let (rounds, mut dice) = (kills_wanted(2), seeded());
    let mut plant = Plant::builder().own_kafka().lane(DIRECT).source(BY_PROPERTY).start();
    let fleet = Fleet::start(&plant, 0..DEVICES, PAUSE, mixed);
    for _ in 0..rounds {
        for away in [Away::Stopped, Away::Hung] {
            away.begin(&plant.kafka);
            kill_some_time(&mut plant, &mut dice);
            plant.gateway.start_alone();
            kill_some_time(&mut plant, &mut dice);
            away.end(&plant.kafka);
            plant.gateway.start_alone();
            kill_some_time(&mut plant, &mut dice);
            plant.gateway.start_alone();
        }
    }
    plant.saw("reconnects", fleet.reconnects(&plant));
    fleet.stop();
    plant.close_books();
}
