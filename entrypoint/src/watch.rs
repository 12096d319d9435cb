//! inotify, for waking up when a directory changes.
//!
//! Closing an inotify instance soon after a watch was removed takes the kernel 10 to 25 ms, as it
//! waits for readers of its lists to be gone. A step must not pay that between its turn and its
//! command, nor between its command and the next step: so the watch is removed at once, which is
//! quick, and the instance closed later, by when there is nothing left to wait for.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use crate::signals::{Signals, poll_resumed};

/// At most one watch on a directory, and the inotify instance for it.
#[derive(Default)]
pub(crate) struct Watch {
    inotify: Option<Inotify>,
    descriptor: Option<WatchDescriptor>,
}

impl Watch {
    /// Watches a directory in which `file` is to appear; false when it cannot be, because it does not
    /// exist or the user's inotify instances are used up.
    pub(crate) fn set(&mut self, file: &Path) -> bool {
        if self.descriptor.is_some() {
            return true;
        }
        if self.inotify.is_none() {
            self.inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok();
        }
        // Renames count because a kubelet publishes downward API files by swapping a link beside them.
        let events = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CLOSE_WRITE;
        self.descriptor = self
            .inotify
            .as_ref()
            .zip(file.parent())
            .and_then(|(inotify, directory)| inotify.add_watch(directory, events).ok());
        self.descriptor.is_some()
    }

    /// Sleeps until the directory changes, a signal comes, or the time is over.
    pub(crate) fn sleep(&self, signals: &Signals, timeout: PollTimeout) -> io::Result<()> {
        let signal_fd = PollFd::new(signals.as_fd(), PollFlags::POLLIN);
        let Some(inotify) = &self.inotify else { return poll_resumed(&mut [signal_fd], timeout) };
        poll_resumed(&mut [signal_fd, PollFd::new(inotify.as_fd(), PollFlags::POLLIN)], timeout)?;
        // The events only say "look again"; an empty queue is EAGAIN.
        let _ = inotify.read_events();
        Ok(())
    }

    /// Removes the watch and keeps the instance.
    pub(crate) fn clear(&mut self) {
        if let (Some(inotify), Some(descriptor)) = (&self.inotify, self.descriptor.take()) {
            let _ = inotify.rm_watch(descriptor);
        }
    }

    /// Whether there is an instance to close.
    pub(crate) fn is_open(&self) -> bool {
        self.inotify.is_some()
    }

    /// Gives the instance back: they are limited per user, and a command may run for hours.
    pub(crate) fn close(&mut self) {
        self.inotify = None;
    }
}
