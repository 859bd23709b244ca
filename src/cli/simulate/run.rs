//! A run of the simulator: many clients at once, one tally, one stop. Owns when it begins and ends.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::SimulateError;
use super::clock::Clock;
use super::devices::{DeviceFeed, DeviceOptions};
use super::feed::Feed;
use super::kafka::{self, KafkaTarget};
use super::load::{LoadFeed, LoadOptions};
use super::mqtt::{Broker, Publisher, Qos};
use super::report::Summary;
use super::tally::{Counts, Tally};

/// What holds for devices and load alike.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The producer id of this run: unique, part of every client id and message id.
    pub instance: String,
    pub qos: Qos,
    /// Unacknowledged messages of one connection.
    pub window: u16,
    /// Stops by itself after this time.
    pub duration: Option<Duration>,
    /// How long a stopped run waits for the last acknowledgements.
    pub drain: Duration,
    /// A client that was without a connection for this long fails; `None`: never.
    pub give_up: Option<Duration>,
}

impl Limits {
    /// QoS 1 with a window of 100, until stopped, under a new random instance.
    pub fn new() -> Self {
        Self {
            instance: random_instance(),
            qos: Qos::AtLeastOnce,
            window: 100,
            duration: None,
            drain: Duration::from_secs(10),
            give_up: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

/// Eight hexadecimal digits that no other run has.
fn random_instance() -> String {
    format!("{:08x}", random_u64() as u32)
}

/// A number that nobody could foresee, for instances and for seeds that were not chosen.
pub fn random_u64() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one("instance")
}

/// Where devices publish.
#[derive(Debug, Clone)]
pub enum Target {
    Mqtt(Broker),
    Kafka(KafkaTarget),
}

/// What a run tells while it goes on.
#[derive(Debug, Clone)]
pub enum Event {
    Connected {
        client_id: String,
    },
    Disconnected {
        client_id: String,
        reason: String,
    },
    CannotConnect {
        client_id: String,
        reason: String,
    },
    /// Every quarter of a second.
    Progress(Box<Counts>),
}

type Listener = dyn Fn(Event) + Send + Sync;

/// Brokers have a backlog of 100 (Mosquitto) to 128 connections that nobody has accepted yet.
const DIALING_MAX: usize = 64;
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// What all clients of a run share.
pub struct Run {
    pub limits: Limits,
    pub tally: Arc<Tally>,
    pub clock: Clock,
    /// A permit for each connection that is being opened.
    pub dialing: Semaphore,
    listener: Box<Listener>,
}

impl Run {
    fn start(limits: Limits, listener: impl Fn(Event) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            limits,
            tally: Arc::default(),
            clock: Clock::start(),
            dialing: Semaphore::new(DIALING_MAX),
            listener: Box::new(listener),
        })
    }

    pub fn tell(&self, event: Event) {
        (self.listener)(event);
    }
}

/// Told to many, once: finish what is outstanding and end.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// The sender stops everything by sending `true`, or by being dropped.
    pub fn channel() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Ends when told to stop. Cancel safe: the word stays said.
    pub async fn stopped(&mut self) {
        // An error means that the sender is gone, and nobody could tell us any more.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// How one client ended.
#[derive(Debug)]
pub struct Outcome {
    pub client_id: String,
    pub sent: u64,
    /// The ids of the messages that are neither acknowledged nor refused, oldest first.
    pub unacknowledged: Vec<String>,
    pub failure: Option<String>,
}

/// Plays devices until their count is reached or `stop` is told. `listener` is called from the clients' tasks.
///
/// # Errors
/// Only what keeps the run from starting. Clients that fail are in the summary.
pub async fn run_devices(
    target: &Target,
    options: DeviceOptions,
    limits: Limits,
    stop: Stop,
    listener: impl Fn(Event) + Send + Sync + 'static,
) -> Result<Summary, SimulateError> {
    let run = Run::start(limits, listener);
    let (options, instance) = (Arc::new(options), run.limits.instance.clone());
    let feeds: Vec<_> =
        (0..options.devices).map(|device| DeviceFeed::new(&options, &instance, device, &run.tally)).collect();
    let outcomes = match target {
        Target::Mqtt(broker) => publish_all(&run, broker, feeds, stop).await,
        Target::Kafka(target) => {
            let producer = Arc::new(kafka::Producer::new(target, &run)?);
            drive_all(&run, feeds, stop, |_, feed, stop| Arc::clone(&producer).publish(feed, stop)).await
        }
    };
    Ok(Summary::new(&run, outcomes))
}

/// Publishes a load until its count is reached or `stop` is told. `listener` is called from the clients' tasks.
pub async fn run_load(
    broker: &Broker,
    options: &LoadOptions,
    limits: Limits,
    stop: Stop,
    listener: impl Fn(Event) + Send + Sync + 'static,
) -> Summary {
    let run = Run::start(limits, listener);
    let feeds = (0..options.connections).map(|n| LoadFeed::new(options, &run.limits.instance, n)).collect();
    let outcomes = publish_all(&run, broker, feeds, stop).await;
    Summary::new(&run, outcomes)
}

async fn publish_all<F: Feed>(run: &Arc<Run>, broker: &Broker, feeds: Vec<F>, stop: Stop) -> Vec<Outcome> {
    let broker = Arc::new(broker.clone());
    drive_all(run, feeds, stop, |number, feed, stop| Publisher::new(run, &broker, number, feed, stop).publish()).await
}

/// Starts a client for each feed, and waits for all of them. In order of the feeds.
async fn drive_all<F, C>(
    run: &Arc<Run>,
    feeds: Vec<F>,
    mut stop: Stop,
    client: impl Fn(usize, F, Stop) -> C,
) -> Vec<Outcome>
where
    C: Future<Output = Outcome> + Send + 'static,
{
    let (ending, told) = Stop::channel();
    let mut clients = JoinSet::new();
    for (number, feed) in feeds.into_iter().enumerate() {
        let client = client(number, feed, told.clone());
        clients.spawn(async move { (number, client.await) });
    }
    let mut over = std::pin::pin!(sleep(run.limits.duration.unwrap_or(Duration::MAX)));
    let mut progress = interval(PROGRESS_INTERVAL);
    progress.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut outcomes, mut ended) = (Vec::new(), false);
    loop {
        tokio::select! {
            joined = clients.join_next() => match joined {
                Some(outcome) => outcomes.push(outcome.unwrap_or_else(|error| panicked(&error))),
                None => break,
            },
            _ = progress.tick() => run.tell(Event::Progress(Box::new(run.tally.counts()))),
            () = stop.stopped(), if !ended => ended = ending.send(true).is_ok(),
            () = &mut over, if !ended => ended = ending.send(true).is_ok(),
        }
    }
    outcomes.sort_by_key(|(number, _)| *number);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// A client that panicked leaves no numbers behind; that it did is a failure of the run.
fn panicked(error: &tokio::task::JoinError) -> (usize, Outcome) {
    let failure = Some(error.to_string());
    (usize::MAX, Outcome { client_id: "unknown".into(), sent: 0, unacknowledged: Vec::new(), failure })
}
