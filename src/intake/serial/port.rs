//! Opens a port. The only seam to the serial driver's crate.

use std::io;
use std::path::{Path, PathBuf};

use tokio_serial::{ClearBuffer, DataBits, SerialPort as _, SerialPortBuilder, SerialStream, StopBits};

use super::device::{PortName, SYS};
use super::rs485;
use crate::config::{FlowControl, Parity, PortSettings};

/// The line discipline's buffer (N_TTY_BUF_SIZE, less the one byte that is never used): what comes behind is lost, but
/// for what the driver's own buffers hold.
const KERNEL_BUFFER: u32 = 4095;

/// An open port.
pub struct Port {
    pub stream: SerialStream,
    /// What is behind the port's name at this moment.
    pub device: PathBuf,
}

/// # Errors
/// In words for a person, without "failed to".
pub async fn open(name: &PortName, settings: PortSettings) -> Result<Port, String> {
    let name = name.clone();
    // Looking through /sys and setting a port up may wait for a driver.
    let opened = tokio::task::spawn_blocking(move || {
        let device = name.find(Path::new(SYS)).map_err(|error| format!("find {name}: {error}"))?;
        // Held until the port is open, so that the driver does not start over in between.
        let _switched = settings.rs485.map(|wanted| rs485::switch(&device, wanted)).transpose()?;
        let stream = SerialStream::open(&builder(&device, settings)).map_err(|error| said(&device, &error))?;
        // A link stays the same, what is behind it may not.
        let device = device.canonicalize().unwrap_or(device);
        Ok(Port { stream, device })
    });
    opened.await.unwrap_or_else(|error| Err(format!("open the port: {error}")))
}

fn said(device: &Path, error: &tokio_serial::Error) -> String {
    let help = match error.kind() {
        tokio_serial::ErrorKind::Io(io::ErrorKind::PermissionDenied) => "; `forebay serial list` says who may open it",
        _ => "",
    };
    format!("open {}: {error}{help}", device.display())
}

fn builder(device: &Path, settings: PortSettings) -> SerialPortBuilder {
    let data_bits = match settings.data_bits {
        5 => DataBits::Five,
        6 => DataBits::Six,
        7 => DataBits::Seven,
        _ => DataBits::Eight,
    };
    let parity = match settings.parity {
        Parity::None => tokio_serial::Parity::None,
        Parity::Even => tokio_serial::Parity::Even,
        Parity::Odd => tokio_serial::Parity::Odd,
    };
    let flow_control = match settings.flow_control {
        FlowControl::None => tokio_serial::FlowControl::None,
        FlowControl::Hardware => tokio_serial::FlowControl::Hardware,
        FlowControl::Software => tokio_serial::FlowControl::Software,
    };
    let builder = tokio_serial::new(device.to_string_lossy(), settings.baud)
        .data_bits(data_bits)
        .parity(parity)
        .stop_bits(if settings.stop_bits == 2 { StopBits::Two } else { StopBits::One })
        .flow_control(flow_control)
        .exclusive(settings.exclusive);
    match settings.dtr {
        Some(level) => builder.dtr_on_open(level),
        None => builder.preserve_dtr_on_open(),
    }
}

impl Port {
    /// Whether the kernel's buffer is full: what the device sent since may be lost.
    pub fn is_overrun(&self) -> bool {
        self.stream.bytes_to_read().is_ok_and(|bytes| bytes >= KERNEL_BUFFER)
    }

    /// Forgets what has come and was not read: it answers nothing that is still asked.
    pub fn clear_input(&self) {
        // A port that refuses is about to be gone, which the next read finds.
        let _ = self.stream.clear(ClearBuffer::Input);
    }
}
