//! Starting the step's own command.
//!
//! By `posix_spawn` rather than `std::process`: it can reset the blocked signals without unsafe code,
//! does not copy our page tables, and half of std's process code stays out of the binary.

use std::ffi::{CString, OsString};
use std::io::{self, PipeWriter};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use nix::unistd::Pid;

/// What to start.
pub(crate) struct Invocation<'a> {
    /// The file to execute.
    pub(crate) program: &'a Path,
    /// The name it is called by, and its arguments.
    pub(crate) argv: &'a [String],
    /// Its whole environment.
    pub(crate) env: &'a [(OsString, OsString)],
    /// Descriptors it gets instead of ours.
    pub(crate) outputs: &'a [(RawFd, PipeWriter)],
}

/// Starts a command in a process group of its own, with no signal blocked or ignored. Returns once it
/// is executing, or with the error of `execve`.
pub(crate) fn spawn(invocation: &Invocation<'_>) -> io::Result<Pid> {
    let mut actions = PosixSpawnFileActions::init()?;
    for (target, pipe) in invocation.outputs {
        actions.add_dup2(pipe.as_raw_fd(), *target)?;
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
    )?;
    attributes.set_pgroup(Pid::from_raw(0))?;
    attributes.set_sigmask(&SigSet::empty())?;
    // SIGPIPE is ignored from the start, and ignoring is inherited, from whoever started us too.
    attributes.set_sigdefault(&SigSet::all())?;
    let program = CString::new(invocation.program.as_os_str().as_bytes())?;
    let argv: Vec<_> =
        invocation.argv.iter().map(|text| CString::new(text.as_str())).collect::<Result<_, _>>()?;
    let env: Vec<_> = invocation.env.iter().map(variable).collect::<Result<_, _>>()?;
    Ok(posix_spawn(&*program, &actions, &attributes, &argv, &env)?)
}

fn variable((name, value): &(OsString, OsString)) -> io::Result<CString> {
    let mut text = name.clone();
    text.push("=");
    text.push(value);
    Ok(CString::new(text.into_vec())?)
}
