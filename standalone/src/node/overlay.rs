//! Mounts of overlayfs, of as many layers as an image may have.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount as mount_raw, umount2};
use nix::sched::{CloneFlags, unshare};
use ropewalk_images::is_in_user_namespace;
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
    // Its own attributes are root's otherwise.
    let marks = if is_in_user_namespace() { ",userxattr" } else { "" };
    let options = format!("lowerdir={}{}{marks}", names.join(":"), above.unwrap_or_default());
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
    apart(|| mount(&lowers, None, flags, target))
}

/// Tries whether the kernel mounts overlays for this process, in an empty directory that is on the file system in question.
pub(crate) fn probe(directory: &Path) -> io::Result<()> {
    let [lower, layer, work, target] = ["lower", "upper", "work", "target"].map(|name| directory.join(name));
    for path in [&lower, &layer, &work, &target] {
        std::fs::create_dir(path)?;
    }
    let upper = Upper { layer: &layer, work: &work };
    apart(|| mount(&[lower], Some(&upper), MsFlags::MS_NODEV, &target))?;
    Ok(umount2(&target, MntFlags::MNT_DETACH)?)
}

/// Does something with a working directory of its own.
fn apart(mount: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
    let mounting = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS)?;
            mount()
        });
        thread.join()
    });
    mounting.map_err(|_| io::Error::other("the thread that mounts has panicked"))?
}

fn open_layer(path: &Path) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(open(path, flags, Mode::empty()).map(File::from)?)
}
