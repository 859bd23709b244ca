//! What is legal but unwise: each warning as a person sees it.

use super::*;
use insta::assert_snapshot;

#[test]
fn the_least_configuration_has_no_warning() {
    assert_eq!(warnings(LEAST), "");
}

#[test]
fn order_is_not_kept() {
    assert_snapshot!(warnings_with(
        r#"
[[lane]]
name = "live"
order = "live-first"

[[route]]
filter = "other/#"
kafka_topic = "telemetry"
lane = "live"
"#
    ));
}

#[test]
fn subscriptions_that_promise_less() {
    let text = r#"host = "localhost"
subscriptions = [{ filter = "plant/#", qos = 2 }, { filter = "$share/gateways/other/#" }]"#;
    assert_snapshot!(warnings(&LEAST.replace("host = \"localhost\"", text)));
}

#[test]
fn keys_and_topics() {
    assert_snapshot!(warnings_with(
        r#"
[[route]]
filter = "a/{device}"
kafka_topic = "plant.{device}"
key = "constant"

[[route]]
filter = "b"
kafka_topic = "nobody.declared"
key = ""
"#
    ));
}

#[test]
fn a_window_too_small_for_the_delay() {
    let text = "host = \"localhost\"\nreceive_maximum = 10";
    let text = LEAST.replace("host = \"localhost\"", text);
    assert_snapshot!(warnings(&format!("{text}\n[spool]\nack_delay = \"500ms\"\n")));
}

#[test]
fn passwords_in_the_open() {
    let text = r#"host = "broker.plant"
user = "gateway"
password = "hunter2""#;
    let text = warnings(&LEAST.replace("host = \"localhost\"", text));
    assert!(!text.contains("hunter2"), "{text}");
    assert_snapshot!(text);
}

#[test]
fn settings_without_effect_or_with_a_price() {
    assert_snapshot!(warnings_with(
        r#"
[[lane]]
name = "history"
keep = "24h"
when = "offline"
max_age = "10s"
max_bytes = "2GiB"

[unmatched]
to = "drop"

[http]
listen = "0.0.0.0:9464"

[[topic]]
name = "a.b"
replication_factor = 2
min_insync_replicas = 2
properties = { "unclean.leader.election.enable" = true }
[[topic]]
name = "a_b"
"#
    ));
}
