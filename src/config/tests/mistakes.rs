//! One test for each kind of mistake: its message is a snapshot, because the message is the product.

use super::*;
use insta::assert_snapshot;

#[test]
fn empty_file() {
    assert_snapshot!(report(""));
}

#[test]
fn all_problems_at_once() {
    assert_snapshot!(report(
        r#"[spool]
ack_delay = 5
max_size = "1GiB"

[kafka.main]
bootstrap_servers = "localhost"
compression = "gzip"

[[source.mqtt]]
host = "tcp://localhost"
port = 70000

[[route]]
filter = "plant/#/temp"
kafka_topic = "telemetry"
lane = "alarm"
"#
    ));
}

#[test]
fn syntax_errors_in_several_lines() {
    assert_snapshot!(report("[spool]\nack_delay = \n\n[http\nlisten = \"off\"\n\n[log]\nlevl = \"info\"\n"));
}

#[test]
fn a_string_without_quotes() {
    assert_snapshot!(report("[log]\nlevel = info\n"));
}

#[test]
fn keys_given_twice() {
    assert_snapshot!(report_with("\n[log]\nlevel = \"info\"\nlevel = \"warn\"\n"));
}

#[test]
fn a_table_given_twice() {
    assert_snapshot!(report_with("\n[log]\nlevel = \"info\"\n[log]\nformat = \"text\"\n"));
}

#[test]
fn unknown_keys() {
    assert_snapshot!(report_with("\n[spoool]\n[log]\nlevl = \"info\"\ncolour = true\n[[source.serial]]\nport = 1\n"));
}

#[test]
fn wrong_types() {
    assert_snapshot!(report_with(
        r#"
[events]
enabled = "yes"
topic = 5
[topic_policy]
max_topics = "ten"
allow = "plant.*"
[log]
level = ["info"]
[http]
listen = 9464
[lane]
name = "alarms"
"#
    ));
}

#[test]
fn a_section_that_is_a_value() {
    assert_snapshot!(report("spool = 5\nkafka = \"localhost:9092\"\nroute = {}\n[source]\nmqtt = 1\n"));
}

#[test]
fn units() {
    assert_snapshot!(report_with(
        r#"
[spool]
ack_delay = "5"
max_bytes = 1073741824
wear_budget_per_day = "5 min"
reserve_bytes = "64mib"
[events]
heartbeat = "1.5s"
[[lane]]
name = "slow"
drain_rate = "1MiB"
"#
    ));
}

#[test]
fn bounds() {
    assert_snapshot!(report_with(
        r#"
[spool]
ack_delay = "2s"
[memory]
max = "1MiB"
[topic_policy]
max_topics = 0
[http]
listen = "localhost:9464"
[gateway]
name = "press shop"
state_dir = "var/forebay"
[[source.mqtt]]
name = "second"
host = "localhost"
port = 0
"#
    ));
}

#[test]
fn unknown_words() {
    assert_snapshot!(report_with("\n[[lane]]\nname = \"a\"\nwhen_full = \"drop\"\norder = \"lifo\"\n"));
}

#[test]
fn references_that_lead_nowhere() {
    assert_snapshot!(report_with(
        r#"
[[route]]
filter = "a/{b}"
kafka_topic = "telemetry"
lane = "defualt"
source = ["mqqt", "opcua"]

[[topic]]
name = "other"
kafka = "cloud"
"#
    ));
}

#[test]
fn filters_and_templates() {
    assert_snapshot!(report_with(
        r#"
[[route]]
filter = "plant/#/temp"
kafka_topic = "telemetry"

[[route]]
filter = "plant/{line}/x"
kafka_topic = "plant {line}"
key = "{devcie}"
headers = { line = "{line", "forebay-id" = "x" }
timestamp = { pointer = "ts", format = "iso" }
"#
    ));
}

#[test]
fn missing_environment_variable() {
    assert_snapshot!(report_with("\n[gateway]\nname = \"plant-${LINE_NAME}\"\n[log]\nlevel = \"${}\"\n"));
}

#[test]
fn missing_files() {
    assert_snapshot!(report(
        r#"[kafka.main]
bootstrap_servers = "k:9093"
[kafka.main.tls]
ca_file = "nowhere/ca.pem"
cert_file = "/nowhere/gateway.pem"
[kafka.main.sasl]
mechanism = "PLAIN"
user = "gateway"
password_file = "/run/secrets/kafka"
[[source.mqtt]]
host = "localhost"
password = "a"
password_file = "b"
[[route]]
filter = "a"
kafka_topic = "a"
"#
    ));
}

#[test]
fn what_the_kafka_client_does_not_know() {
    assert_snapshot!(report_with(
        r#"
[kafka.main.tls]
server_name = "kafka.example"

[kafka.main.properties]
"socket.keepalive.enabled" = true
"Socket.Timeout.Ms" = 1000
"socket.timeout.ms" = 1
"broker.address.family" = "v5"
"ssl.cipher.suites" = "HIGH"
"https.ca.pem" = "hunter2"
"#
    ));
}

#[test]
fn sasl_without_what_it_needs() {
    assert_snapshot!(report(
        r#"[kafka.a]
bootstrap_servers = "k:9093"
sasl = { mechanism = "PLAIN" }
[kafka.b]
bootstrap_servers = "k:0,:1,https://x:1"
sasl = { mechanism = "OAUTHBEARER" }
[kafka.c]
sasl = {}
[[source.mqtt]]
host = "localhost"
[[route]]
filter = "a"
kafka_topic = "a"
"#
    ));
}

#[test]
fn refused_properties() {
    assert_snapshot!(report_with(
        r#"
[kafka.main.properties]
acks = 1
"enable.idempotence" = false
"message.timeout.ms" = 30000
"allow.auto.create.topics" = true
"max.in.flight.requests.per.connection" = 6
"transactional.id" = "x"
"queue.buffering.max.kbytes" = 100
"ssl.ca.location" = "/etc/ca.pem"
"sasl.password" = "hunter2"
"enable.ssl.certificate.verification" = false
"socket.keepalive.enable" = true
socket.timeout.ms = 100
"#
    ));
}

#[test]
fn memory_that_does_not_fit() {
    assert_snapshot!(report_with("\n[memory]\nmax = \"16MiB\"\nproducer = \"8MiB\"\n"));
}

#[test]
fn packets_that_do_not_fit() {
    assert_snapshot!(report(
        &LEAST.replace("host = \"localhost\"", "host = \"localhost\"\npacket_size_max = \"7MiB\"")
    ));
}

#[test]
fn lanes_that_are_too_small_or_contradict_themselves() {
    assert_snapshot!(report_with(
        r#"
[[lane]]
name = "small"
max_bytes = "1MiB"
max_records = 100

[[lane]]
name = "lossy"
delivery = "at-most-once"
keep = "24h"

[[lane]]
name = "lossy"
grace = "1h"

[[lane]]
priority = 5

[[lane]]
name = "events"
priority = 3
delivery = "at-most-once"
when_full = "drop-newest"
"#
    ));
}

#[test]
fn several_clusters_need_names() {
    assert_snapshot!(report_with("\n[kafka.cloud]\nbootstrap_servers = \"c:9092\"\n[[lane]]\nname = \"a\"\n"));
}

#[test]
fn doubles() {
    assert_snapshot!(report_with(
        r#"
[[topic]]
name = "telemetry"
min_insync_replicas = 2
[[source.mqtt]]
name = "x"
host = "a"
client_id = "same"
[[source.mqtt]]
name = "x"
host = "a"
client_id = "same"
[[route]]
name = "r"
filter = "a"
kafka_topic = "a"
[[route]]
name = "r"
filter = "$share/g/a"
kafka_topic = ".."
"#
    ));
}

#[test]
fn tabs_and_line_ends_keep_the_caret_in_place() {
    assert_snapshot!(report("[log]\r\n\tlevel\t=\t\"loud\"\r\n"));
}

#[test]
fn secrets_are_masked_in_the_quoted_line() {
    let text = report_with("\n[kafka.main.sasl]\nmechanism = \"PLAIN\"\nuser = 5\npassword = \"hunter2\" x\n");
    assert!(!text.contains("hunter2"), "{text}");
    let text = report_with("\n[kafka.main]\nsasl = { user = 5, password = \"hun\\\"ter2\", mechanism = \"none\" }\n");
    assert!(!text.contains("ter2"), "{text}");
    let text = report_with("\n[kafka.main.properties]\n\"sasl.password\" = 'hunter2'\n");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn garbage_gives_a_bounded_report() {
    let garbage: String = (0..20_000).map(|n| format!("k{n} = 1\n")).collect();
    let problems = parse(&garbage).unwrap_err();
    assert_eq!(problems.list.len(), 100);
    assert!(problems.omitted > 19_000);
    assert!(problems.to_string().len() < 100_000);
}

#[test]
fn unknown_table_for_unmatched() {
    assert_snapshot!(report_with("\n[unmatched]\nto = \"route\"\n"));
    assert_snapshot!(report_with("\n[unmatched]\nkafka_topic = \"other\"\n"));
}
