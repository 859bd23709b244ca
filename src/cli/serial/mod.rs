//! `forebay serial`: for whoever stands before a machine with a cable in hand.

mod list;
mod sniff;

use std::path::Path;

/// The serial ports of this machine.
#[derive(Debug, clap::Subcommand)]
pub enum SerialCommand {
    /// The ports: their lasting names, drivers, and who may open them.
    List(list::ListArgs),
    /// Show what comes over a line, as the configuration or the options cut it into frames.
    Sniff(Box<sniff::SniffArgs>),
}

pub fn run(config: &Path, command: &SerialCommand) -> u8 {
    match command {
        SerialCommand::List(args) => list::run(args),
        SerialCommand::Sniff(args) => sniff::run(config, args),
    }
}
