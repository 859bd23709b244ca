//! TLS and mutual TLS against a broker of our own with certificates made on the spot.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::support::{Running, soon, source};
use crate::config::{MqttVersion, Tls};
use crate::intake::SourceEvent;

/// A certification authority and the files of one client.
struct Authority {
    dir: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        let (certificate, key) = issue(&issuer, "gateway");
        std::fs::write(dir.path().join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(dir.path().join("key.pem"), key.serialize_pem()).unwrap();
        Authority { dir, issuer }
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.dir.path().join(name))
    }

    /// A server named `broker.plant` that asks for a client certificate of this authority.
    fn server(&self) -> TlsAcceptor {
        let (certificate, key) = issue(&self.issuer, "broker.plant");
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.issuer.der().to_vec())).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn issue(issuer: &CertifiedIssuer<'static, KeyPair>, name: &str) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.signed_by(&key, issuer).unwrap(), key)
}

fn disconnected(event: &SourceEvent) -> Option<String> {
    match event {
        SourceEvent::Disconnected { reason } => Some(reason.clone()),
        _ => None,
    }
}

fn mutual(authority: &Authority) -> Tls {
    Tls {
        ca_file: authority.file("ca.pem"),
        cert_file: authority.file("cert.pem"),
        key_file: authority.file("key.pem"),
        server_name: Some("broker.plant".to_owned()),
    }
}

#[tokio::test]
async fn mutual_tls_with_own_files_and_another_server_name_works() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = source(listener.local_addr().unwrap().port(), MqttVersion::V311);
    config.tls = Some(mutual(&authority));
    let mut run = Running::start(config);
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = soon("the handshake", authority.server().accept(stream)).await.unwrap();
    let mut buffer = [0; 512];
    assert!(stream.read(&mut buffer).await.unwrap() > 0);
    stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
    let n = stream.read(&mut buffer).await.unwrap();
    assert_eq!(buffer[0], 0x82, "SUBSCRIBE in {n} bytes");
    stream.write_all(&[0x90, 3, buffer[2], buffer[3], 1]).await.unwrap();
    run.subscribed().await;
    // QoS 1, through TLS records and back.
    stream.write_all(b"\x32\x07\0\x01t\0\x09hi").await.unwrap();
    run.hub.has(1).await;
    run.hub.fire_all();
    let n = soon("the PUBACK", stream.read(&mut buffer)).await.unwrap();
    assert_eq!(buffer[..n], [0x40, 2, 0, 9]);
}

#[tokio::test]
async fn a_wrong_name_or_authority_is_refused_and_said() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let wrong_name = Tls { server_name: Some("other.plant".to_owned()), ..mutual(&authority) };
    let wrong_authority = Tls { ca_file: stranger.file("ca.pem"), ..mutual(&authority) };
    for (tls, expected) in
        [(wrong_name, "not valid for name"), (wrong_authority, "invalid peer certificate: BadSignature")]
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = source(listener.local_addr().unwrap().port(), MqttVersion::V5);
        config.tls = Some(tls);
        let mut run = Running::start(config);
        let (stream, _) = listener.accept().await.unwrap();
        assert!(authority.server().accept(stream).await.is_err());
        let reason = run.event("refusal", disconnected).await;
        assert!(reason.contains(expected), "{reason}");
    }
}

#[tokio::test]
async fn a_file_that_is_missing_or_no_key_is_named_and_not_quoted() {
    let authority = Authority::new();
    std::fs::write(authority.file("bad.pem").unwrap(), "-----BEGIN PRIVATE KEY-----\ngeheim!\n").unwrap();
    let missing = Tls { ca_file: authority.file("none.pem"), ..mutual(&authority) };
    let bad = Tls { key_file: authority.file("bad.pem"), ..mutual(&authority) };
    for (tls, expected) in [(missing, "none.pem"), (bad, "bad.pem")] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = source(listener.local_addr().unwrap().port(), MqttVersion::V5);
        config.tls = Some(tls);
        let mut run = Running::start(config);
        let reason = run.event("refusal", disconnected).await;
        assert!(reason.contains(expected) && !reason.contains("geheim"), "{reason}");
    }
}
