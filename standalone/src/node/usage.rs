//! Measures what pods take of the disk, and evicts those that take too much. The kernel tells nobody when a directory
//! grows, and bounds one only on file systems that were made for it, so that, as in a kubelet, somebody looks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use ropewalk_kubelet::machine::Event;
use ropewalk_kubelet::storage::{Bounds, Usage};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::files::{self, Started};
use super::{Node, logs, volumes};

/// The shortest pause between two looks: what a disk takes in a second is a part of what builds have of it.
const PAUSE: Duration = Duration::from_secs(1);

/// So many times as long as a look took nobody looks again: 2 % of a processor at most, however many files there are.
const REST: u32 = 50;

/// Directories in each other that are looked into. A descriptor is held for each, of which a process may have 1,024 by default.
const DEPTH: u32 = 128;

/// Looks after a pod from its first container on until its task has ended.
pub(super) async fn watch(node: Arc<Node>, pod: Arc<Pod>, events: mpsc::WeakSender<Event>) {
    let bounds = Arc::new(Bounds::of(&pod, node.config.layer_bytes));
    let mut pause = PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        if events.upgrade().is_none_or(|events| events.is_closed()) {
            return;
        }
        let (shared, pod, of) = (Arc::clone(&node), Arc::clone(&pod), Arc::clone(&bounds));
        let begun = Instant::now();
        // Fails only when the runtime is shutting down.
        let Ok(used) = spawn_blocking(move || measure(&shared, &pod, &of)).await else { return };
        pause = (begun.elapsed() * REST).max(PAUSE);
        if let Some(message) = bounds.exceeded(&used) {
            if let Some(events) = events.upgrade() {
                // Fails only when the pod's task has ended.
                let _ = events.send(Event::Evicted(message)).await;
            }
            return;
        }
    }
}

/// What the pod takes now; what vanishes meanwhile, or cannot be read, is not counted.
fn measure(node: &Node, pod: &Pod, bounds: &Bounds) -> Usage {
    let uid = pod.uid().unwrap_or_default();
    let spec = pod.spec.iter();
    let all = spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    let containers = all.filter_map(|container| {
        let attempts = logs::container_dir(&node.config.data_dir, &uid, &container.name);
        Some((container.name.clone(), container_bytes(&attempts)?))
    });
    let paths = volumes::paths(node, pod).unwrap_or_default();
    let volumes =
        bounds.volumes().filter_map(|name| Some((name.to_owned(), bytes_below(paths.get(name)?).ok()?)));
    Usage { containers: containers.collect(), volumes: volumes.collect() }
}

/// What the container takes whose attempts are in a directory, if it runs.
fn container_bytes(attempts: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(attempts).ok()?.flatten();
    let newest = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max()?;
    let directory = attempts.join(newest.to_string());
    let started: Started = files::read_json(&directory.join(files::STARTED)).ok()??;
    if directory.join(files::EXIT).exists() {
        return None;
    }
    // A layer in memory is mounted where only the container's supervisor sees it.
    let seen_by = PathBuf::from(format!("/proc/{}/root", started.shim.pid));
    let scratch = directory.join(files::SCRATCH);
    let written = bytes_below(&seen_by.join(scratch.strip_prefix("/").ok()?)).ok()?;
    let log = std::fs::metadata(directory.join(files::LOG)).map_or(0, |log| log.len());
    started.shim.is_alive().then_some(written + log)
}

/// Bytes on disk of everything below a directory. It changes while this looks, and whoever changes it may mean harm: no link is
/// followed, nothing is opened but directories, and nothing is remembered: of a file with several names each counts for its
/// part. They are all in here, as nobody links a file into another mount.
fn bytes_below(directory: &Path) -> io::Result<u64> {
    let root = open(CWD, directory)?;
    let mut bytes = 0;
    walk(&root, DEPTH, &mut bytes);
    Ok(bytes)
}

fn open(at: impl rustix::fd::AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, name, flags, Mode::empty())?)
}

fn walk(directory: &OwnedFd, depth: u32, bytes: &mut u64) {
    let Ok(entries) = Dir::read_from(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(found) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let is_directory = FileType::from_raw_mode(found.st_mode).is_dir();
        // A directory's links are those of what is in it.
        let names = if is_directory { 1 } else { i64::try_from(found.st_nlink).unwrap_or(1).max(1) };
        // In units of 512 bytes on every file system.
        *bytes += u64::try_from(found.st_blocks.saturating_mul(512) / names).unwrap_or(0);
        if is_directory
            && depth > 0
            && let Ok(inner) = open(directory, name)
        {
            walk(&inner, depth - 1, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_once_whatever_it_is_called() {
        let root = tempfile::tempdir().expect("made");
        for (at, name) in ["a", "b", "c"].iter().enumerate() {
            let directory = root.path().join(name);
            std::fs::create_dir(&directory).expect("made");
            let file = directory.join("first");
            std::fs::write(&file, vec![1; 1 << 20]).expect("written");
            (0..=at * 50).for_each(|other| {
                std::fs::hard_link(&file, directory.join(other.to_string())).expect("linked");
            });
        }
        let found = bytes_below(root.path()).expect("read");
        // A byte less for each name at most, and directories take some.
        assert!(((3 << 20) - 156..4 << 20).contains(&found), "{found}");
    }

    #[test]
    fn bytes_are_those_on_disk_and_of_nothing_outside() {
        let (inside, outside) = (tempfile::tempdir().expect("made"), tempfile::tempdir().expect("made"));
        let empty = bytes_below(inside.path()).expect("read");
        assert_eq!(empty, 0);
        let deep = inside.path().join("a/b/c");
        std::fs::create_dir_all(&deep).expect("made");
        std::fs::write(deep.join("file"), vec![1; 1 << 20]).expect("written");
        std::fs::hard_link(deep.join("file"), inside.path().join("again")).expect("linked");
        std::fs::write(outside.path().join("big"), vec![1; 8 << 20]).expect("written");
        std::os::unix::fs::symlink(outside.path(), inside.path().join("link")).expect("linked");
        std::fs::File::create(inside.path().join("sparse")).expect("made").set_len(1 << 40).expect("sparse");
        let found = bytes_below(inside.path()).expect("read");
        assert!((1 << 20..2 << 20).contains(&found), "{found}");
        assert!(bytes_below(&inside.path().join("link")).is_err(), "not even the first one is followed");
    }
}
