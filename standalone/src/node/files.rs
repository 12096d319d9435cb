//! What lies on disk for one attempt of a container, shared by the shim that writes it and the node that reads
//! it, perhaps another process than the one that started the shim.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use ropewalk_kubelet::account::Account;
use ropewalk_kubelet::oci::{ImageVolume, Limits, Rootfs, SubPath, WorkingDir};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::RuntimeKind;

/// The OCI document, in the attempt's directory, which is also the bundle.
pub(super) const CONFIG: &str = "config.json";
/// [`ShimConfig`].
pub(super) const SHIM: &str = "shim.json";
/// Made once, see [`begin`] and [`withdraw`]. Without it the command never ran.
const BEGUN: &str = "begun";
/// [`Started`].
pub(super) const STARTED: &str = "started.json";
/// [`Ended`].
pub(super) const EXIT: &str = "exit.json";
/// Grace in seconds, written before the shim is asked to stop.
pub(super) const STOP: &str = "stop.json";
/// The container's output.
pub(super) const LOG: &str = "log";
/// What the shim itself has to complain about.
pub(super) const SHIM_LOG: &str = "shim.log";
/// The termination message.
pub(super) const TERMINATION: &str = "termination-log";
/// Mount point of the root file system.
pub(super) const ROOTFS: &str = "rootfs";
/// The layer above it, on disk or mounted here in memory. There is nothing here once the container has ended, and until then
/// its image is in use.
pub(super) const SCRATCH: &str = "scratch";
/// Volumes that the image asks for, in [`SCRATCH`]: as long-lived as that, and counted with it.
pub(super) const IMAGE_VOLUMES: &str = "volumes";
/// Where sub paths are bound.
pub(super) const SUB_PATHS: &str = "sub";
/// The runtime's own state.
pub(super) const STATE: &str = "state";

/// What the shim is to do.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct ShimConfig {
    /// Container id, unique on this machine.
    pub(super) id: String,
    /// The image reference it is made from, for whoever adopts it.
    pub(super) image: String,
    /// Which image that is.
    pub(super) image_id: String,
    /// Who makes the container.
    pub(super) runtime: RuntimeKind,
    /// Its root file system.
    pub(super) rootfs: Rootfs,
    /// Whether it is read-only.
    pub(super) read_only: bool,
    /// Bound of the layer in memory above it, in bytes.
    pub(super) scratch_bytes: u64,
    /// Whom it runs as, to be looked up in its image; the OCI document says so where there is none.
    pub(super) account: Option<Account>,
    /// Name or number of the signal that asks it to end; empty for TERM.
    pub(super) stop_signal: String,
    /// Sub paths to bind.
    pub(super) sub_paths: Vec<SubPath>,
    /// Volumes to make that its image asks for.
    pub(super) image_volumes: Vec<ImageVolume>,
    /// Working directory to make.
    pub(super) working_dir: Option<WorkingDir>,
    /// Cgroup directories to make and put the container into.
    pub(super) cgroups: Vec<PathBuf>,
    /// Whether the machine's devices are closed to it there.
    pub(super) closes_devices: bool,
    /// Limits to set there.
    pub(super) limits: Limits,
    /// Bound of the log file, in bytes.
    pub(super) log_bytes: u64,
    /// Seconds between TERM and KILL unless [`STOP`] says otherwise.
    pub(super) grace_seconds: u64,
}

/// A process, safe against the reuse of its id.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Process {
    /// Process id.
    pub(crate) pid: i32,
    /// Start time in clock ticks since boot, from `/proc/<pid>/stat`.
    pub(super) start: u64,
}

/// Written once the container runs.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Started {
    /// The shim.
    pub(super) shim: Process,
    /// The container's first process.
    pub(super) init: Process,
    /// Since when.
    pub(super) at: Timestamp,
}

/// Why a container never ran.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Failure {
    /// Its command could not be executed.
    Start(String),
    /// It could not be made.
    Create(String),
    /// It may have run, and nobody saw its end.
    Lost(String),
}

/// Written once, when nothing of the container is left.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Ended {
    /// Exit code, 128 + signal for a signal.
    pub(super) code: i32,
    /// Whether the kernel killed one of its processes for want of memory.
    pub(super) oom: bool,
    /// When it was started, if it was.
    pub(super) started_at: Option<Timestamp>,
    /// When it ended.
    pub(super) finished_at: Timestamp,
    /// Why it never ran.
    pub(super) failure: Option<Failure>,
}

/// The end of a container that nobody saw.
pub(super) fn lost(message: &str) -> Ended {
    let failure = Some(Failure::Lost(message.to_owned()));
    // As shells report one that was killed.
    Ended { code: 137, oom: false, started_at: None, finished_at: Timestamp::now(), failure }
}

/// Notes that the container's command is about to be executed. False if the attempt was withdrawn or begun before.
///
/// On disk, as the next process may come after a power failure: without this file it would execute the command again. It
/// costs each start of a container some 1 ms on an idle disk (median; 4 to 8 ms at the 95th percentile). No other file
/// here needs it: what [`STARTED`] tells of are processes that the failure has ended too, and [`STOP`] is for one of them.
/// Without [`EXIT`], or with half of it, a container that was begun counts as lost, as one that ran at that moment does,
/// unless the API server was told how it ended; that is on disk already. Nothing is begun at such a moment, so a
/// withdrawal may be lost.
pub(super) fn begin(directory: &Path) -> io::Result<bool> {
    let made = File::options().write(true).create_new(true).open(directory.join(BEGUN));
    first(made.and_then(|file| {
        file.sync_all()?;
        File::open(directory)?.sync_all()
    }))
}

/// Keeps an attempt from ever being begun by a shim that nobody knows of. False if it was begun; true also if it was
/// withdrawn before. A link, as it is made whole or not at all.
pub(super) fn withdraw(directory: &Path) -> io::Result<bool> {
    let path = directory.join(BEGUN);
    Ok(first(std::os::unix::fs::symlink("withdrawn", &path))? || path.is_symlink())
}

/// Whether the container's command may have been executed.
pub(super) fn is_begun(directory: &Path) -> bool {
    let path = directory.join(BEGUN);
    path.exists() && !path.is_symlink()
}

fn first(made: io::Result<()>) -> io::Result<bool> {
    match made {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes what a container that has ended wrote over its image.
pub(super) fn remove_scratch(directory: &Path) {
    match std::fs::remove_dir_all(directory.join(SCRATCH)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(directory = %directory.display(), %error, "cannot remove what a container wrote");
        }
        _ => {}
    }
}

/// Writes a file so that a reader sees all of it or nothing, in one `rename` a directory watch reports.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    write_atomically(path, &serde_json::to_vec(value)?)
}

/// As [`write_json`], for bytes.
pub(super) fn write_atomically(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let mut file = File::create(&temporary)?;
    file.write_all(contents)?;
    drop(file);
    std::fs::rename(&temporary, path)
}

/// Reads what [`write_json`] wrote; `None` if the file is not there.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Process {
    /// The process with this id, if there is one.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command name is in parentheses and may hold blanks; the start time is field 22 of the line.
        let (_, rest) = stat.rsplit_once(')')?;
        let start = rest.split_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, start })
    }

    /// The processes whose parent this is.
    pub(super) fn children_of(parent: i32) -> Vec<Self> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let is_child = |pid: &i32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            after_name.split_whitespace().nth(1) == Some(parent.to_string().as_str())
        };
        pids.filter(is_child).filter_map(Self::of).collect()
    }

    /// Whether it is still this very process and not a zombie.
    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self) && !self.is_zombie()
    }

    fn is_zombie(self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
    }

    /// Sends a signal if it is still this very process.
    pub(super) fn signal(self, signal: nix::sys::signal::Signal) {
        if self.is_alive() {
            // It may end between the check and the signal; its id is not reused that fast.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid), signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_begun_or_withdrawn_for_good() {
        let root = tempfile::tempdir().expect("a directory");
        let (begun, withdrawn) = (root.path().join("b"), root.path().join("w"));
        for path in [&begun, &withdrawn] {
            std::fs::create_dir(path).expect("made");
        }
        assert!(!is_begun(&begun));
        assert!(begin(&begun).expect("written"));
        assert!(withdraw(&withdrawn).expect("written"));
        for _ in 0..2 {
            assert!(is_begun(&begun) && !is_begun(&withdrawn));
            assert!(!begin(&begun).expect("looked up") && !begin(&withdrawn).expect("looked up"));
            assert!(!withdraw(&begun).expect("looked up") && withdraw(&withdrawn).expect("looked up"));
        }
    }

    #[test]
    fn a_child_is_found_and_told_from_one_that_ended() {
        let own = i32::try_from(std::process::id()).expect("fits");
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("started");
        let pid = i32::try_from(child.id()).expect("fits");
        let process = Process::of(pid).expect("it lives");
        assert!(Process::children_of(own).contains(&process));
        assert!(process.is_alive());
        assert!(!Process { pid, start: process.start + 1 }.is_alive(), "the id was reused");
        process.signal(nix::sys::signal::Signal::SIGKILL);
        child.wait().expect("reaped");
        assert!(!process.is_alive());
    }
}
