//! The directory one running program keeps its containers in, and the removal of what a killed one left.
//!
//! Layout: `<root>/instances/<pid>-<start time>/…`; the directory's `lock` file is locked as long as its owner
//! lives, so that a living instance is never touched.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::files::Process;
use super::{NETWORK, NodeError, cgroup, files};

const LOCK: &str = "lock";
const CGROUPS: &str = "cgroups.json";

/// How often processes of a dead instance are looked for and killed: each round finds those that were being
/// forked during the one before.
const KILL_ROUNDS: u32 = 100;

/// The pause between two rounds, for the kernel to let the killed ones die.
pub(super) const KILL_PAUSE: Duration = Duration::from_millis(10);

/// The data directory of this process, locked.
#[derive(Debug)]
pub struct Instance {
    directory: PathBuf,
    /// Held for its lock.
    _lock: Flock<File>,
}

impl Instance {
    /// Makes a directory for this process below `root` and removes all that dead instances left there:
    /// containers, mounts, cgroups and files.
    pub fn create(root: &Path) -> Result<Self, NodeError> {
        let (instances, _registry) = clear_dead(root)?;
        let own = Process::of(Pid::this().as_raw()).map_or(0, |process| process.start);
        let directory = instances.join(format!("{}-{own}", Pid::this()));
        fs::create_dir(&directory).map_err(NodeError::path("make", &directory))?;
        let lock = lock(&directory.join(LOCK), FlockArg::LockExclusive)?;
        Ok(Self { directory, _lock: lock })
    }

    /// The directory to give to `NodeConfig::data_dir`.
    pub fn data_dir(&self) -> &Path {
        &self.directory
    }

    /// Ends all containers of this instance and removes everything it has on the machine.
    pub fn remove(self) -> Result<(), NodeError> {
        cleanup(&self.directory)
    }
}

/// Removes all that dead instances left. None appears or vanishes as long as the lock is kept.
pub(super) fn clear_dead(root: &Path) -> Result<(PathBuf, Flock<File>), NodeError> {
    let instances = root.join("instances");
    fs::create_dir_all(&instances).map_err(NodeError::path("make", &instances))?;
    // Processes and mounts are found by their paths, which the kernel tells without symbolic links.
    let instances = fs::canonicalize(&instances).map_err(NodeError::path("find", &instances))?;
    // Held while directories appear and vanish, so that nobody takes one for dead that is not locked yet.
    let registry = lock(&instances.join(LOCK), FlockArg::LockExclusive)?;
    let entries = fs::read_dir(&instances).map_err(NodeError::path("list", &instances))?;
    for entry in entries.flatten() {
        let directory = entry.path();
        if directory.is_dir() && is_dead(&directory) {
            // What its owner forked last has executed the shim by now, or it would hold the lock still; but its
            // command line may not be there to be seen yet.
            std::thread::sleep(KILL_PAUSE);
            cleanup(&directory)?;
        }
    }
    Ok((instances, registry))
}

/// Whether the process that the directory's name gives is gone and nobody else holds its lock. One that was killed while
/// it forked leaves a child that holds the lock for another moment, so it is asked for more than once.
///
/// The directory of a living owner is not touched at all: asking for its lock would put the file back that the owner is
/// removing right now.
fn is_dead(directory: &Path) -> bool {
    let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let owner = name
        .split_once('-')
        .and_then(|(pid, start)| Some(Process { pid: pid.parse().ok()?, start: start.parse().ok()? }));
    if owner.is_some_and(Process::is_alive) {
        return false;
    }
    for _ in 0..KILL_ROUNDS {
        if lock(&directory.join(LOCK), FlockArg::LockExclusiveNonblock).is_ok() {
            return true;
        }
        std::thread::sleep(KILL_PAUSE);
    }
    false
}

fn lock(path: &Path, how: FlockArg) -> Result<Flock<File>, NodeError> {
    let file = File::options().create(true).append(true).open(path);
    let file = file.map_err(NodeError::path("open", path))?;
    Flock::lock(file, how).map_err(|(_, errno)| NodeError::path("lock", path)(io::Error::from(errno)))
}

/// Notes where this process makes cgroups, beside those of processes before it: another one that removes them may live in
/// other ones. Returns all.
pub(super) fn remember_cgroups(data_dir: &Path, cgroups: &[PathBuf]) -> Result<Vec<PathBuf>, NodeError> {
    let path = data_dir.join(CGROUPS);
    let mut all = known_cgroups(data_dir);
    all.retain(|known| known.exists() && !cgroups.contains(known));
    all.extend_from_slice(cgroups);
    files::write_json(&path, &all).map_err(NodeError::path("write", &path))?;
    Ok(all)
}

fn known_cgroups(data_dir: &Path) -> Vec<PathBuf> {
    files::read_json(&data_dir.join(CGROUPS)).unwrap_or_default().unwrap_or_default()
}

/// Ends what [`end`] ends and removes the directory itself.
fn cleanup(data_dir: &Path) -> Result<(), NodeError> {
    let data_dir = &fs::canonicalize(data_dir).map_err(NodeError::path("find", data_dir))?;
    end(data_dir)?;
    match fs::remove_dir_all(data_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(NodeError::path("remove", data_dir)(error))
        }
        _ => Ok(()),
    }
}

/// Kills every container a node ran with this data directory, unmounts what it mounted and removes its cgroups and its
/// network. Safe to repeat after being killed at any point.
pub(super) fn end(data_dir: &Path) -> Result<(), NodeError> {
    kill_below(data_dir);
    for parent in known_cgroups(data_dir) {
        cgroup::remove_tree(&parent);
        // The directory shared by all instances goes with the last one; fails, rightly, while others are there.
        let _ = parent.parent().map(fs::remove_dir);
    }
    unmount_below(data_dir);
    Ok(ropewalk_network::end(&data_dir.join(NETWORK))?)
}

/// Shims of this directory, whatever they and their forks are about to do, and the processes of its containers.
fn processes(data_dir: &Path) -> Vec<Process> {
    let own = Pid::this().as_raw();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != own)
        .filter(|pid| is_shim_of(*pid, data_dir) || lives_in(*pid, data_dir))
        .filter_map(Process::of)
        .filter(|process| process.is_alive())
        .collect()
}

/// Whether a process is a shim working below `data_dir`, by its command line.
fn is_shim_of(pid: i32, data_dir: &Path) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = command.split(|byte| *byte == 0).map(|word| Path::new(bytes_as_os(word)));
    words.nth(1) == Some(Path::new(super::container::SHIM_COMMAND))
        && words.next().is_some_and(|directory| directory.starts_with(data_dir))
}

fn bytes_as_os(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

/// The shim that works in an attempt's directory, if one does.
pub(super) fn find_shim(directory: &Path) -> Option<Process> {
    shims_below(directory).into_iter().next()
}

/// The shims that work below a directory.
pub(crate) fn shims_below(directory: &Path) -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let shims = pids.filter(|pid| is_shim_of(*pid, directory)).filter_map(Process::of);
    shims.filter(|process| process.is_alive()).collect()
}

/// Whether a process has its root in a layer below `data_dir`: a container of it.
fn lives_in(pid: i32, data_dir: &Path) -> bool {
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    is_rooted_in(&mounts, data_dir)
}

/// Whether a mount table's root, or a directory right in it, is an overlay whose writable layer is below `data_dir`. Other
/// mounts prove nothing: every mount namespace starts as a copy, with the volumes of other instances in it.
fn is_rooted_in(mountinfo: &str, data_dir: &Path) -> bool {
    mountinfo.lines().any(|line| {
        let at = line.split(' ').nth(4).map(unescape).unwrap_or_default();
        let mut options = line.rsplit(' ').next().unwrap_or_default().split(',');
        let upper = options.find_map(|option| option.strip_prefix("upperdir="));
        at.components().count() <= 2 && upper.is_some_and(|upper| unescape(upper).starts_with(data_dir))
    })
}

/// Where something is mounted, in the order in which it was.
pub(crate) fn mount_points() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape).collect()
}

/// Unmounts everything mounted below a directory, last mounted first.
pub(super) fn unmount_below(directory: &Path) {
    let mut targets = mount_points();
    targets.reverse();
    for target in targets.iter().filter(|target| target.starts_with(directory)) {
        if let Err(errno) = umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            tracing::warn!(mount = %target.display(), %errno, "cannot unmount");
        }
    }
}

/// mountinfo writes blanks and the like as `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        let code = tail.get(..3).filter(|_| *byte == b'\\');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        if let Some(code) = code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            plain.push(code);
            rest = &tail[3..];
        } else {
            plain.push(*byte);
            rest = tail;
        }
    }
    PathBuf::from(bytes_as_os(&plain))
}

/// Kills the shims that work below a directory, and what they may have left of their containers.
pub(super) fn kill_below(directory: &Path) {
    for _ in 0..KILL_ROUNDS {
        let found = processes(directory);
        if found.is_empty() {
            return;
        }
        for process in found {
            process.signal(Signal::SIGKILL);
        }
        std::thread::sleep(KILL_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_mount_points() {
        assert_eq!(unescape("/a\\040b\\134c"), Path::new("/a b\\c"));
        assert_eq!(unescape("/plain"), Path::new("/plain"));
    }

    #[test]
    fn a_living_instance_is_left_alone_and_a_dead_one_removed() {
        let root = tempfile::tempdir().expect("a directory");
        let dead = root.path().join("instances/1-1");
        fs::create_dir_all(dead.join("pods/x")).expect("made");
        let living = root.path().join("instances/2-2");
        fs::create_dir_all(&living).expect("made");
        let held = lock(&living.join(LOCK), FlockArg::LockExclusive).expect("locked");
        let instance = Instance::create(root.path()).expect("created");
        assert!(!dead.exists(), "the dead one is gone");
        assert!(living.exists(), "the living one stays");
        let own = instance.data_dir().to_owned();
        assert!(own.join(LOCK).exists());
        instance.remove().expect("removed");
        assert!(!own.exists());
        drop(held);
    }

    #[test]
    fn a_container_is_told_by_its_root() {
        let instance = Path::new("/var/lib/ropewalk/instances/12-34");
        let table = |root: &str| {
            format!(
                "8 7 0:5 / / rw,relatime - {root}\n\
                 9 8 254:0 /var/lib/ropewalk/instances/12-34/pods/u/v /workspace rw - ext4 /dev/vda rw\n\
                 9 8 0:6 / /var/lib/ropewalk/instances/12-34/pods/u/volumes/m rw - tmpfs t rw\n"
            )
        };
        for (root, expected) in [
            (
                "overlay o rw,lowerdir=/,upperdir=/var/lib/ropewalk/instances/12-34/pods/u/c/0/scratch/upper",
                true,
            ),
            (
                "overlay o rw,lowerdir=/,upperdir=/var/lib/ropewalk/instances/12-345/pods/u/c/0/scratch/upper",
                false,
            ),
            // The machine itself, or a shim of another instance: the mounts of this one are only copies there.
            ("ext4 /dev/vda rw", false),
        ] {
            assert_eq!(is_rooted_in(&table(root), instance), expected, "{root}");
        }
    }
}
