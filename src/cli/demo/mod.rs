//! `forebay demo`: the whole path of a reading in one process, with an outage of Kafka to watch. Needs nothing installed.
//!
//! ```text
//! devices (simulate) -> the gateway itself -> Kafka (kafka.rs) -> witness (kafka.rs)
//! ```
//!
//! `stage` sets all of that up, `play` runs the phases and takes the numbers, `story` is what a person reads. The gateway
//! is the one that `run` starts, from a configuration file in a directory of its own; nothing here helps it. Devices publish
//! to its listener, or to a broker of one's own, from which it reads, or speak on serial lines (`lines`). A Kafka of one's own can take the place of the
//! embedded one.
//!
//! Exit codes: 0 everything acknowledged is in Kafka; 64 an option makes no sense; 69 a broker or Kafka does not answer;
//! 70 something acknowledged is lost; 75 something is still on its way, and where it is is kept.

mod entry;
mod kafka;
mod lines;
mod play;
mod stage;
mod story;

use super::exit;
use super::kafka::ClusterError;
use crate::config::Problems;
use crate::gateway::GatewayError;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use play::Play;
use stage::Stage;
use story::Story;

#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Length of the first two phases, in seconds: with Kafka, and without it
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Readings per second of all devices together
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Put this MQTT broker between devices and gateway, instead of the gateway's own listener (no login, no TLS)
    #[arg(long, value_name = "HOST:PORT")]
    mqtt: Option<String>,
    /// Put the devices on serial lines (pseudo terminals) instead of MQTT
    #[arg(long, conflicts_with = "mqtt")]
    serial: bool,
    /// Use this Kafka instead of the embedded one (no login, no TLS). Missing topics are created. Taking it away is up to
    /// you
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// Keep the gateway's directory with its configuration and spool
    #[arg(long)]
    keep: bool,
    /// Print one JSON document at the end; the story goes to stderr
    #[arg(long)]
    json: bool,
    /// Show what the gateway logs, not only its warnings
    #[arg(long)]
    verbose: bool,
}

/// What keeps the demo from its end.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("read \"{0}\" as host:port")]
    Address(String),
    #[error("make the directory {dir}: {source}")]
    Directory { dir: String, source: std::io::Error },
    #[error("run the embedded Kafka: {0}")]
    Kafka(String),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("count what is in Kafka: {0}")]
    Witness(#[from] kafka::WitnessError),
    #[error("make a configuration of these options:\n{0}")]
    Config(#[from] Problems),
    #[error("start the gateway: {0}")]
    Gateway(#[from] GatewayError),
    #[error("subscribe at the MQTT broker {host}:{port}: no answer in {seconds} s")]
    NoBroker { host: String, port: u16, seconds: u64 },
    #[error("listen at {host}:{port}: not possible within {seconds} s")]
    NotListening { host: String, port: u16, seconds: u64 },
    #[error("open the serial lines: not possible within {seconds} s")]
    NoLines { seconds: u64 },
    #[error("go on: the gateway has ended by itself")]
    GatewayEnded,
    #[error("start the devices: {0}")]
    Devices(#[from] super::simulate::SimulateError),
    #[error("start: {0}")]
    System(#[from] std::io::Error),
}

impl DemoError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Address(_) | Self::Config(_) => exit::USAGE,
            Self::Cluster(error) => error.exit_code(),
            Self::Witness(_) | Self::NoBroker { .. } => exit::UNAVAILABLE,
            Self::Directory { .. }
            | Self::NotListening { .. }
            | Self::NoLines { .. }
            | Self::Kafka(_)
            | Self::System(_) => exit::OSERR,
            Self::Gateway(_) | Self::GatewayEnded | Self::Devices(_) => exit::SOFTWARE,
        }
    }
}

/// Runs the command to its end.
pub fn run(args: &DemoArgs) -> u8 {
    log_to_stderr(args.verbose);
    match show(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("failed to {error}");
            error.exit_code()
        }
    }
}

/// The gateway's own words only, and short: librdkafka complains at length about an outage that is part of the story.
fn log_to_stderr(verbose: bool) {
    let level = if verbose { LevelFilter::INFO } else { LevelFilter::WARN };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_target(false);
    let gateway = Targets::new().with_target("forebay", level);
    // A second logger in one process is not worth a failure.
    let _ = tracing_subscriber::registry().with(lines.without_time()).with(gateway).try_init();
}

fn show(args: &DemoArgs) -> Result<u8, DemoError> {
    // It holds the embedded Kafka, so it is dropped last: the clients inside the gateway go first.
    let mut stage = Stage::set_up(args)?;
    let mut story = Story::new(args.json, &stage.entry);
    story.opening(&stage, args);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let verdict = runtime.block_on(Play::perform(&mut stage, &mut story, args))?;
    stage.leave(&verdict, args.keep, &mut story);
    story.verdict(&verdict);
    Ok(verdict.exit_code())
}
