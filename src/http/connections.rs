//! Connections of the HTTP server, bounded in number and in time: nobody who can reach the port may use up the descriptors
//! that the worker needs for its database and its brokers.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// Most connections at a time. Of the 1,024 descriptors that a process commonly has this leaves most to the worker.
const LIMIT: usize = 128;
/// How long a client may take to send the head of its request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last: it has one request, whose answer is ready in milliseconds, and has to read it.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// The most that a connection keeps of a request in memory.
const BUFFER_BYTES: usize = 16 << 10;
/// How long open requests may take to finish on shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after a connection could not be accepted, for want of descriptors for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Serves one request on each connection until `shutdown` completes, and then finishes open requests.
///
/// Beyond the limit, the oldest connection is closed for the newest: clients that open connections and send nothing lock
/// nobody out. Keep-alive would only keep descriptors from the worker; Prometheus and probes connect again.
pub(super) async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let mut connections = JoinSet::new();
    let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                by_age.retain(|connection| !connection.is_finished());
                if by_age.len() == LIMIT
                    && let Some(oldest) = by_age.pop_front()
                {
                    oldest.abort();
                }
                by_age.push_back(connections.spawn(timeout(CONNECTION_TIMEOUT, answer(stream, router.clone()))));
            }
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                tracing::warn!("cannot accept an HTTP connection: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // What is still open is closed when the set is dropped.
    let _ = timeout(SHUTDOWN_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
}

/// Answers the request of a connection. Clients that disconnect or send anything else are not worth a line in the log.
async fn answer(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = connection.await {
        tracing::debug!("an HTTP connection ended early: {error}");
    }
}

/// Whether a client was gone before its connection was accepted.
fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
