//! The server under test, and the one beside it that shows that the tests themselves are right.
//!
//! Ours is the real binary with a Kafka that is away: its lane commits first, so that every PUBACK comes by a commit. The
//! yardstick is Debian's Mosquitto. Each is started once for all tests, which keep apart by their names.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use rustix::process::geteuid;
use tempfile::TempDir;

use super::line::Line;
use super::packets::{Connect, V4};
use crate::harness::gateway::{Builder, Gateway};
use crate::harness::jobs::{self, Job};
use crate::harness::secured;

/// Packets above it are refused by both servers.
pub const PACKET_MAX: usize = 256 * 1024;

/// Of our listener.
pub const RECEIVE_MAXIMUM: u16 = 100;
pub const TOPIC_ALIASES: u16 = 32;
pub const TOPIC_LEVELS: usize = 32;
pub const SUBSCRIPTIONS: usize = 100;

#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub tcp: u16,
    pub tls: u16,
    pub ws: u16,
    pub wss: u16,
}

enum Process {
    Mosquitto(#[expect(dead_code, reason = "runs until dropped")] Job),
    Forebay(Mutex<Gateway>),
}

pub struct Server {
    pub ports: Ports,
    process: Process,
    dir: TempDir,
}

impl Server {
    /// The yardstick that all tests share.
    pub fn mosquitto() -> &'static Server {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(start_mosquitto)
    }

    /// Our listener, shared by all tests that leave it as it is.
    pub fn forebay() -> &'static Server {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| Server::forebay_with("", ""))
    }

    /// One of its own: more lines for the listener, more of its limits.
    pub fn forebay_with(lines: &str, limits: &str) -> Server {
        Server::start(lines, limits, "when = \"always\"")
    }

    /// One of its own whose lane has these lines.
    pub fn forebay_with_lane(lane: &str) -> Server {
        Server::start("", "", lane)
    }

    fn start(lines: &str, limits: &str, lane: &str) -> Server {
        let dir = certificates();
        let ports = free_ports();
        let mut gateway = forebay(&ports, dir.path(), lines, limits, lane).build();
        gateway.start_alone();
        let server = Server { ports, process: Process::Forebay(Mutex::new(gateway)), dir };
        server.wait_ready();
        server
    }

    pub fn is_ours(&self) -> bool {
        matches!(self.process, Process::Forebay(_))
    }

    /// The certificate of the authority that signed the server's.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A name for a client or the root of topics, never given before: at most 23 letters and digits.
    pub fn name(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("n{}", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// kill -9 and a new start with the same state.
    pub fn kill_and_restart(&self) {
        let mut gateway = self.gateway();
        gateway.kill9();
        gateway.start_alone();
        drop(gateway);
        self.wait_ready();
    }

    /// kill -9 and a new start with a fault point armed, `<point>:<n>`.
    pub fn restart_with_fault(&self, fault: &str) {
        let mut gateway = self.gateway();
        gateway.kill9();
        gateway.start_with_fault(fault);
        drop(gateway);
        self.wait_ready();
    }

    pub fn gateway(&self) -> std::sync::MutexGuard<'_, Gateway> {
        match &self.process {
            Process::Forebay(gateway) => gateway.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
            Process::Mosquitto(_) => panic!("a test for our listener alone"),
        }
    }

    /// Until somebody listens: the sockets are opened some time after the process has started.
    fn wait_ready(&self) {
        jobs::wait_until("the server listens", || std::net::TcpStream::connect(("127.0.0.1", self.ports.tcp)).ok());
        if !self.is_ours() {
            Line::connect(self, &Connect::new(V4, "ready")).leave();
        }
    }
}

fn free_ports() -> Ports {
    Ports { tcp: jobs::free_port(), tls: jobs::free_port(), ws: jobs::free_port(), wss: jobs::free_port() }
}

/// `ca.pem`, `server.pem`, `server.key`.
fn certificates() -> TempDir {
    let dir = jobs::scratch("listener");
    let authority = secured::authority("Plant");
    let (certificate, key) = secured::issue(&authority, "server");
    let write = |name: &str, text: String| fs::write(dir.path().join(name), text).unwrap();
    write("ca.pem", authority.pem());
    write("server.pem", certificate);
    write("server.key", key);
    dir
}

fn start_mosquitto() -> Server {
    let dir = certificates();
    let ports = free_ports();
    let config = dir.path().join("mosquitto.conf");
    fs::write(&config, mosquitto_config(&ports, dir.path())).unwrap();
    let mut command = jobs::leashed(&jobs::tool("mosquitto", "mosquitto"));
    command.arg("-c").arg(config);
    let job = Job::start("mosquitto", command, &dir.path().join("log"));
    let server = Server { ports, process: Process::Mosquitto(job), dir };
    server.wait_ready();
    server
}

fn mosquitto_config(ports: &Ports, dir: &Path) -> String {
    let tls = format!("certfile {0}/server.pem\nkeyfile {0}/server.key", dir.display());
    let mut lines = vec![
        format!("listener {} 127.0.0.1", ports.tcp),
        format!("listener {} 127.0.0.1\n{tls}", ports.tls),
        format!("listener {} 127.0.0.1\nprotocol websockets", ports.ws),
        format!("listener {} 127.0.0.1\nprotocol websockets\n{tls}", ports.wss),
        "allow_anonymous true".to_owned(),
        "set_tcp_nodelay true".to_owned(),
        format!("max_packet_size {PACKET_MAX}"),
    ];
    if geteuid().is_root() {
        // Otherwise it becomes the user `mosquitto`, who may not read here.
        lines.push("user root".to_owned());
    }
    lines.join("\n") + "\n"
}

fn forebay(ports: &Ports, dir: &Path, lines: &str, limits: &str, lane: &str) -> Builder {
    let listen = [
        "name = \"devices\"".to_owned(),
        format!("listen = \"127.0.0.1:{}\"", ports.tcp),
        format!("listen_tls = \"127.0.0.1:{}\"", ports.tls),
        format!("listen_ws = \"127.0.0.1:{}\"", ports.ws),
        format!("listen_wss = \"127.0.0.1:{}\"", ports.wss),
        lines.to_owned(),
    ];
    let tls = [format!("cert_file = {:?}", dir.join("server.pem")), format!("key_file = {:?}", dir.join("server.key"))];
    // All tests come from one address, as fast as they can, and some from a machine that has much else to do.
    let timeout = if limits.contains("connect_timeout") { "" } else { "connect_timeout = \"60s\"" };
    let limits = format!("connect_rate = 100000\n{timeout}\n{limits}");
    Gateway::builder()
        .table("[[source.listener]]", &listen.join("\n"))
        .table("[source.listener.tls]", &tls.join("\n"))
        .table("[source.listener.limits]", &limits)
        // Tests that send much at the same time must not use up each other's queues.
        .table("[memory]", "max = \"256MiB\"")
        // Nobody listens there: everything stays in the spool.
        .kafka("127.0.0.1:1")
        .lane("telemetry", lane)
        .route("#", "readings", "telemetry")
}
