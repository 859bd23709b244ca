//! `forebay simulate`: the Edge Device Simulator.
//!
//! Plays edge devices with equipments that publish their status to the gateway, to any MQTT broker, or straight to Kafka; in rate mode
//! it publishes numbered messages as fast as asked. It counts every acknowledgement, and exits with 0 only if each
//! message that awaits one has it. `demo` and tests use [`run::run_devices`] and [`run::run_load`] in process.
//!
//! It stands outside of the gateway: it uses no stage of it, and no stage uses it.
//!
//! ```text
//! args -> devices (job, faults, payload) or load -> feed -> mqtt or kafka -> tally -> report
//! ```
//!
//! Exit codes: 0 all acknowledged; 64 the options make no sense; 66 a file cannot be read; 69 a client failed, as the
//! broker was away for too long or refused it; 75 stopped before everything was acknowledged.

pub mod args;
pub mod clock;
pub mod devices;
mod dice;
pub mod faults;
pub mod feed;
mod histogram;
mod job;
pub mod kafka;
pub mod load;
pub mod modbus;
pub mod mqtt;
pub mod payload;
pub mod pty;
pub mod report;
pub mod run;
mod serial;
pub mod tally;
pub mod topic;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use args::Plan;
pub use args::SimulateArgs;
use devices::DeviceOptions;
use load::LoadOptions;
use mqtt::Broker;
use mqtt::tls::TlsError;
use report::{Progress, Summary, say};
use run::{Event, Limits, Stop, Target};
use tokio::signal::unix::{SignalKind, signal};

/// What keeps a run from starting.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    #[error("read \"{0}\" as host:port")]
    Address(String),
    #[error("send more than 1000 messages/s to {host}, which is not this machine, without --allow-remote-load")]
    RemoteLoad { host: String },
    #[error("read the password from {}: {source}", path.display())]
    ReadPassword { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("make a Kafka producer: {0}")]
    Kafka(String),
    #[error("start: {0}")]
    Start(#[from] std::io::Error),
}

impl SimulateError {
    /// From sysexits.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Address(_) | Self::RemoteLoad { .. } | Self::Kafka(_) => 64,
            Self::ReadPassword { .. } | Self::Tls(_) => 66,
            Self::Start(_) => 71,
        }
    }
}

/// Runs the command to its end. Prints the summary to stdout and everything else to stderr.
#[expect(clippy::needless_pass_by_value, reason = "a subcommand owns its options")]
pub fn run(args: SimulateArgs) -> ExitCode {
    if let Some(args::Play::Serial(args)) = &args.play {
        return serial::run(args);
    }
    if let Some(args::Play::Modbus(args)) = &args.play {
        return modbus::run(args);
    }
    // One thread: the loader shares its machine with what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let summary = runtime.map_err(SimulateError::from).and_then(|runtime| runtime.block_on(simulate(&args)));
    match summary {
        Ok(summary) => {
            print_summary(&summary, args.wants_json());
            exit_code(&summary)
        }
        Err(error) => {
            say(&format!("failed to {error}"));
            error.exit_code().into()
        }
    }
}

fn exit_code(summary: &Summary) -> ExitCode {
    match (summary.is_complete(), summary.failures.is_empty()) {
        (true, _) => ExitCode::SUCCESS,
        (false, false) => 69.into(),
        (false, true) => 75.into(),
    }
}

fn print_summary(summary: &Summary, json: bool) {
    let text = match serde_json::to_string(summary) {
        Ok(text) if json => text + "\n",
        _ => summary.to_string(),
    };
    // A reader that has gone away has no use for it.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

async fn simulate(args: &SimulateArgs) -> Result<Summary, SimulateError> {
    let (plan, limits) = (args.plan().await?, args.limits());
    let stop = stop_on_signal()?;
    match plan {
        Plan::Devices(target, options) => simulate_devices(&target, options, limits, stop).await,
        Plan::Load(broker, options) => Ok(simulate_load(&broker, &options, limits, stop).await),
    }
}

async fn simulate_devices(
    target: &Target,
    options: DeviceOptions,
    limits: Limits,
    stop: Stop,
) -> Result<Summary, SimulateError> {
    let DeviceOptions { devices, equipments, seed, .. } = options;
    let instance = &limits.instance;
    say(&format!("instance {instance}: {devices} devices with {equipments} equipments each, seed {seed}"));
    let (progress, show) = shown(options.count);
    let summary = run::run_devices(target, options, limits, stop, show).await;
    progress.finish();
    summary
}

async fn simulate_load(broker: &Broker, options: &LoadOptions, limits: Limits, stop: Stop) -> Summary {
    let Broker { host, port, .. } = broker;
    say(&format!("instance {}: {} connections to {host}:{port}", limits.instance, options.connections));
    let (progress, show) = shown(options.count);
    let summary = run::run_load(broker, options, limits, stop, show).await;
    progress.finish();
    summary
}

fn shown(count: Option<u64>) -> (Arc<Progress>, impl Fn(Event) + Send + Sync + 'static) {
    let progress = Arc::new(Progress::new(count));
    let shown = Arc::clone(&progress);
    (progress, move |event| shown.show(&event))
}

/// The first SIGINT or SIGTERM asks for a summary after the last acknowledgements, a second one ends at once.
fn stop_on_signal() -> Result<Stop, SimulateError> {
    let (sender, stop) = Stop::channel();
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        for signals in 0.. {
            tokio::select! {
                _ = interrupted.recv() => {}
                _ = terminated.recv() => {}
            }
            if signals > 0 {
                std::process::exit(75);
            }
            say("waiting for the last acknowledgements; once more to end now");
            // Without a receiver there is nothing left to stop.
            let _ = sender.send(true);
        }
    });
    Ok(stop)
}
