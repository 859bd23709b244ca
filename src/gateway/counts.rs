//! What sources and routes count for themselves, and the names under which `/metrics` shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::intake::line::LineCounters;
use crate::intake::listener;
use crate::intake::listener::counters::ListenerCounters;
use crate::intake::modbus::counters::{self as modbus, ModbusCounters};
use crate::intake::mqtt::SourceCounters;
use crate::intake::pulse::Pulse;
use crate::ops::histogram::Histogram;
use crate::ops::metrics::ExtraMetric;
use crate::route::Router;

/// Each source's name and what it counts.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    pub clients: Vec<(String, Arc<SourceCounters>)>,
    pub listeners: Vec<(String, Arc<ListenerCounters>)>,
    pub lines: Vec<(String, LineCounts)>,
}

/// What a serial or Modbus line counts.
#[derive(Debug, Clone, Default)]
pub struct LineCounts {
    /// As a client of a broker does, as far as there is such a thing on a line.
    pub source: Arc<SourceCounters>,
    pub line: Arc<LineCounters>,
    /// All zero on a line that is no Modbus one.
    pub modbus: Arc<ModbusCounters>,
}

type LineMetric = (&'static str, &'static str, fn(&LineCounters) -> &AtomicU64);

/// Name, help, and where it is counted: all of them only ever grow.
const LINE_METRICS: [LineMetric; 8] = [
    ("line_noise_bytes", "Bytes that belonged to no frame", |c| &c.noise_bytes),
    ("line_bad_frames", "Runs of broken frames", |c| &c.bad_frames),
    ("line_undecoded", "Frames that could not be decoded: in the dead letters", |c| &c.undecoded),
    ("line_overruns", "Times the kernel's buffer was full behind a closed gate", |c| &c.overruns),
    ("line_requests", "Queries sent", |c| &c.requests),
    ("line_timeouts", "Queries without an answer", |c| &c.timeouts),
    ("line_exceptions", "Answers that say no", |c| &c.exceptions),
    ("line_suppressed", "Readings that said nothing new, and were not sent", |c| &c.suppressed),
];

type ClientMetric = (&'static str, &'static str, bool, fn(&SourceCounters) -> &AtomicU64);

/// Name, help, whether it only ever grows, and where it is counted.
const CLIENT_METRICS: [ClientMetric; 15] = [
    ("source_readings", "Readings taken in (step 1)", true, |c| &c.readings),
    ("source_payload_bytes", "Their payloads", true, |c| &c.payload_bytes),
    ("source_pubacks", "PUBACKs sent (step 5)", true, |c| &c.pubacks),
    ("source_stale_acks", "Acks whose connection had ended", true, |c| &c.acks_stale),
    ("source_reconnects", "Connections beyond the first", true, |c| &c.reconnects),
    ("source_sessions_lost", "Sessions the broker had lost", true, |c| &c.sessions_lost),
    ("source_takeovers", "Times another client took the session", true, |c| &c.takeovers),
    ("source_gate_closed", "Times reading was paused", true, |c| &c.gate_closed),
    ("source_oversize", "Packets above packet_size_max", true, |c| &c.oversize),
    ("source_malformed", "Packets that broke the protocol", true, |c| &c.malformed),
    ("source_violations", "Packets that broke the protocol and were taken nevertheless", true, |c| &c.violations),
    ("source_events_dropped", "Events that found no room", true, |c| &c.events_dropped),
    ("source_unacked", "Readings not answered yet", false, |c| &c.unacked),
    ("source_unacked_bytes", "Their bytes in memory", false, |c| &c.unacked_bytes),
    ("source_connected", "1 while connected", false, |c| &c.connected),
];

impl Counters {
    /// Readings answered with a PUBACK or PUBREC (step 5), and those of lines that are accepted, by all sources.
    pub fn acknowledged(&self) -> u64 {
        let clients = self.clients.iter().map(|(_, c)| c.pubacks.load(Ordering::Relaxed));
        let answered: u64 = clients.chain(self.listeners.iter().map(|(_, c)| c.acks.load(Ordering::Relaxed))).sum();
        // What is still out is read first: a reading that comes in between is not counted yet, rather than too early.
        let accepted = |c: &SourceCounters| {
            let out = c.unacked.load(Ordering::Relaxed);
            c.readings.load(Ordering::Relaxed).saturating_sub(out)
        };
        answered + self.lines.iter().map(|(_, c)| accepted(&c.source)).sum::<u64>()
    }

    /// Brokers that have answered our subscriptions, endpoints that devices can reach, and lines that are open.
    pub fn ready(&self) -> u64 {
        let clients = self.clients.iter().map(|(_, c)| c.subscribed.load(Ordering::Relaxed));
        let listeners = self.listeners.iter().map(|(_, c)| c.endpoints_bound.load(Ordering::Relaxed));
        let lines = self.lines.iter().map(|(_, c)| c.source.connected.load(Ordering::Relaxed));
        clients.chain(listeners).chain(lines).sum()
    }

    /// How the watchdog reaches each source.
    pub fn pulses(&self) -> impl Iterator<Item = (&str, &Pulse)> {
        let clients = self.clients.iter().map(|(source, c)| (source.as_str(), &c.pulse));
        let lines = self.lines.iter().map(|(source, c)| (source.as_str(), &c.source.pulse));
        clients.chain(lines).chain(self.listeners.iter().map(|(source, c)| (source.as_str(), &c.pulse)))
    }

    /// How long each source's readings waited for their answers.
    pub fn answered(&self) -> Vec<(String, Histogram)> {
        let clients = self.clients.iter().map(|(source, c)| (source, &c.answered));
        let all = clients.chain(self.listeners.iter().map(|(source, c)| (source, &c.answered)));
        all.map(|(source, times)| (source.clone(), times.lock().expect("no holder of this lock panics").clone()))
            .collect()
    }

    pub fn metrics(&self, router: &Router) -> Vec<ExtraMetric> {
        let mut out = Vec::new();
        for (name, help, counter, of) in CLIENT_METRICS {
            let lines = self.lines.iter().map(|(source, c)| (source, &c.source));
            let all = self.clients.iter().map(|(source, c)| (source, c)).chain(lines);
            out.extend(all.map(|(source, c)| metric(name, help, counter, source, of(c))));
        }
        for (name, help, counter, of) in listener::metrics::METRICS {
            out.extend(self.listeners.iter().map(|(source, c)| metric(name, help, counter, source, of(c))));
        }
        for (name, help, of) in LINE_METRICS {
            out.extend(self.lines.iter().map(|(source, c)| metric(name, help, true, source, of(&c.line))));
        }
        for (name, help, of) in modbus::METRICS {
            out.extend(self.lines.iter().map(|(source, c)| metric(name, help, true, source, of(&c.modbus))));
        }
        // Several kinds have readings and PUBACKs: rows of one name stand together.
        out.sort_by_key(|m| m.name);
        out.extend(route_metrics(router));
        out
    }
}

fn metric(name: &'static str, help: &'static str, counter: bool, source: &str, value: &AtomicU64) -> ExtraMetric {
    let label = Some(("source", source.to_owned()));
    ExtraMetric { name, help, counter, label, value: value.load(Ordering::Relaxed) as f64 }
}

fn route_metrics(router: &Router) -> Vec<ExtraMetric> {
    let c = router.counters();
    let matched = router.route_names().zip(&c.matched).map(|(route, n)| ExtraMetric {
        name: "route_matched",
        help: "Readings taken by a route",
        counter: true,
        label: Some(("route", route.to_owned())),
        value: n.load(Ordering::Relaxed) as f64,
    });
    let mut out: Vec<_> = matched.collect();
    let singles = [
        ("route_unmatched", "Readings no route took", c.unmatched.load(Ordering::Relaxed)),
        ("route_dropped", "Readings dropped as configured", c.dropped.load(Ordering::Relaxed)),
        ("route_dead_lettered", "Readings that could not be routed", c.dead_lettered.load(Ordering::Relaxed)),
        ("route_collisions", "Readings whose Kafka name fell onto another's", router.collisions()),
    ];
    let single = |(name, help, n)| ExtraMetric { name, help, counter: true, label: None, value: n as f64 };
    out.extend(singles.into_iter().map(single));
    out
}
