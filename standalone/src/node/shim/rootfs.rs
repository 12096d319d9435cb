//! The container's root file system, mounted in the shim's own mount namespace: when shim and container are
//! gone, so are the mounts, whoever killed them.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, mknod};
use pathrs::Root;
use ropewalk_kubelet::oci::{Rootfs, SubPath, WorkingDir};

use super::ShimError;

/// Marks a directory of the upper layer as hiding everything below it.
const OPAQUE: &str = "trusted.overlay.opaque";

/// Mounts the root file system at `target`, its layer in memory at `scratch`.
///
/// The layer cannot lie on the file system of the base when that is `/`: the kernel refuses an upper layer
/// below its lower one.
pub(super) fn mount_rootfs(
    rootfs: &Rootfs,
    scratch: &Path,
    scratch_bytes: u64,
    target: &Path,
) -> Result<(), ShimError> {
    let failed = |what: &'static str| move |source: io::Error| ShimError::Rootfs { what, source };
    for directory in [scratch, target] {
        fs::create_dir_all(directory).map_err(failed("make the mount point"))?;
    }
    let options = format!("size={scratch_bytes},mode=0755");
    let flags = MsFlags::MS_NODEV;
    mount(Some("tmpfs"), scratch, Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(|errno| failed("mount a tmpfs")(errno.into()))?;
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    for directory in [&upper, &work] {
        fs::create_dir(directory).map_err(failed("make the upper layer"))?;
    }
    Upper { lower: &rootfs.lower, upper: &upper }.fill(rootfs).map_err(failed("fill the upper layer"))?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        rootfs.lower.display(),
        upper.display(),
        work.display()
    );
    mount(Some("overlay"), target, Some("overlay"), flags, Some(options.as_str()))
        .map_err(|errno| failed("mount the overlay")(errno.into()))
}

/// The layer that hides and adds things before it is mounted: what it hides cannot be unmounted by anyone
/// inside, unlike a mount put over it.
struct Upper<'a> {
    lower: &'a Path,
    upper: &'a Path,
}

impl Upper<'_> {
    fn fill(&self, rootfs: &Rootfs) -> io::Result<()> {
        fs::set_permissions(self.upper, Permissions::from_mode(0o755))?;
        for (path, mode) in &rootfs.empty {
            for place in self.places(path) {
                let directory = self.directory(&place)?;
                rustix::fs::setxattr(&directory, OPAQUE, b"y", rustix::fs::XattrFlags::empty())?;
                fs::set_permissions(&directory, Permissions::from_mode(*mode))?;
            }
        }
        let mut gone: Vec<_> = rootfs.empty.keys().flat_map(|path| self.places(path)).collect();
        let hidden: BTreeSet<_> = rootfs.hidden.iter().flat_map(|path| self.places(path)).collect();
        // Parents come before what is in them, and nothing can be hidden below what is hidden.
        for place in hidden {
            let covered = gone.iter().any(|outer| place.starts_with(outer));
            if !covered && fs::symlink_metadata(self.lower.join(&place)).is_ok() {
                self.whiteout(&place)?;
                gone.push(place);
            }
        }
        for (path, contents) in &rootfs.files {
            let path = Path::new(path.trim_start_matches('/'));
            let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
            fs::write(parent.join(path.file_name().unwrap_or_default()), contents)?;
        }
        Ok(())
    }

    /// The path itself and, where it leads through symbolic links, the place they lead to: hiding only the
    /// link would leave the thing readable under its real name.
    fn places(&self, path: &str) -> BTreeSet<PathBuf> {
        let relative = PathBuf::from(path.trim_start_matches('/'));
        let mut places = BTreeSet::new();
        if let Ok(real) = fs::canonicalize(self.lower.join(&relative))
            && let Ok(real) = real.strip_prefix(self.lower)
        {
            places.insert(real.to_owned());
        }
        // A parent that is itself a link is not to become a directory: its real place is in the list already.
        let parent = relative.parent().unwrap_or(Path::new(""));
        if fs::canonicalize(self.lower.join(parent)).map_or(true, |real| real == self.lower.join(parent)) {
            places.insert(relative);
        }
        places
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
                        chown(&here, Some(found.uid()), Some(found.gid()))?;
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
