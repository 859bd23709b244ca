//! Full: the file's own bound, and the ballast.

use super::*;
use crate::spool::StoreError;
use crate::spool::disk::Disk;

#[test]
fn a_full_file_takes_what_settles_and_then_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("spool.db"), 64 * 4096, 1 << 20).unwrap();
    let mut stored = 0;
    let refused = loop {
        match store.commit(&insert(vec![chunk(LANE, stored, 5, 2_000)])) {
            Ok(_) => stored += 1,
            Err(e) => break e,
        }
        assert!(stored < 100, "the bound does not hold");
    };
    assert!(matches!(refused, StoreError::DiskFull(_)), "{refused}");
    assert_eq!(read_all(&mut store, LANE).len() as u64, stored, "a refused commit leaves nothing");
    let settled: Vec<_> = (0..3).map(|i| (row_base(LANE) + 1 + i, false)).collect();
    store.commit(&Commit { settled, ..Commit::default() }).unwrap();
    store.commit(&insert(vec![chunk(LANE, stored, 5, 2_000)])).unwrap();
    assert_eq!(read_all(&mut store, LANE).len() as u64, stored - 2);
    // The deletion and the insertion may also come together: freed pages are used first.
    let mut both = insert((1..=3).map(|i| chunk(LANE, stored + i, 5, 2_000)).collect());
    both.settled = (3..6).map(|i| (row_base(LANE) + 1 + i, false)).collect();
    store.commit(&both).unwrap();
}

#[test]
fn the_ballast_is_real_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(&dir.path().join("spool.db"), 100_000, 0);
    assert!(!disk.has_ballast() && !disk.drop_ballast());
    disk.restore_ballast();
    assert!(disk.has_ballast());
    let ballast = std::fs::read(dir.path().join("spool.db.ballast")).unwrap();
    assert!(ballast.len() == 100_000 && ballast.iter().all(|b| *b != 0));
    assert!(disk.drop_ballast() && !disk.has_ballast());
    disk.restore_ballast();
    assert!(disk.has_ballast());
}

/// On a full disk the file would otherwise stay as long as it once was, and nothing could be stored for ever.
#[test]
fn pages_that_were_given_up_leave_the_file_when_the_wal_is_written_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for i in 0..100 {
        store.commit(&insert(vec![chunk(LANE, i, 10, 10_000)])).unwrap();
    }
    let settled = (0..100).map(|i| (row_base(LANE) + 1 + i, false)).collect();
    store.commit(&Commit { settled, ..Commit::default() }).unwrap();
    while store.free_bytes() > 0 {
        store.vacuum_slice(64);
    }
    let length = || std::fs::metadata(dir.path().join("spool.db")).unwrap().len();
    assert!(store.used_bytes() < 1 << 20 && length() > 4 << 20, "empty, and long: {}", length());
    let wal = || std::fs::metadata(dir.path().join("spool.db-wal")).unwrap().len();
    let before = wal();
    assert!(store.write_back());
    assert_eq!((length(), wal()), (store.used_bytes(), before), "the file ends with its last page, the WAL stays");
}

/// While a full disk has taken the ballast, its room is for what deletes: readings that took it would stop the drain.
#[test]
fn the_room_of_a_ballast_given_up_is_not_for_readings() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spool.db");
    let free = Disk::new(&path, 0, 0).free();
    // Larger than the disk: given up, it leaves no room; laid down, its bytes are not free anyway.
    let disk = Disk::new(&path, free.saturating_mul(2), 0);
    assert!(!disk.has_ballast());
    assert_eq!(disk.room(), 0);
    std::fs::write(dir.path().join("spool.db.ballast"), b"x").unwrap();
    assert!(disk.room() > 0);
}
