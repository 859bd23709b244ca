//! The registry of Kafka names in use: which source name took each one first.
//!
//! Owns the bound on the number of topics and the answer to "do two source names fall onto one Kafka name?". A source
//! name is the text a template rendered, before it was made legal, with marks around its variable parts. Two source
//! names on one Kafka name are never silent: the second one is refused, or merged because the configuration says so, and
//! counted either way. Entries are never removed: a name that was free again could change its owner unseen.

use std::collections::HashMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::kafka_name::{self, NameError};
use super::render::MARK;
use super::spec::Collisions;
use crate::config::TopicPolicy;

/// Two names in use that differ only by `.` and `_`: Kafka's metrics mix them up, and its controller refuses to create
/// the second one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Twins {
    pub first: String,
    pub second: String,
}

#[derive(Debug)]
pub(super) struct Names {
    allow: Vec<String>,
    max: usize,
    collisions: Collisions,
    /// Written once per new name, read once per reading.
    known: RwLock<Known>,
    collided: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    /// By Kafka name.
    owners: HashMap<String, Owner>,
    /// Kafka name by the form it has in metrics.
    metric_forms: HashMap<String, String>,
    /// At most one for each name.
    twins: Vec<Twins>,
}

/// Who took a Kafka name first.
#[derive(Debug)]
struct Owner {
    route: usize,
    source_name: String,
}

impl Names {
    pub fn new(policy: &TopicPolicy) -> Self {
        Names {
            allow: policy.allow.clone(),
            max: policy.max_topics,
            collisions: policy.collisions,
            known: RwLock::default(),
            collided: AtomicU64::new(0),
        }
    }

    /// May this route use `name`, the legal form of `source_name`, for a record? Registers it when it is new.
    ///
    /// # Errors
    /// [`NameError`] when the name is illegal, not allowed, one too many, or taken by another source name.
    pub fn claim(&self, route: usize, source_name: &str, name: &str) -> Result<(), NameError> {
        let known = self.known.read().expect("no holder of this lock panics");
        let settled = known.owners.get(name).map(|owner| self.settle(owner, route, source_name, name));
        drop(known);
        settled.unwrap_or_else(|| self.register(route, source_name, name))
    }

    fn settle(&self, owner: &Owner, route: usize, source_name: &str, name: &str) -> Result<(), NameError> {
        if owner.is(route, source_name) {
            return Ok(());
        }
        self.collided.fetch_add(1, Ordering::Relaxed);
        match self.collisions {
            Collisions::Merge => Ok(()),
            Collisions::DeadLetter => Err(NameError::Collision {
                name: name.to_owned(),
                first: unmarked(&owner.source_name).collect(),
                this: unmarked(source_name).collect(),
            }),
        }
    }

    fn register(&self, route: usize, source_name: &str, name: &str) -> Result<(), NameError> {
        kafka_name::check(name)?;
        if !self.allow.is_empty() && !self.allow.iter().any(|pattern| kafka_name::matches_pattern(pattern, name)) {
            return Err(NameError::NotAllowed(name.to_owned()));
        }
        let mut known = self.known.write().expect("no holder of this lock panics");
        // Another source may have registered it between the two locks.
        if let Some(owner) = known.owners.get(name) {
            return self.settle(owner, route, source_name, name);
        }
        if known.owners.len() >= self.max {
            return Err(NameError::TooMany { name: name.to_owned(), max: self.max });
        }
        known.insert(name, Owner { route, source_name: source_name.to_owned() });
        Ok(())
    }

    /// Readings so far whose Kafka name was taken by another source name.
    pub fn collided(&self) -> u64 {
        self.collided.load(Ordering::Relaxed)
    }

    pub fn twins(&self) -> Vec<Twins> {
        self.known.read().expect("no holder of this lock panics").twins.clone()
    }

    pub fn count(&self) -> usize {
        self.known.read().expect("no holder of this lock panics").owners.len()
    }
}

impl Known {
    fn insert(&mut self, name: &str, owner: Owner) {
        let form = kafka_name::metric_form(name);
        if let Some(first) = self.metric_forms.get(&form) {
            self.twins.push(Twins { first: first.clone(), second: name.to_owned() });
        } else {
            self.metric_forms.insert(form, name.to_owned());
        }
        self.owners.insert(name.to_owned(), owner);
    }
}

impl Owner {
    /// Within one route the marks count: `x.y` + `z` is another source than `x` + `y.z`. Between routes the whole text
    /// does: two routes that spell the same name mean the same topic.
    fn is(&self, route: usize, source_name: &str) -> bool {
        self.source_name == source_name
            || (self.route != route && unmarked(&self.source_name).eq(unmarked(source_name)))
    }
}

fn unmarked(source_name: &str) -> impl Iterator<Item = char> {
    source_name.chars().filter(|&c| c != MARK)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn names(allow: &[&str], max_topics: usize) -> Names {
        let allow = allow.iter().map(|&pattern| pattern.to_owned()).collect();
        Names::new(&TopicPolicy { allow, max_topics, collisions: Collisions::DeadLetter })
    }

    #[test]
    fn the_first_source_keeps_the_name_and_the_second_is_told_why() {
        let names = names(&[], 10);
        for _ in 0..2 {
            names.claim(0, "edge.\0a b\0", "edge.a_b").unwrap();
        }
        let error = names.claim(0, "edge.\0a_b\0", "edge.a_b").unwrap_err();
        assert_eq!(error.to_string(), "\"edge.a_b\" becomes \"edge.a_b\", which \"edge.a b\" already uses");
        assert_eq!((names.collided(), names.count()), (1, 1));
    }

    #[test]
    fn marks_count_within_a_route_and_not_between_routes() {
        let names = names(&[], 10);
        names.claim(0, "\0x.y\0.\0z\0", "x.y.z").unwrap();
        assert!(matches!(names.claim(0, "\0x\0.\0y.z\0", "x.y.z"), Err(NameError::Collision { .. })));
        names.claim(1, "x.y.z", "x.y.z").unwrap();
        assert_eq!(names.collided(), 1);
    }

    #[test]
    fn merging_is_counted() {
        let names = Names::new(&TopicPolicy { allow: Vec::new(), max_topics: 10, collisions: Collisions::Merge });
        names.claim(0, "a b", "a_b").unwrap();
        names.claim(0, "a+b", "a_b").unwrap();
        assert_eq!(names.collided(), 1);
    }

    #[test]
    fn the_policy_bounds_new_names_only() {
        let names = names(&["edge.*"], 2);
        assert_eq!(names.claim(0, "x", "x"), Err(NameError::NotAllowed("x".to_owned())));
        names.claim(0, "edge.1", "edge.1").unwrap();
        names.claim(0, "edge.2", "edge.2").unwrap();
        let error = names.claim(0, "edge.3", "edge.3").unwrap_err();
        assert_eq!(error.to_string(), "\"edge.3\" would be topic number 3: `max_topics` is 2");
        names.claim(0, "edge.1", "edge.1").unwrap();
        assert_eq!(names.count(), 2);
    }

    #[test]
    fn names_that_differ_by_dot_and_underscore_are_reported_once() {
        let names = names(&[], 10);
        for name in ["a.b", "c", "a_b", "a_b"] {
            names.claim(0, name, name).unwrap();
        }
        assert_eq!(names.twins(), [Twins { first: "a.b".to_owned(), second: "a_b".to_owned() }]);
    }
}
