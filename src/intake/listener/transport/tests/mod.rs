//! The doors over real sockets.

#![expect(clippy::unwrap_used, reason = "tests")]

mod plain;
mod tls;
mod websocket;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::config::{Listener, ListenerLimits, ServerTls};

/// Generous: a busy machine gets there in seconds.
const SOON: Duration = Duration::from_secs(60);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

fn endpoint(tls: bool, websocket: bool) -> Endpoint {
    Endpoint { address: Address::Tcp("127.0.0.1:0".parse().unwrap()), tls, websocket, anonymous: true }
}

fn listener(endpoint: Endpoint, tls: Option<ServerTls>) -> Listener {
    Listener {
        name: "devices".to_owned(),
        endpoints: vec![endpoint],
        tls,
        password_file: None,
        acl: Vec::new(),
        message_id: None,
        unacked_bytes_max: 1 << 20,
        fan_out_bytes_max: 1 << 20,
        limits: ListenerLimits::default(),
    }
}

type Connected = (Stream, Peer, Admitted);

/// A listener that runs.
struct Running {
    gate: Arc<Admission>,
    counters: Arc<ListenerCounters>,
    connected: mpsc::Receiver<Connected>,
    events: mpsc::Receiver<(String, SourceEvent)>,
    bound: watch::Receiver<Vec<SocketAddr>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(config: Listener) -> Self {
        let gate = Admission::new(&config.limits);
        let counters = Arc::new(ListenerCounters::default());
        let (events, told) = mpsc::channel(100);
        let (bound, addresses) = watch::channel(Vec::new());
        let (stop, stopped) = watch::channel(false);
        let (connected, streams) = mpsc::channel(100);
        let doors = Doors {
            config: Arc::new(config),
            gate: Arc::clone(&gate),
            counters: Arc::clone(&counters),
            events,
            clock: Arc::new(crate::clock::arrival),
            bound,
        };
        let hand_over = move |stream, peer, admitted| connected.try_send((stream, peer, admitted)).unwrap();
        let task = tokio::spawn(accept(doors, hand_over, stopped));
        Running { gate, counters, connected: streams, events: told, bound: addresses, stop, task }
    }

    async fn address(&mut self) -> SocketAddr {
        soon("an address", self.bound.wait_for(|bound| !bound.is_empty())).await.unwrap()[0]
    }

    async fn connect(&mut self) -> TcpStream {
        TcpStream::connect(self.address().await).await.unwrap()
    }

    async fn next(&mut self) -> Connected {
        soon("a connection", self.connected.recv()).await.unwrap()
    }

    async fn trouble(&mut self) -> String {
        match soon("an event", self.events.recv()).await.unwrap().1 {
            SourceEvent::ListenerTrouble { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until a counter is at least `n`.
    async fn counted(&self, counter: fn(&ListenerCounters) -> &AtomicU64, n: u64) {
        soon("a count", async {
            while counter(&self.counters).load(Ordering::Relaxed) < n {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    async fn stop(self) {
        self.stop.send(true).unwrap();
        soon("the end", self.task).await.unwrap();
    }
}

/// Sends back what comes until the other side ends, in pieces of at most `piece` bytes.
async fn echo(mut stream: Stream, piece: usize) -> std::io::Result<()> {
    let mut buffer = vec![0; piece];
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..n]).await?;
        stream.flush().await?;
    }
}

/// The connection ends without a byte.
async fn is_closed(mut stream: TcpStream) -> bool {
    let mut byte = [0];
    matches!(soon("the end of the connection", stream.read(&mut byte)).await, Ok(0) | Err(_))
}

/// A certification authority and its files.
struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        let authority = Authority { folder, issuer };
        authority.write("server", "gateway.plant");
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["gateway.plant".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// `FILE.pem` and `FILE.key` for a new certificate of `name`.
    fn write(&self, file: &str, name: &str) {
        let (certificate, key) = self.issue(name);
        replace(&self.path(&format!("{file}.pem")), &certificate.pem());
        replace(&self.path(&format!("{file}.key")), &key.serialize_pem());
    }

    fn server(&self, client_ca: bool, require_certificate: bool) -> Option<ServerTls> {
        Some(ServerTls {
            cert_file: self.path("server.pem"),
            key_file: self.path("server.key"),
            client_ca_file: client_ca.then(|| self.path("ca.pem")),
            require_certificate,
            identity: CertificateIdentity::CommonName,
        })
    }
}

/// As one does with a file that others read: all at once.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(&new, path).unwrap();
}
