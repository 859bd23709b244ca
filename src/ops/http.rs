//! The loopback HTTP port: `/metrics`, `/healthz`, `/readyz`. Nothing else, and GET only.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::metrics::Metrics;
use crate::clock;

/// Scrapers and health checks at once.
const CONNECTIONS_MAX: usize = 16;
/// After a connection that could not be taken.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A snapshot older than this means that the hub does not turn any more.
const STALE_MS: i64 = 5_000;

/// # Errors
/// When the address cannot be bound.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until dropped.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptor is free: asking again at once would only keep the sources from their work.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&metrics)));
            let mut http = hyper::server::conn::http1::Builder::new();
            let connection = http
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // A peer that goes away in the middle is its own affair.
            let _ = connection.await;
            drop(slot);
        });
    }
}

async fn answer(request: Request<Incoming>, metrics: Arc<Metrics>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            (StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", metrics.text())
        }
        (&Method::GET, "/healthz") => verdict(health(&metrics)),
        (&Method::GET, "/readyz") => verdict(health(&metrics).and_then(|()| ready(&metrics))),
        (&Method::GET, _) => (StatusCode::NOT_FOUND, "text/plain", "try /metrics, /healthz or /readyz\n".to_owned()),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "GET only\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    Ok(response)
}

fn verdict(state: Result<(), &'static str>) -> (StatusCode, &'static str, String) {
    match state {
        Ok(()) => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{why}\n")),
    }
}

fn health(metrics: &Metrics) -> Result<(), &'static str> {
    let age = clock::boot_ms() as i64 - metrics.shown.get().boot_ms as i64;
    if age > STALE_MS { Err("the hub has not turned for 5 s") } else { Ok(()) }
}

fn ready(metrics: &Metrics) -> Result<(), &'static str> {
    if metrics.shown.get().spool.full { Err("the spool cannot be written") } else { Ok(()) }
}
