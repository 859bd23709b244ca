//! A reload checks first. With a good configuration the gateway goes on in the same process, and nothing is lost on the
//! way; with a wrong one it goes on as it is.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpStream;

use super::notify::Notify;
use crate::harness::gateway::Gateway;
use crate::harness::jobs;
use crate::harness::rig::Rig;

/// Appends to the gateway's configuration.
fn add(gateway: &Gateway, lines: &str) {
    let mut file = File::options().append(true).open(gateway.config()).unwrap();
    file.write_all(lines.as_bytes()).unwrap();
}

fn listener(port: u16) -> String {
    format!("\n[[source.listener]]\nlisten = \"127.0.0.1:{port}\"\n")
}

fn is_listening(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[test]
fn a_new_listener_in_the_middle_of_the_load() {
    let mut rig = Rig::builder().build();
    let notify = Notify::bind();
    notify.give_to(&mut rig.gateway, None);
    rig.gateway.start();
    notify.wait_for("READY=1");
    let (pid, port) = (rig.gateway.pid(), jobs::free_port());
    let load = rig.endless_load(1_000);
    for _ in 0..3 {
        rig.wait_accepted(rig.accepted() + 500);
        let said = rig.gateway.command(&["reload"]).text();
        assert!(said.starts_with("at work: config "), "{said}");
        notify.wait_for("RELOADING=1");
        notify.wait_for("READY=1");
    }
    add(&rig.gateway, &listener(port));
    assert!(!is_listening(port));
    assert_eq!(rig.gateway.command(&["reload"]).code, Some(0));
    jobs::wait_until("the new listener listens", || is_listening(port).then_some(()));
    assert_eq!(rig.gateway.pid(), pid);
    rig.saw("reload", 4);
    rig.wait_accepted(rig.accepted() + 500);
    rig.close_books(&load.stop());
}

fn offline() -> Gateway {
    let kafka = format!("127.0.0.1:{}", jobs::free_port());
    Gateway::builder()
        .kafka(&kafka)
        .table("[[source.listener]]", &format!("listen = \"127.0.0.1:{}\"", jobs::free_port()))
        .route("#", "readings", "default")
        .build()
}

#[test]
fn a_wrong_configuration_changes_nothing() {
    let mut gateway = offline();
    gateway.start();
    let good = fs::read_to_string(gateway.config()).unwrap();
    add(&gateway, "\n[spool]\nmax_byte = \"1GiB\"\n");
    let refused = gateway.command(&["reload"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(
        refused.err.contains("max_byte") && refused.err.contains("the present configuration goes on"),
        "{refused:?}"
    );
    gateway.hang_up();
    gateway.wait_for_line("the new configuration is wrong; the present one goes on");
    // Not readable at all: the socket is found nevertheless, where it always is.
    let run_dir = gateway.state_dir().with_file_name("run");
    fs::write(gateway.config(), format!("[gateway]\nruntime_dir = {run_dir:?}\n[kafka\n")).unwrap();
    assert_eq!(gateway.command(&["reload"]).code, Some(78));
    fs::write(gateway.config(), good).unwrap();
    gateway.hang_up();
    gateway.wait_for_line("going on with a new configuration");
    gateway.wait_ready();
    gateway.stop();
}

#[test]
fn one_that_cannot_be_started_gives_way_to_the_former() {
    let mut gateway = offline();
    gateway.start();
    let good = fs::read_to_string(gateway.config()).unwrap();
    let state = gateway.state_dir();
    // A folder below a file.
    let nowhere = gateway.config().join("state");
    fs::write(gateway.config(), good.replace(&format!("{state:?}"), &format!("{nowhere:?}"))).unwrap();
    let refused = gateway.command(&["reload"]);
    assert_eq!(refused.code, Some(69), "{refused:?}");
    assert!(refused.err.contains("the former configuration goes on"), "{refused:?}");
    gateway.wait_ready();
    fs::write(gateway.config(), good).unwrap();
    assert_eq!(gateway.command(&["reload"]).code, Some(0));
    gateway.stop();
}

#[test]
fn nobody_to_ask_is_said() {
    let gateway = offline();
    let refused = gateway.command(&["reload"]);
    assert_eq!(refused.code, Some(69), "{refused:?}");
    assert!(refused.err.contains("does it run?"), "{refused:?}");
}
