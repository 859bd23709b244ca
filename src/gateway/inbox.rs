//! The hub's inbox: everything that can happen to it, in one place. Bounded by what feeds it: deliveries by the
//! sources' read gates, reports by what is with the producers, replies by the owner thread's queue, asks by a count.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::clock;
use crate::forward::ProducerNote;
use crate::forward::kafka::{Code, Place, Reports};
use crate::intake::{AckTicket, Change, Deliver, Delivery, SourceEvent};
use crate::record::Body;
use crate::spool::Reply;

/// Commands and source events waiting at most; more are refused (a command) or counted (an event).
const ASKS_MAX: usize = 256;
/// Of these, presence of devices: ten thousand that come back at once must not keep a command or the watchdog out.
const PRESENCE_MAX: usize = ASKS_MAX / 2;

/// How long the hub lets mail gather after it has been woken: far below any latency that a sender notices.
const GATHER: Duration = Duration::from_micros(100);

/// A raw delivery report (step 8).
#[derive(Debug, Clone, Copy)]
pub struct RawReport {
    pub cluster: usize,
    pub generation: u64,
    pub slot: usize,
    /// Where it is, or why not.
    pub result: Result<Place, Code>,
}

/// What a person, a source or the system wants of the hub.
pub enum Ask {
    Source {
        name: String,
        event: SourceEvent,
    },
    /// Dead letters (ids in the table) that go to the tail of their lane again.
    Requeue {
        lane: u32,
        letters: Vec<(i64, Body)>,
        done: tokio::sync::oneshot::Sender<usize>,
    },
    /// Everything undelivered of a lane goes, with a ledger entry.
    Purge {
        lane: usize,
        done: tokio::sync::oneshot::Sender<()>,
    },
    /// A watchdog tick through this queue.
    Tick(tokio::sync::oneshot::Sender<()>),
    /// Orderly stop: drain until this many µs of this process, then leave.
    Stop {
        deadline_us: u64,
    },
}

/// Changes that stand alone, and who waits for them.
pub struct Kept {
    /// So many of the mail's deliveries came before.
    pub behind: usize,
    pub changes: Vec<Change>,
    pub ack: AckTicket,
}

#[derive(Default)]
pub struct Mail {
    pub deliveries: Vec<Delivery>,
    /// What sources want kept, in order.
    pub changes: Vec<Kept>,
    /// Of each batch of them: where it ends, and when it was handed over (step 2, µs of this process).
    pub batches: Vec<(usize, u64)>,
    pub reports: Vec<RawReport>,
    pub notes: Vec<ProducerNote>,
    pub replies: Vec<Reply>,
    pub asks: Vec<Ask>,
    /// Source events that found no room.
    pub events_refused: u64,
    /// A sender has used up its window.
    pub urgent: bool,
}

impl Mail {
    fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
            && self.changes.is_empty()
            && self.reports.is_empty()
            && self.notes.is_empty()
            && self.replies.is_empty()
            && self.asks.is_empty()
            && !self.urgent
    }

    fn has_room(&self, ask: &Ask) -> bool {
        match ask {
            Ask::Stop { .. } => true,
            Ask::Source { event, .. } if event.is_presence() => self.asks.len() < PRESENCE_MAX,
            _ => self.asks.len() < ASKS_MAX,
        }
    }
}

#[derive(Default)]
struct State {
    mail: Mail,
    waiting: bool,
}

/// Never blocks a sender: librdkafka's thread and the connections only append.
#[derive(Default)]
pub struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
}

impl Inbox {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn put(&self, put: impl FnOnce(&mut Mail)) {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        put(&mut state.mail);
        if std::mem::take(&mut state.waiting) {
            self.wake.notify_one();
        }
    }

    /// Waits until there is mail, at most `patience`, and takes all of it; `mail` gives its buffers back in exchange.
    pub fn take(&self, mail: &mut Mail, patience: Duration) {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        if state.mail.is_empty() && !patience.is_zero() {
            state.waiting = true;
            state = self.wake.wait_timeout(state, patience).expect("no holder of this lock panics").0;
            state.waiting = false;
            if !state.mail.is_empty() {
                // Whoever woke us has more to put: reports come in bursts, one call each. One turn for all of them costs
                // a tenth of a turn for each.
                drop(state);
                std::thread::sleep(GATHER);
                state = self.state.lock().expect("no holder of this lock panics");
            }
        }
        std::mem::swap(&mut state.mail, mail);
    }

    pub fn reply(&self, reply: Reply) {
        self.put(|m| m.replies.push(reply));
    }

    /// # Errors
    /// Gives the ask back when too many wait. A source's event is counted then.
    pub fn ask(&self, ask: Ask) -> Result<(), Ask> {
        let mut refused = None;
        self.put(|m| {
            if m.has_room(&ask) {
                m.asks.push(ask);
            } else {
                m.events_refused += u64::from(matches!(ask, Ask::Source { .. }));
                refused = Some(ask);
            }
        });
        refused.map_or(Ok(()), Err)
    }
}

impl Deliver for Inbox {
    fn deliver(&self, batch: &mut Vec<Delivery>) {
        let now_us = clock::now_us();
        self.put(|m| {
            m.deliveries.append(batch);
            m.batches.push((m.deliveries.len(), now_us));
        });
    }

    fn urge(&self) {
        self.put(|m| m.urgent = true);
    }

    fn keep(&self, changes: Vec<Change>, ack: AckTicket) {
        self.put(|m| m.changes.push(Kept { behind: m.deliveries.len(), changes, ack }));
    }
}

impl Reports for Inbox {
    fn report(&self, cluster: usize, generation: u64, slot: usize, result: Result<Place, Code>) {
        self.put(|m| m.reports.push(RawReport { cluster, generation, slot, result }));
    }

    fn note(&self, note: ProducerNote) {
        self.put(|m| {
            // The same news again and again is one piece of news.
            if m.notes.last() != Some(&note) {
                m.notes.push(note);
            }
        });
    }
}
