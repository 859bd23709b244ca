//! The router: `[[route]]` tables in order, the first match wins; what no route takes follows the `[unmatched]` rule.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::compiled::{Compiled, Refused};
use super::error::{RouteError, RouterError};
use super::filter::Captures;
use super::headers::{Headers, Texts};
use super::kafka_name;
use super::names::{Names, Twins};
use super::render::Values;
use super::spec::{OnError, RouteSpec, UnmatchedSpec};
use crate::config::TopicPolicy;
use crate::intake::{Fate, Route, Routed};
use crate::record::{Reading, RecordView, TimestampKind};

/// More routes than a plant writes by hand; bounds the work per reading.
pub const ROUTES_MAX: usize = 1000;

/// Counts since the start. A reading is counted once as matched or unmatched, and once more when it is dropped or
/// becomes a dead letter.
#[derive(Debug, Default)]
pub struct Counters {
    /// By place in the routes handed to [`Router::new`].
    pub matched: Vec<AtomicU64>,
    pub unmatched: AtomicU64,
    pub dropped: AtomicU64,
    pub dead_lettered: AtomicU64,
}

/// All compiled routes. A clone shares the registry of Kafka names and the counters.
#[derive(Debug, Clone)]
pub struct Router {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    routes: Vec<Compiled>,
    index: Index,
    unmatched: Unmatched,
    names: Names,
    counters: Counters,
}

#[derive(Debug)]
enum Unmatched {
    DeadLetter { lane: usize },
    Drop,
    Route(Box<Compiled>),
}

impl Router {
    /// Compiles everything once. Kafka names that do not depend on the reading are registered here, so that a bad one
    /// shows before the first reading.
    ///
    /// # Errors
    /// [`RouterError`] with the route, the key and the place in its text.
    pub fn new(routes: &[RouteSpec], unmatched: &UnmatchedSpec, policy: &TopicPolicy) -> Result<Self, RouterError> {
        if routes.len() > ROUTES_MAX {
            return Err(RouterError::TooManyRoutes { count: routes.len(), max: ROUTES_MAX });
        }
        policy.allow.iter().try_for_each(|pattern| kafka_name::check_pattern(pattern))?;
        let names = Names::new(policy);
        let compiled = routes
            .iter()
            .enumerate()
            .map(|(number, spec)| Compiled::new(number, spec, &names))
            .collect::<Result<Vec<_>, _>>()?;
        let unmatched = Unmatched::new(routes.len(), unmatched, &names)?;
        let counters = Counters { matched: routes.iter().map(|_| AtomicU64::new(0)).collect(), ..Counters::default() };
        let index = Index::new(&compiled);
        Ok(Router { inner: Arc::new(Inner { routes: compiled, index, unmatched, names, counters }) })
    }

    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// Names of the routes, in the order of [`Counters::matched`].
    pub fn route_names(&self) -> impl Iterator<Item = &str> {
        self.inner.routes.iter().map(Compiled::name)
    }

    /// Readings so far whose Kafka name was taken by another source name, refused or merged.
    pub fn collisions(&self) -> u64 {
        self.inner.names.collided()
    }

    /// Distinct Kafka topics in use so far: at most `max_topics`.
    pub fn kafka_topics(&self) -> usize {
        self.inner.names.count()
    }

    /// Pairs of names in use that differ only by `.` and `_`: worth a warning, nothing is lost by them.
    pub fn twins(&self) -> Vec<Twins> {
        self.inner.names.twins()
    }
}

impl Route for Router {
    fn route(&self, reading: &Reading<'_>, scratch: &mut Vec<u8>) -> Routed {
        let inner = &*self.inner;
        for &number in inner.index.candidates(reading.topic) {
            let route = &inner.routes[number as usize];
            if let Some(captures) = route.matches(reading) {
                count(&inner.counters.matched[number as usize]);
                return inner.apply(route, reading, &captures, scratch);
            }
        }
        inner.route_unmatched(reading, scratch)
    }
}

impl Inner {
    fn apply(&self, route: &Compiled, reading: &Reading<'_>, captures: &Captures<'_>, scratch: &mut Vec<u8>) -> Routed {
        match route.record(&Values { reading, captures }, &self.names, scratch) {
            Ok(body) => Routed::Deliver { lane: route.lane(), body, fate: Fate::Forward },
            Err(_) if route.on_error() == OnError::Drop => self.drop_one(),
            Err(Refused { topic, error }) => {
                let cause = format!("route \"{}\": {error}", route.name());
                self.dead_letter(reading, route.lane(), topic, cause, scratch)
            }
        }
    }

    fn route_unmatched(&self, reading: &Reading<'_>, scratch: &mut Vec<u8>) -> Routed {
        count(&self.counters.unmatched);
        match &self.unmatched {
            Unmatched::Drop => self.drop_one(),
            Unmatched::Route(route) => self.apply(route, reading, &Captures::none(), scratch),
            Unmatched::DeadLetter { lane } => {
                self.dead_letter(reading, *lane, None, RouteError::Unmatched.to_string(), scratch)
            }
        }
    }

    fn drop_one(&self) -> Routed {
        count(&self.counters.dropped);
        Routed::Drop
    }

    /// Keyed by the MQTT topic, so that one device's dead letters stay together; with every header that needs no
    /// template.
    fn dead_letter(
        &self,
        reading: &Reading<'_>,
        lane: usize,
        topic: Option<String>,
        cause: String,
        scratch: &mut Vec<u8>,
    ) -> Routed {
        count(&self.counters.dead_lettered);
        let topic = topic.unwrap_or_else(|| kafka_name::derived_from(reading.topic));
        let plain = Headers::default();
        let texts = plain.render_mqtt(reading, Texts::default());
        let record = RecordView {
            topic: &topic,
            key: Some(reading.topic.as_bytes()),
            headers: plain.assemble(reading, None, &texts),
            payload: reading.payload,
            timestamp_ms: reading.arrival.wall_ms,
            timestamp_kind: TimestampKind::Arrival,
            arrival: reading.arrival,
            old_id: None,
        };
        Routed::Deliver { lane, body: record.encode(scratch), fate: Fate::DeadLetter(cause) }
    }
}

impl Unmatched {
    fn new(number: usize, spec: &UnmatchedSpec, names: &Names) -> Result<Self, RouterError> {
        Ok(match spec {
            UnmatchedSpec::DeadLetter { lane } => Unmatched::DeadLetter { lane: *lane },
            UnmatchedSpec::Drop => Unmatched::Drop,
            UnmatchedSpec::Route { kafka_topic, key, lane } => {
                let spec = RouteSpec {
                    name: "unmatched".to_owned(),
                    sources: Vec::new(),
                    filter: "#".to_owned(),
                    lane: *lane,
                    kafka_topic: kafka_topic.clone(),
                    key: key.clone(),
                    headers: Vec::new(),
                    timestamp: None,
                    on_error: OnError::DeadLetter,
                };
                Unmatched::Route(Box::new(Compiled::new(number, &spec, names)?))
            }
        })
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Which routes can match at all, by the topic's first level; always in the order of the configuration.
#[derive(Debug)]
struct Index {
    /// Routes whose filter begins with this literal, and those that begin with a wildcard.
    by_first: HashMap<String, Vec<u32>>,
    /// Routes that begin with a wildcard: all that is left for any other first level.
    wild: Vec<u32>,
}

impl Index {
    fn new(routes: &[Compiled]) -> Self {
        let first = |number: usize| routes[number].filter().first_literal();
        let only = |wanted: Option<&str>| -> Vec<u32> {
            let possible = (0..routes.len()).filter(|&number| first(number).is_none_or(|level| Some(level) == wanted));
            possible.map(|number| number as u32).collect()
        };
        let levels = (0..routes.len()).filter_map(first);
        let by_first = levels.map(|level| (level.to_owned(), only(Some(level)))).collect();
        Index { by_first, wild: only(None) }
    }

    fn candidates(&self, topic: &str) -> &[u32] {
        let first = topic.split('/').next().unwrap_or(topic);
        self.by_first.get(first).unwrap_or(&self.wild)
    }
}

#[cfg(test)]
mod tests;
