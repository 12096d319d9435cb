//! What is in layers that are unpacked already, seen as overlayfs sees it.

use std::os::fd::OwnedFd;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::user_namespace::opaque_attribute;

/// Bytes of attributes' names, and of one's value; the kernel's own limit.
const MAX_ATTRIBUTE: usize = 64 << 10;

/// A system call's failure, of which the entry's path is not known yet.
pub(crate) type Tried<T> = Result<T, Errno>;

/// What has a name in a directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Found {
    Nothing,
    Whiteout,
    Directory,
    /// By its inode's number.
    Other(u64),
}

pub(crate) fn look(parent: &OwnedFd, name: &[u8]) -> Tried<Found> {
    let stat = match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(Found::Nothing),
        stat => stat?,
    };
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Found::Directory,
        FileType::CharacterDevice if stat.st_rdev == 0 => Found::Whiteout,
        _ => Found::Other(stat.st_ino),
    })
}

/// Opens a directory in a directory.
pub(crate) fn open_below(parent: &OwnedFd, name: &[u8]) -> Tried<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(parent, name, flags, Mode::empty())
}

/// Attributes that mean something in a container. Overlayfs reads its own: those are not an archive's to set.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    let of_user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    of_user || name == b"security.capability" || name.starts_with(b"system.posix_acl_")
}

/// The attributes that are kept, of an open file.
pub(crate) fn attributes(file: &OwnedFd) -> Tried<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; MAX_ATTRIBUTE];
    let length = match fs::flistxattr(file, &mut names) {
        // A file system without any.
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    names[..length]
        .split(|&byte| byte == 0)
        .filter(|name| is_kept(name))
        .map(|name| {
            let mut value = vec![0; MAX_ATTRIBUTE];
            let length = fs::fgetxattr(file, name, &mut value)?;
            value.truncate(length);
            Ok((name.to_vec(), value))
        })
        .collect()
}

/// Layers by their roots, the topmost first.
pub(crate) struct Below(pub(crate) Vec<OwnedFd>);

impl Below {
    /// The directory that all layers together have at a path.
    pub(crate) fn directory(&self, names: &[&[u8]]) -> Tried<Option<OwnedFd>> {
        for root in &self.0 {
            let mut directory = root.try_clone().map_err(|_| Errno::MFILE)?;
            let (mut hides, mut whole) = (false, true);
            for name in names {
                match look(&directory, name)? {
                    Found::Directory => directory = open_below(&directory, name)?,
                    Found::Nothing => {
                        whole = false;
                        break;
                    }
                    Found::Whiteout | Found::Other(_) => return Ok(None),
                }
                hides |= is_opaque(&directory)?;
            }
            if whole {
                return Ok(Some(directory));
            }
            if hides {
                return Ok(None);
            }
        }
        Ok(None)
    }
}

fn is_opaque(directory: &OwnedFd) -> Tried<bool> {
    let mut value = [0; 1];
    match fs::fgetxattr(directory, opaque_attribute(), &mut value) {
        Ok(1) => Ok(value == *b"y"),
        Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno),
    }
}
