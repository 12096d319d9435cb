//! Plain HTTP/1 on a loopback listener.

use std::{future::Future, sync::Arc};

use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tower::Service as _;

use super::{ResponseBody, Server, whole};

/// Connections at a time: every watch of a client holds one, and a handful of clients with a dozen each is the
/// use; far below the default limit of 1024 open files, which containers need as well.
const CONNECTIONS: usize = 256;

/// Serves until `shutdown`; see [`Server::serve`].
pub(super) async fn serve(server: Server, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
    let mut shutdown = std::pin::pin!(shutdown);
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        let Some((stream, permit)) = accepted else { continue };
        let server = server.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(server.clone(), request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the API server broke");
            }
            drop(permit);
        });
    }
    // Watches and log streams have no end of their own.
    connections.shutdown().await;
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            tracing::warn!(%error, "the API server could not accept a connection");
            // Out of file descriptors, most likely: trying again at once would spin.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            None
        }
    }
}

async fn answer(
    mut server: Server,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, tower::BoxError> {
    if !is_local(request.headers()) {
        let mut response = Response::new(whole("requests of web pages are refused\n".into()));
        *response.status_mut() = StatusCode::FORBIDDEN;
        return Ok(response);
    }
    server.call(request).await
}

/// Whether a request can come from a tool on this machine: a web page betrays itself by an `Origin`, or, after DNS
/// rebinding, by a `Host` that is not this machine.
fn is_local(headers: &HeaderMap) -> bool {
    if headers.contains_key(header::ORIGIN) {
        return false;
    }
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return true };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "[::1]" | "::1")
        || name.parse().is_ok_and(|ip: std::net::Ipv4Addr| ip.is_loopback())
}
