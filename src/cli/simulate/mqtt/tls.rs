//! TLS for the simulator: which authorities are trusted, and the device's own certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// Files for TLS; all are PEM.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Authorities instead of the system's.
    pub ca: Option<PathBuf>,
    /// Certificate chain and key of the device.
    pub identity: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read {}: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: pem::Error },
    #[error("find a certificate in {}", .0.display())]
    NoCertificate(PathBuf),
    #[error("find a trusted authority on this system; name one with --tls-ca")]
    NoSystemRoots,
    #[error("use the certificates: {0}")]
    Unusable(#[from] rustls::Error),
}

/// Reads the files once; every connection uses the result.
pub fn connector(files: &TlsFiles) -> Result<TlsConnector, TlsError> {
    let roots = files.ca.as_deref().map_or_else(system_roots, roots_of)?;
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots);
    let config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(certificates(chain)?, private_key(key)?)?,
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // One unreadable certificate among the system's hundred is no reason to trust none.
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 { Err(TlsError::NoSystemRoots) } else { Ok(roots) }
}

fn roots_of(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |reason| TlsError::Unreadable { path: path.into(), reason };
    let certificates = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(unreadable)?;
    if certificates.is_empty() { Err(TlsError::NoCertificate(path.into())) } else { Ok(certificates) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|reason| TlsError::Unreadable { path: path.into(), reason })
}
