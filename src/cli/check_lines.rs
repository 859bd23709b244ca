//! What `check` says of serial and Modbus lines, and what it looks up on this machine: whether the ports may be opened.

use std::path::Path;

use serde::Serialize;

use crate::config::units::{show_duration, show_size};
use crate::config::{Config, Link, ModbusDevice, ModbusSource, Problem, SerialSource, Severity};
use crate::intake::modbus::plan::plan;
use crate::intake::modbus::register::Register;
use crate::intake::serial::access::{Accounts, User};
use crate::intake::serial::device::SYS;

pub fn line(source: &SerialSource) -> String {
    let s = source.settings;
    let parity = match s.parity {
        crate::config::Parity::None => 'N',
        crate::config::Parity::Even => 'E',
        crate::config::Parity::Odd => 'O',
    };
    let asked = if source.polls.is_empty() { String::new() } else { format!(", {} queries", source.polls.len()) };
    let rs485 = if s.rs485.is_some() { ", RS-485 switched by the driver" } else { "" };
    let report = if source.report.is_some() { ", by exception" } else { "" };
    let volatile = if source.volatile { ", volatile: a crash may lose readings" } else { "" };
    format!(
        "{}: {} at {} {}{parity}{}, at most {} not accepted yet, as {}{asked}{rs485}{report}{volatile}",
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

pub fn modbus(source: &ModbusSource) -> String {
    let volatile = if source.volatile { ", volatile: a crash may lose readings" } else { "" };
    let devices: Vec<String> = source.devices.iter().map(device).collect();
    format!(
        "{}: {}, at most {} not accepted yet, as {}{volatile}: {}",
        source.name,
        source.link,
        show_size(source.unacked_bytes_max),
        source.topic,
        devices.join("; ")
    )
}

/// How much is asked of it, and how often.
fn device(device: &ModbusDevice) -> String {
    let group = |group: &crate::config::ModbusGroup| {
        let name = group.name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        let requests = plan(group.registers.iter().map(Register::request), device.limits).len();
        let values = group.registers.len();
        format!("{name}{values} values in {requests} requests every {}", show_duration(group.interval))
    };
    let groups: Vec<String> = device.groups.iter().map(group).collect();
    format!("{} (unit {}) {}", device.name, device.unit, groups.join(", "))
}

#[derive(Serialize)]
pub struct JsonModbus<'c> {
    name: &'c str,
    line: String,
    topics: Vec<String>,
    volatile: bool,
}

pub fn json_modbus(config: &Config) -> Vec<JsonModbus<'_>> {
    let of = |source: &'_ ModbusSource| {
        let jobs = |(at, device): (usize, &ModbusDevice)| (0..device.groups.len()).map(move |group| (at, group));
        let jobs = source.devices.iter().enumerate().flat_map(jobs);
        jobs.map(|(device, group)| source.topic_of(device, group)).collect()
    };
    let one = |source| {
        let topics = of(source);
        JsonModbus { name: &source.name, line: source.link.to_string(), topics, volatile: source.volatile }
    };
    config.modbus_sources.iter().map(one).collect()
}

/// A warning for each port that is there and may not be opened. One that is not there may be plugged in later.
pub fn rights(config: &Config) -> Vec<Problem> {
    let accounts = Accounts::read();
    let Some(user) = accounts.service() else { return Vec::new() };
    // An adapter that is named by what it says of itself has a path only while it is plugged in.
    let serial = config.serial_sources.iter().map(|source| &source.port);
    let modbus = config.modbus_sources.iter().filter_map(|source| match &source.link {
        Link::Serial { port, .. } => Some(port),
        Link::Tcp { .. } => None,
    });
    let paths = serial.chain(modbus).filter_map(|port| port.find(Path::new(SYS)).ok());
    paths.filter_map(|path| barred(&path, &accounts, &user)).collect()
}

fn barred(path: &Path, accounts: &Accounts, user: &User) -> Option<Problem> {
    let rights = accounts.rights(path).ok().filter(|rights| !rights.allow(user))?;
    let message = format!(
        "the user {} may not open {}: it belongs to {}:{} with mode {:04o}",
        user.name,
        path.display(),
        rights.owner,
        rights.group,
        rights.mode
    );
    Some(Problem { severity: Severity::Warning, message, spot: None, note: None, help: Some(rights.help(path, user)) })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_port_that_may_not_be_opened_is_warned_of_by_either_of_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let (device, link) = (folder.path().join("ttyS7"), folder.path().join("usb-maker_scale"));
        std::fs::write(&device, "").unwrap();
        std::os::unix::fs::symlink(&device, &link).unwrap();
        let accounts = Accounts::read();
        let nobody = accounts.user("nobody").unwrap();
        let set = |mode| std::fs::set_permissions(&device, std::fs::Permissions::from_mode(mode)).unwrap();
        set(0o600);
        for name in [&device, &link] {
            let told = barred(name, &accounts, &nobody).unwrap();
            let start = format!("the user nobody may not open {}: it belongs to ", name.display());
            assert!(told.message.starts_with(&start) && told.message.ends_with("0600"), "{}", told.message);
            let help = told.help.unwrap();
            assert!(help.contains("KERNEL==\"ttyS7\"") && help.contains("usermod -aG dialout nobody"), "{help}");
        }
        set(0o666);
        assert!(barred(&link, &accounts, &nobody).is_none());
        assert!(barred(Path::new("/dev/does-not-exist"), &accounts, &nobody).is_none(), "it may be plugged in later");
    }
}
