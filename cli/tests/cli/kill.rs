//! SIGKILL at any moment: the next command clears away whatever the killed one left.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::{can_run_containers, printed, ropewalk};

/// Tasks side by side and one after the other, so that a kill finds containers in every state.
const BUSY: &str = "\
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: busy
spec:
  pipelineSpec:
    tasks:
    - name: first
      taskSpec:
        steps:
        - image: i
          script: sleep 0.2
    - name: beside
      taskSpec:
        sidecars:
        - name: s
          image: i
          script: sleep 3600
        steps:
        - image: i
          script: |
            sleep 3600 &
            setsid sleep 3600 &
            sleep 3600
    - name: after
      runAfter: [first]
      taskSpec:
        steps:
        - image: i
          script: sleep 3600
";

const QUICK: &str = "\
apiVersion: tekton.dev/v1
kind: TaskRun
metadata:
  name: quick
spec:
  taskSpec:
    steps:
    - image: i
      script: echo fine
";

/// The directory of the instance with this process, if there is one.
fn instance(pid: u32) -> Option<PathBuf> {
    let prefix = format!("{pid}-");
    fs::read_dir("/var/lib/ropewalk/instances")
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
}

/// What still refers to an instance: its directory, mounts, cgroups, and the processes of its containers.
fn leftovers(directory: &Path) -> Vec<String> {
    let name = directory.file_name().expect("a name").to_string_lossy().into_owned();
    let mut found = Vec::new();
    if directory.exists() {
        found.push(format!("directory {}", directory.display()));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("readable");
    found.extend(mounts.lines().filter(|line| line.contains(&name)).map(|line| format!("mount {line}")));
    for process in fs::read_dir("/proc").expect("readable").flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        // One that has ended keeps the name of its cgroup until its parent, the machine's first process, asks for it.
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        if stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])) {
            continue;
        }
        // A process may end while it is looked at.
        for file in ["cmdline", "cgroup", "mountinfo"] {
            let text = fs::read(process.path().join(file)).unwrap_or_default();
            if pid != std::process::id() && String::from_utf8_lossy(&text).contains(&name) {
                found.push(format!("process {pid}, by its {file}"));
            }
        }
    }
    found
}

/// Waits for a level, with a limit beyond anything the machine needs.
fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{what} did not happen");
        std::thread::yield_now();
    }
}

#[test]
fn a_killed_run_is_cleared_away_by_the_next() {
    if !can_run_containers() {
        return;
    }
    let files = tempfile::tempdir().expect("a temporary directory");
    let (busy, quick) = (files.path().join("busy.yaml"), files.path().join("quick.yaml"));
    fs::write(&busy, BUSY).expect("written");
    fs::write(&quick, QUICK).expect("written");
    // Moments from before the first container exists until well after the last has started.
    for delay in [0, 20, 45, 80, 120, 180, 260, 400, 650, 1000].map(Duration::from_millis) {
        let mut child = ropewalk()
            .args(["run", "--rootfs", "host"])
            .arg(&busy)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the command starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        lines.next().expect("the run starts").expect("readable");
        let directory = eventually("an instance", || instance(child.id()));
        let start = Instant::now();
        eventually("the moment", || (start.elapsed() >= delay).then_some(()));
        child.kill().expect("killed");
        child.wait().expect("reaped");

        let next =
            ropewalk().args(["run", "--rootfs", "host"]).arg(&quick).output().expect("the command starts");
        assert_eq!(next.status.code(), Some(0), "after {delay:?}: {}", printed(&next));
        assert_eq!(leftovers(&directory), [""; 0], "killed after {delay:?}");
    }
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    use nix::sys::signal::Signal;

    if !can_run_containers() {
        return;
    }
    let files = tempfile::tempdir().expect("a temporary directory");
    let busy = files.path().join("busy.yaml");
    fs::write(&busy, BUSY).expect("written");
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        let mut child = ropewalk()
            .args(["run", "--rootfs", "host"])
            .arg(&busy)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        lines.next().expect("the run starts").expect("readable");
        let directory = eventually("an instance", || instance(child.id()));
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        nix::sys::signal::kill(pid, signal).expect("signalled");
        // The pipe has to be drained for the command to end.
        lines.for_each(drop);
        let status = child.wait().expect("reaped");
        assert_eq!(status.code(), Some(130), "{signal}");
        assert_eq!(leftovers(&directory), [""; 0], "{signal}");
    }
}
