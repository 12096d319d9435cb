//! Cgroups of containers, always below the cgroup this process is in, so that a limit set on the whole program
//! counts for its containers too. Version 1 (one hierarchy per controller, each with a path of its own),
//! hybrid and version 2.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{SYSFS_MAGIC, statfs};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::Pid;
use ropewalk_kubelet::oci::Limits;
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::device_wall;

/// The directory all cgroups of this program are in, below its own cgroup.
const PARENT: &str = "ropewalk";

/// How often removing a cgroup is tried: dying processes leave it within milliseconds, on a busy machine within seconds.
const REMOVE_TRIES: u32 = 500;

/// The wait between two tries.
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

/// One cgroup hierarchy this process may use.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Hierarchy {
    /// Directory of this process's own cgroup in it.
    own: PathBuf,
    /// Whether it is version 2.
    unified: bool,
}

/// The directories below which an instance puts its cgroups. Empty when the machine offers none that can be
/// written; containers then run without limits and out-of-memory kills are not told apart.
pub(super) fn parents(instance: &str) -> Vec<PathBuf> {
    let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut usable = Vec::new();
    let found = hierarchies(&cgroups, &mounts);
    // Beside those of version 1 one of version 2 has no limits, and devices are closed there all the same.
    let own = cgroups.lines().find(|line| line.starts_with("0::")).unwrap_or_default();
    if found.iter().all(|hierarchy| !hierarchy.unified)
        && let Some(Hierarchy { own, .. }) = hierarchies(own, &mounts).pop()
    {
        let parent = own.join(PARENT).join(instance);
        // Another instance may remove the directory that they share right before.
        if std::fs::create_dir_all(&parent).or_else(|_| std::fs::create_dir_all(&parent)).is_ok() {
            usable.push(parent);
        }
    }
    for hierarchy in found {
        let parent = hierarchy.own.join(PARENT).join(instance);
        match make_parent(&hierarchy, &parent) {
            Ok(()) => usable.push(parent),
            Err(error) => {
                tracing::warn!(
                    cgroup = %parent.display(),
                    %error,
                    "cannot use this cgroup; containers run without its limits; start the command with \"systemd-run --user \
                     --scope -p Delegate=yes\" if it is not root's"
                );
            }
        }
    }
    usable
}

/// Whether all limits of containers hold that are put below these directories: a cgroup that can be made is not one whose
/// limits can be set.
pub(super) fn limits_hold(parents: &[PathBuf]) -> bool {
    // What version 2 calls it in its list, and a file that version 1 has for it.
    let controllers = [("memory", "memory.limit_in_bytes"), ("pids", "pids.max"), ("cpu", "cpu.shares")];
    controllers.into_iter().all(|(name, file)| {
        parents.iter().any(|parent| match std::fs::read_to_string(parent.join("cgroup.subtree_control")) {
            Ok(enabled) => enabled.split_whitespace().any(|controller| controller == name),
            Err(_) => parent.join(file).exists(),
        })
    })
}

fn make_parent(hierarchy: &Hierarchy, parent: &Path) -> io::Result<()> {
    // The last of other instances may remove the directory they share right before this one's is made in it.
    std::fs::create_dir_all(parent).or_else(|_| std::fs::create_dir_all(parent))?;
    if hierarchy.unified {
        let levels = [Some(hierarchy.own.as_path()), parent.parent(), Some(parent)];
        for level in levels.into_iter().flatten() {
            for controller in ["+memory", "+pids", "+cpu"] {
                // Refused where processes live in the cgroup itself, as they do in a login session's.
                let _ = std::fs::write(level.join("cgroup.subtree_control"), controller);
            }
        }
        let enabled = std::fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
        if !enabled.split_whitespace().any(|controller| controller == "memory") {
            tracing::warn!(
                cgroup = %hierarchy.own.display(),
                "limits on memory, CPU and processes are not enforced, as other processes share this cgroup; start \
                 the command with \"systemd-run --scope -p Delegate=yes\" to enforce them, and with --user if it is not \
                 root's"
            );
        }
    }
    Ok(())
}

/// The hierarchies for memory, pids and cpu: those of version 1 where they exist, else the unified one.
fn hierarchies(cgroups: &str, mountinfo: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    let mut mounts = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<_> = left.split(' ').collect();
        let right: Vec<_> = right.split(' ').collect();
        if let ([_, _, _, root, at, ..], [kind @ ("cgroup" | "cgroup2"), _, options, ..]) =
            (left.as_slice(), right.as_slice())
        {
            mounts.push((*root, *at, *kind, options.split(',').collect::<Vec<_>>()));
        }
    }
    for wanted in ["memory", "pids", "cpu"] {
        let own = cgroups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?;
            controllers.split(',').any(|name| name == wanted).then_some(())?;
            parts.next()
        });
        let mount =
            mounts.iter().find(|(_, _, kind, options)| *kind == "cgroup" && options.contains(&wanted));
        if let (Some(own), Some((root, at, ..))) = (own, mount) {
            let own = below(at, root, own);
            if !found.iter().any(|hierarchy: &Hierarchy| hierarchy.own == own) {
                found.push(Hierarchy { own, unified: false });
            }
        }
    }
    if found.is_empty() {
        let own = cgroups.lines().find_map(|line| line.strip_prefix("0::"));
        let mount = mounts.iter().find(|(_, _, kind, _)| *kind == "cgroup2");
        if let (Some(own), Some((root, at, ..))) = (own, mount) {
            found.push(Hierarchy { own: below(at, root, own), unified: true });
        }
    }
    found
}

/// The directory of cgroup `own` in a hierarchy mounted from `root` at `at`.
fn below(at: &str, root: &str, own: &str) -> PathBuf {
    let relative = Path::new(own).strip_prefix(root).unwrap_or_else(|_| Path::new(own));
    let relative = relative.strip_prefix("/").unwrap_or(relative);
    if relative.as_os_str().is_empty() { PathBuf::from(at) } else { Path::new(at).join(relative) }
}

/// Where containers see the limits that hold for them.
const VIEW: &str = "/sys/fs/cgroup";

/// The period that a limit on CPU time is about, in microseconds.
const PERIOD: &str = "100000";

/// What is written to a container's cgroup, in this order: a file's value where the file exists. A limit on memory is
/// one on memory and swap together, or the kernel would swap instead of telling who takes too much.
fn settings(limits: Limits, unified: bool) -> Vec<(&'static str, String)> {
    let Limits { memory, cpu_quota, cpu_shares, pids } = limits;
    let mut settings = Vec::new();
    let mut set = |file, value: Option<String>| settings.extend(value.map(|value| (file, value)));
    if unified {
        set("memory.max", memory.map(|bytes| bytes.to_string()));
        set("memory.swap.max", memory.map(|_| "0".to_owned()));
        // As kubelets have it: what is left of a container without one of its processes is seldom of use.
        set("memory.oom.group", memory.map(|_| "1".to_owned()));
        set("cpu.max", cpu_quota.map(|quota| format!("{quota} {PERIOD}")));
        // The kernel's 1 to 10,000 for what were 2 to 262,144.
        set(
            "cpu.weight",
            cpu_shares.map(|shares| (1 + shares.saturating_sub(2) * 9999 / 262_142).to_string()),
        );
    } else {
        set("memory.limit_in_bytes", memory.map(|bytes| bytes.to_string()));
        set("memory.memsw.limit_in_bytes", memory.map(|bytes| bytes.to_string()));
        set("cpu.cfs_period_us", cpu_quota.map(|_| PERIOD.to_owned()));
        set("cpu.cfs_quota_us", cpu_quota.map(|quota| quota.to_string()));
        set("cpu.shares", cpu_shares.map(|shares| shares.to_string()));
    }
    set("pids.max", pids.map(|pids| pids.to_string()));
    settings
}

/// The cgroups of one container, one directory per hierarchy. They stay reachable when the hierarchies are
/// unmounted from this process's mount namespace.
#[derive(Debug)]
pub(super) struct Cgroups {
    directories: Vec<PathBuf>,
    /// The parents' descriptors, which the paths above lead through.
    _parents: Vec<File>,
    /// The directories as mounts of their own, and what they are called in the container: nothing with version 2,
    /// which has one.
    views: Vec<(&'static str, OwnedFd)>,
}

impl Cgroups {
    /// Makes the directories and sets the limits. A limit the kernel refuses is an error; one whose controller is
    /// missing on this machine was warned of when the node started.
    pub(super) fn create(directories: &[PathBuf], limits: Limits) -> io::Result<Self> {
        let (mut reachable, mut parents, mut views) = (Vec::new(), Vec::new(), Vec::new());
        for directory in directories {
            // Not its parent too: that one is the node's, and a shim that comes too late must not bring it back.
            match std::fs::create_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let unified = directory.join("cgroup.controllers").exists();
            for (file, value) in settings(limits, unified) {
                let file = directory.join(file);
                if file.exists() {
                    std::fs::write(&file, value)?;
                }
            }
            // Beside others it has nothing to show.
            if !unified || directories.len() == 1 {
                views.extend(view(directory, unified));
            }
            let parent = File::open(directory.parent().unwrap_or(directory))?;
            let through = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()));
            reachable.push(through.join(directory.file_name().unwrap_or_default()));
            parents.push(parent);
        }
        Ok(Self { directories: reachable, _parents: parents, views })
    }

    /// Lets the container of this process see its limits where runtimes of languages look for them, read-only unless
    /// its kernel interfaces are writable. Without that it has the limits all the same, so what fails is passed over;
    /// an error means that this process has lost its own mounts. The caller has one thread.
    pub(super) fn show(&self, pid: i32) -> io::Result<()> {
        let own = File::open("/proc/self/ns/mnt")?;
        let Ok(container) = File::open(format!("/proc/{pid}/ns/mnt")) else { return Ok(()) };
        if self.views.is_empty() || setns(&container, CloneFlags::CLONE_NEWNS).is_err() {
            return Ok(());
        }
        let _ = self.show_here();
        setns(&own, CloneFlags::CLONE_NEWNS).map_err(io::Error::from)
    }

    fn show_here(&self) -> io::Result<()> {
        // What the pod has put there itself is left alone.
        if statfs(VIEW)?.filesystem_type() != SYSFS_MAGIC {
            return Ok(());
        }
        let writable = !statvfs("/sys")?.flags().contains(FsFlags::ST_RDONLY);
        let fixed = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let remount = |at: &Path, further: MsFlags| {
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | fixed | further;
            if writable { Ok(()) } else { mount(None::<&str>, at, None::<&str>, flags, None::<&str>) }
        };
        let several = self.views.iter().any(|(name, _)| !name.is_empty());
        if several {
            mount(Some("tmpfs"), VIEW, Some("tmpfs"), fixed, Some("mode=0755,size=64k"))?;
        }
        for (name, tree) in &self.views {
            let at = Path::new(VIEW).join(name);
            if several {
                std::fs::create_dir(&at)?;
            }
            move_mount(tree, "", CWD, &at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
            remount(&at, MsFlags::MS_BIND)?;
        }
        if several {
            remount(Path::new(VIEW), MsFlags::empty())?;
        }
        Ok(())
    }

    /// Closes the machine's devices to all that is in it.
    pub(super) fn close_devices(&self) -> io::Result<()> {
        let fitting = self.directories.iter().find(|directory| device_wall::fits(directory));
        device_wall::close(fitting.ok_or(io::ErrorKind::NotFound)?)
    }

    /// Moves a process in.
    pub(super) fn attach(&self, pid: i32) -> io::Result<()> {
        for directory in &self.directories {
            std::fs::write(directory.join("cgroup.procs"), pid.to_string())?;
        }
        Ok(())
    }

    /// Whether the kernel killed a process in it for want of memory.
    pub(super) fn saw_oom_kill(&self) -> bool {
        let counters = self
            .directories
            .iter()
            .flat_map(|directory| ["memory.oom_control", "memory.events"].map(|file| directory.join(file)));
        counters.into_iter().any(|file| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
        })
    }

    /// Kills what is in it and removes it.
    pub(super) fn remove(&self) {
        for directory in &self.directories {
            remove_tree(directory);
        }
    }
}

/// A cgroup's directory as a mount of its own; none where the kernel makes none.
fn view(directory: &Path, unified: bool) -> Option<(&'static str, OwnedFd)> {
    let files = [("memory", "memory.limit_in_bytes"), ("pids", "pids.max"), ("cpu", "cpu.shares")];
    let name =
        if unified { "" } else { files.into_iter().find(|(_, file)| directory.join(file).exists())?.0 };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Some((name, open_tree(CWD, directory, flags).ok()?))
}

/// Kills every process below a cgroup directory and removes it with all cgroups in it, those included that appear
/// meanwhile: a shim that was just forked may make one.
pub(super) fn remove_tree(directory: &Path) {
    for _ in 0..REMOVE_TRIES {
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_tree(&entry.path());
            }
        }
        kill_all(directory);
        match std::fs::remove_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => std::thread::sleep(REMOVE_PAUSE),
            _ => return,
        }
    }
    tracing::warn!(cgroup = %directory.display(), "cgroup cannot be removed, processes stay in it");
}

fn kill_all(directory: &Path) {
    let processes = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|line| line.parse().ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_hierarchies_have_a_path_each() {
        let cgroups = "9:name=systemd:/\n8:pids:/\n4:memory:/process/x\n1:cpu,cpuacct:/a\n0::/\n";
        let mounts = "\
30 20 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
31 20 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 20 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
33 20 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
        let own: Vec<_> = hierarchies(cgroups, mounts).into_iter().map(|found| found.own).collect();
        let expected = ["/sys/fs/cgroup/memory/process/x", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/cpu/a"];
        assert_eq!(own, expected.map(PathBuf::from));
    }

    #[test]
    fn limits_as_both_versions_have_them() {
        let limits =
            Limits { memory: Some(1 << 26), cpu_quota: Some(25_000), cpu_shares: Some(512), pids: Some(100) };
        let written = |unified| {
            let settings = settings(limits, unified).into_iter();
            settings.map(|(file, value)| format!("{file}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(
            written(false),
            [
                "memory.limit_in_bytes=67108864",
                "memory.memsw.limit_in_bytes=67108864",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=25000",
                "cpu.shares=512",
                "pids.max=100",
            ]
        );
        assert_eq!(
            written(true),
            [
                "memory.max=67108864",
                "memory.swap.max=0",
                "memory.oom.group=1",
                "cpu.max=25000 100000",
                "cpu.weight=20",
                "pids.max=100",
            ]
        );
        assert!(
            settings(Limits::default(), true).is_empty() && settings(Limits::default(), false).is_empty()
        );
        for (shares, weight) in [(2, "1"), (1024, "39"), (262_144, "10000")] {
            let limits = Limits { cpu_shares: Some(shares), ..Limits::default() };
            assert_eq!(settings(limits, true), [("cpu.weight", weight.to_owned())]);
        }
    }

    #[test]
    fn limits_hold_where_all_of_them_can_be_set() {
        let root = tempfile::tempdir().expect("a directory");
        let with = |name: &str, files: &[(&str, &str)]| {
            let directory = root.path().join(name);
            std::fs::create_dir(&directory).expect("made");
            for (file, content) in files {
                std::fs::write(directory.join(file), content).expect("written");
            }
            directory
        };
        let own = "cgroup.subtree_control";
        let delegated = with("delegated", &[(own, "cpu memory pids\n")]);
        let shared = with("shared", &[(own, "\n")]);
        let half = with("half", &[(own, "memory pids\n"), ("memory.max", "max")]);
        let memory = with("memory", &[("memory.limit_in_bytes", "")]);
        let (pids, cpu) = (with("pids", &[("pids.max", "")]), with("cpu", &[("cpu.shares", "")]));
        let hold = |parents: &[&PathBuf]| limits_hold(&parents.iter().copied().cloned().collect::<Vec<_>>());
        assert!(hold(&[&delegated]));
        assert!(!hold(&[]) && !hold(&[&shared]) && !hold(&[&half]));
        assert!(hold(&[&shared, &memory, &pids, &cpu]) && !hold(&[&shared, &memory, &pids]));
    }

    #[test]
    fn limits_are_written_where_their_files_are() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join("c");
        std::fs::create_dir(&directory).expect("made");
        for file in ["cgroup.controllers", "memory.max", "memory.swap.max", "pids.max"] {
            std::fs::write(directory.join(file), "max").expect("written");
        }
        let limits = Limits { memory: Some(5), cpu_quota: Some(1000), cpu_shares: None, pids: None };
        Cgroups::create(std::slice::from_ref(&directory), limits).expect("set");
        let read = |file: &str| std::fs::read_to_string(directory.join(file)).expect("read");
        assert_eq!([read("memory.max"), read("memory.swap.max"), read("pids.max")], ["5", "0", "max"]);
        assert!(!directory.join("cpu.max").exists(), "a controller that is not there");
    }

    #[test]
    fn a_container_that_starts_while_all_is_removed_leaves_nothing() {
        let root = tempfile::tempdir().expect("a directory");
        let parent = root.path().join("instance");
        std::fs::create_dir_all(parent.join("first")).expect("made");
        let (late, limits) = (parent.join("late"), Limits::default());
        let starts = std::thread::spawn({
            let parent = parent.clone();
            move || (0..1000).for_each(|n| drop(std::fs::create_dir(parent.join(n.to_string()))))
        });
        remove_tree(&parent);
        assert!(!parent.exists(), "what appeared meanwhile is in its way");
        starts.join().expect("no panic");
        let error = Cgroups::create(&[late], limits).expect_err("nothing to be made in");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!parent.exists(), "it was made anew");
    }

    #[test]
    fn unified_hierarchy_in_a_cgroup_namespace() {
        let found =
            hierarchies("0::/user.slice/s\n", "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        let own = PathBuf::from("/sys/fs/cgroup/user.slice/s");
        assert_eq!(found, [Hierarchy { own, unified: true }]);
        let found = hierarchies("0::/pod/x\n", "30 20 0:26 /pod /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert_eq!(found[0].own, PathBuf::from("/sys/fs/cgroup/x"));
    }
}
