//! What the worker serves by HTTP: metrics, health, and a page for people. Nothing that is served changes anything.
//!
//! There is no authentication: by default only this machine is listened to.

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

/// What is served.
#[derive(Clone)]
pub struct Site {
    /// One line on where events come from.
    pub source: String,
    pub metrics: Metrics,
    pub health: Health,
}

/// An address that cannot be listened to.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; set http.listen to another address or port (port 0 takes a free one)")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// Listens. The listener knows which port it was given for port 0.
///
/// # Errors
/// Where the address is taken or not this machine's.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { address, source })
}

/// Serves until `shutdown` is done, and then what is being answered.
///
/// | path | |
/// | --- | --- |
/// | `/metrics` | the metrics, for Prometheus |
/// | `/livez` | 200 while every loop comes round, else 503 and a line that says which does not |
/// | `/readyz` | 200 while source and store answer, else 503 and a line that says what does not |
/// | `/` | a page for people |
///
/// # Errors
/// Where connections cannot be accepted.
pub async fn serve(
    listener: TcpListener,
    site: Site,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(Arc::new(site));
    axum::serve(listener, router).with_graceful_shutdown(shutdown).await
}

async fn metrics(State(site): State<Arc<Site>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], site.metrics.render())
}

async fn livez(State(site): State<Arc<Site>>) -> impl IntoResponse {
    answer(site.health.live(Instant::now()))
}

async fn readyz(State(site): State<Arc<Site>>) -> impl IntoResponse {
    answer(site.health.readiness())
}

fn answer(health: Result<(), String>) -> (StatusCode, String) {
    match health {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn page(State(site): State<Arc<Site>>) -> impl IntoResponse {
    // Names come from events. They are escaped, and should that fail, the browser runs and loads nothing.
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    ([(header::CONTENT_SECURITY_POLICY, policy), (header::CACHE_CONTROL, "no-store")], Html(page::render(&site)))
}
