//! Starts and stops the sources, and remembers between runs what their brokers hold for us.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::counts::Counters;
use super::lines::{self, Ground};
use crate::clock;
use crate::config::{Config, MqttSource, Subscription};
use crate::intake::listener::Listener;
use crate::intake::listener::counters::ListenerCounters;
use crate::intake::mqtt::{MqttSession, SourceCounters};
use crate::intake::{Deliver, Fact, SourceEvent};
use crate::route::Router;
use crate::route::filter::Filter;

/// Beyond the sources' own time for a stop: they are cut off then.
const STOP_SLACK: Duration = Duration::from_secs(2);

pub struct Sources {
    sessions: JoinSet<()>,
}

impl Sources {
    pub fn start(
        config: &Config,
        router: &Router,
        deliver: &Arc<dyn Deliver>,
        events: &mpsc::Sender<(String, SourceEvent)>,
        stop: &watch::Receiver<bool>,
        kept: &[Fact],
    ) -> (Self, Counters) {
        let mut sessions = JoinSet::new();
        let mut counters = Counters::default();
        let mut memory = Memory::load(config);
        for source in config.mqtt_sources.iter().flat_map(|s| sessions_of(s, config)) {
            let count = Arc::new(SourceCounters::default());
            counters.clients.push((source.name.clone(), Arc::clone(&count)));
            let previous = memory.expect(&source);
            let session = MqttSession {
                config: source,
                previous,
                route: Arc::new(router.clone()),
                deliver: Arc::clone(deliver),
                events: events.clone(),
                counters: count,
                clock: Arc::new(clock::arrival),
                random: Arc::new(crate::spool::schema::random_u64),
                stop_timeout: config.gateway.stop_timeout,
            };
            sessions.spawn(session.run(stop.clone()));
        }
        memory.save();
        for listener in &config.listeners {
            let count = Arc::new(ListenerCounters::default());
            counters.listeners.push((listener.name.clone(), Arc::clone(&count)));
            let listener = Listener {
                config: Arc::new(listener.clone()),
                facts: kept.iter().filter(|fact| fact.belongs_to(&listener.name)).cloned().collect(),
                route: Arc::new(router.clone()),
                deliver: Arc::clone(deliver),
                events: events.clone(),
                counters: count,
                clock: Arc::new(clock::arrival),
                random: Arc::new(crate::spool::schema::random_u64),
                stop_timeout: config.gateway.stop_timeout,
                bound: watch::Sender::new(Vec::new()),
            };
            sessions.spawn(listener.run(stop.clone()));
        }
        let ground = Ground { config, router, deliver, events, stop };
        counters.lines = lines::start(&ground, &mut sessions);
        (Sources { sessions }, counters)
    }

    /// Waits until every session has answered what it may and said goodbye, at most `limit` and a little.
    pub async fn finish(mut self, limit: Duration) {
        let all = async { while self.sessions.join_next().await.is_some() {} };
        if tokio::time::timeout(limit + STOP_SLACK, all).await.is_err() {
            tracing::warn!("a source did not stop in time; its broker sends again what was not answered");
        }
    }
}

/// One session for each lane where asked: a session is held up as a whole, so refused telemetry must not share one with
/// alarms.
fn sessions_of(source: &MqttSource, config: &Config) -> Vec<MqttSource> {
    if !source.session_per_lane {
        return vec![source.clone()];
    }
    let mut by_lane: BTreeMap<usize, Vec<Subscription>> = BTreeMap::new();
    for route in &config.routes {
        if !route.sources.is_empty() && !route.sources.contains(&source.name) {
            continue;
        }
        // Every filter was parsed by `check`.
        let Ok(filter) = Filter::parse(&route.filter) else { continue };
        let qos = source.subscriptions.iter().map(|s| s.qos).max().unwrap_or(1);
        by_lane.entry(route.lane).or_default().push(Subscription { filter: filter.mqtt_filter(), qos });
    }
    let count = by_lane.len().max(1) as u64;
    let session = |(lane, subscriptions): (usize, Vec<Subscription>)| {
        let lane = &config.lanes[lane].name;
        MqttSource {
            name: format!("{}-{lane}", source.name),
            client_id: format!("{}-{lane}", source.client_id),
            unacked_bytes_max: source.unacked_bytes_max / count,
            subscriptions,
            ..source.clone()
        }
    };
    by_lane.into_iter().map(session).collect()
}

/// What each client id has subscribed at its broker: `<state_dir>/subscriptions.json`.
struct Memory {
    path: PathBuf,
    known: BTreeMap<String, Vec<(String, u8)>>,
}

impl Memory {
    fn load(config: &Config) -> Self {
        let path = config.gateway.state_dir.join("subscriptions.json");
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        // A damaged list costs at most an unsubscription: the session then holds a filter too many.
        Memory { path, known: serde_json::from_str(&text).unwrap_or_default() }
    }

    /// What the broker may hold for this client; from now on also what the config says.
    fn expect(&mut self, source: &MqttSource) -> Vec<Subscription> {
        let known = self.known.entry(source.client_id.clone()).or_default();
        let previous = known.iter().map(|(filter, qos)| Subscription { filter: filter.clone(), qos: *qos }).collect();
        for s in &source.subscriptions {
            if !known.iter().any(|(filter, _)| *filter == s.filter) {
                known.push((s.filter.clone(), s.qos));
            }
        }
        previous
    }

    fn save(&self) {
        let write = || -> std::io::Result<()> {
            let text = serde_json::to_string(&self.known).map_err(std::io::Error::other)?;
            let temporary = self.path.with_extension("json.new");
            std::fs::write(&temporary, text)?;
            std::fs::rename(&temporary, &self.path)
        };
        if let Err(error) = write() {
            tracing::warn!(path = %self.path.display(), %error, "failed to save the list of subscriptions");
        }
    }
}

/// What the broker said it holds now.
pub fn remember(config: &Config, source: &str, event: &SourceEvent) {
    let SourceEvent::Subscribed { subscriptions } = event else { return };
    let sessions = config.mqtt_sources.iter().flat_map(|s| sessions_of(s, config));
    let Some(client_id) = sessions.into_iter().find(|s| s.name == source).map(|s| s.client_id) else { return };
    let mut memory = Memory::load(config);
    let list = subscriptions.iter().map(|s| (s.filter.clone(), s.qos)).collect();
    if memory.known.get(&client_id) != Some(&list) {
        memory.known.insert(client_id, list);
        memory.save();
    }
}
