//! The command line: what was typed, and one module for each subcommand.
//!
//! A subcommand brings its own `Args` and a `run` that returns an exit code of [`exit`]. The configuration is loaded
//! by the subcommands that need it, so `--version` and `--help` work beside a broken one.

mod ask;
mod check;
mod check_lines;
mod demo;
mod dlq;
pub mod exit;
mod init;
mod kafka;
mod log;
mod modbus;
mod passwd;
mod reload;
mod replay;
mod run;
mod serial;
mod service;
pub mod simulate;
mod spool;
mod status;
mod topics;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::config;

/// A dependable bridge from machines to Kafka.
#[derive(Parser)]
#[command(name = "forebay", version, arg_required_else_help = true)]
struct Cli {
    /// The configuration file; `conf.d/*.toml` beside it belongs to it.
    #[arg(long, global = true, value_name = "PATH", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway.
    Run(run::RunArgs),
    /// Have the running gateway check its configuration and go on with it.
    Reload,
    /// Check the configuration and show what it comes to.
    Check(check::CheckArgs),
    /// Write a configuration to begin with to the path of --config.
    Init(init::InitArgs),
    /// Show what the running gateway does.
    Status(status::StatusArgs),
    /// Look into the spool: what is undelivered, and what was lost.
    #[command(subcommand)]
    Spool(spool::SpoolCommand),
    /// The dead letters: records that Kafka will never take, or that no route could place.
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// Set, delete or list the users of a listener.
    Passwd(passwd::PasswdArgs),
    /// Serial ports: which there are, and what comes over them.
    #[command(subcommand)]
    Serial(serial::SerialCommand),
    /// Modbus devices: what they hold.
    #[command(subcommand)]
    Modbus(modbus::ModbusCommand),
    /// Compare the configured Kafka topics with the cluster, or make them.
    Topics(topics::TopicsArgs),
    /// Show the whole path on this machine, with an outage of Kafka. Needs nothing installed.
    Demo(demo::DemoArgs),
    /// Play edge devices against the gateway, a broker or Kafka, or load one.
    Simulate(Box<simulate::SimulateArgs>),
}

/// The command line as such, for man pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => run(cli),
        Err(error) => ExitCode::from(usage(&error)),
    }
}

fn run(cli: Cli) -> ExitCode {
    let code = match cli.command {
        Command::Run(args) => run::run(&cli.config, &args),
        Command::Reload => reload::run(&cli.config),
        Command::Check(args) => check::run(&cli.config, &args),
        Command::Init(args) => init::run(&cli.config, &args),
        Command::Status(args) => status::run(&cli.config, &args),
        Command::Spool(command) => spool::run(&cli.config, &command),
        Command::Dlq(command) => dlq::run(&cli.config, &command),
        Command::Passwd(args) => passwd::run(&args),
        Command::Serial(command) => serial::run(&cli.config, &command),
        Command::Modbus(command) => modbus::run(&cli.config, &command),
        Command::Topics(args) => topics_of(&cli.config, &args),
        Command::Demo(args) => demo::run(&args),
        Command::Simulate(args) => return simulate::run(*args),
    };
    ExitCode::from(code)
}

fn topics_of(path: &std::path::Path, args: &topics::TopicsArgs) -> u8 {
    match config::load(path) {
        Ok(loaded) => topics::run(&loaded.config, args),
        Err(problems) => {
            eprintln!("{problems}");
            exit::CONFIG
        }
    }
}

fn usage(error: &clap::Error) -> u8 {
    // Nobody is left to be told when even this cannot be printed.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => exit::OK,
        _ => exit::USAGE,
    }
}
