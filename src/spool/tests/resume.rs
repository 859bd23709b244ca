//! A salvage that is cut off is taken up again, and one that was finished is never done twice.

use super::damage::{Hub, killed};
use super::*;
use crate::spool::salvage::{noted, set_aside};

const ALL: usize = 40;

fn found(dir: &Path) -> (Vec<usize>, bool) {
    let (hub, opened) = Hub::start(dir);
    let found = opened.lanes.iter().map(|lane| hub.read(lane.number).len()).collect();
    hub.owner.stop();
    (found, opened.set_aside.is_some())
}

#[test]
fn cut_off_after_the_rename_it_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path());
    set_aside(&dir.path().join("spool.db")).unwrap();
    assert_eq!(found(dir.path()), (vec![ALL, ALL], true));
    assert_eq!(found(dir.path()), (vec![ALL, ALL], false), "once");
}

#[test]
fn cut_off_between_file_and_wal_it_finds_both() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path());
    let path = dir.path().join("spool.db");
    let aside = set_aside(&path).unwrap();
    std::fs::rename(format!("{}-wal", aside.display()), format!("{}-wal", path.display())).unwrap();
    assert_eq!(found(dir.path()), (vec![ALL, ALL], true));
}

#[test]
fn cut_off_in_the_middle_what_had_come_over_is_not_taken_for_all() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path());
    set_aside(&dir.path().join("spool.db")).unwrap();
    let mut half = open(dir.path());
    half.lane_number("one").unwrap();
    half.commit(&insert(vec![chunk(1, 0, 5, 900)])).unwrap();
    drop(half);
    assert_eq!(found(dir.path()), (vec![ALL, ALL], true));
}

#[test]
fn a_note_that_comes_back_after_a_power_cut_costs_nothing_accepted_since() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path());
    let path = dir.path().join("spool.db");
    let aside = set_aside(&path).unwrap();
    assert_eq!(found(dir.path()), (vec![ALL, ALL], true));
    let mut since = open(dir.path());
    since.commit(&insert(vec![chunk(1, ALL as u64, 5, 900)])).unwrap();
    drop(since);
    std::fs::write(crate::spool::lock::with_suffix(&path, "salvaging"), aside.to_str().unwrap()).unwrap();
    assert_eq!(found(dir.path()), (vec![ALL + 1, ALL], false));
    assert_eq!(noted(&path), None);
}

#[test]
fn what_was_accepted_into_an_unmarked_spool_stays_when_the_salvage_is_taken_up_again() {
    let dir = tempfile::tempdir().unwrap();
    killed(dir.path());
    set_aside(&dir.path().join("spool.db")).unwrap();
    let mut since = open(dir.path());
    since.lane_number("one").unwrap();
    since.commit(&insert(vec![chunk(1, ALL as u64, 5, 900)])).unwrap();
    drop(since);
    assert_eq!(found(dir.path()), (vec![ALL + 1, ALL], true));
}
