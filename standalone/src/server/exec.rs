//! Commands in containers, over WebSocket: the streams of `kubectl exec` as channels of one connection, and so the output of
//! the container itself for `kubectl attach`.
//!
//! A message begins with the number of its channel. Protocol v5 lets the client close one, v4 cannot. SPDY, which
//! kubectl spoke before 1.31 and falls back to, is refused: HTTP/2's ancestor has no maintained implementation left
//! outside of Kubernetes.

use std::{io, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    SinkExt as _, StreamExt as _,
    future::{BoxFuture, join},
    stream::{BoxStream, SplitSink, SplitStream},
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use ropewalk_apiserver::{ExecRequest, Failure, exec_status};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_tungstenite::tungstenite::{
    Message, Utf8Bytes,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::{
    ResponseBody,
    clients::{Client, Room},
    websocket::{Offer, Socket},
    whole,
};

/// Sessions at a time. People and scripts open a few; each has two processes, up to half a MB of buffers, and one of the
/// 128 connections of its client, which leaves the others for watches.
pub(super) const SESSIONS: usize = 32;

/// Bytes of a message from a client: kubectl sends 32 KiB of input at a time, clients in other languages what they were
/// given, as a rule a file's page or a script.
const MESSAGE: usize = 256 * 1024;

/// Bytes of output read at once: what kubectl reads at once.
const CHUNK: usize = 32 * 1024;

/// Messages that may wait for a slow client; beyond that the command waits.
const MESSAGES: usize = 4;

/// How long output is awaited after the command has ended: what it wrote is in the pipe already, and a process that it
/// left behind may keep that open for ever.
const DRAIN: Duration = Duration::from_secs(1);

/// The subprotocols, best first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// What can be read from a command.
pub type Output = Pin<Box<dyn AsyncRead + Send>>;
/// Where a command's input goes; dropping it is the end of the input.
pub type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// Runs commands in containers.
pub trait Executor: Send + Sync {
    /// Starts a command; the kernel has seen that its container runs. An error is for the client to read.
    fn start(&self, request: ExecRequest) -> BoxFuture<'static, Result<Session, String>>;
}

/// A command that runs, and this server's ends of what the client asked for.
pub struct Session {
    /// Its input.
    pub stdin: Option<Input>,
    /// Its output, and with a terminal all of it.
    pub stdout: Option<Output>,
    /// Its complaints.
    pub stderr: Option<Output>,
    /// Sets the size of its terminal, in columns and rows.
    pub resize: Option<Box<dyn Fn(u16, u16) + Send>>,
    /// Its exit code, or why it could not be run. Dropped, it ends the command.
    pub exit: BoxFuture<'static, Result<i32, String>>,
}

/// The size of a client's window.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// An executor, and the room for its sessions.
pub(super) struct Runner {
    executor: Arc<dyn Executor>,
    room: Arc<Semaphore>,
}

impl Runner {
    pub(super) fn new(executor: Arc<dyn Executor>) -> Self {
        Self { executor, room: Arc::new(Semaphore::new(SESSIONS)) }
    }
}

/// What a session needs: the change of protocol that a client offers, and room.
pub(super) struct Door {
    executor: Arc<dyn Executor>,
    offer: Offer,
    protocol: &'static str,
    room: (OwnedSemaphorePermit, Option<Room>),
}

/// Lets in who wants a session, or says why not.
pub(super) fn door<B>(
    runner: Option<&Runner>,
    request: &Request<B>,
) -> Result<Door, Box<Response<ResponseBody>>> {
    let refuse = |code, reason, why: &str| Err(Box::new(refusal(code, reason, why)));
    let Some(Runner { executor, room }) = runner else {
        let why = "this server has no containers to run commands in";
        return refuse(StatusCode::NOT_IMPLEMENTED, "NotImplemented", why);
    };
    let Some(offer) = Offer::of(request) else {
        let why = "commands are run over WebSocket (v5.channel.k8s.io or v4.channel.k8s.io), and SPDY is not served: \
                   use kubectl 1.31 or later, or 1.29 and 1.30 with KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true";
        return refuse(StatusCode::BAD_REQUEST, "BadRequest", why);
    };
    let Some(protocol) = protocol(request.headers()) else {
        let why = format!("the WebSocket must offer one of the subprotocols {}", PROTOCOLS.join(", "));
        return refuse(StatusCode::BAD_REQUEST, "BadRequest", &why);
    };
    let client = request.extensions().get::<Arc<Client>>();
    let own = client.map(|client| client.session()).transpose();
    let (Ok(room), Ok(own)) = (Arc::clone(room).try_acquire_owned(), own) else {
        let why = "as many commands run in containers as may at once, for you or for all: try again when one has ended";
        return refuse(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", why);
    };
    Ok(Door { executor: Arc::clone(executor), offer, protocol, room: (room, own) })
}

impl Door {
    /// Runs a command.
    pub(super) fn run(self, request: ExecRequest) -> Response<ResponseBody> {
        let Self { executor, offer, protocol, room } = self;
        offer.accept(Some(protocol), MESSAGE, async move |socket| {
            note(converse(socket, &*executor, request).await);
            drop(room);
        })
    }

    /// Hands on what a container writes.
    pub(super) fn attach(self, output: BoxStream<'static, io::Result<Bytes>>) -> Response<ResponseBody> {
        let Self { offer, protocol, room, .. } = self;
        offer.accept(Some(protocol), MESSAGE, async move |socket| {
            note(listen(socket, output).await);
            drop(room);
        })
    }
}

fn note(ended: io::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "the client of a command has gone");
    }
}

/// Sends a container's output until it ends or the client goes.
async fn listen(socket: Socket, mut output: BoxStream<'static, io::Result<Bytes>>) -> io::Result<()> {
    let (mut to, mut from) = socket.split();
    send(&mut to, STDOUT, &[]).await?;
    let ended = loop {
        tokio::select! {
            chunk = output.next() => match chunk {
                Some(Ok(bytes)) => {
                    for part in bytes.chunks(CHUNK) {
                        send(&mut to, STDOUT, part).await?;
                    }
                }
                Some(Err(error)) => break Err(error.to_string()),
                None => break Ok(0),
            },
            gone = take(&mut from, None, None) => return Err(gone),
        }
    };
    finish(to, from, &ended).await
}

fn refusal(code: StatusCode, reason: &'static str, why: &str) -> Response<ResponseBody> {
    let failure = Failure { code: code.as_u16(), reason, message: why.to_owned(), details: Box::default() };
    let mut response = Response::new(whole(Bytes::from(failure.to_value().to_string())));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn protocol(headers: &HeaderMap) -> Option<&'static str> {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let offered: Vec<&str> = offered
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    PROTOCOLS.into_iter().find(|known| offered.contains(known))
}

/// Runs the command for as long as it takes and the client is there.
async fn converse(socket: Socket, executor: &dyn Executor, request: ExecRequest) -> io::Result<()> {
    let (mut to, mut from) = socket.split();
    let answers = if request.streams.stdout { STDOUT } else { ERROR };
    // As kube-apiserver does: clients wait for a sign that the command's streams are there.
    send(&mut to, answers, &[]).await?;
    let ended = match executor.start(request).await {
        Ok(session) => carry(&mut to, &mut from, session).await?,
        Err(why) => Err(why),
    };
    finish(to, from, &ended).await
}

/// Tells the client how it ended, and waits for it to close.
async fn finish(
    mut to: SplitSink<Socket, Message>,
    mut from: SplitStream<Socket>,
    ended: &Result<i32, String>,
) -> io::Result<()> {
    send(&mut to, ERROR, exec_status(ended).to_string().as_bytes()).await?;
    let close = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    to.send(Message::Close(Some(close))).await.map_err(io::Error::other)?;
    // A connection that ends with something unread may take what was sent along.
    let answered = async { while from.next().await.is_some_and(|message| message.is_ok()) {} };
    // Whether it is answered changes nothing.
    let _ = timeout(DRAIN, answered).await;
    Ok(())
}

/// Copies in both directions until the command has ended; an error means that the client has gone.
async fn carry(
    to: &mut SplitSink<Socket, Message>,
    from: &mut SplitStream<Socket>,
    session: Session,
) -> io::Result<Result<i32, String>> {
    let Session { stdin, stdout, stderr, resize, exit } = session;
    let (sender, mut messages) = mpsc::channel(MESSAGES);
    let outputs = join(pump(stdout, STDOUT, sender.clone()), pump(stderr, STDERR, sender));
    let ended = async {
        let mut outputs = std::pin::pin!(outputs);
        let mut exit = exit;
        let ended = tokio::select! {
            ended = &mut exit => ended,
            _ = &mut outputs => return exit.await,
        };
        // Whatever is left open belongs to a process that the command left behind.
        let _ = timeout(DRAIN, outputs).await;
        ended
    };
    let mut ended = std::pin::pin!(ended);
    let mut taken = std::pin::pin!(take(from, stdin, resize));
    loop {
        tokio::select! {
            biased;
            Some((channel, bytes)) = messages.recv() => send(to, channel, &bytes).await?,
            ended = &mut ended => {
                while let Ok((channel, bytes)) = messages.try_recv() {
                    send(to, channel, &bytes).await?;
                }
                return Ok(ended);
            }
            gone = &mut taken => return Err(gone),
        }
    }
}

async fn send(to: &mut SplitSink<Socket, Message>, channel: u8, bytes: &[u8]) -> io::Result<()> {
    let message: Bytes = [&[channel], bytes].concat().into();
    to.send(Message::Binary(message)).await.map_err(io::Error::other)
}

/// Hands on what a command says on one of its streams, until it closes that.
async fn pump(output: Option<Output>, channel: u8, sender: mpsc::Sender<(u8, Bytes)>) {
    let Some(mut output) = output else { return };
    let mut buffer = vec![0; CHUNK];
    // A terminal whose other side is closed says so with an error.
    while let Ok(length @ 1..) = output.read(&mut buffer).await {
        if sender.send((channel, Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
            return;
        }
    }
}

/// Takes what the client says, until it goes.
async fn take(
    from: &mut SplitStream<Socket>,
    mut stdin: Option<Input>,
    resize: Option<Box<dyn Fn(u16, u16) + Send>>,
) -> io::Error {
    loop {
        let bytes = match from.next().await {
            Some(Ok(Message::Binary(bytes))) => bytes,
            // Python's client sends what is text as such, the channel's number before it; kube-apiserver takes both alike.
            Some(Ok(Message::Text(text))) => text.into(),
            Some(Ok(Message::Close(_))) | None => return io::ErrorKind::ConnectionAborted.into(),
            Some(Err(error)) => return io::Error::other(error),
            // Pings are answered by the socket.
            Some(Ok(_)) => continue,
        };
        match bytes.split_first() {
            Some((&STDIN, input)) => {
                let taken = match &mut stdin {
                    Some(stdin) => stdin.write_all(input).await.and(stdin.flush().await),
                    None => Ok(()),
                };
                if taken.is_err() {
                    // The command reads no more, which is its right.
                    stdin = None;
                }
            }
            Some((&RESIZE, size)) => {
                if let (Some(resize), Ok(size)) = (&resize, serde_json::from_slice::<Size>(size)) {
                    resize(size.width, size.height);
                }
            }
            Some((&CLOSE, [STDIN])) => stdin = None,
            _ => {}
        }
    }
}
