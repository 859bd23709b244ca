//! What serial and Modbus sources have in common: names, topics, memory, and the lanes that they feed. Pure.

use std::collections::BTreeSet;

use super::fields::Opt;
use super::lanes::Lanes;
use super::model::{Budget, Delivery, UnmatchedSpec, When};
use super::problem::Place;
use super::resolve::{KIB, MIB, Resolver};
use super::routes::Routes;
use super::scalars::ByteSize;
use super::sources::Sources;
use super::units::show_size;
use crate::route::filter::Filter;

/// Bytes of readings that one line may have on their way.
const UNACKED_BYTES: u64 = 256 * KIB;

/// A source on a line, as the rest of the configuration sees it.
pub struct LineFeed {
    pub name: String,
    /// Every topic that its readings can have.
    pub topics: Vec<String>,
    pub volatile: bool,
    pub bytes: u64,
    pub place: Place,
    pub topic_place: Place,
}

pub fn unacked(key: &Opt<ByteSize>, r: &mut Resolver<'_>) -> u64 {
    r.size(key, "unacked_bytes_max", 4 * KIB..=64 * MIB, UNACKED_BYTES)
}

/// A name; one that stands alone needs none.
pub fn name(key: &Opt<String>, default: &str, count: usize, place: Place, r: &mut Resolver<'_>) -> String {
    if count == 1 && matches!(key, Opt::Absent) {
        return default.to_owned();
    }
    let Some(name) = r.required(key, "name", place, "several are told apart by their names") else {
        return String::new();
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    if name.value.is_empty() || name.value.len() > 64 || !name.value.chars().all(legal) {
        let message = format!("{:?} cannot be a name here", name.value);
        r.found.error(name.place, message).help("use 1 to 64 letters, digits, `_` or `-`");
    }
    name.value.clone()
}

/// A topic, with `{source}` replaced. `later` are the placeholders that are replaced with each reading.
pub fn topic(key: &Opt<String>, source: &str, later: &[&str], r: &mut Resolver<'_>) -> String {
    let Some(at) = key.get() else { return source.to_owned() };
    let topic = at.value.replace("{source}", source);
    let plain = later.iter().fold(topic.clone(), |text, name| text.replace(&format!("{{{name}}}"), ""));
    let known = || later.iter().map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(", ");
    if plain.contains(['{', '}']) {
        let help = format!("known here: {{source}}, {}", known());
        r.found.error(at.place, format!("unknown placeholder in `topic`: {:?}", at.value)).help(help);
    } else if topic.is_empty() || topic.len() > 1_024 || topic.contains(['+', '#', '\0']) {
        let message = format!("`topic` is not a topic: {:?}", at.value);
        r.found.error(at.place, message).help("1 to 1,024 bytes without `+`, `#` and NUL, such as \"line3/scale\"");
    }
    topic
}

/// Routes, metrics and events name a source whatever its kind.
pub fn check_twins(feeds: &[LineFeed], sources: &Sources<'_>, r: &mut Resolver<'_>) {
    for (index, feed) in feeds.iter().enumerate() {
        let twin = feeds[..index].iter().find(|other| other.name == feed.name).map(|other| other.place);
        if let Some(first) = twin.or_else(|| sources.place_of(&feed.name)) {
            let finding = r.found.error(feed.place, format!("the source {:?} is defined twice", feed.name));
            finding.note("it is already defined at", first).help("give it another name");
        }
    }
}

/// Checks that the lines' parts of the intake memory fit. Returns what is left for brokers and listeners.
pub fn take_share(feeds: &[LineFeed], memory: &Budget, r: &mut Resolver<'_>) -> Budget {
    let sum: u64 = feeds.iter().map(|feed| feed.bytes).sum();
    if let Some(last) = feeds.last().filter(|_| sum > memory.intake) {
        let message = format!(
            "the lines ask for {} of unaccepted readings, the intake memory is {}",
            show_size(sum),
            show_size(memory.intake)
        );
        r.found.error(last.place, message).help("lower `unacked_bytes_max`, or raise [memory] max or intake");
    }
    Budget { intake: memory.intake.saturating_sub(sum), ..*memory }
}

/// Nobody sends a serial reading a second time: the lanes that such readings take commit first.
pub fn imply_always(feeds: &[LineFeed], routes: &Routes, lanes: &mut Lanes, r: &mut Resolver<'_>) {
    for feed in feeds {
        let mut fed = BTreeSet::new();
        for topic in feed.topics.iter().collect::<BTreeSet<_>>() {
            match lane_of(&feed.name, topic, routes) {
                Some(lane) => fed.extend((!feed.volatile).then_some(lane)),
                // `unasked` readings are none that anybody waits for.
                None if topic.contains("unasked") => {}
                None => {
                    let message = format!("no route takes the topic {topic:?} of the source {:?}", feed.name);
                    let help = "add a [[route]] with a filter for it; without one its readings are treated as [unmatched] says";
                    r.found.warning(feed.topic_place, message).help(help);
                }
            }
        }
        fed.into_iter().for_each(|lane| imply(feed, lane, lanes, r));
    }
}

/// The lane of the first route that takes a topic.
fn lane_of(source: &str, topic: &str, routes: &Routes) -> Option<usize> {
    let takes = |route: &&super::model::RouteSpec| {
        let from = route.sources.is_empty() || route.sources.iter().any(|name| name == source);
        from && Filter::parse(&route.filter).is_ok_and(|filter| filter.matches(topic).is_some())
    };
    routes.list.iter().find(takes).map(|route| route.lane).or(match routes.unmatched {
        UnmatchedSpec::Route { lane, .. } => Some(lane),
        _ => None,
    })
}

fn imply(feed: &LineFeed, lane: usize, lanes: &mut Lanes, r: &mut Resolver<'_>) {
    let lane = &mut lanes.list[lane];
    if lane.delivery == Delivery::AtMostOnce {
        let message =
            format!("readings of {:?} are committed first, but the lane {:?} never commits", feed.name, lane.name);
        let help = "write volatile = true for this source, or choose another lane";
        r.found.error(feed.place, message).help(help);
    } else if lane.when == When::Offline {
        if lane.when_reason == "configured" {
            let message =
                format!("`when = \"offline\"` of the lane {:?} has no effect: {:?} feeds it", lane.name, feed.name);
            r.found.warning(feed.place, message).help("write volatile = true for this source, or another lane");
        }
        lane.when = When::Always;
        lane.when_reason = format!("implied by the source {:?}", feed.name);
    }
}
