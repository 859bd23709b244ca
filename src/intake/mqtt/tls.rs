//! TLS of a source. Owns nothing: the files are read again for each connection, so that renewed certificates are used.
//!
//! The provider is always given explicitly. A process-wide default would be whatever another crate installed, and its
//! absence a panic.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::Clock;
use crate::config::Tls;

/// Why no TLS connection came about. Names files, never what is in them.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read {what} {}: {reason}", path.display())]
    File { what: &'static str, path: PathBuf, reason: String },
    #[error("find any root certificate {place}")]
    NoRoots { place: String },
    #[error("use certificate and key: {0}")]
    Identity(String),
    #[error("check the name {0:?} of the server: neither a host name nor an address")]
    ServerName(String),
    #[error("set up TLS: {0}")]
    Config(String),
    #[error("agree on TLS with {name}: {source}")]
    Handshake { name: String, source: std::io::Error },
}

/// Certificates are checked against the gateway's clock, which knows better than the system's after a start without RTC.
pub(in crate::intake) struct GatewayTime(pub Clock);

impl fmt::Debug for GatewayTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatewayTime")
    }
}

impl TimeProvider for GatewayTime {
    fn current_time(&self) -> Option<UnixTime> {
        let wall_ms = u64::try_from((self.0)().wall_ms).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(wall_ms)))
    }
}

/// Shakes hands on `stream`. The caller bounds the time.
///
/// # Errors
/// [`TlsError`], with the file or the name that is at fault.
pub(super) async fn connect(
    stream: TcpStream,
    host: &str,
    tls: &Tls,
    clock: Clock,
) -> Result<TlsStream<TcpStream>, TlsError> {
    let owned = tls.clone();
    // The system's roots are a hundred files.
    let config = tokio::task::spawn_blocking(move || client_config(&owned, clock));
    let config = config.await.map_err(|e| TlsError::Config(e.to_string()))??;
    let name = tls.server_name.as_deref().unwrap_or(host);
    let server_name = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned()))?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(server_name, stream);
    connecting.await.map_err(|source| TlsError::Handshake { name: name.to_owned(), source })
}

fn client_config(tls: &Tls, clock: Clock) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider, Arc::new(GatewayTime(clock)))
        .with_safe_default_protocol_versions()
        .map_err(|e| TlsError::Config(e.to_string()))?
        .with_root_certificates(roots(tls)?);
    match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates("certificate", cert)?, private_key(key)?)
            .map_err(|e| TlsError::Identity(e.to_string())),
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(TlsError::Identity("one is given without the other".to_owned())),
    }
}

fn roots(tls: &Tls) -> Result<RootCertStore, TlsError> {
    let (found, place) = match &tls.ca_file {
        Some(path) => (certificates("CA file", path)?, format!("in {}", path.display())),
        None => (rustls_native_certs::load_native_certs().certs, "of the system (package ca-certificates)".to_owned()),
    };
    let mut roots = RootCertStore::empty();
    // Systems carry a few roots that do not parse; one good root is enough to go on.
    roots.add_parsable_certificates(found);
    if roots.is_empty() { Err(TlsError::NoRoots { place }) } else { Ok(roots) }
}

pub(in crate::intake) fn certificates(
    what: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fault = |e: tokio_rustls::rustls::pki_types::pem::Error| file_error(what, path, &e);
    CertificateDer::pem_file_iter(path).map_err(fault)?.collect::<Result<_, _>>().map_err(fault)
}

pub(in crate::intake) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| file_error("key", path, &e))
}

fn file_error(what: &'static str, path: &Path, error: &tokio_rustls::rustls::pki_types::pem::Error) -> TlsError {
    use tokio_rustls::rustls::pki_types::pem::Error;
    // The variants that quote the text could quote a key.
    let reason = match error {
        Error::Io(e) => e.to_string(),
        Error::NoItemsFound => "nothing of this kind in the file".to_owned(),
        _ => "not a PEM file".to_owned(),
    };
    TlsError::File { what, path: path.to_owned(), reason }
}
