//! Devices on serial lines: each has a pseudo terminal for a port and writes a line of text for each reading, as a
//! controller with a printer port does.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::cli::simulate::clock::Clock;
use crate::cli::simulate::devices::{DeviceFeed, DeviceOptions};
use crate::cli::simulate::feed::{Feed as _, Message, Next};
use crate::cli::simulate::pty::Pty;
use crate::cli::simulate::run::Stop;
use crate::cli::simulate::tally::Tally;

/// What the devices did. Their lines stay plugged in until it is dropped: what is in them can still be read.
pub struct Spoken {
    pub sent: u64,
    _lines: Vec<Pty>,
}

/// Plugs the devices in, each with its port under this name. Needs a runtime.
///
/// # Errors
/// When the system has no pseudo terminals left, or the names cannot be given.
pub fn plug(ports: &[PathBuf]) -> io::Result<Vec<Pty>> {
    let plug = |port: &PathBuf| {
        let mut line = Pty::open()?;
        line.link(port)?;
        Ok(line)
    };
    ports.iter().map(plug).collect()
}

/// Lets each device speak on its line until it is told to stop. `note` is called with the readings sent so far.
///
/// # Errors
/// As a write to a line.
pub async fn speak(
    lines: Vec<Pty>,
    options: DeviceOptions,
    instance: &str,
    stop: Stop,
    note: impl Fn(u64) + Send + Sync + 'static,
) -> io::Result<Spoken> {
    let (options, tally, clock, note) = (Arc::new(options), Arc::new(Tally::default()), Clock::start(), Arc::new(note));
    let mut devices = JoinSet::new();
    for (number, line) in (0..).zip(lines) {
        let feed = DeviceFeed::new(&options, instance, number, &tally);
        let (tally, note, stop) = (Arc::clone(&tally), Arc::clone(&note), stop.clone());
        devices.spawn(async move {
            let sent = move || {
                tally.add(|counts| counts.sent += 1);
                note(tally.counts().sent);
            };
            device(&line, feed, clock, stop, sent).await.map(|()| line)
        });
    }
    let mut lines = Vec::new();
    while let Some(ended) = devices.join_next().await {
        lines.push(ended.map_err(io::Error::other)??);
    }
    Ok(Spoken { sent: tally.counts().sent, _lines: lines })
}

async fn device(line: &Pty, mut feed: DeviceFeed, clock: Clock, mut stop: Stop, sent: impl Fn()) -> io::Result<()> {
    loop {
        let pause = match feed.next(clock.now()) {
            Next::Message(message) => {
                line.send(&text(&message)).await?;
                sent();
                continue;
            }
            Next::At(at) => at,
            Next::Die { silent } => clock.now().since_start + silent,
            Next::Finished => return Ok(()),
        };
        tokio::select! {
            () = sleep_until(clock.instant(pause)) => {}
            () = stop.stopped() => return Ok(()),
        }
    }
}

/// `press-01,72,true,kqzhxw`: the columns that the demo's configuration names.
fn text(message: &Message) -> Vec<u8> {
    // A status that is no JSON object would have no columns; the simulator makes none here.
    let status: serde_json::Value = serde_json::from_slice(&message.payload).unwrap_or_default();
    let id = status["id"].as_str().unwrap_or_default();
    let (percent, producing) = (&status["jobPercentFinished"], &status["producing"]);
    format!("{},{percent},{producing},{id}\r\n", message.place.equipment).into_bytes()
}
