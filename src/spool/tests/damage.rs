//! Damage: the gateway always starts, always collects, invents nothing, and keeps what can be read.

use std::collections::{BTreeSet, HashMap};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use super::kept::put;
use super::*;
use crate::intake::{Kind, MessageId};
use crate::spool::lane::tests::number;
use crate::spool::owner::{Owner, Request, Settings};
use crate::spool::salvage::{salvage, set_aside};
use crate::spool::{Reply, rawscan};

const CHUNKS: u64 = 40;

/// Two lanes of chunks on overflow pages, some of them in the WAL only. The store is leaked into a copy: what lies in
/// `dir` is what a kill leaves behind.
pub(super) fn killed(dir: &Path) {
    let live = tempfile::tempdir().unwrap();
    let mut store = open(live.path());
    for name in ["one", "two"] {
        store.lane_number(name).unwrap();
    }
    store.add_run(RUN, 1, "boot", "gw").unwrap();
    for i in 0..CHUNKS {
        let mut commit = insert(vec![chunk(1, i, 5, 900), chunk(2, i, 2, 10)]);
        commit.changes = vec![(i, put(Kind::Session, &i.to_be_bytes(), &[3; 200]))];
        commit.message_ids = vec![MessageId { id: u128::from(i), payload: i }];
        store.commit(&commit).unwrap();
        if i == CHUNKS / 2 {
            store.connection().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        }
    }
    copy(live.path(), dir, "");
    copy(live.path(), dir, "-wal");
}

fn settings(dir: &Path) -> Settings {
    Settings {
        path: dir.join("spool.db"),
        max_bytes: MAX_BYTES,
        dead_bytes_max: 1 << 20,
        reserve_bytes: 0,
        ballast_bytes: 0,
        gateway: "gw".into(),
        lanes: vec!["one".into(), "two".into()],
        message_ids: crate::config::MessageIds::default(),
    }
}

/// The hub's side of the owner thread.
pub(super) struct Hub {
    pub(super) owner: Owner,
    replies: Receiver<Reply>,
}

impl Hub {
    pub(super) fn start(dir: &Path) -> (Hub, crate::spool::owner::Opened) {
        let (answers, replies) = sync_channel(100_000);
        let answer = Box::new(move |reply| drop(answers.send(reply)));
        let (owner, opened) = Owner::start(settings(dir), answer).expect("it always starts");
        (Hub { owner, replies }, opened)
    }

    fn ask(&self, request: Request) -> Reply {
        assert!(self.owner.ask(request).is_ok());
        loop {
            match self.replies.recv_timeout(Duration::from_secs(20)).expect("the owner thread lives") {
                Reply::Disk { .. } | Reply::Counted { .. } | Reply::CountDone | Reply::SetAside { .. } => {}
                reply => return reply,
            }
        }
    }

    /// Reads a lane to its end; a read that fails is asked again, as the lane does.
    pub(super) fn read(&self, lane: u32) -> Vec<StoredChunk> {
        let mut found: Vec<StoredChunk> = Vec::new();
        let mut failures = 0;
        loop {
            let after = found.last().map_or(row_base(lane), |c| c.row);
            match self.ask(Request::Read { lane, after, bytes: 20_000 }) {
                Reply::Read { read, .. } => {
                    found.extend(read.chunks);
                    if !read.more {
                        return found;
                    }
                }
                Reply::ReadFailed { error, .. } => {
                    failures += 1;
                    assert!(failures < 5, "lane {lane} cannot be read any more: {error}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn commits(&self, row: RowId) -> bool {
        let mut new = chunk(1, 0, 3, 10);
        new.row = row;
        (0..5).any(|_| matches!(self.ask(Request::Commit(Box::new(insert(vec![new.clone()])))), Reply::Committed(_)))
    }
}

fn mutate(dice: &mut Dice, path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let len = bytes.len() as u64;
    let page = (dice.below(len / 4096 + 1) * 4096).min(len.saturating_sub(1)) as usize;
    let end = (page + 4096).min(bytes.len());
    match dice.below(6) {
        0 | 1 => {
            for _ in 0..=dice.below(30) {
                let at = if dice.one_in(3) { dice.below(100.min(len)) } else { dice.below(len) } as usize;
                bytes[at] ^= 1 << dice.below(8);
            }
        }
        2 => bytes[page..end].fill(0),
        3 => bytes[page..end].iter_mut().for_each(|b| *b = dice.roll() as u8),
        4 => bytes.truncate(dice.below(len) as usize),
        _ => {
            let from = (dice.below(len / 4096) * 4096) as usize;
            let other = bytes[from..(from + 4096).min(len as usize)].to_vec();
            let n = other.len().min(end - page);
            bytes[page..page + n].copy_from_slice(&other[..n]);
        }
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn it_starts_reads_and_collects_whatever_the_file_looks_like() {
    let whole = tempfile::tempdir().unwrap();
    killed(whole.path());
    for seed in 0..number("FOREBAY_SEEDS").unwrap_or(120) {
        let mut dice = Dice::new(seed);
        let dir = tempfile::tempdir().unwrap();
        copy(whole.path(), dir.path(), "");
        copy(whole.path(), dir.path(), "-wal");
        for _ in 0..=dice.below(2) {
            let name = if dice.one_in(3) { "spool.db-wal" } else { "spool.db" };
            mutate(&mut dice, &dir.path().join(name));
        }
        eprintln!("seed {seed}");
        let (hub, opened) = Hub::start(dir.path());
        assert!(opened.kept.iter().all(|fact| fact.kind != Kind::Session || fact.key.len() == 8), "seed {seed}");
        let number = opened.lanes[0].number;
        for lane in &opened.lanes {
            for chunk in hub.read(lane.number) {
                check_genuine(&chunk);
            }
        }
        let row = opened.lanes[0].last_row.max(row_base(number)) + 1_000;
        assert!(hub.commits(row), "seed {seed}: it does not collect any more");
        hub.owner.stop();
    }
}

/// A checksum held: so the records must be those that were written.
fn check_genuine(chunk: &StoredChunk) {
    for (sequence, found) in &chunk.records {
        let size = if crate::spool::row_lane(chunk.row) == 1 { 900 } else { 10 };
        assert!(*found == body(*sequence, size), "row {} holds a record nobody wrote", chunk.row);
    }
}

#[test]
fn one_damaged_page_costs_no_more_than_what_lies_on_it() {
    let whole = tempfile::tempdir().unwrap();
    killed(whole.path());
    // All of it in the file proper, so that every page counts.
    drop(open(whole.path()));
    let pages = std::fs::metadata(whole.path().join("spool.db")).unwrap().len() / 4096;
    let mut worst = 0;
    for page in 0..pages {
        let dir = tempfile::tempdir().unwrap();
        copy(whole.path(), dir.path(), "");
        let path = dir.path().join("spool.db");
        let mut bytes = std::fs::read(&path).unwrap();
        let at = page as usize * 4096;
        bytes[at..at + 4096].fill(0);
        std::fs::write(&path, bytes).unwrap();
        let aside = set_aside(&path).unwrap();
        let mut store = open(dir.path());
        let saved = salvage(&aside, &mut store, &HashMap::new());
        let rows: BTreeSet<RowId> = [1, 2].iter().flat_map(|lane| read_all(&mut store, *lane).into_keys()).collect();
        assert_eq!(saved.chunks, rows.len() as u64);
        let lost = 2 * CHUNKS - rows.len() as u64;
        worst = worst.max(lost);
        check_gaps(&rows, &saved.losses, page);
    }
    // A leaf holds some tens of the small chunks.
    assert!((1..=45).contains(&worst), "one page cost {worst} chunks");
}

/// What is missing between two chunks of a lane is in the ledger.
fn check_gaps(rows: &BTreeSet<RowId>, losses: &[crate::spool::Loss], page: u64) {
    for lane in [1, 2] {
        let of_lane: Vec<RowId> =
            rows.range(row_base(lane)..row_base(lane + 1)).map(|r| r - row_base(lane) - 1).collect();
        let (Some(first), Some(last)) = (of_lane.first(), of_lane.last()) else { continue };
        for i in (*first..*last).filter(|i| !of_lane.contains(i)) {
            let sequence = 10 * i as u64;
            let told = losses.iter().any(|l| l.lane == lane && l.first <= sequence && sequence <= l.last && !l.exact);
            assert!(told, "page {page}: chunk {i} of lane {lane} is missing and in no entry of the ledger");
        }
    }
}

#[test]
fn the_raw_scan_finds_every_chunk_in_file_and_wal() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path());
    let mut rows = BTreeSet::new();
    rawscan::scan(&dir.path().join("spool.db"), &mut |row, bytes| {
        if crate::spool::chunk::decode(bytes).is_ok() {
            rows.insert(row);
        }
    });
    let wanted = |lane| (1..=CHUNKS as RowId).map(move |i| row_base(lane) + i);
    assert_eq!(rows, wanted(1).chain(wanted(2)).collect());
}

#[test]
fn a_file_cut_to_nothing_gives_back_what_its_wal_holds() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path());
    std::fs::write(dir.path().join("spool.db"), b"").unwrap();
    let (hub, opened) = Hub::start(dir.path());
    assert!(opened.set_aside.is_some());
    let small = opened.lanes.iter().map(|lane| hub.read(lane.number).len()).sum::<usize>();
    assert!(small > 0, "the WAL's leaves hold chunks that need no other page");
    hub.owner.stop();
}

#[test]
fn a_second_owner_is_refused_until_the_first_has_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, _) = Hub::start(dir.path());
    let second = Owner::start(settings(dir.path()), Box::new(|_| {}));
    assert!(second.is_err_and(|e| e.contains("another gateway or command holds the spool")));
    hub.owner.stop();
    Hub::start(dir.path()).0.owner.stop();
}

#[test]
fn without_room_nothing_is_stored_and_what_frees_space_still_goes() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, opened) = Hub::start(dir.path());
    let row = row_base(opened.lanes[0].number) + 1;
    assert!(hub.commits(row));
    hub.owner.stop();
    let (answers, replies) = sync_channel(1_000);
    let poor = Settings { reserve_bytes: u64::MAX / 2, ..settings(dir.path()) };
    let (owner, _) = Owner::start(poor, Box::new(move |reply| drop(answers.send(reply)))).unwrap();
    let hub = Hub { owner, replies };
    assert!(!hub.commits(row + 1));
    let settle = Commit { settled: vec![(row, false)], ..Commit::default() };
    assert!(matches!(hub.ask(Request::Commit(Box::new(settle))), Reply::Committed(_)));
    assert!(hub.read(opened.lanes[0].number).is_empty());
    hub.owner.stop();
}
