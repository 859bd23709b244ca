//! Everything between a socket and the first MQTT packet: addresses, the number of connections, TLS, WebSocket.

mod admission;
mod stream;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use admission::{Admission, Admitted, Closed};
pub use stream::Stream;

use super::counters::ListenerCounters;
use crate::config::{self, Address, Endpoint};
use crate::intake::SourceEvent;
use crate::intake::mqtt::Clock;

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
    /// With the source's name. An event that finds it full is dropped.
    pub events: mpsc::Sender<(String, SourceEvent)>,
    /// Certificates are checked against the gateway's clock.
    pub clock: Clock,
    /// The TCP addresses that are bound now: with port 0 in the configuration nobody else knows them.
    pub bound: watch::Sender<Vec<SocketAddr>>,
}

/// Lets connections in until `stop` is told. `connected` must not block: it spawns the connection's task.
pub async fn accept(
    doors: Doors,
    connected: impl Fn(Stream, Peer, Admitted) + Send + Sync + 'static,
    mut stop: watch::Receiver<bool>,
) {
    let doors = Arc::new(doors);
    let connected = Arc::new(connected);
    let mut endpoints = JoinSet::new();
    for endpoint in doors.config.endpoints.clone() {
        endpoints.spawn(serve(Arc::clone(&doors), endpoint, Arc::clone(&connected)));
    }
    // An error means that nobody is left who could tell.
    let _ = stop.wait_for(|&stop| stop).await;
}

async fn serve(doors: Arc<Doors>, endpoint: Endpoint, connected: Arc<impl Fn(Stream, Peer, Admitted)>) {
    let Address::Tcp(address) = endpoint.address else { return };
    let Ok(listener) = TcpListener::bind(address).await else { return };
    if let Ok(address) = listener.local_addr() {
        doors.bound.send_modify(|bound| bound.push(address));
    }
    let name: Arc<str> = address.to_string().into();
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(admitted) = doors.gate.admit(Some(from.ip()), Instant::now()) else { continue };
        let _ = stream.set_nodelay(true);
        let peer = Peer {
            address: Some(from.ip()),
            endpoint: Arc::clone(&name),
            certificate: None,
            anonymous: endpoint.anonymous,
        };
        connected(stream.into(), peer, admitted);
    }
}
