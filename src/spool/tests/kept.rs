//! What sources keep, and message ids: durable with what they belong to, bounded, brought over from older and from damaged
//! files.

use std::collections::HashMap;
use std::time::Duration;

use super::*;
use crate::config::MessageIds;
use crate::intake::{Change, Fact, Kind, MessageId};
use crate::spool::IdBatch;
use crate::spool::salvage::{salvage, set_aside};

pub(super) fn put(kind: Kind, key: &[u8], value: &[u8]) -> Change {
    Change::Put { kind, key: key.to_vec(), value: value.to_vec() }
}

pub(super) fn delete(kind: Kind, key: &[u8]) -> Change {
    Change::Delete { kind, key: key.to_vec() }
}

pub(super) fn changes(list: Vec<Change>) -> Commit {
    Commit { at: SET, changes: list.into_iter().map(|change| (0, change)).collect(), ..Commit::default() }
}

fn keys(store: &Store, kind: Kind) -> Vec<Vec<u8>> {
    store.facts().unwrap().into_iter().filter(|f| f.kind == kind).map(|f| f.key).collect()
}

fn id(n: u64) -> MessageId {
    MessageId { id: u128::from(n) << 64 | u128::from(!n), payload: n * 7 }
}

fn ids(store: &mut Store, at: i64, of: std::ops::Range<u64>) {
    store.commit(&Commit { at, message_ids: of.map(id).collect(), ..Commit::default() }).unwrap();
}

fn known(store: &Store, now: i64) -> Vec<MessageId> {
    store.known_message_ids(now).unwrap().into_iter().flat_map(|batch| batch.ids).collect()
}

fn id_rows(store: &Store) -> i64 {
    store.connection().query_row("SELECT count(*) FROM msgid", [], |r| r.get(0)).unwrap()
}

#[test]
fn the_last_change_of_a_key_holds_and_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let done = store
        .commit(&changes(vec![
            put(Kind::Session, b"s\0a", b"1"),
            delete(Kind::Session, b"s\0a"),
            put(Kind::Session, b"s\0a", b"2"),
            put(Kind::Session, b"s\0a", b"3"),
            put(Kind::Retained, b"s\0a", b""),
            delete(Kind::Qos2, b"s\0never"),
        ]))
        .unwrap();
    assert_eq!(done.kept, Some([0, 1, 1]));
    drop(store);
    let mut store = open(dir.path());
    let fact = |kind, value: &[u8]| Fact { kind, key: b"s\0a".to_vec(), value: value.to_vec() };
    assert_eq!(store.facts().unwrap(), [fact(Kind::Session, b"3"), fact(Kind::Retained, b"")]);
    let done = store.commit(&changes(vec![delete(Kind::Session, b"s\0a")])).unwrap();
    assert_eq!(done.kept, Some([0, 0, 1]), "counted anew after a restart");
    assert_eq!(store.commit(&insert(vec![chunk(LANE, 0, 1, 9)])).unwrap().kept, None);
}

#[test]
fn a_prefix_takes_its_keys_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let all: [&[u8]; 7] = [b"", b"a", b"a\xff", b"a\xff\xff", b"a\xffz", b"b", b"\xff\xff"];
    let fill = |store: &mut Store| {
        let both = all.iter().flat_map(|key| [put(Kind::Qos2, key, b"v"), put(Kind::Session, key, b"v")]);
        store.commit(&changes(both.collect())).unwrap();
    };
    for prefix in all {
        fill(&mut store);
        let gone = Change::DeletePrefix { kind: Kind::Qos2, prefix: prefix.to_vec() };
        let done = store.commit(&changes(vec![gone])).unwrap();
        let mut left: Vec<Vec<u8>> = all.iter().filter(|k| !k.starts_with(prefix)).map(|k| k.to_vec()).collect();
        left.sort();
        assert_eq!(keys(&store, Kind::Qos2), left, "{prefix:?}");
        assert_eq!(keys(&store, Kind::Session).len(), all.len());
        assert_eq!(done.kept, Some([left.len() as u64, all.len() as u64, 0]));
    }
}

#[test]
fn a_refused_commit_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("spool.db"), 64 * 4096, 1 << 20).unwrap();
    let mut refused = insert(vec![chunk(LANE, 0, 50, 9_000)]);
    refused.changes = vec![(0, put(Kind::Qos2, b"s\0c\0\x01", b"hash"))];
    refused.message_ids = vec![id(1)];
    store.commit(&refused).unwrap_err();
    assert_eq!((store.facts().unwrap(), known(&store, SET)), (Vec::new(), Vec::new()));
    let done = store.commit(&changes(vec![put(Kind::Qos2, b"s\0c\0\x02", b"hash")])).unwrap();
    assert_eq!(done.kept, Some([1, 0, 0]), "the refused one is not counted");
}

#[test]
fn the_window_of_message_ids_is_bounded_by_number_and_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.message_ids = MessageIds { window: 100, max_age: Duration::from_secs(3600) };
    for i in 0..30 {
        ids(&mut store, SET, 10 * i..10 * i + 10);
    }
    assert_eq!(known(&store, SET), (200..300).map(id).collect::<Vec<_>>(), "the newest hundred");
    assert_eq!(id_rows(&store), 10, "what is outside the window has left the file");
    ids(&mut store, SET + 3_600_001, 300..301);
    assert_eq!(known(&store, SET + 3_600_001), [id(300)]);
    assert_eq!(id_rows(&store), 1, "what is too old has left the file");
    assert_eq!(known(&store, SET + 7_300_000), []);
}

#[test]
fn ids_from_before_the_clock_was_set_have_no_age() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    ids(&mut store, 1_000, 0..3);
    ids(&mut store, SET, 3..5);
    assert_eq!(known(&store, SET + 1), (0..5).map(id).collect::<Vec<_>>());
}

#[test]
fn a_smaller_window_is_reached_in_slices() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for i in 0..300 {
        ids(&mut store, SET + i as i64 * 60_000, i..i + 1);
    }
    assert_eq!(id_rows(&store), 300);
    store.message_ids.window = 10;
    let mut left = Vec::new();
    for i in 300..310 {
        ids(&mut store, SET + i as i64 * 60_000, i..i + 1);
        left.push(id_rows(&store));
    }
    assert!(left[0] > 200 && left.is_sorted_by(|a, b| a >= b), "a slice each: {left:?}");
    assert_eq!(left.last(), Some(&10));
    let batches = store.known_message_ids(SET + 310 * 60_000).unwrap();
    assert_eq!(batches[0], IdBatch { at: SET + 300 * 60_000, ids: vec![id(300)] });
    assert_eq!(batches.len(), 10);
}

/// The tables as version 1 wrote them.
const VERSION_1: &str = "
    CREATE TABLE chunk(
        seq INTEGER PRIMARY KEY, lane INTEGER NOT NULL, run INTEGER NOT NULL, first INTEGER NOT NULL,
        last INTEGER NOT NULL, n INTEGER NOT NULL, bytes INTEGER NOT NULL, ts_min INTEGER NOT NULL,
        ts_max INTEGER NOT NULL, settled BLOB, data BLOB NOT NULL);
    CREATE TABLE run(
        ordinal INTEGER PRIMARY KEY, run INTEGER NOT NULL, started INTEGER NOT NULL, boot_id TEXT NOT NULL,
        clock_offset INTEGER, gateway TEXT NOT NULL);
    CREATE TABLE lane(lane INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE state(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
    CREATE TABLE loss(
        id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, lane INTEGER NOT NULL, run INTEGER NOT NULL,
        first INTEGER NOT NULL, last INTEGER NOT NULL, n INTEGER NOT NULL, exact INTEGER NOT NULL,
        reason TEXT NOT NULL, told INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE dead(
        id INTEGER PRIMARY KEY AUTOINCREMENT, lane INTEGER NOT NULL, run INTEGER NOT NULL, sequence INTEGER NOT NULL,
        at INTEGER NOT NULL, cause TEXT NOT NULL, attempts INTEGER NOT NULL, bytes INTEGER NOT NULL,
        body BLOB NOT NULL, UNIQUE(lane, run, sequence));
    INSERT INTO state VALUES('spool_id', 4711);
    INSERT INTO state VALUES('schema', 1);
    INSERT INTO lane VALUES(1, 'one');
    INSERT INTO loss(at,lane,run,first,last,n,exact,reason) VALUES(5,1,7,1,3,3,1,'age');
    PRAGMA application_id=1178747225;
    PRAGMA user_version=1;
";

/// A spool of version 1 with two chunks, as a kill leaves it.
fn version_1(dir: &Path) {
    let live = tempfile::tempdir().unwrap();
    let conn = rusqlite::Connection::open(live.path().join("spool.db")).unwrap();
    conn.execute_batch("PRAGMA page_size=4096; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL;").unwrap();
    conn.execute_batch(VERSION_1).unwrap();
    for i in 0..2 {
        let new = chunk(LANE, i, 3, 700);
        let data = crate::spool::chunk::encode(4711, new.run, LANE, &new.records);
        let sql = "INSERT INTO chunk VALUES(?1,1,77,?2,?3,3,?4,?5,?6,NULL,?7)";
        let (first, last, bytes) = (10 * i as i64, 10 * i as i64 + 2, data.len() as i64);
        conn.execute(sql, rusqlite::params![new.row, first, last, bytes, new.ts_min, new.ts_max, data]).unwrap();
    }
    copy(live.path(), dir, "");
    copy(live.path(), dir, "-wal");
}

fn check_migrated(store: &mut Store) {
    assert_eq!(read_all(store, LANE).len(), 2);
    assert_eq!((store.spool_id, store.lane_number("one").unwrap()), (4711, 1));
    assert_eq!(store.loss_totals().unwrap(), [("age".to_owned(), 3)]);
    assert_eq!((store.facts().unwrap(), known(store, SET)), (Vec::new(), Vec::new()));
    let mut commit = changes(vec![put(Kind::Session, b"s\0a", b"1")]);
    commit.message_ids = vec![id(1)];
    store.commit(&commit).unwrap();
    assert_eq!((store.facts().unwrap().len(), known(store, SET).len()), (1, 1));
}

#[test]
fn a_file_of_version_1_is_migrated_with_all_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    version_1(dir.path());
    check_migrated(&mut open(dir.path()));
    let again = open(dir.path());
    assert_eq!(again.facts().unwrap().len(), 1, "once");
}

#[test]
fn a_migration_cut_off_anywhere_begins_again() {
    let live = tempfile::tempdir().unwrap();
    version_1(live.path());
    let len = || std::fs::metadata(live.path().join("spool.db-wal")).unwrap().len();
    let before = len();
    let store = open(live.path());
    let after = len();
    assert!(after > before);
    for cut in (before..=after).step_by(1030) {
        let dir = tempfile::tempdir().unwrap();
        copy(live.path(), dir.path(), "");
        copy(live.path(), dir.path(), "-wal");
        let wal = std::fs::OpenOptions::new().write(true).open(dir.path().join("spool.db-wal")).unwrap();
        wal.set_len(cut).unwrap();
        check_migrated(&mut open(dir.path()));
    }
    drop(store);
}

#[test]
fn a_damaged_file_of_version_1_is_salvaged() {
    let dir = tempfile::tempdir().unwrap();
    version_1(dir.path());
    let aside = set_aside(&dir.path().join("spool.db")).unwrap();
    let mut store = open(dir.path());
    let saved = salvage(&aside, &mut store, &HashMap::new());
    assert_eq!((saved.chunks, saved.missing_at_most), (2, 0), "that it lacks tables of today is no damage");
    assert_eq!(read_all(&mut store, LANE).len(), 2);
}

#[test]
fn what_can_be_read_of_a_damaged_file_comes_over_from_both_ends() {
    const SESSIONS: u32 = 400;
    let whole = tempfile::tempdir().unwrap();
    let mut store = open(whole.path());
    let key = |i: u32| format!("s\0client-{i:05}").into_bytes();
    for i in 0..SESSIONS {
        let mut commit = insert(vec![chunk(LANE, u64::from(i), 1, 10)]);
        commit.changes = vec![(0, put(Kind::Session, &key(i), &[i as u8; 100]))];
        commit.message_ids = vec![id(u64::from(i))];
        store.commit(&commit).unwrap();
    }
    drop(store);
    let pages = std::fs::metadata(whole.path().join("spool.db")).unwrap().len() / 4096;
    let (mut hit, mut most) = (0, 0);
    for page in 0..pages {
        let dir = tempfile::tempdir().unwrap();
        copy(whole.path(), dir.path(), "");
        let path = dir.path().join("spool.db");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[page as usize * 4096..][..4096].fill(0);
        std::fs::write(&path, bytes).unwrap();
        let aside = set_aside(&path).unwrap();
        let mut store = open(dir.path());
        let saved = salvage(&aside, &mut store, &HashMap::new());
        let facts = store.facts().unwrap();
        for fact in &facts {
            let i: u32 = std::str::from_utf8(&fact.key[9..]).unwrap().parse().unwrap();
            assert_eq!((&fact.key, &fact.value), (&key(i), &vec![i as u8; 100]), "page {page}");
        }
        if (1..SESSIONS as usize).contains(&facts.len()) {
            hit += 1;
            most = most.max(SESSIONS as usize - facts.len());
            assert_eq!((saved.chunks, saved.missing_at_most), (u64::from(SESSIONS), 0), "page {page}: no chunk is hit");
            assert_eq!(known(&store, SET).len(), SESSIONS as usize);
        }
    }
    // A leaf holds some thirty of them. What it cost comes from the leaf alone, not from all behind it.
    assert!(hit >= 8 && most <= 80, "{hit} pages hit, at most {most} facts lost to one");
}
