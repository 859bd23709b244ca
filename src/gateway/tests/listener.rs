//! What a listener asks of the hub: readings with changes, message ids, changes that stand alone, through restarts.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::Gateway;
use super::super::inbox::Ask;
use crate::config;
use crate::intake::{
    Ack, AckQueue, AckTicket, Change, Deliver, Delivery, Extra, Fact, Fate, Kind, MessageId, SourceEvent,
};
use crate::record::{Arrival, Body, RecordView, TimestampKind};
use crate::spool::queries::Which;
use crate::spool::store::Store;

const PATIENCE: Duration = Duration::from_secs(60);

fn config(dir: &Path) -> config::Config {
    let text = format!(
        r#"
[gateway]
name = "gw"
state_dir = "{0}"
runtime_dir = "{0}"
[events]
enabled = false
[http]
listen = "off"
[kafka.main]
bootstrap_servers = "127.0.0.1:9"
[[lane]]
name = "bulk"
priority = -1
delivery = "at-most-once"
[[source.mqtt]]
host = "127.0.0.1"
[[route]]
filter = "x/{{rest...}}"
kafka_topic = "telemetry"
"#,
        dir.display()
    );
    config::parse_str("gateway.toml", &text).unwrap_or_else(|problems| panic!("{problems}")).config
}

/// A gateway whose sources are the test.
struct Rig {
    gateway: Gateway,
    acks: Arc<AckQueue>,
    asked: u64,
    fired: Vec<u64>,
}

impl Rig {
    fn start(dir: &Path) -> Self {
        Rig::start_with(config(dir))
    }

    fn start_with(config: config::Config) -> Self {
        Rig { gateway: Gateway::start(config).unwrap(), acks: Arc::default(), asked: 0, fired: Vec::new() }
    }

    fn ticket(&mut self) -> AckTicket {
        self.asked += 1;
        AckTicket { queue: Arc::clone(&self.acks), ack: Ack { generation: 0, number: self.asked - 1 } }
    }

    fn delivery(&mut self, lane: &str, payload: &str, change: Option<Change>, id: Option<MessageId>) -> Delivery {
        let lane = self.gateway.config.lanes.iter().position(|l| l.name == lane).unwrap();
        let (body, ack) = (body(payload), Some(self.ticket()));
        let extra = Some(Box::new(Extra { change, message_id: id }));
        Delivery { lane, body, fate: Fate::Forward, ack, extra }
    }

    fn deliver(&self, deliveries: Vec<Delivery>) {
        let mut deliveries = deliveries;
        self.gateway.inbox.deliver(&mut deliveries);
    }

    fn keep(&mut self, changes: Vec<Change>) {
        let ticket = self.ticket();
        self.gateway.inbox.keep(changes, ticket);
    }

    /// Waits until all that was asked has been answered, each once. In the order of the answers.
    fn all_answered(&mut self) -> &[u64] {
        self.answered(self.asked as usize)
    }

    fn answered(&mut self, count: usize) -> &[u64] {
        let deadline = Instant::now() + PATIENCE;
        while self.fired.len() < count {
            assert!(Instant::now() < deadline, "of {} only {:?} have been answered", self.asked, self.fired);
            std::thread::sleep(Duration::from_millis(2));
            let mut fired = Vec::new();
            self.acks.take(&mut fired);
            self.fired.extend(fired.iter().map(|ack| ack.number));
        }
        assert_eq!(self.fired.len(), count, "{:?}", self.fired);
        &self.fired
    }

    fn stop(self) -> super::super::Shown {
        assert!(self.gateway.inbox.ask(Ask::Stop { deadline_us: 0 }).is_ok());
        self.gateway.hub.join().unwrap();
        Arc::into_inner(self.gateway.shown).expect("the hub is gone")
    }
}

fn body(payload: &str) -> Body {
    let view = RecordView {
        topic: "telemetry",
        key: Some(b"k"),
        headers: Vec::new(),
        payload: payload.as_bytes(),
        timestamp_ms: 0,
        timestamp_kind: TimestampKind::Arrival,
        arrival: Arrival { wall_ms: 1_790_000_000_000, boot_ms: 1 },
        old_id: None,
    };
    view.encode(&mut Vec::new())
}

fn put(key: &str) -> Change {
    Change::Put { kind: Kind::Qos2, key: key.into(), value: vec![7; 16] }
}

fn delete(key: &str) -> Change {
    Change::Delete { kind: Kind::Qos2, key: key.into() }
}

fn id(id: u128, payload: u64) -> MessageId {
    MessageId { id, payload }
}

/// The payloads in the spool, and the keys that are kept there.
fn found(dir: &Path) -> (Vec<String>, Vec<String>) {
    let store = Store::open(&dir.join("spool.db"), 1 << 30, 1 << 20).unwrap();
    let mut payloads = Vec::new();
    for (lane, _) in store.lanes().unwrap() {
        let (records, _) = store.export_page(lane, 0, 1_000, Which::Undelivered).unwrap();
        let payload = |body: &Body| String::from_utf8(body.view().unwrap().payload.to_vec()).unwrap();
        payloads.extend(records.iter().map(|r| payload(&r.body)));
    }
    (payloads, keys(&store.facts().unwrap()))
}

fn keys(facts: &[Fact]) -> Vec<String> {
    facts.iter().map(|fact| String::from_utf8(fact.key.clone()).unwrap()).collect()
}

#[test]
fn a_reading_and_its_change_are_durable_when_it_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(dir.path());
    assert_eq!(rig.gateway.kept(), []);
    let batch = (0..3).map(|i| rig.delivery("default", &i.to_string(), Some(put(&i.to_string())), None)).collect();
    rig.deliver(batch);
    assert_eq!(rig.all_answered(), [0, 1, 2]);
    let shown = rig.stop().get();
    assert_eq!(shown.spool.kept, [3, 0, 0]);
    let strings = |list: [&str; 3]| list.map(str::to_owned).to_vec();
    assert_eq!(found(dir.path()), (strings(["0", "1", "2"]), strings(["0", "1", "2"])));
    // The next run finds them, and what it deletes stays deleted.
    let mut rig = Rig::start(dir.path());
    assert_eq!(keys(rig.gateway.kept()), ["0", "1", "2"]);
    rig.keep(vec![delete("1"), Change::Put { kind: Kind::Session, key: b"s".to_vec(), value: vec![1] }]);
    rig.keep(vec![Change::DeletePrefix { kind: Kind::Qos2, prefix: b"2".to_vec() }]);
    assert_eq!(rig.all_answered(), [0, 1]);
    assert_eq!(rig.stop().get().spool.kept, [1, 1, 0]);
    assert_eq!(found(dir.path()).1, ["0", "s"]);
}

#[test]
fn changes_hold_in_the_order_in_which_the_hub_took_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(dir.path());
    // Most of these meet in one commit; within it the last one counts, whether it came along with a reading or alone.
    for i in 0..50 {
        let (a, b) = (format!("a{i}"), format!("b{i}"));
        let first = rig.delivery("default", &a, Some(put(&a)), None);
        rig.deliver(vec![first]);
        rig.keep(vec![delete(&a)]);
        rig.keep(vec![delete(&b)]);
        let second = rig.delivery("default", &b, Some(put(&b)), None);
        rig.deliver(vec![second]);
        rig.keep(vec![delete(&format!("b{}", i - i % 10))]);
    }
    rig.all_answered();
    rig.stop();
    let (payloads, kept) = found(dir.path());
    assert_eq!(payloads.len(), 100);
    let mut wanted: Vec<String> = (0..50).filter(|i| i % 10 != 0).map(|i| format!("b{i}")).collect();
    wanted.sort();
    assert_eq!(kept, wanted);
}

#[test]
fn a_message_with_an_id_is_stored_once_through_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(dir.path());
    // Again while the first is on its way, and again when it is stored.
    let batch = ["a", "a", "b"].map(|p| rig.delivery("default", p, None, Some(id(if p == "a" { 1 } else { 2 }, 5))));
    rig.deliver(batch.into());
    rig.all_answered();
    let again = rig.delivery("default", "a", None, Some(id(1, 5)));
    rig.deliver(vec![again]);
    rig.all_answered();
    let ids = rig.stop().get().spool.message_ids;
    assert_eq!((ids.known, ids.duplicates, ids.reused), (2, 2, 0));
    assert_eq!(found(dir.path()).0, ["a", "b"]);
    let mut rig = Rig::start(dir.path());
    let batch = [("a", 1, 5), ("other", 1, 6), ("b", 2, 5), ("c", 3, 5)]
        .map(|(payload, n, hash)| rig.delivery("default", payload, None, Some(id(n, hash))));
    rig.deliver(batch.into());
    rig.all_answered();
    let ids = rig.stop().get().spool.message_ids;
    assert_eq!((ids.duplicates, ids.reused), (2, 1));
    assert_eq!(found(dir.path()).0, ["a", "b", "other", "c"]);
}

#[test]
fn what_comes_along_with_a_message_that_is_known_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(dir.path());
    let batch = ["p1", "p2"].map(|key| rig.delivery("default", "a", Some(put(key)), Some(id(1, 5))));
    rig.deliver(batch.into());
    rig.all_answered();
    let again = rig.delivery("default", "a", Some(put("p3")), Some(id(1, 5)));
    rig.deliver(vec![again]);
    assert_eq!(rig.all_answered(), [0, 1, 2]);
    rig.stop();
    assert_eq!(found(dir.path()), (vec!["a".to_owned()], ["p1", "p2", "p3"].map(str::to_owned).to_vec()));
}

#[test]
fn an_at_most_once_lane_stores_no_reading_but_what_comes_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(dir.path());
    let batch =
        [("p1", 1), ("p2", 1), ("p3", 2)].map(|(key, n)| rig.delivery("bulk", "x", Some(put(key)), Some(id(n, 5))));
    rig.deliver(batch.into());
    let plain = rig.delivery("bulk", "y", None, None);
    rig.deliver(vec![plain]);
    rig.all_answered();
    let shown = rig.stop().get();
    assert_eq!((shown.spool.message_ids.duplicates, shown.spool.kept), (1, [3, 0, 0]));
    let bulk = shown.lanes.iter().find(|lane| lane.name == "bulk").unwrap();
    assert_eq!(bulk.stats.accepted, 3);
    assert_eq!(found(dir.path()), (Vec::new(), ["p1", "p2", "p3"].map(str::to_owned).to_vec()));
}

#[test]
fn a_reading_for_the_dead_letters_brings_its_change_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut rig = Rig::start(dir.path());
    let mut delivery = rig.delivery("default", "a", Some(put("p1")), None);
    delivery.fate = Fate::DeadLetter("no route".into());
    rig.deliver(vec![delivery]);
    rig.all_answered();
    rig.stop();
    assert_eq!(found(dir.path()), (Vec::new(), vec!["p1".to_owned()]));
    let store = Store::open(&dir.path().join("spool.db"), 1 << 30, 1 << 20).unwrap();
    assert_eq!(store.dead_count().unwrap(), 1);
}

/// A full disk, and a spool that has reached its bound.
#[test]
fn without_room_what_only_deletes_goes_and_the_rest_waits() {
    let disk_is_full = |c: &mut config::Config| c.spool.reserve_bytes = u64::MAX / 2;
    let spool_is_full = |c: &mut config::Config| c.spool.max_bytes = 0;
    for fill in [disk_is_full as fn(&mut config::Config), spool_is_full] {
        let dir = tempfile::tempdir().unwrap();
        let mut rig = Rig::start(dir.path());
        rig.keep(vec![put("p1"), put("p2"), put("p3")]);
        rig.all_answered();
        rig.stop();
        let mut full = config(dir.path());
        fill(&mut full);
        let mut rig = Rig::start_with(full);
        // Larger than what a file of this size has free.
        rig.keep(vec![Change::Put { kind: Kind::Qos2, key: b"p4".to_vec(), value: vec![1; 100_000] }]);
        rig.keep(vec![delete("p1")]);
        assert_eq!(rig.answered(1), [1]);
        rig.keep(vec![delete("p2")]);
        assert_eq!(rig.answered(2), [1, 2]);
        rig.stop();
        assert_eq!(found(dir.path()).1, ["p3"]);
    }
}

#[test]
fn ten_thousand_devices_that_come_back_at_once_are_told_or_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.events.enabled = true;
    let rig = Rig::start_with(config);
    const ALL: u64 = 10_000;
    let mut refused = 0;
    for n in 0..ALL {
        let event = SourceEvent::DeviceConnected {
            client: format!("device-{n}"),
            user: None,
            address: None,
            version: "5",
            session_present: true,
        };
        refused += u64::from(rig.gateway.inbox.ask(Ask::Source { name: "listener".into(), event }).is_err());
    }
    let shown = rig.stop().get();
    let events = shown.lanes.iter().find(|lane| lane.name == "events").unwrap();
    // Besides there are the start, the stop, and that Kafka does not answer.
    let told = events.stats.accepted + events.stats.dropped;
    assert!((ALL + 1..ALL + 10).contains(&told), "{told} told or counted");
    assert!(shown.events_refused >= refused && events.stats.open_bytes < 1 << 20, "{:?}", events.stats);
}

#[test]
fn who_sends_a_message_again_is_not_told_before_the_first_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let mut full = config(dir.path());
    full.spool.reserve_bytes = u64::MAX / 2;
    let mut rig = Rig::start_with(full);
    let payload = "a".repeat(100_000);
    let batch = [0, 1, 2].map(|_| rig.delivery("default", &payload, None, Some(id(1, 5))));
    rig.deliver(batch.into());
    // A deletion behind them shows that the hub has taken them in, and that nothing has been stored.
    rig.keep(vec![delete("p")]);
    assert_eq!(rig.answered(1), [3]);
    rig.stop();
    let mut rig = Rig::start(dir.path());
    let again = rig.delivery("default", "a", None, Some(id(1, 5)));
    rig.deliver(vec![again]);
    rig.all_answered();
    assert_eq!(rig.stop().get().spool.message_ids.duplicates, 0);
    assert_eq!(found(dir.path()).0, ["a"]);
}
