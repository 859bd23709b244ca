//! The resolved `[[source.listener]]`. See `model.rs` for what that means.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// An MQTT server for the plant's devices. One set of sessions, retained messages and subscriptions for all its endpoints.
#[derive(Debug, Clone)]
pub struct Listener {
    pub name: String,
    pub endpoints: Vec<Endpoint>,
    /// For the endpoints with TLS.
    pub tls: Option<ServerTls>,
    /// Argon2 hashes, a line `user:$argon2id$…` for each; written by `forebay passwd`.
    pub password_file: Option<PathBuf>,
    /// A client may do what the rules that fit it allow, all together; what no rule allows is denied. Empty: everything,
    /// for endpoints where everybody is let in.
    pub acl: Vec<AclRule>,
    pub message_id: Option<MessageIdFrom>,
    /// This source's share of `Budget::intake`: all readings that are not acknowledged yet.
    pub unacked_bytes_max: u64,
    /// Bytes of all messages that wait for local subscribers, over all sessions. Together with `retained_bytes` this
    /// listener's share of `Budget::fan_out`.
    pub fan_out_bytes_max: u64,
    pub limits: ListenerLimits,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Address,
    pub tls: bool,
    pub websocket: bool,
    /// Clients without user and certificate are let in here.
    pub anonymous: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    /// A Unix socket, made with mode 0660.
    Unix(PathBuf),
}

/// PEM files, read again when they change.
#[derive(Debug, Clone)]
pub struct ServerTls {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// Issuers of client certificates.
    pub client_ca_file: Option<PathBuf>,
    /// Connections without a certificate are refused. Otherwise one is checked if it is shown.
    pub require_certificate: bool,
    pub identity: CertificateIdentity,
}

/// What of a client certificate is the user's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateIdentity {
    CommonName,
    /// The first DNS name, e-mail address or URI of the subject's alternative names.
    AlternativeName,
}

/// Who may do what. A rule without `user`, `client` and `certificate` is for everybody. `*` in a name stands for any run
/// of characters. In filters, `%u` stands for the user's name and `%c` for the client id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AclRule {
    pub user: Option<String>,
    pub client: Option<String>,
    pub certificate: Option<String>,
    pub publish: Vec<String>,
    pub subscribe: Vec<String>,
}

/// Where a device's own id of a message stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageIdFrom {
    /// The v5 user property of this name.
    Property(String),
    /// A JSON pointer into the payload.
    Pointer(String),
}

#[derive(Debug, Clone)]
pub struct ListenerLimits {
    /// Connections in all. Default 2,000.
    pub connections: u32,
    /// From one address; loopback and Unix sockets are not counted. Default 200.
    pub connections_per_address: u32,
    /// New connections a second. Default 200.
    pub connect_rate: u32,
    /// From accept to a complete CONNECT, TLS handshake and WebSocket upgrade included. Default 5 s.
    pub connect_timeout: Duration,
    /// Largest CONNECT. Default 4 KiB.
    pub connect_bytes: u32,
    /// Largest packet; announced in v5. Default 256 KiB.
    pub packet_size_max: u32,
    /// Unanswered QoS 1 and 2 messages of one device; announced in v5. Default 100.
    pub receive_maximum: u16,
    /// Messages under way to one subscriber. Default 100; a v5 client may ask for fewer.
    pub send_maximum: u16,
    /// Messages and bytes that wait for one subscriber, under way or not. Default 1,000 and 256 KiB.
    pub queued_messages: u32,
    pub queued_bytes: u64,
    /// Sessions without a connection that are kept. Default 2,000.
    pub sessions: u32,
    /// Longest time that a session is kept without a connection. Default 7 days. 3.1.1 sessions get this much.
    pub session_expiry: Duration,
    /// Of one session. Default 100.
    pub subscriptions: u32,
    /// Default 1,000 and 1 MiB in all.
    pub retained_messages: u32,
    pub retained_bytes: u64,
    /// Levels of a topic or filter. Default 32.
    pub topic_levels: u32,
    /// v5 topic aliases of one connection. Default 32.
    pub topic_aliases: u16,
    /// Of one client. Default 10,000/s and 8 MiB/s: a faster one is read from more slowly.
    pub message_rate: u32,
    pub byte_rate: u64,
    /// Longest keep-alive that a v5 client is granted, and what one with 0 gets in v5 is 0. Default 1 hour.
    pub keep_alive_max: Duration,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        ListenerLimits {
            connections: 2_000,
            connections_per_address: 200,
            connect_rate: 200,
            connect_timeout: Duration::from_secs(5),
            connect_bytes: 4 << 10,
            packet_size_max: 256 << 10,
            receive_maximum: 100,
            send_maximum: 100,
            queued_messages: 1_000,
            queued_bytes: 256 << 10,
            sessions: 2_000,
            session_expiry: Duration::from_secs(7 * 24 * 3600),
            subscriptions: 100,
            retained_messages: 1_000,
            retained_bytes: 1 << 20,
            topic_levels: 32,
            topic_aliases: 32,
            message_rate: 10_000,
            byte_rate: 8 << 20,
            keep_alive_max: Duration::from_secs(3600),
        }
    }
}
