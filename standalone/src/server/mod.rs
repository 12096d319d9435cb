//! The API server as a service: a lock around the kernel, watches, logs, and a plain HTTP listener on loopback.
//!
//! In this process a [`kube::Client`] is built right over [`Server`], with no socket between them; everything else
//! (kubectl, tests) comes through [`Server::serve`] to the same service. This is an IO shell: what a request means
//! is decided in `ropewalk-apiserver`.

mod listen;
mod logs;
mod watch;

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context as Task, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited, StreamBody, combinators::UnsyncBoxBody};
use jiff::Timestamp;
use ropewalk_apiserver::{Admission, BODY_LIMIT, Context, Outcome, State, handle};

pub use logs::{LogSource, NoLogs};
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
        let kernel = Mutex::new(Kernel { state, fanout: Fanout::default() });
        Self { shared: Arc::new(Shared { kernel, admission, logs }) }
    }

    /// A client that calls this server without a socket; its default namespace is `default`. Needs a tokio
    /// runtime.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }

    /// Serves plain HTTP/1 until `shutdown`, then drops open connections. Meant for a loopback listener: there is
    /// no authentication, only requests that web pages could have caused are refused.
    pub async fn serve(self, listener: tokio::net::TcpListener, shutdown: impl Future<Output = ()> + Send) {
        listen::serve(self, listener, shutdown).await;
    }

    fn answer(&self, request: &Request<Bytes>) -> Response<ResponseBody> {
        let now = Timestamp::now();
        let context = Context { now, admission: &*self.shared.admission };
        let mut kernel = self.shared.lock();
        let Kernel { state, fanout } = &mut *kernel;
        let handled = handle(state, request, &context);
        fanout.publish(&handled.deltas);
        match handled.outcome {
            Outcome::Response(response) => response.map(|body| whole(Bytes::from(body))),
            Outcome::Watch(plan) => {
                let subscription = fanout.subscribe(*plan);
                drop(kernel);
                stream("application/json", watch::body(Arc::clone(&self.shared), subscription))
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

fn whole(bytes: Bytes) -> ResponseBody {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
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
            Ok(server.answer(&Request::from_parts(head, body)))
        })
    }
}

#[cfg(test)]
mod tests;
