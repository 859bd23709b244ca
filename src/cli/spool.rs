//! `forebay spool`: what is undelivered, as JSON lines if wanted, and what was lost.

use std::path::Path;

use super::ask::{Access, Failure, print_line};
use super::{exit, replay};
use crate::ops::control::Question;

#[derive(Debug, clap::Subcommand)]
pub enum SpoolCommand {
    /// Undelivered records, dead letters and losses, counted, as JSON.
    Status,
    /// The loss ledger, a JSON object a line.
    Losses,
    /// Every undelivered record, a JSON object a line.
    Export {
        /// Of this lane only.
        #[arg(long)]
        lane: Option<String>,
    },
    /// Sends delivered records that the lane's `keep` has kept once more, with their ids and the header
    /// `forebay-replay`.
    Replay(replay::ReplayArgs),
    /// Gives all undelivered records of a lane up; the loss ledger says so.
    Purge {
        lane: String,
        /// Without this nothing is purged.
        #[arg(long)]
        yes: bool,
    },
}

pub fn run(config: &Path, command: &SpoolCommand) -> u8 {
    match answer(config, command) {
        Ok(()) => exit::OK,
        Err(failure) => failure.tell(),
    }
}

fn answer(config: &Path, command: &SpoolCommand) -> Result<(), Failure> {
    let (mut access, config) = Access::open(config)?;
    match command {
        SpoolCommand::Replay(args) => replay::run(&mut access, &config, args)?,
        SpoolCommand::Status => print_line(&access.ask(&Question::Lanes)?.to_string()),
        SpoolCommand::Losses => {
            let answer = access.ask(&Question::Losses)?;
            answer["losses"].as_array().into_iter().flatten().for_each(|l| print_line(&l.to_string()));
        }
        SpoolCommand::Export { lane } => export(&mut access, lane.as_deref())?,
        SpoolCommand::Purge { lane, yes: true } => {
            print_line(&access.ask(&Question::Purge { lane: lane.clone() })?.to_string());
        }
        SpoolCommand::Purge { lane, yes: false } => {
            let message = format!("purge {lane}: say --yes, for what is undelivered will be lost");
            return Err(Failure::new(exit::USAGE, message));
        }
    }
    Ok(())
}

fn export(access: &mut Access, only: Option<&str>) -> Result<(), Failure> {
    let lanes = access.ask(&Question::Lanes)?;
    let mut known = Vec::new();
    for lane in lanes["lanes"].as_array().into_iter().flatten() {
        let name = lane["name"].as_str().unwrap_or_default();
        known.push(name.to_owned());
        if only.is_none_or(|o| o == name) {
            export_lane(access, lane["lane"].as_u64().unwrap_or_default() as u32)?;
        }
    }
    match only.filter(|o| !known.iter().any(|k| k == o)) {
        Some(o) => Err(Failure::new(exit::DATAERR, format!("find lane \"{o}\"; there are: {}", known.join(", ")))),
        None => Ok(()),
    }
}

fn export_lane(access: &mut Access, lane: u32) -> Result<(), Failure> {
    let mut after = 0;
    loop {
        let page = access.ask(&Question::ExportPage { lane, after })?;
        page["records"].as_array().into_iter().flatten().for_each(|r| print_line(&r.to_string()));
        match page["next"].as_i64() {
            Some(next) => after = next,
            None => return Ok(()),
        }
    }
}
