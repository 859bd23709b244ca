//! What a `[[route]]` says, resolved but not compiled: the plain form that the configuration hands to the router.

/// One `[[route]]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSpec {
    pub name: String,
    /// Names of the sources it listens to. Empty: all.
    pub sources: Vec<String>,
    /// MQTT topic filter with named captures, see [`crate::route::filter::Filter`].
    pub filter: String,
    /// Index into `Config::lanes`.
    pub lane: usize,
    /// Template of the Kafka topic, see [`crate::route::template::Template`].
    pub kafka_topic: String,
    /// Template of the partition key. `""`: a null key.
    pub key: String,
    /// Name and template of each configured header, in order.
    pub headers: Vec<(String, String)>,
    /// `None`: the time of arrival.
    pub timestamp: Option<TimestampSpec>,
    pub on_error: OnError,
}

/// Where in the payload a reading's own time stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimestampSpec {
    /// JSON pointer (RFC 6901). `""`: the whole payload.
    pub pointer: String,
    pub format: TimestampFormat,
}

/// How a time in a payload is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampFormat {
    Rfc3339,
    /// Since 1970, in seconds.
    Seconds,
    Millis,
    Micros,
    Nanos,
}

/// What becomes of a reading that matches a route which cannot make a record of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    DeadLetter,
    /// Asked for by name, and counted.
    Drop,
}

/// What becomes of a reading that matches no route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnmatchedSpec {
    DeadLetter { lane: usize },
    Drop,
    Route { kafka_topic: String, key: String, lane: usize },
}

/// What becomes of a reading whose Kafka name, made legal, is already used for another source name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Collisions {
    #[default]
    DeadLetter,
    /// Both share the Kafka topic; each such reading is counted.
    Merge,
}
