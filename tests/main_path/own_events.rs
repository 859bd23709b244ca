//! The gateway's own records: a session with an outage and an eviction, as a platform team reads it in Kafka.

use serde_json::Value;

use crate::harness::jobs;
use crate::harness::readings::Reading;
use crate::harness::rig::Rig;

/// The events of this kind, in order.
fn of<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

/// The place of the last event of `kind` that `fits` says yes to.
fn place(events: &[Value], kind: &str, fits: impl Fn(&Value) -> bool) -> usize {
    let found = events.iter().rposition(|event| event["event"] == kind && fits(event));
    found.unwrap_or_else(|| panic!("no such {kind} among {events:#?}"))
}

fn entries(values: impl IntoIterator<Item = (i64, u64, String)>) -> Vec<(i64, u64, String)> {
    let mut entries: Vec<_> = values.into_iter().collect();
    entries.sort();
    entries
}

fn entry(value: &Value, number: &str) -> (i64, u64, String) {
    let reason = value["reason"].as_str().unwrap().to_owned();
    (value[number].as_i64().unwrap(), value["n"].as_u64().unwrap(), reason)
}

#[test]
fn a_session_with_an_outage_and_an_eviction_is_told_once() {
    let mut rig = Rig::builder()
        .own_kafka()
        .spool("max_bytes = \"4MiB\"")
        .memory("producer = \"1MiB\"")
        .lane("when_full = \"drop-oldest\"")
        .start();
    let warm = rig.load(1_000, (0..50).map(|n| Reading::new(20, n)).collect()).finish();
    rig.wait_accepted(warm.len());
    let up = || (rig.gateway.metric("forebay_kafka_up") == 1.0).then_some(());
    jobs::wait_until("Kafka has answered", up);
    // On a busy machine its first answers come late, and the lane has spooled for a while.
    let direct = || (rig.gateway.metrics()["forebay_lane_spooling{lane=\"telemetry\"}"] == 0.0).then_some(());
    jobs::wait_until("the lane is direct", direct);
    rig.kafka.stop();
    let flood = (0..200).flat_map(|n| (0..10).map(move |device| Reading::padded(device, n, 4_000))).collect();
    let published = rig.load(3_000, flood).finish();
    rig.wait_accepted(published.len() + warm.len());
    rig.kafka.restart();
    // Calm for a while, the lane goes back to direct: the last change of this session.
    jobs::wait_until("the lane is direct again", direct);
    let ledger = rig.gateway.command(&["spool", "losses"]).lines();
    let lost = rig.gateway.metric("forebay_lost_total");
    rig.gateway.stop();
    let records = rig.kafka.consume_all(&rig.topic("events"));
    let events: Vec<Value> = records.iter().map(|record| serde_json::from_slice(&record.payload).unwrap()).collect();
    assert!(records.iter().all(|r| r.key.as_deref() == Some(b"forebay-under-test") && r.forebay_id().is_some()));

    rig.saw("eviction", ledger.len());
    assert!(!ledger.is_empty(), "8 MB do not fit into 4 MiB");
    let told = entries(of(&events, "loss").into_iter().map(|event| entry(event, "entry")));
    assert_eq!(told, entries(ledger.iter().map(|loss| entry(loss, "id"))), "each entry of the ledger once");
    assert_eq!(told.iter().map(|(_, n, _)| n).sum::<u64>() as f64, lost);
    assert_eq!((of(&events, "start").len(), of(&events, "stop").len()), (1, 1), "{events:#?}");
    assert_eq!(events[0]["event"], "start");
    assert_eq!(events[events.len() - 1]["event"], "stop");
    let story = [
        place(&events, "mode", |e| e["lane"] == "telemetry" && e["mode"] == "spooling"),
        place(&events, "kafka", |e| e["up"] == true),
        place(&events, "mode", |e| e["lane"] == "telemetry" && e["mode"] == "direct"),
    ];
    assert!(story.is_sorted(), "{events:#?}");
    let reachable: Vec<bool> = of(&events, "kafka").iter().map(|event| event["up"] == true).collect();
    assert_eq!(reachable, [true, false, true], "each change once");
}
