//! How much of the server each client may take, so that none keeps out the others. No IO.
//!
//! Whose a connection is shows only with the first token that holds; until then it is a stranger's. A client is a
//! namespace, by any of its service accounts: who may make accounts in one must not get more by making many. The
//! administrator shares with nobody.
//!
//! Together with the watch queues and the few bodies that are objects at a time (see [`super::bodies`]), these numbers bound
//! the server's memory: connections times what TLS and HTTP buffer for each, and [`BYTES`] twice.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use ropewalk_apiserver::{BODY_LIMIT, Failure, User, WatchPlan};
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{ResponseBody, exec::SESSIONS, whole};

/// Connections that have shown no token yet. One more ends the one that has been there longest, so that whoever holds
/// all of them keeps nobody out: an honest client shows its token within milliseconds.
pub(super) const STRANGERS: usize = 128;

/// Connections of one client: each watch takes one. A dashboard with twenty readers of six kinds fits.
pub(super) const CONNECTIONS_EACH: usize = 128;

/// Connections of all clients but the administrator: four busy ones.
pub(super) const CONNECTIONS: usize = 512;

/// All connections, those that are about to be ended among them; below the usual limit of 1024 open files, which
/// containers need as well.
const SOCKETS: usize = STRANGERS + CONNECTIONS + CONNECTIONS_EACH + 64;

/// Bytes of bodies, coming and going, that one client may have in the server: a list of ten thousand runs at once, or
/// twenty of the largest objects.
const BYTES_EACH: usize = 64 * 1024 * 1024;

/// And all clients but the administrator.
const BYTES: usize = 3 * BYTES_EACH;

/// Commands in containers and outputs of them that one client may have at once.
pub(super) const SESSIONS_EACH: usize = SESSIONS / 4;

/// And all clients but the administrator: the rest is for people.
const SESSIONS_COMMON: usize = SESSIONS / 2;

/// How long a write may wait for room. Go's clients give up after thirty seconds or later.
const ROOM: Duration = Duration::from_secs(20);

/// Bytes handed to a connection at a time; the next follow when most of them are on their way.
const SLICE: usize = 64 * 1024;

/// What is handed out: to one client, or to all together.
#[derive(Debug)]
struct Share {
    connections: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    sessions: Arc<Semaphore>,
}

impl Share {
    fn new(connections: usize, bytes: usize, sessions: usize) -> Arc<Self> {
        let [connections, bytes, sessions] =
            [connections, bytes, sessions].map(|count| Arc::new(Semaphore::new(count)));
        Arc::new(Self { connections, bytes, sessions })
    }
}

/// All clients of a listener.
#[derive(Debug)]
pub(super) struct Clients {
    sockets: Arc<Semaphore>,
    common: Arc<Share>,
    known: Mutex<BTreeMap<String, Weak<Client>>>,
    /// In the order they came.
    strangers: Mutex<VecDeque<Weak<Place>>>,
    /// Says when the listener ends.
    over: CancellationToken,
}

/// Who has shown a token that holds.
#[derive(Debug)]
pub(super) struct Client {
    own: Arc<Share>,
    /// None for the administrator.
    common: Option<Arc<Share>>,
    /// The kernel takes one request at a time; it is to be one of each client in turn.
    turn: Semaphore,
}

/// A connection's place, kept for as long as it is open; a WebSocket takes it along.
#[derive(Debug)]
pub(super) struct Place {
    clients: Arc<Clients>,
    /// Says when the connection has to end.
    over: CancellationToken,
    claim: Mutex<Option<Claim>>,
    _socket: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Claim {
    name: String,
    client: Arc<Client>,
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

/// Room for bytes, or for a session, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    permits: [Option<OwnedSemaphorePermit>; 2],
}

/// Somebody has all that they may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clients {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            sockets: Arc::new(Semaphore::new(SOCKETS)),
            common: Share::new(CONNECTIONS, BYTES, SESSIONS_COMMON),
            known: Mutex::default(),
            strangers: Mutex::default(),
            over: CancellationToken::new(),
        })
    }

    /// Waits until another connection may be accepted at all.
    pub(super) async fn socket(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.sockets).acquire_owned().await.ok()
    }

    /// The place of a new connection, which is a stranger's.
    pub(super) fn enter(self: &Arc<Self>, socket: OwnedSemaphorePermit) -> Arc<Place> {
        let over = self.over.child_token();
        let claim = Mutex::default();
        let place = Arc::new(Place { clients: Arc::clone(self), over, claim, _socket: socket });
        let mut strangers = lock(&self.strangers);
        strangers.retain(|other| other.strong_count() > 0);
        if strangers.len() >= STRANGERS
            && let Some(first) = strangers.pop_front().and_then(|first| first.upgrade())
        {
            first.over.cancel();
        }
        strangers.push_back(Arc::downgrade(&place));
        place
    }

    /// Ends every connection.
    pub(super) fn end(&self) {
        self.over.cancel();
    }

    fn client(&self, name: &str) -> Arc<Client> {
        let mut known = lock(&self.known);
        if let Some(client) = known.get(name).and_then(Weak::upgrade) {
            return client;
        }
        known.retain(|_, client| client.strong_count() > 0);
        // The administrator may have what the others leave, and half of it is never theirs.
        let sessions = if name.is_empty() { SESSIONS } else { SESSIONS_EACH };
        let own = Share::new(CONNECTIONS_EACH, BYTES_EACH, sessions);
        let common = (!name.is_empty()).then(|| Arc::clone(&self.common));
        let client = Arc::new(Client { own, common, turn: Semaphore::new(1) });
        known.insert(name.to_owned(), Arc::downgrade(&client));
        client
    }
}

/// What the client of a user is called: a service account's namespace, and nothing for the administrator, whose name
/// no namespace has.
fn name(user: &User) -> &str {
    let account = user.name.strip_prefix("system:serviceaccount:");
    account.and_then(|account| account.split(':').next()).unwrap_or_default()
}

impl Place {
    /// Makes the connection this user's, whosever it was.
    pub(super) fn claim(self: &Arc<Self>, user: &User) -> Result<Arc<Client>, Busy> {
        let name = name(user);
        let mut claim = lock(&self.claim);
        if let Some(claim) = claim.as_ref().filter(|claim| claim.name == name) {
            return Ok(Arc::clone(&claim.client));
        }
        let client = self.clients.client(name);
        let permits = client.take(1, |share| &share.connections).ok_or(Busy)?;
        if claim.is_none() {
            let own = Arc::as_ptr(self);
            lock(&self.clients.strangers).retain(|other| other.as_ptr() != own);
        }
        *claim = Some(Claim { name: name.to_owned(), client: Arc::clone(&client), _permits: permits });
        Ok(client)
    }

    /// Waits until the connection has to end.
    pub(super) async fn over(&self) {
        self.over.cancelled().await;
    }
}

impl Client {
    /// What may be had of its own share and of the common one, or neither.
    fn take(
        &self,
        count: u32,
        of: impl Fn(&Share) -> &Arc<Semaphore>,
    ) -> Option<[Option<OwnedSemaphorePermit>; 2]> {
        let take = |share: &Share| Arc::clone(of(share)).try_acquire_many_owned(count).ok();
        let own = take(&self.own)?;
        match &self.common {
            None => Some([Some(own), None]),
            Some(common) => Some([Some(own), Some(take(common)?)]),
        }
    }

    /// Room for an answer that is there, if there is any. One larger than all there is takes that.
    pub(super) fn room(&self, bytes: usize) -> Result<Room, Busy> {
        self.take(count(bytes), |share| &share.bytes).map(|permits| Room { permits }).ok_or(Busy)
    }

    /// Waits for room for the largest object: a write has one in its request, and another one in its answer, which
    /// comes when it is too late to refuse.
    pub(super) async fn room_to_write(&self) -> Result<Room, Busy> {
        let take = |share: &Share| Arc::clone(&share.bytes).acquire_many_owned(count(BODY_LIMIT));
        let both = async {
            let own = take(&self.own).await.ok();
            let common = match &self.common {
                Some(common) => take(common).await.ok(),
                None => None,
            };
            Room { permits: [own, common] }
        };
        timeout(ROOM, both).await.map_err(|_| Busy)
    }

    /// Room for one more session in a container.
    pub(super) fn session(&self) -> Result<Room, Busy> {
        self.take(1, |share| &share.sessions).map(|permits| Room { permits }).ok_or(Busy)
    }

    /// Waits until none of its other requests is in the kernel.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turn.acquire().await.ok()
    }
}

/// As many permits as there are bytes, but no more than everything.
fn count(bytes: usize) -> u32 {
    u32::try_from(bytes.min(BYTES_EACH)).unwrap_or(u32::MAX)
}

impl Room {
    /// Gives back all but so many bytes.
    fn shrink(&mut self, bytes: usize) {
        for permit in self.permits.iter_mut().flatten() {
            // What is split off is given back at once.
            drop(permit.split(permit.num_permits().saturating_sub(bytes)));
        }
    }
}

/// An answer to a write, in the room it has.
pub(super) fn written(response: Response<ResponseBody>, mut room: Room) -> Response<ResponseBody> {
    room.shrink(size(&response));
    response.map(|body| slices(body, room))
}

/// An answer to a read: refused where there is no room for it, as nothing has happened yet.
pub(super) fn read(response: Response<ResponseBody>, client: &Client) -> Response<ResponseBody> {
    match client.room(size(&response)) {
        Ok(room) => response.map(|body| slices(body, room)),
        Err(Busy) => busy().map(whole),
    }
}

/// Room for what a watch begins with; None in this process, which bounds itself.
pub(super) fn room_for<B>(request: &Request<B>, plan: &WatchPlan) -> Result<Option<Room>, Busy> {
    let client = request.extensions().get::<Arc<Client>>();
    client.map(|client| client.room(plan.initial.iter().map(Vec::len).sum())).transpose()
}

/// A stream has none.
fn size(response: &Response<ResponseBody>) -> usize {
    response.body().size_hint().exact().and_then(|size| usize::try_from(size).ok()).unwrap_or_default()
}

/// The refusal of who has too much, which Kubernetes' clients heed.
pub(super) fn busy() -> Response<Vec<u8>> {
    let failure = Failure {
        code: 429,
        reason: "TooManyRequests",
        message:
            "the client has as many connections, or as much in them, as it may have; please try again later"
                .into(),
        details: Box::new(json!({ "retryAfterSeconds": 1 })),
    };
    let mut response = refuse(StatusCode::TOO_MANY_REQUESTS, &failure);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// A refusal outside of the kernel.
pub(super) fn refuse(code: StatusCode, failure: &Failure) -> Response<Vec<u8>> {
    let mut response = Response::new(failure.to_value().to_string().into_bytes());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A body that has its room for as long as any of it is here. The connection would take all of a large one at once.
struct Slices {
    body: ResponseBody,
    rest: Bytes,
    _room: Room,
}

fn slices(body: ResponseBody, room: Room) -> ResponseBody {
    Slices { body, rest: Bytes::new(), _room: room }.boxed_unsync()
}

impl Body for Slices {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.rest.is_empty() {
            let frame = match Pin::new(&mut self.body).poll_frame(task) {
                Poll::Ready(Some(Ok(frame))) => frame,
                other => return other,
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            }
        }
        let length = self.rest.len().min(SLICE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

#[cfg(test)]
mod tests;
