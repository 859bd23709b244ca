//! `[[source.listener]]`: an MQTT server of our own, whose PUBACK and PUBREC mean durable.
//!
//! `transport/` brings connections in (TCP, TLS, WebSocket, Unix sockets) and bounds their number; `access/` says who may
//! come in and what for. `connection.rs` is the task of one connection: it moves bytes between the stream and a machine.
//!
//! The rest does no I/O. `packet/` reads and writes MQTT. `machine/` is one connection: packets and time in, bytes out.
//! `exchange/` is what connections share: sessions (`session.rs`, `outgoing.rs`), subscriptions (`router.rs`,
//! `filter.rs`), retained messages (`retained.rs`, `message.rs`), and the room for readings that are not acknowledged
//! (`gate.rs`). `facts.rs` is the form in which sessions, QoS 2 messages and retained messages lie in the spool,
//! `identity.rs` says when two messages are the same. `metrics.rs` names what is counted.
//!
//! Intake and fan-out do not depend on each other: a reading goes to the hub and is answered when it is durable, while
//! local subscribers get it at once, as far as their queues have room.

pub mod access;
mod connection;
pub mod counters;
mod exchange;
mod facts;
mod filter;
pub(crate) mod fuzz;
mod gate;
mod identity;
mod machine;
mod message;
pub mod metrics;
mod outgoing;
pub mod packet;
mod retained;
mod router;
mod session;
pub mod transport;

#[cfg(test)]
pub(crate) mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use access::Access;
use connection::Shared;
use counters::ListenerCounters;
use exchange::{Exchange, Parts};
use transport::{Admission, Admitted, Doors, Peer, Stream, accept};

use super::mqtt::Clock;
use super::{Deliver, Fact, Route, SourceEvent};
use crate::config;
use crate::faults;

/// How often the gauges are brought up to date.
const GAUGES: Duration = Duration::from_secs(1);

/// One MQTT server, not yet listening.
pub struct Listener {
    pub config: Arc<config::Listener>,
    /// What this source has kept: sessions, QoS 2 messages, retained messages. Those of other sources are passed over.
    pub facts: Vec<Fact>,
    pub route: Arc<dyn Route>,
    pub deliver: Arc<dyn Deliver>,
    /// With the source's name. An event that finds it full is dropped and counted.
    pub events: mpsc::Sender<(String, SourceEvent)>,
    pub counters: Arc<ListenerCounters>,
    pub clock: Clock,
    /// Uniform over all of `u64`: names for clients that bring none.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// How long a graceful stop waits for outstanding acks.
    pub stop_timeout: Duration,
    /// The TCP addresses that are bound.
    pub bound: watch::Sender<Vec<SocketAddr>>,
}

impl Listener {
    /// Serves until `stop` is told, then answers what may be answered within `stop_timeout` and says DISCONNECT.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let parts = Parts {
            config: Arc::clone(&self.config),
            route: self.route,
            deliver: self.deliver,
            events: self.events.clone(),
            counters: Arc::clone(&self.counters),
            clock: Arc::clone(&self.clock),
        };
        let exchange = Exchange::new(parts, self.facts);
        let access = Access::new(Arc::clone(&self.config), Arc::clone(&self.counters));
        let shared = Arc::new(Shared::new(exchange, access, self.random, self.stop_timeout));
        let gate = Admission::new(&self.config.limits);
        let doors = Doors {
            gate: Arc::clone(&gate),
            config: self.config,
            counters: self.counters,
            events: self.events,
            clock: self.clock,
            bound: self.bound,
        };
        // Every connection holds a sender: when all are gone, nobody is left.
        let (alive, mut last) = mpsc::channel(1);
        let connected = {
            let (shared, stop) = (Arc::clone(&shared), stop.clone());
            move |stream: Stream, peer: Peer, admitted: Admitted| {
                let (shared, stop, alive) = (Arc::clone(&shared), stop.clone(), alive.clone());
                tokio::spawn(connection::serve(shared, stream, peer, admitted, stop, alive));
            }
        };
        let connections = async {
            accept(doors, connected, stop).await;
            last.recv().await;
        };
        tokio::select! {
            () = connections => {}
            () = keep_house(&shared, &gate) => {}
        }
    }
}

/// Everything that no connection does: writes that have become durable, sessions and wills whose time has come.
async fn keep_house(shared: &Shared, gate: &Admission) {
    let queue = {
        let exchange = shared.lock();
        let queue = exchange.queue();
        exchange.counters().pulse.begin(&queue);
        queue
    };
    let mut fired = Vec::new();
    let mut shown_at = Instant::now();
    loop {
        faults::hang("1-listener-hangs").await;
        let due = {
            let mut exchange = shared.lock();
            let now = shared.now();
            queue.take(&mut fired);
            for ack in fired.drain(..) {
                exchange.written(ack, now);
            }
            exchange.tend(now);
            exchange.write_retained_at(now);
            if Instant::now() >= shown_at {
                exchange.show();
                ListenerCounters::set(&exchange.counters().connections, gate.connections().into());
                shown_at = Instant::now() + GAUGES;
            }
            exchange.due()
        };
        let due = due.map_or(shown_at, |at| shared.instant(at).min(shown_at));
        tokio::select! {
            () = queue.wait() => {}
            () = sleep_until(due) => {}
        }
    }
}
