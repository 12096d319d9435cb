//! Waiting for the files that say it is this step's turn.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::poll::PollTimeout;
use ropewalk_entrypoint_protocol::paths::ERR_SUFFIX;

use crate::signals::Signals;
use crate::watch::Watch;

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
pub(crate) fn for_files(
    files: &[String],
    content: bool,
    watch: &mut Watch,
    signals: &Signals,
) -> Result<Waited, WaitError> {
    for file in files {
        let waited = for_file(Path::new(file), content, watch, signals);
        watch.clear();
        match waited? {
            Waited::Ready => {}
            other => return Ok(other),
        }
    }
    Ok(Waited::Ready)
}

fn for_file(file: &Path, content: bool, watch: &mut Watch, signals: &Signals) -> Result<Waited, WaitError> {
    let mut failed = file.as_os_str().to_owned();
    failed.push(ERR_SUFFIX);
    let failed = PathBuf::from(failed);
    let mut timeout = None;
    loop {
        if size(file)?.is_some_and(|size| !content || size > 0) {
            return Ok(Waited::Ready);
        }
        if size(&failed)?.is_some() {
            return Ok(Waited::EarlierStepFailed);
        }
        let poll_error = |source| WaitError::Poll { path: file.to_owned(), source };
        // Not before the second look: a file created just before the watch was set would go unnoticed.
        if let Some(timeout) = timeout {
            watch.sleep(signals, PollTimeout::from(timeout)).map_err(poll_error)?;
        }
        timeout = Some(if watch.set(file) { WATCHED_POLL_MILLIS } else { UNWATCHED_POLL_MILLIS });
        while let Some(signal) = signals.next().map_err(poll_error)? {
            if ends_waiting(signal) {
                return Ok(Waited::Interrupted(signal));
            }
        }
    }
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
