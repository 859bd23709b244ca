//! docs/mqtt.md against the tests: every numbered statement of both standards once, with the tests that show it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::conformance::{CASES, Case};

/// Sections of MQTT 3.1.1 and how many statements each has.
const V4: [(&str, std::ops::RangeInclusive<u32>); 39] = [
    ("1.5.3", 1..=3),
    ("2.2.2", 1..=2),
    ("2.3.1", 1..=7),
    ("3.1.0", 1..=2),
    ("3.1.2", 1..=24),
    ("3.1.3", 1..=11),
    ("3.1.4", 1..=5),
    ("3.2.0", 1..=1),
    ("3.2.2", 1..=6),
    ("3.3.1", 1..=12),
    ("3.3.2", 1..=3),
    ("3.3.4", 1..=1),
    ("3.3.5", 1..=2),
    ("3.6.1", 1..=1),
    ("3.8.1", 1..=1),
    ("3.8.3", 1..=4),
    ("3.8.4", 1..=6),
    ("3.9.3", 1..=2),
    ("3.10.1", 1..=1),
    ("3.10.3", 1..=2),
    ("3.10.4", 1..=6),
    ("3.12.4", 1..=1),
    ("3.14.1", 1..=1),
    ("3.14.4", 1..=3),
    ("4.1.0", 1..=2),
    ("4.3.1", 1..=1),
    ("4.3.2", 1..=2),
    ("4.3.3", 1..=2),
    ("4.4.0", 1..=1),
    ("4.5.0", 1..=2),
    ("4.6.0", 1..=6),
    ("4.7.1", 1..=3),
    ("4.7.2", 1..=1),
    ("4.7.3", 1..=4),
    ("4.8.0", 1..=2),
    ("6.0.0", 1..=4),
    ("7.0.0", 1..=2),
    ("7.1.1", 1..=1),
    ("7.1.2", 1..=1),
];

/// The same of MQTT 5.0.
const V5: [(&str, std::ops::RangeInclusive<u32>); 56] = [
    ("1.5.4", 1..=3),
    ("1.5.5", 1..=1),
    ("1.5.7", 1..=1),
    ("2.1.3", 1..=1),
    ("2.2.1", 2..=6),
    ("2.2.2", 1..=1),
    ("3.1.0", 1..=2),
    ("3.1.2", 1..=30),
    ("3.1.3", 1..=12),
    ("3.1.4", 1..=6),
    ("3.2.0", 1..=2),
    ("3.2.2", 1..=22),
    ("3.3.1", 1..=13),
    ("3.3.2", 1..=20),
    ("3.3.4", 1..=10),
    ("3.4.2", 1..=3),
    ("3.5.2", 1..=3),
    ("3.6.1", 1..=1),
    ("3.6.2", 1..=3),
    ("3.7.2", 1..=3),
    ("3.8.1", 1..=1),
    ("3.8.3", 1..=5),
    ("3.8.4", 1..=8),
    ("3.9.2", 1..=2),
    ("3.9.3", 1..=2),
    ("3.10.1", 1..=1),
    ("3.10.3", 1..=2),
    ("3.10.4", 1..=6),
    ("3.11.2", 1..=2),
    ("3.11.3", 1..=2),
    ("3.12.4", 1..=1),
    ("3.14.0", 1..=1),
    ("3.14.1", 1..=1),
    ("3.14.2", 1..=4),
    ("3.14.4", 1..=3),
    ("3.15.1", 1..=1),
    ("3.15.2", 1..=3),
    ("4.1.0", 1..=2),
    ("4.2.0", 1..=1),
    ("4.3.1", 1..=1),
    ("4.3.2", 1..=5),
    ("4.3.3", 1..=13),
    ("4.4.0", 1..=2),
    ("4.5.0", 1..=2),
    ("4.6.0", 1..=6),
    ("4.7.0", 1..=1),
    ("4.7.1", 1..=2),
    ("4.7.2", 1..=1),
    ("4.7.3", 1..=4),
    ("4.8.2", 1..=6),
    ("4.9.0", 1..=3),
    ("4.12.0", 1..=7),
    ("4.12.1", 1..=2),
    ("4.13.1", 1..=1),
    ("4.13.2", 1..=1),
    ("6.0.0", 1..=4),
];

const V4_HEAD: &str = "## MQTT 3.1.1, statement by statement";
const V5_HEAD: &str = "## MQTT 5.0, statement by statement";
const CLIENTS: &str = "For clients only: ";

/// What a part of the page says.
#[derive(Default)]
struct Part {
    /// The last column of each statement's row.
    rows: BTreeMap<String, String>,
    clients: BTreeSet<String>,
    twice: Vec<String>,
}

fn part(page: &str, head: &str) -> Part {
    let start = page.find(head).unwrap_or_else(|| panic!("docs/mqtt.md has no {head:?}")) + head.len();
    let text = page[start..].split("\n## ").next().expect("split gives at least one");
    let mut part = Part::default();
    for line in text.lines() {
        if let Some(numbers) = line.strip_prefix(CLIENTS) {
            part.clients.extend(numbers.trim_end_matches('.').split(", ").map(str::to_owned));
        }
        let cells: Vec<&str> = line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
        let [number, _, shown] = cells[..] else { continue };
        if !number.starts_with(|first: char| first.is_ascii_digit()) {
            continue;
        }
        if part.rows.insert(number.to_owned(), shown.to_owned()).is_some() {
            part.twice.push(number.to_owned());
        }
    }
    part.twice.extend(part.clients.iter().filter(|number| part.rows.contains_key(*number)).cloned());
    part
}

/// Names of tests in a row's last column.
fn tests(shown: &str) -> BTreeSet<&str> {
    shown.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect()
}

/// `connect::a_test`
fn short(case: &Case) -> &'static str {
    case.name.rsplit_once("conformance::").expect("all cases are in that module").1
}

/// What is wrong with a part, given the standard's numbers and what the cases say that they show.
fn problems(part: &Part, numbers: &BTreeSet<String>, shown_by: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<String> {
    let mut found: Vec<String> = part.twice.iter().map(|number| format!("{number} occurs twice")).collect();
    let named: BTreeSet<String> = part.rows.keys().chain(&part.clients).cloned().collect();
    found.extend(numbers.difference(&named).map(|number| format!("{number} is missing")));
    found.extend(named.difference(numbers).map(|number| format!("{number} is no statement")));
    found.extend(
        shown_by.keys().filter(|n| !part.rows.contains_key(**n)).map(|n| format!("{n} is shown and has no row")),
    );
    for (number, shown) in &part.rows {
        let said = tests(shown);
        let have = shown_by.get(number.as_str()).cloned().unwrap_or_default();
        found.extend(said.difference(&have).map(|test| format!("{number}: no test {test} shows it")));
        found.extend(have.difference(&said).map(|test| format!("{number}: {test} is not named")));
        if shown.is_empty() {
            found.push(format!("{number}: neither a test nor a reason"));
        }
    }
    found
}

fn numbers(sections: &[(&str, std::ops::RangeInclusive<u32>)]) -> BTreeSet<String> {
    sections.iter().flat_map(|(section, all)| all.clone().map(move |n| format!("{section}-{n}"))).collect()
}

fn shown_by(statements: fn(&Case) -> &'static [&'static str]) -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let mut shown = BTreeMap::<_, BTreeSet<_>>::new();
    for case in CASES.iter().copied().flatten() {
        for number in statements(case) {
            shown.entry(*number).or_default().insert(short(case));
        }
    }
    shown
}

#[test]
fn every_statement_has_its_tests_or_a_reason() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/mqtt.md")).unwrap();
    let v4 = problems(&part(&page, V4_HEAD), &numbers(&V4), &shown_by(|case| case.v4));
    let v5 = problems(&part(&page, V5_HEAD), &numbers(&V5), &shown_by(|case| case.v5));
    assert!(v4.is_empty() && v5.is_empty(), "3.1.1: {v4:#?}\n5.0: {v5:#?}");
}

/// A check that finds nothing is no check.
#[test]
fn a_wrong_table_is_found() {
    let page = "\n## A\n\n| 1-1 | x | `a::b` |\n| 1-1 | x | `a::b` |\n| 1-2 | x | |\n| 1-9 | x | reason |\n| 1-4 | x | `a::c` |\n\n\
                For clients only: 1-4, 1-5.\n\n## B\n";
    let numbers = (1..=6).map(|n| format!("1-{n}")).collect();
    let shown = BTreeMap::from([("1-1", BTreeSet::from(["a::b", "a::d"])), ("1-5", BTreeSet::from(["a::b"]))]);
    let found = problems(&part(page, "## A"), &numbers, &shown);
    let expected = [
        "1-1 occurs twice",
        "1-4 occurs twice",
        "1-3 is missing",
        "1-6 is missing",
        "1-9 is no statement",
        "1-5 is shown and has no row",
        "1-1: a::d is not named",
        "1-2: neither a test nor a reason",
        "1-4: no test a::c shows it",
    ];
    assert_eq!(found, expected);
}
