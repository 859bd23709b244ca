//! Everything between a socket and the first MQTT packet: addresses, the number of connections, TLS, WebSocket.
//!
//! `socket.rs` listens, `admission.rs` counts, `tls.rs` and `identity.rs` know certificates, `websocket/` frames, and
//! `stream.rs` makes one kind of stream of all that. A handshake has its own task and its time limit: whoever is slow
//! holds up nobody but himself.

mod admission;
mod identity;
mod socket;
mod stream;
pub(super) mod tls;
mod websocket;

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

pub use admission::{Admission, Admitted, Closed};
pub use stream::Stream;

use super::counters::ListenerCounters;
use crate::config::{self, Address, CertificateIdentity, Endpoint};
use crate::intake::SourceEvent;
use crate::intake::mqtt::Clock;
use socket::Socket;

/// Pauses between attempts to bind: they double from the first to the second.
const BIND_PAUSE: Duration = Duration::from_secs(1);
const BIND_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long no connection is taken when the system has none to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Who is at the other end, as far as the transport knows.
#[derive(Debug, Clone)]
pub struct Peer {
    /// `None`: a Unix socket.
    pub address: Option<IpAddr>,
    /// The endpoint's name, for logs: `tls 0.0.0.0:8883`.
    pub endpoint: Arc<str>,
    /// The identity that its certificate shows.
    pub certificate: Option<String>,
    /// It may come in without user and certificate.
    pub anonymous: bool,
}

/// The doors of one listener: all its endpoints.
pub struct Doors {
    pub config: Arc<config::Listener>,
    pub gate: Arc<Admission>,
    pub counters: Arc<ListenerCounters>,
    /// With the source's name. An event that finds it full is written to the log alone.
    pub events: mpsc::Sender<(String, SourceEvent)>,
    /// Certificates are checked against the gateway's clock.
    pub clock: Clock,
    /// The TCP addresses that are bound now: with port 0 in the configuration nobody else knows them.
    pub bound: watch::Sender<Vec<SocketAddr>>,
}

impl Doors {
    fn tell(&self, reason: String) {
        let event = (self.config.name.clone(), SourceEvent::ListenerTrouble { reason });
        if let Err(error) = self.events.try_send(event) {
            let (source, event) = error.into_inner();
            tracing::error!(source, ?event, "the listener is in trouble");
        }
    }

    fn count(&self, counter: fn(&ListenerCounters) -> &AtomicU64) {
        ListenerCounters::add(counter(&self.counters), 1);
    }
}

/// Lets connections in until `stop` is told. `connected` must not block: it spawns the connection's task.
pub async fn accept(
    doors: Doors,
    connected: impl Fn(Stream, Peer, Admitted) + Send + Sync + 'static,
    mut stop: watch::Receiver<bool>,
) {
    let doors = Arc::new(doors);
    let connected = Arc::new(connected);
    // Dropped at the end: what still shakes hands then is cut off.
    let mut tasks = JoinSet::new();
    let tls = keep_certificates(&doors, &mut tasks);
    for endpoint in doors.config.endpoints.clone() {
        let door = Door {
            name: name_of(&endpoint).into(),
            tls: tls.clone().filter(|_| endpoint.tls),
            doors: Arc::clone(&doors),
            endpoint,
        };
        tasks.spawn(door.serve(Arc::clone(&connected)));
    }
    // An error means that nobody is left who could tell.
    let _ = stop.wait_for(|&stop| stop).await;
}

fn keep_certificates(doors: &Arc<Doors>, tasks: &mut JoinSet<()>) -> Option<tls::Current> {
    let tls = doors.config.tls.clone()?;
    let (sender, current) = watch::channel(None);
    let (clock, counters) = (Arc::clone(&doors.clock), Arc::clone(&doors.counters));
    let doors = Arc::clone(doors);
    tasks.spawn(tls::keep_current(tls, clock, counters, sender, move |reason| doors.tell(reason)));
    Some(current)
}

/// An endpoint as logs and reports call it.
pub fn name_of(endpoint: &Endpoint) -> String {
    let kind = match (endpoint.tls, endpoint.websocket) {
        (false, false) => "mqtt",
        (true, false) => "mqtts",
        (false, true) => "ws",
        (true, true) => "wss",
    };
    match &endpoint.address {
        Address::Tcp(address) => format!("{kind} {address}"),
        Address::Unix(path) => format!("unix {}", path.display()),
    }
}

/// Whether the certificate files can be used, without using them.
///
/// # Errors
/// Which file is at fault, and why; fits behind "failed to".
pub fn try_tls(tls: &config::ServerTls) -> Result<(), String> {
    tls::server_config(tls, Arc::new(crate::clock::arrival)).map(drop).map_err(|error| error.to_string())
}

/// One endpoint.
#[derive(Clone)]
struct Door {
    doors: Arc<Doors>,
    endpoint: Endpoint,
    name: Arc<str>,
    tls: Option<tls::Current>,
}

impl Door {
    async fn serve(mut self, connected: Arc<impl Fn(Stream, Peer, Admitted) + Send + Sync + 'static>) {
        // Without a certificate nobody could be let in: the address stays closed, which clients understand.
        if let Some(current) = &mut self.tls
            && current.wait_for(Option::is_some).await.is_err()
        {
            return;
        }
        let socket = self.bind().await;
        let mut handshakes = JoinSet::new();
        let mut in_trouble = false;
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                Some(_) = handshakes.join_next() => continue,
            };
            match accepted {
                Ok((stream, address)) => {
                    in_trouble = false;
                    self.take(stream, address, &connected, &mut handshakes);
                }
                Err(error) if socket::is_passing(&error) => {}
                Err(error) => {
                    self.doors.count(|counters| &counters.accept_errors);
                    if !std::mem::replace(&mut in_trouble, true) {
                        self.doors.tell(format!("failed to take a connection at {}: {error}", self.name));
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Tries until it works, and says once why it does not.
    async fn bind(&self) -> Socket {
        let (mut pause, mut said) = (BIND_PAUSE, String::new());
        loop {
            match socket::bind(&self.endpoint.address).await {
                Ok(socket) => {
                    tracing::info!(source = self.doors.config.name, endpoint = &*self.name, "listening");
                    self.doors.count(|counters| &counters.endpoints_bound);
                    if let Some(address) = socket.local_address() {
                        self.doors.bound.send_modify(|bound| bound.push(address));
                    }
                    return socket;
                }
                Err(error) => {
                    let reason = format!("failed to listen at {}: {error}; trying again", self.name);
                    if said != reason {
                        self.doors.tell(reason.clone());
                        said = reason;
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BIND_PAUSE_MAX);
        }
    }

    fn take(
        &self,
        stream: Stream,
        address: Option<IpAddr>,
        connected: &Arc<impl Fn(Stream, Peer, Admitted) + Send + Sync + 'static>,
        handshakes: &mut JoinSet<()>,
    ) {
        let admitted = match self.doors.gate.admit(address, Instant::now()) {
            Ok(admitted) => admitted,
            Err(closed) => {
                self.doors.count(match closed {
                    Closed::Full => |counters| &counters.refused_full,
                    Closed::Address => |counters| &counters.refused_address,
                    Closed::Rate => |counters| &counters.refused_rate,
                });
                tracing::debug!(endpoint = &*self.name, ?address, ?closed, "a connection is refused");
                return;
            }
        };
        self.doors.count(|counters| &counters.accepted);
        let endpoint = Arc::clone(&self.name);
        let peer = Peer { address, endpoint, certificate: None, anonymous: self.endpoint.anonymous };
        if !self.endpoint.tls && !self.endpoint.websocket {
            connected(stream, peer, admitted);
            return;
        }
        let (door, connected) = (self.clone(), Arc::clone(connected));
        handshakes.spawn(async move {
            if let Some((stream, peer)) = door.shake_hands(stream, peer, admitted.deadline).await {
                connected(stream, peer, admitted);
            }
        });
    }

    /// TLS, then WebSocket, as far as this endpoint has them.
    async fn shake_hands(&self, mut stream: Stream, mut peer: Peer, deadline: Instant) -> Option<(Stream, Peer)> {
        let current = self.tls.as_ref().and_then(|current| current.borrow().clone());
        if let Some(config) = current {
            let opened = timeout_at(deadline, TlsAcceptor::from(config).accept(stream)).await;
            let counters = (&self.doors.counters.tls_failed, &self.doors.counters.tls_timeouts);
            let opened = self.outcome(opened, counters, peer.address)?;
            let shown = opened.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            if let Some(certificate) = shown {
                peer.certificate = identity::identity(certificate, self.identity_kind());
                if peer.certificate.is_none() {
                    let nameless = Err::<(), _>("find a usable name in the client's certificate");
                    self.outcome(Ok(nameless), counters, peer.address)?;
                }
            }
            stream = opened.into();
        }
        if self.endpoint.websocket {
            let opened = timeout_at(deadline, websocket::upgrade(stream)).await;
            let counters = (&self.doors.counters.websocket_failed, &self.doors.counters.websocket_timeouts);
            stream = self.outcome(opened, counters, peer.address)?.into();
        }
        Some((stream, peer))
    }

    fn identity_kind(&self) -> CertificateIdentity {
        self.doors.config.tls.as_ref().map_or(CertificateIdentity::CommonName, |tls| tls.identity)
    }

    /// Counts what went wrong. Anybody can cause it at any rate, so it is no line of the log by default.
    fn outcome<T, E: Display>(
        &self,
        outcome: Result<Result<T, E>, Elapsed>,
        (failed, timeouts): (&AtomicU64, &AtomicU64),
        address: Option<IpAddr>,
    ) -> Option<T> {
        let reason = match outcome {
            Ok(Ok(opened)) => return Some(opened),
            Ok(Err(error)) => {
                ListenerCounters::add(failed, 1);
                error.to_string()
            }
            Err(_) => {
                ListenerCounters::add(timeouts, 1);
                "shake hands within connect_timeout".to_owned()
            }
        };
        tracing::debug!(endpoint = &*self.name, ?address, reason, "a handshake failed");
        None
    }
}
