//! HTTP/1 on a listener: over TLS for whoever has a token, plain on loopback for tests.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use ropewalk_apiserver::{Failure, User};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
    time::timeout,
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

use super::{
    ResponseBody, Server,
    clients::{self, Clients, Place},
    read_body, whole,
};

/// How long a TLS handshake may take; on one machine it takes milliseconds, from afar a few round trips.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a connection may wait for the head of its next request. Longer than the 90 s for which Go's clients keep an
/// idle connection: if the server closed one first, a request sent at that moment would be lost.
const IDLE: Duration = Duration::from_mins(2);

/// How long the body of a request may take. It has three MB at most, so this is enough for half a Mbit/s.
const BODY: Duration = Duration::from_mins(1);

/// How long a client may take nothing of what is sent to it: a watch whose reader is gone for good has to end, and what
/// waits for it holds memory.
const STALL: Duration = Duration::from_secs(30);

/// Bytes of a request's head: a token has less than one kB, a selector may have some.
const HEAD: usize = 64 * 1024;

/// Serves until `shutdown`; see [`Server::serve`] and, with TLS, [`Server::serve_https`].
pub(super) async fn serve(
    server: Server,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let mut shutdown = std::pin::pin!(shutdown);
    let clients = Clients::new();
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &clients) => accepted,
        };
        let Some((stream, place)) = accepted else { continue };
        let (server, tls) = (server.clone(), tls.clone());
        connections.spawn(async move {
            let over = Arc::clone(&place);
            tokio::select! {
                () = over.over() => {}
                () = open(stream, tls, server, place) => {}
            }
        });
    }
    // Watches and log streams have no end of their own, and WebSockets have left their connections.
    clients.end();
    connections.shutdown().await;
}

async fn accept(
    listener: &TcpListener,
    clients: &Arc<Clients>,
) -> Option<(tokio::net::TcpStream, Arc<Place>)> {
    let socket = clients.socket().await?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, clients.enter(socket))),
        Err(error) => {
            tracing::warn!(%error, "the API server could not accept a connection");
            // Out of file descriptors, most likely: trying again at once would spin.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            None
        }
    }
}

async fn open(stream: tokio::net::TcpStream, tls: Option<TlsAcceptor>, server: Server, place: Arc<Place>) {
    let mut stream = Box::pin(TimeoutStream::new(stream));
    stream.as_mut().set_write_timeout_pinned(Some(STALL));
    match tls {
        None => converse(stream, server, place, answer).await,
        Some(tls) => match timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => converse(stream, server, place, answer_known).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        },
    }
}

/// Answers the requests of one connection.
async fn converse<S, A, F>(stream: S, server: Server, place: Arc<Place>, answer: A)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Server, Arc<Place>, Request<Incoming>) -> F,
    F: Future<Output = Result<Response<ResponseBody>, tower::BoxError>>,
{
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&place));
        answer(server.clone(), Arc::clone(&place), request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the API server broke");
    }
}

/// Answers who shows a token. Nothing else of a request is read before its token is known to hold.
async fn answer_known(
    server: Server,
    place: Arc<Place>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, tower::BoxError> {
    let Some(user) = server.user(request.headers()) else {
        return Ok(clients::refuse(StatusCode::UNAUTHORIZED, &Failure::unauthorized()).map(whole));
    };
    let (mut head, body) = request.into_parts();
    if user == User::anonymous() {
        // What may be asked without a token has no body.
        return Ok(server.answer(&Request::from_parts(head, Bytes::new()), &user).await);
    }
    let Ok(client) = place.claim(&user) else { return Ok(clients::busy().map(whole)) };
    head.extensions.insert(Arc::clone(&client));
    if matches!(head.method, Method::GET | Method::HEAD) {
        let request = Request::from_parts(head, Bytes::new());
        return Ok(clients::read(server.answer(&request, &user).await, &client));
    }
    let Ok(room) = client.room_to_write().await else { return Ok(clients::busy().map(whole)) };
    let body = timeout(BODY, read_body(body)).await??;
    let request = Request::from_parts(head, body);
    Ok(clients::written(server.answer(&request, &user).await, room))
}

async fn answer(
    mut server: Server,
    _place: Arc<Place>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, tower::BoxError> {
    if !is_local(request.headers()) {
        let mut response = Response::new(whole("requests of web pages are refused\n"));
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
