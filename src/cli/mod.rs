//! The command line: what was typed, and one module for each subcommand.
//!
//! A subcommand brings its own `Args` and a `run` that returns an exit code of [`exit`]. The configuration is loaded
//! by the subcommands that need it, so `--version` and `--help` work beside a broken one.

mod check;
pub mod exit;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::config;

/// A dependable bridge from machines to Kafka.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, arg_required_else_help = true)]
struct Cli {
    /// The configuration file; `conf.d/*.toml` beside it belongs to it.
    #[arg(long, global = true, value_name = "PATH", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration and show what it comes to.
    Check(check::CheckArgs),
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let code = match Cli::try_parse() {
        Ok(cli) => run(&cli),
        Err(error) => usage(&error),
    };
    ExitCode::from(code)
}

fn run(cli: &Cli) -> u8 {
    match &cli.command {
        Command::Check(args) => check::run(&cli.config, args),
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
