//! Starts the serial and Modbus lines, and names what they count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::sources::Counters;
use crate::clock;
use crate::config::Config;
use crate::intake::feed::Outlet;
use crate::intake::line::LineCounters;
use crate::intake::mqtt::SourceCounters;
use crate::intake::serial::SerialPort;
use crate::intake::{Deliver, SourceEvent};
use crate::ops::metrics::ExtraMetric;
use crate::route::Router;

/// Each line's name and what it counts beside what every source counts.
pub type LineCounts = Vec<(String, Arc<LineCounters>)>;

/// What every source is given.
pub struct Ground<'a> {
    pub config: &'a Config,
    pub router: &'a Router,
    pub deliver: &'a Arc<dyn Deliver>,
    pub events: &'a mpsc::Sender<(String, SourceEvent)>,
    pub stop: &'a watch::Receiver<bool>,
}

/// Starts every line as a task of `sessions`.
pub fn start(ground: &Ground<'_>, sessions: &mut JoinSet<()>, counters: &mut Counters) -> LineCounts {
    let mut counts = LineCounts::new();
    let mut outlet = |name: &str| {
        let (count, lines) = (Arc::new(SourceCounters::default()), Arc::new(LineCounters::default()));
        counters.push((name.to_owned(), Arc::clone(&count)));
        counts.push((name.to_owned(), Arc::clone(&lines)));
        let (route, deliver) = (Arc::new(ground.router.clone()), Arc::clone(ground.deliver));
        (Outlet { route, deliver, counters: count }, lines)
    };
    for source in &ground.config.serial_sources {
        let (outlet, lines) = outlet(&source.name);
        let port = SerialPort {
            config: source.clone(),
            outlet,
            lines,
            events: ground.events.clone(),
            clock: Arc::new(clock::arrival),
            random: Arc::new(crate::spool::schema::random_u64),
            stop_timeout: ground.config.gateway.stop_timeout,
        };
        sessions.spawn(port.run(ground.stop.clone()));
    }
    counts
}

pub fn metrics(lines: &LineCounts) -> Vec<ExtraMetric> {
    type Of = fn(&LineCounters) -> &AtomicU64;
    let families: [(&'static str, &'static str, Of); 8] = [
        ("line_noise_bytes", "Bytes that belonged to no frame", |c| &c.noise_bytes),
        ("line_bad_frames", "Runs of broken frames", |c| &c.bad_frames),
        ("line_undecoded", "Frames that could not be decoded: in the dead letters", |c| &c.undecoded),
        ("line_overruns", "Times the kernel's buffer was full behind a closed gate", |c| &c.overruns),
        ("line_requests", "Queries sent", |c| &c.requests),
        ("line_timeouts", "Queries without an answer", |c| &c.timeouts),
        ("line_exceptions", "Answers that say no", |c| &c.exceptions),
        ("line_suppressed", "Values that had not changed enough", |c| &c.suppressed),
    ];
    let mut out = Vec::new();
    for (name, help, of) in families {
        for (source, counters) in lines {
            let (label, value) = (Some(("source", source.clone())), of(counters).load(Ordering::Relaxed) as f64);
            out.push(ExtraMetric { name, help, counter: true, label, value });
        }
    }
    out
}
