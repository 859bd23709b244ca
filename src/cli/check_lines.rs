//! What `check` says of serial lines, and what it looks up on this machine: whether the ports may be opened.

use serde::Serialize;

use crate::config::{Config, Problem, SerialSource, Severity, units::show_size};
use crate::intake::serial::access::Accounts;
use crate::intake::serial::device::PortName;

pub fn line(source: &SerialSource) -> String {
    let s = source.settings;
    let parity = match s.parity {
        crate::config::Parity::None => 'N',
        crate::config::Parity::Even => 'E',
        crate::config::Parity::Odd => 'O',
    };
    let asked = if source.polls.is_empty() { String::new() } else { format!(", {} queries", source.polls.len()) };
    let volatile = if source.volatile { ", volatile: a crash may lose readings" } else { "" };
    format!(
        "{}: {} at {} {}{parity}{}, at most {} not accepted yet, as {}{asked}{volatile}",
        source.name,
        source.port,
        s.baud,
        s.data_bits,
        s.stop_bits,
        show_size(source.unacked_bytes_max),
        source.topic,
    )
}

#[derive(Serialize)]
pub struct JsonLine<'c> {
    name: &'c str,
    port: String,
    baud: u32,
    topic: &'c str,
    volatile: bool,
}

pub fn json(config: &Config) -> Vec<JsonLine<'_>> {
    let line = |source: &'_ SerialSource| (source.port.to_string(), source.settings.baud);
    let of = |source| {
        let (port, baud) = line(source);
        JsonLine { name: &source.name, port, baud, topic: &source.topic, volatile: source.volatile }
    };
    config.serial_sources.iter().map(of).collect()
}

/// A warning for each port that is there and may not be opened. One that is not there may be plugged in later.
pub fn rights(config: &Config) -> Vec<Problem> {
    let accounts = Accounts::read();
    let Some(user) = accounts.service() else { return Vec::new() };
    let warning = |source: &SerialSource| {
        let PortName::Path(path) = &source.port else { return None };
        let rights = accounts.rights(path).ok().filter(|rights| !rights.allow(&user))?;
        Some(Problem {
            severity: Severity::Warning,
            message: format!(
                "the user {} may not open {}: it belongs to {}:{} with mode {:04o}",
                user.name,
                path.display(),
                rights.owner,
                rights.group,
                rights.mode
            ),
            spot: None,
            note: None,
            help: Some(rights.help(path, &user)),
        })
    };
    config.serial_sources.iter().filter_map(warning).collect()
}
