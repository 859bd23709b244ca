//! What differs between a `[[topic]]` and the topic in Kafka, and what `topics apply` may do about it. Pure.
//!
//! Rules: a missing topic is created; properties are set; partitions are only added, and only when asked for, because
//! keys move to other partitions then; what lets the broker delete records it keeps today needs a word too; the number of
//! replicas is left to Kafka's own tools, which move data between brokers.

use std::collections::BTreeMap;

use crate::config::Topic;
use crate::route::kafka_name::metric_form;

/// A topic as the cluster has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actual {
    pub partitions: i32,
    /// Of the partition that has the fewest.
    pub replication_factor: i32,
    /// Every property with its effective value, whether set for this topic or inherited.
    pub properties: BTreeMap<String, String>,
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    Missing,
    /// Used by the configuration, but neither declared nor there: its records would wait.
    Undeclared,
    Partitions {
        actual: i32,
        wanted: i32,
    },
    Replication {
        actual: i32,
        wanted: i32,
    },
    Property {
        name: String,
        actual: Option<String>,
        wanted: String,
    },
}

/// What the command line allows beyond the harmless.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed {
    pub add_partitions: bool,
    pub deletion: bool,
}

/// What becomes of a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Apply,
    /// Not done, with the reason and the way out.
    Leave(String),
}

/// The properties a `[[topic]]` asks for, by their Kafka names.
pub fn wanted_properties(topic: &Topic) -> BTreeMap<String, String> {
    let mut wanted = topic.properties.clone();
    let policy = match (topic.compact, topic.retention) {
        (false, _) => "delete",
        (true, None) => "compact",
        // Retention alone has no effect on a topic that is only compacted.
        (true, Some(_)) => "compact,delete",
    };
    wanted.insert("cleanup.policy".to_owned(), policy.to_owned());
    if let Some(least) = topic.min_insync_replicas {
        wanted.insert("min.insync.replicas".to_owned(), least.to_string());
    }
    if let Some(retention) = topic.retention {
        wanted.insert("retention.ms".to_owned(), retention.as_millis().to_string());
    }
    wanted
}

/// Everything that differs, in the order in which `apply` goes through it.
pub fn differences(topic: &Topic, actual: Option<&Actual>) -> Vec<Difference> {
    let Some(actual) = actual else {
        return vec![Difference::Missing];
    };
    let mut all = Vec::new();
    if actual.partitions != topic.partitions {
        all.push(Difference::Partitions { actual: actual.partitions, wanted: topic.partitions });
    }
    if actual.replication_factor != topic.replication_factor {
        all.push(Difference::Replication { actual: actual.replication_factor, wanted: topic.replication_factor });
    }
    for (name, wanted) in wanted_properties(topic) {
        let value = actual.properties.get(&name);
        if value != Some(&wanted) {
            all.push(Difference::Property { name, actual: value.cloned(), wanted });
        }
    }
    all
}

impl Difference {
    /// `actual` is the topic it was found on; `None` where there is none yet.
    pub fn verdict(&self, actual: Option<&Actual>, allowed: Allowed) -> Verdict {
        let leave = |reason: &str| Verdict::Leave(reason.to_owned());
        match self {
            Difference::Missing => Verdict::Apply,
            Difference::Undeclared => leave("declare it as [[topic]]: until it exists its records wait in the spool"),
            Difference::Partitions { actual, wanted } if wanted < actual => {
                leave("Kafka cannot take partitions away: raise `partitions`, or make a new topic")
            }
            Difference::Partitions { .. } if !allowed.add_partitions => leave(
                "more partitions move keys, and a key's order is not kept across the change: ask with --add-partitions",
            ),
            Difference::Partitions { .. } => Verdict::Apply,
            Difference::Replication { .. } => {
                leave("replicas are moved between brokers with Kafka's own kafka-reassign-partitions")
            }
            Difference::Property { name, actual: value, wanted } => {
                let replicas = actual.map_or(i32::MAX, |actual| actual.replication_factor);
                property_verdict(name, value.as_deref(), wanted, replicas, allowed)
            }
        }
    }
}

fn property_verdict(name: &str, actual: Option<&str>, wanted: &str, replicas: i32, allowed: Allowed) -> Verdict {
    if name == "min.insync.replicas" && wanted.parse().is_ok_and(|least: i32| least > replicas) {
        return Verdict::Leave(format!("the topic has {replicas} replica(s): no record could be written any more"));
    }
    if may_delete(name, actual, wanted) && !allowed.deletion {
        return Verdict::Leave("the broker may delete records it keeps today: ask with --allow-deletion".to_owned());
    }
    Verdict::Apply
}

/// Could the broker delete records after this change that it would have kept before?
fn may_delete(name: &str, actual: Option<&str>, wanted: &str) -> bool {
    match name {
        "cleanup.policy" => true,
        // -1: without limit. A value that cannot be read is taken for one that keeps everything.
        "retention.ms" | "retention.bytes" => limit(wanted).unwrap_or(0) < actual.and_then(limit).unwrap_or(u64::MAX),
        _ => false,
    }
}

fn limit(value: &str) -> Option<u64> {
    if value == "-1" { Some(u64::MAX) } else { value.parse().ok() }
}

/// An existing topic that differs from `name` only by `.` and `_`: the controller refuses to create the second one.
pub fn twin<'t>(name: &str, existing: impl IntoIterator<Item = &'t String>) -> Option<&'t String> {
    existing.into_iter().find(|other| *other != name && metric_form(other) == metric_form(name))
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::Missing => f.write_str("does not exist"),
            Difference::Undeclared => f.write_str("does not exist and is not declared"),
            Difference::Partitions { actual, wanted } => write!(f, "partitions: is {actual}, wanted {wanted}"),
            Difference::Replication { actual, wanted } => write!(f, "replication factor: is {actual}, wanted {wanted}"),
            Difference::Property { name, actual: Some(actual), wanted } => {
                write!(f, "{name}: is {actual}, wanted {wanted}")
            }
            Difference::Property { name, actual: None, wanted } => write!(f, "{name}: unknown here, wanted {wanted}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn topic() -> Topic {
        Topic {
            name: "EquipmentStatus".to_owned(),
            kafka: 0,
            partitions: 2,
            replication_factor: 3,
            min_insync_replicas: Some(2),
            retention: Some(Duration::from_secs(168 * 3600)),
            compact: false,
            properties: BTreeMap::from([("segment.bytes".to_owned(), "1048576".to_owned())]),
        }
    }

    fn as_wanted() -> Actual {
        let mut properties = wanted_properties(&topic());
        properties.insert("retention.bytes".to_owned(), "-1".to_owned());
        Actual { partitions: 2, replication_factor: 3, properties }
    }

    fn with(name: &str, value: &str) -> Actual {
        let mut actual = as_wanted();
        actual.properties.insert(name.to_owned(), value.to_owned());
        actual
    }

    #[test]
    fn what_is_as_wanted_does_not_differ() {
        assert_eq!(differences(&topic(), Some(&as_wanted())), []);
        assert_eq!(differences(&topic(), None), [Difference::Missing]);
        let wanted = wanted_properties(&topic());
        assert_eq!(wanted["retention.ms"], "604800000");
        assert_eq!(wanted["cleanup.policy"], "delete");
    }

    #[test]
    fn compaction_with_retention_also_deletes() {
        let compacted = Topic { compact: true, ..topic() };
        assert_eq!(wanted_properties(&compacted)["cleanup.policy"], "compact,delete");
        let only = Topic { retention: None, ..compacted };
        assert_eq!(wanted_properties(&only)["cleanup.policy"], "compact");
        assert!(!wanted_properties(&only).contains_key("retention.ms"));
    }

    #[test]
    fn every_difference_has_its_verdict() {
        let all = Allowed { add_partitions: true, deletion: true };
        let none = Allowed::default();
        let fewer = Actual { partitions: 1, ..as_wanted() };
        let more = Actual { partitions: 3, ..as_wanted() };
        let one_replica = Actual { replication_factor: 1, ..with("min.insync.replicas", "1") };
        for (actual, allowed, expected) in [
            (with("segment.bytes", "7"), none, &[("segment.bytes: is 7, wanted 1048576", None)][..]),
            (fewer.clone(), none, &[("partitions: is 1, wanted 2", Some("--add-partitions"))]),
            (fewer, all, &[("partitions: is 1, wanted 2", None)]),
            (more, all, &[("partitions: is 3, wanted 2", Some("cannot take partitions away"))]),
            (with("min.insync.replicas", "1"), none, &[("min.insync.replicas: is 1, wanted 2", None)]),
            (
                one_replica,
                all,
                &[
                    ("replication factor: is 1, wanted 3", Some("kafka-reassign-partitions")),
                    ("min.insync.replicas: is 1, wanted 2", Some("no record could be written")),
                ],
            ),
            (with("retention.ms", "-1"), none, &[("retention.ms: is -1, wanted 604800000", Some("--allow-deletion"))]),
            (with("retention.ms", "-1"), all, &[("retention.ms: is -1, wanted 604800000", None)]),
            (with("retention.ms", "1000"), none, &[("retention.ms: is 1000, wanted 604800000", None)]),
            (
                with("cleanup.policy", "compact"),
                none,
                &[("cleanup.policy: is compact, wanted delete", Some("--allow"))],
            ),
        ] {
            let found = differences(&topic(), Some(&actual));
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (difference, (words, left)) in found.iter().zip(expected) {
                assert_eq!(difference.to_string(), *words);
                match (difference.verdict(Some(&actual), allowed), left) {
                    (Verdict::Apply, None) => {}
                    (Verdict::Leave(reason), Some(part)) => assert!(reason.contains(part), "{reason}"),
                    (verdict, _) => panic!("{words}: {verdict:?}"),
                }
            }
        }
    }

    #[test]
    fn twins_differ_by_dot_and_underscore_only() {
        let existing = ["a.b".to_owned(), "a_c".to_owned()];
        assert_eq!(twin("a_b", &existing), Some(&existing[0]));
        assert_eq!(twin("a.b", &existing), None);
        assert_eq!(twin("a.d", &existing), None);
    }
}
