//! The socket on which systemd listens, in a test's hands.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::gateway::Gateway;
use crate::harness::jobs::{self, PATIENCE};

pub struct Notify {
    socket: UnixDatagram,
    path: PathBuf,
    _dir: TempDir,
}

impl Notify {
    pub fn bind() -> Notify {
        let dir = jobs::scratch("notify");
        let path = dir.path().join("socket");
        Notify { socket: UnixDatagram::bind(&path).unwrap(), path, _dir: dir }
    }

    /// What systemd puts into the environment of a service.
    pub fn give_to(&self, gateway: &mut Gateway, watchdog: Option<Duration>) {
        gateway.set_env("NOTIFY_SOCKET", self.path.to_str().unwrap());
        if let Some(interval) = watchdog {
            gateway.set_env("WATCHDOG_USEC", &interval.as_micros().to_string());
        }
    }

    /// Waits for a message that contains `needle`, passing over others.
    pub fn wait_for(&self, needle: &str) {
        let heard = std::iter::from_fn(|| self.next(PATIENCE)).any(|message| message.contains(needle));
        assert!(heard, "systemd never heard {needle:?}");
    }

    /// Takes what has come so far.
    pub fn drain(&self) {
        while self.next(Duration::from_millis(1)).is_some() {}
    }

    /// The next message within `patience`.
    pub fn next(&self, patience: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut message = [0; 4096];
        let size = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..size]).into_owned())
    }
}
