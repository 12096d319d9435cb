//! Volumes that images ask for: each a directory of the container's own with what the image has at its path, copied and
//! not a part of the overlay, since what asks for one often cannot do with that: another container engine, a database.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, FileTimes, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, mknod};
use pathrs::Root;
use ropewalk_kubelet::oci::ImageVolume;
use rustix::fs::{XattrFlags, lgetxattr, llistxattr, lsetxattr};
use rustix::io::Errno;

use super::ShimError;
use super::rootfs::is_missing;

/// Bytes of the names of one file's attributes, and of one attribute: the kernel's own bounds.
const MAX_ATTRIBUTE: usize = 64 << 10;

/// Makes a volume with what the root file system, in which nothing runs yet, has at its path; without anything there, or
/// anything but a directory, an empty one.
pub(super) fn make(volume: &ImageVolume, rootfs: &Path) -> Result<(), ShimError> {
    let failed = |source: io::Error| ShimError::ImageVolume { path: volume.path.clone(), source };
    DirBuilder::new().recursive(true).mode(0o755).create(&volume.target).map_err(failed)?;
    let root = Root::open(rootfs).map_err(io::Error::other).map_err(failed)?;
    let handle = match root.resolve(&volume.path) {
        Err(error) if is_missing(&error) => return Ok(()),
        found => found.map_err(io::Error::other).map_err(failed)?,
    };
    let opened = rustix::fd::OwnedFd::from(handle);
    // Whatever links lead there, from here on it is this directory.
    let from = PathBuf::from(format!("/proc/self/fd/{}/", rustix::fd::AsRawFd::as_raw_fd(&opened)));
    match fs::metadata(&from) {
        Ok(found) if found.is_dir() => {
            let mut copy = Copy::default();
            copy.directory(&from, &volume.target)
                .and_then(|()| keep(&from, &found, &volume.target))
                .map_err(failed)
        }
        Err(error) if error.kind() != io::ErrorKind::NotADirectory => Err(failed(error)),
        _ => Ok(()),
    }
}

/// One copy of a tree.
#[derive(Default)]
struct Copy {
    /// The copies of files that have several names, by device and inode.
    linked: HashMap<(u64, u64), PathBuf>,
}

impl Copy {
    fn directory(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            let found = fs::symlink_metadata(&from)?;
            let name = (found.dev(), found.ino());
            if !found.is_dir() && found.nlink() > 1 {
                if let Some(first) = self.linked.get(&name) {
                    fs::hard_link(first, &to)?;
                    continue;
                }
                self.linked.insert(name, to.clone());
            }
            self.one(&from, &found, &to)?;
            keep(&from, &found, &to)?;
        }
        Ok(())
    }

    fn one(&mut self, from: &Path, found: &Metadata, to: &Path) -> io::Result<()> {
        let kind = found.file_type();
        if kind.is_dir() {
            DirBuilder::new().mode(0o700).create(to)?;
            self.directory(from, to)
        } else if kind.is_file() {
            fs::copy(from, to).map(drop)
        } else if kind.is_symlink() {
            symlink(fs::read_link(from)?, to)
        } else {
            let kind = match kind {
                kind if kind.is_fifo() => SFlag::S_IFIFO,
                kind if kind.is_socket() => SFlag::S_IFSOCK,
                kind if kind.is_block_device() => SFlag::S_IFBLK,
                _ => SFlag::S_IFCHR,
            };
            Ok(mknod(to, kind, Mode::S_IRUSR, found.rdev())?)
        }
    }
}

/// Owner, attributes, mode and times; in this order, as each may change what comes after it.
fn keep(from: &Path, found: &Metadata, to: &Path) -> io::Result<()> {
    lchown(to, Some(found.uid()), Some(found.gid()))?;
    attributes(from, to)?;
    if found.is_symlink() {
        return Ok(());
    }
    fs::set_permissions(to, Permissions::from_mode(found.mode() & 0o7777))?;
    if found.is_dir() || found.is_file() {
        let times = FileTimes::new().set_accessed(found.accessed()?).set_modified(found.modified()?);
        fs::File::open(to)?.set_times(times)?;
    }
    Ok(())
}

fn attributes(from: &Path, to: &Path) -> io::Result<()> {
    let mut names = vec![0; MAX_ATTRIBUTE];
    let length = match llistxattr(from, &mut names) {
        // None, on a file system that knows none.
        Err(Errno::NOTSUP) => return Ok(()),
        length => length?,
    };
    names.truncate(length);
    let mut value = vec![0; MAX_ATTRIBUTE];
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let length = lgetxattr(from, name, &mut value)?;
        lsetxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What is to stay of an entry: kind and mode, owner, time, number of names, and content.
    type Kept = (u32, (u32, u32), i64, u64, Vec<u8>);

    fn seen(root: &Path) -> BTreeMap<PathBuf, Kept> {
        let mut found = BTreeMap::new();
        let mut left = vec![root.to_owned()];
        while let Some(path) = left.pop() {
            let about = fs::symlink_metadata(&path).expect("read");
            let (mut time, mut content) = (about.mtime(), Vec::new());
            if about.is_dir() {
                left.extend(fs::read_dir(&path).expect("listed").map(|entry| entry.expect("read").path()));
            } else if about.is_file() {
                content = fs::read(&path).expect("read");
            } else if about.is_symlink() {
                content = fs::read_link(&path).expect("read").into_os_string().into_encoded_bytes();
                time = 0;
            } else {
                time = 0;
            }
            let names = if about.is_dir() { 0 } else { about.nlink() };
            let relative = path.strip_prefix(root).expect("below it").to_owned();
            found.insert(relative, (about.mode(), (about.uid(), about.gid()), time, names, content));
        }
        found
    }

    #[test]
    fn a_volume_has_all_that_the_image_has_there() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let made = tempfile::tempdir_in("/var/lib").expect("a directory");
        let rootfs = made.path().join("rootfs");
        let at = rootfs.join("var/lib/data");
        fs::create_dir_all(at.join("deep/er")).expect("made");
        symlink("/var/lib/data", rootfs.join("link")).expect("linked");
        fs::write(at.join("file"), "content").expect("written");
        fs::hard_link(at.join("file"), at.join("deep/same")).expect("linked");
        fs::write(at.join("deep/setuid"), "").expect("written");
        lchown(at.join("deep/setuid"), Some(7), Some(8)).expect("given");
        fs::set_permissions(at.join("deep/setuid"), Permissions::from_mode(0o4711)).expect("set");
        symlink("../../../../etc/passwd", at.join("dangling")).expect("linked");
        mknod(&at.join("pipe"), SFlag::S_IFIFO, Mode::S_IRUSR, 0).expect("made");
        lsetxattr(at.join("file"), "user.mark", b"kept", XattrFlags::empty()).expect("set");
        lchown(&at, Some(999), Some(999)).expect("given");
        fs::set_permissions(&at, Permissions::from_mode(0o1770)).expect("set");
        let past =
            FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000));
        fs::File::open(at.join("file")).expect("opened").set_times(past).expect("set");

        for (number, path) in ["/var/lib/data", "/link", "/var/../link/."].into_iter().enumerate() {
            let target = made.path().join(format!("volumes/{number}"));
            make(&ImageVolume { path: path.into(), target: target.clone() }, &rootfs).expect("made");
            assert_eq!(seen(&target), seen(&at), "{path}");
            let mut value = [0; 16];
            let length = lgetxattr(target.join("file"), "user.mark", &mut value).expect("an attribute");
            assert_eq!(&value[..length], b"kept");
        }
        for (number, path) in ["/none/at/all", "/var/lib/data/file", "/etc"].into_iter().enumerate() {
            let target = made.path().join(format!("empty/{number}"));
            make(&ImageVolume { path: path.into(), target: target.clone() }, &rootfs).expect("made");
            assert_eq!(fs::read_dir(&target).expect("listed").count(), 0, "{path}");
            assert_eq!(fs::metadata(&target).expect("read").mode() & 0o7777, 0o755);
        }
    }
}
