//! `forebay dlq`: the dead letters, their causes, and the way back.

use std::path::Path;

use super::ask::{Access, Failure, print_line};
use super::exit;
use crate::ops::control::Question;

#[derive(Debug, clap::Subcommand)]
pub enum DlqCommand {
    /// All dead letters, one a line: number, when, cause, topic and key.
    List {
        /// JSON objects instead.
        #[arg(long)]
        json: bool,
    },
    /// One dead letter whole, with headers and payload, as JSON.
    Show { id: i64 },
    /// Sends dead letters again, at the tail of their lane, with their old ids.
    Requeue(Chosen),
    /// Gives dead letters up; the loss ledger says so.
    Drop(Chosen),
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Chosen {
    /// Their numbers.
    ids: Vec<i64>,
    /// All of them.
    #[arg(long)]
    all: bool,
}

/// Letters moved by one question.
const BATCH: usize = 50;

pub fn run(config: &Path, command: &DlqCommand) -> u8 {
    match answer(config, command) {
        Ok(()) => exit::OK,
        Err(failure) => failure.tell(),
    }
}

fn answer(config: &Path, command: &DlqCommand) -> Result<(), Failure> {
    let (mut access, _) = Access::open(config)?;
    match command {
        DlqCommand::List { json } => for_each(&mut access, |letter| {
            if *json {
                print_line(&letter.to_string());
            } else {
                print_line(&line(letter));
            }
        }),
        DlqCommand::Show { id } => {
            let letter = access.ask(&Question::DeadShow { id: *id })?;
            print_line(&serde_json::to_string_pretty(&letter).unwrap_or_default());
            Ok(())
        }
        DlqCommand::Requeue(chosen) => move_all(&mut access, chosen, "requeued", |ids| Question::DeadRequeue { ids }),
        DlqCommand::Drop(chosen) => move_all(&mut access, chosen, "dropped", |ids| Question::DeadDrop { ids }),
    }
}

fn line(letter: &serde_json::Value) -> String {
    let text = |name: &str| letter[name].as_str().unwrap_or("-").to_owned();
    format!("{:>6}  {}  {}  key {}  {}", letter["id"], letter["at"], text("topic"), text("key"), text("cause"))
}

fn for_each(access: &mut Access, mut visit: impl FnMut(&serde_json::Value)) -> Result<(), Failure> {
    let mut after = 0;
    loop {
        let page = access.ask(&Question::DeadPage { after })?;
        let letters = page["letters"].as_array().cloned().unwrap_or_default();
        let Some(last) = letters.last().and_then(|l| l["id"].as_i64()) else { return Ok(()) };
        letters.iter().for_each(&mut visit);
        after = last;
    }
}

fn move_all(
    access: &mut Access,
    chosen: &Chosen,
    word: &str,
    question: impl Fn(Vec<i64>) -> Question,
) -> Result<(), Failure> {
    let mut ids = chosen.ids.clone();
    if chosen.all {
        for_each(access, |letter| ids.extend(letter["id"].as_i64()))?;
    }
    let mut moved = 0;
    for batch in ids.chunks(BATCH) {
        moved += access.ask(&question(batch.to_vec()))?[word].as_u64().unwrap_or_default();
    }
    print_line(&format!("{word} {moved} of {}", ids.len()));
    // With --all one may have gone its way meanwhile.
    if !chosen.all && moved < ids.len() as u64 {
        let missing = ids.len() as u64 - moved;
        return Err(Failure::new(exit::DATAERR, format!("find {missing} of these numbers; `dlq list` shows them")));
    }
    Ok(())
}
