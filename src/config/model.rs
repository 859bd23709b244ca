//! The resolved configuration: what the program needs, after files, defaults, secrets and checks.
//!
//! Everything here is valid by construction: `config::load` and `config::parse_str` are the only makers. Durations are `Duration`,
//! sizes are bytes (`u64`), names are resolved to indices where the path of a reading needs them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{Listener, ModbusSource, SerialSource};
pub use crate::route::spec::{Collisions, OnError, RouteSpec, TimestampFormat, TimestampSpec, UnmatchedSpec};

/// A secret that must not reach a log: `Debug` prints `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: String) -> Self {
        Secret(value)
    }
    /// The one place where a secret becomes readable: name it where you use it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

#[derive(Debug, Clone)]
pub struct Config {
    pub gateway: Gateway,
    pub memory: Budget,
    pub spool: Spool,
    /// Highest priority first. The last resort lane `default` and the gateway's own lane `events` always exist.
    pub lanes: Vec<Lane>,
    /// Index of the lane that carries the gateway's own records.
    pub events_lane: usize,
    pub kafka: Vec<Kafka>,
    pub topics: Vec<Topic>,
    pub topic_policy: TopicPolicy,
    pub mqtt_sources: Vec<MqttSource>,
    pub listeners: Vec<Listener>,
    pub serial_sources: Vec<SerialSource>,
    pub modbus_sources: Vec<ModbusSource>,
    /// `[[route]]` tables in the order of the file: the first match wins. Their filters and templates are checked.
    pub routes: Vec<RouteSpec>,
    pub unmatched: UnmatchedSpec,
    pub events: Events,
    pub dead_letters: DeadLetters,
    pub http: Http,
    pub log: Log,
    /// SHA-256 of the resolved configuration without secrets, 16 hex digits: travels in `forebay.events`.
    /// Comments and the order of keys do not change it; another version of Forebay may.
    pub hash: String,
}

#[derive(Debug, Clone)]
pub struct Gateway {
    /// `[gateway] name`; default: `fb-` + 12 hex digits of a hash of machine-id and hardware serial.
    pub name: String,
    /// Spool, last good config, secrets' state. Default `/var/lib/forebay`.
    pub state_dir: PathBuf,
    /// Control socket. Default `/run/forebay`.
    pub runtime_dir: PathBuf,
    /// How long a graceful stop may go on draining. Default 5 s.
    pub stop_timeout: Duration,
}

/// `memory.max` shared out (bytes). Default in all 32 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    pub max: u64,
    /// All unacknowledged readings of all sources together.
    pub intake: u64,
    /// Committed chunks kept in memory plus chunks read ahead, over all lanes.
    pub window: u64,
    /// Records handed to the producers (`queue.buffering.max.kbytes`; real use is about twice this), over all clusters.
    pub producer: u64,
    /// What the listeners hold for local subscribers: queues and retained messages. 0 without a listener.
    pub fan_out: u64,
    /// The known message ids of a full window. 0 where no listener looks for ids.
    pub message_ids: u64,
}

#[derive(Debug, Clone)]
pub struct Spool {
    /// Default `<state_dir>/spool.db`.
    pub path: PathBuf,
    /// Bound of the file, over all lanes. Default 1 GiB.
    pub max_bytes: u64,
    /// Longest wait before a commit starts. Default 5 ms, at most 500 ms.
    pub ack_delay: Duration,
    /// How long delivered chunks are held, for brokers that may come back without them. `None`: not at all.
    pub settle: Option<Duration>,
    /// Free space of the file system that is never used. Default 64 MiB.
    pub reserve_bytes: u64,
    /// Size of the ballast file given up when the disk is full, so that the drain goes on. Default 4 MiB.
    pub ballast_bytes: u64,
    /// Device bytes a day before a wear warning. `None`: no warning.
    pub wear_budget_per_day: Option<u64>,
    /// How long a device's own message id is remembered.
    pub message_ids: MessageIds,
}

/// The window within which a message with the same id is the same message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageIds {
    /// Ids remembered at most. Default 200,000: some 8 MiB of memory, taken only when devices give ids.
    pub window: usize,
    /// An older id is forgotten. Default 24 hours.
    pub max_age: Duration,
}

impl Default for MessageIds {
    fn default() -> Self {
        MessageIds { window: 200_000, max_age: Duration::from_secs(86_400) }
    }
}

impl MessageIds {
    /// What a full window takes of the memory, in bytes: 24 for each id and 4 for its place in a table that is filled to
    /// four fifths, both grown by doubling.
    pub fn bytes_max(&self) -> u64 {
        let ids = self.window as u64 + 1;
        ids.next_power_of_two() * 24 + (ids * 5).div_ceil(4).next_power_of_two().max(1024) * 4
    }
}

/// What the file may have above `spool.max_bytes`, so that settling always finds a page.
const FILE_SLACK: u64 = 16 << 20;

impl Spool {
    /// The file's own bound, behind the lanes': for the gateway and for commands that open the file without it.
    pub fn file_bytes_max(&self) -> u64 {
        self.max_bytes + FILE_SLACK
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Direct while Kafka answers; the spool only while it does not.
    Offline,
    /// Commit first, then forward.
    Always,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Stop acknowledging: the sender keeps the reading.
    Refuse,
    DropOldest,
    DropNewest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    AtLeastOnce,
    AtMostOnce,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    InOrder,
    /// New readings before the backlog. Promise 3 does not hold for such a lane.
    LiveFirst,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grace {
    /// Three times the p99 of recent delivery times, between 250 and 800 ms.
    Auto,
    Fixed(Duration),
}

#[derive(Debug, Clone)]
pub struct Lane {
    pub name: String,
    /// Higher goes first.
    pub priority: i32,
    pub order: Order,
    /// The effective mode (after what history and the like imply).
    pub when: When,
    /// Why `when` is what it is: "configured", "default", "implied by keep = \"24h\"".
    pub when_reason: String,
    pub when_full: WhenFull,
    pub delivery: Delivery,
    pub grace: Grace,
    /// Stored bytes in the spool. Default: `spool.max_bytes`.
    pub max_bytes: u64,
    pub max_records: Option<u64>,
    pub max_age: Option<Duration>,
    /// Bytes/s while draining a backlog; `None`: as fast as it goes.
    pub drain_rate: Option<u64>,
    /// History: how long delivered chunks are kept.
    pub keep: Option<Duration>,
    /// How long after its delivery a chunk is held, from `spool.settle`.
    pub settle: Option<Duration>,
    /// Index into `Config::kafka`.
    pub kafka: usize,
}

#[derive(Debug, Clone)]
pub struct Kafka {
    /// `[kafka.NAME]`
    pub name: String,
    pub bootstrap_servers: String,
    pub client_id: String,
    pub compression: Compression,
    pub linger: Duration,
    pub security: KafkaSecurity,
    /// `[kafka.NAME.properties]`, already checked against the promises.
    pub properties: BTreeMap<String, Secret>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Lz4,
    Zstd,
}

#[derive(Debug, Clone, Default)]
pub struct KafkaSecurity {
    pub tls: Option<Tls>,
    pub sasl: Option<Sasl>,
}

#[derive(Debug, Clone)]
pub enum Sasl {
    Plain {
        user: String,
        password: Secret,
    },
    /// `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    Scram {
        mechanism: &'static str,
        user: String,
        password: Secret,
    },
    /// The token (a JWT) is read from this file whenever librdkafka asks for a new one.
    OauthBearer {
        token_file: PathBuf,
    },
}

/// TLS of a client. PEM files.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Replaces the system's roots.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain and key: both or neither.
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// Name to check instead of the host name.
    pub server_name: Option<String>,
}

/// `[[topic]]`: what `topics apply` creates.
#[derive(Debug, Clone)]
pub struct Topic {
    pub name: String,
    pub kafka: usize,
    pub partitions: i32,
    pub replication_factor: i32,
    pub min_insync_replicas: Option<i32>,
    /// `None`: the broker's default.
    pub retention: Option<Duration>,
    pub compact: bool,
    pub properties: BTreeMap<String, String>,
}

/// What templates may create.
#[derive(Debug, Clone)]
pub struct TopicPolicy {
    /// Kafka topic names must match one of these patterns (`*` stands for any run of characters). Empty: all.
    pub allow: Vec<String>,
    /// Distinct Kafka topics in all. Default 100.
    pub max_topics: usize,
    /// What happens when two source names fall onto one Kafka name.
    pub collisions: Collisions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MqttVersion {
    V311,
    V5,
}

#[derive(Debug, Clone)]
pub struct MqttSource {
    pub name: String,
    pub host: String,
    pub port: u16,
    pub tls: Option<Tls>,
    pub version: MqttVersion,
    /// Stable. Default `<gateway>-<source>`, and `<client_id>-<lane>` with `session_per_lane`.
    pub client_id: String,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub subscriptions: Vec<Subscription>,
    pub keep_alive: Duration,
    pub connect_timeout: Duration,
    /// v5 session expiry; 3.1.1 sessions live as long as the broker lets them. Default 7 days.
    pub session_expiry: Duration,
    /// Most unacknowledged readings at once (announced in v5 as Receive Maximum, kept by the read gate in both).
    pub receive_maximum: u16,
    /// Most unacknowledged bytes at once: this source's share of `Budget::intake`.
    pub unacked_bytes_max: u64,
    /// Largest packet taken; v5 announces it. Default 1 MiB.
    pub packet_size_max: u32,
    /// Readings a second; `None`: no limit.
    pub rate_limit: Option<u32>,
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    pub session_per_lane: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// As sent to the broker, `$share/group/` included.
    pub filter: String,
    /// 0 or 1.
    pub qos: u8,
}

/// The gateway's own records.
#[derive(Debug, Clone)]
pub struct Events {
    pub enabled: bool,
    /// Default `forebay.events`.
    pub topic: String,
    /// Default 60 s.
    pub heartbeat: Duration,
}

#[derive(Debug, Clone)]
pub struct DeadLetters {
    /// Kafka topic that gets a copy; `None`: the local table only.
    pub topic: Option<String>,
    /// Bound of the local table; at the bound the oldest go, with a ledger entry.
    pub max_bytes: u64,
}

#[derive(Debug, Clone)]
pub struct Http {
    /// Default 127.0.0.1:9464; `None`: off.
    pub listen: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`
    pub level: String,
}
