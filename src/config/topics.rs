//! `[[topic]]` and `[topic_policy]`: what Kafka topics look like and what templates may create. Pure.

use std::collections::BTreeMap;

use super::clusters::Clusters;
use super::fields::{Opt, Pairs};
use super::file::{TopicPolicyTable, TopicTable};
use super::lanes::Lanes;
use super::model::{Collisions, Topic, TopicPolicy};
use super::problem::Place;
use super::reader::At;
use super::resolve::Resolver;
use super::routes::Routes;
use crate::route::kafka_name;

const MAX_TOPICS: i64 = 100;

/// Topic properties that have keys of their own here.
const OWN_KEYS: [(&str, &str); 3] =
    [("min.insync.replicas", "min_insync_replicas"), ("retention.ms", "retention"), ("cleanup.policy", "compact")];

pub struct Topics {
    pub list: Vec<Topic>,
}

/// A Kafka topic's name where no template is possible.
pub fn named(key: &Opt<String>, r: &mut Resolver<'_>) -> Option<String> {
    let at = key.get()?;
    if let Err(error) = kafka_name::check(&at.value) {
        let help = "1 to 249 letters, digits, `.`, `_` or `-`";
        r.found.error(at.place, format!("{:?} cannot be a Kafka topic: {error}", at.value)).help(help);
    }
    Some(at.value.clone())
}

pub fn policy(table: &TopicPolicyTable, r: &mut Resolver<'_>) -> TopicPolicy {
    let patterns = table.allow.value().map_or(&[][..], Vec::as_slice);
    for pattern in patterns {
        if let Err(error) = kafka_name::check_pattern(&pattern.value) {
            let message = format!("failed to {error}");
            r.found.error(pattern.place, message).help("use letters, digits, `.`, `_`, `-` and `*`");
        }
    }
    let max = r.number(&table.max_topics, "max_topics", 1..=100_000, MAX_TOPICS);
    TopicPolicy {
        allow: patterns.iter().map(|pattern| pattern.value.clone()).collect(),
        max_topics: usize::try_from(max).unwrap_or(1),
        collisions: table.collisions.or(Collisions::DeadLetter),
    }
}

pub fn resolve(tables: &[At<TopicTable>], clusters: &Clusters, r: &mut Resolver<'_>) -> Topics {
    let mut list: Vec<Topic> = Vec::new();
    let mut places: Vec<Place> = Vec::new();
    for at in tables {
        r.required(&at.value.name, "name", at.place, "name the Kafka topic");
        let topic = topic(at, clusters, r);
        let place = at.value.name.place().unwrap_or(at.place);
        if let Some(twin) = list.iter().position(|other| other.name == topic.name && other.kafka == topic.kafka) {
            let finding = r.found.error(place, format!("the topic {:?} is defined twice", topic.name));
            finding.note("it is already defined at", places[twin]).help("keep one of them");
        } else if let Some(twin) = list.iter().position(|other| collide(&other.name, &topic.name)) {
            let message = format!("{:?} and {:?} differ by `.` and `_` only", topic.name, list[twin].name);
            let finding = r.found.warning(place, message);
            finding.note("the other is at", places[twin]).help("Kafka's metrics cannot tell them apart");
        }
        list.push(topic);
        places.push(place);
    }
    Topics { list }
}

fn collide(a: &str, b: &str) -> bool {
    a != b && a.replace('.', "_") == b.replace('.', "_")
}

fn topic(at: &At<TopicTable>, clusters: &Clusters, r: &mut Resolver<'_>) -> Topic {
    let table = &at.value;
    let replicas = small(&table.replication_factor, "replication_factor", 32_767, 1, r);
    Topic {
        name: named(&table.name, r).unwrap_or_default(),
        kafka: clusters.of(&table.kafka, at.place, r),
        partitions: small(&table.partitions, "partitions", 100_000, 1, r),
        replication_factor: replicas,
        min_insync_replicas: min_insync(&table.min_insync_replicas, replicas, r),
        retention: table.retention.value().copied(),
        compact: table.compact.or(false),
        properties: properties(&table.properties, r),
    }
}

fn small(key: &Opt<i64>, name: &str, max: i32, default: i32, r: &mut Resolver<'_>) -> i32 {
    i32::try_from(r.number(key, name, 1..=i64::from(max), i64::from(default))).unwrap_or(default)
}

fn min_insync(key: &Opt<i64>, replicas: i32, r: &mut Resolver<'_>) -> Option<i32> {
    let at = key.get()?;
    let least = small(key, "min_insync_replicas", 32_767, 1, r);
    if least > replicas {
        let message = format!("`min_insync_replicas` is more than the {replicas} that `replication_factor` makes");
        r.found.error(at.place, message).help("no record could ever be written: use one less than the replicas");
    } else if least == replicas && replicas > 1 {
        let message = "with all replicas required, one broker's restart stops this topic";
        r.found.warning(at.place, message).help("use one less than `replication_factor`");
    }
    Some(least)
}

fn properties(pairs: &Pairs, r: &mut Resolver<'_>) -> BTreeMap<String, String> {
    for (name, value) in &pairs.0 {
        if let Some((_, key)) = OWN_KEYS.iter().find(|(property, _)| *property == name.value) {
            let message = format!("the property `{}` has a key of its own", name.value);
            r.found.error(name.place, message).help(format!("set `{key}`"));
        }
        if name.value == "unclean.leader.election.enable" && value.value == "true" {
            let message = "an unclean leader may come back without acknowledged records";
            r.found.warning(name.place, message).help("remove it");
        }
    }
    pairs.0.iter().map(|(name, value)| (name.value.clone(), value.value.clone())).collect()
}

/// What routes write to, against what is declared and allowed.
pub fn check_use(routes: &Routes, topics: &Topics, policy: &TopicPolicy, lanes: &Lanes, r: &mut Resolver<'_>) {
    let mut undurable: Vec<&str> = Vec::new();
    let mut first: Option<Place> = None;
    for target in &routes.targets {
        let Some(name) = target.template.constant() else { continue };
        check_allowed(name, target.place, policy, r);
        let cluster = lanes.list[target.lane].kafka;
        let declared = topics.list.iter().find(|topic| topic.name == name && topic.kafka == cluster);
        let durable = declared.and_then(|topic| topic.min_insync_replicas).is_some_and(|least| least >= 2);
        // What a broker forgets is sent again.
        let durable = durable || lanes.list[target.lane].settle.is_some();
        if !durable && !undurable.contains(&name) {
            undurable.push(name);
            first.get_or_insert(target.place);
        }
    }
    if let Some(place) = first {
        let message = format!("acknowledged = in one broker's memory, for {}", undurable.join(", "));
        let help = "declare [[topic]] with replication_factor = 3 and min_insync_replicas = 2, or set [spool] settle";
        r.found.warning(place, message).help(help);
    }
}

fn check_allowed(name: &str, place: Place, policy: &TopicPolicy, r: &mut Resolver<'_>) {
    let allowed =
        policy.allow.is_empty() || policy.allow.iter().any(|pattern| kafka_name::matches_pattern(pattern, name));
    if !allowed {
        let message = format!("the Kafka topic {name:?} is not allowed by [topic_policy]");
        r.found.error(place, message).help(format!("`allow` has {}", policy.allow.join(", ")));
    }
}
