//! Which device a port is at this moment: a path, or a USB adapter by what it says of itself.
//!
//! Looked up at each opening: an adapter that was unplugged comes back under whatever name is free. Everything is read
//! from /sys, so that no library is needed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the kernel shows its devices.
pub const SYS: &str = "/sys";

/// How the configuration names a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortName {
    /// `/dev/serial/by-id/...`, or any other path.
    Path(PathBuf),
    Usb(UsbName),
}

/// What an adapter must say of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UsbName {
    pub vendor: u16,
    pub product: u16,
    pub serial: Option<String>,
    /// Of an adapter with several ports: which of them, from 0.
    pub interface: Option<u8>,
}

impl std::fmt::Display for PortName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PortName::Path(path) => path.display().fmt(f),
            PortName::Usb(UsbName { vendor, product, serial, .. }) => {
                write!(f, "usb {vendor:04x}:{product:04x}")?;
                serial.as_ref().map_or(Ok(()), |serial| write!(f, " {serial}"))
            }
        }
    }
}

impl PortName {
    /// The device's path now.
    ///
    /// # Errors
    /// No adapter fits, or more than one does.
    pub fn find(&self, sys: &Path) -> io::Result<PathBuf> {
        let usb = match self {
            PortName::Path(path) => return Ok(path.clone()),
            PortName::Usb(usb) => usb,
        };
        let fits = |tty: &Tty| tty.usb.as_ref().is_some_and(|found| usb.fits(found));
        let mut found: Vec<Tty> = list(sys)?.into_iter().filter(fits).collect();
        match found.len() {
            1 => Ok(found.remove(0).path),
            0 => Err(io::Error::new(io::ErrorKind::NotFound, "no such adapter is plugged in")),
            _ => Err(io::Error::other("several such adapters are plugged in; name the serial number or interface too")),
        }
    }
}

/// What the kernel knows of a USB adapter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usb {
    pub vendor: u16,
    pub product: u16,
    pub serial: Option<String>,
    pub maker: Option<String>,
    pub model: Option<String>,
    pub interface: Option<u8>,
}

impl UsbName {
    fn fits(&self, usb: &Usb) -> bool {
        self.vendor == usb.vendor
            && self.product == usb.product
            && self.serial.as_ref().is_none_or(|serial| Some(serial) == usb.serial.as_ref())
            && self.interface.is_none_or(|interface| Some(interface) == usb.interface)
    }
}

/// A serial port of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tty {
    pub path: PathBuf,
    /// Of the kernel, such as `ftdi_sio`.
    pub driver: String,
    pub usb: Option<Usb>,
}

/// All serial ports that have hardware behind them, by name.
///
/// # Errors
/// When the kernel's list cannot be read.
pub fn list(sys: &Path) -> io::Result<Vec<Tty>> {
    let mut found: Vec<Tty> = fs::read_dir(sys.join("class/tty"))?.flatten().filter_map(|e| tty(&e.path())).collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn tty(class: &Path) -> Option<Tty> {
    // Consoles and pseudo terminals have no device; a port of the 8250 driver without a chip has type 0.
    let device = class.join("device").canonicalize().ok()?;
    if fs::read_to_string(class.join("type")).is_ok_and(|kind| kind.trim() == "0") {
        return None;
    }
    let driver = device.join("driver").canonicalize().ok();
    let driver = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())).unwrap_or_default();
    Some(Tty { path: Path::new("/dev").join(class.file_name()?), driver, usb: usb(&device) })
}

/// The adapter is the first folder above the port that has a vendor; the interface lies between them.
fn usb(device: &Path) -> Option<Usb> {
    let read = |folder: &Path, name: &str| {
        fs::read_to_string(folder.join(name)).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let hex = |folder: &Path, name: &str| u16::from_str_radix(&read(folder, name)?, 16).ok();
    let adapter = device.ancestors().find(|folder| folder.join("idVendor").exists())?;
    let interface = device.ancestors().find_map(|folder| hex(folder, "bInterfaceNumber"));
    Some(Usb {
        vendor: hex(adapter, "idVendor")?,
        product: hex(adapter, "idProduct")?,
        serial: read(adapter, "serial"),
        maker: read(adapter, "manufacturer"),
        model: read(adapter, "product"),
        interface: interface.and_then(|number| u8::try_from(number).ok()),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// A tree as the kernel makes it for a converter with a USB plug.
    fn plug(sys: &Path, tty: &str, adapter: &str, serial: &str) {
        let adapter = sys.join("devices/usb1").join(adapter);
        let device = adapter.join("1-1:1.0").join(tty);
        fs::create_dir_all(&device).unwrap();
        fs::create_dir_all(sys.join("bus/drivers/ftdi_sio")).unwrap();
        for (name, text) in [("idVendor", "0403"), ("idProduct", "6001"), ("serial", serial), ("product", "FT232R")] {
            fs::write(adapter.join(name), format!("{text}\n")).unwrap();
        }
        fs::write(adapter.join("1-1:1.0/bInterfaceNumber"), "00\n").unwrap();
        let class = sys.join("class/tty").join(tty);
        fs::create_dir_all(&class).unwrap();
        std::os::unix::fs::symlink(&device, class.join("device")).unwrap();
        std::os::unix::fs::symlink(sys.join("bus/drivers/ftdi_sio"), device.join("driver")).unwrap();
    }

    fn name(serial: Option<&str>) -> PortName {
        let serial = serial.map(str::to_owned);
        PortName::Usb(UsbName { vendor: 0x0403, product: 0x6001, serial, interface: None })
    }

    #[test]
    fn an_adapter_is_found_under_whatever_name_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let sys = folder.path();
        fs::create_dir_all(sys.join("class/tty/tty0")).unwrap();
        assert_eq!(name(None).find(sys).unwrap_err().kind(), io::ErrorKind::NotFound);
        plug(sys, "ttyUSB0", "1-1", "A5");
        assert_eq!(name(None).find(sys).unwrap(), Path::new("/dev/ttyUSB0"));
        fs::remove_dir_all(sys.join("class/tty/ttyUSB0")).unwrap();
        plug(sys, "ttyUSB1", "1-2", "A5");
        assert_eq!(name(Some("A5")).find(sys).unwrap(), Path::new("/dev/ttyUSB1"));
        assert!(name(Some("B6")).find(sys).is_err());
        plug(sys, "ttyUSB2", "1-3", "B6");
        assert!(name(None).find(sys).unwrap_err().to_string().contains("several"));
        assert_eq!(name(Some("B6")).find(sys).unwrap(), Path::new("/dev/ttyUSB2"));
        let listed = list(sys).unwrap();
        assert_eq!(listed.iter().map(|tty| tty.driver.as_str()).collect::<Vec<_>>(), ["ftdi_sio", "ftdi_sio"]);
        assert_eq!(listed[0].usb.as_ref().unwrap().interface, Some(0));
    }
}
