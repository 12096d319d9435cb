//! The API server as a service: a lock around the kernel, watches over HTTP and WebSocket, logs, and listeners.
//!
//! In this process a [`kube::Client`] is built right over [`Server`], with no socket between them, and may do
//! everything. Whoever else comes through [`Server::serve_https`] to the same service, and is asked for a token;
//! [`Server::serve`] is for tests. This is an IO shell: what a request means
//! is decided in `ropewalk-apiserver`.

mod clients;
pub mod kubeconfig;
mod listen;
mod logs;
pub mod tls;
pub mod tokens;
mod watch;
mod websocket;

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context as Task, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited, StreamBody, combinators::UnsyncBoxBody};
use jiff::Timestamp;
use ropewalk_apiserver::{
    AUDIENCE, Admission, BODY_LIMIT, Caller, Context, NoTokens, Outcome, State, Tokens, User, authenticate,
    handle_for,
};

use clients::{Busy, Client};
pub use logs::{LogSource, NoLogs};
use tokens::Keys;
use watch::Fanout;

/// Body of every response: whole, or a stream of watch events or log bytes.
pub type ResponseBody = UnsyncBoxBody<Bytes, io::Error>;

/// The API server; clones share one state.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    kernel: Mutex<Kernel>,
    admission: Arc<dyn Admission + Send + Sync>,
    logs: Arc<dyn LogSource>,
    /// None where nobody is let in from outside.
    keys: Option<Keys>,
}

/// What the lock guards: a change and its way into the watches are one step, so that no watch sees changes out of
/// order or misses one.
struct Kernel {
    state: State,
    fanout: Fanout,
}

impl Shared {
    /// The kernel never panics half-way through a change on purpose; should it, the state is still the best there
    /// is, and a server that answers is better than one that does not.
    fn lock(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// A server over this state; `logs` answers for `pods/log`.
    pub fn new(state: State, admission: Arc<dyn Admission + Send + Sync>, logs: Arc<dyn LogSource>) -> Self {
        Self::build(state, admission, logs, None)
    }

    /// As [`Server::new`], for one that also lets in whom these keys authenticate.
    pub fn with_keys(
        state: State,
        admission: Arc<dyn Admission + Send + Sync>,
        logs: Arc<dyn LogSource>,
        keys: Keys,
    ) -> Self {
        Self::build(state, admission, logs, Some(keys))
    }

    fn build(
        state: State,
        admission: Arc<dyn Admission + Send + Sync>,
        logs: Arc<dyn LogSource>,
        keys: Option<Keys>,
    ) -> Self {
        let kernel = Mutex::new(Kernel { state, fanout: Fanout::default() });
        Self { shared: Arc::new(Shared { kernel, admission, logs, keys }) }
    }

    /// A client that calls this server without a socket; its default namespace is `default`. Needs a tokio
    /// runtime.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }

    /// Serves plain HTTP/1 until `shutdown`, then drops open connections. Meant for a loopback listener: there is
    /// no authentication, only requests that web pages could have caused are refused.
    pub async fn serve(self, listener: tokio::net::TcpListener, shutdown: impl Future<Output = ()> + Send) {
        listen::serve(self, listener, None, shutdown).await;
    }

    /// Serves HTTPS until `shutdown`, then drops open connections. Every request has to show a token; those that show
    /// none only learn that the server is alive.
    pub async fn serve_https(
        self,
        listener: tokio::net::TcpListener,
        tls: Arc<rustls::ServerConfig>,
        shutdown: impl Future<Output = ()> + Send,
    ) {
        listen::serve(self, listener, Some(tls.into()), shutdown).await;
    }

    /// Whose request this is by its headers; `None` for a token that does not hold.
    fn user(&self, headers: &HeaderMap) -> Option<User> {
        let Some(shown) = headers.get(header::AUTHORIZATION) else { return Some(User::anonymous()) };
        let (scheme, token) = shown.to_str().ok()?.split_once(' ')?;
        let keys = self.shared.keys.as_ref().filter(|_| scheme.eq_ignore_ascii_case("Bearer"))?;
        let token = token.trim();
        if keys.is_admin(token) {
            return Some(User::admin());
        }
        let claims = keys.verify(token)?;
        authenticate(&self.shared.lock().state, &claims, &[AUDIENCE], Timestamp::now())
    }

    async fn answer(&self, request: &Request<Bytes>, user: &User) -> Response<ResponseBody> {
        // A client's requests are handled one after the other, so that those of the others come in between.
        let _turn = match request.extensions().get::<Arc<Client>>() {
            Some(client) => client.turn().await,
            None => None,
        };
        self.handle(request, user)
    }

    fn handle(&self, request: &Request<Bytes>, user: &User) -> Response<ResponseBody> {
        let now = Timestamp::now();
        let context = Context { now, admission: &*self.shared.admission };
        let tokens = self.shared.keys.as_ref().map_or(&NoTokens as &dyn Tokens, |keys| keys);
        let caller = Caller { user, tokens };
        let mut kernel = self.shared.lock();
        let Kernel { state, fanout } = &mut *kernel;
        let handled = handle_for(state, request, &context, &caller);
        fanout.publish(&handled.deltas);
        match handled.outcome {
            Outcome::Response(response) => response.map(whole),
            Outcome::Watch(plan) => {
                let room = match clients::room_for(request, &plan) {
                    Ok(room) => room,
                    Err(Busy) => return clients::busy().map(whole),
                };
                let subscription = fanout.subscribe(*plan, room);
                drop(kernel);
                let events = watch::body(Arc::clone(&self.shared), subscription);
                match websocket::Offer::of(request) {
                    Some(offer) => offer.accept(events),
                    None => stream("application/json", events),
                }
            }
            Outcome::Log(request) => {
                drop(kernel);
                let frames = futures::StreamExt::map(self.shared.logs.open(request), |chunk| {
                    chunk.map(http_body::Frame::data)
                });
                stream("text/plain", StreamBody::new(frames).boxed_unsync())
            }
        }
    }
}

fn whole(bytes: impl Into<Bytes>) -> ResponseBody {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn stream(content_type: &'static str, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Reads a body up to one byte beyond the limit: enough for the kernel to refuse it with the proper status.
async fn read_body<B>(body: B) -> Result<Bytes, tower::BoxError>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<tower::BoxError>,
{
    match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Ok(Bytes::from(vec![0; BODY_LIMIT + 1])),
        Err(error) => Err(error),
    }
}

impl<B> tower::Service<Request<B>> for Server
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = tower::BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _task: &mut Task<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = read_body(body).await?;
            Ok(server.answer(&Request::from_parts(head, body), &User::server()).await)
        })
    }
}

#[cfg(test)]
mod tests;
