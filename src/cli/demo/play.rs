//! The play: gateway, witness and devices are started, Kafka goes and comes back, and the books are closed.
//!
//! Owns everything that runs and takes the numbers; it decides nothing about how they are shown. It ends the devices
//! before the gateway, and the gateway before the witness, so that each count is final when the next one is awaited.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::entry::Entry;
use super::kafka::{Counted, Witness};
use super::lines;
use super::stage::{Stage, TOPIC};
use super::story::{Numbers, Phase, Story, Verdict};
use super::{DemoArgs, DemoError};
use crate::cli::exit;
use crate::cli::simulate::devices::DeviceOptions;
use crate::cli::simulate::pty::Pty;
use crate::cli::simulate::run::{Event, Limits, Stop, Target, random_u64, run_devices};
use crate::gateway::{Counters, Gateway, GatewayError};
use crate::ops::snapshot::{LaneSnapshot, Shown};
use crate::spool::lane::Mode;

pub const DEVICES: u32 = 3;
pub const EQUIPMENTS: u32 = 4;
/// The field by which the witness tells readings apart: 26^16 values.
const ID_FIELD: &str = "id=string:16..16";
const LANE: &str = "default";

const READY_PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks whether the gateway can be reached: gauges tell nobody when they change.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// How long the embedded Kafka may take until the backlog has gone through and the lane is direct again.
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);
/// The same where a person has to bring Kafka back.
const PERSON_PATIENCE: Duration = Duration::from_secs(600);
/// How long the last readings may be on their way.
const LAST_PATIENCE: Duration = Duration::from_secs(30);

/// The demo while it runs.
pub struct Play {
    shown: Arc<Shown>,
    sources: Arc<OnceLock<Counters>>,
    witness: Witness,
    gateway: JoinHandle<Result<(), GatewayError>>,
    stop_gateway: watch::Sender<bool>,
    interrupted: watch::Receiver<bool>,
    /// What the devices have sent; with a broker between, what it has acknowledged to them.
    published: Arc<Mutex<u64>>,
    started: Instant,
    /// Plugged in, until the devices begin.
    lines: Vec<Pty>,
}

struct Devices {
    running: JoinHandle<Result<Spoken, DemoError>>,
    stop: watch::Sender<bool>,
}

/// What the devices count themselves.
struct Spoken {
    sent: u64,
    /// `None`: nobody has told them.
    acknowledged: Option<u64>,
    /// Must not be unplugged before all is read.
    _lines: Option<lines::Spoken>,
}

impl Play {
    /// From the start of the gateway to the verdict.
    ///
    /// # Errors
    /// What keeps it from its end. Everything is stopped then as well, by being dropped.
    pub async fn perform(stage: &mut Stage, story: &mut Story, args: &DemoArgs) -> Result<Verdict, DemoError> {
        let mut play = Self::start(stage)?;
        play.wait_until_reachable(stage).await?;
        let devices = play.start_devices(stage, args.rate);
        play.started = Instant::now();
        let told = play.tell_phases(stage, story, args).await;
        // Whatever happened: what was taken away comes back, or nothing could be counted.
        bring_back(stage)?;
        told?;
        story.phase(Phase::Count, stage.kafka.is_some());
        play.close_books(devices, stage.entry.has_broker()).await
    }

    fn start(stage: &mut Stage) -> Result<Self, DemoError> {
        let interrupted = listen_for_signals()?;
        let lines = if let Entry::Lines(ports) = &stage.entry { lines::plug(ports)? } else { Vec::new() };
        let witness = Witness::start(&stage.bootstrap_servers, TOPIC, &stage.config.gateway.name)?;
        let gateway = Gateway::start(stage.config.clone())?;
        let (shown, sources) = (gateway.shown(), gateway.source_counters());
        let (stop_gateway, stopped) = watch::channel(false);
        stage.release_port();
        let gateway = tokio::spawn(gateway.run(stopped, || ()));
        let (published, started) = (Arc::default(), Instant::now());
        Ok(Self { shown, sources, witness, gateway, stop_gateway, interrupted, published, started, lines })
    }

    /// The listener is bound, the subscription stands, or the lines are open: what is said before would be nobody's, as a
    /// broker drops what no one has subscribed to.
    async fn wait_until_reachable(&self, stage: &Stage) -> Result<(), DemoError> {
        let started = Instant::now();
        while self.sources.get().map_or(0, Counters::ready) < stage.entry.doors() {
            if started.elapsed() > READY_PATIENCE || *self.interrupted.borrow() {
                return Err(stage.entry.closed(started.elapsed().as_secs()));
            }
            self.check_gateway()?;
            sleep(LOOK_PAUSE).await;
        }
        Ok(())
    }

    fn start_devices(&mut self, stage: &Stage, rate: u32) -> Devices {
        let options = device_options(rate);
        let (instance, published) = (stage.instance.clone(), Arc::clone(&self.published));
        let note = move |readings: u64| *published.lock().unwrap_or_else(PoisonError::into_inner) = readings;
        let (stop, told) = Stop::channel();
        let running = match &stage.entry {
            Entry::Lines(_) => {
                let lines = std::mem::take(&mut self.lines);
                tokio::spawn(async move {
                    let spoken = lines::speak(lines, options, &instance, told, note).await?;
                    Ok(Spoken { sent: spoken.sent, acknowledged: None, _lines: Some(spoken) })
                })
            }
            Entry::Listener(server) | Entry::Broker(server) => {
                let (target, has_broker) = (Target::Mqtt(server.clone()), stage.entry.has_broker());
                let limits = Limits { instance, ..Limits::new() };
                tokio::spawn(async move {
                    let note = move |event: Event| {
                        if let Event::Progress(counts) = event {
                            note(if has_broker { counts.acknowledged } else { counts.sent });
                        }
                    };
                    let summary = run_devices(&target, options, limits, told, note).await?;
                    Ok(Spoken { sent: summary.sent, acknowledged: Some(summary.acknowledged), _lines: None })
                })
            }
        };
        Devices { running, stop }
    }

    async fn tell_phases(&mut self, stage: &Stage, story: &mut Story, args: &DemoArgs) -> Result<(), DemoError> {
        let length = Duration::from_secs(args.seconds.into());
        let embedded = stage.kafka.is_some();
        story.phase(Phase::Well, embedded);
        self.tell_for(length, story).await?;
        if *self.interrupted.borrow() {
            return Ok(());
        }
        if let Some(kafka) = &stage.kafka {
            kafka.take_away().map_err(DemoError::Kafka)?;
        }
        story.phase(Phase::Away, embedded);
        self.tell_for(length, story).await?;
        if *self.interrupted.borrow() {
            return Ok(());
        }
        bring_back(stage)?;
        story.phase(Phase::Back, embedded);
        let patience = if embedded { DRAIN_PATIENCE } else { PERSON_PATIENCE };
        self.tell_until_direct(patience, stage.entry.is_serial(), story).await
    }

    /// One line a second.
    async fn tell_for(&mut self, length: Duration, story: &mut Story) -> Result<(), DemoError> {
        let over = Instant::now() + length;
        let mut seconds = seconds();
        seconds.tick().await;
        while Instant::now() < over && !*self.interrupted.borrow() {
            tokio::select! {
                _ = seconds.tick() => story.line(&self.numbers()),
                () = interruption(self.interrupted.clone()) => {}
            }
            self.check_gateway()?;
        }
        Ok(())
    }

    /// Until all that waited is in Kafka, and the lane goes straight there again unless it `commits_first` always.
    async fn tell_until_direct(
        &mut self,
        patience: Duration,
        commits_first: bool,
        story: &mut Story,
    ) -> Result<(), DemoError> {
        let started = Instant::now();
        let before = self.numbers();
        let mut counts = self.witness.counts();
        let mut drained = before.in_spool == 0;
        let mut seconds = seconds();
        seconds.tick().await;
        while started.elapsed() < patience && !*self.interrupted.borrow() {
            tokio::select! {
                _ = seconds.tick() => {
                    story.line(&self.numbers());
                    if drained && (commits_first || self.numbers().mode == Mode::Direct) { break }
                }
                Ok(_) = counts.wait_for(|c| c.distinct >= before.acknowledged), if !drained => {
                    drained = true;
                    story.drained(before.in_spool, started.elapsed());
                }
                () = interruption(self.interrupted.clone()) => {}
            }
            self.check_gateway()?;
        }
        Ok(())
    }

    /// Devices, then the readings on their way, then the gateway, then the witness.
    async fn close_books(self, devices: Devices, has_broker: bool) -> Result<Verdict, DemoError> {
        // Nobody to tell means that the devices have ended already.
        let _ = devices.stop.send(true);
        let spoken = devices.running.await.map_err(|_| DemoError::GatewayEnded)??;
        let mut counts = self.witness.counts();
        let told = spoken.acknowledged.unwrap_or(spoken.sent);
        let all = counts.wait_for(|counted| counted.distinct >= told);
        // Out of patience: the verdict tells what is missing.
        let _ = timeout(LAST_PATIENCE, all).await;
        let _ = self.stop_gateway.send(true);
        self.gateway.await.map_err(|_| DemoError::GatewayEnded)??;
        let (published, acknowledged) = match spoken.acknowledged {
            Some(told) if has_broker => (told, acknowledged(&self.sources)),
            // The devices' own count: nobody else could say what they were told.
            Some(told) => (spoken.sent, told),
            None => (spoken.sent, acknowledged(&self.sources)),
        };
        let in_spool = lane(&self.shown).map_or(0, |lane| lane.stats.backlog.records);
        // Joins a thread, for a tenth of a second at most; nothing else runs any more.
        let Counted { distinct, repeated } = self.witness.finish();
        Ok(Verdict::new(published, acknowledged, distinct, in_spool, repeated))
    }

    fn numbers(&self) -> Numbers {
        let acknowledged = acknowledged(&self.sources);
        let counted = self.witness.counted();
        let published = *self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lane(&self.shown);
        Numbers {
            seconds: self.started.elapsed().as_secs(),
            // The devices' count comes four times a second; whatever is further along the path was published before.
            published: published.max(acknowledged).max(counted.distinct),
            acknowledged,
            in_spool: lane.as_ref().map_or(0, |lane| lane.stats.backlog.records),
            in_kafka: counted.distinct,
            mode: lane.map_or(Mode::Direct, |lane| lane.mode),
        }
    }

    fn check_gateway(&self) -> Result<(), DemoError> {
        if self.gateway.is_finished() { Err(DemoError::GatewayEnded) } else { Ok(()) }
    }
}

fn device_options(rate: u32) -> DeviceOptions {
    let machines = f64::from(DEVICES * EQUIPMENTS);
    DeviceOptions {
        devices: DEVICES,
        equipments: EQUIPMENTS,
        interval: Duration::from_secs_f64(machines / f64::from(rate)),
        topic: Stage::device_topic().parse().expect("the template is a constant that a test reads"),
        fields: vec![ID_FIELD.parse().expect("the field is a constant that a test reads")],
        seed: random_u64(),
        ..DeviceOptions::default()
    }
}

fn bring_back(stage: &Stage) -> Result<(), DemoError> {
    stage.kafka.as_ref().map_or(Ok(()), |kafka| kafka.bring_back().map_err(DemoError::Kafka))
}

/// What the gateway has acknowledged, or accepted where nobody waits for an answer.
fn acknowledged(sources: &OnceLock<Counters>) -> u64 {
    sources.get().map_or(0, Counters::acknowledged)
}

fn lane(shown: &Shown) -> Option<LaneSnapshot> {
    shown.get().lanes.into_iter().find(|lane| lane.name == LANE)
}

fn seconds() -> tokio::time::Interval {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    seconds
}

/// Ends when the person wants the end. Cancel safe: the word stays said.
async fn interruption(mut interrupted: watch::Receiver<bool>) {
    if interrupted.wait_for(|told| *told).await.is_err() {
        // Nobody listens for signals any more, so none will be heard.
        std::future::pending::<()>().await;
    }
}

/// The first SIGINT or SIGTERM leads to the count, a second one out at once.
fn listen_for_signals() -> Result<watch::Receiver<bool>, DemoError> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (tell, interrupted) = watch::channel(false);
    tokio::spawn(async move {
        for signals in 0.. {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            if signals > 0 {
                eprintln!("stopped before the count; the gateway's directory stays");
                std::process::exit(exit::TEMPFAIL.into());
            }
            let _ = tell.send(true);
        }
    });
    Ok(interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_devices_keep_the_rate() {
        for rate in [1, 30, 1000] {
            let options = device_options(rate);
            let per_second = f64::from(options.devices * options.equipments) / options.interval.as_secs_f64();
            assert!((per_second - f64::from(rate)).abs() < 0.01 * f64::from(rate), "{per_second} for {rate}");
        }
    }
}
