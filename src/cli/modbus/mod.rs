//! `forebay modbus`: for whoever stands before a device with its manual in hand.

mod read;

use std::path::Path;

/// Modbus devices.
#[derive(Debug, clap::Subcommand)]
pub enum ModbusCommand {
    /// Read a device once: a configured one, or whatever the options say.
    Read(Box<read::ReadArgs>),
    /// The ready-made register maps.
    Maps,
}

pub fn run(config: &Path, command: &ModbusCommand) -> u8 {
    match command {
        ModbusCommand::Read(args) => read::run(config, args),
        ModbusCommand::Maps => read::maps(),
    }
}
