//! Starts the serial and Modbus lines.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::counts::LineCounts;
use crate::clock;
use crate::config::Config;
use crate::intake::feed::Outlet;
use crate::intake::modbus::ModbusLine;
use crate::intake::serial::SerialPort;
use crate::intake::{Deliver, SourceEvent};
use crate::route::Router;

/// What every source is given.
pub struct Ground<'a> {
    pub config: &'a Config,
    pub router: &'a Router,
    pub deliver: &'a Arc<dyn Deliver>,
    pub events: &'a mpsc::Sender<(String, SourceEvent)>,
    pub stop: &'a watch::Receiver<bool>,
}

/// Starts every line as a task of `sessions`.
pub fn start(ground: &Ground<'_>, sessions: &mut JoinSet<()>) -> Vec<(String, LineCounts)> {
    let mut counts = Vec::new();
    let mut outlet = |name: &str| {
        let count = LineCounts::default();
        counts.push((name.to_owned(), count.clone()));
        let (route, deliver) = (Arc::new(ground.router.clone()), Arc::clone(ground.deliver));
        (Outlet { route, deliver, counters: count.source }, count.line, count.modbus)
    };
    for source in &ground.config.serial_sources {
        let (outlet, lines, _) = outlet(&source.name);
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
    for source in &ground.config.modbus_sources {
        let (outlet, lines, counters) = outlet(&source.name);
        let line = ModbusLine {
            config: source.clone(),
            outlet,
            lines,
            counters,
            events: ground.events.clone(),
            clock: Arc::new(clock::arrival),
            random: Arc::new(crate::spool::schema::random_u64),
            stop_timeout: ground.config.gateway.stop_timeout,
        };
        sessions.spawn(line.run(ground.stop.clone()));
    }
    counts
}
