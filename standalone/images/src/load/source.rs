//! The files of a directory or an archive, by paths that were written by others.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{self, Mode, OFlags, ResolveFlags};

use super::LoadError;
use crate::compression::{decompress, is_compressed};
use crate::documents::{DocumentError, MAX_DOCUMENT};
use crate::entries::{Entries, Kind};
use crate::store::Store;
use crate::unpack::{names, shown};

/// Files in an archive of images: twenty images of the most layers there may be.
const MAX_FILES: usize = 10_000;

/// Links on the way to a file; `docker save` has written one for a layer that two images have.
const MAX_LINKS: usize = 8;

/// Bytes of an archive read at once.
const BUFFER: usize = 256 << 10;

/// Where files are.
pub(super) enum Source {
    Directory(OwnedFd),
    Archive { file: File, places: BTreeMap<Vec<u8>, Place> },
}

/// What has a path in an archive.
pub(super) enum Place {
    File {
        at: u64,
        size: u64,
    },
    /// To another path in the archive.
    Link(Vec<u8>),
}

impl Source {
    /// Opens a directory, or an archive, which may be compressed.
    pub(super) fn open(path: &Path, store: &Store) -> Result<Self, LoadError> {
        let failed = |what| move |source| LoadError::File { what, path: path.to_owned(), source };
        let file = File::open(path).map_err(failed("open"))?;
        if file.metadata().map_err(failed("read"))?.is_dir() {
            return Ok(Self::Directory(file.into()));
        }
        let file = plain(file, store).map_err(failed("read"))?;
        let places = places(&file, path)?;
        Ok(Self::Archive { file, places })
    }

    pub(super) fn has(&self, name: &str) -> Result<bool, LoadError> {
        match self.reader(name) {
            Err(LoadError::Missing(_)) => Ok(false),
            found => found.map(|_| true),
        }
    }

    /// A whole file that is a document.
    pub(super) fn document(&self, what: &'static str, name: &str) -> Result<Vec<u8>, LoadError> {
        let mut content = Vec::new();
        let read = self.reader(name)?.take(MAX_DOCUMENT + 1).read_to_end(&mut content);
        read.map_err(|source| LoadError::File { what: "read", path: name.into(), source })?;
        if content.len() as u64 > MAX_DOCUMENT {
            return Err(DocumentError::Large(what).into());
        }
        Ok(content)
    }

    pub(super) fn reader(&self, name: &str) -> Result<Box<dyn Read + '_>, LoadError> {
        let outside = || LoadError::Path(name.to_owned());
        let missing = || LoadError::Missing(name.to_owned());
        match self {
            Self::Directory(directory) => {
                // What is no file might never be opened, or never end.
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                let file = fs::openat2(directory, name, flags, Mode::empty(), resolve)
                    .map_err(|errno| if errno == rustix::io::Errno::NOENT { missing() } else { outside() })?;
                let file = File::from(file);
                if file.metadata().is_ok_and(|found| found.is_file()) {
                    Ok(Box::new(file))
                } else {
                    Err(outside())
                }
            }
            Self::Archive { file, places } => {
                let mut path = names(name.as_bytes()).ok_or_else(outside)?.join(&b'/');
                for _ in 0..=MAX_LINKS {
                    match places.get(&path).ok_or_else(missing)? {
                        Place::File { at, size } => return Ok(Box::new(Part { file, at: *at, left: *size })),
                        Place::Link(to) => path.clone_from(to),
                    }
                }
                Err(outside())
            }
        }
    }
}

/// A part of a file.
struct Part<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.file.read_at(&mut buffer[..wanted], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// The archive as a file to read anywhere in: what is compressed or comes through a pipe is written out first.
fn plain(mut file: File, store: &Store) -> io::Result<File> {
    let mut head = [0; 4];
    if file.metadata()?.is_file() {
        // Shorter than this it is no archive.
        if file.read_at(&mut head, 0)? < head.len() || !is_compressed(head) {
            return Ok(file);
        }
        file.rewind()?;
    }
    let limit = store.limits().bytes;
    let mut plain = tempfile::tempfile_in(store.directory())?;
    let bytes = io::copy(&mut decompress(file)?.take(limit + 1), &mut plain)?;
    if bytes > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(plain) }
}

/// A reader that knows where it is.
struct Position<R> {
    input: R,
    at: u64,
}

impl<R: Read> Read for Position<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.at += count as u64;
        Ok(count)
    }
}

fn places(file: &File, path: &Path) -> Result<BTreeMap<Vec<u8>, Place>, LoadError> {
    let failed = |source| LoadError::Archive { path: path.to_owned(), source };
    let mut places = BTreeMap::new();
    let mut start = file;
    start.rewind().map_err(|source| LoadError::File { what: "read", path: path.to_owned(), source })?;
    let mut entries = Entries::new(Position { input: BufReader::with_capacity(BUFFER, start), at: 0 });
    while let Some(entry) = entries.next().map_err(failed)? {
        let outside = || LoadError::Path(shown(&entry.path));
        let key = names(&entry.path).ok_or_else(outside)?.join(&b'/');
        let place = match entry.kind {
            Kind::File => match entry.extents[..] {
                [extent] if extent.at == 0 && extent.length == entry.size => {
                    Place::File { at: entries.input().at, size: entry.size }
                }
                _ => return Err(outside()),
            },
            Kind::HardLink => Place::Link(names(&entry.link).ok_or_else(outside)?.join(&b'/')),
            Kind::Symlink => Place::Link(beside(&key, &entry.link).ok_or_else(outside)?),
            Kind::Directory => continue,
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => return Err(outside()),
        };
        places.insert(key, place);
        if places.len() > MAX_FILES {
            return Err(LoadError::Files { path: path.to_owned(), limit: MAX_FILES });
        }
    }
    Ok(places)
}

/// Where a symbolic link of the archive leads, within it.
fn beside(path: &[u8], link: &[u8]) -> Option<Vec<u8>> {
    let mut parts = if link.starts_with(b"/") { Vec::new() } else { names(path)? };
    parts.pop();
    for part in link.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}
