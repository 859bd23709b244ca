//! The gateway: the only place that knows every stage. Configure, build, announce, wait for a signal, drain.

mod commit;
pub mod events;
mod hub;
pub mod inbox;
mod lines;
mod sources;
mod tell;
mod tell_line;
mod wear;

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::clock;
use crate::config::{Config, Lane as LaneConfig};
use crate::forward::kafka::Cluster;
use crate::intake::mqtt::SourceCounters;
use crate::ops::control::{self, Control};
use crate::ops::http;
use crate::ops::metrics::{ExtraMetric, Metrics};
use crate::ops::snapshot::Shown;
use crate::route::Router;
use crate::spool::lane::{Lane, Start};
use crate::spool::owner::{Opened, Owner, Settings};
use crate::spool::row_base;
use events::EventWriter;
use hub::{Hub, Producers, State};
use inbox::{Ask, Inbox};
pub use sources::Counters;
use sources::Sources;

/// Source events on their way to the hub; a source that finds this full counts the event as dropped.
const SOURCE_EVENTS_MAX: usize = 256;

/// Why the gateway ended other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("{0}")]
    Start(String),
    #[error("keep running: {0}")]
    Died(String),
}

/// A built gateway, before it takes anything in.
pub struct Gateway {
    config: Arc<Config>,
    inbox: Arc<Inbox>,
    shown: Arc<Shown>,
    router: Router,
    counters: Arc<OnceLock<Counters>>,
    hub: std::thread::JoinHandle<()>,
    spool: std::sync::mpsc::SyncSender<crate::spool::owner::Request>,
}

impl Gateway {
    /// Opens the spool and starts the hub: from here on records that earlier runs left go to Kafka.
    ///
    /// # Errors
    /// When the spool is held by another process or cannot be made at all, or a route does not compile.
    pub fn start(config: Config) -> Result<Gateway, GatewayError> {
        let start = GatewayError::Start;
        let router = Router::new(&config.routes, &config.unmatched, &config.topic_policy)
            .map_err(|e| start(format!("compile the routes: {e}")))?;
        let config = Arc::new(config);
        let inbox = Inbox::new();
        let answers = Arc::clone(&inbox);
        let (owner, opened) =
            Owner::start(settings(&config), Box::new(move |reply| answers.reply(reply))).map_err(start)?;
        let shown = Arc::new(Shown::default());
        let spool = owner.requests();
        let hub = build_hub(&config, &inbox, owner, &opened, &shown);
        let hub = std::thread::Builder::new()
            .name("hub".into())
            .spawn(move || hub.run())
            .map_err(|e| start(format!("start the hub's thread: {e}")))?;
        tracing::info!(
            gateway = config.gateway.name,
            run = format!("{:016x}", opened.run),
            spool = %config.spool.path.display(),
            "forebay {} has started",
            env!("CARGO_PKG_VERSION")
        );
        Ok(Gateway { config, inbox, shown, router, counters: Arc::default(), hub, spool })
    }

    /// Takes readings in until `stop` turns true or the hub dies, then drains.
    ///
    /// # Errors
    /// [`GatewayError::Died`] when the hub's thread ended by itself; the process should exit and be restarted.
    pub async fn run(self, mut stop: watch::Receiver<bool>, ready: impl FnOnce()) -> Result<(), GatewayError> {
        let (events, mut source_events) = mpsc::channel(SOURCE_EVENTS_MAX);
        let (sources_stop, sources_stopped) = watch::channel(false);
        let (sources, counters) =
            Sources::start(&self.config, &self.router, &(Arc::clone(&self.inbox) as _), &events, &sources_stopped);
        let _ = self.counters.set(counters.clone());
        let extra = {
            let router = self.router.clone();
            let lines = sources.lines.clone();
            Box::new(move || extra_metrics(&counters, &router).into_iter().chain(lines::metrics(&lines)).collect())
        };
        self.serve_http(extra).await;
        self.serve_control();
        ready();
        loop {
            tokio::select! {
                Some((name, event)) = source_events.recv() => {
                    sources::remember(&self.config, &name, &event);
                    // A full inbox has more urgent news.
                    let _ = self.inbox.ask(Ask::Source { name, event });
                }
                changed = stop.changed() => if changed.is_err() || *stop.borrow() { break },
                () = tokio::time::sleep(Duration::from_millis(500)) => if self.hub.is_finished() { break },
            }
        }
        let _ = sources_stop.send(true);
        self.finish(sources).await
    }

    async fn finish(self, sources: Sources) -> Result<(), GatewayError> {
        if !self.hub.is_finished() {
            tracing::info!("stopping: sources first, then what is on its way");
            let limit = self.config.gateway.stop_timeout;
            sources.finish(limit).await;
            let deadline_us = clock::now_us() + limit.as_micros() as u64;
            let _ = self.inbox.ask(Ask::Stop { deadline_us });
        }
        let hub = self.hub;
        let joined = tokio::task::spawn_blocking(move || hub.join()).await;
        match joined {
            Ok(Ok(())) => Ok(()),
            _ => Err(GatewayError::Died("the hub's thread ended by itself; see the log above".into())),
        }
    }

    async fn serve_http(&self, extra: crate::ops::metrics::Extra) {
        let Some(address) = self.config.http.listen else { return };
        match http::bind(address).await {
            Ok(listener) => {
                let metrics = Arc::new(Metrics::new(Arc::clone(&self.shown), extra));
                tokio::spawn(http::serve(listener, metrics));
            }
            // Without its window the gateway still does its work (promise 5).
            Err(error) => tracing::error!(%address, %error, "failed to bind the HTTP port; there are no metrics"),
        }
    }

    fn serve_control(&self) {
        let dir = &self.config.gateway.runtime_dir;
        let control = Control {
            shown: Arc::clone(&self.shown),
            inbox: Arc::clone(&self.inbox),
            spool: self.spool.clone(),
            lanes: self.config.lanes.iter().map(|l| l.name.clone()).collect(),
        };
        match control::bind(dir) {
            Ok(listener) => drop(tokio::spawn(control::serve(listener, Arc::new(control)))),
            Err(error) => tracing::error!(dir = %dir.display(), %error, "failed to bind the control socket"),
        }
    }

    pub fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown)
    }

    /// What each source counts, from the moment [`Gateway::run`] has started them.
    pub fn source_counters(&self) -> Arc<OnceLock<Counters>> {
        Arc::clone(&self.counters)
    }

    pub fn requests(&self) -> std::sync::mpsc::SyncSender<crate::spool::owner::Request> {
        self.spool.clone()
    }

    pub fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        path: config.spool.path.clone(),
        max_bytes: config.spool.file_bytes_max(),
        dead_bytes_max: config.dead_letters.max_bytes,
        reserve_bytes: config.spool.reserve_bytes,
        ballast_bytes: config.spool.ballast_bytes,
        gateway: config.gateway.name.clone(),
        lanes: config.lanes.iter().map(|l| l.name.clone()).collect(),
    }
}

fn build_hub(config: &Arc<Config>, inbox: &Arc<Inbox>, owner: Owner, opened: &Opened, shown: &Arc<Shown>) -> Hub {
    let lanes = build_lanes(config, opened);
    let mut order: Vec<usize> = (0..lanes.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(lanes[*i].config.priority));
    let mut times = crate::forward::times::Times::default();
    let offsets = opened.runs.iter().filter_map(|r| r.clock_offset.map(|offset| (r.run, offset)));
    offsets.for_each(|(run, offset)| times.learn(run, offset));
    let bytes_max = config.memory.producer / config.kafka.len().max(1) as u64;
    let clusters = config
        .kafka
        .iter()
        .enumerate()
        .map(|(i, k)| Cluster::new(i, k.clone(), config.gateway.name.clone(), bytes_max, Arc::clone(inbox) as _));
    let producers = Producers {
        clusters: clusters.collect(),
        lanes: lanes.iter().map(|l| (l.config.kafka, l.number)).collect(),
        times,
        now_us: 0,
    };
    let lost = opened.lost.iter().cloned().collect();
    let state = State { run: opened.run, untold: opened.untold.clone(), lost, ..State::default() };
    Hub {
        inbox: Arc::clone(inbox),
        config: Arc::clone(config),
        lanes,
        order,
        events_lane: config.events_lane,
        producers,
        owner,
        events: EventWriter::new(config.events.topic.clone(), config.gateway.name.clone()),
        shown: Arc::clone(shown),
        set_aside: opened.set_aside.clone(),
        state,
    }
}

/// The configured lanes, then those that only the file knows: they drain until empty.
fn build_lanes(config: &Config, opened: &Opened) -> Vec<Lane> {
    let window_bytes_max = (config.memory.window as usize / opened.lanes.len().max(1)).max(64 << 10);
    let lane = |(index, found): (usize, &crate::spool::owner::OpenedLane)| {
        let lane_config = config.lanes.get(index).cloned().unwrap_or_else(|| drained(config, &found.name));
        let start = Start {
            index,
            number: found.number,
            run: opened.run,
            last_row: found.last_row.max(row_base(found.number)),
            window_bytes_max,
        };
        Lane::new(lane_config, &start)
    };
    opened.lanes.iter().enumerate().map(lane).collect()
}

fn drained(config: &Config, name: &str) -> LaneConfig {
    tracing::warn!(lane = name, "the spool holds a lane that the config does not know: it drains to the first cluster");
    let like = config.lanes.last().cloned().expect("the configuration always has the default lane");
    LaneConfig { name: name.to_owned(), priority: i32::MIN, when_reason: "not in the config: drains".into(), ..like }
}

/// Sources and routes count for themselves; here their numbers get names.
fn extra_metrics(counters: &[(String, Arc<SourceCounters>)], router: &Router) -> Vec<ExtraMetric> {
    type Of = fn(&SourceCounters) -> &std::sync::atomic::AtomicU64;
    let families: [(&'static str, &'static str, bool, Of); 15] = [
        ("source_readings", "Readings taken in (step 1)", true, |c| &c.readings),
        ("source_payload_bytes", "Their payloads", true, |c| &c.payload_bytes),
        ("source_pubacks", "PUBACKs sent (step 5)", true, |c| &c.pubacks),
        ("source_stale_acks", "Acks whose connection had ended", true, |c| &c.acks_stale),
        ("source_reconnects", "Connections beyond the first", true, |c| &c.reconnects),
        ("source_sessions_lost", "Sessions the broker had lost", true, |c| &c.sessions_lost),
        ("source_takeovers", "Times another client took the session", true, |c| &c.takeovers),
        ("source_gate_closed", "Times reading was paused", true, |c| &c.gate_closed),
        ("source_oversize", "Packets above packet_size_max", true, |c| &c.oversize),
        ("source_malformed", "Packets that broke the protocol", true, |c| &c.malformed),
        ("source_violations", "Packets that broke the protocol and were taken nevertheless", true, |c| &c.violations),
        ("source_events_dropped", "Events that found no room", true, |c| &c.events_dropped),
        ("source_unacked", "Readings not answered yet", false, |c| &c.unacked),
        ("source_unacked_bytes", "Their bytes in memory", false, |c| &c.unacked_bytes),
        ("source_connected", "1 while connected", false, |c| &c.connected),
    ];
    let mut out = Vec::new();
    for (name, help, counter, of) in families {
        for (source, c) in counters {
            let label = Some(("source", source.clone()));
            out.push(ExtraMetric { name, help, counter, label, value: of(c).load(Ordering::Relaxed) as f64 });
        }
    }
    out.extend(route_metrics(router));
    out
}

fn route_metrics(router: &Router) -> Vec<ExtraMetric> {
    let c = router.counters();
    let matched = router.route_names().zip(&c.matched).map(|(route, n)| ExtraMetric {
        name: "route_matched",
        help: "Readings taken by a route",
        counter: true,
        label: Some(("route", route.to_owned())),
        value: n.load(Ordering::Relaxed) as f64,
    });
    let mut out: Vec<_> = matched.collect();
    let singles = [
        ("route_unmatched", "Readings no route took", c.unmatched.load(Ordering::Relaxed)),
        ("route_dropped", "Readings dropped as configured", c.dropped.load(Ordering::Relaxed)),
        ("route_dead_lettered", "Readings that could not be routed", c.dead_lettered.load(Ordering::Relaxed)),
        ("route_collisions", "Readings whose Kafka name fell onto another's", router.collisions()),
    ];
    let single = |(name, help, n)| ExtraMetric { name, help, counter: true, label: None, value: n as f64 };
    out.extend(singles.into_iter().map(single));
    out
}
