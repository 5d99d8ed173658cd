//! The worker's HTTP server: metrics, health, and a status page. Every resource is read-only.
//!
//! There is no authentication: by default it accepts connections from this machine only.

mod connections;
mod page;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

/// The state that is served.
#[derive(Clone)]
pub struct Site {
    /// One line that describes the source of events.
    pub source: String,
    pub metrics: Metrics,
    pub health: Health,
}

/// An address on which the server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; set http.listen to another address or port (port 0 chooses a free one)")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// Listens on an address. With port 0, the listener has the port that was chosen.
///
/// # Errors
/// If the address is in use, or does not belong to this machine.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { address, source })
}

/// Serves until `shutdown` completes, and then finishes open requests, within a second.
///
/// | path | |
/// | --- | --- |
/// | `/metrics` | the metrics, for Prometheus |
/// | `/livez` | 200 while every loop makes progress, else 503 and a line that names one that does not |
/// | `/readyz` | 200 while source and store are ready, else 503 and a line that names what is not, and why |
/// | `/` | the status page |
///
/// No answer depends on the `Host` header: there are no absolute links, redirects or cookies, and requests change nothing.
pub async fn serve(listener: TcpListener, site: Site, shutdown: impl Future<Output = ()> + Send + 'static) {
    let router = Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(Arc::new(site));
    connections::serve(listener, router, shutdown).await;
}

async fn metrics(State(site): State<Arc<Site>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], site.metrics.render(&site.health))
}

async fn livez(State(site): State<Arc<Site>>) -> impl IntoResponse {
    answer(site.health.live(Instant::now()))
}

async fn readyz(State(site): State<Arc<Site>>) -> impl IntoResponse {
    let (status, mut text) = answer(site.health.readiness());
    let unpublished = site.metrics.population_counts().unpublished_changes;
    if status == StatusCode::OK && unpublished > 0 {
        text = format!("ok, catching up: the estimates of {unpublished} changed blocks are not published yet\n");
    }
    (status, text)
}

fn answer(health: Result<(), String>) -> (StatusCode, String) {
    match health {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn page(State(site): State<Arc<Site>>) -> impl IntoResponse {
    // Names come from events. They are escaped; should that fail, the policy keeps the browser from running or loading anything.
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    ([(header::CONTENT_SECURITY_POLICY, policy), (header::CACHE_CONTROL, "no-store")], Html(page::render(&site)))
}
