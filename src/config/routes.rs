//! `[[route]]` and `[unmatched]`: which readings go where. Pure: the grammar belongs to `crate::route`.

use std::collections::HashMap;

use super::fields::Opt;
use super::file::{RouteTable, UnmatchedTable, UnmatchedTo};
use super::lanes::Lanes;
use super::model::{OnError, RouteSpec, TimestampFormat, TimestampSpec, UnmatchedSpec};
use super::problem::{Place, one_of};
use super::reader::At;
use super::resolve::Resolver;
use super::scalars::OneOrMany;
use super::sources::Sources;
use crate::route::ParseError;
use crate::route::filter::Filter;
use crate::route::json::Pointer;
use crate::route::kafka_name;
use crate::route::template::Template;

/// The MQTT topic as the key keeps the order of each device's topic.
const KEY: &str = "{mqtt.topic}";

/// A Kafka topic that records may go to, for the checks of topics.
pub struct Target {
    pub text: String,
    pub place: Place,
    pub lane: usize,
    pub template: Template,
}

pub struct Routes {
    pub list: Vec<RouteSpec>,
    pub unmatched: UnmatchedSpec,
    pub targets: Vec<Target>,
    filters: Vec<Option<Filter>>,
}

impl Routes {
    /// What to subscribe to for the routes that take this source's readings.
    pub fn mqtt_filters_of<'a>(&'a self, source: &'a str) -> impl Iterator<Item = String> + 'a {
        let takes =
            move |route: &RouteSpec| route.sources.is_empty() || route.sources.iter().any(|name| name == source);
        let pairs = self.list.iter().zip(&self.filters).filter(move |(route, _)| takes(route));
        pairs.filter_map(|(_, filter)| filter.as_ref().map(Filter::mqtt_filter))
    }
}

pub fn resolve(
    tables: &[At<RouteTable>],
    unmatched: &UnmatchedTable,
    lanes: &Lanes,
    sources: &Sources<'_>,
    r: &mut Resolver<'_>,
) -> Routes {
    if tables.is_empty() {
        let help = "add [[route]] with filter = \"...\" and kafka_topic = \"...\"";
        r.found.error(None, "no route is configured: no reading would reach Kafka").help(help);
    }
    let unmatched_spec = unmatched_rule(unmatched, lanes, r);
    let mut routes = Routes { list: Vec::new(), unmatched: unmatched_spec, targets: Vec::new(), filters: Vec::new() };
    for (index, at) in tables.iter().enumerate() {
        check_name(index, tables, r);
        let (spec, filter) = route(index, at, lanes, sources, r);
        push_target(&mut routes.targets, &at.value.kafka_topic, spec.lane);
        routes.list.push(spec);
        routes.filters.push(filter);
    }
    if let UnmatchedSpec::Route { lane, .. } = routes.unmatched {
        push_target(&mut routes.targets, &unmatched.kafka_topic, lane);
    }
    warn_of_two_lanes(&routes.targets, r);
    routes
}

fn push_target(targets: &mut Vec<Target>, key: &Opt<String>, lane: usize) {
    if let Some(at) = key.get()
        && let Ok(template) = Template::parse(&at.value)
    {
        targets.push(Target { text: at.value.clone(), place: at.place, lane, template });
    }
}

fn check_name(index: usize, tables: &[At<RouteTable>], r: &mut Resolver<'_>) {
    let Some(name) = tables[index].value.name.get() else { return };
    let mut earlier = tables[..index].iter().filter_map(|at| at.value.name.get());
    if let Some(first) = earlier.find(|first| first.value == name.value) {
        let finding = r.found.error(name.place, format!("the route {:?} is defined twice", name.value));
        finding.note("it is already defined at", first.place).help("give it another name");
    }
}

fn route(
    index: usize,
    at: &At<RouteTable>,
    lanes: &Lanes,
    sources: &Sources<'_>,
    r: &mut Resolver<'_>,
) -> (RouteSpec, Option<Filter>) {
    let table = &at.value;
    let listed = table.source.value().cloned().unwrap_or_default();
    check_sources(&listed, sources, r);
    let filter_key = r.required(&table.filter, "filter", at.place, "for instance filter = \"plant/{line}/#\"");
    let filter = filter_key.and_then(|filter| check(filter, r));
    let topic_help = "for instance kafka_topic = \"plant.telemetry\"";
    let kafka_topic = r.required(&table.kafka_topic, "kafka_topic", at.place, topic_help);
    let captures = filter.as_ref().map(Filter::captures);
    if let Some(topic) = kafka_topic {
        check_topic(topic, captures, r);
    }
    if let Some(key) = table.key.get() {
        check_key(key, captures, r);
    }
    check_headers(table, captures, r);
    let spec = RouteSpec {
        name: table.name.or(format!("route-{}", index + 1)),
        sources: listed.0.into_iter().map(|name| name.value).collect(),
        filter: table.filter.or(String::new()),
        lane: lanes.of(&table.lane, r),
        kafka_topic: table.kafka_topic.or(String::new()),
        key: table.key.or(KEY.to_owned()),
        headers: table.headers.0.iter().map(|(name, value)| (name.value.clone(), value.value.clone())).collect(),
        timestamp: timestamp(table, r),
        on_error: table.on_error.or(OnError::DeadLetter),
    };
    (spec, filter)
}

fn check_sources(listed: &OneOrMany, sources: &Sources<'_>, r: &mut Resolver<'_>) {
    for name in &listed.0 {
        sources.check_name(name, r);
    }
}

/// Reads a route's filter; a mistake is reported with a caret at the exact place.
pub fn check(filter: &At<String>, r: &mut Resolver<'_>) -> Option<Filter> {
    Filter::parse(&filter.value).map_err(|error| report(filter, 0, "topic filter", error, r)).ok()
}

/// Reports a mistake inside a string that begins `start` bytes behind the value's first byte.
pub fn report(at: &At<String>, start: usize, what: &str, error: ParseError, r: &mut Resolver<'_>) {
    let inner = error.at.start + start..error.at.end + start;
    let place = r.texts.inside(at.place, &at.value, &inner);
    let finding = r.found.error(place, format!("invalid {what} {:?}: {}", at.value, error.message));
    if let Some(help) = error.help {
        finding.help(help);
    }
}

fn template(at: &At<String>, what: &str, captures: Option<&[String]>, r: &mut Resolver<'_>) -> Option<Template> {
    let parsed = Template::parse(&at.value).map_err(|error| report(at, 0, what, error, r)).ok()?;
    // Without a readable filter nobody knows its captures.
    for (name, range) in captures.into_iter().flat_map(|known| unknown_captures(&parsed, known)) {
        let place = r.texts.inside(at.place, &at.value, &range);
        let known = captures.unwrap_or_default();
        let help = match known {
            [] => "the filter has no captures: name a level there, as in \"plant/{line}/+\"".to_owned(),
            known => format!("the filter's captures are {}", one_of(known.iter().map(String::as_str))),
        };
        r.found.error(place, format!("the filter has no capture {{{name}}}")).help(help);
    }
    Some(parsed)
}

fn unknown_captures(template: &Template, known: &[String]) -> Vec<(String, std::ops::Range<usize>)> {
    let unknown = template.captures_at().filter(|(name, _)| !known.iter().any(|capture| capture == name));
    unknown.map(|(name, range)| (name.to_owned(), range)).collect()
}

fn check_topic(at: &At<String>, captures: Option<&[String]>, r: &mut Resolver<'_>) {
    let Some(template) = template(at, "Kafka topic", captures, r) else { return };
    if let Err(error) = kafka_name::check_template(&template) {
        report(at, 0, "Kafka topic", error, r);
    }
    if let Some(name) = template.captures().next() {
        let message = format!("each value of {{{name}}} becomes a Kafka topic of its own");
        let help = "one topic for all and the device in the key costs the brokers far less; [topic_policy] bounds it";
        r.found.warning(at.place, message).help(help);
    }
}

fn check_key(at: &At<String>, captures: Option<&[String]>, r: &mut Resolver<'_>) {
    let constant = template(at, "key", captures, r).is_some_and(|template| template.is_constant());
    if constant && !at.value.is_empty() {
        let message = "a constant key sends every record to one partition";
        r.found.warning(at.place, message).help("use the device, as in key = \"{mqtt.topic}\", or key = \"\" for none");
    }
}

fn check_headers(table: &RouteTable, captures: Option<&[String]>, r: &mut Resolver<'_>) {
    for (name, value) in &table.headers.0 {
        if name.value.is_empty() || name.value.starts_with("forebay-") {
            let message = format!("a header cannot be called {:?}", name.value);
            r.found.error(name.place, message).help("names that begin with `forebay-` are the gateway's own");
        }
        template(value, "header", captures, r);
    }
}

fn timestamp(table: &RouteTable, r: &mut Resolver<'_>) -> Option<TimestampSpec> {
    let At { value: inner, place } = table.timestamp.0.as_ref()?;
    let help = "timestamp = { pointer = \"/ts\", format = \"rfc3339\" }";
    let pointer = r.required(&inner.pointer, "pointer", *place, help);
    let format = r.required(&inner.format, "format", *place, help);
    if let Some(pointer) = pointer
        && let Err(error) = Pointer::parse(&pointer.value)
    {
        report(pointer, 0, "JSON pointer", error, r);
    }
    let format = format.map_or(TimestampFormat::Rfc3339, |format| format.value);
    Some(TimestampSpec { pointer: pointer?.value.clone(), format })
}

fn unmatched_rule(table: &UnmatchedTable, lanes: &Lanes, r: &mut Resolver<'_>) -> UnmatchedSpec {
    let lane = lanes.of(&table.lane, r);
    let to = table.to.or(UnmatchedTo::DeadLetter);
    let only_for_route = [("kafka_topic", &table.kafka_topic), ("key", &table.key)];
    for (name, place) in only_for_route.iter().filter_map(|(name, key)| key.place().map(|place| (name, place))) {
        if to != UnmatchedTo::Route {
            let message = format!("`{name}` has no effect without to = \"route\"");
            r.found.error(place, message).help("set to = \"route\", or remove it");
        }
    }
    match to {
        UnmatchedTo::DeadLetter => UnmatchedSpec::DeadLetter { lane },
        UnmatchedTo::Drop => {
            let message = "readings without a route are acknowledged and dropped";
            r.found.warning(table.to.place(), message).help("they are counted; \"dead-letter\" keeps them");
            UnmatchedSpec::Drop
        }
        UnmatchedTo::Route => unmatched_route(table, lane, r),
    }
}

fn unmatched_route(table: &UnmatchedTable, lane: usize, r: &mut Resolver<'_>) -> UnmatchedSpec {
    let place = table.to.place().unwrap_or(Place { file: 0, start: 0, end: 0 });
    let help = "for instance kafka_topic = \"plant.other\"";
    if let Some(topic) = r.required(&table.kafka_topic, "kafka_topic", place, help) {
        check_topic(topic, Some(&[]), r);
    }
    if let Some(key) = table.key.get() {
        check_key(key, Some(&[]), r);
    }
    let kafka_topic = table.kafka_topic.or(String::new());
    UnmatchedSpec::Route { kafka_topic, key: table.key.or(KEY.to_owned()), lane }
}

/// Lanes overtake each other, so one key through two of them has no order.
fn warn_of_two_lanes(targets: &[Target], r: &mut Resolver<'_>) {
    let mut first: HashMap<&str, &Target> = HashMap::new();
    for target in targets {
        let known = *first.entry(&target.text).or_insert(target);
        if known.lane != target.lane {
            let message =
                format!("{:?} is fed through two lanes: one key's order is not kept across them", target.text);
            let finding = r.found.warning(target.place, message);
            finding.note("the other lane's route is at", known.place).help("use one lane for each Kafka topic");
        }
    }
}
