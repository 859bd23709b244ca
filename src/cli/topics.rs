//! `forebay topics diff` and `topics apply`: the topics of the configuration against those in Kafka.
//!
//! `apply` may be run again and again: what is as wanted is left alone. Exit codes: 0 when nothing differs (any more),
//! 1 when something still does (as diff(1)), else the codes of [`super::exit`].

mod plan;

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};

pub use plan::Actual;
use plan::{Allowed, Difference, Verdict};

use super::exit;
use super::kafka::{Cluster, ClusterError};
use crate::config::{Config, Topic, UnmatchedSpec};
use crate::route::template::Template;

/// Something differs. Not one of sysexits: scripts know it from diff(1).
const DIFFERS: u8 = 1;

#[derive(Debug, clap::Args)]
pub struct TopicsArgs {
    #[command(subcommand)]
    command: TopicsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TopicsCommand {
    /// Show what differs between the configuration and Kafka; change nothing.
    Diff {
        /// Print one JSON document for scripts.
        #[arg(long)]
        json: bool,
    },
    /// Create the missing topics and set the properties that differ.
    Apply {
        /// Add partitions where more are wanted. Keys move to other partitions then.
        #[arg(long)]
        add_partitions: bool,
        /// Also make changes after which the broker may delete records it keeps today.
        #[arg(long)]
        allow_deletion: bool,
        /// Print one JSON document for scripts.
        #[arg(long)]
        json: bool,
    },
}

/// What became of a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// Only shown.
    Differs,
    Applied,
    Left(String),
    Failed(String),
}

#[derive(Debug)]
struct Report {
    cluster: String,
    topic: String,
    found: Vec<(Difference, Outcome)>,
}

/// A cluster that could not be asked.
#[derive(Debug)]
struct Unasked {
    cluster: String,
    error: ClusterError,
}

/// Runs the command; results go to stdout, errors to stderr. Returns the exit code.
pub fn run(config: &Config, args: &TopicsArgs) -> u8 {
    let (allowed, as_json) = match args.command {
        TopicsCommand::Diff { json } => (None, json),
        TopicsCommand::Apply { add_partitions, allow_deletion, json } => {
            (Some(Allowed { add_partitions, deletion: allow_deletion }), json)
        }
    };
    let (mut reports, mut unasked) = (Vec::new(), Vec::new());
    for (number, kafka) in config.kafka.iter().enumerate() {
        let declared: Vec<&Topic> = config.topics.iter().filter(|topic| topic.kafka == number).collect();
        let used = used_names(config, number);
        match Cluster::open(kafka).and_then(|cluster| ask(&cluster, &declared, &used, allowed)) {
            Ok(some) => reports.extend(some),
            Err(error) => unasked.push(Unasked { cluster: kafka.name.clone(), error }),
        }
    }
    let printed = if as_json { print_json(&reports, &unasked) } else { print_text(&reports, &unasked) };
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => exit::IOERR,
        _ => code(&reports, &unasked),
    }
}

/// One report for each declared topic, and one for each that is used but neither declared nor there.
fn ask(
    cluster: &Cluster,
    declared: &[&Topic],
    used: &[String],
    allowed: Option<Allowed>,
) -> Result<Vec<Report>, ClusterError> {
    let names: Vec<&str> = declared.iter().map(|topic| topic.name.as_str()).collect();
    let existing = cluster.topics(&names)?;
    let report = |topic: &str, found| Report { cluster: cluster.name().to_owned(), topic: topic.to_owned(), found };
    let mut reports: Vec<Report> =
        declared.iter().map(|topic| report(&topic.name, settle(cluster, topic, &existing, allowed))).collect();
    for name in used.iter().filter(|name| !existing.contains_key(*name) && !names.contains(&name.as_str())) {
        let outcome = outcome_of(&Difference::Undeclared, None, allowed).unwrap_or(Outcome::Differs);
        reports.push(report(name, vec![(Difference::Undeclared, outcome)]));
    }
    Ok(reports)
}

/// Finds what differs in one topic and, with `allowed`, does something about it.
fn settle(
    cluster: &Cluster,
    topic: &Topic,
    existing: &BTreeMap<String, Actual>,
    allowed: Option<Allowed>,
) -> Vec<(Difference, Outcome)> {
    let actual = existing.get(&topic.name);
    let mut found = Vec::new();
    for difference in plan::differences(topic, actual) {
        let outcome = if let Some(twin) = twin_of(&difference, topic, existing) {
            Outcome::Left(format!("Kafka refuses it beside \"{twin}\": the names differ by `.` and `_` only"))
        } else if let Some(outcome) = outcome_of(&difference, actual, allowed) {
            outcome
        } else {
            change(cluster, topic, &difference)
                .map_or_else(|error| Outcome::Failed(error.to_string()), |()| Outcome::Applied)
        };
        found.push((difference, outcome));
    }
    found
}

fn twin_of<'t>(difference: &Difference, topic: &Topic, existing: &'t BTreeMap<String, Actual>) -> Option<&'t String> {
    if *difference == Difference::Missing { plan::twin(&topic.name, existing.keys()) } else { None }
}

/// `None`: it is to be changed now.
fn outcome_of(difference: &Difference, actual: Option<&Actual>, allowed: Option<Allowed>) -> Option<Outcome> {
    let Some(allowed) = allowed else {
        return Some(Outcome::Differs);
    };
    match difference.verdict(actual, allowed) {
        Verdict::Apply => None,
        Verdict::Leave(reason) => Some(Outcome::Left(reason)),
    }
}

fn change(cluster: &Cluster, topic: &Topic, difference: &Difference) -> Result<(), ClusterError> {
    match difference {
        Difference::Missing => cluster.create(topic, &plan::wanted_properties(topic)),
        Difference::Partitions { wanted, .. } => cluster.add_partitions(&topic.name, *wanted),
        Difference::Property { name, wanted, .. } => cluster.set_property(&topic.name, name, wanted),
        // Their verdict is never `Apply`.
        Difference::Undeclared | Difference::Replication { .. } => Ok(()),
    }
}

/// Kafka topics this configuration writes to whatever the readings are, on this cluster.
fn used_names(config: &Config, cluster: usize) -> Vec<String> {
    let on_cluster = |lane: usize| config.lanes.get(lane).is_some_and(|lane| lane.kafka == cluster);
    let constant = |text: &str| Template::parse(text).ok().and_then(|template| template.constant().map(str::to_owned));
    let mut names: Vec<String> = config
        .routes
        .iter()
        .filter(|route| on_cluster(route.lane))
        .filter_map(|route| constant(&route.kafka_topic))
        .collect();
    if let UnmatchedSpec::Route { kafka_topic, lane, .. } = &config.unmatched
        && on_cluster(*lane)
    {
        names.extend(constant(kafka_topic));
    }
    if config.events.enabled && on_cluster(config.events_lane) {
        names.push(config.events.topic.clone());
    }
    names.sort();
    names.dedup();
    names
}

fn code(reports: &[Report], unasked: &[Unasked]) -> u8 {
    if let Some(first) = unasked.first() {
        return first.error.exit_code();
    }
    let outcomes = || reports.iter().flat_map(|report| report.found.iter().map(|(_, outcome)| outcome));
    if outcomes().any(|outcome| matches!(outcome, Outcome::Failed(_))) {
        return exit::UNAVAILABLE;
    }
    if outcomes().all(|outcome| *outcome == Outcome::Applied) { exit::OK } else { DIFFERS }
}

fn print_text(reports: &[Report], unasked: &[Unasked]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for report in reports {
        if report.found.is_empty() {
            writeln!(out, "{}/{}: as wanted", report.cluster, report.topic)?;
        }
        for (difference, outcome) in &report.found {
            writeln!(out, "{}/{}: {difference}{}", report.cluster, report.topic, outcome.words())?;
        }
    }
    out.flush()?;
    for Unasked { error, .. } in unasked {
        writeln!(io::stderr(), "failed to {error}")?;
    }
    Ok(())
}

fn print_json(reports: &[Report], unasked: &[Unasked]) -> io::Result<()> {
    let document = json!({
        "topics": reports.iter().map(Report::json).collect::<Vec<_>>(),
        "unasked": unasked.iter().map(|Unasked { cluster, error }| json!({ "cluster": cluster, "reason": error.to_string() }))
            .collect::<Vec<_>>(),
    });
    writeln!(io::stdout(), "{document:#}")
}

impl Report {
    fn json(&self) -> Value {
        let differences: Vec<Value> = self
            .found
            .iter()
            .map(|(difference, outcome)| {
                let (what, actual, wanted) = fields(difference);
                let (result, reason) = outcome.fields();
                json!({ "what": what, "actual": actual, "wanted": wanted, "result": result, "reason": reason })
            })
            .collect();
        json!({ "cluster": self.cluster, "topic": self.topic, "differences": differences })
    }
}

fn fields(difference: &Difference) -> (&str, Value, Value) {
    match difference {
        Difference::Missing => ("topic", Value::Null, json!("declared")),
        Difference::Undeclared => ("topic", Value::Null, json!("used")),
        Difference::Partitions { actual, wanted } => ("partitions", json!(actual), json!(wanted)),
        Difference::Replication { actual, wanted } => ("replication_factor", json!(actual), json!(wanted)),
        Difference::Property { name, actual, wanted } => (name, json!(actual), json!(wanted)),
    }
}

impl Outcome {
    fn words(&self) -> String {
        match self {
            Outcome::Differs => String::new(),
            Outcome::Applied => ": changed".to_owned(),
            Outcome::Left(reason) => format!(": left as it is: {reason}"),
            Outcome::Failed(reason) => format!(": failed to {reason}"),
        }
    }

    fn fields(&self) -> (&'static str, Option<&str>) {
        match self {
            Outcome::Differs => ("differs", None),
            Outcome::Applied => ("applied", None),
            Outcome::Left(reason) => ("left", Some(reason)),
            Outcome::Failed(reason) => ("failed", Some(reason)),
        }
    }
}

#[cfg(test)]
mod tests;
