//! Runs commands in containers for the API server: a shim per command joins the container, and its streams come back
//! here. What the shim is to do and how it ended lies in a directory of the command's own, below the container's.

use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use nix::sys::signal::Signal;
use ropewalk_apiserver::ExecRequest;
use ropewalk_kubelet::env;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::termios::{Winsize, tcsetwinsize};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::container::SHIM_COMMAND;
use super::files::Process;
use super::{descriptor, files, instance, logs, shim};
use crate::server::{Executor, Session};

/// Directory of the commands run in an attempt of a container, below the attempt's.
pub(super) const COMMANDS: &str = "exec";
/// [`Wanted`], in the directory of a command.
pub(super) const WANTED: &str = "wanted.json";
/// [`Ended`].
pub(super) const ENDED: &str = "ended.json";
/// The socket over which the command's terminal comes.
pub(super) const CONSOLE: &str = "console";

/// Exit code of a command that was killed, as shells tell it.
const KILLED: i32 = 137;

/// How often a command whose client has gone is looked for and killed, and the wait in between: the shim may be about to
/// start it.
const KILL_ROUNDS: u32 = 50;
const KILL_PAUSE: Duration = Duration::from_millis(100);

/// What the shim of a command is to do.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Wanted {
    /// The command and its arguments.
    pub(super) command: Vec<String>,
    /// Whether it gets a terminal.
    pub(super) tty: bool,
}

/// Its exit code, or why it could not be run.
pub(super) type Ended = Result<i32, String>;

/// Runs commands in the containers of the node with this data directory.
pub struct Commands {
    data_dir: PathBuf,
    shim_exe: PathBuf,
    count: AtomicU64,
}

impl Commands {
    /// Commands in the containers of the node that runs with `data_dir`, now or later, and `shim_exe`.
    pub fn new(data_dir: impl Into<PathBuf>, shim_exe: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), shim_exe: shim_exe.into(), count: AtomicU64::new(0) }
    }
}

impl Executor for Commands {
    fn start(&self, request: ExecRequest) -> BoxFuture<'static, Result<Session, String>> {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{count}", std::process::id());
        let (data_dir, shim_exe) = (self.data_dir.clone(), self.shim_exe.clone());
        async move {
            let container = &request.container;
            let attempt = running(&data_dir, &request).ok_or_else(|| {
                // It ended, or another one began, since the API server looked.
                format!("container not found ({container:?})")
            })?;
            let directory = attempt.join(COMMANDS).join(name);
            start(&shim_exe, directory, request).await.map_err(|error| error.to_string())
        }
        .boxed()
    }
}

/// Ends the commands that an earlier process ran in the containers of this directory: their clients are gone.
pub(super) fn end_orphans(data_dir: &Path) {
    let mut left = orphans(data_dir);
    for _ in 0..KILL_ROUNDS {
        for (shim, _) in &left {
            for command in Process::children_of(shim.pid) {
                command.signal(Signal::SIGKILL);
            }
        }
        left.retain(|(shim, directory)| {
            let runs = shim.is_alive();
            if !runs {
                // What cannot be removed now goes with its container.
                let _ = fs::remove_dir_all(directory);
            }
            runs
        });
        if left.is_empty() {
            return;
        }
        std::thread::sleep(instance::KILL_PAUSE);
    }
}

/// The shims of commands that another process started, and their directories.
fn orphans(data_dir: &Path) -> Vec<(Process, PathBuf)> {
    // Before there are pods nobody ran a command in one, and `/proc` need not be read.
    if !data_dir.join(logs::PODS).exists() {
        return Vec::new();
    }
    let own = format!("{}-", std::process::id());
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let found = pids.filter_map(|pid| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let mut words = line.split('\0').skip(1);
        (words.next() == Some(SHIM_COMMAND) && words.next() == Some(shim::COMMAND)).then_some(())?;
        let directory = PathBuf::from(words.next()?);
        let others = !directory.file_name()?.to_str()?.starts_with(&own);
        (others && directory.starts_with(data_dir)).then_some((Process::of(pid)?, directory))
    });
    found.collect()
}

/// The directory of the attempt of a container that runs.
fn running(data_dir: &Path, request: &ExecRequest) -> Option<PathBuf> {
    let container = logs::container_dir(data_dir, &request.uid, &request.container);
    let attempts = fs::read_dir(&container).ok()?.flatten();
    let latest = attempts.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max()?;
    let directory = container.join(latest.to_string());
    let runs = directory.join(files::STARTED).exists() && !directory.join(files::EXIT).exists();
    runs.then_some(directory)
}

async fn start(shim_exe: &Path, directory: PathBuf, request: ExecRequest) -> io::Result<Session> {
    let ExecRequest { command, streams, tty, .. } = request;
    let place = directory.clone();
    let prepared = spawn_blocking(move || prepare(&place, &Wanted { command, tty })).await;
    let listener = prepared.map_err(io::Error::other)??;
    let pipe = |wanted: bool| if wanted && !tty { Stdio::piped() } else { Stdio::null() };
    let mut child = Command::new(shim_exe)
        .args([SHIM_COMMAND, shim::COMMAND])
        .arg(&directory)
        .current_dir("/")
        .env_clear()
        .env("PATH", env::DEFAULT_PATH)
        .stdin(pipe(streams.stdin))
        .stdout(pipe(streams.stdout))
        .stderr(pipe(streams.stderr))
        .spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let over = CancellationToken::new();
    let (sender, mut end) = oneshot::channel();
    let unwanted = over.clone();
    tokio::spawn(async move {
        // Fails when nobody waits for the end any more.
        let _ = sender.send(follow(child, directory, unwanted).await);
    });
    let guard = over.drop_guard();
    let master = match listener {
        None => None,
        Some(listener) => tokio::select! {
            master = receive(&listener) => Some(Arc::new(descriptor::duplex(master?)?)),
            ended = &mut end => {
                let why = ended.ok().and_then(Result::err);
                return Err(io::Error::other(why.unwrap_or_else(|| "it has no terminal".to_owned())));
            }
        },
    };
    let exit = async move {
        let _guard = guard;
        end.await.unwrap_or(Ok(KILLED))
    };
    let session = Session { stdin: None, stdout: None, stderr: None, resize: None, exit: exit.boxed() };
    Ok(match master {
        None => Session {
            stdin: stdin.map(|pipe| Box::pin(pipe) as _),
            stdout: stdout.map(|pipe| Box::pin(pipe) as _),
            stderr: stderr.map(|pipe| Box::pin(pipe) as _),
            ..session
        },
        Some(master) => Session {
            stdin: streams.stdin.then(|| Box::pin(Terminal(Arc::clone(&master))) as _),
            stdout: streams.stdout.then(|| Box::pin(Terminal(Arc::clone(&master))) as _),
            resize: Some(Box::new(move |columns, rows| {
                let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                // Fails when the command has ended.
                let _ = tcsetwinsize(master.get_ref(), size);
            })),
            ..session
        },
    })
}

/// Makes the directory of a command and what its shim needs in there.
fn prepare(directory: &Path, wanted: &Wanted) -> io::Result<Option<UnixListener>> {
    // An earlier process with the same id may have left it behind.
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(directory)?,
    }
    files::write_json(&directory.join(WANTED), wanted)?;
    if !wanted.tty {
        return Ok(None);
    }
    // The address of a socket has room for 108 bytes, fewer than the directory's name has.
    let opened = File::open(directory)?;
    let address = format!("/proc/self/fd/{}/{CONSOLE}", opened.as_raw_fd());
    UnixListener::bind(address).map(Some)
}

/// Waits for the end of a command; one that nobody wants any more is killed.
async fn follow(mut child: Child, directory: PathBuf, unwanted: CancellationToken) -> Ended {
    let gone = tokio::select! {
        _ = child.wait() => true,
        () = unwanted.cancelled() => false,
    };
    if !gone {
        kill(&mut child).await;
    }
    let ended = spawn_blocking(move || {
        let ended = files::read_json::<Ended>(&directory.join(ENDED));
        if let Err(error) = fs::remove_dir_all(&directory) {
            tracing::warn!(directory = %directory.display(), %error, "what a command left cannot be removed");
        }
        ended
    });
    match ended.await {
        Ok(Ok(Some(ended))) => ended,
        // Its shim was killed: the container has ended, and took along what ran in it.
        _ => Ok(KILLED),
    }
}

async fn kill(child: &mut Child) {
    let Some(shim) = child.id().and_then(|id| i32::try_from(id).ok()) else { return };
    for _ in 0..KILL_ROUNDS {
        let killed = spawn_blocking(move || {
            for command in Process::children_of(shim) {
                command.signal(Signal::SIGKILL);
            }
        });
        // Fails only when the runtime ends.
        let _ = killed.await;
        if tokio::time::timeout(KILL_PAUSE, child.wait()).await.is_ok() {
            return;
        }
    }
    let _ = child.kill().await;
}

/// The command's terminal, as the runtime sends it.
async fn receive(listener: &UnixListener) -> io::Result<OwnedFd> {
    let (stream, _) = listener.accept().await?;
    loop {
        stream.readable().await?;
        match stream.try_io(Interest::READABLE, || receive_from(&stream)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => return received,
        }
    }
}

fn receive_from(stream: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    // The text is the terminal's name in the container, which is of no use here.
    let mut name = [0; 256];
    let buffers = &mut [io::IoSliceMut::new(&mut name)];
    rustix::net::recvmsg(stream, buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let received = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let master = received.ok_or_else(|| io::Error::other("the runtime sent no terminal"))?;
    rustix::io::ioctl_fionbio(&master, true)?;
    Ok(master)
}

/// Our end of a terminal.
struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(context))?;
            let read = ready.try_io(|master| {
                rustix::io::read(master.get_ref(), buffer.initialize_unfilled()).map_err(io::Error::from)
            });
            match read {
                Ok(Ok(length)) => buffer.advance(length),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_) => continue,
            }
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(context))?;
            let written =
                ready.try_io(|master| rustix::io::write(master.get_ref(), bytes).map_err(io::Error::from));
            if let Ok(written) = written {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
