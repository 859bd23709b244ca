//! Free space and the ballast: a file given up when the disk is full, so that the transactions which delete delivered
//! chunks can still be written and the drain frees the rest.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

use super::lock::with_suffix;

#[derive(Debug)]
pub struct Disk {
    ballast_path: PathBuf,
    ballast_bytes: u64,
    reserve_bytes: u64,
}

impl Disk {
    pub fn new(spool: &Path, ballast_bytes: u64, reserve_bytes: u64) -> Self {
        Disk { ballast_path: with_suffix(spool, "ballast"), ballast_bytes, reserve_bytes }
    }

    /// Bytes that an unprivileged writer could still use.
    pub fn free(&self) -> u64 {
        let dir = self.ballast_path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // A file system that does not answer is not taken for a full one: the write itself will tell.
        statvfs(dir).map_or(u64::MAX, |s| s.f_bavail.saturating_mul(s.f_frsize))
    }

    /// Bytes by which the file may still grow: the reserve stays for the rest of the system, and what the ballast has
    /// given up for what deletes. Readings in its place would leave the drain nowhere to go.
    pub fn room(&self) -> u64 {
        let given_up = if self.has_ballast() { 0 } else { self.ballast_bytes };
        self.free().saturating_sub(self.reserve_bytes).saturating_sub(given_up)
    }

    pub fn has_ballast(&self) -> bool {
        self.ballast_bytes == 0 || self.ballast_path.exists()
    }

    /// Gives the ballast up. Returns whether there was one.
    pub fn drop_ballast(&self) -> bool {
        std::fs::remove_file(&self.ballast_path).is_ok()
    }

    /// Lays the ballast down again once there is room for it and the reserve twice over (so that it does not flap).
    pub fn restore_ballast(&self) {
        if self.has_ballast() || self.free() < self.reserve_bytes.saturating_add(self.ballast_bytes.saturating_mul(2)) {
            return;
        }
        if self.write_ballast().is_err() {
            let _ = std::fs::remove_file(&self.ballast_path);
        }
    }

    /// Real bytes: a sparse file would give nothing back.
    fn write_ballast(&self) -> std::io::Result<()> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&self.ballast_path)?;
        let block = [0x5a_u8; 65536];
        let mut left = self.ballast_bytes;
        while left > 0 {
            let n = left.min(block.len() as u64);
            file.write_all(&block[..n as usize])?;
            left -= n;
        }
        file.sync_all()
    }
}

/// Bytes that this process caused to be written to the storage layer (`/proc/self/io`), 0 where the kernel does not say.
pub fn device_bytes_written() -> u64 {
    let Ok(text) = std::fs::read_to_string("/proc/self/io") else { return 0 };
    text.lines().find_map(|l| l.strip_prefix("write_bytes: ")).and_then(|n| n.parse().ok()).unwrap_or(0)
}
