//! Lets an ordinary user's process make mounts and namespaces: it becomes root of a user namespace, and nothing more on
//! the machine than it was. IO: the process itself, `/proc`, `/etc/subuid` and `/etc/subgid`, the data directory.
//!
//! All processes of one data directory share a user namespace for as long as one of them lives, shims and commands alike:
//! what one started, another can end, and files of users that only the namespace has belong to all.

mod ids;
mod missing;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Pid, User, getegid, geteuid};
use ropewalk_images::is_in_user_namespace;

use crate::node::files::{self, Process};
use crate::node::{instance, overlay};
use ids::{Ids, SubIds};
pub use missing::Missing;

/// What is to be said of an id that the namespace lacks.
pub(crate) const NO_IDS: &str = "takes ids that this user has not; add ranges of them for the user to /etc/subuid and /etc/subgid with \"usermod \
     --add-subuids 100000-165535 --add-subgids 100000-165535\", and install newuidmap (package \"uidmap\")";

/// Processes of the data directory that live in its user namespace, besides shims, which are found by their arguments.
const MEMBERS: &str = "user-namespace.json";
/// What may be mounted in `/proc`: itself, and what is made to be covered.
const UNCOVERED: [&str; 3] = ["/proc", "/proc/sys/fs/binfmt_misc", "/proc/fs/nfsd"];

const LOCK: &str = "user-namespace.lock";

/// Why a process cannot become root of a user namespace.
#[derive(Debug, thiserror::Error)]
pub enum RootlessError {
    /// The kernel does not let this user.
    #[error("an ordinary user cannot run containers here: {0}; or run the command as root, with sudo")]
    Missing(Missing),
    /// The data directory cannot be used.
    #[error(
        "cannot {what} \"{path}\"; choose a directory of this user's own with XDG_DATA_HOME, or with --data-dir where \
         that was given"
    )]
    Path {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No overlays.
    #[error(
        "an ordinary user cannot mount overlayfs in \"{0}\"; that takes Linux 5.11, and a directory on ext4, xfs, btrfs or \
         tmpfs: choose one with XDG_DATA_HOME"
    )]
    Overlay(PathBuf, #[source] io::Error),
    /// No `/proc` for containers.
    #[error(
        "an ordinary user cannot mount /proc where \"{0}\" is covered, as it is in containers; run the command outside, or \
         start the container with an open /proc (docker: --security-opt systempaths=unconfined, podman: --security-opt \
         unmask=ALL)"
    )]
    Proc(PathBuf),
    /// The tools that hand out the user's ranges of ids do not.
    #[error(
        "cannot map the ids that /etc/subuid and /etc/subgid have for user {user}: {said}; see to it that newuidmap and \
         newgidmap are setuid root, as the package \"uidmap\" installs them"
    )]
    Ranges {
        /// The user's id.
        user: u32,
        /// What they said.
        said: String,
    },
}

/// Makes this process root of a user namespace and gives it mounts of its own, unless it is root already. It must have one
/// thread. The data directory is made if it is missing.
pub fn enter(data_root: &Path) -> Result<(), RootlessError> {
    if geteuid().is_root() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(data_root).map_err(path("make", data_root))?;
    let data_root = fs::canonicalize(data_root).map_err(path("find", data_root))?;
    // Held until this process is among the members: two that start at once come to share a namespace.
    let _lock = lock(&data_root.join(LOCK))?;
    let members = data_root.join(MEMBERS);
    // What cannot be read names nobody, and shims are found without it.
    let known: Vec<Process> = files::read_json(&members).ok().flatten().unwrap_or_default();
    let mut alive: Vec<Process> = known.into_iter().filter(|process| process.is_alive()).collect();
    let shims = instance::shims_below(&data_root);
    if !alive.iter().chain(&shims).any(|process| join(*process)) {
        make()?;
    }
    unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| RootlessError::Missing(missing::capabilities(errno)))?;
    alive.extend(Process::of(Pid::this().as_raw()));
    files::write_json(&members, &alive).map_err(path("write", &members))
}

/// Tries what containers take, in a process that is root of a user namespace and may have threads. Does nothing elsewhere.
pub(crate) fn probe(data_root: &Path) -> Result<(), RootlessError> {
    if !is_in_user_namespace() {
        return Ok(());
    }
    let covered =
        |at: &PathBuf| at.starts_with("/proc") && !UNCOVERED.iter().any(|known| at == Path::new(known));
    if let Some(covered) = instance::mount_points().into_iter().find(covered) {
        return Err(RootlessError::Proc(covered));
    }
    let directory = data_root.join(format!("probe-{}", Pid::this()));
    fs::create_dir_all(&directory).map_err(path("make", &directory))?;
    let probed =
        overlay::probe(&directory).map_err(|source| RootlessError::Overlay(data_root.to_owned(), source));
    fs::remove_dir_all(&directory).map_err(path("remove", &directory))?;
    probed
}

fn path(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RootlessError {
    move |source| RootlessError::Path { what, path: path.to_owned(), source }
}

fn lock(at: &Path) -> Result<Flock<File>, RootlessError> {
    let file = File::options().create(true).append(true).open(at).map_err(path("open", at))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| path("lock", at)(errno.into()))
}

/// Enters the namespace of another process of this user. Fails for one that is in none, or has just ended.
fn join(process: Process) -> bool {
    let namespace = File::open(format!("/proc/{}/ns/user", process.pid));
    namespace.is_ok_and(|namespace| process.is_alive() && setns(namespace, CloneFlags::CLONE_NEWUSER).is_ok())
}

/// Makes a namespace with the ids that the user may hand out, or else with the user alone.
fn make() -> Result<(), RootlessError> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let name = User::from_uid(geteuid()).ok().flatten().map(|user| user.name);
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    let ranges = |path| SubIds::of(&text(path), name.as_deref(), user);
    let (users, groups) = (ranges("/etc/subuid"), ranges("/etc/subgid"));
    if users.is_empty() || groups.is_empty() || !["newuidmap", "newgidmap"].into_iter().all(is_installed) {
        new_namespace()?;
        return write_own(user, group).map_err(|error| {
            let errno = error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
            RootlessError::Missing(missing::capabilities(errno))
        });
    }
    let failed = |said: String| RootlessError::Ranges { user, said };
    let helper = helper(&Ids { own: user, ranges: &users }, &Ids { own: group, ranges: &groups })
        .map_err(|error| failed(error.to_string()))?;
    new_namespace()?;
    let said = release(helper).map_err(|error| failed(error.to_string()))?;
    said.map_or(Ok(()), |said| Err(failed(said)))
}

fn new_namespace() -> Result<(), RootlessError> {
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| RootlessError::Missing(missing::namespaces(errno)))
}

/// What a user may do without anybody's help.
fn write_own(user: u32, group: u32) -> io::Result<()> {
    // The kernel's condition: groups that keep somebody from a file are not to be got rid of.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// A process outside the namespace to come that maps ids into it once it is told to. What does that is setuid root, which it is
/// not inside.
fn helper(users: &Ids<'_>, groups: &Ids<'_>) -> io::Result<Child> {
    let own = Pid::this();
    let script = format!("read -r _ && newuidmap {own} {users} && newgidmap {own} {groups}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
}

/// Tells the helper; returns what it complains about.
fn release(mut helper: Child) -> io::Result<Option<String>> {
    if let Some(mut stdin) = helper.stdin.take() {
        stdin.write_all(b"\n")?;
    }
    let mut said = String::new();
    if let Some(stderr) = &mut helper.stderr {
        stderr.read_to_string(&mut said)?;
    }
    Ok((!helper.wait()?.success()).then(|| said.trim().to_owned()))
}

fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(tool).is_file())
}
