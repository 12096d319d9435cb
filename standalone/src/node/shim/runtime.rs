//! Who makes the container: libcontainer in this very process, or an OCI command line.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::container::{Container, ContainerStatus};
use libcontainer::syscall::syscall::SyscallType;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use ropewalk_api::errors::chain;
use ropewalk_images::is_in_user_namespace;

use super::{ShimError, graft, seccomp};
use crate::node::files;

/// The three standard streams of a container. Never `/dev/null` for output: libcontainer reopens that
/// read-only.
pub(super) struct Stdio3 {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// A container whose first process waits to be started.
pub(super) enum Created {
    Builtin { container: Box<Container>, pid: i32 },
    Runc { command: PathBuf, root: PathBuf, id: String, pid: i32 },
}

impl Created {
    pub(super) fn pid(&self) -> i32 {
        match self {
            Self::Builtin { pid, .. } | Self::Runc { pid, .. } => *pid,
        }
    }
}

const CGROUP_MOUNT: &str = "/sys/fs/cgroup";

/// Makes the container with libcontainer. The caller has one thread and a mount namespace of its own.
pub(super) fn create_builtin(bundle: &Path, id: &str, stdio: Stdio3) -> Result<Created, ShimError> {
    let state = bundle.join(files::STATE);
    fs::create_dir_all(&state)
        .map_err(|source| ShimError::Rootfs { what: "make the state directory", source })?;
    hide_cgroups()?;
    let (confined, bundle) = seccomp::confined(bundle)
        .map_err(|source| ShimError::Rootfs { what: "read the container's document", source })?;
    let failed = |error: libcontainer::error::LibcontainerError| classify(&chain(&error));
    let builder = ContainerBuilder::new(id.to_owned(), SyscallType::default());
    let builder = match confined {
        Some(confined) => builder.with_executor(confined),
        None => builder,
    };
    let container = builder
        .with_root_path(&state)
        .map_err(failed)?
        .with_stdin(stdio.stdin)
        .with_stdout(stdio.stdout)
        .with_stderr(stdio.stderr)
        .validate_id()
        .map_err(failed)?
        .as_init(&bundle)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(failed)?;
    let pid = match container.pid() {
        Some(pid) if container.status() != ContainerStatus::Stopped => pid.as_raw(),
        _ => return Err(ShimError::Create("its first process ended at once".to_owned())),
    };
    Ok(Created::Builtin { container: Box::new(container), pid })
}

/// Hides all cgroups from libcontainer for the rest of this process. It knows only one path for all controllers,
/// so the shim places the container itself; and what libcontainer does to clean up after a failure, killing
/// every process in the cgroup it was given, must not find one.
///
/// Covering the mounts is not enough: it reads the mount table, where what is covered still stands.
pub(super) fn hide_cgroups() -> Result<(), ShimError> {
    let failed = |source: io::Error| ShimError::Rootfs { what: "hide the cgroups", source };
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
    if is_in_user_namespace() {
        return freeze_cgroups(&mounts).map_err(failed);
    }
    let targets = mounts.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup").then_some(())?;
        left.split(' ').nth(4)
    });
    for target in targets.chain([CGROUP_MOUNT]) {
        match umount2(target, MntFlags::MNT_DETACH) {
            // Gone already with the one it was mounted on.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    // An empty tmpfs there is what version 1 looks like to it, with no controller.
    mount(Some("tmpfs"), CGROUP_MOUNT, Some("tmpfs"), MsFlags::empty(), Some("size=4k,mode=0755"))
        .map_err(|errno| failed(errno.into()))
}

/// As [`hide_cgroups`], where the machine's mounts cannot be taken away: libcontainer is content with cgroups of version 2 that
/// it may not write.
fn freeze_cgroups(mounts: &str) -> io::Result<()> {
    let unified = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then_some(())?;
        left.split(' ').nth(4)
    });
    let unified = unified.ok_or_else(|| {
        io::Error::other(
            "no cgroups of version 2 are mounted, without which an ordinary user needs --runtime runc",
        )
    })?;
    mount(Some(unified), CGROUP_MOUNT, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    graft::seal(Path::new(CGROUP_MOUNT))
}

/// Whether the command or the container is at fault; the runtimes only tell by their words.
pub(super) fn classify(text: &str) -> ShimError {
    let words = ["not found in $PATH", "executable", "permission", "exec format", "chdir"];
    if words.iter().any(|word| text.contains(word)) {
        ShimError::Start(text.to_owned())
    } else {
        ShimError::Create(text.to_owned())
    }
}

/// Makes the container with the command `runc`.
pub(super) fn create_runc(
    command: &Path,
    bundle: &Path,
    id: &str,
    stdio: Stdio3,
) -> Result<Created, ShimError> {
    let root = bundle.join(files::STATE);
    let pid_file = bundle.join("pid");
    let log = bundle.join("runc.log");
    let mut create = Command::new(command);
    // Its complaints go to a file of their own: its streams are handed on to the container.
    create.arg("--root").arg(&root).arg("--log").arg(&log).arg("create").arg("--bundle").arg(bundle);
    create.arg("--pid-file").arg(&pid_file).arg(id);
    create.stdin(stdio.stdin).stdout(stdio.stdout).stderr(stdio.stderr);
    create.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let mut child =
        create.spawn().map_err(|source| ShimError::Runc { command: command.to_owned(), source })?;
    drop(create);
    let status = child.wait().map_err(|source| ShimError::Runc { command: command.to_owned(), source })?;
    if !status.success() {
        let said = fs::read_to_string(&log).unwrap_or_default();
        return Err(classify(&format!("{} create: {status} {said}", command.display())));
    }
    let pid = fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok());
    let pid = pid.ok_or_else(|| ShimError::Create(format!("{} wrote no process id", command.display())))?;
    Ok(Created::Runc { command: command.to_owned(), root, id: id.to_owned(), pid })
}

impl Created {
    /// Lets the first process execute the command.
    pub(super) fn start(&mut self) -> Result<(), ShimError> {
        match self {
            Self::Builtin { container, .. } => container.start().map_err(|error| classify(&chain(&error))),
            Self::Runc { command, root, id, .. } => run_runc(command, root, &["start", id]),
        }
    }

    /// Releases what the runtime keeps after the container ended. libcontainer keeps only files in the state
    /// directory; its own `delete` would look for cgroups.
    pub(super) fn release(&self) {
        if let Self::Runc { command, root, id, .. } = self {
            let _ = run_runc(command, root, &["delete", "--force", id]);
        }
    }
}

fn run_runc(command: &Path, root: &Path, arguments: &[&str]) -> Result<(), ShimError> {
    let output = Command::new(command)
        .arg("--root")
        .arg(root)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|source: io::Error| ShimError::Runc { command: command.to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(classify(&format!("{} {}: {}", command.display(), arguments.join(" "), said.trim())))
}
