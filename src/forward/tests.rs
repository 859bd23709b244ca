//! The producer's bounds, on a producer that knows no broker: nothing it takes ever leaves.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use super::ProducerNote;
use super::kafka::{Cluster, Code, Outgoing, Place, Reports};
use super::times::Times;
use crate::config::{self, Rank};
use crate::record::{Arrival, Body, RecordView, TimestampKind};
use crate::spool::lane::Sent;
use crate::spool::window::Key;

struct Nobody;

impl Reports for Nobody {
    fn report(&self, _: usize, _: u64, _: usize, _: Result<Place, Code>) {}
    fn note(&self, _: ProducerNote) {}
}

fn body(bytes: usize) -> Body {
    let view = RecordView {
        topic: "readings",
        key: None,
        headers: Vec::new(),
        payload: &vec![7; bytes],
        timestamp_ms: 0,
        timestamp_kind: TimestampKind::Arrival,
        arrival: Arrival { wall_ms: 0, boot_ms: 0 },
        old_id: None,
    };
    view.encode(&mut Vec::new())
}

/// Sends until the producer is full for this rank. How many it took.
fn fill(cluster: &mut Cluster, rank: Rank, body: &Body) -> usize {
    let mut taken = 0;
    loop {
        let key = Key { ordinal: 0, sequence: taken as u64 + 1 };
        match cluster.send(Outgoing { lane: 0, number: 1, rank, key, run: 1, body }, &Times::default(), 0) {
            Sent::Queued => taken += 1,
            Sent::Full => return taken,
            refused @ Sent::Refused(_) => panic!("{refused:?}"),
        }
    }
}

#[test]
fn a_lane_that_has_filled_its_part_of_the_producer_leaves_room_for_those_before_it() {
    let text = "[kafka.main]\nbootstrap_servers = \"127.0.0.1:1\"\n[[source.mqtt]]\nhost = \"localhost\"\n
                [[route]]\nfilter = \"a\"\nkafka_topic = \"readings\"\n";
    let kafka = config::parse_str("gateway.toml", text).unwrap().config.kafka.remove(0);
    let mut cluster = Cluster::new(0, kafka, "gw".into(), 1 << 20, Arc::new(Nobody));
    cluster.renew().unwrap();
    let body = body(5_000);
    let telemetry = fill(&mut cluster, Rank::Lowest, &body);
    let alarms = fill(&mut cluster, Rank::Between, &body);
    let events = fill(&mut cluster, Rank::Highest, &body);
    assert!(telemetry > 150 && alarms >= 4 && events >= 4, "{telemetry} {alarms} {events}");
}
