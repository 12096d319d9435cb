//! The step's own command while it runs: signals and the timeout are served, its output is copied.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::signals::{Signals, poll_resumed};
use crate::tee::Tee;
use crate::watch::Watch;

/// Longest single wait; longer timeouts take several. `poll` counts milliseconds in 32 bits.
const LONGEST_POLL: Duration = Duration::from_hours(1);

/// Reads of output once the command has ended: its last words fit into a pipe, which one read can
/// empty. More is not waited for, as a background process may go on writing forever.
const LAST_READS: usize = 4;

/// When the inotify instance of the wait is closed: by then that takes the kernel no time.
const WATCH_SETTLES: Duration = Duration::from_millis(100);

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal that was not ours.
    Killed,
    /// By us, because its time was up.
    TimedOut,
}

/// A running command that leads a process group.
pub(crate) struct Child {
    pub(crate) pid: Pid,
}

impl Child {
    /// Forwards signals to the command's group, and copies output, until the command itself has ended;
    /// kills the group when `timeout` has passed. Closes `watch`, which has done its work, in between.
    ///
    /// What other processes write after that is not waited for: they end with the container.
    pub(crate) fn run_to_end(
        &self,
        timeout: Option<Duration>,
        signals: &Signals,
        watch: &mut Watch,
        tees: &mut [Tee],
    ) -> io::Result<End> {
        let mut deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut settled = watch.is_open().then(|| Instant::now() + WATCH_SETTLES);
        let mut timed_out = false;
        loop {
            if let Some(end) = self.reap()? {
                for _ in 0..LAST_READS {
                    wait(PollTimeout::ZERO, signals, tees)?;
                }
                return Ok(if timed_out { End::TimedOut } else { end });
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.signal_group(libc::SIGKILL);
                timed_out = true;
                deadline = None;
            }
            if settled.is_some_and(|settled| settled <= Instant::now()) {
                watch.close();
                settled = None;
            }
            wait(poll_timeout([deadline, settled].into_iter().flatten().min()), signals, tees)?;
            while let Some(signal) = signals.next()? {
                if signal != libc::SIGCHLD {
                    self.signal_group(signal);
                }
            }
        }
    }

    /// Collects every child that has ended; says how the command did when it is among them. As process
    /// 1 of the container we inherit orphans, and nobody else would collect them.
    fn reap(&self) -> io::Result<Option<End>> {
        let mut end = None;
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == self.pid => end = Some(End::Exited(code)),
                Ok(WaitStatus::Signaled(pid, _, _)) if pid == self.pid => end = Some(End::Killed),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(end),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends a signal to the command's group. A group that is gone already is no error.
    #[allow(
        unsafe_code,
        reason = "images may ask to be stopped by a real-time signal; nix has no name for it"
    )]
    fn signal_group(&self, signal: i32) {
        // SAFETY: `kill` has no memory effects; a negative id names the group the child leads.
        unsafe {
            libc::kill(-self.pid.as_raw(), signal);
        }
    }
}

/// Waits for a signal or output, and copies the output.
fn wait(timeout: PollTimeout, signals: &Signals, tees: &mut [Tee]) -> io::Result<()> {
    let mut open: Vec<_> = tees.iter_mut().filter(|tee| tee.is_open()).collect();
    let mut fds: Vec<_> = open.iter().map(|tee| PollFd::new(tee.as_fd(), PollFlags::POLLIN)).collect();
    fds.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
    poll_resumed(&mut fds, timeout)?;
    let readable: Vec<_> = fds.iter().map(|fd| fd.any().unwrap_or_default()).collect();
    for (tee, _) in open.iter_mut().zip(readable).filter(|(_, readable)| *readable) {
        tee.copy();
    }
    Ok(())
}

/// Time to `wake` in whole milliseconds, rounded up so that it has passed on waking.
fn poll_timeout(wake: Option<Instant>) -> PollTimeout {
    let Some(wake) = wake else { return PollTimeout::NONE };
    let left = wake.saturating_duration_since(Instant::now()).min(LONGEST_POLL);
    PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
}
