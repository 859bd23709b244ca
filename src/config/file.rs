//! What may be written in a configuration file: one plain struct for each table, one field for each key.
//!
//! The names are those a person types. Defaults, checks and everything derived belong to the resolving modules.

use std::time::Duration;

use super::fields::{List, Named, Opt, Pairs, Section};
use super::listener::file::ListenerTable;
use super::modbus_file::ModbusTable;
use super::model::{Compression, Delivery, LogFormat, MqttVersion, Order, Secret, When, WhenFull};
use super::problem::Findings;
use super::reader::{At, Field, Key, Node, Reader, Table, table};
use super::scalars::{ByteRate, ByteSize, OneOrMany, Scalar, word, words};
use super::serial_file::SerialTable;
use crate::route::spec::{Collisions, OnError, TimestampFormat};

table! {
    /// The whole file.
    pub struct ConfigFile {
        gateway: Section<GatewayTable>,
        memory: Section<MemoryTable>,
        spool: Section<SpoolTable>,
        lane: List<LaneTable>,
        kafka: Named<KafkaTable>,
        topic: List<TopicTable>,
        topic_policy: Section<TopicPolicyTable>,
        source: Section<SourceTable>,
        route: List<RouteTable>,
        unmatched: Section<UnmatchedTable>,
        events: Section<EventsTable>,
        dead_letters: Section<DeadLettersTable>,
        http: Section<HttpTable>,
        log: Section<LogTable>,
    }
}

table! {
    pub struct GatewayTable {
        name: Opt<String>,
        state_dir: Opt<String>,
        runtime_dir: Opt<String>,
        stop_timeout: Opt<Duration>,
    }
}

table! {
    pub struct MemoryTable {
        max: Opt<ByteSize>,
        intake: Opt<ByteSize>,
        window: Opt<ByteSize>,
        producer: Opt<ByteSize>,
        fan_out: Opt<ByteSize>,
    }
}

table! {
    pub struct SpoolTable {
        path: Opt<String>,
        max_bytes: Opt<ByteSize>,
        ack_delay: Opt<Duration>,
        settle: Opt<Duration>,
        reserve_bytes: Opt<ByteSize>,
        ballast_bytes: Opt<ByteSize>,
        wear_budget_per_day: Opt<ByteSize>,
        message_id_window: Opt<i64>,
        message_id_max_age: Opt<Duration>,
    }
}

table! {
    pub struct LaneTable {
        name: Opt<String>,
        priority: Opt<i64>,
        order: Opt<Order>,
        when: Opt<When>,
        when_full: Opt<WhenFull>,
        delivery: Opt<Delivery>,
        grace: Opt<String>,
        max_bytes: Opt<ByteSize>,
        max_records: Opt<i64>,
        max_age: Opt<Duration>,
        drain_rate: Opt<ByteRate>,
        keep: Opt<Duration>,
        kafka: Opt<String>,
    }
}

table! {
    pub struct KafkaTable {
        bootstrap_servers: Opt<String>,
        client_id: Opt<String>,
        compression: Opt<Compression>,
        linger: Opt<Duration>,
        tls: Section<TlsTable>,
        sasl: Section<SaslTable>,
        properties: Pairs,
    }
}

table! {
    pub struct TlsTable {
        ca_file: Opt<String>,
        cert_file: Opt<String>,
        key_file: Opt<String>,
        server_name: Opt<String>,
    }
}

table! {
    pub struct SaslTable {
        mechanism: Opt<Mechanism>,
        user: Opt<String>,
        password: Opt<Secret>,
        password_file: Opt<String>,
        token_file: Opt<String>,
    }
}

table! {
    pub struct TopicTable {
        name: Opt<String>,
        kafka: Opt<String>,
        partitions: Opt<i64>,
        replication_factor: Opt<i64>,
        min_insync_replicas: Opt<i64>,
        retention: Opt<Duration>,
        compact: Opt<bool>,
        properties: Pairs,
    }
}

table! {
    pub struct TopicPolicyTable {
        allow: Opt<Vec<At<String>>>,
        max_topics: Opt<i64>,
        collisions: Opt<Collisions>,
    }
}

table! {
    pub struct SourceTable {
        mqtt: List<MqttTable>,
        listener: List<ListenerTable>,
        serial: List<SerialTable>,
        modbus: List<ModbusTable>,
    }
}

table! {
    pub struct MqttTable {
        name: Opt<String>,
        host: Opt<String>,
        port: Opt<i64>,
        tls: Section<TlsTable>,
        version: Opt<MqttVersion>,
        client_id: Opt<String>,
        user: Opt<String>,
        password: Opt<Secret>,
        password_file: Opt<String>,
        subscriptions: List<SubscriptionTable>,
        keep_alive: Opt<Duration>,
        connect_timeout: Opt<Duration>,
        session_expiry: Opt<Duration>,
        receive_maximum: Opt<i64>,
        unacked_bytes_max: Opt<ByteSize>,
        packet_size_max: Opt<ByteSize>,
        rate_limit: Opt<i64>,
        backoff_min: Opt<Duration>,
        backoff_max: Opt<Duration>,
        session_per_lane: Opt<bool>,
    }
}

table! {
    pub struct SubscriptionTable {
        filter: Opt<String>,
        qos: Opt<i64>,
    }
}

table! {
    pub struct RouteTable {
        name: Opt<String>,
        source: Opt<OneOrMany>,
        filter: Opt<String>,
        lane: Opt<String>,
        kafka_topic: Opt<String>,
        key: Opt<String>,
        headers: Pairs,
        timestamp: Section<TimestampTable>,
        on_error: Opt<OnError>,
    }
}

table! {
    pub struct TimestampTable {
        pointer: Opt<String>,
        format: Opt<TimestampFormat>,
    }
}

table! {
    pub struct UnmatchedTable {
        to: Opt<UnmatchedTo>,
        kafka_topic: Opt<String>,
        lane: Opt<String>,
        key: Opt<String>,
    }
}

table! {
    pub struct EventsTable {
        enabled: Opt<bool>,
        topic: Opt<String>,
        heartbeat: Opt<Duration>,
    }
}

table! {
    pub struct DeadLettersTable {
        topic: Opt<String>,
        max_bytes: Opt<ByteSize>,
    }
}

table! {
    pub struct HttpTable {
        listen: Opt<String>,
    }
}

table! {
    pub struct LogTable {
        format: Opt<LogFormat>,
        level: Opt<Level>,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    Scram256,
    Scram512,
    OauthBearer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnmatchedTo {
    Route,
    DeadLetter,
    Drop,
}

/// A log level's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level(pub &'static str);

words!(Order { "in-order" => Order::InOrder, "live-first" => Order::LiveFirst });
words!(When { "offline" => When::Offline, "always" => When::Always });
words!(WhenFull {
    "refuse" => WhenFull::Refuse,
    "drop-oldest" => WhenFull::DropOldest,
    "drop-newest" => WhenFull::DropNewest,
});
words!(Delivery { "at-least-once" => Delivery::AtLeastOnce, "at-most-once" => Delivery::AtMostOnce });
words!(Compression { "none" => Compression::None, "lz4" => Compression::Lz4, "zstd" => Compression::Zstd });
words!(Mechanism {
    "PLAIN" => Mechanism::Plain,
    "SCRAM-SHA-256" => Mechanism::Scram256,
    "SCRAM-SHA-512" => Mechanism::Scram512,
    "OAUTHBEARER" => Mechanism::OauthBearer,
});
words!(MqttVersion { "3.1.1" => MqttVersion::V311, "5" => MqttVersion::V5 });
words!(TimestampFormat {
    "rfc3339" => TimestampFormat::Rfc3339,
    "s" => TimestampFormat::Seconds,
    "ms" => TimestampFormat::Millis,
    "us" => TimestampFormat::Micros,
    "ns" => TimestampFormat::Nanos,
});
words!(OnError { "dead-letter" => OnError::DeadLetter, "drop" => OnError::Drop });
words!(Collisions { "dead-letter" => Collisions::DeadLetter, "merge" => Collisions::Merge });
words!(UnmatchedTo {
    "route" => UnmatchedTo::Route,
    "dead-letter" => UnmatchedTo::DeadLetter,
    "drop" => UnmatchedTo::Drop,
});
words!(LogFormat { "text" => LogFormat::Text, "json" => LogFormat::Json });
words!(Level {
    "error" => Level("error"),
    "warn" => Level("warn"),
    "info" => Level("info"),
    "debug" => Level("debug"),
    "trace" => Level("trace"),
});
