//! Signals as something to wait for. All are blocked from the start and read from a descriptor, so
//! that one `poll` covers signals, files and timeouts, and no handler ever runs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals of this process.
pub(crate) struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Blocks every signal that can be blocked. As process 1 of a container this also makes SIGTERM
    /// count, which the kernel would otherwise drop.
    pub(crate) fn block() -> io::Result<Self> {
        let all = SigSet::all();
        all.thread_block()?;
        let fd = SignalFd::with_flags(&all, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Signals { fd })
    }

    /// The number of the next pending signal, if there is one.
    pub(crate) fn next(&self) -> io::Result<Option<i32>> {
        let info = self.fd.read_signal()?;
        Ok(info.and_then(|info| i32::try_from(info.ssi_signo).ok()))
    }
}

/// `poll`, for which being stopped and resumed counts as a timeout.
pub(crate) fn poll_resumed(fds: &mut [PollFd<'_>], timeout: PollTimeout) -> io::Result<()> {
    match poll(fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
