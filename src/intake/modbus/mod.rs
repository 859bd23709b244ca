//! `[[source.modbus]]`: devices that are asked, over a serial line or TCP.
//!
//! One task for each line. `way.rs` keeps the line open, `wire.rs` asks over it (the seam to tokio-modbus, behind the
//! doorkeeper of `answer.rs`), `rounds.rs` takes turns and makes readings. What is decided is pure: `plan.rs` which
//! requests there are, `asking.rs` what a device refuses, `register.rs` what the cells mean, `reading.rs` what a value is
//! worth, `intake/poll.rs` whose turn it is.
//!
//! A turn always makes a reading: a value that could not be read is told as stale, with its age, or as bad.

pub mod answer;
mod asking;
pub mod counters;
pub mod plan;
pub mod reading;
pub mod register;
mod rounds;
mod way;
pub mod wire;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::SourceEvent;
use super::feed::{Outlet, add};
use super::line::{LineCounters, LineEvent};
use super::mqtt::Clock;
use super::serial::asked_to_stop;
use crate::config::ModbusSource;
use counters::ModbusCounters;
use rounds::Rounds;
use way::{Change, Way};

/// A line and the devices on it.
pub struct ModbusLine {
    pub config: ModbusSource,
    pub outlet: Outlet,
    pub lines: Arc<LineCounters>,
    pub counters: Arc<ModbusCounters>,
    /// With the source's name. An event that finds it full is dropped and counted.
    pub events: mpsc::Sender<(String, SourceEvent)>,
    pub clock: Clock,
    /// Uniform over all of `u64`: the jitter of pauses and turns.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// How long a graceful stop waits for readings to be accepted.
    pub stop_timeout: Duration,
}

impl ModbusLine {
    /// Asks until `stop` says true or its sender is gone. Never fails: what goes wrong is told and tried again.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let (mut rounds, mut way) = (Rounds::new(&self), Way::new(&self));
        loop {
            let due = rounds.due().filter(|_| way.is_known());
            let (turn, at) = due.unwrap_or_else(|| (0, Instant::now()));
            let late = rounds.report_due();
            let late_at = late.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                () = asked_to_stop(&mut stop) => break,
                () = rounds.settle() => {}
                change = way.change() => if change == Change::Opened { rounds.opened() },
                () = sleep_until(late_at), if late.is_some() => rounds.report(),
                () = sleep_until(at), if due.is_some() => {
                    let gone = tokio::select! {
                        biased;
                        () = asked_to_stop(&mut stop) => break,
                        gone = rounds.play(turn, way.wire()) => gone,
                    };
                    way.check(gone, rounds.hears_nobody());
                }
            }
        }
        rounds.report_all();
        // What is left is with the hub, which stores it or sees it acknowledged; only nobody waits to hear of it.
        let _ = timeout(self.stop_timeout, rounds.settle_all()).await;
    }

    fn set_connected(&self, connected: bool) {
        self.outlet.counters.connected.store(u64::from(connected), Ordering::Relaxed);
    }

    fn tell(&self, event: LineEvent) {
        if self.events.try_send((self.config.name.clone(), SourceEvent::Line(event))).is_err() {
            add(&self.outlet.counters.events_dropped, 1);
        }
    }
}

#[cfg(test)]
mod tests;
