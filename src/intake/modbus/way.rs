//! The way to the devices: opened, kept, opened again. Each change is told once.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::ModbusLine;
use super::wire::{self, Wire};
use crate::intake::feed::add;
use crate::intake::line::{LineEvent, Pauses};

type Opening = Pin<Box<dyn Future<Output = Result<(Wire, String), String>> + Send>>;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Opened,
    /// It is gone, or still not there.
    Closed,
}

pub(super) struct Way<'a> {
    line: &'a ModbusLine,
    wire: Option<Wire>,
    /// The next attempt, its pause included, while there is no wire.
    opening: Opening,
    pauses: Pauses,
    opened_at: Instant,
    opened: u64,
    /// What was told last.
    told: Option<bool>,
}

impl<'a> Way<'a> {
    pub(super) fn new(line: &'a ModbusLine) -> Self {
        Way {
            line,
            wire: None,
            opening: opening(line, Duration::ZERO),
            pauses: Pauses::new(line.config.backoff_min, line.config.backoff_max),
            opened_at: Instant::now(),
            opened: 0,
            told: None,
        }
    }

    pub(super) fn wire(&mut self) -> Option<&mut Wire> {
        self.wire.as_mut()
    }

    /// Whether it has been open, or told to be gone: until then nobody can say what a device is worth.
    pub(super) fn is_known(&self) -> bool {
        self.told.is_some()
    }

    /// Waits until the line is open, or gone. What comes unasked meanwhile is thrown away. Cancel safe.
    pub(super) async fn change(&mut self) -> Change {
        if let Some(wire) = &mut self.wire {
            let reason = wire.listen().await;
            self.lost(reason);
            return Change::Closed;
        }
        match self.opening.as_mut().await {
            Ok((wire, device)) => {
                self.wire = Some(wire);
                self.opened_at = Instant::now();
                add(&self.line.outlet.counters.reconnects, u64::from(self.opened > 0));
                self.opened += 1;
                self.line.set_connected(true);
                if self.told != Some(true) {
                    self.told = Some(true);
                    self.line.tell(LineEvent::Opened { device });
                }
                Change::Opened
            }
            Err(reason) => {
                self.lost(reason);
                Change::Closed
            }
        }
    }

    /// After a turn: whether the line was lost in it, or must be given up. While one device answers, the silence of others is
    /// their own.
    pub(super) fn check(&mut self, gone: Option<String>, nobody_answers: bool) {
        if let Some(wire) = &mut self.wire {
            add(&self.line.lines.noise_bytes, wire.noise());
        }
        match gone {
            Some(reason) => self.lost(reason),
            // That the devices do not answer has been told; a new connection is no news.
            None if nobody_answers && self.wire.as_ref().is_some_and(Wire::is_dead) => self.close(),
            None => {}
        }
    }

    fn lost(&mut self, reason: String) {
        if self.told != Some(false) {
            self.told = Some(false);
            self.line.tell(LineEvent::Lost { reason });
        }
        self.close();
    }

    fn close(&mut self) {
        if self.wire.take().is_some() {
            self.line.set_connected(false);
            self.pauses.lived(self.opened_at.elapsed());
        }
        self.opening = opening(self.line, self.pauses.next((self.line.random)()));
    }
}

fn opening(line: &ModbusLine, after: Duration) -> Opening {
    let (link, pause) = (line.config.link.clone(), line.config.pause);
    Box::pin(async move {
        sleep(after).await;
        wire::open(&link, pause).await
    })
}
