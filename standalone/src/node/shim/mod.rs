//! One process per container: it makes the container, owns its streams, writes its log and exit code to disk and
//! outlives the process that started it. It has one thread and no runtime: libcontainer changes the working
//! directory and clones, which no threaded process survives.

mod exec;
mod graft;
mod ids;
mod log;
mod rootfs;
mod runtime;
mod seccomp;
mod signals;
mod volumes;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2, setsid};
use ropewalk_api::errors::chain;
use ropewalk_kubelet::account::AccountError;

use self::log::{Log, Stream};
use self::runtime::{Created, Stdio3};
use super::RuntimeKind;
use super::cgroup::Cgroups;
use super::files::{self, Ended, Failure, Process, ShimConfig, Started};
use crate::rootless::NO_IDS;

/// First argument of the form that runs a probe's command in a running container: `exec <attempt> <command>…`.
pub(super) const EXEC: &str = "exec";

/// First argument of the form that runs what a command's directory says: `command <directory>`.
pub(super) const COMMAND: &str = "command";

/// Exit code for arguments nobody but the node gives.
const USAGE: u8 = 2;

/// Exit code of a command that could not be run in the container, as shells report it.
const EXEC_FAILED: u8 = 126;

/// Exit code of a container that never ran, as container engines report it.
const NEVER_RAN: i32 = 128;

/// How long output is awaited after the container's last process ended: everything it wrote is in the pipe
/// already, only a process outside the container that was handed the pipe could keep it open.
const DRAIN: Duration = Duration::from_secs(1);

/// Bytes read at once: what a pipe holds.
const PIPE: usize = 64 * 1024;

/// What went wrong in a shim; the text ends up in the container's status.
#[derive(Debug, thiserror::Error)]
enum ShimError {
    #[error("shim configuration \"{path}\" cannot be read")]
    Config { path: PathBuf, source: io::Error },
    #[error("root file system: cannot {what}")]
    Rootfs { what: &'static str, source: io::Error },
    #[error("failed to create subPath directory \"{path}\" of a volume")]
    SubPath { path: String, source: io::Error },
    #[error("volume \"{path}\" of the image cannot be made")]
    ImageVolume { path: PathBuf, source: io::Error },
    #[error("working directory \"{path}\" cannot be made")]
    WorkingDir { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Account(AccountError),
    #[error("the container cannot run {what}, which {NO_IDS}")]
    Ids { what: String },
    #[error("cgroup of the container cannot be set up")]
    Cgroup(#[source] io::Error),
    #[error("\"{command}\" cannot be run; install it or use the built-in runtime")]
    Runc { command: PathBuf, source: io::Error },
    #[error("streams of the container cannot be set up")]
    Streams(#[source] io::Error),
    #[error("container cannot be created: {0}")]
    Create(String),
    #[error("container cannot be started: {0}")]
    Start(String),
    #[error("state of the container cannot be written")]
    State(#[source] io::Error),
    #[error("the attempt was given to another supervisor, or to none")]
    Withdrawn,
}

/// Entry point of the hidden subcommand `__shim`; `arguments` are those after it: the directory of the attempt.
/// Must be called before the process has a second thread.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let Some(first) = arguments.next() else { return ExitCode::from(USAGE) };
    if first == EXEC {
        let Some(directory) = arguments.next() else { return ExitCode::from(USAGE) };
        let command = arguments.map(|word| word.to_string_lossy().into_owned()).collect();
        let code = exec::probe(Path::new(&directory), command).ok().and_then(|code| u8::try_from(code).ok());
        return ExitCode::from(code.unwrap_or(EXEC_FAILED));
    }
    if first == COMMAND {
        let Some(directory) = arguments.next() else { return ExitCode::from(USAGE) };
        let written = exec::command(Path::new(&directory));
        return if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let directory = PathBuf::from(first);
    match supervise(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&directory, &chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// The shim has no terminal and no log of its own but this file; if that fails there is no one left to tell.
fn complain(directory: &Path, text: &str) {
    let _ = fs::write(directory.join(files::SHIM_LOG), format!("{text}\n"));
}

fn supervise(directory: &Path) -> Result<(), ShimError> {
    // A terminal's Ctrl-C and hang-up are the main process's business. Fails only for a group leader, which is
    // in a session of its own anyway.
    let _ = setsid();
    // What a container starts with is not to depend on who started the program.
    umask(Mode::from_bits_truncate(0o022));
    signals::reset().map_err(|errno| ShimError::Streams(errno.into()))?;
    let path = directory.join(files::SHIM);
    let config: ShimConfig = files::read_json(&path)
        .and_then(|found| found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)))
        .map_err(|source| ShimError::Config { path, source })?;
    let mut cgroups = None;
    let ended = match run(directory, &config, &mut cgroups) {
        Ok(ended) => ended,
        // What lies here, and the cgroup of this name, are somebody else's now.
        Err(ShimError::Withdrawn) => return Err(ShimError::Withdrawn),
        Err(error) => Ended {
            code: NEVER_RAN,
            oom: false,
            started_at: None,
            finished_at: Timestamp::now(),
            failure: Some(match error {
                ShimError::Start(_) => Failure::Start(chain(&error)),
                _ => Failure::Create(chain(&error)),
            }),
        },
    };
    // First of all, as others wait for it: every process of the container has ended.
    let written = files::write_json(&directory.join(files::EXIT), &ended).map_err(ShimError::State);
    if let Some(cgroups) = cgroups {
        cgroups.remove();
    }
    rootfs::clear(directory);
    written
}

fn run(directory: &Path, config: &ShimConfig, cgroups: &mut Option<Cgroups>) -> Result<Ended, ShimError> {
    prepare(directory, config)?;
    let created = Cgroups::create(&config.cgroups, config.limits).map_err(ShimError::Cgroup)?;
    let cgroups = cgroups.insert(created);
    if config.closes_devices {
        cgroups.close_devices().map_err(ShimError::Cgroup)?;
    }
    contain(directory, config, cgroups)
}

/// Enters a mount namespace of this process's own.
fn own_mounts() -> Result<(), ShimError> {
    let failed = |errno: Errno| ShimError::Rootfs { what: "enter a mount namespace", source: errno.into() };
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed)?;
    // Mounts made here stay here; what the main process unmounts goes away here as well.
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).map_err(failed)
}

fn prepare(directory: &Path, config: &ShimConfig) -> Result<(), ShimError> {
    own_mounts()?;
    let target = directory.join(files::ROOTFS);
    let scratch = directory.join(files::SCRATCH);
    rootfs::mount_rootfs(&config.rootfs, &scratch, config.scratch_bytes, config.read_only, &target)?;
    config.account.iter().try_for_each(|account| rootfs::run_as(account, directory))?;
    ids::check(directory)?;
    config.sub_paths.iter().try_for_each(rootfs::bind_sub_path)?;
    config.image_volumes.iter().try_for_each(|volume| volumes::make(volume, &target))?;
    config.working_dir.iter().try_for_each(rootfs::make_working_dir)
}

fn contain(directory: &Path, config: &ShimConfig, cgroups: &Cgroups) -> Result<Ended, ShimError> {
    let streams = |errno: Errno| ShimError::Streams(errno.into());
    let (out_read, out_write) = pipe2(OFlag::O_CLOEXEC).map_err(streams)?;
    let (err_read, err_write) = pipe2(OFlag::O_CLOEXEC).map_err(streams)?;
    let stdin = File::open("/dev/null").map_err(ShimError::Streams)?;
    let stdio = Stdio3 { stdin: stdin.into(), stdout: out_write, stderr: err_write };
    let mut log = open_log(directory, config)?;

    // Orphans of the runtime's own helpers become ours to reap.
    nix::sys::prctl::set_child_subreaper(true).map_err(streams)?;
    let created = match &config.runtime {
        RuntimeKind::Builtin => runtime::create_builtin(directory, &config.id, stdio),
        RuntimeKind::Runc(command) => runtime::create_runc(command, directory, &config.id, stdio),
    };
    let begun = created.and_then(|mut created| match begin(directory, cgroups, &mut created) {
        Ok((signals, started_at)) => Ok((created, signals, started_at)),
        Err(error) => {
            created.release();
            Err(error)
        }
    });
    // A creation that fails half-way leaves a process that waits for ever to be let go.
    let (created, signals, started_at) = begun.inspect_err(|_| end_children())?;
    let mut supervisor = Supervisor {
        directory,
        grace: Duration::from_secs(config.grace_seconds),
        stop_signal: signals::named(&config.stop_signal),
        pid: Pid::from_raw(created.pid()),
        signals,
        log: &mut log,
        buffer: vec![0; PIPE],
        kill_at: None,
    };
    let watched = supervisor.watch([out_read, err_read]).inspect_err(|_| end_children());
    let code = watched.map_err(ShimError::Streams)?;
    let oom = cgroups.saw_oom_kill();
    created.release();
    Ok(Ended { code, oom, started_at: Some(started_at), finished_at: Timestamp::now(), failure: None })
}

/// Kills and reaps all children of this process; killing the first process of a pid namespace kills the others.
fn end_children() {
    loop {
        for child in Process::children_of(Pid::this().as_raw()) {
            child.signal(Signal::SIGKILL);
        }
        match waitpid(None, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            // There are none.
            Err(_) => return,
        }
    }
}

fn open_log(directory: &Path, config: &ShimConfig) -> Result<Log<File>, ShimError> {
    let file = File::options().append(true).create(true).open(directory.join(files::LOG));
    file.map(|file| Log::new(file, config.log_bytes)).map_err(ShimError::Streams)
}

/// Puts the waiting container into its cgroups, takes over the signals and lets it go.
fn begin(
    directory: &Path,
    cgroups: &Cgroups,
    created: &mut Created,
) -> Result<(SignalFd, Timestamp), ShimError> {
    cgroups.attach(created.pid()).map_err(ShimError::Cgroup)?;
    cgroups.show(created.pid()).map_err(ShimError::Cgroup)?;
    // Only now: the container would inherit the mask.
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGTERM);
    mask.add(Signal::SIGCHLD);
    let streams = |errno: Errno| ShimError::Streams(errno.into());
    mask.thread_block().map_err(streams)?;
    let signals =
        SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(streams)?;
    let gone = || ShimError::State(io::Error::from(io::ErrorKind::NotFound));
    let init = Process::of(created.pid()).ok_or_else(gone)?;
    let shim = Process::of(Pid::this().as_raw()).ok_or_else(gone)?;
    if !files::begin(directory).map_err(ShimError::State)? {
        return Err(ShimError::Withdrawn);
    }
    created.start()?;
    let at = Timestamp::now();
    files::write_json(&directory.join(files::STARTED), &Started { shim, init, at })
        .map_err(ShimError::State)?;
    Ok((signals, at))
}

struct Supervisor<'a> {
    directory: &'a Path,
    grace: Duration,
    /// What asks the container to end.
    stop_signal: Signal,
    pid: Pid,
    signals: SignalFd,
    log: &'a mut Log<File>,
    buffer: Vec<u8>,
    kill_at: Option<Instant>,
}

impl Supervisor<'_> {
    /// Copies output and forwards stop requests until the container has ended; returns its exit code.
    fn watch(&mut self, pipes: [OwnedFd; 2]) -> io::Result<i32> {
        let mut pipes = pipes.map(Some);
        let mut code = self.reap();
        let mut drained_by = code.map(|_| Instant::now() + DRAIN);
        loop {
            if code.is_some() && pipes.iter().all(Option::is_none) {
                break;
            }
            let now = Instant::now();
            if self.kill_at.is_some_and(|at| at <= now) {
                self.kill_at = None;
                let _ = kill(self.pid, Signal::SIGKILL);
            }
            if drained_by.is_some_and(|at| at <= now) {
                break;
            }
            let wake = [self.kill_at, drained_by].into_iter().flatten().min();
            let timeout = wake.map_or(PollTimeout::NONE, |at| {
                // Rounded up, or the loop would spin through the last fraction of a millisecond.
                let left = at.saturating_duration_since(now) + Duration::from_millis(1);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            });
            let ready = {
                let mut waited = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
                waited
                    .extend(pipes.iter().flatten().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
                match poll(&mut waited, timeout) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
                let mut ready = waited.iter().map(|waited| waited.any().unwrap_or(true));
                let signalled = ready.next().unwrap_or(false);
                let ready: Vec<bool> = ready.collect();
                (signalled, ready)
            };
            let mut readable = ready.1.into_iter();
            for (slot, stream) in pipes.iter_mut().zip([Stream::Out, Stream::Err]) {
                if slot.is_some() && readable.next() == Some(true) {
                    self.copy(slot, stream)?;
                }
            }
            if ready.0 {
                while let Some(signal) = self.signals.read_signal()? {
                    if signal.ssi_signo == Signal::SIGTERM as u32 {
                        self.stop();
                    }
                }
                if code.is_none() {
                    code = self.reap();
                    drained_by = code.map(|_| Instant::now() + DRAIN);
                }
            }
        }
        for stream in [Stream::Out, Stream::Err] {
            // A full disk costs the end of the log, not the exit code.
            drop(self.log.end(stream, Timestamp::now()));
        }
        Ok(code.unwrap_or(NEVER_RAN))
    }

    fn copy(&mut self, slot: &mut Option<OwnedFd>, stream: Stream) -> io::Result<()> {
        let Some(pipe) = slot else { return Ok(()) };
        match nix::unistd::read(&*pipe, &mut self.buffer) {
            Ok(0) => *slot = None,
            // A full disk must not stop the container: what cannot be written is lost, the pipe is kept empty.
            Ok(length) => drop(self.log.push(stream, &self.buffer[..length], Timestamp::now())),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// Reaps every child that ended; the container's exit code if its first process is among them.
    fn reap(&self) -> Option<i32> {
        let mut code = None;
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, exit)) if pid == self.pid => code = Some(exit),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.pid => {
                    code = Some(128 + signal as i32);
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return code,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return code,
            }
        }
    }

    /// The stop signal to the container's first process, KILL when its time is over. Killing the first process of a pid
    /// namespace kills all others in it.
    fn stop(&mut self) {
        let asked = files::read_json::<u64>(&self.directory.join(files::STOP)).ok().flatten();
        let grace = asked.map_or(self.grace, Duration::from_secs);
        // The first process of a pid namespace never sees a signal it has no handler for: waiting would be in
        // vain, and a cancelled run would take the whole grace period to go.
        if grace.is_zero() || !self.handles(self.stop_signal) {
            let _ = kill(self.pid, Signal::SIGKILL);
            return;
        }
        let _ = kill(self.pid, self.stop_signal);
        let at = Instant::now() + grace;
        self.kill_at = Some(self.kill_at.map_or(at, |before| before.min(at)));
    }

    fn handles(&self, signal: Signal) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        caught.is_none_or(|mask| mask & (1 << (signal as u32 - 1)) != 0)
    }
}
