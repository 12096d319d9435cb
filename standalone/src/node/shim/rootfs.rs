//! The container's root file system, mounted in the shim's own mount namespace: when shim and container are
//! gone, so are the mounts, whoever killed them.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, mknod};
use pathrs::Root;
use pathrs::error::ErrorKind;
use pathrs::flags::OpenFlags;
use ropewalk_images::{is_in_user_namespace, opaque_attribute};
use ropewalk_kubelet::account::Account;
use ropewalk_kubelet::oci::{self, Rootfs, Spec, SubPath, WorkingDir};

use super::{ShimError, graft};
use crate::node::files;
use crate::node::overlay;

/// Bytes that are read of an image's `/etc/passwd` or `/etc/group`: ten thousand users and more.
const MAX_ACCOUNTS: u64 = 1 << 20;

/// Mounts the root file system at `target`, with the layer that the container writes to at `scratch`. The runtime makes
/// `target` read-only itself, and nothing below it.
pub(super) fn mount_rootfs(
    rootfs: &Rootfs,
    scratch: &Path,
    scratch_bytes: u64,
    read_only: bool,
    target: &Path,
) -> Result<(), ShimError> {
    let failed = |what: &'static str| move |source: io::Error| ShimError::Rootfs { what, source };
    for directory in [scratch, target] {
        fs::create_dir_all(directory).map_err(failed("make the mount point"))?;
    }
    if matches!(rootfs.upper, oci::Upper::Memory) {
        mount_memory(scratch, scratch_bytes).map_err(failed("mount a tmpfs"))?;
    }
    let machine = Path::new("/");
    let parts = if is_in_user_namespace() && rootfs.lowers == [machine] {
        graft::mount_root(rootfs, machine, scratch, target)
            .map_err(failed("put the machine's root together"))?
    } else {
        mount_overlay(rootfs, scratch, target)?;
        Vec::new()
    };
    write_files(rootfs, target).map_err(failed("write files of the node's own"))?;
    let writable = parts.into_iter().filter(|_| read_only);
    writable.into_iter().try_for_each(|part| graft::seal(&part)).map_err(failed("make the root read-only"))
}

fn mount_memory(scratch: &Path, bytes: u64) -> io::Result<()> {
    let options = format!("size={bytes},mode=0755");
    Ok(mount(Some("tmpfs"), scratch, Some("tmpfs"), MsFlags::MS_NODEV, Some(options.as_str()))?)
}

fn mount_overlay(rootfs: &Rootfs, scratch: &Path, target: &Path) -> Result<(), ShimError> {
    let failed = |what: &'static str| move |source: io::Error| ShimError::Rootfs { what, source };
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    for directory in [&upper, &work] {
        fs::create_dir(directory).map_err(failed("make the upper layer"))?;
    }
    fs::set_permissions(&upper, Permissions::from_mode(0o755)).map_err(failed("make the upper layer"))?;
    if let [lower] = rootfs.lowers.as_slice() {
        Upper { lower, upper: &upper }.fill(rootfs).map_err(failed("fill the upper layer"))?;
    }
    let layers = overlay::Upper { layer: &upper, work: &work };
    overlay::mount(&rootfs.lowers, Some(&layers), MsFlags::MS_NODEV, target)
        .map_err(failed("mount the overlay"))
}

/// Removes what the container wrote; nothing of it runs any more.
pub(super) fn clear(directory: &Path) {
    for mounted in [files::ROOTFS, files::SCRATCH] {
        match umount2(&directory.join(mounted), MntFlags::MNT_DETACH) {
            // Not mounted: that failed, and the container never ran.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            // What is mounted there goes with this process.
            Err(_) => return,
        }
    }
    files::remove_scratch(directory);
}

/// Puts files in the place of whatever the layers have there, links among them, which are not followed.
fn write_files(rootfs: &Rootfs, target: &Path) -> io::Result<()> {
    let root = Root::open(target).map_err(io::Error::other)?;
    for (path, contents) in &rootfs.files {
        let path = Path::new(path);
        let parent = path.parent().unwrap_or(Path::new("/"));
        if root.resolve(parent).is_err() {
            root.mkdir_all(parent, &Permissions::from_mode(0o755)).map_err(io::Error::other)?;
        }
        match root.remove_file(path) {
            Err(error) if !is_missing(&error) => return Err(io::Error::other(error)),
            _ => {}
        }
        let flags = OpenFlags::O_WRONLY | OpenFlags::O_EXCL;
        let mut file =
            root.create_file(path, flags, &Permissions::from_mode(0o644)).map_err(io::Error::other)?;
        file.write_all(contents.as_bytes())?;
    }
    Ok(())
}

pub(super) fn is_missing(error: &pathrs::error::Error) -> bool {
    matches!(error.kind(), ErrorKind::OsError(Some(number)) if number == Errno::ENOENT as i32)
}

/// Writes into the OCI document whom the container runs as, which its image's files say.
pub(super) fn run_as(account: &Account, directory: &Path) -> Result<(), ShimError> {
    let failed = |source: io::Error| ShimError::Rootfs { what: "read the image's users and groups", source };
    let root = Root::open(directory.join(files::ROOTFS)).map_err(io::Error::other).map_err(failed)?;
    let passwd = read_text(&root, Path::new("/etc/passwd")).map_err(failed)?;
    let group = read_text(&root, Path::new("/etc/group")).map_err(failed)?;
    let person = account.find(&passwd, &group).map_err(ShimError::Account)?;
    let path = directory.join(files::CONFIG);
    let written = files::read_json::<Spec>(&path).and_then(|spec| {
        let mut spec = spec.ok_or(io::ErrorKind::NotFound)?;
        oci::run_as(&mut spec, &person);
        files::write_json(&path, &spec)
    });
    written.map_err(ShimError::State)
}

/// A text of the image, found within it whatever links it has; empty where there is no such file.
fn read_text(root: &Root, path: &Path) -> io::Result<String> {
    let handle = match root.resolve(path) {
        Err(error) if is_missing(&error) => return Ok(String::new()),
        found => found.map_err(io::Error::other)?,
    };
    // Opening anything but a file may wait, or do something.
    let opened = rustix::fd::OwnedFd::from(handle.try_clone().map_err(io::Error::other)?);
    if !fs::File::from(opened).metadata()?.is_file() {
        return Ok(String::new());
    }
    let file = handle.reopen(OpenFlags::O_RDONLY).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    file.take(MAX_ACCOUNTS).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The layer that hides things before it is mounted: what it hides cannot be unmounted by anyone
/// inside, unlike a mount put over it.
pub(super) struct Upper<'a> {
    pub(super) lower: &'a Path,
    pub(super) upper: &'a Path,
}

impl Upper<'_> {
    fn fill(&self, rootfs: &Rootfs) -> io::Result<()> {
        for (path, mode) in &rootfs.empty {
            for place in places(self.lower, path) {
                let directory = self.directory(&place)?;
                // Not every file system in memory keeps attributes for users.
                if self.lower.join(&place).exists() {
                    rustix::fs::setxattr(
                        &directory,
                        opaque_attribute(),
                        b"y",
                        rustix::fs::XattrFlags::empty(),
                    )?;
                }
                fs::set_permissions(&directory, Permissions::from_mode(*mode))?;
            }
        }
        let gone = rootfs.empty.keys().flat_map(|path| places(self.lower, path)).collect();
        self.hide(rootfs.hidden.iter().flat_map(|path| places(self.lower, path)).collect(), gone)
    }

    /// Hides what is in these places, but for those in others that are empty anyway.
    pub(super) fn hide(&self, hidden: BTreeSet<PathBuf>, mut gone: Vec<PathBuf>) -> io::Result<()> {
        // Parents come before what is in them, and nothing can be hidden below what is hidden.
        for place in hidden {
            let covered = gone.iter().any(|outer| place.starts_with(outer));
            if !covered && fs::symlink_metadata(self.lower.join(&place)).is_ok() {
                self.whiteout(&place)?;
                gone.push(place);
            }
        }
        Ok(())
    }

    /// A directory of the layer, its parents with the owner and mode they have in the base.
    fn directory(&self, path: &Path) -> io::Result<PathBuf> {
        let mut here = self.upper.to_owned();
        let mut base = self.lower.to_owned();
        for part in path.components() {
            here.push(part);
            base.push(part);
            match fs::create_dir(&here) {
                Ok(()) => match fs::metadata(&base) {
                    Ok(found) if found.is_dir() => {
                        // The machine's users are not those of a user namespace.
                        if !is_in_user_namespace() {
                            chown(&here, Some(found.uid()), Some(found.gid()))?;
                        }
                        fs::set_permissions(&here, Permissions::from_mode(found.mode() & 0o7777))?;
                    }
                    _ => fs::set_permissions(&here, Permissions::from_mode(0o755))?,
                },
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(here)
    }

    fn whiteout(&self, path: &Path) -> io::Result<()> {
        let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
        let place = parent.join(path.file_name().unwrap_or_default());
        // A device 0/0 in the upper layer is overlayfs's sign for "deleted".
        match mknod(&place, SFlag::S_IFCHR, Mode::empty(), 0) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The path itself below `lower` and, where it leads through symbolic links, the place they lead to: hiding only the
/// link would leave the thing readable under its real name.
pub(super) fn places(lower: &Path, path: &str) -> BTreeSet<PathBuf> {
    let relative = PathBuf::from(path.trim_start_matches('/'));
    let mut places = BTreeSet::new();
    if let Ok(real) = fs::canonicalize(lower.join(&relative))
        && let Ok(real) = real.strip_prefix(lower)
    {
        places.insert(real.to_owned());
    }
    // A parent that is itself a link is not to become a directory: its real place is in the list already.
    let parent = relative.parent().unwrap_or(Path::new(""));
    if fs::canonicalize(lower.join(parent)).map_or(true, |real| real == lower.join(parent)) {
        places.insert(relative);
    }
    places
}

/// Resolves a volume's sub path inside the volume, whatever symbolic links a container put there, and binds it.
pub(super) fn bind_sub_path(sub_path: &SubPath) -> Result<(), ShimError> {
    let failed = |source: io::Error| ShimError::SubPath { path: sub_path.path.clone(), source };
    let escaped = |error: pathrs::error::Error| failed(io::Error::other(error));
    let root = Root::open(&sub_path.root).map_err(escaped)?;
    let handle = match root.resolve(&sub_path.path) {
        Ok(handle) => handle,
        Err(_) => root.mkdir_all(&sub_path.path, &Permissions::from_mode(0o755)).map_err(escaped)?,
    };
    let opened = rustix::fd::OwnedFd::from(handle);
    let source = format!("/proc/self/fd/{}", rustix::fd::AsRawFd::as_raw_fd(&opened));
    if fs::metadata(&source).map_err(failed)?.is_dir() {
        fs::create_dir_all(&sub_path.target).map_err(failed)?;
    } else {
        let parent = sub_path.target.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent).map_err(failed)?;
        fs::write(&sub_path.target, "").map_err(failed)?;
    }
    mount(
        Some(source.as_str()),
        &sub_path.target,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .map_err(|errno| failed(errno.into()))
}

/// Makes the working directory where the container will see it.
pub(super) fn make_working_dir(working_dir: &WorkingDir) -> Result<(), ShimError> {
    let failed = |source: io::Error| ShimError::WorkingDir { path: working_dir.path.clone(), source };
    let escaped = |error: pathrs::error::Error| failed(io::Error::other(error));
    let root = Root::open(&working_dir.root).map_err(escaped)?;
    if root.resolve(&working_dir.path).is_err() {
        root.mkdir_all(&working_dir.path, &Permissions::from_mode(0o755)).map_err(escaped)?;
    }
    Ok(())
}
