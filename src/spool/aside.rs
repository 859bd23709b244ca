//! Damaged files that were set aside: for a person to look at, so they stay, but not until the disk is full of them.

use std::path::{Path, PathBuf};

use super::lock::with_suffix;

/// The newest so many stay, each with its WAL.
const KEPT: usize = 2;

/// Where a damaged file goes at `at` (ms since 1970).
pub fn name(spool: &Path, at: i64) -> PathBuf {
    with_suffix(spool, &format!("damaged-{at}"))
}

/// Removes what was set aside before the newest two, and says so. Only when no salvage reads them any more.
pub fn prune(spool: &Path) {
    for old in superseded(&list(spool)) {
        match std::fs::remove_file(&old) {
            Ok(()) => {
                tracing::warn!(file = %old.display(), "an older damaged spool is removed; the newest {KEPT} stay");
            }
            Err(error) => tracing::warn!(file = %old.display(), %error, "failed to remove an older damaged spool"),
        }
    }
}

/// Everything in the spool's folder that was set aside for damage.
fn list(spool: &Path) -> Vec<PathBuf> {
    let prefix = with_suffix(spool, "damaged-").into_os_string().into_encoded_bytes();
    let ours = |path: &PathBuf| path.as_os_str().as_encoded_bytes().starts_with(&prefix);
    let entries = spool.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).filter(ours).collect()
}

/// When a file was set aside: the number behind `damaged-`.
fn stamp(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let (_, behind) = name.rsplit_once("damaged-")?;
    behind.split('-').next()?.parse().ok()
}

/// Those with an older time than the newest ones. A file and its WAL have the same.
fn superseded(files: &[PathBuf]) -> Vec<PathBuf> {
    let mut stamps: Vec<u64> = files.iter().filter_map(|f| stamp(f)).collect();
    stamps.sort_unstable();
    stamps.dedup();
    let Some(oldest_kept) = stamps.iter().rev().nth(KEPT - 1) else { return Vec::new() };
    files.iter().filter(|f| stamp(f).is_some_and(|s| s < *oldest_kept)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_two_stay_each_with_its_wal() {
        let dir = tempfile::tempdir().expect("a folder");
        let spool = dir.path().join("spool.db");
        let all = ["", ".damaged-9", ".damaged-9-wal", ".damaged-10", ".damaged-200", ".damaged-200-wal", ".damaged-x"];
        let path = |suffix: &&str| PathBuf::from(format!("{}{suffix}", spool.display()));
        all.iter().for_each(|suffix| std::fs::write(path(suffix), b"x").expect("a file"));
        prune(&spool);
        let left: Vec<&str> = all.into_iter().filter(|suffix| path(suffix).exists()).collect();
        assert_eq!(left, ["", ".damaged-10", ".damaged-200", ".damaged-200-wal", ".damaged-x"]);
        prune(&spool);
        assert!(path(&".damaged-10").exists(), "nothing is newer");
    }
}
