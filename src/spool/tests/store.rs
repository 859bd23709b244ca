//! The store does what the simulation's model of it does, and keeps what it says about the file.

use super::*;
use crate::intake::{Change, Fact, Kind, MessageId};
use crate::spool::lane::tests::file::{File, Row};
use crate::spool::lane::tests::number;
use crate::spool::{DeadLetter, Evict, EvictUntil, Loss, Reason};

/// What both must show.
type Seen = (Vec<(RowId, Vec<u64>, Vec<u8>)>, Vec<(u64, u64, u64, String)>, u64);

/// The model's entries as the store writes them: what one commit takes for one reason, row after row, is one entry.
fn merged(losses: &[Loss]) -> Vec<Loss> {
    let mut entries: Vec<Loss> = Vec::new();
    for loss in losses.iter().filter(|l| l.n > 0) {
        match entries.last_mut().filter(|l| l.reason == loss.reason && l.last < loss.first) {
            Some(entry) => (entry.last, entry.n) = (loss.last, entry.n + loss.n),
            None => entries.push(loss.clone()),
        }
    }
    entries
}

fn ledger(losses: &[Loss]) -> Vec<(u64, u64, u64, String)> {
    losses.iter().map(|l| (l.first, l.last, l.n, l.reason.clone())).collect()
}

fn seen(chunks: impl IntoIterator<Item = StoredChunk>, losses: &[Loss], dead: u64) -> Seen {
    let sequences = |c: &StoredChunk| c.records.iter().map(|r| r.0).collect();
    let rows = chunks.into_iter().map(|c| (c.row, sequences(&c), c.settled.clone())).collect();
    (rows, ledger(losses), dead)
}

struct Twins {
    dir: tempfile::TempDir,
    dice: Dice,
    store: Store,
    model: File,
    next: u64,
    losses: Vec<Loss>,
}

impl Twins {
    fn row(&mut self) -> RowId {
        row_base(LANE) + 1 + self.dice.below(self.next.max(1)) as RowId
    }

    fn evict(&mut self) -> Evict {
        let until = match self.dice.below(2) {
            0 => EvictUntil::Records(1 + self.dice.below(30)),
            _ => EvictUntil::OlderThan(SET + self.dice.below(10 * self.next + 1) as i64),
        };
        let (after, before) = (self.row() - 1, self.row());
        Evict { lane: LANE, after, before, until, reason: Reason::DropOldest }
    }

    fn commit(&mut self) {
        let mut commit = Commit { at: 9, ..Commit::default() };
        if self.dice.one_in(2) {
            commit.chunks.push(chunk(LANE, self.next, 1 + self.dice.below(9), 5));
            self.next += 1;
        }
        if self.dice.one_in(3) {
            // What is history stays history: a lane forgets a chunk when it is settled.
            let row = self.row();
            if !self.model.rows.get(&row).is_some_and(Row::is_history) {
                commit.bitmaps.push((row, vec![self.dice.below(2) as u8]));
            }
        }
        if self.dice.one_in(4) {
            commit.settled.push((self.row(), self.dice.one_in(2)));
        }
        if self.dice.one_in(6) {
            commit.evictions.push(self.evict());
        }
        if self.dice.one_in(8) {
            let id = self.dice.below(40);
            let (cause, body) = ("poison".to_owned(), body(id, 0));
            commit.dead.push(DeadLetter { lane: LANE, run: RUN, sequence: id, at: 1, cause, attempts: 1, body });
        }
        for n in 0..self.dice.below(4) {
            let change = self.change();
            commit.changes.push((n, change));
        }
        if self.dice.one_in(3) {
            commit.message_ids = (0..=self.dice.below(4)).map(|n| MessageId { id: 99, payload: n }).collect();
        }
        let wanted = self.model.commit(&commit);
        let done = self.store.commit(&commit).unwrap();
        assert_eq!(ledger(&done.losses), ledger(&merged(&wanted.losses)));
        let records = |evicted: &[(u32, crate::spool::Freed)]| evicted.iter().map(|e| e.1.records).collect::<Vec<_>>();
        assert_eq!(records(&done.evicted), records(&wanted.evicted));
        self.losses.extend(done.losses);
        if let Some(kept) = done.kept {
            let rows = Kind::ALL.map(|kind| self.model.kept.keys().filter(|(k, _)| *k == kind).count() as u64);
            assert_eq!(kept, rows);
        }
    }

    /// Short keys of two letters: most of them meet each other.
    fn change(&mut self) -> Change {
        let kind = Kind::ALL[self.dice.below(3) as usize];
        let key: Vec<u8> = (0..self.dice.below(4)).map(|_| [b'a', 0xff][self.dice.below(2) as usize]).collect();
        match self.dice.below(8) {
            0 => Change::DeletePrefix { kind, prefix: key },
            1 | 2 => Change::Delete { kind, key },
            _ => Change::Put { kind, key, value: self.dice.roll().to_le_bytes().to_vec() },
        }
    }

    fn compare(&mut self) {
        let (chunks, _) = self.model.read(row_base(LANE), u64::MAX);
        let wanted = seen(chunks, &self.losses, self.model.dead.len() as u64);
        let dead = self.store.dead_count().unwrap();
        let found = seen(read_all(&mut self.store, LANE).into_values(), &self.losses, dead);
        assert_eq!(found, wanted);
        let fact = |((kind, key), value): (&(Kind, Vec<u8>), &Vec<u8>)| {
            let (kind, key, value) = (*kind, key.clone(), value.clone());
            Fact { kind, key, value }
        };
        let kept: Vec<Fact> = self.model.kept.iter().map(fact).collect();
        assert_eq!(self.store.facts().unwrap(), kept);
        let ids: Vec<MessageId> =
            self.store.known_message_ids(9).unwrap().into_iter().flat_map(|batch| batch.ids).collect();
        assert_eq!(ids, self.model.message_ids);
        assert_eq!(ledger(&self.store.all_losses(10_000).unwrap()), ledger(&self.losses), "the ledger in the file");
    }
}

#[test]
fn store_and_model_agree() {
    for seed in 0..number("FOREBAY_SEEDS").unwrap_or(12) {
        let dir = tempfile::tempdir().unwrap();
        let (store, dice) = (open(dir.path()), Dice::new(seed));
        let mut twins = Twins { store, dir, dice, model: File::default(), next: 0, losses: Vec::new() };
        for _ in 0..40 {
            twins.commit();
            if twins.dice.one_in(10) {
                twins.store = open(twins.dir.path());
            }
        }
        eprintln!("seed {seed}");
        twins.compare();
    }
}

#[test]
fn eviction_by_bytes_frees_enough_or_all() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let done = store.commit(&insert((0..10).map(|i| chunk(LANE, i, 4, 500)).collect())).unwrap();
    let wanted = done.chunk_bytes[..3].iter().sum::<u64>() - 1;
    let (after, before) = (row_base(LANE), RowId::MAX);
    let evict = |until| {
        let evictions = vec![Evict { lane: LANE, after, before, until, reason: Reason::DropOldest }];
        Commit { evictions, ..Commit::default() }
    };
    let freed = store.commit(&evict(EvictUntil::Bytes(wanted))).unwrap().evicted[0].1;
    assert_eq!((freed.chunks, freed.records), (3, 12));
    let freed = store.commit(&evict(EvictUntil::Bytes(u64::MAX))).unwrap().evicted[0].1;
    assert_eq!((freed.chunks, freed.records), (7, 28));
}

#[test]
fn the_file_is_set_up_as_promised() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let store = open(dir.path());
    let pragma = |name: &str| -> String {
        let value = |r: &rusqlite::Row<'_>| r.get::<_, rusqlite::types::Value>(0);
        let value = store.connection().query_row(&format!("PRAGMA {name}"), [], value).unwrap();
        match value {
            rusqlite::types::Value::Text(text) => text,
            rusqlite::types::Value::Integer(n) => n.to_string(),
            other => format!("{other:?}"),
        }
    };
    let pages = (MAX_BYTES / 4096).to_string();
    for (name, value) in [
        ("journal_mode", "wal"),
        ("synchronous", "2"),
        ("page_size", "4096"),
        ("auto_vacuum", "2"),
        ("journal_size_limit", "-1"),
        ("max_page_count", pages.as_str()),
        ("user_version", "2"),
    ] {
        assert_eq!(pragma(name), value, "{name}");
    }
}

#[test]
fn a_damaged_chunk_goes_into_the_ledger_and_the_read_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let chunks: Vec<_> = (0..5).map(|i| chunk(LANE, i, 4, 20)).collect();
    let row = chunks[2].row;
    store.commit(&insert(chunks)).unwrap();
    store.commit(&Commit { bitmaps: vec![(row, vec![0b0101])], ..Commit::default() }).unwrap();
    let spoil = "UPDATE chunk SET data=CAST(replace(data, x'4642', x'4643') AS BLOB) WHERE seq=?1";
    assert_eq!(store.connection().execute(spoil, [row]).unwrap(), 1);
    let read = store.read(LANE, row_base(LANE), u64::MAX).unwrap();
    assert_eq!(read.chunks.len(), 4);
    assert_eq!(ledger(&read.losses), [(20, 23, 2, "corrupt".to_owned())]);
    assert_eq!((read.discarded[0].0, read.discarded[0].1.records), (row, 2));
    let again = store.read(LANE, row_base(LANE), u64::MAX).unwrap();
    assert_eq!((again.chunks.len(), again.losses.len()), (4, 0));
}

#[test]
fn dead_letters_are_bounded_and_the_oldest_go_into_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(&dir.path().join("spool.db"), MAX_BYTES, 10_000).unwrap();
    let letter = |id: u64| {
        let (cause, body) = ("no".to_owned(), body(id, 1_000));
        DeadLetter { lane: LANE, run: RUN, sequence: id, at: 1, cause, attempts: 1, body }
    };
    let mut gone = 0;
    for i in 0..30 {
        let done = store.commit(&Commit { dead: vec![letter(i)], ..Commit::default() }).unwrap();
        gone += done.losses.iter().map(|l| l.n).sum::<u64>();
    }
    let left = store.dead_page(0, 100).unwrap();
    assert_eq!(left.len() as u64 + gone, 30);
    assert_eq!(left.iter().map(|d| d.letter.sequence).collect::<Vec<_>>(), (gone..30).collect::<Vec<_>>());
    assert!(left.iter().map(|d| d.letter.body.len()).sum::<usize>() <= 10_000);
    assert!(store.all_losses(100).unwrap().iter().all(|l| l.reason == "dead-letters-full"));
}

#[test]
fn the_ledger_is_bounded_and_its_totals_are_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let loss = |n| Loss {
        id: 0,
        at: 0,
        lane: 1,
        run: RUN,
        first: n,
        last: n,
        n: 1,
        exact: true,
        reason: Reason::DropNewest.as_str().to_owned(),
    };
    const ALL: u64 = 12_000;
    let mut told = Vec::new();
    for first in (0..ALL).step_by(400) {
        let losses = (first..first + 400).map(loss).collect();
        let done = store.commit(&Commit { losses, told: told.clone(), ..Commit::default() }).unwrap();
        told = done.losses.iter().map(|l| l.id).collect();
    }
    let kept = store.all_losses(u32::MAX).unwrap();
    assert!((10_000..11_000).contains(&kept.len()), "{}", kept.len());
    assert_eq!(store.loss_totals().unwrap(), [("drop-newest".to_owned(), ALL)]);
    assert_eq!(store.untold_losses(u32::MAX).unwrap().len(), 400, "what is not told stays");
}

#[test]
fn a_purge_with_the_service_stopped_is_in_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let lane = store.lane_number("telemetry").unwrap();
    store.commit(&insert(vec![chunk(lane, 0, 5, 10), chunk(lane, 1, 5, 10)])).unwrap();
    assert_eq!(store.purge_lane("nobody", 1).unwrap(), None);
    assert_eq!(store.purge_lane("telemetry", 1).unwrap(), Some(10));
    assert!(read_all(&mut store, lane).is_empty());
    assert_eq!(store.loss_totals().unwrap(), [("purged".to_owned(), 10)]);
    assert_eq!(
        store.untold_losses(10).unwrap().iter().map(|l| l.n).sum::<u64>(),
        10,
        "the gateway tells it when it runs"
    );
}
