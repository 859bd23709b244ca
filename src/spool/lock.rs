//! One owner: a lock file beside the spool, held with flock as long as the process lives.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Held: nobody else opens this spool. The kernel releases it with the process, also on SIGKILL.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("lock {0}: another gateway or command holds the spool")]
    Held(PathBuf),
    #[error("lock {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
}

/// Takes `<spool>.lock`.
///
/// # Errors
/// [`LockError::Held`] when another process has it, at once and without waiting.
pub fn take(spool: &Path) -> Result<Lock, LockError> {
    let path = with_suffix(spool, "lock");
    let io = |source| LockError::Io { path: path.clone(), source };
    let mut file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o640).open(&path).map_err(io)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(LockError::Held(path)),
        Err(e) => return Err(io(e.into())),
    }
    // Who holds it, for a person who looks; nothing reads it.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(Lock { _file: file })
}

/// `spool.db` → `spool.db.<suffix>`.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}
