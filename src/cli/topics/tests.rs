//! The command's parts, and the whole of it against a real broker.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use super::*;
use crate::config::{Compression, Kafka, KafkaSecurity};

fn report(found: Vec<(Difference, Outcome)>) -> Report {
    Report { cluster: "main".to_owned(), topic: "t".to_owned(), found }
}

#[test]
fn the_exit_code_tells_what_is_left() {
    let with = |outcome| report(vec![(Difference::Missing, outcome)]);
    let failed = Outcome::Failed("no".to_owned());
    assert_eq!(code(&[report(vec![])], &[]), exit::OK);
    assert_eq!(code(&[with(Outcome::Applied)], &[]), exit::OK);
    assert_eq!(code(&[with(Outcome::Applied), with(Outcome::Differs)], &[]), DIFFERS);
    assert_eq!(code(&[with(Outcome::Left("why".to_owned()))], &[]), DIFFERS);
    assert_eq!(code(&[with(failed), with(Outcome::Differs)], &[]), exit::UNAVAILABLE);
    let error = ClusterError::Client { cluster: "main".to_owned(), reason: "no".to_owned() };
    assert_eq!(code(&[], &[Unasked { cluster: "main".to_owned(), error }]), exit::CONFIG);
}

#[test]
fn scripts_get_every_field() {
    let partitions = Difference::Partitions { actual: 1, wanted: 2 };
    let found = vec![(partitions, Outcome::Left("why".to_owned())), (Difference::Missing, Outcome::Applied)];
    assert_eq!(
        report(found).json(),
        json!({ "cluster": "main", "topic": "t", "differences": [
            { "what": "partitions", "actual": 1, "wanted": 2, "result": "left", "reason": "why" },
            { "what": "topic", "actual": null, "wanted": "declared", "result": "applied", "reason": null },
        ]})
    );
}

fn cluster(servers: &str, security: KafkaSecurity) -> Result<Cluster, ClusterError> {
    Cluster::open(&Kafka {
        name: "main".to_owned(),
        bootstrap_servers: servers.to_owned(),
        client_id: "topics-test".to_owned(),
        compression: Compression::None,
        linger: Duration::from_millis(5),
        security,
        properties: BTreeMap::new(),
    })
}

#[test]
fn a_client_that_cannot_be_set_up_says_why() {
    let tls = crate::config::Tls { ca_file: Some("/nonexistent/ca.pem".into()), ..Default::default() };
    let error = cluster("127.0.0.1:1", KafkaSecurity { tls: Some(tls), sasl: None }).err().unwrap();
    assert_eq!(error.exit_code(), exit::CONFIG);
    assert!(error.to_string().starts_with("set up a client for [kafka.main]: "), "{error}");
}

/// What `apply` or, without `allowed`, `diff` finds for one topic.
fn found(cluster: &Cluster, topic: &Topic, allowed: Option<Allowed>) -> Vec<(Difference, Outcome)> {
    ask(cluster, &[topic], &[], allowed).unwrap().remove(0).found
}

fn outcomes(found: &[(Difference, Outcome)]) -> Vec<(String, &'static str)> {
    found.iter().map(|(difference, outcome)| (difference.to_string(), outcome.fields().0)).collect()
}

/// The broker may create topics by itself: asking must not make it do so.
#[test]
#[ignore = "needs a broker that may be written to: FOREBAY_TEST_KAFKA=host:port"]
fn a_topic_is_created_changed_and_then_left_alone() {
    let servers = std::env::var("FOREBAY_TEST_KAFKA").unwrap();
    let cluster = cluster(&servers, KafkaSecurity::default()).unwrap();
    let plain = Some(Allowed::default());
    let mut topic = Topic {
        name: format!("forebay.test_{}", std::process::id()),
        kafka: 0,
        partitions: 2,
        replication_factor: 1,
        min_insync_replicas: Some(1),
        retention: Some(Duration::from_secs(168 * 3600)),
        compact: false,
        properties: BTreeMap::from([("segment.bytes".to_owned(), "2097152".to_owned())]),
    };
    let missing = "does not exist".to_owned();
    for _ in 0..2 {
        assert_eq!(outcomes(&found(&cluster, &topic, None)), [(missing.clone(), "differs")]);
    }
    assert_eq!(outcomes(&found(&cluster, &topic, plain)), [(missing.clone(), "applied")]);
    assert_eq!(found(&cluster, &topic, None), []);
    assert_eq!(found(&cluster, &topic, plain), []);

    // A property that the configuration no longer names stays as it was set.
    topic.properties = BTreeMap::from([("max.message.bytes".to_owned(), "65536".to_owned())]);
    assert_eq!(found(&cluster, &topic, plain).len(), 1);
    topic.properties.insert("segment.bytes".to_owned(), "2097152".to_owned());
    assert_eq!(found(&cluster, &topic, None), []);

    topic.partitions = 3;
    topic.retention = Some(Duration::from_secs(3600));
    topic.replication_factor = 2;
    let [partitions, replicas, retention] = [
        "partitions: is 2, wanted 3",
        "replication factor: is 1, wanted 2",
        "retention.ms: is 604800000, wanted 3600000",
    ]
    .map(str::to_owned);
    let left = [(partitions.clone(), "left"), (replicas.clone(), "left"), (retention.clone(), "left")];
    assert_eq!(outcomes(&found(&cluster, &topic, plain)), left);
    let all = Some(Allowed { add_partitions: true, deletion: true });
    let changed = [(partitions, "applied"), (replicas.clone(), "left"), (retention, "applied")];
    assert_eq!(outcomes(&found(&cluster, &topic, all)), changed);
    assert_eq!(outcomes(&found(&cluster, &topic, None)), [(replicas, "differs")]);

    let twin = Topic { name: topic.name.replace('_', "."), replication_factor: 1, ..topic.clone() };
    let refused = found(&cluster, &twin, plain);
    assert!(
        matches!(&refused[..], [(Difference::Missing, Outcome::Left(why))] if why.contains(&topic.name)),
        "{refused:?}"
    );

    let too_many = Topic { name: "forebay.test-replicas".to_owned(), replication_factor: 5, ..topic };
    let refused = found(&cluster, &too_many, plain);
    assert!(matches!(&refused[..], [(_, Outcome::Failed(why))] if why.contains("create topic")), "{refused:?}");

    let used = ["nowhere".to_owned()];
    let reports = ask(&cluster, &[], &used, plain).unwrap();
    assert_eq!(outcomes(&reports[0].found), [("does not exist and is not declared".to_owned(), "left")]);
}
