//! What may be written below `[[source.listener]]`.

use std::time::Duration;

use crate::config::fields::{List, Opt, Section};
use crate::config::listener_model::CertificateIdentity;
use crate::config::problem::Findings;
use crate::config::reader::{Field, Key, Node, Reader, Table, table};
use crate::config::scalars::{ByteRate, ByteSize, OneOrMany, Scalar, word, words};

table! {
    pub struct ListenerTable {
        name: Opt<String>,
        listen: Opt<OneOrMany>,
        listen_tls: Opt<OneOrMany>,
        listen_ws: Opt<OneOrMany>,
        listen_wss: Opt<OneOrMany>,
        listen_unix: Opt<OneOrMany>,
        insecure: Opt<bool>,
        password_file: Opt<String>,
        tls: Section<ServerTlsTable>,
        acl: List<AclTable>,
        message_id_property: Opt<String>,
        message_id_pointer: Opt<String>,
        unacked_bytes_max: Opt<ByteSize>,
        fan_out_bytes_max: Opt<ByteSize>,
        limits: Section<LimitsTable>,
    }
}

table! {
    pub struct ServerTlsTable {
        cert_file: Opt<String>,
        key_file: Opt<String>,
        client_ca_file: Opt<String>,
        require_certificate: Opt<bool>,
        identity: Opt<CertificateIdentity>,
    }
}

table! {
    pub struct AclTable {
        user: Opt<String>,
        client: Opt<String>,
        certificate: Opt<String>,
        publish: Opt<OneOrMany>,
        subscribe: Opt<OneOrMany>,
    }
}

table! {
    pub struct LimitsTable {
        connections: Opt<i64>,
        connections_per_address: Opt<i64>,
        connect_rate: Opt<i64>,
        connect_timeout: Opt<Duration>,
        connect_bytes: Opt<ByteSize>,
        packet_size_max: Opt<ByteSize>,
        receive_maximum: Opt<i64>,
        send_maximum: Opt<i64>,
        queued_messages: Opt<i64>,
        queued_bytes: Opt<ByteSize>,
        sessions: Opt<i64>,
        session_expiry: Opt<Duration>,
        subscriptions: Opt<i64>,
        retained_messages: Opt<i64>,
        retained_bytes: Opt<ByteSize>,
        topic_levels: Opt<i64>,
        topic_aliases: Opt<i64>,
        message_rate: Opt<i64>,
        byte_rate: Opt<ByteRate>,
        keep_alive_max: Opt<Duration>,
    }
}

words!(CertificateIdentity {
    "cn" => CertificateIdentity::CommonName,
    "san" => CertificateIdentity::AlternativeName,
});

impl ListenerTable {
    /// Whether messages bring ids of their own.
    pub fn looks_for_ids(&self) -> bool {
        self.message_id_property.get().is_some() || self.message_id_pointer.get().is_some()
    }
}
