//! What is in layers that are unpacked already, seen as overlayfs sees it.

use std::os::fd::OwnedFd;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::user_namespace::opaque_attribute;

/// Bytes of attributes' names, and of one's value; the kernel's own limit.
const MAX_ATTRIBUTE: usize = 64 << 10;

/// Links on the way to one file, as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// Names on the way to one file, with those that links add: looking each up takes time in every layer.
const MAX_NAMES: usize = 512;

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
        let Some(name) = names.last() else {
            return self.0.first().map(|root| root.try_clone().map_err(|_| Errno::MFILE)).transpose();
        };
        match find(self.0.iter(), names)? {
            Some((parent, Found::Directory)) => open_below(&parent, name).map(Some),
            _ => Ok(None),
        }
    }

    /// What is no directory and has this path in all layers together, and the directory it is in.
    pub(crate) fn file(&self, names: &[&[u8]]) -> Tried<Option<OwnedFd>> {
        let found = find(self.0.iter(), names)?;
        Ok(found.and_then(|(parent, found)| matches!(found, Found::Other(_)).then_some(parent)))
    }

    /// The path to a directory without the links on the way, as they are with the layer `top` on these: a link may be in one
    /// layer, and what it leads to in another, or nowhere yet. It does not lead out.
    pub(crate) fn resolve(&self, top: &OwnedFd, names: &[&[u8]]) -> Tried<Vec<Vec<u8>>> {
        let mut left: Vec<Vec<u8>> = names.iter().rev().map(|name| name.to_vec()).collect();
        let mut path: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(name) = left.pop() {
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    path.pop();
                    continue;
                }
                _ => path.push(name),
            }
            let Some(to) = self.link(top, &path)? else { continue };
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP);
            }
            path.pop();
            if to.starts_with(b"/") {
                path.clear();
            }
            left.extend(to.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec));
            if path.len() + left.len() > MAX_NAMES {
                return Err(Errno::NAMETOOLONG);
            }
        }
        Ok(path)
    }

    /// Where the link at a path leads, if there is one.
    fn link(&self, top: &OwnedFd, path: &[Vec<u8>]) -> Tried<Option<Vec<u8>>> {
        let names: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        let found = find(std::iter::once(top).chain(&self.0), &names)?;
        let (Some((parent, Found::Other(_))), Some(name)) = (found, names.last()) else { return Ok(None) };
        match fs::readlinkat(&parent, *name, Vec::new()) {
            Ok(to) => Ok(Some(to.into_bytes())),
            Err(Errno::INVAL) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}

/// What layers together, the topmost first, have at a path, which is not their root, and the directory it is in. Links on the
/// way lead nowhere.
fn find<'a>(roots: impl Iterator<Item = &'a OwnedFd>, names: &[&[u8]]) -> Tried<Option<(OwnedFd, Found)>> {
    let Some((last, parents)) = names.split_last() else { return Ok(None) };
    for root in roots {
        let mut directory = root.try_clone().map_err(|_| Errno::MFILE)?;
        let (mut hides, mut whole) = (false, true);
        for name in parents {
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
            match look(&directory, last)? {
                Found::Nothing => {}
                Found::Whiteout => return Ok(None),
                found => return Ok(Some((directory, found))),
            }
        }
        if hides {
            return Ok(None);
        }
    }
    Ok(None)
}

fn is_opaque(directory: &OwnedFd) -> Tried<bool> {
    let mut value = [0; 1];
    match fs::fgetxattr(directory, opaque_attribute(), &mut value) {
        Ok(1) => Ok(value == *b"y"),
        Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno),
    }
}
