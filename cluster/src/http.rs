//! Probes and metrics over plain HTTP, as kubelets and Prometheus ask for them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::connections::Connections;
use crate::process::Process;

/// How many connections an endpoint has at once: some 20 kB each, and more than a few pods can hold, since a probe that is
/// kept waiting costs the process its life.
const CONNECTIONS: usize = 256;

/// Of which from one address: a kubelet opens one for each probe, a Prometheus one for each scrape.
const EACH: usize = 8;

/// How long one may take for a request and its answer, which is as long as Prometheus waits; a kubelet waits half of it.
const EXCHANGE: Duration = Duration::from_secs(10);

/// Why an endpoint cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else has the port, most often.
    #[error("cannot listen on port {port}")]
    Bind {
        /// The port.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
}

/// Takes a port, on every address of the machine.
pub async fn listen(port: u16) -> Result<TcpListener, Error> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        // A machine without IPv6.
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .await
            .map_err(|source| Error::Bind { port, source }),
    }
}

/// Serves `router` until the process ends, one request a connection. The port is taken when this returns; has to be
/// called within a tokio runtime.
pub async fn serve(port: u16, router: Router) -> Result<(), Error> {
    tokio::spawn(answer(listen(port).await?, router));
    Ok(())
}

async fn answer(listener: TcpListener, router: Router) {
    let connections = Connections::new(listener, CONNECTIONS, EACH);
    loop {
        let (stream, place) = connections.next().await;
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let _place = place;
            let connection =
                http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
            // What a client does to its connection is no news.
            let _ = timeout(EXCHANGE, connection).await;
        });
    }
}

/// `/livez` says what `alive` says and `/readyz` what `ready` says: 200, or 503 with what is wrong or waited for.
/// `/health` and `/readiness` are upstream's names for them.
pub fn probes(alive: impl Probe, ready: impl Probe) -> Router {
    let (alive, ready) = (probe(alive), probe(ready));
    Router::new()
        .route("/livez", alive.clone())
        .route("/health", alive)
        .route("/readyz", ready.clone())
        .route("/readiness", ready)
}

/// What a probe asks.
pub trait Probe: Fn() -> Result<(), String> + Send + Sync + 'static {}

impl<F: Fn() -> Result<(), String> + Send + Sync + 'static> Probe for F {}

fn probe(ask: impl Probe) -> MethodRouter {
    let ask = Arc::new(ask);
    get(move || {
        let answer = match ask() {
            Ok(()) => (StatusCode::OK, "ok".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
        };
        async move { answer }
    })
}

/// `/metrics` in Prometheus' text format: what `registry` has, and memory, CPU time and open files of this process.
pub fn metrics(registry: Registry) -> Router {
    // An error would say that the process is in the registry already.
    let _ = registry.register(Box::new(Process::this()));
    Router::new().route(
        "/metrics",
        get(|| async move {
            match TextEncoder::new().encode_to_string(&registry.gather()) {
                Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
            }
        }),
    )
}

#[cfg(test)]
mod tests;
