//! `forebay check`: everything that is wrong with the configuration, or what it comes to.

mod listeners;
mod words;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::{check_lines, exit};
use crate::config::units::{show_duration, show_size};
use crate::config::{
    self, Cause, Config, Delivery, Lane, Loaded, MqttSource, Problem, Problems, RouteSpec, Severity, UnmatchedSpec,
};
use words::{order, when, when_full};

use crate::forward::client::kafka::try_producer;

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// Print one JSON document for scripts.
    #[arg(long)]
    json: bool,
}

/// Problems go to stderr, the summary to stdout; with `--json` everything goes to stdout.
pub fn run(path: &Path, args: &CheckArgs) -> u8 {
    let outcome = checked(path);
    let code = outcome.as_ref().map_or_else(|problems| code_of(problems.cause), |_| exit::OK);
    let printed = match (&outcome, args.json) {
        (outcome, true) => print(io::stdout(), &json(outcome)),
        (Ok(loaded), false) => print(io::stderr(), &warnings(&loaded.warnings))
            .and_then(|()| print(io::stdout(), &summary(&loaded.config, loaded.warnings.len()))),
        (Err(problems), false) => print(io::stderr(), &format!("{problems}\n")),
    };
    match printed {
        // `forebay check | head` has seen what it wanted.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => exit::IOERR,
        _ => code,
    }
}

/// Loads it and looks at everything that can be looked at without a connection.
///
/// # Errors
/// Everything that is wrong, at once.
pub(super) fn checked(path: &Path) -> Result<Loaded, Problems> {
    config::load(path).and_then(with_producers).and_then(listeners::with_files).map(with_rights)
}

/// What only librdkafka finds: contradicting properties, certificates that are none. Opens no connection.
fn with_producers(loaded: Loaded) -> Result<Loaded, Problems> {
    let refused = |kafka: &config::Kafka| Some((kafka.name.clone(), try_producer(kafka).err()?));
    let list: Vec<Problem> = loaded.config.kafka.iter().filter_map(refused).map(producer_problem).collect();
    if list.is_empty() {
        return Ok(loaded);
    }
    let config::Gateway { state_dir, runtime_dir, .. } = loaded.config.gateway;
    let list = loaded.warnings.into_iter().chain(list).collect();
    Err(Problems { list, omitted: 0, cause: Cause::Content, state_dir, runtime_dir })
}

/// Whether the serial ports that are there may be opened.
fn with_rights(mut loaded: Loaded) -> Loaded {
    loaded.warnings.extend(check_lines::rights(&loaded.config));
    loaded
}

fn producer_problem((cluster, why): (String, String)) -> Problem {
    Problem {
        severity: Severity::Error,
        message: format!("no producer can be made for [kafka.{cluster}]: {why}"),
        spot: None,
        note: None,
        help: Some("see its `properties`, and the files of its `tls`".to_owned()),
    }
}

fn code_of(cause: Cause) -> u8 {
    match cause {
        Cause::Missing => exit::NOINPUT,
        Cause::Denied => exit::NOPERM,
        Cause::Content => exit::CONFIG,
    }
}

fn print(mut to: impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}

fn warnings(list: &[Problem]) -> String {
    list.iter().fold(String::new(), |text, problem| text + &format!("{problem}\n"))
}

fn summary(config: &Config, warnings: usize) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_summary(&mut text, config);
    let plural = if warnings == 1 { "" } else { "s" };
    text + &format!("The configuration is valid, with {warnings} warning{plural}.\n")
}

fn write_summary(out: &mut String, config: &Config) -> std::fmt::Result {
    let memory = &config.memory;
    writeln!(out, "gateway  {}, configuration {}", config.gateway.name, config.hash)?;
    let [max, intake, window, producer] = [memory.max, memory.intake, memory.window, memory.producer].map(show_size);
    let part = |name: &str, bytes| if bytes > 0 { format!(", {name} {}", show_size(bytes)) } else { String::new() };
    let (fan_out, ids) = (part("fan_out", memory.fan_out), part("message ids", memory.message_ids));
    writeln!(
        out,
        "memory   {max}: intake {intake}, window {window}, producer {producer} (uses about 2.1 times){fan_out}{ids}"
    )?;
    let spool = &config.spool;
    let delay = show_duration(spool.ack_delay);
    writeln!(out, "spool    {}, at most {}, ack_delay {delay}", spool.path.display(), show_size(spool.max_bytes))?;
    for lane in &config.lanes {
        writeln!(out, "lane     {}", lane_line(lane, config))?;
    }
    for source in &config.mqtt_sources {
        writeln!(out, "source   {}", source_line(source))?;
    }
    listeners::write_lines(out, config)?;
    for source in &config.serial_sources {
        writeln!(out, "serial   {}", check_lines::line(source))?;
    }
    for source in &config.modbus_sources {
        writeln!(out, "modbus   {}", check_lines::modbus(source))?;
    }
    for route in &config.routes {
        writeln!(out, "route    {}", route_line(route, config))?;
    }
    writeln!(out, "else     {}", unmatched_line(&config.unmatched, config))
}

fn lane_line(lane: &Lane, config: &Config) -> String {
    // The events lane goes before whatever number a person may choose.
    let priority = if lane.priority == i32::MAX { "highest".to_owned() } else { lane.priority.to_string() };
    let mut line = format!(
        "{}: when = {} ({}), priority {priority}, {}, {} when full, at most {}, to {}",
        lane.name,
        when(lane.when),
        lane.when_reason,
        order(lane.order),
        when_full(lane.when_full),
        show_size(lane.max_bytes),
        config.kafka[lane.kafka].name,
    );
    if lane.delivery == Delivery::AtMostOnce {
        line.push_str(", at most once: never spooled");
    }
    line
}

fn source_line(source: &MqttSource) -> String {
    let filters: Vec<&str> = source.subscriptions.iter().map(|subscription| subscription.filter.as_str()).collect();
    let tls = if source.tls.is_some() { " with TLS" } else { "" };
    format!(
        "{}: {} port {}{tls} as {}, at most {} readings and {} unacknowledged: {}",
        source.name,
        source.host,
        source.port,
        source.client_id,
        source.receive_maximum,
        show_size(source.unacked_bytes_max),
        filters.join(", "),
    )
}

fn route_line(route: &RouteSpec, config: &Config) -> String {
    let key = if route.key.is_empty() { "without key" } else { &format!("key {}", route.key) };
    let lane = &config.lanes[route.lane].name;
    format!("{}: {} -> {}, {key}, lane {lane}", route.name, route.filter, route.kafka_topic)
}

fn unmatched_line(unmatched: &UnmatchedSpec, config: &Config) -> String {
    match unmatched {
        UnmatchedSpec::DeadLetter { lane } => format!("into the dead letters, lane {}", config.lanes[*lane].name),
        UnmatchedSpec::Drop => "counted and dropped".to_owned(),
        UnmatchedSpec::Route { kafka_topic, lane, .. } => {
            format!("-> {kafka_topic}, lane {}", config.lanes[*lane].name)
        }
    }
}

/// The document of `--json`. Keys are only ever added.
#[derive(Serialize)]
struct Report<'c> {
    valid: bool,
    problems: Vec<JsonProblem<'c>>,
    /// Further errors behind the bound of the list.
    omitted: usize,
    config: Option<JsonConfig<'c>>,
}

#[derive(Serialize)]
struct JsonProblem<'c> {
    severity: &'static str,
    message: &'c str,
    file: Option<&'c str>,
    line: Option<usize>,
    column: Option<usize>,
    help: Option<&'c str>,
}

#[derive(Serialize)]
struct JsonConfig<'c> {
    gateway: &'c str,
    hash: &'c str,
    memory: JsonMemory,
    lanes: Vec<JsonLane<'c>>,
    sources: Vec<JsonSource<'c>>,
    listeners: Vec<listeners::JsonListener<'c>>,
    serial: Vec<check_lines::JsonLine<'c>>,
    modbus: Vec<check_lines::JsonModbus<'c>>,
    routes: Vec<JsonRoute<'c>>,
    kafka: Vec<&'c str>,
}

#[derive(Serialize)]
struct JsonMemory {
    max: u64,
    intake: u64,
    window: u64,
    producer: u64,
    fan_out: u64,
    message_ids: u64,
}

#[derive(Serialize)]
struct JsonLane<'c> {
    name: &'c str,
    priority: i32,
    when: &'static str,
    when_reason: &'c str,
    order: &'static str,
    when_full: &'static str,
    max_bytes: u64,
    kafka: &'c str,
}

#[derive(Serialize)]
struct JsonSource<'c> {
    name: &'c str,
    host: &'c str,
    port: u16,
    client_id: &'c str,
    receive_maximum: u16,
    unacked_bytes_max: u64,
    subscriptions: Vec<&'c str>,
}

#[derive(Serialize)]
struct JsonRoute<'c> {
    name: &'c str,
    filter: &'c str,
    kafka_topic: &'c str,
    key: &'c str,
    lane: &'c str,
}

fn json(outcome: &Result<Loaded, Problems>) -> String {
    let (list, omitted) = match outcome {
        Ok(loaded) => (&loaded.warnings, 0),
        Err(problems) => (&problems.list, problems.omitted),
    };
    let report = Report {
        valid: outcome.is_ok(),
        problems: list.iter().map(json_problem).collect(),
        omitted,
        config: outcome.as_ref().ok().map(|loaded| json_config(&loaded.config)),
    };
    // Plain structs of strings and numbers always have a JSON form.
    serde_json::to_string_pretty(&report).map_or_else(|error| format!("{error}\n"), |text| text + "\n")
}

fn json_problem(problem: &Problem) -> JsonProblem<'_> {
    let spot = problem.spot.as_ref();
    JsonProblem {
        severity: if problem.severity == Severity::Error { "error" } else { "warning" },
        message: &problem.message,
        file: spot.map(|spot| spot.file.as_str()),
        line: spot.map(|spot| spot.line),
        column: spot.map(|spot| spot.column),
        help: problem.help.as_deref(),
    }
}

fn json_config(config: &Config) -> JsonConfig<'_> {
    let memory = config.memory;
    JsonConfig {
        gateway: &config.gateway.name,
        hash: &config.hash,
        memory: JsonMemory {
            max: memory.max,
            intake: memory.intake,
            window: memory.window,
            producer: memory.producer,
            fan_out: memory.fan_out,
            message_ids: memory.message_ids,
        },
        lanes: config.lanes.iter().map(|lane| json_lane(lane, config)).collect(),
        sources: config.mqtt_sources.iter().map(json_source).collect(),
        listeners: config.listeners.iter().map(listeners::json).collect(),
        serial: check_lines::json(config),
        modbus: check_lines::json_modbus(config),
        routes: config.routes.iter().map(|route| json_route(route, config)).collect(),
        kafka: config.kafka.iter().map(|cluster| cluster.name.as_str()).collect(),
    }
}

fn json_lane<'c>(lane: &'c Lane, config: &'c Config) -> JsonLane<'c> {
    JsonLane {
        name: &lane.name,
        priority: lane.priority,
        when: when(lane.when),
        when_reason: &lane.when_reason,
        order: order(lane.order),
        when_full: when_full(lane.when_full),
        max_bytes: lane.max_bytes,
        kafka: &config.kafka[lane.kafka].name,
    }
}

fn json_source(source: &MqttSource) -> JsonSource<'_> {
    JsonSource {
        name: &source.name,
        host: &source.host,
        port: source.port,
        client_id: &source.client_id,
        receive_maximum: source.receive_maximum,
        unacked_bytes_max: source.unacked_bytes_max,
        subscriptions: source.subscriptions.iter().map(|subscription| subscription.filter.as_str()).collect(),
    }
}

fn json_route<'c>(route: &'c RouteSpec, config: &'c Config) -> JsonRoute<'c> {
    JsonRoute {
        name: &route.name,
        filter: &route.filter,
        kafka_topic: &route.kafka_topic,
        key: &route.key,
        lane: &config.lanes[route.lane].name,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const TEXT: &str = r#"
gateway = { name = "press-shop-7" }
topic = [{ name = "telemetry", replication_factor = 3, min_insync_replicas = 2 }]

[kafka.main]
bootstrap_servers = "kafka:9092"

[[lane]]
name = "alarms"
priority = 10
keep = "24h"

[[source.mqtt]]
host = "localhost"

[[route]]
name = "alarms"
filter = "plant/{line}/alarm"
kafka_topic = "telemetry"
lane = "alarms"
"#;

    #[test]
    fn the_summary_says_each_lane_with_its_reason() {
        let loaded = config::parse_str("gateway.toml", TEXT).unwrap();
        let text = summary(&loaded.config, loaded.warnings.len()).replace(&loaded.config.hash, "HASH");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn the_json_document_holds_the_same() {
        let loaded = config::parse_str("gateway.toml", TEXT).unwrap();
        let hash = loaded.config.hash.clone();
        insta::assert_snapshot!(json(&Ok(loaded)).replace(&hash, "HASH"));
    }

    #[test]
    fn problems_have_a_json_form_too() {
        let outcome = config::parse_str("gateway.toml", "[log]\nlevl = \"info\"\n");
        let document: serde_json::Value = serde_json::from_str(&json(&outcome)).unwrap();
        assert_eq!(document["valid"], false);
        assert_eq!(document["problems"][0]["line"], 2);
        assert_eq!(document["problems"][0]["help"], "did you mean `level`?");
        assert_eq!(document["config"], serde_json::Value::Null);
    }

    #[test]
    fn a_certificate_that_is_none_is_found_without_a_connection() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), "no certificate").unwrap();
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, TEXT.to_owned() + "[kafka.main.tls]\nca_file = \"ca.pem\"\n").unwrap();
        let problems = config::load(&path).and_then(with_producers).unwrap_err();
        let message = &problems.list.last().unwrap().message;
        assert!(message.starts_with("no producer can be made for [kafka.main]: ssl.ca.location"), "{message}");
        assert_eq!(run(&path, &CheckArgs { json: true }), exit::CONFIG);
    }

    #[test]
    fn properties_that_contradict_each_other_are_found() {
        let properties = "[kafka.main.properties]\n\"message.max.bytes\" = 2000000\n\"batch.size\" = 1\n";
        let contradiction = "\"socket.timeout.ms\" = 10\n\"reconnect.backoff.ms\" = 20000\n";
        let text = TEXT.to_owned() + properties + contradiction;
        let refused = config::parse_str("gateway.toml", &text).and_then(with_producers).unwrap_err();
        assert!(refused.to_string().contains("reconnect.backoff"), "{refused}");
    }

    #[test]
    fn exit_codes_follow_the_cause() {
        let args = CheckArgs { json: true };
        assert_eq!(run(Path::new("/nowhere/gateway.toml"), &args), exit::NOINPUT);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, "[log]\nlevl = 1\n").unwrap();
        assert_eq!(run(&path, &args), exit::CONFIG);
        std::fs::write(&path, TEXT).unwrap();
        assert_eq!(run(&path, &args), exit::OK);
    }
}
