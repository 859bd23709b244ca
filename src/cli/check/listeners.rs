//! What `check` says about listeners: where they listen, who may come in, the limits that hold; and what only reading
//! their files finds.

use std::fmt::Write as _;

use serde::Serialize;

use crate::config::units::{show_duration, show_size};
use crate::config::{self, Cause, Config, Endpoint, Listener, Loaded, Problem, Problems, Severity};
use crate::intake::listener::access::passwords::{self, Users};
use crate::intake::listener::transport::{name_of, try_tls};

/// Bad lines of a password file that are named.
const NAMED_MAX: usize = 10;

/// Reads certificates and passwords as the gateway will. Opens no connection.
pub fn with_files(mut loaded: Loaded) -> Result<Loaded, Problems> {
    let found: Vec<Problem> = loaded.config.listeners.iter().flat_map(problems).collect();
    let broken = found.iter().any(|problem| problem.severity == Severity::Error);
    loaded.warnings.extend(found);
    if !broken {
        return Ok(loaded);
    }
    let config::Gateway { state_dir, runtime_dir, .. } = loaded.config.gateway;
    Err(Problems { list: loaded.warnings, omitted: 0, cause: Cause::Content, state_dir, runtime_dir })
}

fn problems(listener: &Listener) -> Vec<Problem> {
    let mut found = Vec::new();
    if let Some(Err(why)) = listener.tls.as_ref().map(try_tls) {
        let message = format!("the source {:?} cannot use its certificate files: failed to {why}", listener.name);
        found.push(problem(Severity::Error, message, "see its [source.listener.tls]"));
    }
    let Some(path) = &listener.password_file else { return found };
    let file = path.display();
    match passwords::read(path).map(|text| Users::parse(&text)) {
        Err(error) => found.push(problem(Severity::Error, format!("failed to read {file}: {error}"), "")),
        Ok(users) => {
            let named = users.skipped.iter().take(NAMED_MAX);
            found.extend(named.map(|(line, reason)| {
                let message = format!("{file}, line {line}: {reason}");
                problem(Severity::Warning, message, "`forebay passwd` writes lines that are right")
            }));
            if users.is_empty() {
                let help = format!("add one: forebay passwd {file} USER");
                found.push(problem(Severity::Warning, format!("{file} holds no user: nobody can log in"), &help));
            }
        }
    }
    found
}

fn problem(severity: Severity, message: String, help: &str) -> Problem {
    let help = (!help.is_empty()).then(|| help.to_owned());
    Problem { severity, message, spot: None, note: None, help }
}

pub fn write_lines(out: &mut String, config: &Config) -> std::fmt::Result {
    for listener in &config.listeners {
        writeln!(out, "listener {}", line(listener))?;
        writeln!(out, "         {}", limits_line(listener))?;
    }
    Ok(())
}

fn line(listener: &Listener) -> String {
    let places: Vec<String> =
        listener.endpoints.iter().map(|e| format!("{} ({})", name_of(e), who_enters(e, listener))).collect();
    let rules = match listener.acl.len() {
        0 => "everything is allowed".to_owned(),
        1 => "1 rule".to_owned(),
        n => format!("{n} rules"),
    };
    format!("{}: {}; {rules}", listener.name, places.join(", "))
}

fn limits_line(listener: &Listener) -> String {
    let limits = &listener.limits;
    format!(
        "at most {} connections, {} of one address, {} new a second; packets {}, {} unanswered of one device and {} of \
         all; {}/s and {}/s of one client; sessions {} for {}",
        limits.connections,
        limits.connections_per_address,
        limits.connect_rate,
        show_size(u64::from(limits.packet_size_max)),
        limits.receive_maximum,
        show_size(listener.unacked_bytes_max),
        limits.message_rate,
        show_size(limits.byte_rate),
        limits.sessions,
        show_duration(limits.session_expiry),
    )
}

fn who_enters(endpoint: &Endpoint, listener: &Listener) -> &'static str {
    let tls = listener.tls.as_ref().filter(|_| endpoint.tls);
    let required = tls.is_some_and(|tls| tls.require_certificate);
    match (listener.password_file.is_some(), required, endpoint.anonymous) {
        (_, _, true) => "everybody",
        (true, true, _) => "certificate, and a password if one is given",
        (false, true, _) => "certificate",
        (true, false, _) if tls.is_some_and(|tls| tls.client_ca_file.is_some()) => "password or certificate",
        _ => "password",
    }
}

#[derive(Serialize)]
pub struct JsonListener<'c> {
    name: &'c str,
    endpoints: Vec<JsonEndpoint>,
    rules: usize,
    unacked_bytes_max: u64,
    fan_out_bytes_max: u64,
    limits: JsonLimits,
}

#[derive(Serialize)]
struct JsonEndpoint {
    address: String,
    enters: &'static str,
}

#[derive(Serialize)]
struct JsonLimits {
    connections: u32,
    connections_per_address: u32,
    connect_rate: u32,
    packet_size_max: u32,
    receive_maximum: u16,
    sessions: u32,
    retained_messages: u32,
    retained_bytes: u64,
    message_rate: u32,
    byte_rate: u64,
}

pub fn json(listener: &Listener) -> JsonListener<'_> {
    let endpoint =
        |endpoint: &Endpoint| JsonEndpoint { address: name_of(endpoint), enters: who_enters(endpoint, listener) };
    let limits = &listener.limits;
    JsonListener {
        name: &listener.name,
        endpoints: listener.endpoints.iter().map(endpoint).collect(),
        rules: listener.acl.len(),
        unacked_bytes_max: listener.unacked_bytes_max,
        fan_out_bytes_max: listener.fan_out_bytes_max,
        limits: JsonLimits {
            connections: limits.connections,
            connections_per_address: limits.connections_per_address,
            connect_rate: limits.connect_rate,
            packet_size_max: limits.packet_size_max,
            receive_maximum: limits.receive_maximum,
            sessions: limits.sessions,
            retained_messages: limits.retained_messages,
            retained_bytes: limits.retained_bytes,
            message_rate: limits.message_rate,
            byte_rate: limits.byte_rate,
        },
    }
}
