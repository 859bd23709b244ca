//! The judge: closes the books over what was accepted and where it went. Pure.
//!
//! An accepted reading is an obligation. It must be in Kafka, in the dead letters, in the ledger or still in the spool;
//! nothing may be anywhere that was never offered; and order and identity hold. The ledger counts without naming ids, so
//! the equation has two sides: what is missing must be covered by it (`missing <= ledger + spooled`), and it may not
//! cover more than was ever offered (`records + ledger <= offered`). Without a resend both together are exact to one.

use std::collections::{BTreeMap, BTreeSet};

/// A publication, by the id in its payload. Order is promised within a stream: the Kafka topic and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    pub id: String,
    pub stream: String,
}

/// A record in Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    pub id: String,
    pub stream: String,
    /// Topic and partition.
    pub partition: String,
    pub forebay_id: Option<String>,
}

/// All that is known at the end of a test.
#[derive(Debug, Clone, Default)]
pub struct Books {
    pub offered: Vec<Publication>,
    /// In order of acceptance.
    pub accepted: Vec<Publication>,
    /// In order of offset within each partition.
    pub delivered: Vec<Arrival>,
    pub dead: Vec<Arrival>,
    /// Records that the gateway's ledger accounts for.
    pub ledger: u64,
    /// Records that the gateway still holds.
    pub spooled: u64,
    pub stray_pubacks: usize,
    /// What the test did, and how often it was seen to work. A run without its fault proves nothing.
    pub faults: Vec<(String, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// More accepted readings are missing than ledger and spool account for.
    Lost {
        missing: Vec<String>,
        accounted: u64,
    },
    /// More records and ledger entries than publications.
    Overcounted {
        records: u64,
        ledger: u64,
        offered: u64,
    },
    /// In Kafka, but never offered.
    Phantom {
        id: String,
    },
    /// `later` was accepted after `earlier` and arrived first.
    OutOfOrder {
        stream: String,
        earlier: String,
        later: String,
    },
    /// One stream in two partitions: its order means nothing.
    Scattered {
        stream: String,
    },
    NoForebayId {
        id: String,
    },
    /// One reading under more identities than it was offered times.
    TooManyIds {
        id: String,
        forebay_ids: usize,
        offered: usize,
    },
    /// One identity for two readings.
    IdReused {
        forebay_id: String,
        ids: Vec<String>,
    },
    /// Delivered and rejected.
    BothWays {
        forebay_id: String,
    },
    StrayPubacks(usize),
    FaultNeverSeen(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Distinct readings.
    pub accepted: usize,
    pub delivered: usize,
    pub dead: usize,
    /// Deliveries beyond the first of each reading.
    pub repeats: usize,
    pub problems: Vec<Problem>,
}

/// Weighs `books`. No problem means that every promise the books can show was kept.
pub fn judge(books: &Books) -> Verdict {
    let accepted = distinct(books.accepted.iter().map(|p| &p.id));
    let delivered = distinct(books.delivered.iter().map(|a| &a.id));
    let dead = distinct(books.dead.iter().map(|a| &a.id));
    let mut problems = Vec::new();
    balance(books, &mut problems);
    phantoms(books, &mut problems);
    identities(books, &mut problems);
    order(books, &mut problems);
    if books.stray_pubacks > 0 {
        problems.push(Problem::StrayPubacks(books.stray_pubacks));
    }
    let unseen = books.faults.iter().filter(|(_, times)| *times == 0);
    problems.extend(unseen.map(|(name, _)| Problem::FaultNeverSeen(name.clone())));
    Verdict {
        accepted: accepted.len(),
        delivered: delivered.len(),
        dead: dead.len(),
        repeats: books.delivered.len() - delivered.len(),
        problems,
    }
}

fn distinct<'a>(ids: impl Iterator<Item = &'a String>) -> BTreeSet<&'a str> {
    ids.map(String::as_str).collect()
}

fn balance(books: &Books, problems: &mut Vec<Problem>) {
    let found = distinct(arrivals(books).map(|a| &a.id));
    let accepted = distinct(books.accepted.iter().map(|p| &p.id));
    let missing: Vec<String> = accepted.difference(&found).map(|&id| id.to_owned()).collect();
    let accounted = books.ledger + books.spooled;
    if missing.len() as u64 > accounted {
        problems.push(Problem::Lost { missing, accounted });
    }
    // A repeat of a record carries the same identity and is one record.
    let records = distinct(arrivals(books).filter_map(|a| a.forebay_id.as_ref())).len() as u64;
    let offered = books.offered.len() as u64;
    if records + books.ledger > offered {
        problems.push(Problem::Overcounted { records, ledger: books.ledger, offered });
    }
}

fn phantoms(books: &Books, problems: &mut Vec<Problem>) {
    let offered = distinct(books.offered.iter().map(|p| &p.id));
    let found = distinct(arrivals(books).map(|a| &a.id));
    problems.extend(found.difference(&offered).map(|&id| Problem::Phantom { id: id.to_owned() }));
}

/// A reading that was offered twice (its PUBACK was lost in a crash) may be stored twice, under two identities.
fn identities(books: &Books, problems: &mut Vec<Problem>) {
    let mut offers: BTreeMap<&str, usize> = BTreeMap::new();
    books.offered.iter().for_each(|p| *offers.entry(&p.id).or_default() += 1);
    let mut by_reading: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut by_forebay_id: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for arrival in arrivals(books) {
        let Some(forebay_id) = &arrival.forebay_id else {
            problems.push(Problem::NoForebayId { id: arrival.id.clone() });
            continue;
        };
        by_reading.entry(&arrival.id).or_default().insert(forebay_id);
        by_forebay_id.entry(forebay_id).or_default().insert(&arrival.id);
    }
    for (id, forebay_ids) in by_reading {
        let offered = offers.get(id).copied().unwrap_or(0);
        // Nothing offered at all is a phantom, and reported as that.
        if offered > 0 && forebay_ids.len() > offered {
            problems.push(Problem::TooManyIds { id: id.to_owned(), forebay_ids: forebay_ids.len(), offered });
        }
    }
    for (forebay_id, ids) in by_forebay_id.into_iter().filter(|(_, ids)| ids.len() > 1) {
        let ids = ids.into_iter().map(str::to_owned).collect();
        problems.push(Problem::IdReused { forebay_id: forebay_id.to_owned(), ids });
    }
    let delivered = distinct(books.delivered.iter().filter_map(|a| a.forebay_id.as_ref()));
    let dead = distinct(books.dead.iter().filter_map(|a| a.forebay_id.as_ref()));
    let both = delivered.intersection(&dead);
    problems.extend(both.map(|&forebay_id| Problem::BothWays { forebay_id: forebay_id.to_owned() }));
}

/// Compares the first deliveries of each stream with the first acceptances: one report a stream is enough.
fn order(books: &Books, problems: &mut Vec<Problem>) {
    let mut rank: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, publication) in books.accepted.iter().enumerate() {
        rank.entry(&publication.id).or_insert(number);
    }
    let mut streams: BTreeMap<&str, Vec<&Arrival>> = BTreeMap::new();
    books.delivered.iter().for_each(|arrival| streams.entry(&arrival.stream).or_default().push(arrival));
    for (stream, arrivals) in streams {
        if distinct(arrivals.iter().map(|a| &a.partition)).len() > 1 {
            problems.push(Problem::Scattered { stream: stream.to_owned() });
        }
        let mut seen = BTreeSet::new();
        let mut latest: Option<(usize, &str)> = None;
        let firsts = arrivals.iter().filter(|a| seen.insert(a.id.as_str()));
        for (number, id) in firsts.filter_map(|a| Some((*rank.get(a.id.as_str())?, a.id.as_str()))) {
            if let Some((before, later)) = latest
                && before > number
            {
                let (stream, earlier, later) = (stream.to_owned(), id.to_owned(), later.to_owned());
                problems.push(Problem::OutOfOrder { stream, earlier, later });
                break;
            }
            latest = Some((number, id));
        }
    }
}

fn arrivals(books: &Books) -> impl Iterator<Item = &Arrival> {
    books.delivered.iter().chain(&books.dead)
}

/// Doctored histories: the judge is only worth something if each of these is found.
#[cfg(test)]
mod tests {
    use super::*;

    fn publication(number: usize) -> Publication {
        Publication { id: format!("r{number}"), stream: format!("d{}", number % 3) }
    }

    fn arrival(number: usize) -> Arrival {
        let Publication { id, stream } = publication(number);
        Arrival { id, partition: format!("t/{stream}"), stream, forebay_id: Some(format!("fb-{number}")) }
    }

    /// Thirty readings of three devices, each offered, accepted and delivered once.
    fn clean() -> Books {
        let accepted: Vec<_> = (0..30).map(publication).collect();
        let delivered = (0..30).map(arrival).collect();
        Books { offered: accepted.clone(), accepted, delivered, ..Books::default() }
    }

    fn problems(doctor: impl FnOnce(&mut Books)) -> Vec<Problem> {
        let mut books = clean();
        doctor(&mut books);
        judge(&books).problems
    }

    fn offer_again(books: &mut Books, number: usize) {
        books.offered.push(publication(number));
    }

    #[test]
    fn a_clean_history_has_no_problem() {
        let verdict = judge(&clean());
        assert_eq!(verdict, Verdict { accepted: 30, delivered: 30, dead: 0, repeats: 0, problems: vec![] });
    }

    #[test]
    fn a_dropped_record_is_lost() {
        let found = problems(|books| drop(books.delivered.remove(12)));
        assert_eq!(found, [Problem::Lost { missing: vec!["r12".to_owned()], accounted: 0 }]);
    }

    #[test]
    fn a_dropped_record_in_the_ledger_is_accounted_for_and_one_entry_too_many_is_found() {
        assert_eq!(problems(|books| (books.delivered.truncate(28), books.ledger = 2).1), []);
        let short = problems(|books| (books.delivered.truncate(28), books.ledger = 1).1);
        let missing = vec!["r28".to_owned(), "r29".to_owned()];
        assert_eq!(short, [Problem::Lost { missing, accounted: 1 }]);
        let long = problems(|books| (books.delivered.truncate(28), books.ledger = 3).1);
        assert_eq!(long, [Problem::Overcounted { records: 28, ledger: 3, offered: 30 }]);
    }

    #[test]
    fn what_is_still_spooled_or_dead_is_not_lost() {
        assert_eq!(problems(|books| (books.delivered.truncate(28), books.spooled = 2).1), []);
        assert_eq!(problems(|books| books.dead = books.delivered.split_off(28)), []);
    }

    #[test]
    fn two_swapped_records_of_one_stream_are_out_of_order() {
        let found = problems(|books| books.delivered.swap(3, 6));
        let expected =
            Problem::OutOfOrder { stream: "d0".to_owned(), earlier: "r3".to_owned(), later: "r6".to_owned() };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn two_swapped_records_of_two_streams_are_fine() {
        assert_eq!(problems(|books| books.delivered.swap(3, 4)), []);
    }

    #[test]
    fn a_stream_in_two_partitions_is_scattered() {
        let found = problems(|books| books.delivered[3].partition = "t/other".to_owned());
        assert_eq!(found, [Problem::Scattered { stream: "d0".to_owned() }]);
    }

    #[test]
    fn a_repeat_with_the_same_id_is_counted_and_allowed_anywhere_later() {
        let mut books = clean();
        books.delivered.push(arrival(5));
        let verdict = judge(&books);
        assert_eq!((verdict.repeats, verdict.problems), (1, vec![]));
    }

    #[test]
    fn a_repeat_with_another_id_is_found_unless_the_reading_was_offered_twice() {
        let twin = |books: &mut Books| books.delivered.push(Arrival { forebay_id: Some("x".to_owned()), ..arrival(5) });
        let found = problems(twin);
        assert!(found.contains(&Problem::TooManyIds { id: "r5".to_owned(), forebay_ids: 2, offered: 1 }), "{found:?}");
        assert_eq!(problems(|books| (twin(books), offer_again(books, 5)).1), []);
    }

    #[test]
    fn an_id_changed_to_that_of_another_record_is_found() {
        let found = problems(|books| books.delivered[4].forebay_id = Some("fb-9".to_owned()));
        let ids = vec!["r4".to_owned(), "r9".to_owned()];
        assert_eq!(found, [Problem::IdReused { forebay_id: "fb-9".to_owned(), ids }]);
    }

    #[test]
    fn an_id_that_changes_between_two_deliveries_is_found() {
        let found = problems(|books| {
            books.delivered.push(arrival(7));
            books.delivered[7].forebay_id = Some("changed".to_owned());
        });
        assert!(found.contains(&Problem::TooManyIds { id: "r7".to_owned(), forebay_ids: 2, offered: 1 }), "{found:?}");
    }

    #[test]
    fn a_record_without_an_id_is_found() {
        let found = problems(|books| books.delivered[4].forebay_id = None);
        assert_eq!(found, [Problem::NoForebayId { id: "r4".to_owned() }]);
    }

    #[test]
    fn a_phantom_is_found() {
        let found = problems(|books| books.delivered.push(arrival(99)));
        assert!(found.contains(&Problem::Phantom { id: "r99".to_owned() }), "{found:?}");
    }

    #[test]
    fn delivered_and_dead_at_once_is_found() {
        let found = problems(|books| books.dead.push(arrival(8)));
        assert_eq!(found, [Problem::BothWays { forebay_id: "fb-8".to_owned() }]);
    }

    #[test]
    fn a_stray_puback_and_a_fault_that_never_came_are_found() {
        let found = problems(|books| {
            books.stray_pubacks = 1;
            books.faults = vec![("kill".to_owned(), 0), ("cut".to_owned(), 2)];
        });
        assert_eq!(found, [Problem::StrayPubacks(1), Problem::FaultNeverSeen("kill".to_owned())]);
    }

    #[test]
    fn a_reading_offered_but_never_accepted_may_be_lost() {
        assert_eq!(problems(|books| books.offered.push(publication(30))), []);
    }
}
