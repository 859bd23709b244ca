//! The gateway: the only place that knows every stage. Configure, build, announce, wait for a signal, drain.

mod commit;
mod counts;
pub mod events;
mod hub;
pub mod inbox;
mod keeping;
mod lines;
mod message_ids;
mod requeue;
mod sources;
mod tell;
mod tell_line;
#[cfg(test)]
mod tests;
pub mod watchdog;
mod wear;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::clock;
use crate::config::{self, Config, Lane as LaneConfig, Rank};
use crate::forward::kafka::Cluster;
use crate::intake::Fact;
use crate::ops::control::{self, Control, ReloadAsks};
use crate::ops::http;
use crate::ops::metrics::{Answered, Extra, Metrics};
use crate::ops::snapshot::Shown;
use crate::route::Router;
use crate::spool::lane::{Lane, Start};
use crate::spool::owner::{Opened, Owner, Settings};
use crate::spool::row_base;
pub use counts::Counters;
use events::EventWriter;
use hub::{Hub, Producers, State};
use inbox::{Ask, Inbox};
use keeping::{Ids, Keeping, Waiter};
use message_ids::MessageIds;
use sources::Sources;
use watchdog::Watchdog;

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
    kept: Vec<Fact>,
    reload: Option<ReloadAsks>,
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
        let (owner, mut opened) =
            Owner::start(settings(&config), Box::new(move |reply| answers.reply(reply))).map_err(start)?;
        let shown = Arc::new(Shown::default());
        let spool = owner.requests();
        let kept = std::mem::take(&mut opened.kept);
        let mut hub = build_hub(&config, &inbox, owner, &opened, &shown);
        kept.iter().for_each(|fact| hub.state.spool.kept[fact.kind.index()] += 1);
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
        Ok(Gateway { config, inbox, shown, router, counters: Arc::default(), hub, spool, kept, reload: None })
    }

    /// Whom the control socket asks for a reload. Without one it refuses.
    #[must_use]
    pub fn reloaded_by(self, asks: ReloadAsks) -> Self {
        Gateway { reload: Some(asks), ..self }
    }

    /// Takes readings in until `stop` turns true or the hub dies, then drains.
    ///
    /// # Errors
    /// [`GatewayError::Died`] when the hub's thread ended by itself; the process should exit and be restarted.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>, ready: impl FnOnce()) -> Result<(), GatewayError> {
        let (events, mut source_events) = mpsc::channel(SOURCE_EVENTS_MAX);
        let (sources_stop, sources_stopped) = watch::channel(false);
        let (sources, counters) = Sources::start(
            &self.config,
            &self.router,
            &(Arc::clone(&self.inbox) as _),
            &events,
            &sources_stopped,
            // Each listener takes a copy of its own; nobody needs them after that.
            &std::mem::take(&mut self.kept),
        );
        let _ = self.counters.set(counters.clone());
        let answered = {
            let counters = counters.clone();
            Box::new(move || counters.answered())
        };
        let extra = {
            let router = self.router.clone();
            Box::new(move || counters.metrics(&router))
        };
        let mut windows = JoinSet::new();
        self.serve_http(&mut windows, extra, answered).await;
        self.serve_control(&mut windows);
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
        let ended = self.finish(sources).await;
        // Whoever starts in this process next binds the same addresses.
        windows.shutdown().await;
        ended
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

    async fn serve_http(&self, windows: &mut JoinSet<()>, extra: Extra, answered: Answered) {
        let Some(address) = self.config.http.listen else { return };
        match http::bind(address).await {
            Ok(listener) => {
                let metrics = Arc::new(Metrics::new(Arc::clone(&self.shown), extra, answered));
                windows.spawn(http::serve(listener, metrics));
            }
            // Without its window the gateway still does its work (promise 5).
            Err(error) => tracing::error!(%address, %error, "failed to bind the HTTP port; there are no metrics"),
        }
    }

    fn serve_control(&self, windows: &mut JoinSet<()>) {
        let dir = &self.config.gateway.runtime_dir;
        let control = Control {
            shown: Arc::clone(&self.shown),
            inbox: Arc::clone(&self.inbox),
            spool: self.spool.clone(),
            lanes: self.config.lanes.iter().map(|l| l.name.clone()).collect(),
            reload: self.reload.clone(),
        };
        match control::bind(dir) {
            Ok(listener) => drop(windows.spawn(control::serve(listener, Arc::new(control)))),
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

    /// What the sources of earlier runs have kept: each belongs to the source that its key begins with.
    pub fn kept(&self) -> &[Fact] {
        &self.kept
    }

    pub fn watchdog(&self) -> Watchdog {
        Watchdog { inbox: self.inbox(), spool: self.requests(), counters: self.source_counters() }
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
        message_ids: config.spool.message_ids,
    }
}

fn build_hub(config: &Arc<Config>, inbox: &Arc<Inbox>, owner: Owner, opened: &Opened, shown: &Arc<Shown>) -> Hub {
    let lanes = build_lanes(config, opened);
    let ranks = Rank::all(&lanes.iter().map(|l| l.config.priority).collect::<Vec<_>>());
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
        .map(|(i, k)| Cluster::new(i, k.clone(), config.gateway.name.clone(), bytes_max, Arc::clone(inbox) as _))
        .map(|cluster| if config.spool.settle.is_some() { cluster.watching() } else { cluster });
    let producers = Producers {
        clusters: clusters.collect(),
        lanes: lanes.iter().zip(ranks_by_cluster(&lanes)).map(|(l, rank)| (l.config.kafka, l.number, rank)).collect(),
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
        ranks,
        events_lane: config.events_lane,
        producers,
        owner,
        events: EventWriter::new(config.events.topic.clone(), config.gateway.name.clone()),
        shown: Arc::clone(shown),
        set_aside: opened.set_aside.clone(),
        keeping: Keeping::default(),
        ids: Ids::new(known_ids(config, opened)),
        state,
    }
}

fn known_ids(config: &Config, opened: &Opened) -> MessageIds<Waiter> {
    let mut ids = MessageIds::new(config.spool.message_ids, crate::spool::schema::random_u64());
    opened.message_ids.iter().for_each(|batch| ids.load(&batch.ids, batch.at));
    ids
}

/// The configured lanes, then those that only the file knows: they drain until empty.
fn build_lanes(config: &Config, opened: &Opened) -> Vec<Lane> {
    let configs = opened.lanes.iter().enumerate();
    let configs = configs.map(|(i, l)| config.lanes.get(i).cloned().unwrap_or_else(|| drained(config, &l.name)));
    let configs: Vec<LaneConfig> = configs.collect();
    let ranks = Rank::all(&configs.iter().map(|l| l.priority).collect::<Vec<_>>());
    let windows = config::parts(config.memory.window, &ranks);
    let lane = |(index, (found, lane_config)): (usize, (&crate::spool::owner::OpenedLane, LaneConfig))| {
        let window_bytes_max = (windows[index] as usize).max(64 << 10);
        let start = Start {
            index,
            number: found.number,
            run: opened.run,
            last_row: found.last_row.max(row_base(found.number)),
            window_bytes_max,
        };
        Lane::new(lane_config, &start)
    };
    opened.lanes.iter().zip(configs).enumerate().map(lane).collect()
}

/// Of each lane, among those of its cluster.
fn ranks_by_cluster(lanes: &[Lane]) -> Vec<Rank> {
    let rank = |lane: &Lane| {
        let beside: Vec<&Lane> = lanes.iter().filter(|l| l.config.kafka == lane.config.kafka).collect();
        let ranks = Rank::all(&beside.iter().map(|l| l.config.priority).collect::<Vec<_>>());
        let own = beside.iter().zip(ranks).find(|(l, _)| l.index == lane.index);
        own.map_or(Rank::Lowest, |(_, rank)| rank)
    };
    lanes.iter().map(rank).collect()
}

/// As `default`, but nothing of it is evicted for its age or kept as history, and it is behind all others.
fn drained(config: &Config, name: &str) -> LaneConfig {
    tracing::warn!(lane = name, "the spool holds a lane that the config does not know: it drains as `default` does");
    let like = config.lanes.iter().find(|l| l.name == config::DEFAULT_LANE).cloned();
    LaneConfig {
        name: name.to_owned(),
        priority: i32::MIN,
        when_reason: "not in the config: drains".into(),
        delivery: config::Delivery::AtLeastOnce,
        max_age: None,
        keep: None,
        settle: None,
        ..like.expect("the configuration always has the default lane")
    }
}
