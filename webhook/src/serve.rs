//! HTTPS for the router: connections, their bounds, and an end that cuts nothing off.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware;
use axum::response::Response;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use ropewalk_cluster::connections::Connections;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::ResolvesServerCert;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// How many connections are open at once. API servers keep one per request they have in flight and reuse it; with
/// this many there are far more than requests answered at once, and each costs some tens of kB.
const CONNECTIONS: usize = 512;

/// Of which from one address, so that no pod can have them all. An API server, which may be behind one address with
/// others, lets 200 requests that change something be in flight.
const EACH: usize = 384;

/// How long a TLS handshake may take. Within a cluster it takes milliseconds.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long a connection may take for the head of its first request. API servers open one when they have a request.
const FIRST_HEAD: Duration = Duration::from_secs(5);

/// How long a connection may wait for the head of a further request. Longer than API servers keep idle connections, which is 90 s:
/// if the server closed one first, a request sent at that moment would be lost.
const IDLE: Duration = Duration::from_mins(2);

/// How long requests that are being answered may take once the listener is closed; they are bounded by ten seconds.
const FINISH: Duration = Duration::from_secs(11);

/// TLS 1.2 and 1.3 with the certificate that is current at each handshake.
///
/// Offers HTTP/1.1 only: API servers ask webhooks for nothing else, so that their requests spread over the replicas.
pub(crate) fn tls(certificate: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Serves until `stop`, then lets open requests end. From `draining` on, every answer asks the client to open another
/// connection for the next request, which by then leads elsewhere.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: ServerConfig,
    router: Router,
    draining: watch::Receiver<bool>,
    stop: impl Future<Output = ()>,
) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let router = router.layer(middleware::map_response(move |response: Response| {
        let draining = *draining.borrow();
        async move { if draining { closing(response) } else { response } }
    }));
    let connections = Connections::new(listener, CONNECTIONS, EACH);
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, place) = tokio::select! {
            connection = connections.next() => connection,
            () = &mut stop => break,
        };
        let (acceptor, router, watcher) = (acceptor.clone(), router.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _place = place;
            let Ok(stream) = handshake(&acceptor, stream).await else { return };
            let asked = Arc::new(AtomicBool::new(false));
            let asks = Arc::clone(&asked);
            let service = TowerToHyperService::new(router);
            let service = service_fn(move |request| {
                asks.store(true, Ordering::Relaxed);
                service.call(request)
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE)
                .serve_connection(TokioIo::new(stream), service);
            let silent = async {
                sleep(FIRST_HEAD).await;
                if asked.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                // What a client does to its connection is no news.
                _ = watcher.watch(connection) => {}
                () = silent => {}
            }
        });
    }
    drop(connections);
    if timeout(FINISH, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still being answered at the end");
    }
}

async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
) -> io::Result<tokio_rustls::server::TlsStream<TcpStream>> {
    // Answers are small and awaited.
    stream.set_nodelay(true)?;
    timeout(HANDSHAKE, acceptor.accept(stream)).await?
}

fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
pub(crate) mod tests;
