//! One layer's archive becomes a directory that overlayfs takes for a layer.
//!
//! What the archive says to leave out becomes what overlayfs understands: `.wh.NAME` a character device 0:0, `.wh..wh..opq` the
//! attribute `trusted.overlay.opaque`, or `user.overlay.opaque` in a user namespace. There, too, root gets what belongs to users
//! that the namespace does not have, and devices are left out, as nobody may make them. Every path is resolved by the kernel
//! within the directory (`openat2` with `RESOLVE_IN_ROOT`), so a link in the archive leads to nowhere but the archive's own files.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    self, AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::below::{self, Below, Found, Tried, is_kept, look, open_below};
use crate::compression::read_up_to;
use crate::copy;
use crate::entries::{ArchiveError, Entries, Entry, Kind};
use crate::user_namespace::{is_in_user_namespace, opaque_attribute};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names that an older union file system kept its own things under.
const FOREIGN: &[u8] = b".wh..wh.";

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A path on Linux.
const MAX_PATH: usize = 4096;

/// Directories in each other, by whichever links: removing them takes a descriptor each, of which a process has 1024 by default.
const MAX_DEPTH: usize = 256;

/// Data copied at once.
const BUFFER: usize = 256 << 10;

/// Bytes of an archive for each entry it may have: a header, and names and attributes of most sizes.
const PER_ENTRY: u64 = 4096;

/// Bytes of an archive beside: the names and attributes of one entry that has as many as it may.
const BESIDE: u64 = 16 << 20;

/// What one layer may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of data in its files, and of padding after its end.
    pub bytes: u64,
    /// Files, directories and everything else.
    pub entries: u64,
}

impl Default for Limits {
    /// Twice the largest layers seen in the wild, and ten times the files of a whole distribution.
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 2_000_000 }
    }
}

/// What a layer came to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Unpacked {
    /// Bytes of data in its files.
    pub bytes: u64,
    /// It hides everything in the layers below. Overlayfs does not look for the mark on a layer's own root.
    pub opaque: bool,
}

/// Why a layer cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive is none, or a strange one.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A path that leads out, or is none.
    #[error("the layer has an entry \"{0}\", which is no path within it")]
    Path(String),
    /// A hard link to something that is not there.
    #[error("the layer has a hard link \"{path}\" to \"{target}\", which it does not have")]
    Link {
        /// The link.
        path: String,
        /// What it should be a link to.
        target: String,
    },
    /// The device that overlayfs takes for a file that is left out.
    #[error("the layer has a device \"{0}\" with number 0:0, which nothing may have")]
    Device(String),
    /// Too large.
    #[error("the layer has more than {0} bytes")]
    Bytes(u64),
    /// Too many.
    #[error("the layer has more than {0} entries")]
    Entries(u64),
    /// The file system says no.
    #[error("the layer's entry \"{path}\" cannot be written")]
    Write {
        /// The entry.
        path: String,
        /// What it says.
        source: io::Error,
    },
    /// The place itself.
    #[error("\"{}\" cannot be opened", path.display())]
    Open {
        /// Where the layer was to be unpacked.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Unpacks an archive, which is not compressed, into a directory, which is empty. Directories that it leaves out are as in the
/// layers `below`, the topmost first. Reads the archive to its end, so that what reads beneath has seen all of it. An error leaves
/// what was unpacked so far.
pub fn unpack(
    archive: impl Read,
    into: &Path,
    below: &[impl AsRef<Path>],
    limits: &Limits,
) -> Result<Unpacked, UnpackError> {
    let open = |path: &Path| {
        fs::openat(CWD, path, DIRECTORY, Mode::empty())
            .map_err(|errno| UnpackError::Open { path: path.to_owned(), source: errno.into() })
    };
    let below = Below(below.iter().map(|path| open(path.as_ref())).collect::<Result<_, _>>()?);
    let (root, unpacked) = (open(into)?, Unpacked::default());
    let failed = |errno: Errno| UnpackError::Open { path: into.to_owned(), source: errno.into() };
    let depth = depth(&root).map_err(failed)?;
    let mut layer = Layer { root, depth, below, unpacked, times: Vec::new(), limits: *limits };
    layer.begin().map_err(failed)?;
    // What describes entries is not data, and may be unpacked from next to nothing too.
    let most = limits.entries.saturating_mul(PER_ENTRY).saturating_add(limits.bytes).saturating_add(BESIDE);
    let mut entries = Entries::new(Bounded { input: archive, left: most });
    let mut count = 0;
    while let Some(entry) = entries.next()? {
        count += 1;
        if count > limits.entries {
            return Err(UnpackError::Entries(limits.entries));
        }
        layer.add(&entry, &mut entries)?;
    }
    layer.set_times();
    layer.drain(entries.into_inner())?;
    Ok(layer.unpacked)
}

/// Fails, in place of ending, where an archive has had enough.
struct Bounded<R> {
    input: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(count)
    }
}

struct Layer {
    root: OwnedFd,
    /// Directories that the root is in.
    depth: usize,
    below: Below,
    unpacked: Unpacked,
    /// Of directories, which change with what is put into them.
    times: Vec<(Vec<u8>, (i64, u32))>,
    limits: Limits,
}

impl Layer {
    /// Makes the root what it is if the archive does not tell.
    fn begin(&mut self) -> Tried<()> {
        fs::fchmod(&self.root, Mode::from_raw_mode(0o755))?;
        self.times.push((Vec::new(), (0, 0)));
        self.inherit(&[], &self.root.try_clone().map_err(|_| Errno::MFILE)?)
    }

    /// Gives a directory that the archive has not told of yet what it has below.
    fn inherit(&mut self, names: &[&[u8]], directory: &OwnedFd) -> Tried<()> {
        let Some(like) = self.below.directory(names)? else { return Ok(()) };
        let stat = fs::fstat(&like)?;
        let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
        unless_nobody(fs::fchown(directory, owner.0, owner.1))?;
        fs::fchmod(directory, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        for (name, value) in below::attributes(&like)? {
            set_attribute(directory, &name, &value)?;
        }
        let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
        self.times.push((names.join(&b'/'), (stat.st_mtime, nanoseconds)));
        Ok(())
    }

    fn add<R: Read>(&mut self, entry: &Entry, entries: &mut Entries<R>) -> Result<(), UnpackError> {
        let names = names(&entry.path).ok_or_else(|| UnpackError::Path(shown(&entry.path)))?;
        let Some((&name, parents)) = names.split_last() else {
            // The root itself.
            if entry.kind == Kind::Directory {
                finish(&self.root, entry).map_err(unwritten(entry))?;
                self.times.push((Vec::new(), entry.modified));
            }
            return Ok(());
        };
        if name == OPAQUE {
            if parents.is_empty() {
                self.unpacked.opaque = true;
                self.below.0.clear();
                return Ok(());
            }
            return self
                .directory(parents)
                .and_then(|directory| hide_below(&directory))
                .map_err(unwritten(entry));
        }
        if name.starts_with(FOREIGN) {
            return Ok(());
        }
        let parent = self.directory(parents).map_err(unwritten(entry))?;
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(UnpackError::Path(shown(&entry.path)));
            }
            return leave_out(&parent, hidden).map_err(unwritten(entry));
        }
        self.make(entry, &parent, name, entries)
    }

    fn make<R: Read>(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &[u8],
        entries: &mut Entries<R>,
    ) -> Result<(), UnpackError> {
        if entry.kind == Kind::HardLink {
            return self.link(entry, parent, name);
        }
        let was = make_way(parent, name, entry.kind == Kind::Directory).map_err(unwritten(entry))?;
        let made = match entry.kind {
            Kind::Directory => {
                let directory = self.make_directory(parent, name, was).map_err(unwritten(entry))?;
                finish(&directory, entry).map_err(unwritten(entry))?;
                self.times.push((entry.path.clone(), entry.modified));
                return Ok(());
            }
            Kind::File => return self.file(entry, parent, name, entries),
            Kind::Symlink => fs::symlinkat(&entry.link[..], parent, name),
            Kind::CharDevice if entry.device == (0, 0) => {
                return Err(UnpackError::Device(shown(&entry.path)));
            }
            Kind::CharDevice => make_node(entry, FileType::CharacterDevice, parent, name),
            Kind::BlockDevice => make_node(entry, FileType::BlockDevice, parent, name),
            Kind::Fifo => make_node(entry, FileType::Fifo, parent, name),
            Kind::HardLink => Ok(()),
        };
        let is_device = matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice);
        if is_device && made == Err(Errno::PERM) && is_in_user_namespace() {
            return Ok(());
        }
        made.map_err(unwritten(entry))?;
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let (user, group) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
        unless_nobody(fs::chownat(parent, name, user, group, nofollow)).map_err(unwritten(entry))?;
        if entry.kind != Kind::Symlink {
            fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(unwritten(entry))?;
        }
        fs::utimensat(parent, name, &times(entry.modified), nofollow).map_err(unwritten(entry))
    }

    fn file<R: Read>(
        &mut self,
        entry: &Entry,
        parent: &OwnedFd,
        name: &[u8],
        entries: &mut Entries<R>,
    ) -> Result<(), UnpackError> {
        // Holes take no room, but whoever reads the file or copies it reads all of it.
        if entry.size > self.limits.bytes {
            return Err(UnpackError::Bytes(self.limits.bytes));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR).map_err(unwritten(entry))?;
        let file = File::from(file);
        let mut buffer = vec![0; BUFFER.min(usize::try_from(entry.size).unwrap_or(BUFFER))];
        for extent in &entry.extents {
            let (mut at, end) = (extent.at, extent.at + extent.length);
            while at < end {
                let wanted = usize::try_from(end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
                let count = entries.read(&mut buffer[..wanted])?;
                self.count(count as u64)?;
                file.write_all_at(&buffer[..count], at).map_err(unwritten(entry))?;
                at += count as u64;
            }
        }
        file.set_len(entry.size).map_err(unwritten(entry))?;
        finish(&file, entry).map_err(unwritten(entry))?;
        fs::futimens(&file, &times(entry.modified)).map_err(unwritten(entry))
    }

    fn link(&mut self, entry: &Entry, parent: &OwnedFd, name: &[u8]) -> Result<(), UnpackError> {
        let missing = || UnpackError::Link { path: shown(&entry.path), target: shown(&entry.link) };
        let names = names(&entry.link).ok_or_else(missing)?;
        let (&target, parents) = names.split_last().ok_or_else(missing)?;
        let there = self.open(parents).and_then(|directory| Ok((look(&directory, target)?, directory)));
        let (is_there, directory) = match there {
            Ok((Found::Other(inode), directory)) => (inode, directory),
            Ok((Found::Nothing, _)) | Err(Errno::NOENT | Errno::NOTDIR) => {
                self.bring_up(entry, parents, target)?.ok_or_else(missing)?
            }
            _ => return Err(missing()),
        };
        // A link to itself would take away what it leads to.
        if look(parent, name).map_err(unwritten(entry))? == Found::Other(is_there) {
            return Ok(());
        }
        make_way(parent, name, false).map_err(unwritten(entry))?;
        fs::linkat(&directory, target, parent, name, AtFlags::empty()).map_err(unwritten(entry))
    }

    /// Copies a file or link of the layers below into this one, as overlayfs does when somebody makes a link to it: its inode's
    /// number and its directory. `None` if they have none.
    fn bring_up(
        &mut self,
        entry: &Entry,
        parents: &[&[u8]],
        name: &[u8],
    ) -> Result<Option<(u64, OwnedFd)>, UnpackError> {
        let mut path = self.below.resolve(&self.root, parents).map_err(unwritten(entry))?;
        path.push(name.to_vec());
        let path: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        let Some(from) = self.below.file(&path).map_err(unwritten(entry))? else { return Ok(None) };
        let directory = self.directory(parents).map_err(unwritten(entry))?;
        match look(&directory, name).map_err(unwritten(entry))? {
            Found::Nothing => {}
            Found::Other(inode) => return Ok(Some((inode, directory))),
            Found::Directory | Found::Whiteout => return Ok(None),
        }
        let Some(bytes) = copy::copy(&from, &directory, name, self.limits.bytes - self.unpacked.bytes)
            .map_err(unwritten(entry))?
        else {
            return Ok(None);
        };
        self.count(bytes)?;
        let found = look(&directory, name).map_err(unwritten(entry))?;
        Ok(if let Found::Other(inode) = found { Some((inode, directory)) } else { None })
    }

    /// Opens a directory within the layer.
    fn open(&self, names: &[&[u8]]) -> Tried<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = if names.is_empty() { b".".to_vec() } else { names.join(&b'/') };
        fs::openat2(&self.root, path, DIRECTORY, Mode::empty(), resolve)
    }

    /// Opens a directory within the layer, made if it is missing: archives may leave out what the layers below have.
    fn directory(&mut self, names: &[&[u8]]) -> Tried<OwnedFd> {
        match self.open(names) {
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            opened => return opened,
        }
        let path = self.below.resolve(&self.root, names)?;
        let names: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        let mut directory = self.open(&[])?;
        for (depth, name) in names.iter().enumerate() {
            directory = match self.open(&names[..=depth]) {
                Err(Errno::NOENT | Errno::NOTDIR) => match look(&directory, name)? {
                    was @ (Found::Nothing | Found::Whiteout) => {
                        if was == Found::Whiteout {
                            fs::unlinkat(&directory, *name, AtFlags::empty())?;
                        }
                        let made = self.make_directory(&directory, name, was)?;
                        if was == Found::Nothing {
                            self.inherit(&names[..=depth], &made)?;
                        }
                        made
                    }
                    Found::Directory | Found::Other(_) => return Err(Errno::NOTDIR),
                },
                opened => opened?,
            };
        }
        Ok(directory)
    }

    /// Opens the directory of that name; makes it, unless there was one.
    fn make_directory(&self, parent: &OwnedFd, name: &[u8], was: Found) -> Tried<OwnedFd> {
        if was != Found::Directory {
            if depth(parent)? >= self.depth + MAX_DEPTH {
                return Err(Errno::NAMETOOLONG);
            }
            fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
        }
        let directory = open_below(parent, name)?;
        // The archive left out what is below and has something else there.
        if was == Found::Whiteout {
            hide_below(&directory)?;
        }
        Ok(directory)
    }

    fn count(&mut self, bytes: u64) -> Result<(), UnpackError> {
        self.unpacked.bytes += bytes;
        if self.unpacked.bytes > self.limits.bytes {
            Err(UnpackError::Bytes(self.limits.bytes))
        } else {
            Ok(())
        }
    }

    fn set_times(&self) {
        // What was a directory may be something else by now; a time that is not kept harms nobody.
        for (path, modified) in &self.times {
            let Some(names) = names(path) else { continue };
            let opened = self.open(&names).or_else(|_| {
                let path = self.below.resolve(&self.root, &names)?;
                self.open(&path.iter().map(Vec::as_slice).collect::<Vec<_>>())
            });
            if let Ok(directory) = opened {
                let _ = fs::futimens(&directory, &times(*modified));
            }
        }
    }

    /// Reads what follows the archive's end.
    fn drain(&self, mut rest: impl Read) -> Result<(), UnpackError> {
        let mut buffer = [0; 8192];
        let mut bytes = 0;
        loop {
            match read_up_to(&mut rest, &mut buffer).map_err(ArchiveError::Read)? {
                0 => return Ok(()),
                count => bytes += count as u64,
            }
            if bytes > self.limits.bytes {
                return Err(UnpackError::Bytes(self.limits.bytes));
            }
        }
    }
}

/// The names on the way to a path within the layer, none for its root; `None` for a path that leads out.
pub(crate) fn names(path: &[u8]) -> Option<Vec<&[u8]>> {
    let names: Vec<_> =
        path.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    let fits = path.len() <= MAX_PATH && names.len() <= MAX_DEPTH;
    (fits && !path.contains(&0) && !names.contains(&&b".."[..])).then_some(names)
}

pub(crate) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(MAX_PATH)]).into_owned()
}

/// Names the entry that the file system would not take.
fn unwritten<E: Into<io::Error>>(entry: &Entry) -> impl Fn(E) -> UnpackError {
    |error| UnpackError::Write { path: shown(&entry.path), source: error.into() }
}

/// Removes what has the name, unless it is a directory and one is wanted. Of two entries with one name the later holds.
fn make_way(parent: &OwnedFd, name: &[u8], for_directory: bool) -> Tried<Found> {
    let was = look(parent, name)?;
    match was {
        Found::Nothing => {}
        Found::Directory if for_directory => {}
        Found::Directory => remove_tree(parent, name)?,
        Found::Whiteout | Found::Other(_) => fs::unlinkat(parent, name, AtFlags::empty())?,
    }
    Ok(was)
}

fn remove_tree(parent: &OwnedFd, name: &[u8]) -> Tried<()> {
    // Depth first, with what is left to do on the heap: the archive says how deep it goes.
    let mut open = vec![open_below(parent, name)?];
    let mut names = vec![name.to_vec()];
    while let Some(directory) = open.last() {
        let mut below = None;
        for found in fs::Dir::read_from(directory)? {
            let found = found?;
            let name = found.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if look(directory, name)? == Found::Directory {
                below = Some((open_below(directory, name)?, name.to_vec()));
                break;
            }
            fs::unlinkat(directory, name, AtFlags::empty())?;
        }
        if let Some((directory, name)) = below {
            open.push(directory);
            names.push(name);
            continue;
        }
        open.pop();
        let name = names.pop().unwrap_or_default();
        fs::unlinkat(open.last().unwrap_or(parent), name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// How many directories it is in.
fn depth(directory: &OwnedFd) -> Tried<usize> {
    // The kernel's word: what led to it may have been links.
    let path = fs::readlink(format!("/proc/self/fd/{}", directory.as_raw_fd()), Vec::new())?;
    Ok(path.to_bytes().split(|&byte| byte == b'/').count())
}

fn hide_below(directory: &OwnedFd) -> Tried<()> {
    fs::fsetxattr(directory, opaque_attribute(), b"y", XattrFlags::empty())
}

/// Leaves out what the layers below have under the name. What this layer has there itself stays.
fn leave_out(parent: &OwnedFd, name: &[u8]) -> Tried<()> {
    match look(parent, name)? {
        Found::Nothing => fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0),
        Found::Directory => open_below(parent, name).and_then(|found| hide_below(&found)),
        Found::Whiteout | Found::Other(_) => Ok(()),
    }
}

fn make_node(entry: &Entry, kind: FileType, parent: &OwnedFd, name: &[u8]) -> Tried<()> {
    let device: Dev = if kind == FileType::Fifo { 0 } else { fs::makedev(entry.device.0, entry.device.1) };
    fs::mknodat(parent, name, kind, Mode::empty(), device)
}

/// Gives a file or directory its owner, its mode and its attributes, in the order in which one does not take away another.
fn finish(file: impl AsFd, entry: &Entry) -> Tried<()> {
    unless_nobody(fs::fchown(&file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid))))?;
    fs::fchmod(&file, Mode::from_raw_mode(entry.mode))?;
    for (name, value) in entry.attributes.iter().filter(|(name, _)| is_kept(name)) {
        set_attribute(&file, name, value)?;
    }
    Ok(())
}

/// Leaves to root what a user namespace has no owner for.
pub(crate) fn unless_nobody(given: Tried<()>) -> Tried<()> {
    match given {
        Err(Errno::INVAL) if is_in_user_namespace() => Ok(()),
        given => given,
    }
}

pub(crate) fn set_attribute(file: impl AsFd, name: &[u8], value: &[u8]) -> Tried<()> {
    match fs::fsetxattr(file, name, value, XattrFlags::empty()) {
        // Not every file system keeps them.
        Err(Errno::OPNOTSUPP) => Ok(()),
        set => set,
    }
}

pub(crate) fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
