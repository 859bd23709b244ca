//! What happens at the limits: a full spool, a record that Kafka refuses.

use std::time::Duration;

use crate::harness::readings::{Reading, plant};
use crate::harness::rig::Rig;

/// The limit of the file, not of the disk: a full disk needs a file system of its own, and so root. To the spool both
/// are a commit that cannot be made; its own tests make SQLite itself run out of pages.
const SMALL_SPOOL: &str = "max_bytes = \"4MiB\"";
const SMALL_MEMORY: &str = "producer = \"1MiB\"";

/// Three times what the small spool holds.
fn flood() -> Vec<Reading> {
    (0..300).flat_map(|number| (0..10).map(move |device| Reading::padded(device, number, 4_000))).collect()
}

#[test]
fn a_full_spool_that_refuses_slows_the_sender_and_loses_nothing() {
    let mut rig =
        Rig::builder().own_kafka().spool(SMALL_SPOOL).memory(SMALL_MEMORY).lane("when_full = \"refuse\"").start();
    rig.kafka.stop();
    let published = rig.load(3_000, flood()).finish();
    let accepted = rig.tap.wait_quiet(Duration::from_secs(5)).accepted.len();
    assert!(accepted > 300, "the spool takes what fits: {accepted}");
    rig.saw("refused at the limit", published.len() - accepted);
    rig.kafka.restart();
    let verdict = rig.close_books(&published);
    assert_eq!(verdict.delivered, published.len());
}

#[test]
fn a_full_spool_that_drops_the_oldest_accounts_for_each() {
    let rig =
        Rig::builder().own_kafka().spool(SMALL_SPOOL).memory(SMALL_MEMORY).lane("when_full = \"drop-oldest\"").start();
    rig.kafka.stop();
    let published = rig.load(3_000, flood()).finish();
    rig.wait_accepted(published.len());
    rig.kafka.restart();
    let verdict = rig.close_books_with_losses(&published);
    assert!(verdict.delivered < published.len(), "12 MB do not fit into 4 MiB");
    assert!(verdict.delivered > 300, "the newest are kept: {}", verdict.delivered);
}

#[test]
fn an_oversize_record_becomes_a_dead_letter_and_takes_no_other_with_it() {
    let mut rig = Rig::builder().topic_config("max.message.bytes", "50000").start();
    let mut readings = plant(10, 0, 50);
    for at in [450, 300, 100] {
        readings.insert(at, Reading::padded(3, 900 + at, 80_000));
    }
    let published = rig.load(1_000, readings).finish();
    rig.saw("oversize", 3);
    let verdict = rig.close_books(&published);
    assert_eq!((verdict.delivered, verdict.dead), (500, 3));
}
