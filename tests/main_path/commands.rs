//! What a person asks of a gateway that runs, and of one that is stopped: the same answers, and nothing unaccounted for.

use serde_json::Value;

use crate::harness::gateway::{Gateway, metric};
use crate::harness::jobs;
use crate::harness::kafka::Consumed;
use crate::harness::readings::{Reading, id_of, plant};
use crate::harness::rig::Rig;

const KEEPS: &str = "when = \"always\"\nkeep = \"1h\"";

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// `spool status`: the undelivered of a lane.
fn undelivered(gateway: &Gateway, lane: &str) -> u64 {
    let status = gateway.command(&["spool", "status"]).document();
    let lanes = status["lanes"].as_array().unwrap();
    lanes.iter().find(|l| l["name"] == lane).and_then(|l| l["records"].as_u64()).unwrap()
}

/// The ids of the readings that `spool export` gives, in its order.
fn exported(gateway: &Gateway) -> Vec<String> {
    let records = gateway.command(&["spool", "export", "--lane", "telemetry"]).lines();
    records.iter().map(|record| id_of(text(&record["payload"], "text").as_bytes()).unwrap()).collect()
}

fn wait_empty(gateway: &Gateway) {
    jobs::wait_until("the spool is empty", || (gateway.metric(metric::BACKLOG) == 0.0).then_some(()));
}

/// The spool as the running gateway tells of it, then as the stopped one's file does.
#[test]
fn the_spool_says_the_same_with_the_service_running_and_stopped() {
    let mut rig = Rig::builder().own_kafka().lane("when = \"always\"").start();
    rig.kafka.stop();
    let published = rig.load(2_000, plant(5, 0, 60)).finish();
    rig.wait_accepted(published.len());
    let status = rig.gateway.command(&["status", "--json"]).document();
    assert_eq!((text(&status, "gateway"), &status["spool"]["full"]), ("forebay-under-test", &Value::Bool(false)));
    let (running, ids) = (undelivered(&rig.gateway, "telemetry"), exported(&rig.gateway));
    assert_eq!((running, &ids), (300, &published));
    rig.gateway.stop();
    assert_eq!((undelivered(&rig.gateway, "telemetry"), exported(&rig.gateway)), (running, ids));
    let refused = rig.gateway.command(&["spool", "purge", "nobody", "--yes"]);
    assert_eq!(refused.code, Some(65), "there is no such lane: {refused:?}");
    let unknown = rig.gateway.command(&["spool", "export", "--lane", "no-such-lane"]);
    assert_eq!(unknown.code, Some(65), "{unknown:?}");
    rig.gateway.start_alone();
    rig.kafka.restart();
    assert_eq!(rig.close_books(&published).delivered, 300);
}

/// Given up by a person: what lies behind the producer's part, each in the ledger.
#[test]
fn a_purge_is_in_the_ledger() {
    let rig = Rig::builder()
        .own_kafka()
        .lane("when = \"always\"")
        .source("packet_size_max = \"64KiB\"")
        .memory("producer = \"256KiB\"")
        .start();
    rig.kafka.stop();
    let readings = (0..100).flat_map(|number| (0..10).map(move |device| Reading::padded(device, number, 2_000)));
    let published = rig.load(2_000, readings.collect()).finish();
    rig.wait_accepted(published.len());
    let without = rig.gateway.command(&["spool", "purge", "telemetry"]);
    assert_eq!((without.code, undelivered(&rig.gateway, "telemetry")), (Some(64), 1_000), "{without:?}");
    rig.gateway.command(&["spool", "purge", "telemetry", "--yes"]).text();
    jobs::wait_until("the purge is in the ledger", || {
        let lost: u64 = losses(&rig.gateway).iter().map(|loss| loss["n"].as_u64().unwrap()).sum();
        (lost > 0 && lost + undelivered(&rig.gateway, "telemetry") == 1_000).then_some(())
    });
    assert!(losses(&rig.gateway).iter().all(|loss| loss["reason"] == "purged" && loss["exact"] == true));
    rig.kafka.restart();
    let verdict = rig.close_books_with_losses(&published);
    assert!(verdict.delivered < 1_000, "{verdict:?}");
}

fn losses(gateway: &Gateway) -> Vec<Value> {
    gateway.command(&["spool", "losses"]).lines()
}

/// Three oversize readings: one is requeued once Kafka takes it, one with the service stopped, one is dropped.
#[test]
fn dead_letters_come_back_or_are_given_up() {
    let mut rig = Rig::builder().topic_config("max.message.bytes", "50000").start();
    let published = rig.load(1_000, (0..3).map(|n| Reading::padded(n, n, 80_000)).collect()).finish();
    rig.wait_accepted(published.len());
    let letters = jobs::wait_until("three dead letters", || {
        Some(rig.gateway.command(&["dlq", "list", "--json"]).lines()).filter(|letters| letters.len() == 3)
    });
    assert_eq!(letters[0]["topic"], rig.topic("readings"), "{letters:#?}");
    let dead = jobs::wait_until("their copies", || {
        Some(rig.kafka.consume_all(&rig.topic("dead"))).filter(|copies| copies.len() == 3)
    });
    let numbers: Vec<String> = letters.iter().map(|letter| letter["id"].to_string()).collect();
    rig.kafka.alter_topic(&rig.topic("readings"), "max.message.bytes", "1000000");
    let said = rig.gateway.command(&["dlq", "requeue", &numbers[0]]).text();
    assert_eq!(said, "requeued 1 of 1\n");
    let arrived = arrivals(&rig, 1);
    rig.gateway.stop();
    assert_eq!(rig.gateway.command(&["dlq", "requeue", &numbers[1]]).text(), "requeued 1 of 1\n");
    assert_eq!(rig.gateway.command(&["dlq", "list", "--json"]).lines().len(), 1);
    rig.gateway.start();
    let arrived = [arrived, arrivals(&rig, 2)].concat();
    for record in &arrived {
        assert_eq!(record.header("forebay-requeue"), Some(b"1".as_slice()));
        let copy = dead.iter().find(|copy| copy.payload == record.payload).unwrap();
        assert_eq!(record.forebay_id(), copy.forebay_id(), "it keeps its id");
    }
    assert_eq!(rig.gateway.command(&["dlq", "drop", &numbers[2]]).text(), "dropped 1 of 1\n");
    assert!(rig.gateway.command(&["dlq", "list", "--json"]).lines().is_empty());
    let ledger = losses(&rig.gateway);
    assert_eq!((ledger.len(), text(&ledger[0], "reason")), (1, "purged"), "{ledger:#?}");
    assert_eq!((&ledger[0]["n"], &ledger[0]["first"]), (&Value::from(1), &letters[2]["sequence"]));
    jobs::wait_until("the ledger's entry is counted", || (rig.gateway.metric(metric::LEDGER) == 1.0).then_some(()));
    for args in [["dlq", "show", &numbers[2]], ["dlq", "requeue", &numbers[2]], ["dlq", "drop", &numbers[2]]] {
        assert_eq!(rig.gateway.command(&args).code, Some(65), "it is gone: {args:?}");
    }
    assert_eq!(rig.gateway.command(&["spool", "purge", "nobody", "--yes"]).code, Some(65));
    rig.gateway.stop();
    let events = rig.kafka.consume_all(&rig.topic("events"));
    let told = events.iter().filter(|event| is_loss(&event.payload)).count();
    assert_eq!(told, 1, "the entry that a command made is told like any other");
}

/// More than one slice: memory holds a slice of them, and each arrives once.
#[test]
fn all_dead_letters_are_requeued_slice_by_slice() {
    let mut rig = Rig::builder().topic_config("max.message.bytes", "50000").start();
    let published = rig.load(100, (0..40).map(|n| Reading::padded(n % 4, n, 80_000)).collect()).finish();
    rig.wait_accepted(published.len());
    jobs::wait_until("all are dead letters", || {
        Some(rig.gateway.command(&["dlq", "list", "--json"]).lines()).filter(|letters| letters.len() == 40)
    });
    jobs::wait_until("their copies", || {
        Some(rig.kafka.consume_all(&rig.topic("dead"))).filter(|copies| copies.len() == 40)
    });
    rig.kafka.alter_topic(&rig.topic("readings"), "max.message.bytes", "1000000");
    assert_eq!(rig.gateway.command(&["dlq", "requeue", "--all"]).text(), "requeued 40 of 40\n");
    assert!(rig.gateway.command(&["dlq", "list", "--json"]).lines().is_empty(), "durable when it is said");
    let arrived = arrivals(&rig, 40);
    rig.gateway.stop();
    assert_eq!((arrived.len(), ids(&arrived).len()), (40, 40));
    assert_eq!(rig.kafka.consume_all(&rig.topic("readings")).len(), 40, "each once");
}

/// The lane is gone from the configuration and its records are not: they drain as `default` does, whatever the lane
/// that stands last is like.
#[test]
fn a_lane_removed_from_the_configuration_drains_as_default() {
    let mut rig = Rig::builder()
        .own_kafka()
        .lane("kafka = \"main\"")
        .before(|gateway, _| {
            let gateway = gateway.table("[kafka.other]", "bootstrap_servers = \"127.0.0.1:1\"\n");
            gateway
                .lane("default", "kafka = \"main\"")
                .lane("last", "kafka = \"other\"\npriority = -5\ndelivery = \"at-most-once\"")
        })
        .start();
    rig.kafka.stop();
    let published = rig.load(2_000, plant(5, 0, 60)).finish();
    rig.wait_accepted(published.len());
    rig.gateway.stop();
    let config = std::fs::read_to_string(rig.gateway.config()).unwrap();
    let renamed = config.replace("\"telemetry\"", "\"renamed\"");
    assert_ne!(config, renamed);
    std::fs::write(rig.gateway.config(), renamed).unwrap();
    rig.gateway.start_alone();
    assert_eq!(undelivered(&rig.gateway, "telemetry"), 300);
    rig.saw("records of a removed lane", 300);
    rig.kafka.restart();
    assert_eq!(rig.close_books(&published).delivered, 300);
}

fn is_loss(event: &[u8]) -> bool {
    serde_json::from_slice::<Value>(event).unwrap()["event"] == "loss"
}

/// Waits for `count` records in the topic of the readings.
fn arrivals(rig: &Rig, count: usize) -> Vec<Consumed> {
    let mut arrived = 0;
    rig.kafka.consume_until(&[&rig.topic("readings")], |_| {
        arrived += 1;
        arrived == count
    })
}

/// What was delivered goes once more, with its ids and the job's name; with the service running and stopped.
#[test]
fn a_replay_sends_what_was_kept() {
    let mut rig = Rig::builder().lane(KEEPS).start();
    let published = rig.load(2_000, plant(4, 0, 50)).finish();
    let first = arrivals(&rig, published.len());
    wait_empty(&rig.gateway);
    jobs::wait_until("the history holds all of it", || {
        let said = rig.gateway.command(&["spool", "replay", "telemetry", "--job", "running"]).text();
        (said == "replayed 200 records of lane telemetry as job running\n").then_some(())
    });
    rig.gateway.stop();
    rig.create_topic("again");
    let again = rig.topic("again");
    let stopped = ["spool", "replay", "telemetry", "--job", "stopped", "--topic", &again];
    rig.gateway.command(&stopped).text();
    let second = rig.kafka.consume_all(&again);
    assert_eq!((second.len(), ids(&second)), (200, ids(&first)));
    assert!(second.iter().all(|record| record.header("forebay-replay") == Some(b"stopped".as_slice())));
    let whole = rig.kafka.consume_all(&rig.topic("readings"));
    let marked: Vec<_> = whole.into_iter().filter(|r| r.header("forebay-replay").is_some()).collect();
    assert_eq!(ids(&marked), ids(&first));
    let refused = rig.gateway.command(&["spool", "replay", "default"]);
    assert_eq!(refused.code, Some(65), "that lane keeps nothing: {refused:?}");
}

/// Sorted and without repeats.
fn ids(records: &[Consumed]) -> Vec<String> {
    let mut ids: Vec<String> = records.iter().filter_map(Consumed::forebay_id).collect();
    ids.sort();
    ids.dedup();
    ids
}
