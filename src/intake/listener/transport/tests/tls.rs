//! TLS: handshakes that hang, certificates of clients, certificates renewed while running.

use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;

fn connector(authority: &Authority, identity: Option<(rcgen::Certificate, KeyPair)>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(authority.issuer.der().to_vec())).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
            builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    TlsConnector::from(Arc::new(config))
}

async fn shake_hands(connector: &TlsConnector, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("gateway.plant").unwrap();
    soon("the handshake", connector.connect(name, stream)).await
}

/// A client that has shaken hands with a certificate of its own.
pub async fn open(running: &mut Running, authority: &Authority, name: &str) -> TlsStream<TcpStream> {
    let stream = running.connect().await;
    shake_hands(&connector(authority, Some(authority.issue(name))), stream).await.unwrap()
}

fn tls_listener(tls: Option<ServerTls>) -> Listener {
    listener(endpoint(true, false), tls)
}

#[tokio::test]
async fn a_handshake_that_hangs_holds_nobody_up_and_ends() {
    let authority = Authority::new();
    let mut config = tls_listener(authority.server(false, false));
    config.limits.connect_timeout = Duration::from_secs(5);
    let mut running = Running::start(config);
    let mut hanging = running.connect().await;
    // The beginning of a ClientHello, and then a byte now and then would not help it either.
    hanging.write_all(&[22, 3, 1]).await.unwrap();
    running.counted(|counters| &counters.accepted, 1).await;
    let stream = running.connect().await;
    let mut client = shake_hands(&connector(&authority, None), stream).await.unwrap();
    let (stream, peer, admitted) = running.next().await;
    assert!(peer.endpoint.starts_with("mqtts ") && peer.certificate.is_none());
    assert!(admitted.deadline > Instant::now());
    let echo = tokio::spawn(echo(stream, 1 << 20));
    let message = vec![7; 300_000];
    let (mut read, mut write) = tokio::io::split(&mut client);
    let mut answer = vec![0; message.len()];
    let (sent, got) = tokio::join!(write.write_all(&message), soon("the echo", read.read_exact(&mut answer)));
    sent.and(got.map(drop)).unwrap();
    assert!(answer == message);
    client.shutdown().await.unwrap();
    soon("the end", echo).await.unwrap().unwrap();
    assert!(is_closed(hanging).await);
    running.counted(|counters| &counters.tls_timeouts, 1).await;
}

#[tokio::test]
async fn a_certificate_says_who_it_is() {
    let authority = Authority::new();
    let mut running = Running::start(tls_listener(authority.server(true, false)));
    let stream = running.connect().await;
    let _client = shake_hands(&connector(&authority, Some(authority.issue("press-7"))), stream).await.unwrap();
    assert_eq!(running.next().await.1.certificate.as_deref(), Some("press-7"));
    let stream = running.connect().await;
    let _client = shake_hands(&connector(&authority, None), stream).await.unwrap();
    assert_eq!(running.next().await.1.certificate, None);
    // A certificate without a name is none to rely on.
    let stream = running.connect().await;
    let _client = shake_hands(&connector(&authority, Some(authority.issue(""))), stream).await;
    running.counted(|counters| &counters.tls_failed, 1).await;
    assert!(running.connected.try_recv().is_err());
}

#[tokio::test]
async fn without_a_certificate_of_the_right_issuer_nobody_comes_in_where_one_is_required() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut running = Running::start(tls_listener(authority.server(true, true)));
    for (n, identity) in [None, Some(stranger.issue("press-7"))].into_iter().enumerate() {
        let stream = running.connect().await;
        // In TLS 1.3 the client is done before the server has looked at its certificate.
        if let Ok(mut client) = shake_hands(&connector(&authority, identity), stream).await {
            let mut byte = [0];
            assert!(soon("the alert", client.read(&mut byte)).await.is_err());
        }
        running.counted(|counters| &counters.tls_failed, n as u64 + 1).await;
    }
    assert!(running.connected.try_recv().is_err());
    let stream = running.connect().await;
    let _client = shake_hands(&connector(&authority, Some(authority.issue("press-7"))), stream).await.unwrap();
    assert_eq!(running.next().await.1.certificate.as_deref(), Some("press-7"));
}

/// The certificate that the server shows now.
async fn shown(running: &mut Running, connector: &TlsConnector) -> Vec<u8> {
    let stream = running.connect().await;
    let client = shake_hands(connector, stream).await.unwrap();
    running.next().await;
    client.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn renewed_certificates_come_into_use_and_broken_ones_do_not() {
    let authority = Authority::new();
    let mut running = Running::start(tls_listener(authority.server(false, false)));
    let connector = connector(&authority, None);
    let first = shown(&mut running, &connector).await;
    assert!(running.counters.certificate_expiry_s.load(Ordering::Relaxed) > 1_735_689_600);

    fs::write(authority.path("server.pem"), "geheim, but no certificate").unwrap();
    let reason = running.trouble().await;
    assert!(
        reason.contains("server.pem") && reason.contains("former ones stay") && !reason.contains("geheim"),
        "{reason}"
    );
    assert!(shown(&mut running, &connector).await == first);

    authority.write("server", "gateway.plant");
    running.counted(|counters| &counters.certificate_reloads, 1).await;
    assert!(shown(&mut running, &connector).await != first);
    assert!(running.events.try_recv().is_err(), "said more than once");
}

#[tokio::test]
async fn without_a_usable_certificate_the_address_stays_closed_until_there_is_one() {
    let authority = Authority::new();
    let key = fs::read_to_string(authority.path("server.key")).unwrap();
    fs::remove_file(authority.path("server.key")).unwrap();
    let mut running = Running::start(tls_listener(authority.server(false, false)));
    assert!(running.trouble().await.contains("server.key"));
    assert!(running.bound.borrow().is_empty());
    replace(&authority.path("server.key"), &key);
    shown(&mut running, &connector(&authority, None)).await;
}
