//! The resolved `[[source.modbus]]`. See `model.rs` for what that means.

use std::time::Duration;

use super::PortSettings;
use crate::intake::exception::Report;
use crate::intake::modbus::answer::Framing;
use crate::intake::modbus::plan::Limits;
use crate::intake::modbus::register::Register;
use crate::intake::serial::device::PortName;

/// A line and the devices on it.
#[derive(Debug, Clone)]
pub struct ModbusSource {
    pub name: String,
    pub link: Link,
    /// Between the end of an answer and the next request.
    pub pause: Duration,
    /// Until an answer begins. Default 500 ms.
    pub timeout: Duration,
    /// Default 1.
    pub retries: u32,
    /// A value that cannot be read is repeated as stale for so long. Default 60 s.
    pub stale_for: Duration,
    /// A topic as of an MQTT reading: routes match it. `{device}` and `{group}` stand for their names.
    pub topic: String,
    /// Readings need not be committed before they are forwarded: a crash may lose some.
    pub volatile: bool,
    /// Which readings are sent at all; `None`: all of them.
    pub report: Option<Report>,
    pub devices: Vec<ModbusDevice>,
    /// Most bytes of readings that are not accepted yet: this source's share of `Budget::intake`.
    pub unacked_bytes_max: u64,
    /// Pauses between attempts to open the line. Default 100 ms and 1 s.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
}

/// The way to the devices.
#[derive(Debug, Clone)]
pub enum Link {
    Serial { port: PortName, settings: PortSettings },
    Tcp { host: String, port: u16, framing: Framing },
}

/// A device and what is read of it.
#[derive(Debug, Clone)]
pub struct ModbusDevice {
    pub name: String,
    pub unit: u8,
    pub limits: Limits,
    /// Each is read together and makes one reading.
    pub groups: Vec<ModbusGroup>,
}

#[derive(Debug, Clone)]
pub struct ModbusGroup {
    /// `None`: of the device itself.
    pub name: Option<String>,
    pub interval: Duration,
    pub registers: Vec<Register>,
}

/// What `{group}` stands for where there is none.
const NO_GROUP: &str = "main";

impl ModbusSource {
    pub fn topic_of(&self, device: usize, group: usize) -> String {
        let device = &self.devices[device];
        let group = device.groups[group].name.as_deref().unwrap_or(NO_GROUP);
        self.topic.replace("{device}", &device.name).replace("{group}", group)
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Link::Serial { port, .. } => port.fmt(f),
            Link::Tcp { host, port, framing: Framing::Tcp } => write!(f, "{host}:{port}"),
            Link::Tcp { host, port, framing: Framing::Rtu } => write!(f, "{host}:{port} (RTU over TCP)"),
        }
    }
}
