//! The API server as a service: a lock around the kernel, watches over HTTP and WebSocket, logs, and listeners.
//!
//! In this process a [`kube::Client`] is built right over [`Server`], with no socket between them, and may do
//! everything. Whoever else comes through [`Server::serve_https`] to the same service, and is asked for a token;
//! [`Server::serve`] is for tests. This is an IO shell: what a request means
//! is decided in `ropewalk-apiserver`.

mod bodies;
mod clients;
mod exec;
mod keep;
pub mod kubeconfig;
mod listen;
mod logs;
pub(crate) mod private;
pub(crate) mod roles;
pub mod secrets;
pub mod tls;
pub mod tokens;
mod watch;
mod websocket;

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context as Task, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited, StreamBody, combinators::UnsyncBoxBody};
use jiff::Timestamp;
use ropewalk_apiserver::{
    AUDIENCE, Admission, BODY_LIMIT, Body, Caller, Context, ExecRequest, Failure, LogRequest, NoTokens,
    Outcome, State, Tokens, User, authenticate, handle_for,
};
use tokio::sync::OwnedSemaphorePermit;

use crate::store::{File, StoreError};
use bodies::Bodies;
use clients::{Busy, Client};
pub use exec::{Executor, Input, Output, Session};
use keep::{Keeper, Pending};
pub use logs::{LogSource, NoLogs};
use tokens::Keys;
use watch::{Fanout, Subscription};

/// Body of every response: whole, or a stream of watch events or log bytes.
pub type ResponseBody = UnsyncBoxBody<Bytes, io::Error>;

/// The API server; clones share one state.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    kernel: Mutex<Kernel>,
    bodies: Bodies,
    admission: Arc<dyn Admission + Send + Sync>,
    logs: Arc<dyn LogSource>,
    /// Unset where there are no containers.
    runner: OnceLock<exec::Runner>,
    /// None where nobody is let in from outside.
    keys: Option<Keys>,
    /// None where objects end with the process.
    keeper: Option<Keeper>,
}

/// What the lock guards: a change and its way into the watches, or into the queue before the disk, are one step, so that
/// no watch sees changes out of order or misses one.
struct Kernel {
    state: State,
    fanout: Fanout,
    /// The version up to which watches have been told everything; behind the state's where changes are being written.
    told: u64,
    /// Answers that wait for the disk.
    waiting: usize,
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
        Self::build(state, admission, logs, None, None)
    }

    /// As [`Server::new`], for one that also lets in whom these keys authenticate, and keeps its objects in this file. The
    /// state is what was in the file, and no change of it is still to be taken.
    ///
    /// Nothing is answered and nobody who watches is told before it is on disk. What there is no room for, and what then
    /// cannot be written, is refused with status 507; the latter is taken back.
    pub fn durable(
        state: State,
        admission: Arc<dyn Admission + Send + Sync>,
        logs: Arc<dyn LogSource>,
        keys: Keys,
        file: File,
    ) -> io::Result<Self> {
        let (keeper, queue) = Keeper::new(state.table().clone(), file);
        let server = Self::build(state, admission, logs, Some(keys), Some(keeper));
        queue.serve(&server.shared)?;
        Ok(server)
    }

    fn build(
        state: State,
        admission: Arc<dyn Admission + Send + Sync>,
        logs: Arc<dyn LogSource>,
        keys: Option<Keys>,
        keeper: Option<Keeper>,
    ) -> Self {
        let kernel = Kernel { told: state.version(), state, fanout: Fanout::default(), waiting: 0 };
        let (kernel, bodies, runner) = (Mutex::new(kernel), Bodies::default(), OnceLock::new());
        Self { shared: Arc::new(Shared { kernel, bodies, admission, logs, runner, keys, keeper }) }
    }

    /// Closes the file once what was accepted is in it. Later writes are refused.
    pub async fn close(&self) {
        if let Some(keeper) = &self.shared.keeper {
            let closed = keeper.close(&self.shared.lock());
            // A writer that is gone has closed its file.
            let _ = closed.await;
        }
    }

    /// Runs commands in containers with this from now on, unless something else does already.
    pub fn run_commands_with(&self, executor: Arc<dyn Executor>) {
        let _ = self.shared.runner.set(exec::Runner::new(executor));
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
        let permit = match &self.shared.keeper {
            Some(keeper) if !matches!(*request.method(), Method::GET | Method::HEAD) => keeper.place().await,
            _ => None,
        };
        let client = request.extensions().get::<Arc<Client>>();
        let turn = match client {
            Some(client) => client.turn().await,
            None => None,
        };
        let (body, room) = self.shared.bodies.read(request).await;
        let (answer, pending) = self.handle(request, body, user, permit);
        drop((room, turn));
        if let Err(lost) = pending.kept().await {
            return refusal(&lost);
        }
        match answer {
            Answer::Whole(response) => response.map(whole),
            Answer::Watch(subscription) => {
                let events = watch::body(Arc::clone(&self.shared), *subscription);
                match websocket::Offer::of(request) {
                    Some(offer) => websocket::watch(offer, events),
                    None => stream("application/json", events),
                }
            }
            Answer::Exec(wanted) => {
                let door = exec::door(self.shared.runner.get(), request);
                door.map_or_else(|refusal| *refusal, |door| door.run(wanted))
            }
            Answer::Attach(wanted) => {
                let door = exec::door(self.shared.runner.get(), request);
                door.map_or_else(|refusal| *refusal, |door| door.attach(self.shared.logs.open(wanted)))
            }
            Answer::Log(request) => {
                let frames = futures::StreamExt::map(self.shared.logs.open(request), |chunk| {
                    chunk.map(http_body::Frame::data)
                });
                stream("text/plain", StreamBody::new(frames).boxed_unsync())
            }
        }
    }

    /// What is to be answered, and what has to be on disk before.
    fn handle(
        &self,
        request: &Request<Bytes>,
        body: Body,
        user: &User,
        permit: Option<OwnedSemaphorePermit>,
    ) -> (Answer, Pending) {
        let now = Timestamp::now();
        let context = Context { now, admission: &*self.shared.admission };
        let tokens = self.shared.keys.as_ref().map_or(&NoTokens as &dyn Tokens, |keys| keys);
        let caller = Caller { user, tokens };
        // Who takes no place in the queue wants nothing written.
        let room = self.shared.keeper.as_ref().filter(|_| permit.is_some()).map(Keeper::room);
        let mut kernel = self.shared.lock();
        if let Some(room) = room {
            kernel.state.set_room(room);
        }
        let handled = handle_for(&mut kernel.state, request, body, &context, &caller);
        let pending = kernel.tell(self.shared.keeper.as_ref(), handled.deltas, permit);
        let answer = match handled.outcome {
            Outcome::Response(response) => Answer::Whole(response),
            Outcome::Watch(plan) => match clients::room_for(request, &plan) {
                Ok(room) => Answer::Watch(Box::new(kernel.fanout.subscribe(*plan, room))),
                Err(Busy) => Answer::Whole(clients::busy()),
            },
            Outcome::Log(request) => Answer::Log(request),
            Outcome::Exec(request) => Answer::Exec(request),
            Outcome::Attach(request) => Answer::Attach(request),
        };
        (answer, pending)
    }
}

/// What is answered, before it is a stream.
enum Answer {
    Whole(Response<Vec<u8>>),
    Watch(Box<Subscription>),
    Log(LogRequest),
    Exec(ExecRequest),
    Attach(LogRequest),
}

/// The refusal of a request whose changes, or changes it saw, could not be kept.
fn refusal(error: &StoreError) -> Response<ResponseBody> {
    let failure = Failure::insufficient_storage(error.to_string());
    let mut response = Response::new(whole(failure.to_value().to_string()));
    *response.status_mut() = StatusCode::INSUFFICIENT_STORAGE;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
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
