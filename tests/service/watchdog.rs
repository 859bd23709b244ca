//! The watchdog is fed while every stage turns, whatever is away, and no longer when one of them hangs.

use std::net::TcpListener;
use std::time::Duration;

use super::notify::Notify;
use crate::harness::gateway::{Builder, Gateway};
use crate::harness::jobs;
use crate::harness::mosquitto::{Mosquitto, Options};
use crate::serial::rig::Cable;

/// `WatchdogSec=` of these tests: a tick each half second, and as long for an answer before the log names who is late.
const INTERVAL: Duration = Duration::from_millis(1500);
const FED: &str = "WATCHDOG=1";

/// A gateway with a listener and nobody at the other ends.
fn offline() -> Builder {
    let kafka = format!("127.0.0.1:{}", jobs::free_port());
    let listener = format!("listen = \"127.0.0.1:{}\"", jobs::free_port());
    Gateway::builder().kafka(&kafka).lane("telemetry", "").table("[[source.listener]]", &listener).route(
        "#",
        "readings",
        "telemetry",
    )
}

fn serial_line(builder: Builder, port: &std::path::Path) -> Builder {
    builder.table("[[source.serial]]", &format!("name = \"line\"\nport = {port:?}"))
}

#[test]
fn idle_and_offline_are_not_stuck() {
    let dead_broker = jobs::free_port();
    let mut gateway = serial_line(offline().mqtt(dead_broker, None), "/dev/forebay-no-such-port".as_ref()).build();
    let notify = Notify::bind();
    notify.give_to(&mut gateway, Some(INTERVAL));
    gateway.start();
    notify.wait_for("READY=1");
    for _ in 0..6 {
        notify.wait_for(FED);
    }
    gateway.stop();
    notify.wait_for("STOPPING=1");
}

/// Both take the connection and say nothing: the hub has records with a producer, the session waits for its CONNACK.
#[test]
fn a_kafka_and_a_broker_that_hang_do_not_make_us_stuck() {
    let (kafka, broker) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = kafka.local_addr().unwrap().to_string();
    let mut gateway = Gateway::builder()
        .kafka(&address)
        .lane("telemetry", "")
        .mqtt(broker.local_addr().unwrap().port(), None)
        .route("#", "readings", "telemetry")
        .build();
    let notify = Notify::bind();
    notify.give_to(&mut gateway, Some(INTERVAL));
    gateway.start();
    kafka.accept().unwrap();
    broker.accept().unwrap();
    notify.drain();
    for _ in 0..6 {
        notify.wait_for(FED);
    }
    gateway.stop();
}

/// The gateway stands still at `fault`. The log names the stage, and systemd hears nothing any more.
fn hangs(mut gateway: Gateway, fault: &str, stage: &str) {
    let notify = Notify::bind();
    notify.give_to(&mut gateway, Some(INTERVAL));
    gateway.start_with_fault(fault);
    gateway.wait_for_fault(fault);
    gateway.wait_for_line(&format!("{stage} has not answered the watchdog"));
    notify.drain();
    // As long as systemd would wait before it kills.
    let heard = notify.next(INTERVAL * 2);
    assert_eq!(heard, None, "{stage} hangs and the watchdog is fed");
    gateway.kill9();
}

#[test]
fn a_stuck_hub_starves_the_watchdog() {
    hangs(offline().build(), "6-batch-read", "the hub");
}

#[test]
fn a_stuck_owner_thread_starves_the_watchdog() {
    hangs(offline().build(), "4-before-commit", "the spool's owner thread");
}

#[test]
fn a_stuck_listener_starves_the_watchdog() {
    hangs(offline().build(), "1-listener-hangs", "the source listener");
}

#[test]
fn a_stuck_session_with_a_broker_starves_the_watchdog() {
    let mosquitto = Mosquitto::start(&Options::default());
    let gateway = offline().mqtt(mosquitto.port(), mosquitto.login()).build();
    hangs(gateway, "1-connection-hangs", "the source plant");
}

#[test]
fn a_stuck_serial_line_starves_the_watchdog() {
    let dir = jobs::scratch("lines");
    let cable = Cable::plug(dir.path(), "line");
    hangs(serial_line(offline(), &cable.port()).build(), "1-line-hangs", "the source line");
}
