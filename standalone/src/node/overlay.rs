//! Mounts of overlayfs, of as many layers as an image may have.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount as mount_raw};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags, open};

/// The layer that is written to, and the directory of the same file system that the kernel prepares things in.
pub(super) struct Upper<'a> {
    pub(super) layer: &'a Path,
    pub(super) work: &'a Path,
}

/// Mounts layers, the topmost first, at `target`, with one to write to above them or read-only. Changes the working
/// directory to `/`, so the caller has one thread.
pub(super) fn mount(
    lowers: &[PathBuf],
    upper: Option<&Upper<'_>>,
    flags: MsFlags,
    target: &Path,
) -> io::Result<()> {
    let opened: Vec<File> = lowers.iter().map(|lower| open_layer(lower)).collect::<io::Result<_>>()?;
    // All options have to fit into a page, and a hundred paths do not; from here each has a name of a few digits.
    let names: Vec<_> = opened.iter().map(|layer| layer.as_raw_fd().to_string()).collect();
    let above = upper
        .map(|Upper { layer, work }| format!(",upperdir={},workdir={}", layer.display(), work.display()));
    let options = format!("lowerdir={}{}", names.join(":"), above.unwrap_or_default());
    rustix::process::chdir("/proc/thread-self/fd")?;
    let mounted = mount_raw(Some("overlay"), target, Some("overlay"), flags, Some(options.as_str()));
    rustix::process::chdir("/")?;
    Ok(mounted?)
}

/// As [`mount`], read-only, in a process with any number of threads. An overlay has at least two layers; `empty` is a
/// directory for the second one.
pub(super) fn mount_read_only(lowers: &[PathBuf], empty: &Path, target: &Path) -> io::Result<()> {
    let lowers: Vec<PathBuf> = lowers.iter().cloned().chain([empty.to_owned()]).collect();
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    let mounting = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // A working directory of this thread's own.
            unshare(CloneFlags::CLONE_FS)?;
            mount(&lowers, None, flags, target)
        });
        thread.join()
    });
    mounting.map_err(|_| io::Error::other("the thread that mounts has panicked"))?
}

fn open_layer(path: &Path) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(open(path, flags, Mode::empty()).map(File::from)?)
}
