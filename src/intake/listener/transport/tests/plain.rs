//! TCP and Unix sockets, addresses that cannot be bound, and limits.

use std::os::unix::fs::PermissionsExt;

use tokio::net::{TcpListener, UnixStream};

use super::*;

#[tokio::test]
async fn bytes_pass_and_a_place_is_free_when_its_guard_goes() {
    let mut running = Running::start(listener(endpoint(false, false), None));
    let mut client = running.connect().await;
    let (stream, peer, admitted) = running.next().await;
    assert!(peer.address.unwrap().is_loopback() && peer.anonymous && peer.certificate.is_none());
    assert!(peer.endpoint.starts_with("mqtt 127.0.0.1:"));
    let echo = tokio::spawn(echo(stream, 7));
    client.write_all(b"hello, gateway").await.unwrap();
    let mut answer = [0; 14];
    soon("the echo", client.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"hello, gateway");
    drop(client);
    soon("the end", echo).await.unwrap().unwrap();
    assert_eq!(running.gate.connections(), 1);
    drop(admitted);
    assert_eq!(running.gate.connections(), 0);
    running.stop().await;
}

#[tokio::test]
async fn one_too_many_is_closed_and_counted() {
    let mut config = listener(endpoint(false, false), None);
    config.limits.connections = 2;
    let mut running = Running::start(config);
    let mut kept = Vec::new();
    for _ in 0..2 {
        kept.push((running.connect().await, running.next().await));
    }
    assert!(is_closed(running.connect().await).await);
    running.counted(|counters| &counters.refused_full, 1).await;
    kept.pop();
    let _client = running.connect().await;
    running.next().await;
}

#[tokio::test]
async fn an_address_in_use_is_said_and_tried_again() {
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = other.local_addr().unwrap();
    let taken = Endpoint { address: Address::Tcp(address), ..endpoint(false, false) };
    let mut running = Running::start(listener(taken, None));
    let reason = running.trouble().await;
    assert!(reason.starts_with(&format!("failed to listen at mqtt {address}")), "{reason}");
    drop(other);
    assert_eq!(running.address().await, address);
    let _client = running.connect().await;
    running.next().await;
    assert!(running.events.try_recv().is_err(), "said more than once");
}

#[tokio::test]
async fn a_unix_socket_takes_the_place_of_a_stale_one_and_of_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mqtt.sock");
    // What a killed gateway leaves: a file that nobody listens at.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let unix = Endpoint { address: Address::Unix(path.clone()), ..endpoint(false, false) };
    let mut running = Running::start(listener(unix.clone(), None));
    running.counted(|counters| &counters.endpoints_bound, 1).await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let mut client = UnixStream::connect(&path).await.unwrap();
    let (stream, peer, _admitted) = running.next().await;
    assert!(peer.address.is_none());
    tokio::spawn(echo(stream, 100));
    client.write_all(b"x").await.unwrap();
    assert_eq!(soon("the echo", client.read_u8()).await.unwrap(), b'x');

    let mut second = Running::start(listener(unix, None));
    assert!(second.trouble().await.contains("unix "));
    UnixStream::connect(&path).await.unwrap();
    running.next().await;
    second.stop().await;
    running.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    fs::write(&path, "text").unwrap();
    let unix = Endpoint { address: Address::Unix(path.clone()), ..endpoint(false, false) };
    let mut running = Running::start(listener(unix, None));
    assert!(running.trouble().await.contains("no socket"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "text");
}

#[test]
fn an_idle_connection_is_small() {
    // Of ten thousand, each byte counts: what is large is boxed, and a plain socket has no buffer at all.
    assert!(size_of::<Stream>() <= 48, "{}", size_of::<Stream>());
    assert!(size_of::<super::super::websocket::WebSocket<Stream>>() <= 512);
}
