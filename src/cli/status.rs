//! `forebay status`: what the gateway does, at a glance.

use std::path::Path;

use serde_json::Value;

use super::ask::{Access, Failure, print_line};
use super::exit;
use crate::config::units::show_size;
use crate::ops::control::Question;

#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Print one JSON document for scripts.
    #[arg(long)]
    json: bool,
}

pub fn run(config: &Path, args: &StatusArgs) -> u8 {
    match show(config, args.json) {
        Ok(()) => exit::OK,
        Err(failure) => failure.tell(),
    }
}

fn show(config: &Path, json: bool) -> Result<(), Failure> {
    let (mut access, _) = Access::open(config)?;
    let running = access.is_running();
    let status = access.ask(&Question::Status)?;
    if json {
        print_line(&status.to_string());
    } else if running {
        text(&status).iter().for_each(|l| print_line(l));
    } else {
        print_line("the gateway is stopped; in its spool:");
        stopped(&status).iter().for_each(|l| print_line(l));
    }
    Ok(())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(s: &Value) -> Vec<String> {
    let mut out = vec![format!(
        "{}  forebay {}  up {} s  run {}  config {}",
        word(&s["gateway"]),
        word(&s["version"]),
        number(&s["uptime_s"]),
        word(&s["run"]),
        word(&s["config_hash"])
    )];
    for c in rows(&s["clusters"]) {
        let state = if c["up"].as_bool() == Some(true) { "answers" } else { "no answer yet" };
        let trouble = word(&c["trouble"]);
        out.push(format!("kafka {:<12} {state}  {} in flight  {trouble}", word(&c["name"]), number(&c["in_flight"])));
    }
    for l in rows(&s["lanes"]) {
        let backlog = &l["backlog"];
        out.push(format!(
            "lane  {:<12} {:<9} backlog {} ({})  delivered {}  dead {}  lost {}{}",
            word(&l["name"]),
            word(&l["mode"]),
            number(&backlog["records"]),
            show_size(number(&backlog["bytes"])),
            number(&l["delivered"]),
            number(&l["dead_lettered"]),
            number(&l["lost"]),
            if l["full"].as_bool() == Some(true) { "  FULL" } else { "" },
        ));
        out.extend(rows(&l["parked_topics"]).iter().map(|t| format!("      parked: {}", word(t))));
    }
    let spool = &s["spool"];
    out.push(format!(
        "spool {} of {}  {} commits  {} written today",
        show_size(number(&spool["used_bytes"])),
        show_size(number(&spool["max_bytes"])),
        number(&spool["commits"]),
        show_size(number(&spool["device_bytes_today"])),
    ));
    out
}

fn stopped(s: &Value) -> Vec<String> {
    let lane = |l: &Value| {
        let (records, bytes) = (number(&l["records"]), show_size(number(&l["bytes"])));
        format!("lane  {:<12} {records} undelivered ({bytes})", word(&l["name"]))
    };
    let mut out: Vec<String> = rows(&s["lanes"]).iter().map(lane).collect();
    out.push(format!("dead letters  {}", number(&s["dead"])));
    if let Some(lost) = s["lost"].as_object() {
        out.extend(lost.iter().map(|(reason, n)| format!("lost ({reason})  {n}")));
    }
    out
}
