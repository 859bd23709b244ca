//! `[[source.serial]]`: readings from serial lines.
//!
//! One task for each port. It opens the port (`device.rs` finds it, `port.rs` opens it), cuts what comes into frames
//! (`frame/`), makes readings of them (`decode/`) and hands them over (`intake/feed.rs`). It never ends but when asked:
//! a port that is gone is opened again, a line that makes no sense is told of once (`health.rs`) and read on.
//!
//! A device on a serial line cannot be told to wait. When more readings are on their way than may be, the port is not
//! read: the kernel's buffer fills, flow control stops the device if it is wired, else what comes then is lost. That is
//! counted and told as far as it can be known.

pub mod access;
pub mod decode;
pub mod device;
pub mod frame;
mod health;
mod line;
pub mod port;
mod rs485;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::SourceEvent;
use super::feed::{Feeder, Outlet, add};
use super::line::{LineCounters, LineEvent, Pauses};
use super::mqtt::Clock;
use super::report::Reporter;
use crate::config::SerialSource;
use health::Health;
use line::{Ended, Line};

/// A port and what it is read for.
pub struct SerialPort {
    pub config: SerialSource,
    pub outlet: Outlet,
    pub lines: Arc<LineCounters>,
    /// With the source's name. An event that finds it full is dropped and counted.
    pub events: mpsc::Sender<(String, SourceEvent)>,
    pub clock: Clock,
    /// Uniform over all of `u64`: the jitter of pauses and turns.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// How long a graceful stop waits for readings to be accepted.
    pub stop_timeout: Duration,
}

impl SerialPort {
    /// Reads the port until `stop` says true or its sender is gone. Never fails: what goes wrong is told and tried again.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let zero = Instant::now();
        let mut feeder = Feeder::new(&self.config.name, self.outlet.clone(), self.config.unacked_bytes_max);
        let mut health = Health::new(self.config.silence, Duration::ZERO);
        let mut reporter = Reporter::new(self.config.report.clone(), Arc::clone(&self.lines));
        let mut pauses = Pauses::new(self.config.backoff_min, self.config.backoff_max);
        // `None`: not tried yet. Each change is told once.
        let mut open: Option<bool> = None;
        while !*stop.borrow() {
            let reason = match port::open(&self.config.port, self.config.settings).await {
                Ok(port) => {
                    add(&self.outlet.counters.reconnects, u64::from(open.is_some()));
                    self.tell(LineEvent::Opened { device: port.device.display().to_string() });
                    open = Some(true);
                    health.opened(zero.elapsed());
                    let opened = Instant::now();
                    let mut line = Line::new(&self, port, &mut feeder, &mut reporter, &mut health, zero);
                    self.set_connected(true);
                    let ended = line.serve(&mut stop).await;
                    self.set_connected(false);
                    pauses.lived(opened.elapsed());
                    match ended {
                        Ended::Asked => break,
                        Ended::Gone(reason) => reason,
                    }
                }
                Err(reason) => reason,
            };
            if open != Some(false) {
                self.tell(LineEvent::Lost { reason });
                open = Some(false);
            }
            if !self.pause(pauses.next((self.random)()), &mut feeder, &mut stop).await {
                break;
            }
        }
        let settled = async {
            while !feeder.is_settled() {
                feeder.settle().await;
            }
        };
        // What is left is with the hub, which stores it or sees it acknowledged; only nobody waits to hear of it.
        let _ = timeout(self.stop_timeout, settled).await;
    }

    /// Waits, taking note of what is accepted meanwhile. `false`: asked to stop.
    async fn pause(&self, pause: Duration, feeder: &mut Feeder, stop: &mut watch::Receiver<bool>) -> bool {
        let ended = sleep(pause);
        tokio::pin!(ended);
        loop {
            tokio::select! {
                () = &mut ended => return true,
                () = feeder.settle() => {}
                () = asked_to_stop(stop) => return false,
            }
        }
    }

    fn set_connected(&self, connected: bool) {
        let gauge = &self.outlet.counters.connected;
        gauge.store(u64::from(connected), std::sync::atomic::Ordering::Relaxed);
    }

    fn tell(&self, event: LineEvent) {
        if self.events.try_send((self.config.name.clone(), SourceEvent::Line(event))).is_err() {
            add(&self.outlet.counters.events_dropped, 1);
        }
    }
}

/// Returns when `stop` says true or its sender is gone. Cancel safe.
pub(super) async fn asked_to_stop(stop: &mut watch::Receiver<bool>) {
    while !*stop.borrow() {
        if stop.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
