//! The latency of each numbered step is counted: for every record once, on each way that a record can take.

use std::collections::BTreeMap;

use crate::harness::gateway::metric;
use crate::harness::jobs;
use crate::harness::readings::plant;
use crate::harness::rig::Rig;

fn count(metrics: &BTreeMap<String, f64>, steps: &str) -> f64 {
    let name = format!("forebay_step_seconds_count{{lane=\"telemetry\",steps=\"{steps}\"}}");
    *metrics.get(&name).unwrap_or_else(|| panic!("there is no {name}"))
}

/// Killed with a backlog, so that the next life reads it back; then direct.
#[test]
fn each_step_of_each_record_is_timed() {
    let mut rig = Rig::builder().own_kafka().build();
    rig.kafka.stop();
    rig.gateway.start_alone();
    let first = rig.load(2_000, plant(10, 0, 50)).finish();
    rig.wait_accepted(first.len());
    rig.gateway.kill9();
    rig.gateway.start_alone();
    let second = rig.load(2_000, plant(10, 50, 50)).finish();
    rig.wait_accepted(first.len() + second.len());
    rig.kafka.restart();
    jobs::wait_until("the spool is empty", || (rig.gateway.metric(metric::BACKLOG) == 0.0).then_some(()));
    let direct = || (rig.gateway.metrics()["forebay_lane_spooling{lane=\"telemetry\"}"] == 0.0).then_some(());
    jobs::wait_until("the lane is direct", direct);
    let third = rig.load(1_000, plant(10, 100, 20)).finish();
    rig.wait_accepted(first.len() + second.len() + third.len());
    // Shown four times a second, so a little after it has happened. This life delivers the first ones too.
    let expected = (first.len() + second.len() + third.len()) as f64;
    let shown = |m: &BTreeMap<String, f64>| count(m, "1-8") >= expected && count(m, "9") > 0.0;
    let metrics = jobs::wait_until("all of it is shown", || Some(rig.gateway.metrics()).filter(|m| shown(m)));
    let lane = |name: &str| metrics[&format!("forebay_lane_{name}_total{{lane=\"telemetry\"}}")];
    assert_eq!(count(&metrics, "2-3"), lane("accepted"));
    assert_eq!(count(&metrics, "3-4") + count(&metrics, "3-8"), lane("accepted"), "committed or direct");
    assert!(count(&metrics, "3-8") > 0.0 && count(&metrics, "3-4") >= second.len() as f64);
    assert_eq!((count(&metrics, "1-8"), count(&metrics, "7-8")), (lane("delivered"), lane("delivered")));
    for steps in ["4", "6"] {
        assert!(count(&metrics, steps) > 0.0, "step {steps}");
    }
    let answered = metrics["forebay_source_answer_seconds_count{source=\"plant\"}"];
    assert_eq!(answered, rig.gateway.metric("forebay_source_pubacks_total"));
    rig.close_books(&[first, second, third].concat());
}
