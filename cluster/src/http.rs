//! Probes and metrics over plain HTTP, as kubelets and Prometheus ask for them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::process_collector::ProcessCollector;
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;

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

/// Serves `router` until the process ends. The port is taken when this returns; has to be called within a tokio runtime.
pub async fn serve(port: u16, router: Router) -> Result<(), Error> {
    let listener = listen(port).await?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(port, error = &error as &dyn std::error::Error, "endpoint closed");
        }
    });
    Ok(())
}

/// `/livez` answers 200 as long as the process can answer at all; `/readyz` says what `ready` says: 200, or 503 with
/// what is waited for. `/health` and `/readiness` are upstream's names for them.
pub fn probes(ready: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Router {
    let ready = Arc::new(ready);
    let readiness = move || {
        let answer = match ready() {
            Ok(()) => (StatusCode::OK, "ok".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
        };
        async move { answer }
    };
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/health", get(|| async { "ok" }))
        .route("/readyz", get(readiness.clone()))
        .route("/readiness", get(readiness))
}

/// `/metrics` in Prometheus' text format: what `registry` has, and memory, CPU time and open files of this process.
pub fn metrics(registry: Registry) -> Router {
    // An error would say that the process is in the registry already.
    let _ = registry.register(Box::new(ProcessCollector::for_self()));
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
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn ask(router: Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let answer = router.oneshot(request).await.expect("an answer");
        let status = answer.status();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[rstest::rstest]
    #[case("/livez", StatusCode::OK, "ok")]
    #[case("/health", StatusCode::OK, "ok")]
    #[case("/readyz", StatusCode::SERVICE_UNAVAILABLE, "no certificate yet")]
    #[case("/readiness", StatusCode::SERVICE_UNAVAILABLE, "no certificate yet")]
    #[tokio::test]
    async fn what_is_not_ready_is_alive(#[case] path: &str, #[case] status: StatusCode, #[case] text: &str) {
        let router = probes(|| Err("no certificate yet".to_owned()));
        assert_eq!(ask(router, path).await, (status, text.to_owned()));
    }

    #[tokio::test]
    async fn what_is_ready_says_so() {
        assert_eq!(ask(probes(|| Ok(())), "/readyz").await, (StatusCode::OK, "ok".to_owned()));
    }

    #[tokio::test]
    async fn metrics_are_text() {
        let registry = Registry::new();
        let counter = prometheus::IntCounter::new("strands_total", "Strands laid").expect("a counter");
        registry.register(Box::new(counter.clone())).expect("the only one");
        counter.inc();
        let (status, text) = ask(metrics(registry), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("\nstrands_total 1\n"), "{text}");
        for name in ["process_resident_memory_bytes", "process_cpu_seconds_total"] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name} is not in {text}");
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.expect("a port");
        let port = taken.local_addr().expect("an address").port();
        let error = serve(port, Router::new()).await.expect_err("it is taken");
        assert_eq!(error.to_string(), format!("cannot listen on port {port}"));
    }
}
