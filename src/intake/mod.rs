//! Intake: sources take readings in (step 1), hand them over as deliveries (step 2) and answer the device (step 5)
//! only when a delivery has been acknowledged by the spool (step 4) or by Kafka (step 8).

pub mod exception;
pub mod feed;
pub mod kept;
pub mod line;
pub mod listener;
pub mod modbus;
pub mod mqtt;
pub mod poll;
pub mod pulse;
mod rate;
pub mod report;
pub mod serial;
mod waits;
mod window;

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, oneshot};

pub use kept::{Change, Fact, KeptRows, Kind, MessageId};

use crate::config::Subscription;
use crate::record::{Body, Reading};

/// What route makes of a reading.
#[derive(Debug)]
pub enum Routed {
    Deliver {
        /// Index into `Config::lanes`.
        lane: usize,
        body: Body,
        fate: Fate,
    },
    /// The configuration says that nobody wants it: it is answered as if it had been stored.
    Drop,
}

/// Step 2 to 3 as the sources see it. Pure: called in the connection's task, once per reading.
pub trait Route: Send + Sync + 'static {
    /// `scratch` is the caller's buffer for encoding; its content means nothing before and after.
    fn route(&self, reading: &Reading<'_>, scratch: &mut Vec<u8>) -> Routed;
}

/// What becomes of a routed reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Forward,
    /// Straight into the dead letters, with the cause in words for a person.
    DeadLetter(String),
}

/// A routed reading on its way to a lane (step 2 to 3).
#[derive(Debug)]
pub struct Delivery {
    /// Index into `Config::lanes`.
    pub lane: usize,
    pub body: Body,
    pub fate: Fate,
    /// `None`: nobody waits (QoS 0).
    pub ack: Option<AckTicket>,
    /// `None` for nearly all.
    pub extra: Option<Box<Extra>>,
}

/// What a reading needs beside its place in a lane.
#[derive(Debug, Default)]
pub struct Extra {
    /// Becomes durable in the very commit that holds the reading. Such a reading is never delivered without a commit.
    pub change: Option<Change>,
    /// A reading with the same id and payload within the window is stored once.
    pub message_id: Option<MessageId>,
}

/// The right to acknowledge one reading, once.
#[derive(Debug)]
pub struct AckTicket {
    pub queue: Arc<AckQueue>,
    pub ack: Ack,
}

impl AckTicket {
    /// Steps 4 or 8 are done: lets the connection send its PUBACK.
    pub fn fire(self) {
        self.queue.push(self.ack);
    }
}

/// Names one reading of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The connection's generation: an ack of an old connection is dropped, never sent on a new one.
    pub generation: u64,
    /// Number of the reading on that connection, dense, from 0.
    pub number: u64,
}

/// Acknowledgements on their way back to one connection task. Bounded by what that connection has unacknowledged.
#[derive(Debug, Default)]
pub struct AckQueue {
    fired: Mutex<Fired>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct Fired {
    acks: Vec<Ack>,
    /// The watchdog's; a newer one takes the place of an older.
    tick: Option<oneshot::Sender<()>>,
}

impl AckQueue {
    fn push(&self, ack: Ack) {
        let mut fired = self.fired.lock().expect("no holder of this lock panics");
        fired.acks.push(ack);
        // Who takes, takes all: only the first since then has to wake the connection.
        if fired.acks.len() == 1 {
            drop(fired);
            self.notify.notify_one();
        }
    }

    /// A watchdog tick through this queue: answered by whoever takes from it next.
    pub fn tick(&self) -> oneshot::Receiver<()> {
        let (tick, answer) = oneshot::channel();
        self.fired.lock().expect("no holder of this lock panics").tick = Some(tick);
        self.notify.notify_one();
        answer
    }

    /// Answers ticks and nothing else, for as long as it is polled: beside a wait that has an end of its own. Whoever goes
    /// on afterwards must take before it waits, because wake-ups for acks end here too.
    pub async fn answer_ticks(&self) -> std::convert::Infallible {
        loop {
            self.wait().await;
            let tick = self.fired.lock().expect("no holder of this lock panics").tick.take();
            answer(tick);
        }
    }

    /// Wakes the connection for another reason than an ack.
    pub fn wake(&self) {
        self.notify.notify_one();
    }

    /// Waits until at least one ack may be there, or [`AckQueue::wake`] has been called. Cancel safe: a permit is kept for the next call.
    pub async fn wait(&self) {
        self.notify.notified().await;
    }

    /// Takes all that have been fired, into `into` (which is cleared first), and answers a tick.
    pub fn take(&self, into: &mut Vec<Ack>) {
        into.clear();
        let mut fired = self.fired.lock().expect("no holder of this lock panics");
        std::mem::swap(&mut fired.acks, into);
        answer(fired.tick.take());
    }
}

/// Nobody may wait for it any more.
fn answer(tick: Option<oneshot::Sender<()>>) {
    if let Some(tick) = tick {
        let _ = tick.send(());
    }
}

/// Where a source puts its deliveries: the hub's inbox. Never blocks; each source's read gate is the bound.
pub trait Deliver: Send + Sync + 'static {
    /// Takes all of `batch`, in order. The vector is left empty, with its capacity.
    fn deliver(&self, batch: &mut Vec<Delivery>);

    /// A sender has used up its window: waiting for more to share its commit would only cost time.
    fn urge(&self) {}

    /// Makes `changes` durable, all in one commit, and fires `ack` then. Changes of one key keep the order in which they
    /// are asked for; those that travel with a delivery ([`Extra::change`]) become durable with it, whenever that is.
    /// While there is no room, what only deletes still goes.
    fn keep(&self, changes: Vec<Change>, ack: AckTicket);
}

/// Something about a source that a person or `forebay.events` should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceEvent {
    Connected {
        session_present: bool,
    },
    /// A known session was expected and the broker has none: what it held for us is gone.
    SessionLost,
    Disconnected {
        reason: String,
    },
    /// Another client uses our client id.
    IdentityConflict {
        takeovers: u32,
    },
    /// The broker refused a subscription.
    SubscriptionRefused {
        filter: String,
        reason: String,
    },
    /// The broker now has exactly these subscriptions of ours: the list to hand over as `previous` at the next start.
    Subscribed {
        subscriptions: Vec<Subscription>,
    },
    /// A packet above `packet_size_max` came: its topic and its beginning went to the dead letters, the rest is gone.
    Oversize {
        topic: String,
        bytes: u64,
    },
    /// A change on a serial or Modbus line.
    Line(line::LineEvent),
    /// A device has connected to the listener.
    DeviceConnected {
        client: String,
        user: Option<String>,
        /// `None`: a Unix socket.
        address: Option<IpAddr>,
        /// Of MQTT: `3.1.1` or `5`.
        version: &'static str,
        session_present: bool,
    },
    /// A device's connection has ended; `clean`: by its own DISCONNECT.
    DeviceDisconnected {
        client: String,
        reason: String,
        clean: bool,
    },
    /// A device's will has been published to this topic.
    DeviceWill {
        client: String,
        topic: String,
    },
    /// An endpoint could not be bound, or a file of the listener not be read.
    ListenerTrouble {
        reason: String,
    },
}

impl SourceEvent {
    /// Whether it is about one device of many: these come by the thousand and must not crowd out the others.
    pub fn is_presence(&self) -> bool {
        matches!(
            self,
            SourceEvent::DeviceConnected { .. }
                | SourceEvent::DeviceDisconnected { .. }
                | SourceEvent::DeviceWill { .. }
        )
    }
}
