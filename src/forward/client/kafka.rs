//! Client configurations for librdkafka: producers, the admin client and replay connect in the same way.

use std::path::{Path, PathBuf};

use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;
use rdkafka::types::RDKafkaConfRes;

use super::oauth;
use crate::config::{Compression, Kafka, Sasl};

/// Records with one producer at most, whatever their size: librdkafka's own bookkeeping is a few hundred bytes each.
pub const IN_FLIGHT_MAX: usize = 20_000;

/// What connects to a cluster has in common, for producers and the admin client alike.
pub fn base_config(kafka: &Kafka) -> ClientConfig {
    let mut c = ClientConfig::new();
    c.set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.ms", "250")
        .set("reconnect.backoff.max.ms", "10000");
    // What the configuration may set by hand goes over defaults; the lines below have the last word.
    for (key, value) in &kafka.properties {
        c.set(key, value.expose());
    }
    c.set("bootstrap.servers", &kafka.bootstrap_servers)
        .set("client.id", &kafka.client_id)
        .set("allow.auto.create.topics", "false");
    security(&mut c, kafka);
    c
}

fn security(c: &mut ClientConfig, kafka: &Kafka) {
    let (tls, sasl) = (&kafka.security.tls, &kafka.security.sasl);
    let protocol = match (tls, sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    c.set("security.protocol", protocol);
    if let Some(tls) = tls {
        let files = [
            ("ssl.ca.location", &tls.ca_file),
            ("ssl.certificate.location", &tls.cert_file),
            ("ssl.key.location", &tls.key_file),
        ];
        for (key, path) in files {
            if let Some(path) = path {
                c.set(key, path.to_string_lossy());
            }
        }
    }
    match sasl {
        Some(Sasl::Plain { user, password }) => {
            c.set("sasl.mechanism", "PLAIN").set("sasl.username", user).set("sasl.password", password.expose());
        }
        Some(Sasl::Scram { mechanism, user, password }) => {
            c.set("sasl.mechanism", *mechanism).set("sasl.username", user).set("sasl.password", password.expose());
        }
        Some(Sasl::OauthBearer { .. }) => {
            c.set("sasl.mechanism", "OAUTHBEARER");
        }
        None => {}
    }
}

/// The promises' half of the configuration: `check` refuses properties that would change it.
pub fn producer_config(kafka: &Kafka, bytes_max: u64, careful: bool) -> ClientConfig {
    let mut c = base_config(kafka);
    c.set("enable.idempotence", "true")
        .set("acks", "all")
        // A refused batch stops the producer instead of letting the next ones overtake it: what was behind it is
        // refused by the broker too (a gap in the sequence), and everything goes again in order with a new producer.
        .set("enable.gapless.guarantee", "true")
        // Infinite: the spool decides what leaves, never a clock in the client.
        .set("message.timeout.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", kafka.linger.as_millis().to_string())
        .set("queue.buffering.max.kbytes", (bytes_max / 1024).max(64).to_string())
        .set("queue.buffering.max.messages", (IN_FLIGHT_MAX + 1).to_string())
        .set("topic.metadata.propagation.max.ms", "3000")
        .set("statistics.interval.ms", "0")
        .set(
            "compression.codec",
            match kafka.compression {
                Compression::None => "none",
                Compression::Lz4 => "lz4",
                Compression::Zstd => "zstd",
            },
        );
    if careful {
        c.set("batch.num.messages", "1");
    }
    c.set_log_level(RDKafkaLogLevel::Warning);
    c
}

/// Whether librdkafka knows the property and takes the value. Other properties are not looked at.
///
/// # Errors
/// As a fragment; it may quote the value.
pub fn try_property(name: &str, value: &str) -> Result<(), String> {
    let mut alone = ClientConfig::new();
    alone.set(name, value);
    alone.create_native_config().map(|_| ()).map_err(|error| in_words(&error))
}

/// Makes a producer as the gateway will, but one that knows no broker: finds properties that contradict each other and
/// certificates that cannot be read, without a connection.
///
/// # Errors
/// librdkafka's words.
pub fn try_producer(kafka: &Kafka) -> Result<(), String> {
    let mut c = producer_config(kafka, 0, false);
    c.remove("bootstrap.servers");
    // Its log would only say that there are no brokers.
    c.set_log_level(RDKafkaLogLevel::Emerg);
    c.create::<BaseProducer>().map(|_| ()).map_err(|error| in_words(&error))
}

/// An error at the making of a client, without the value that caused it: that may be a password.
pub fn in_words(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..) => {
            "librdkafka has no such property".to_owned()
        }
        KafkaError::ClientConfig(_, why, ..) | KafkaError::ClientCreation(why) => why.trim_end().to_owned(),
        other => other.to_string(),
    }
}

/// Where an OAUTHBEARER cluster's token lies.
pub fn token_file(kafka: &Kafka) -> Option<PathBuf> {
    match &kafka.security.sasl {
        Some(Sasl::OauthBearer { token_file }) => Some(token_file.clone()),
        _ => None,
    }
}

/// Reads the token anew: whatever renews it replaces the file.
///
/// # Errors
/// In words, without the token: it cannot be read, is none, or has expired.
pub fn token(file: Option<&Path>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
    let path = file.ok_or("find a token: no token_file is configured")?;
    let text = std::fs::read_to_string(path).map_err(|e| format!("read {}: {e}", path.display()))?;
    let token = oauth::token(text.trim())?;
    if token.expires_ms <= crate::clock::wall_ms() {
        return Err(format!("use the token of {}: it has expired", path.display()).into());
    }
    Ok(OAuthToken { token: token.token, principal_name: token.principal, lifetime_ms: token.expires_ms })
}
