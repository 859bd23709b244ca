//! Ways into Kafka, and what happens when one is closed: nothing is lost, it is said once, and never with the secret.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::gateway::metric;
use crate::harness::jobs;
use crate::harness::kafka::{Consumed, KafkaServer};
use crate::harness::readings::{Reading, plant};
use crate::harness::rig::{Builder, Rig};
use crate::harness::secured::{Door, LIMITED, NEWCOMER, PLANT, Secured, token};

const READINGS: usize = 200;

/// A rig whose gateway comes through `door`, with these lines in its tables for TLS and SASL.
fn through(door: Door, tls: Option<String>, sasl: Option<String>) -> Builder {
    let secured = Secured::shared();
    Rig::builder().kafka(&secured.kafka, secured.bootstrap_servers(door)).before(move |mut gateway, _| {
        for (head, lines) in [("[kafka.main.tls]", tls), ("[kafka.main.sasl]", sasl)] {
            if let Some(lines) = lines {
                gateway = gateway.table(head, &lines);
            }
        }
        // At this level librdkafka's own words are in the log too: none of them may hold a secret.
        gateway.table("[log]", "level = \"debug\"")
    })
}

fn authority() -> Option<String> {
    Some(file_line("ca_file", &Secured::shared().file("ca.pem")))
}

fn file_line(key: &str, path: &Path) -> String {
    format!("{key} = {path:?}\n")
}

fn login(mechanism: &str, (user, password): (&str, &str)) -> Option<String> {
    Some(format!("mechanism = {mechanism:?}\nuser = {user:?}\npassword = {password:?}\n"))
}

/// A file of the test's own that a configuration names.
struct Named {
    path: PathBuf,
    _dir: TempDir,
}

impl Named {
    fn new(text: &[u8]) -> Named {
        let dir = jobs::scratch("named");
        let path = dir.path().join("file");
        fs::write(&path, text).unwrap();
        Named { path, _dir: dir }
    }

    /// In one step, as a renewing program has to.
    fn replace(&self, text: &[u8]) {
        let next = self.path.with_extension("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, &self.path).unwrap();
    }
}

/// Everything arrives, and the password is nowhere in the log.
fn carries(rig: Builder) {
    let rig = rig.start();
    let published = rig.load(2_000, plant(10, 0, READINGS / 10)).finish();
    jobs::wait_until("the spool is empty", || (rig.gateway.metric(metric::BACKLOG) == 0.0).then_some(()));
    assert!(!rig.gateway.log().contains(PLANT.1), "the password is in the log");
    let verdict = rig.close_books(&published);
    assert_eq!((verdict.delivered, verdict.repeats, verdict.dead), (READINGS, 0, 0));
}

#[test]
fn tls_with_an_authority_of_ones_own() {
    carries(through(Door::Tls, authority(), None));
}

#[test]
fn mutual_tls() {
    let file = |key, name| file_line(key, &Secured::shared().file(name));
    let own = file("cert_file", "gateway.pem") + &file("key_file", "gateway.key");
    carries(through(Door::Mutual, authority().map(|lines| lines + &own), None));
}

#[test]
fn a_password_inside_tls() {
    carries(through(Door::Login, authority(), login("PLAIN", PLANT)));
}

#[test]
fn scram_sha_256() {
    carries(through(Door::OpenLogin, None, login("SCRAM-SHA-256", PLANT)));
}

#[test]
fn scram_sha_512_inside_tls() {
    carries(through(Door::Login, authority(), login("SCRAM-SHA-512", PLANT)));
}

/// The broker closes a connection whose token has ended, so what arrives after that came with the new one. It may refuse
/// the new token on the open connection, which costs one reconnect: that is why the log is not asked for silence.
#[test]
fn a_token_renewed_by_replacing_its_file() {
    const LIFETIME: Duration = Duration::from_secs(8);
    let first = token(LIFETIME);
    let file = Named::new(first.as_bytes());
    let sasl = "mechanism = \"OAUTHBEARER\"\n".to_owned() + &file_line("token_file", &file.path);
    let mut rig = through(Door::Token, authority(), Some(sasl)).start();
    let load = rig.endless_load(50);
    rig.wait_accepted(50);
    let second = token(Duration::from_secs(600));
    file.replace(second.as_bytes());
    // Two seconds behind the end of the first token.
    load.wait_for(50 * (LIFETIME.as_secs() as usize + 3));
    rig.saw("a token's lifetime with readings", rig.accepted());
    let log = rig.gateway.log();
    for token in [&first, &second] {
        assert!(!log.contains(token.split('.').nth(1).unwrap()), "a token is in the log");
    }
    rig.close_books(&load.stop());
}

#[test]
fn an_expired_token_is_said_once_and_replaced_while_running() {
    let expired = token(Duration::ZERO);
    let file = Named::new(expired.as_bytes());
    let sasl = "mechanism = \"OAUTHBEARER\"\n".to_owned() + &file_line("token_file", &file.path);
    let mut rig = through(Door::Token, authority(), Some(sasl)).build();
    rig.gateway.start_alone();
    let published = rig.load(2_000, plant(10, 0, READINGS / 10)).finish();
    rig.wait_accepted(published.len());
    rig.gateway.wait_for_line("it has expired");
    rig.saw("kept without a token", rig.accepted());
    file.replace(token(Duration::from_secs(600)).as_bytes());
    rig.gateway.wait_for_line("Kafka answers");
    let log = rig.gateway.log();
    assert_eq!(log.lines().filter(|line| line.contains("WARN") && line.contains("it has expired")).count(), 1, "{log}");
    assert!(!log.contains(expired.split('.').nth(1).unwrap()), "a token is in the log");
    let verdict = rig.close_books(&published);
    assert_eq!((verdict.delivered, verdict.dead), (READINGS, 0));
}

/// The gateway runs and keeps everything, says `cause` once and no secret; killed and started with what `mend` has put
/// right, it delivers all of it.
fn kept_until_mended(rig: Builder, cause: &str, secret: &str, mend: impl FnOnce()) {
    let mut rig = rig.build();
    rig.gateway.start_alone();
    let published = rig.load(2_000, plant(10, 0, READINGS / 10)).finish();
    rig.wait_accepted(published.len());
    rig.gateway.wait_for_line("Kafka does not answer");
    jobs::wait_until("all is spooled", || (rig.gateway.metric(metric::BACKLOG) >= READINGS as f64).then_some(()));
    let log = rig.gateway.log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("Kafka does not answer")).collect();
    assert!(said.len() == 1 && said[0].contains(cause), "{said:#?}");
    assert!(!log.contains(secret), "the secret is in the log");
    rig.saw("kept while the way was closed", rig.accepted());
    rig.gateway.kill9();
    mend();
    rig.gateway.start();
    let verdict = rig.close_books(&published);
    assert_eq!((verdict.delivered, verdict.dead), (READINGS, 0));
}

#[test]
fn a_wrong_password_corrected() {
    const WRONG: &str = "Vv12-wr0ng-s3cret";
    let password = Named::new(WRONG.as_bytes());
    let sasl = format!("mechanism = \"PLAIN\"\nuser = {:?}\n", PLANT.0) + &file_line("password_file", &password.path);
    let rig = through(Door::Login, authority(), Some(sasl));
    kept_until_mended(rig, "Invalid username or password", WRONG, || password.replace(PLANT.1.as_bytes()));
}

#[test]
fn a_wrong_scram_password_corrected() {
    const WRONG: &str = "Ww34-wr0ng-s3cret";
    let password = Named::new(WRONG.as_bytes());
    let sasl = format!("mechanism = \"SCRAM-SHA-512\"\nuser = {:?}\n", PLANT.0);
    let rig = through(Door::OpenLogin, None, Some(sasl + &file_line("password_file", &password.path)));
    kept_until_mended(rig, "invalid credentials", WRONG, || password.replace(PLANT.1.as_bytes()));
}

#[test]
fn an_unknown_authority_made_known() {
    let secured = Secured::shared();
    let authority = Named::new(&fs::read(secured.file("stranger.pem")).unwrap());
    let rig = through(Door::Login, Some(file_line("ca_file", &authority.path)), login("PLAIN", PLANT));
    kept_until_mended(rig, "certificate", PLANT.1, || authority.replace(&fs::read(secured.file("ca.pem")).unwrap()));
}

/// `count` of each of ten devices to the topic that stays open, and of five to the one that does not.
fn both(first: usize, count: usize) -> Vec<Reading> {
    let to_lost = |reading: Reading| {
        let topic = reading.topic.replace("/temp", "/lost");
        reading.on(&topic)
    };
    let numbers = first..first + count;
    let lost = numbers.flat_map(|number| (10..15).map(move |device| Reading::new(device, number)));
    plant(10, first, count).into_iter().chain(lost.map(to_lost)).collect()
}

/// Waits until `count` records are in `topic`.
fn wait_arrived(kafka: &KafkaServer, topic: &str, count: usize) -> Vec<Consumed> {
    let mut arrived = 0;
    let records = kafka.consume_until(&[topic], |_| {
        arrived += 1;
        arrived == count
    });
    assert!(records.len() >= count, "{} of {count} records in {topic}", records.len());
    records
}

#[test]
fn a_right_taken_away_parks_its_topic_alone_and_given_back_lets_the_rest_go_in_order() {
    let secured = Secured::shared();
    let mut rig = through(Door::OpenLogin, None, login("PLAIN", LIMITED)).build();
    rig.create_topic("lost");
    let lost = vec![rig.topic("lost")];
    let others = ["readings", "dead", "events"].map(|name| rig.topic(name)).to_vec();
    secured.allow(LIMITED, &[others, lost.clone()].concat());
    rig.gateway.start();
    let first = rig.load(2_000, both(0, 20)).finish();
    wait_arrived(&rig.kafka, &lost[0], 100);
    secured.forbid(LIMITED, &lost);
    let second = rig.load(2_000, both(20, 20)).finish();
    rig.gateway.wait_for_line("they are parked, the other topics go on");
    wait_arrived(&rig.kafka, &rig.topic("readings"), 400);
    let parked = rig.gateway.metric(metric::BACKLOG);
    rig.saw("parked beside a topic that goes on", parked as usize);
    secured.allow(LIMITED, &lost);
    let verdict = rig.close_books(&[first, second].concat());
    assert_eq!((verdict.delivered, verdict.dead), (600, 0));
}

/// Kafka refuses such a user even the producer id, which librdkafka takes for fatal.
#[test]
fn without_any_right_it_waits_in_peace_until_it_has_them() {
    let secured = Secured::shared();
    let mut rig = through(Door::OpenLogin, None, login("PLAIN", NEWCOMER)).build();
    rig.gateway.start_alone();
    let published = rig.load(2_000, plant(10, 0, READINGS / 10)).finish();
    rig.wait_accepted(published.len());
    rig.saw("kept without any right", rig.accepted());
    rig.gateway.wait_for_line("the producer is dropped");
    secured.allow(NEWCOMER, &["readings", "dead", "events"].map(|name| rig.topic(name)));
    wait_arrived(&rig.kafka, &rig.topic("readings"), READINGS);
    let log = rig.gateway.log();
    assert_eq!(log.matches("the producer is dropped").count(), 1, "it is said once:\n{log}");
    let verdict = rig.close_books(&published);
    assert_eq!((verdict.delivered, verdict.dead), (READINGS, 0));
}

/// A cluster and its lane, for the readings of `plant/<name>/…`.
fn second_cluster(name: &'static str, bootstrap_servers: &str, lines: &str) -> impl FnOnce(Gateways) -> Gateways {
    let table = format!("bootstrap_servers = {bootstrap_servers:?}\n{lines}\n");
    move |(gateway, prefix)| {
        let gateway = gateway.table(&format!("[kafka.{name}]"), &table).lane(name, &format!("kafka = {name:?}")).route(
            &format!("plant/{name}/+"),
            &format!("{prefix}.{name}"),
            name,
        );
        (gateway, prefix)
    }
}

type Gateways = (crate::harness::gateway::Builder, String);

/// The readings of one device that `second_cluster` routes by `name`.
fn aside(name: &str, device: usize, count: usize) -> Vec<Reading> {
    let topic = |device| format!("plant/{name}/d{device}");
    (0..count).map(|number| Reading::new(device, number).on(&topic(device))).collect()
}

#[test]
fn each_compression_is_on_the_wire_and_readable() {
    let clusters = [("plain", "none", 0), ("lz", "lz4", 3), ("zs", "zstd", 4)];
    let kafka = KafkaServer::shared();
    let servers = kafka.bootstrap_servers();
    let rig = Rig::builder().lane("kafka = \"main\"").before(move |gateway, prefix| {
        let start = (gateway.lane("default", "kafka = \"main\""), prefix.to_owned());
        let add = |gateways, (name, compression, _)| {
            second_cluster(name, &servers, &format!("compression = {compression:?}"))(gateways)
        };
        clusters.into_iter().fold(start, add).0
    });
    let mut rig = rig.build();
    clusters.iter().for_each(|(name, ..)| kafka.create_topic(&rig.topic(name), 1, &[]));
    rig.gateway.start();
    let readings = clusters.iter().zip(20..).flat_map(|((name, ..), device)| aside(name, device, 50));
    let published = rig.load(5_000, readings.collect()).finish();
    for (name, compression, code) in clusters {
        let topic = rig.topic(name);
        let records = wait_arrived(&kafka, &topic, 50);
        rig.keep(records);
        assert_eq!(kafka.compression(&topic, 0), Some(code), "{compression}");
    }
    let verdict = rig.close_books(&published);
    assert_eq!((verdict.delivered, verdict.dead), (150, 0));
}

#[test]
fn a_cluster_that_is_down_does_not_hold_up_the_lane_of_another() {
    let other = KafkaServer::shared();
    let servers = other.bootstrap_servers();
    let rig = Rig::builder().own_kafka().lane("kafka = \"main\"").before(move |gateway, prefix| {
        let start = (gateway.lane("default", "kafka = \"main\""), prefix.to_owned());
        second_cluster("side", &servers, "")(start).0
    });
    let mut rig = rig.build();
    other.create_topic(&rig.topic("side"), 1, &[]);
    rig.gateway.start();
    let first = rig.load(2_000, plant(10, 0, 20)).finish();
    wait_arrived(&rig.kafka, &rig.topic("readings"), 200);
    rig.kafka.stop();
    let mixed = plant(10, 20, 20).into_iter().zip(aside("side", 20, 200)).flat_map(|(one, two)| [one, two]);
    let second = rig.load(2_000, mixed.collect()).finish();
    let records = wait_arrived(&other, &rig.topic("side"), 200);
    rig.keep(records);
    rig.wait_accepted(600);
    rig.saw("delivered beside a dead cluster", 200);
    rig.kafka.restart();
    let verdict = rig.close_books(&[first, second].concat());
    assert_eq!((verdict.delivered, verdict.dead), (600, 0));
}
