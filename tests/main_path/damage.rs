//! A damaged spool as a whole story: killed, damaged, started, salvaged, drained, and accounted for.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::gateway::metric;
use crate::harness::jobs;
use crate::harness::readings::Reading;
use crate::harness::rig::Rig;

/// SQLite's page, and the first byte of a leaf of a table (file format of SQLite, section 1.6).
const PAGE: usize = 4096;
const LEAF: u8 = 0x0d;

/// Turns a leaf in the first half of the file into noise: by then it lies in the file alone and not in the WAL too, and
/// chunks lie before it and behind it. How many of its bytes were changed.
fn damage(spool: &Path) -> usize {
    let mut bytes = fs::read(spool).unwrap();
    let pages = bytes.len() / PAGE;
    // Behind the schema and the small tables.
    let leaf = (pages / 5..pages / 2).find(|page| bytes[page * PAGE] == LEAF).expect("chunks have leaves");
    let page = &mut bytes[leaf * PAGE..(leaf + 1) * PAGE];
    page.iter_mut().for_each(|byte| *byte ^= 0xa5);
    fs::write(spool, bytes).unwrap();
    PAGE
}

/// Files that a start has set aside.
fn set_aside(folder: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.to_string_lossy().contains("damaged-")).collect()
}

#[test]
fn what_a_damaged_file_still_holds_arrives_and_the_rest_is_in_the_ledger() {
    let mut rig = Rig::builder().own_kafka().lane("when = \"always\"").start();
    rig.kafka.stop();
    let readings = (0..300).flat_map(|number| (0..10).map(move |device| Reading::padded(device, number, 4_000)));
    let published = rig.load(2_000, readings.collect()).finish();
    rig.wait_accepted(published.len());
    rig.gateway.kill9();
    let state = rig.gateway.state_dir();
    rig.saw("damaged bytes", damage(&state.join("spool.db")));
    rig.gateway.start_alone();
    rig.gateway.wait_for_line("set aside");
    rig.kafka.restart();
    rig.wait_empty();
    let aside = set_aside(&state);
    assert!(!aside.is_empty(), "the damaged file is kept: {:?}", fs::read_dir(&state).unwrap().collect::<Vec<_>>());
    let lost = rig.gateway.metric(metric::LEDGER);
    let ledger = rig.gateway.command(&["spool", "losses"]).lines();
    assert!(lost > 0.0 && ledger.iter().all(|loss| loss["reason"] == "corrupt"), "{ledger:#?}");
    jobs::wait_until("the salvage and its losses are told", || {
        let events = rig.kafka.consume_all(&rig.topic("events"));
        let kinds: Vec<Value> = events.iter().filter_map(|e| serde_json::from_slice(&e.payload).ok()).collect();
        let told = |kind: &str| kinds.iter().filter(|event| event["event"] == kind).count();
        (told("spool-set-aside") == 1 && told("loss") == ledger.len()).then_some(())
    });
    let verdict = rig.close_books_with_losses(&published);
    assert!(verdict.delivered > published.len() * 4 / 5, "most of it is saved: {verdict:?}");
}
