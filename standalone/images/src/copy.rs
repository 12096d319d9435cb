//! A file or link of a layer below, copied into the one above.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::below::attributes;
use crate::unpack::{set_attribute, times, unless_nobody};

/// Copies what has the name in `from` to that name in `to`, where there is nothing, and tells the bytes of its data. `None` for
/// what is neither a file nor a link; fails for more than `most` bytes.
pub(crate) fn copy(from: &OwnedFd, to: &OwnedFd, name: &[u8], most: u64) -> io::Result<Option<u64>> {
    let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let bytes = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            fs::symlinkat(fs::readlinkat(from, name, Vec::new())?, to, name)?;
            0
        }
        FileType::RegularFile => {
            let size = u64::try_from(stat.st_size).unwrap_or_default();
            if size > most {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            content(from, to, name)?;
            size
        }
        _ => return Ok(None),
    };
    let (user, group) = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    unless_nobody(fs::chownat(to, name, user, group, AtFlags::SYMLINK_NOFOLLOW))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        finish(from, to, name, stat.st_mode)?;
    }
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
    let times = times((stat.st_mtime, nanoseconds));
    fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(Some(bytes))
}

fn open(directory: &OwnedFd, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    fs::openat(directory, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
}

fn content(from: &OwnedFd, to: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let mut input = File::from(open(from, name, OFlags::RDONLY)?);
    let mut output = File::from(open(to, name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?);
    io::copy(&mut input, &mut output).map(drop)
}

/// What a change of the owner takes away.
fn finish(from: &OwnedFd, to: &OwnedFd, name: &[u8], mode: u32) -> Result<(), Errno> {
    let file = open(to, name, OFlags::RDONLY)?;
    fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
    for (name, value) in attributes(&open(from, name, OFlags::RDONLY)?)? {
        set_attribute(&file, &name, &value)?;
    }
    Ok(())
}
