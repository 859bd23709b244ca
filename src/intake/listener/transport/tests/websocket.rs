//! WebSocket, with somebody else's client.

use std::net::TcpStream as StdStream;

use tokio_tungstenite::tungstenite::client::{IntoClientRequest, client};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Bytes, Error, HandshakeError, Message, WebSocket as Client};

use super::*;

fn open(address: SocketAddr, subprotocol: Option<&'static str>) -> Result<Client<StdStream>, Box<Error>> {
    let mut request = format!("ws://{address}/mqtt?any=path").into_client_request().unwrap();
    if let Some(name) = subprotocol {
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(name));
    }
    let stream = StdStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    match client(request, stream) {
        Ok((client, response)) => {
            assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mqtt");
            Ok(client)
        }
        Err(HandshakeError::Failure(error)) => Err(Box::new(error)),
        Err(HandshakeError::Interrupted(_)) => panic!("the server did not answer"),
    }
}

/// Runs a client that blocks beside a server that echoes in pieces.
async fn with_echo<T: Send + 'static>(
    running: &mut Running,
    play: impl FnOnce(Client<StdStream>) -> T + Send + 'static,
) -> (T, std::io::Result<()>) {
    let address = running.address().await;
    let client = tokio::task::spawn_blocking(move || play(open(address, Some("mqttv3.1, mqtt")).unwrap()));
    let (stream, peer, _admitted) = running.next().await;
    assert!(peer.endpoint.starts_with("ws "));
    let served = soon("the end", echo(stream, 5_000)).await;
    (soon("the client", client).await.unwrap(), served)
}

/// All bytes of the binary messages that come, until there are `n`.
fn read_bytes(client: &mut Client<StdStream>, n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < n {
        match client.read().unwrap() {
            Message::Binary(data) => bytes.extend_from_slice(&data),
            other => panic!("{other:?}"),
        }
    }
    bytes
}

#[tokio::test]
async fn bytes_pass_whatever_the_frames() {
    let mut running = Running::start(listener(endpoint(false, true), None));
    let play = |mut client: Client<StdStream>| {
        let message: Vec<u8> = (0..30_000_u32).flat_map(u32::to_le_bytes).collect();
        let writer = message.clone();
        client.send(Message::Binary(Bytes::from(writer[..70_000].to_vec()))).unwrap();
        // One message in three frames, a ping between them.
        let pieces = [(Data::Binary, false), (Data::Continue, false), (Data::Continue, true)];
        for (piece, (code, last)) in writer[70_000..].chunks(20_000).zip(pieces) {
            let frame = Frame::message(Bytes::from(piece.to_vec()), OpCode::Data(code), last);
            client.send(Message::Frame(frame)).unwrap();
        }
        let echoed = read_bytes(&mut client, message.len());
        assert!(echoed == message);
        client.send(Message::Ping(Bytes::from_static(b"are you there"))).unwrap();
        assert_eq!(client.read().unwrap(), Message::Pong(Bytes::from_static(b"are you there")));
        client.close(None).unwrap();
        loop {
            match client.read() {
                Err(Error::ConnectionClosed) => break,
                Err(error) => panic!("{error}"),
                Ok(_) => {}
            }
        }
    };
    let ((), served) = with_echo(&mut running, play).await;
    served.unwrap();
}

#[tokio::test]
async fn a_text_frame_ends_the_connection() {
    let mut running = Running::start(listener(endpoint(false, true), None));
    let play = |mut client: Client<StdStream>| {
        client.send(Message::text("hello")).unwrap();
        match client.read().unwrap() {
            Message::Close(Some(frame)) => u16::from(frame.code),
            other => panic!("{other:?}"),
        }
    };
    let (code, served) = with_echo(&mut running, play).await;
    assert_eq!(code, 1003);
    assert_eq!(served.unwrap_err().kind(), std::io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn the_server_says_goodbye() {
    let mut running = Running::start(listener(endpoint(false, true), None));
    let address = running.address().await;
    let client = tokio::task::spawn_blocking(move || open(address, Some("mqtt")).unwrap().read().unwrap());
    let (mut stream, ..) = running.next().await;
    stream.shutdown().await.unwrap();
    match soon("the client", client).await.unwrap() {
        Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1000),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn without_the_subprotocol_nobody_comes_in() {
    let mut running = Running::start(listener(endpoint(false, true), None));
    let address = running.address().await;
    for (n, subprotocol) in [None, Some("mqttv3.1"), Some("chat, mqtt5")].into_iter().enumerate() {
        let opened = tokio::task::spawn_blocking(move || open(address, subprotocol).map(drop)).await.unwrap();
        match *opened.unwrap_err() {
            Error::Http(response) => assert_eq!(response.status(), 400),
            other => panic!("{other:?}"),
        }
        running.counted(|counters| &counters.websocket_failed, n as u64 + 1).await;
    }
    assert!(running.connected.try_recv().is_err());
}

#[tokio::test]
async fn requests_that_are_none_too_long_or_too_slow_end() {
    let mut config = listener(endpoint(false, true), None);
    config.limits.connect_timeout = Duration::from_secs(5);
    let mut running = Running::start(config);
    let mut slow = running.connect().await;
    slow.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    for (n, request) in
        [b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0\r\n\r\n".to_vec(), vec![b'a'; 10_000]].into_iter().enumerate()
    {
        let mut client = running.connect().await;
        // What is refused early may be refused before all of it is written.
        let _ = client.write_all(&request).await;
        let mut answer = Vec::new();
        let _ = soon("the refusal", client.read_to_end(&mut answer)).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&answer));
        running.counted(|counters| &counters.websocket_failed, n as u64 + 1).await;
    }
    assert!(is_closed(slow).await);
    running.counted(|counters| &counters.websocket_timeouts, 1).await;
    assert!(running.connected.try_recv().is_err());
}

#[tokio::test]
async fn a_websocket_within_tls() {
    let authority = Authority::new();
    let mut running = Running::start(listener(endpoint(true, true), authority.server(true, true)));
    let mut client = super::tls::open(&mut running, &authority, "press-7").await;
    let request = "GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: mqtt\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let (stream, peer, _admitted) = running.next().await;
    assert!(peer.endpoint.starts_with("wss ") && peer.certificate.as_deref() == Some("press-7"));
    tokio::spawn(echo(stream, 100));
    let mut answer = vec![0; 200];
    let mut len = 0;
    while !answer[..len].ends_with(b"\r\n\r\n") {
        len += soon("the upgrade", client.read(&mut answer[len..])).await.unwrap();
    }
    assert!(String::from_utf8_lossy(&answer).contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    // A masked frame with two bytes, and the same without a mask back.
    client.write_all(&[0x82, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2]).await.unwrap();
    let mut frame = [0; 4];
    soon("the echo", client.read_exact(&mut frame)).await.unwrap();
    assert_eq!(frame, [0x82, 2, b'h', b'i']);
}
