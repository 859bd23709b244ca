//! A disk that can be full: a small file system in memory, mounted for one test.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use rustix::process::geteuid;
use tempfile::TempDir;

use super::jobs;

pub struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// `None` for a user who may not mount: the test then makes do with a limit of the file and says so.
    pub fn mount(bytes: u64) -> Option<SmallDisk> {
        if !geteuid().is_root() {
            return None;
        }
        let disk = SmallDisk { dir: jobs::scratch("disk") };
        let mut mount = Command::new(jobs::tool("mount", "mount"));
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=0700"), "forebay-test"]);
        let output = mount.arg(disk.path()).output().unwrap();
        if !output.status.success() {
            eprintln!("mount: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Some(disk)
    }

    /// Another program takes what is left.
    pub fn fill(&self) {
        let mut filler = File::create(self.path().join("filler")).unwrap();
        let block = [1; 4096];
        while filler.write_all(&block).is_ok() {}
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a gateway that is still dying may hold a file. Where nothing was mounted it fails, and rightly so.
        let mut umount = Command::new(jobs::tool("umount", "mount"));
        drop(umount.arg("-l").arg(self.path()).output());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_is_full_when_it_is_full() {
        let Some(disk) = SmallDisk::mount(1 << 20) else {
            assert!(!geteuid().is_root(), "root may mount");
            return;
        };
        let error = std::fs::write(disk.path().join("large"), vec![1; 2 << 20]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }
}
