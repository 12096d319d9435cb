//! The machine's own root for a container in a user namespace. Nobody in one may see what lies beneath the machine's mounts,
//! so `/` as a whole is no layer for overlayfs there. Directories without mounts in them are, an overlay for each, and a
//! directory in memory holds them together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};
use ropewalk_kubelet::oci::Rootfs;

use super::rootfs::{Upper, places};
use crate::node::{instance, overlay};

/// Mounts the root at `target`, with what the container writes at `scratch`; returns the mounts below it that can be
/// written to.
pub(super) fn mount_root(
    rootfs: &Rootfs,
    base: &Path,
    scratch: &Path,
    target: &Path,
) -> io::Result<Vec<PathBuf>> {
    let root = scratch.join("root");
    make(&root, 0o755)?;
    bind(&root, target)?;
    let all = |path: &String| places(base, path);
    let mut graft = Graft {
        base,
        scratch,
        target,
        mounts: instance::mount_points().iter().filter_map(|at| below(at, base)).collect(),
        empty: rootfs
            .empty
            .iter()
            .flat_map(|(path, mode)| all(path).into_iter().map(|at| (at, *mode)))
            .collect(),
        // Files of the node's own stand where the machine's do, and nothing can be put over what is mounted.
        hidden: rootfs.hidden.iter().chain(rootfs.files.keys()).flat_map(all).collect(),
        overlays: Vec::new(),
    };
    graft.split(Path::new(""))?;
    for (place, mode) in &graft.empty {
        match make(&target.join(place), *mode) {
            // What is there is empty; and a directory that the machine does not have needs no empty one in it.
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {}
            made => made?,
        }
    }
    Ok(graft.overlays)
}

/// Makes a mount read-only, with all that holds for it already.
pub(super) fn seal(at: &Path) -> io::Result<()> {
    let found = statvfs(at)?.flags();
    let kept = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
    ];
    let kept = kept.into_iter().filter(|(flag, _)| found.contains(*flag));
    let flags = kept
        .fold(MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY, |flags, (_, kept)| flags | kept);
    Ok(mount(None::<&str>, at, None::<&str>, flags, None::<&str>)?)
}

/// Paths are relative to the root.
struct Graft<'a> {
    base: &'a Path,
    scratch: &'a Path,
    target: &'a Path,
    mounts: BTreeSet<PathBuf>,
    empty: BTreeMap<PathBuf, u32>,
    hidden: BTreeSet<PathBuf>,
    overlays: Vec<PathBuf>,
}

impl Graft<'_> {
    /// Puts what a directory has into the one of the new root, entry by entry.
    fn split(&mut self, place: &Path) -> io::Result<()> {
        let entries = match fs::read_dir(self.base.join(place)) {
            // The user's eyes are the container's.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let at = place.join(entry.file_name());
            if self.hidden.contains(&at) || self.empty.contains_key(&at) {
                continue;
            }
            match self.add(&entry, &at) {
                // The machine lives on meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                added => added?,
            }
        }
        Ok(())
    }

    fn add(&mut self, entry: &fs::DirEntry, at: &Path) -> io::Result<()> {
        let (from, to) = (self.base.join(at), self.target.join(at));
        let found = entry.metadata()?;
        if found.is_symlink() {
            symlink(fs::read_link(&from)?, &to)
        } else if found.is_file() {
            fs::write(&to, "")?;
            bind(&from, &to)?;
            seal(&to)
        } else if found.is_dir() {
            make(&to, found.permissions().mode() & 0o7777)?;
            if self.mounts.contains(at) {
                // As everywhere, what the machine has mounted is not part of the root.
                Ok(())
            } else if self.mounts.iter().chain(self.empty.keys()).any(|inner| inner.starts_with(at)) {
                self.split(at)
            } else {
                self.overlay(at)
            }
        } else {
            Ok(())
        }
    }

    fn overlay(&mut self, place: &Path) -> io::Result<()> {
        let (lower, target) = (self.base.join(place), self.target.join(place));
        let number = self.overlays.len();
        let (layer, work) =
            (self.scratch.join(format!("upper-{number}")), self.scratch.join(format!("work-{number}")));
        make(&layer, fs::metadata(&lower)?.permissions().mode() & 0o7777)?;
        make(&work, 0o755)?;
        let hidden = self.hidden.iter().filter_map(|at| below(at, place)).collect();
        Upper { lower: &lower, upper: &layer }.hide(hidden, Vec::new())?;
        let upper = overlay::Upper { layer: &layer, work: &work };
        overlay::mount(&[lower], Some(&upper), MsFlags::MS_NODEV, &target)?;
        self.overlays.push(target);
        Ok(())
    }
}

/// A path strictly below another one, as seen from there.
fn below(path: &Path, base: &Path) -> Option<PathBuf> {
    path.strip_prefix(base).ok().filter(|inner| !inner.as_os_str().is_empty()).map(Path::to_owned)
}

/// Makes a directory whatever the umask is.
fn make(path: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn bind(from: &Path, to: &Path) -> io::Result<()> {
    Ok(mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}
