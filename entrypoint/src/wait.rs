//! Waiting for the files that say it is this step's turn.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use ropewalk_entrypoint_protocol::paths::ERR_SUFFIX;

use crate::signals::{Signals, poll_resumed};

/// Time between looks at a watched directory, in milliseconds: the net below inotify, which is silent
/// on network file systems and some sandboxes. One second is what upstream polls at.
const WATCHED_POLL_MILLIS: u16 = 1000;

/// Time between looks when no watch could be had (the limit on inotify instances is per user, and one
/// is held by each waiting step); each look costs two `stat` calls.
const UNWATCHED_POLL_MILLIS: u16 = 100;

/// Why waiting failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WaitError {
    #[error("looking at wait file {path:?}")]
    Look { path: PathBuf, source: io::Error },
    #[error("waiting for {path:?}")]
    Poll { path: PathBuf, source: io::Error },
}

/// How waiting ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// All files are there.
    Ready,
    /// An earlier step failed.
    EarlierStepFailed,
    /// This signal asked us to end before our turn came.
    Interrupted(i32),
}

/// Waits until each file exists (and, with `content`, is not empty), or a file of that name ending in
/// `.err` does.
pub(crate) fn for_files(files: &[String], content: bool, signals: &Signals) -> Result<Waited, WaitError> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok();
    for file in files {
        match for_file(Path::new(file), content, inotify.as_ref(), signals)? {
            Waited::Ready => {}
            other => return Ok(other),
        }
    }
    Ok(Waited::Ready)
}

fn for_file(
    file: &Path,
    content: bool,
    inotify: Option<&Inotify>,
    signals: &Signals,
) -> Result<Waited, WaitError> {
    let mut failed = file.as_os_str().to_owned();
    failed.push(ERR_SUFFIX);
    let failed = PathBuf::from(failed);
    let mut watched = false;
    loop {
        // Watch first and look second, or a file created in between would be noticed a second late.
        watched = watched || inotify.is_some_and(|inotify| watch(inotify, file));
        if size(file)?.is_some_and(|size| !content || size > 0) {
            return Ok(Waited::Ready);
        }
        if size(&failed)?.is_some() {
            return Ok(Waited::EarlierStepFailed);
        }
        sleep(inotify, watched, signals)
            .map_err(|source| WaitError::Poll { path: file.to_owned(), source })?;
        while let Some(signal) =
            signals.next().map_err(|source| WaitError::Poll { path: file.to_owned(), source })?
        {
            if ends_waiting(signal) {
                return Ok(Waited::Interrupted(signal));
            }
        }
    }
}

/// Sleeps until a file event, a signal, or the next look is due.
fn sleep(inotify: Option<&Inotify>, watched: bool, signals: &Signals) -> io::Result<()> {
    let timeout = if watched { WATCHED_POLL_MILLIS } else { UNWATCHED_POLL_MILLIS };
    let signal_fd = PollFd::new(signals.as_fd(), PollFlags::POLLIN);
    match inotify {
        Some(inotify) => {
            let mut fds = [signal_fd, PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
            poll_resumed(&mut fds, PollTimeout::from(timeout))?;
            // The events only say "look again"; an empty queue is EAGAIN.
            let _ = inotify.read_events();
        }
        None => poll_resumed(&mut [signal_fd], PollTimeout::from(timeout))?,
    }
    Ok(())
}

/// Watches the directory of a file; false while that directory does not exist.
///
/// Renames count because a kubelet publishes downward API files by swapping a link beside them.
fn watch(inotify: &Inotify, file: &Path) -> bool {
    let events = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_CLOSE_WRITE;
    file.parent().is_some_and(|directory| inotify.add_watch(directory, events).is_ok())
}

fn size(path: &Path) -> Result<Option<u64>, WaitError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(WaitError::Look { path: path.to_owned(), source }),
    }
}

/// Whether a signal that comes before the command exists ends the step: those that ask a process to
/// end. There is nothing to forward the others to.
fn ends_waiting(signal: i32) -> bool {
    matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGQUIT | libc::SIGHUP)
}
