//! More than one session with one broker: one for each lane, or `$share` over two gateways.

use std::collections::HashSet;

use crate::harness::gateway::{Gateway, metric};
use crate::harness::jobs;
use crate::harness::readings::{Reading, id_of, plant};
use crate::harness::rig::Rig;

/// Telemetry is refused, Kafka is away, and alarms pass: they have a session and room of their own.
#[test]
fn refused_telemetry_does_not_hold_up_alarms() {
    let mut rig = Rig::builder()
        .own_kafka()
        .memory("producer = \"256KiB\"")
        .lane("when_full = \"refuse\"\nmax_bytes = \"1MiB\"")
        .filter("plant/+/temp")
        .source("session_per_lane = true\npacket_size_max = \"64KiB\"")
        .before(|gateway, prefix| {
            let gateway = gateway.lane("alarms", "priority = 10");
            gateway.route("plant/+/alarm", &format!("{prefix}.readings"), "alarms")
        })
        .start();
    let both = rig.tap.wait_for("both sessions", |history| history.subacks >= 2).connects;
    assert_eq!(sorted(&both), ["forebay-under-test-alarms", "forebay-under-test-telemetry"]);
    let warm = rig.load_as("warm", 1_000, (50..55).map(|device| Reading::new(device, 0)).collect()).finish();
    let up = || (rig.gateway.metric("forebay_kafka_up") == 1.0).then_some(());
    jobs::wait_until("Kafka has answered", up);
    rig.wait_accepted(warm.len());
    rig.kafka.stop();
    let flood = (0..100).flat_map(|number| (0..10).map(move |device| Reading::padded(device, number, 4_000)));
    let telemetry = rig.load_as("machines", 3_000, flood.collect()).finish();
    let full = || (rig.gateway.metrics()["forebay_lane_full{lane=\"telemetry\"}"] == 1.0).then_some(());
    jobs::wait_until("the lane of the telemetry is full", full);
    let alarms = (0..50).flat_map(|number| (90..94).map(move |device| Reading::alarm(device, number)));
    let alarms = rig.load_as("alarms", 1_000, alarms.collect()).finish();
    let wanted: HashSet<&String> = alarms.iter().collect();
    let history = rig.tap.wait_for("every alarm accepted", |history| {
        let ids = history.accepted.iter().filter_map(|message| id_of(&message.payload));
        ids.filter(|id| wanted.contains(id)).count() >= alarms.len()
    });
    let accepted = history.accepted.len() - alarms.len() - warm.len();
    assert!(accepted < telemetry.len(), "telemetry is refused meanwhile: {accepted} of {}", telemetry.len());
    rig.saw("refused telemetry", telemetry.len() - accepted);
    rig.kafka.restart();
    rig.close_books(&[warm, telemetry, alarms].concat());
}

fn sorted(names: &[String]) -> Vec<&str> {
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// Each reading goes to one of the two, and arrives once. A key's order is not promised, and is not looked at.
#[test]
fn two_gateways_share_a_subscription_and_each_reading_arrives_once() {
    const SHARED: &str = "$share/forebay/plant/#";
    let mut rig = Rig::builder().subscription(SHARED).start();
    let topic = rig.topic("readings");
    let source = format!(
        "name = \"plant\"\nhost = \"127.0.0.1\"\nport = {}\nclient_id = \"forebay-the-other\"\n",
        rig.tap.port()
    );
    let mut other = Gateway::builder()
        .table("[[source.mqtt]]", &source)
        .table("[[source.mqtt.subscriptions]]", &format!("filter = {SHARED:?}\nqos = 1"))
        .kafka(&rig.kafka.bootstrap_servers())
        .table("[events]", &format!("topic = {:?}", rig.topic("events")))
        .route("plant/#", &topic, "default")
        .build();
    other.start();
    rig.tap.wait_for("both subscriptions", |history| history.subacks >= 2);
    let published = rig.load(2_000, plant(20, 0, 150)).finish();
    rig.wait_accepted(published.len());
    let taken = |gateway: &Gateway| gateway.metric("forebay_source_pubacks_total") as usize;
    let shares = (taken(&rig.gateway), taken(&other));
    assert_eq!(shares.0 + shares.1, published.len(), "{shares:?}");
    assert!(shares.0 > 0 && shares.1 > 0, "both have a part: {shares:?}");
    jobs::wait_until("the other is empty", || (other.metric(metric::BACKLOG) == 0.0).then_some(()));
    other.stop();
    rig.expect_any_order();
    let verdict = rig.close_books(&published);
    assert_eq!((verdict.accepted, verdict.delivered, verdict.repeats), (3_000, 3_000, 0));
}
