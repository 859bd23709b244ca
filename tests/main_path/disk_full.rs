//! The disk under the spool is full: not the limit of the file but the file system itself says no.

use std::time::Duration;

use crate::harness::jobs;
use crate::harness::readings::Reading;
use crate::harness::rig::Rig;
use crate::harness::small_disk::SmallDisk;

const DISK_BYTES: u64 = 16 << 20;
/// More than SQLite's WAL takes before it is written back (1,000 pages): with less a full disk leaves the WAL nowhere to go.
const BALLAST: &str = "5MiB";

/// Twice what the disk holds.
fn flood() -> Vec<Reading> {
    (0..500).flat_map(|number| (0..10).map(move |device| Reading::padded(device, number, 4_000))).collect()
}

/// What waits in the spool already, and fits.
fn early() -> Vec<Reading> {
    (0..50).flat_map(|number| (20..30).map(move |device| Reading::padded(device, number, 4_000))).collect()
}

/// A small file system takes root to mount.
fn without_root(story: &str, instead: &str) {
    jobs::skipped(&format!("{story} on a file system that is full, for want of root; {instead}"));
}

/// `lines` are for `[spool]`: with a reserve the gateway stops before the disk is full, without one SQLite hits its end.
fn filled_and_drained(reserve: &str, more: &str) {
    let disk = SmallDisk::mount(DISK_BYTES);
    let spool = match &disk {
        Some(disk) => {
            let path = disk.path().join("spool.db");
            format!("path = {path:?}\nreserve_bytes = {reserve:?}\nballast_bytes = {BALLAST:?}\n{more}")
        }
        None => format!("max_bytes = \"8MiB\"\n{more}"),
    };
    let mut rig = Rig::builder().own_kafka().spool(&spool).memory("producer = \"1MiB\"").start();
    rig.kafka.stop();
    let published = rig.load(5_000, flood()).finish();
    let accepted = rig.tap.wait_quiet(Duration::from_secs(4)).accepted.len();
    assert!(accepted > 500, "the disk takes what fits: {accepted}");
    rig.saw("refused at the limit", published.len() - accepted);
    if disk.is_some() {
        assert_eq!(rig.gateway.metric("forebay_spool_full"), 1.0);
        let commits = rig.gateway.metric("forebay_spool_commit_failures_total");
        rig.saw("commit that found no room", commits as usize);
    }
    rig.kafka.restart();
    rig.wait_accepted(published.len());
    let recovered = || (rig.gateway.metric("forebay_spool_full") == 0.0).then_some(());
    jobs::wait_until("the spool can be written again", recovered);
    let verdict = rig.close_books(&published);
    assert_eq!((verdict.delivered, verdict.dead), (published.len(), 0));
    if disk.is_none() {
        without_root(&format!("disk_full with a reserve of {reserve}"), "the limit of the file stood in for it");
    }
}

/// Other programs have taken the last byte while the gateway was away: it starts on its ballast, drains, and needs no
/// room from anyone else for that.
#[test]
fn it_starts_on_a_full_disk_and_drains() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else {
        return without_root("it_starts_on_a_full_disk_and_drains", "nothing stood in for it");
    };
    let spool =
        format!("path = {:?}\nreserve_bytes = \"0B\"\nballast_bytes = {BALLAST:?}\n", disk.path().join("spool.db"));
    let mut rig = Rig::builder().own_kafka().spool(&spool).memory("producer = \"1MiB\"").start();
    rig.kafka.stop();
    let first = rig.load(5_000, early()).finish();
    rig.wait_accepted(first.len());
    rig.gateway.stop();
    disk.fill();
    rig.gateway.start_alone();
    let log = rig.gateway.log();
    rig.saw("ballast given up", log.matches("the ballast is given up").count());
    let second = rig.load(5_000, flood()).finish();
    let accepted = rig.tap.wait_quiet(Duration::from_secs(3)).accepted.len();
    rig.saw("refused at the limit", first.len() + second.len() - accepted);
    rig.kafka.restart();
    let published = [first, second].concat();
    let verdict = rig.close_books(&published);
    assert_eq!((verdict.delivered, verdict.dead), (published.len(), 0));
}

#[test]
fn to_its_last_byte() {
    filled_and_drained("0B", "");
}

#[test]
fn to_the_reserve() {
    filled_and_drained("3MiB", "");
}

/// What is delivered and only held for `spool.settle` goes before a reading is refused.
#[test]
fn with_delivered_chunks_that_are_held() {
    filled_and_drained("0B", "settle = \"1h\"\n");
}
