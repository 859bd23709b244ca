//! A pseudo terminal: a serial port without hardware. One end is ours, the other one looks like a port to whoever opens it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::Mutex;
use tokio_serial::{SerialPort as _, SerialStream};

/// Between two looks for somebody who has the port open.
const NOBODY_PAUSE: Duration = Duration::from_millis(20);

/// The device's end. The port is gone once it is dropped.
pub struct Pty {
    from_port: Mutex<ReadHalf<SerialStream>>,
    to_port: Mutex<WriteHalf<SerialStream>>,
    port: PathBuf,
    link: Option<PathBuf>,
}

impl Pty {
    /// Makes a pair. Needs a runtime.
    ///
    /// # Errors
    /// When the system has no pseudo terminals left.
    pub fn open() -> io::Result<Self> {
        let (device, port) = SerialStream::pair()?;
        let name = port.name().ok_or_else(|| io::Error::other("the new pseudo terminal has no name"))?;
        let (from_port, to_port) = tokio::io::split(device);
        Ok(Pty { from_port: Mutex::new(from_port), to_port: Mutex::new(to_port), port: name.into(), link: None })
    }

    /// The port's name, such as `/dev/pts/7`.
    pub fn port(&self) -> &Path {
        &self.port
    }

    /// Gives the port a name of choice, as udev does below /dev/serial/by-id. An older link there is replaced.
    ///
    /// # Errors
    /// When the link cannot be made.
    pub fn link(&mut self, path: &Path) -> io::Result<()> {
        if path.is_symlink() {
            std::fs::remove_file(path)?;
        }
        std::os::unix::fs::symlink(&self.port, path)?;
        self.link = Some(path.to_owned());
        Ok(())
    }

    /// Sends as a device does. Waits while nobody reads and the buffer is full.
    ///
    /// # Errors
    /// As a write to the line.
    pub async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.to_port.lock().await.write_all(bytes).await
    }

    /// What the other end sent. Waits while nobody has the port open.
    pub async fn receive(&self, bytes: &mut [u8]) -> usize {
        loop {
            // Without an other end, each read fails at once.
            match self.from_port.lock().await.read(bytes).await {
                Ok(count) if count > 0 => return count,
                _ => tokio::time::sleep(NOBODY_PAUSE).await,
            }
        }
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // Another device may have taken the name over.
        let ours = |link: &&PathBuf| std::fs::read_link(link).is_ok_and(|target| target == self.port);
        if let Some(link) = self.link.as_ref().filter(ours) {
            let _ = std::fs::remove_file(link);
        }
    }
}
