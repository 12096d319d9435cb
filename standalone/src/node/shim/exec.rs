//! Runs a further command in a running container, as the user and with the environment, limits and capabilities of its
//! first process: for probes, and for clients of `pods/exec`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use ropewalk_api::errors::chain;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::{Value, json};

use super::seccomp::{self, Confined};
use super::{ShimError, runtime, signals};
use crate::node::RuntimeKind;
use crate::node::exec::{COMMANDS, CONSOLE, ENDED, Ended, WANTED, Wanted};
use crate::node::files::{self, ShimConfig};

/// Runs what a command's directory says, and writes there how it ended.
pub(super) fn command(directory: &Path) -> io::Result<()> {
    let run = || {
        let path = directory.join(WANTED);
        let wanted: Wanted = files::read_json(&path)
            .and_then(|found| found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)))
            .map_err(|source| ShimError::Config { path, source })?;
        let attempt = directory.ancestors().nth(2).unwrap_or(directory);
        run(attempt, directory, &wanted)
    };
    let ended: Ended = run().map_err(|error| chain(&error));
    files::write_json(&directory.join(ENDED), &ended)
}

/// Runs a command of a probe in the container of an attempt; the answer is its exit code.
pub(super) fn probe(attempt: &Path, command: Vec<String>) -> Result<i32, ShimError> {
    let directory = attempt.join(COMMANDS).join(format!("probe-{}", std::process::id()));
    fs::create_dir_all(&directory).map_err(ShimError::State)?;
    let ended = run(attempt, &directory, &Wanted { command, tty: false });
    fs::remove_dir_all(&directory).map_err(ShimError::State)?;
    ended
}

fn run(attempt: &Path, directory: &Path, wanted: &Wanted) -> Result<i32, ShimError> {
    let streams = |errno: Errno| ShimError::Streams(errno.into());
    signals::reset().map_err(streams)?;
    umask(Mode::from_bits_truncate(0o022));
    // What the runtime's helpers leave is ours to reap, and with runc that is the command itself.
    nix::sys::prctl::set_child_subreaper(true).map_err(streams)?;
    let path = attempt.join(files::SHIM);
    let config: ShimConfig = files::read_json(&path)
        .and_then(|found| found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)))
        .map_err(|source| ShimError::Config { path, source })?;
    let (confined, bundle) = match &config.runtime {
        RuntimeKind::Builtin => seccomp::confined(attempt).map_err(ShimError::State)?,
        RuntimeKind::Runc(_) => (None, attempt.to_owned()),
    };
    let document = process(&bundle, wanted).map_err(ShimError::State)?;
    // It need not lie on disk, and the runtimes read it by its name.
    let document_path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), document.as_raw_fd()));
    // The command inherits where this process is: its container's limits are to hold for it too.
    for cgroup in &config.cgroups {
        fs::write(cgroup.join("cgroup.procs"), "0").map_err(ShimError::Cgroup)?;
    }
    let state = attempt.join(files::STATE);
    let pid = match &config.runtime {
        RuntimeKind::Builtin => {
            let console = wanted.tty.then(|| directory.join(CONSOLE));
            start_builtin(&state, &config.id, &document_path, console, confined)?
        }
        RuntimeKind::Runc(runc) => {
            let pid = start_runc(runc, &state, &config.id, &document_path, directory, wanted.tty)?;
            // It put the command where it believes the container is.
            for cgroup in &config.cgroups {
                // Fails if the command has ended already.
                let _ = fs::write(cgroup.join("cgroup.procs"), pid.to_string());
            }
            pid
        }
    };
    wait(pid)
}

fn wait(pid: Pid) -> Result<i32, ShimError> {
    loop {
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(128 + signal as i32),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(ShimError::State(errno.into())),
        }
    }
}

/// The container's own process with other arguments, as OCI runtimes read it.
fn process(bundle: &Path, wanted: &Wanted) -> io::Result<File> {
    let spec: Option<Value> = files::read_json(&bundle.join(files::CONFIG))?;
    let mut spec = spec.ok_or(io::ErrorKind::NotFound)?;
    let mut process = spec["process"].take();
    process["args"] = json!(wanted.command);
    process["terminal"] = json!(wanted.tty);
    if wanted.tty
        && let Some(variables) = process["env"].as_array_mut()
    {
        // What every client's terminal understands; engines set the same.
        variables.push(json!("TERM=xterm"));
    }
    let mut file = File::from(memfd_create("process", MemfdFlags::CLOEXEC)?);
    file.write_all(process.to_string().as_bytes())?;
    Ok(file)
}

fn start_builtin(
    state: &Path,
    id: &str,
    document: &Path,
    console: Option<PathBuf>,
    confined: Option<Confined>,
) -> Result<Pid, ShimError> {
    let failed = |error: libcontainer::error::LibcontainerError| runtime::classify(&chain(&error));
    super::own_mounts()?;
    runtime::hide_cgroups()?;
    let builder = ContainerBuilder::new(id.to_owned(), SyscallType::default());
    let builder = match confined {
        Some(confined) => builder.with_executor(confined),
        None => builder,
    };
    let pid = builder
        .with_root_path(state)
        .map_err(failed)?
        .with_console_socket(console)
        .validate_id()
        .map_err(failed)?
        .as_tenant()
        .with_process(Some(document))
        .with_detach(true)
        .build()
        .map_err(failed)?;
    Ok(Pid::from_raw(pid.as_raw()))
}

fn start_runc(
    runc: &Path,
    state: &Path,
    id: &str,
    document: &Path,
    directory: &Path,
    tty: bool,
) -> Result<Pid, ShimError> {
    let failed = |source| ShimError::Runc { command: runc.to_owned(), source };
    let mut exec = Command::new(runc);
    // In the command's directory, as a socket's address has room for little more than its name. What runc complains
    // about goes to a file: its streams are handed on to the command.
    exec.current_dir(directory).arg("--root").arg(state).args(["--log", "runc.log"]);
    exec.args(["exec", "--detach", "--pid-file", "pid", "--process"]).arg(document);
    if tty {
        exec.args(["--console-socket", CONSOLE]);
    }
    let status = exec.arg(id).status().map_err(failed)?;
    if !status.success() {
        let said = fs::read_to_string(directory.join("runc.log")).unwrap_or_default();
        return Err(runtime::classify(&format!("{} exec: {status} {}", runc.display(), said.trim())));
    }
    let pid = fs::read_to_string(directory.join("pid")).ok().and_then(|text| text.trim().parse().ok());
    pid.map(Pid::from_raw).ok_or_else(|| ShimError::Create(format!("{} wrote no process id", runc.display())))
}
