//! Power cuts: whatever of the WAL reached the disk, the file shows exactly the commits that are whole in it.

use super::kept::{delete, put};
use super::*;
use crate::intake::{Kind, MessageId};

const FRAME: u64 = 24 + 4096;

#[test]
fn a_wal_cut_anywhere_shows_the_commits_before_the_cut() {
    let live = tempfile::tempdir().unwrap();
    let mut store = open(live.path());
    let wal_len = || std::fs::metadata(live.path().join("spool.db-wal")).unwrap().len();
    let begin = wal_len();
    let mut ends = Vec::new();
    for i in 0..8 {
        let mut commit = insert(vec![chunk(LANE, i, 3, 700)]);
        // Each commit deletes the chunk before: a commit that is seen in part would show two chunks or none.
        commit.settled = if i == 0 { Vec::new() } else { vec![(row_base(LANE) + i as RowId, false)] };
        // What its readings' source keeps moves with it, and so does the id.
        commit.changes = vec![(i, put(Kind::Qos2, &[i as u8], &[9; 16]))];
        commit.changes.extend(i.checked_sub(1).map(|before| (i, delete(Kind::Qos2, &[before as u8]))));
        commit.message_ids = vec![MessageId { id: u128::from(i), payload: i }];
        store.commit(&commit).unwrap();
        ends.push(wal_len());
    }
    assert!(ends.is_sorted() && ends[0] > begin, "the WAL grows with each commit: {ends:?}");
    let frames = (ends[7] - begin) / FRAME;
    for frame in 0..=frames {
        for more in [0, 1, 24, 24 + 2048] {
            let cut = (begin + frame * FRAME + more).min(ends[7]);
            let expected = ends.iter().filter(|end| **end <= cut).count() as RowId;
            let dir = tempfile::tempdir().unwrap();
            copy(live.path(), dir.path(), "");
            copy(live.path(), dir.path(), "-wal");
            let wal = std::fs::OpenOptions::new().write(true).open(dir.path().join("spool.db-wal")).unwrap();
            wal.set_len(cut).unwrap();
            let mut store = open(dir.path());
            let rows: Vec<RowId> = read_all(&mut store, LANE).into_keys().collect();
            let wanted: Vec<RowId> = if expected == 0 { Vec::new() } else { vec![row_base(LANE) + expected] };
            assert_eq!(rows, wanted, "cut at {cut} of {ends:?}");
            let kept: Vec<RowId> =
                store.facts().unwrap().iter().map(|f| row_base(LANE) + 1 + RowId::from(f.key[0])).collect();
            assert_eq!(kept, wanted, "a change without its reading, or a reading without its change; cut at {cut}");
            let ids: usize = store.known_message_ids(6).unwrap().iter().map(|batch| batch.ids.len()).sum();
            assert_eq!(ids as RowId, expected, "cut at {cut}");
        }
    }
}
