//! Which librdkafka properties may be set by hand. Pure: a table with a reason on every line.
//!
//! Everything not listed is passed on, if librdkafka knows it. What is listed would break a promise, or has a key of its own, and two places
//! for one setting would contradict each other.

/// Why a property is refused, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: &'static str,
    pub help: &'static str,
}

const REMOVE: &str = "remove it";

/// Name (a trailing `*` stands for any end), reason, way out.
const REFUSED: &[(&str, &str, &str)] = &[
    ("acks", "a record counts as delivered only when all in-sync replicas have it", REMOVE),
    ("request.required.acks", "a record counts as delivered only when all in-sync replicas have it", REMOVE),
    ("enable.idempotence", "without it a retry may double or reorder records", REMOVE),
    ("enable.gapless.guarantee", "the gateway sets it: without it a record may overtake one that was refused", REMOVE),
    (
        "message.timeout.ms",
        "a record must not give up: it waits in the spool until Kafka has it",
        "limit a lane by `max_age` instead",
    ),
    (
        "delivery.timeout.ms",
        "a record must not give up: it waits in the spool until Kafka has it",
        "limit a lane by `max_age` instead",
    ),
    ("message.send.max.retries", "a record must not give up: it waits in the spool until Kafka has it", REMOVE),
    ("retries", "a record must not give up: it waits in the spool until Kafka has it", REMOVE),
    (
        "allow.auto.create.topics",
        "a mistyped topic would be created with one replica",
        "declare it as [[topic]] and run `forebay topics apply`",
    ),
    ("transactional.id", "it belongs to the delivery mode of a lane", REMOVE),
    ("transaction.timeout.ms", "it belongs to the delivery mode of a lane", REMOVE),
    ("queue.buffering.max.ms", "it has a key of its own", "set `linger` of this [kafka.NAME]"),
    ("linger.ms", "it has a key of its own", "set `linger` of this [kafka.NAME]"),
    (
        "queue.buffering.*",
        "the producer's memory is a part of the one budget",
        "set [memory] max, or [memory] producer",
    ),
    ("queuing.strategy", "a last-in-first-out queue reorders records", REMOVE),
    ("bootstrap.servers", "it has a key of its own", "set `bootstrap_servers` of this [kafka.NAME]"),
    ("metadata.broker.list", "it has a key of its own", "set `bootstrap_servers` of this [kafka.NAME]"),
    ("client.id", "it has a key of its own", "set `client_id` of this [kafka.NAME]"),
    ("compression.codec", "it has a key of its own", "set `compression` of this [kafka.NAME]"),
    ("compression.type", "it has a key of its own", "set `compression` of this [kafka.NAME]"),
    ("partitioner", "another partitioner sends a key elsewhere than Java clients do", REMOVE),
    (
        "security.protocol",
        "it follows from the tables [kafka.NAME.tls] and [kafka.NAME.sasl]",
        "add or remove these tables",
    ),
    (
        "enable.ssl.certificate.verification",
        "a connection that believes any certificate protects nothing",
        "give the broker's CA by `ca_file` in [kafka.NAME.tls]",
    ),
    (
        "ssl.endpoint.identification.algorithm",
        "a connection that believes any certificate protects nothing",
        "have the brokers' certificates name the hosts of `advertised.listeners`",
    ),
    ("ssl.ca.*", "it has a key of its own", "set `ca_file` in [kafka.NAME.tls]"),
    ("ssl.certificate.*", "it has a key of its own", "set `cert_file` in [kafka.NAME.tls]"),
    ("ssl.key.*", "it has a key of its own", "set `key_file` in [kafka.NAME.tls]"),
    ("ssl.keystore.*", "certificates are given as PEM files", "set `cert_file` and `key_file` in [kafka.NAME.tls]"),
    ("sasl.oauthbearer.*", "the token is read from a file", "set `token_file` in [kafka.NAME.sasl]"),
    (
        "enable.sasl.oauthbearer.unsecure.jwt",
        "an unsigned token proves nothing",
        "set `token_file` in [kafka.NAME.sasl]",
    ),
    ("sasl.*", "it has a key of its own", "set `mechanism`, `user` and `password_file` in [kafka.NAME.sasl]"),
    ("delivery.report.only.error", "the spool is settled by the reports of success", REMOVE),
    ("enable.background.poll", "delivery reports are polled by the forwarder", REMOVE),
    ("plugin.library.paths", "foreign code must not be loaded into the gateway", REMOVE),
    ("test.mock.*", "records would go to a broker that is not there", REMOVE),
    ("message.copy.max.bytes", "the memory budget counts on copies", REMOVE),
];

const IN_FLIGHT: [&str; 2] = ["max.in.flight.requests.per.connection", "max.in.flight"];

/// An idempotent producer keeps its order with at most this many requests on the way (KIP-98).
const IN_FLIGHT_MAX: u32 = 5;

/// `None`: the property may be set to this value.
pub fn refusal(name: &str, value: &str) -> Option<Refusal> {
    let name = name.trim().to_ascii_lowercase();
    let name = name.strip_prefix("topic.").unwrap_or(&name);
    if IN_FLIGHT.contains(&name) {
        let kept = value.trim().parse::<u32>().is_ok_and(|n| (1..=IN_FLIGHT_MAX).contains(&n));
        let reason = "the producer keeps the order of records only with 1 to 5 requests on the way";
        return (!kept).then_some(Refusal { reason, help: "choose 1 to 5, or remove it" });
    }
    let matches = |pattern: &str| pattern.strip_suffix('*').map_or(name == pattern, |start| name.starts_with(start));
    REFUSED.iter().find(|(pattern, ..)| matches(pattern)).map(|&(_, reason, help)| Refusal { reason, help })
}

/// Whether the value of an allowed property must not be shown or hashed.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "secret", "token", "jaas", ".pem"].iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_a_promise_is_refused() {
        for (name, value) in [
            ("acks", "1"),
            ("enable.idempotence", "false"),
            ("message.timeout.ms", "30000"),
            ("allow.auto.create.topics", "true"),
            ("max.in.flight.requests.per.connection", "6"),
            ("max.in.flight", "0"),
            ("transactional.id", "x"),
            ("queue.buffering.max.messages", "10"),
            ("bootstrap.servers", "elsewhere:9092"),
            ("ssl.ca.location", "/x"),
            ("sasl.password", "x"),
            ("enable.ssl.certificate.verification", "false"),
            ("topic.acks", "1"),
            ("ACKS", "1"),
        ] {
            assert!(refusal(name, value).is_some(), "{name}");
        }
    }

    #[test]
    fn the_rest_is_passed_on() {
        for (name, value) in [
            ("socket.keepalive.enable", "true"),
            ("max.in.flight.requests.per.connection", "5"),
            ("message.max.bytes", "2000000"),
            ("ssl.cipher.suites", "x"),
            ("batch.num.messages", "500"),
        ] {
            assert_eq!(refusal(name, value), None, "{name}");
        }
    }

    #[test]
    fn the_nearer_rule_gives_the_reason() {
        assert_eq!(refusal("queue.buffering.max.ms", "5").map(|r| r.help), Some("set `linger` of this [kafka.NAME]"));
        let buffering = refusal("queue.buffering.max.kbytes", "5").map(|r| r.help);
        assert_eq!(buffering, Some("set [memory] max, or [memory] producer"));
    }
}
