//! The watchdog's ticks: each stage answers through its own queue, so that one that is stuck is found out while the others
//! go on. Idle, offline, a full disk and a slow fsync are not stuck: the loops turn, or answer when the fsync comes back.

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use super::counts::Counters;
use super::inbox::{Ask, Inbox};
use crate::spool::owner::Request;

/// Before a tick that found a full queue is sent again.
const AGAIN: Duration = Duration::from_secs(1);

/// Reaches every stage of one gateway.
#[derive(Clone)]
pub struct Watchdog {
    pub(super) inbox: Arc<Inbox>,
    pub(super) spool: SyncSender<Request>,
    pub(super) counters: Arc<OnceLock<Counters>>,
}

enum Tick {
    Sent(oneshot::Receiver<()>),
    /// The queue is full: whoever empties it is slow or stuck.
    Full,
    /// There is nobody who could answer.
    Gone,
}

impl Watchdog {
    /// Returns when every stage has answered a tick. Who does not within `patience` is named in the log, and waited for
    /// all the same: a stage that comes back late has come back. Sources that were asked to stop are not asked.
    pub async fn all_answer(&self, stop: &watch::Receiver<bool>, patience: Duration) {
        answers("the hub", patience, || self.tick_hub()).await;
        answers("the spool's owner thread", patience, || self.tick_spool()).await;
        for (name, tick) in self.counters.get().into_iter().flat_map(Counters::pulses) {
            answers(&format!("the source {name}"), patience, || match tick.tick() {
                Some(answer) if !*stop.borrow() => Tick::Sent(answer),
                _ => Tick::Gone,
            })
            .await;
        }
    }

    fn tick_hub(&self) -> Tick {
        let (tick, answer) = oneshot::channel();
        self.inbox.ask(Ask::Tick(tick)).map_or(Tick::Full, |()| Tick::Sent(answer))
    }

    fn tick_spool(&self) -> Tick {
        use std::sync::mpsc::TrySendError;
        let (tick, answer) = oneshot::channel();
        match self.spool.try_send(Request::Tick(tick)) {
            Ok(()) => Tick::Sent(answer),
            Err(TrySendError::Full(_)) => Tick::Full,
            Err(TrySendError::Disconnected(_)) => Tick::Gone,
        }
    }
}

async fn answers(name: &str, patience: Duration, mut tick: impl FnMut() -> Tick) {
    let answered = async {
        loop {
            match tick() {
                // Dropped unanswered: the stage has ended in good order. One that panics ends the process.
                Tick::Sent(answer) => return drop(answer.await),
                Tick::Full => sleep(AGAIN).await,
                Tick::Gone => return,
            }
        }
    };
    tokio::pin!(answered);
    if timeout(patience, &mut answered).await.is_err() {
        tracing::error!("{name} has not answered the watchdog for {} s", patience.as_secs());
        answered.await;
        tracing::warn!("{name} answers the watchdog again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(10);

    /// As a slow fsync does: later than the patience, and yet.
    #[tokio::test]
    async fn a_late_answer_is_an_answer() {
        let (tick, answer) = oneshot::channel();
        let (mut answer, mut late) = (Some(answer), Some(tick));
        let answered = answers("the spool", SHORT, || Tick::Sent(answer.take().expect("asked once")));
        tokio::pin!(answered);
        assert!(timeout(SHORT * 5, &mut answered).await.is_err(), "nobody has answered");
        late.take().expect("once").send(()).expect("still waited for");
        answered.await;
    }

    #[tokio::test]
    async fn a_queue_that_stays_full_is_no_answer() {
        assert!(timeout(SHORT * 5, answers("the spool", SHORT, || Tick::Full)).await.is_err());
        answers("a source", SHORT, || Tick::Gone).await;
    }
}
