//! `forebay serial list`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::cli::ask::print_line;
use crate::cli::exit;
use crate::intake::serial::access::Accounts;
use crate::intake::serial::device::{SYS, Tty, list};

/// Links that udev keeps, by what stays the same when an adapter is plugged in again.
const BY_ID: &str = "/dev/serial/by-id";

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Print one JSON document for scripts.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Port {
    device: PathBuf,
    by_id: Option<PathBuf>,
    driver: String,
    usb: Option<String>,
    serial: Option<String>,
    model: Option<String>,
    owner: Option<String>,
    group: Option<String>,
    mode: Option<String>,
    /// Whether the service's user may open it; `None`: nobody knows.
    allowed: Option<bool>,
    #[serde(skip)]
    help: Option<String>,
}

pub fn run(args: &ListArgs) -> u8 {
    let ttys = match list(Path::new(SYS)) {
        Ok(ttys) => ttys,
        Err(error) => {
            eprintln!("failed to list the serial ports: {error}");
            return exit::OSERR;
        }
    };
    let (links, accounts) = (links(Path::new(BY_ID)), Accounts::read());
    let ports: Vec<Port> = ttys.into_iter().map(|tty| port(tty, &links, &accounts)).collect();
    if args.json {
        print_line(&serde_json::to_string_pretty(&ports).unwrap_or_default());
    } else if ports.is_empty() {
        print_line("no serial port is plugged in");
    } else {
        ports.iter().flat_map(text).for_each(|line| print_line(&line));
    }
    exit::OK
}

/// From a device to the link that points to it.
fn links(folder: &Path) -> BTreeMap<PathBuf, PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.path().canonicalize().ok()?, entry.path()))).collect()
}

fn port(tty: Tty, links: &BTreeMap<PathBuf, PathBuf>, accounts: &Accounts) -> Port {
    let rights = accounts.rights(&tty.path).ok();
    let user = accounts.service();
    let allowed = rights.as_ref().zip(user.as_ref()).map(|(rights, user)| rights.allow(user));
    let barred = rights.as_ref().zip(user.as_ref()).filter(|_| allowed == Some(false));
    let usb = tty.usb.as_ref();
    Port {
        by_id: links.get(&tty.path).cloned(),
        usb: usb.map(|usb| format!("{:04x}:{:04x}", usb.vendor, usb.product)),
        serial: usb.and_then(|usb| usb.serial.clone()),
        model: usb.and_then(|usb| usb.model.clone()),
        owner: rights.as_ref().map(|rights| rights.owner.clone()),
        group: rights.as_ref().map(|rights| rights.group.clone()),
        mode: rights.as_ref().map(|rights| format!("{:04o}", rights.mode)),
        allowed,
        help: barred.map(|(rights, user)| format!("{} may not: {}", user.name, rights.help(&tty.path, user))),
        driver: tty.driver,
        device: tty.path,
    }
}

fn text(port: &Port) -> Vec<String> {
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
    let mut usb = port.usb.as_ref().map(|id| format!("  usb {id}")).unwrap_or_default();
    if let Some(serial) = &port.serial {
        usb += &format!(" serial {serial}");
    }
    let mut lines = vec![format!(
        "{}  {}{usb}  {}:{} {}",
        port.device.display(),
        port.driver,
        or(&port.owner),
        or(&port.group),
        or(&port.mode)
    )];
    lines.extend(port.by_id.iter().map(|link| format!("    {}", link.display())));
    lines.extend(port.model.iter().map(|model| format!("    {model}")));
    lines.extend(port.help.iter().map(|help| format!("    {help}")));
    lines
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::intake::serial::device::Usb;

    #[test]
    fn a_port_is_shown_with_its_lasting_name() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().canonicalize().unwrap().join("ttyUSB0");
        std::fs::write(&device, "").unwrap();
        let by_id = folder.path().join("by-id");
        std::fs::create_dir(&by_id).unwrap();
        std::os::unix::fs::symlink(&device, by_id.join("usb-FTDI_A5-if00-port0")).unwrap();
        let usb = Usb { vendor: 0x403, product: 0x6001, serial: Some("A5".to_owned()), ..Usb::default() };
        let tty = Tty { path: device.clone(), driver: "ftdi_sio".to_owned(), usb: Some(usb) };
        let lines = text(&port(tty, &links(&by_id), &Accounts::read()));
        assert!(lines[0].starts_with(&format!("{}  ftdi_sio  usb 0403:6001 serial A5", device.display())), "{lines:?}");
        assert!(lines[1].ends_with("by-id/usb-FTDI_A5-if00-port0"), "{lines:?}");
    }
}
