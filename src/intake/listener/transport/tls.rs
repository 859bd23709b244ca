//! TLS of a listener, with certificates that may be renewed while it runs.
//!
//! Files are looked at every few seconds. New ones come into use when they have stood still for one look, so that a
//! certificate is not paired with the key of its predecessor. What cannot be used is said once and changes nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::identity::expiry_s;
use crate::config::ServerTls;
use crate::intake::listener::counters::ListenerCounters;
use crate::intake::mqtt::tls::{GatewayTime, certificates, private_key};
use crate::intake::mqtt::{Clock, TlsError};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The configuration in use; `None` until the files could be read for the first time.
pub type Current = watch::Receiver<Option<Arc<ServerConfig>>>;

/// What tells one content of the files from another without reading them.
type Stamp = Vec<Option<(i64, i64, u64, u64)>>;

/// Keeps one configuration up to date. `trouble` is called once for each content that cannot be used.
pub async fn keep_current(
    tls: ServerTls,
    clock: Clock,
    counters: Arc<ListenerCounters>,
    current: watch::Sender<Option<Arc<ServerConfig>>>,
    trouble: impl Fn(String) + Send,
) {
    let paths = paths(&tls);
    let mut used: Option<Stamp> = None;
    let mut seen = stamp(&paths);
    loop {
        if used.as_ref() != Some(&seen) {
            used = Some(seen.clone());
            match load(tls.clone(), Arc::clone(&clock)).await {
                Ok((config, expiry)) => {
                    ListenerCounters::set(&counters.certificate_expiry_s, expiry);
                    if current.send_replace(Some(Arc::new(config))).is_some() {
                        ListenerCounters::add(&counters.certificate_reloads, 1);
                        tracing::info!(certificate = %tls.cert_file.display(), "new certificate files are in use");
                    }
                }
                Err(error) => {
                    ListenerCounters::add(&counters.certificate_reloads_failed, 1);
                    let kept = if current.borrow().is_some() { "; the former ones stay in use" } else { "" };
                    trouble(format!("failed to {error}{kept}"));
                }
            }
        }
        seen = settled(&paths, seen).await;
    }
}

/// The files' stamp as soon as two looks at them agree.
async fn settled(paths: &[PathBuf], mut seen: Stamp) -> Stamp {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = stamp(paths);
        if now == seen {
            return now;
        }
        seen = now;
    }
}

fn paths(tls: &ServerTls) -> Vec<PathBuf> {
    [Some(&tls.cert_file), Some(&tls.key_file), tls.client_ca_file.as_ref()].into_iter().flatten().cloned().collect()
}

fn stamp(paths: &[PathBuf]) -> Stamp {
    paths.iter().map(|path| stamp_of(path)).collect()
}

pub(in crate::intake::listener) fn stamp_of(path: &Path) -> Option<(i64, i64, u64, u64)> {
    let about = fs::metadata(path).ok()?;
    Some((about.mtime(), about.mtime_nsec(), about.size(), about.ino()))
}

async fn load(tls: ServerTls, clock: Clock) -> Result<(ServerConfig, u64), TlsError> {
    let loaded = tokio::task::spawn_blocking(move || server_config(&tls, clock)).await;
    loaded.map_err(|error| TlsError::Config(error.to_string()))?
}

/// # Errors
/// [`TlsError`], with the file that is at fault.
pub fn server_config(tls: &ServerTls, clock: Clock) -> Result<(ServerConfig, u64), TlsError> {
    let fault = |error: tokio_rustls::rustls::Error| TlsError::Config(error.to_string());
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_details(Arc::clone(&provider), Arc::new(GatewayTime(clock)))
        .with_safe_default_protocol_versions()
        .map_err(fault)?;
    let builder = match &tls.client_ca_file {
        Some(path) => builder.with_client_cert_verifier(verifier(path, tls.require_certificate, provider)?),
        None => builder.with_no_client_auth(),
    };
    let chain = certificates("certificate", &tls.cert_file)?;
    if chain.is_empty() {
        let reason = "nothing of this kind in the file".to_owned();
        return Err(TlsError::File { what: "certificate", path: tls.cert_file.clone(), reason });
    }
    // Whichever certificate of the chain expires first breaks it.
    let expiry = chain.iter().filter_map(|certificate| expiry_s(certificate)).min().unwrap_or(0);
    let key = private_key(&tls.key_file)?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| TlsError::Identity(error.to_string()))?;
    // Tickets that wait to be taken up again cost memory, and a device reconnects rarely.
    config.send_tls13_tickets = 1;
    Ok((config, expiry))
}

fn verifier(
    path: &Path,
    required: bool,
    provider: Arc<tokio_rustls::rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates("CA file", path)?);
    if roots.is_empty() {
        return Err(TlsError::NoRoots { place: format!("in {}", path.display()) });
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| TlsError::Config(error.to_string()))
}
