//! The entries of a tar archive with a limit on everything that is kept in memory.
//!
//! The `tar` crate reads headers; its iterator is not used, since it keeps the names and attributes of an entry whatever their
//! size, and does not know how pax archives describe holes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Read};

use tar::{EntryType, Header};

use crate::compression::read_up_to;
use crate::sparse::{self, Extent};

const BLOCK: usize = 512;

/// What keys of attributes begin with.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// Bytes of names and attributes of one entry. Linux allows a path 4 KiB and the attributes of a file some 64 KiB.
const MAX_EXTENSION: u64 = 1 << 20;

/// Extensions in a row before an entry: names, links and attributes, some of them twice.
const MAX_EXTENSIONS: usize = 8;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The reader below failed.
    #[error("reading the archive failed")]
    Read(#[source] io::Error),
    /// It ends in the middle.
    #[error("the archive ends in the middle of an entry; transfer it again")]
    Truncated,
    /// A header that is none.
    #[error("the archive has a header that is not one of tar's: {0}")]
    Header(Cow<'static, str>),
    /// More than [`MAX_EXTENSION`] or [`MAX_EXTENSIONS`].
    #[error("the archive has an entry whose name or attributes take more than {MAX_EXTENSION} bytes")]
    Extension,
    /// A file with holes that are described in an unknown or a wrong way.
    #[error("the archive describes the holes of \"{0}\" in an unknown way")]
    Sparse(String),
}

/// What an entry is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// One entry, without its data.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Of symbolic and hard links.
    pub(crate) link: Vec<u8>,
    /// The permission bits, with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(crate) modified: (i64, u32),
    pub(crate) attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Major and minor number.
    pub(crate) device: (u32, u32),
    /// Of a file: its length with holes.
    pub(crate) size: u64,
    /// Where its data goes, in order.
    pub(crate) extents: Vec<Extent>,
}

/// Reads entry after entry.
pub(crate) struct Entries<R> {
    input: R,
    /// Bytes of the current entry that were not read, and what fills its last block.
    data: u64,
    padding: u64,
    /// What holds for all entries that do not say otherwise.
    defaults: Records,
}

/// Pax records by their keys.
type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// A key and a value.
type Record = (Vec<u8>, Vec<u8>);

/// What stands before an entry's own header.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Records,
}

impl<R: Read> Entries<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, data: 0, padding: 0, defaults: Records::new() }
    }

    /// The next entry; what was not read of the one before is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let mut extensions = Extensions { records: self.defaults.clone(), ..Extensions::default() };
        for _ in 0..=MAX_EXTENSIONS {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = field(&header.as_old().size, header.entry_size())?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.name = Some(self.text(size)?),
                EntryType::GNULongLink => extensions.link = Some(self.text(size)?),
                EntryType::XHeader => update(&mut extensions.records, records(&self.extension(size)?)?),
                EntryType::XGlobalHeader => {
                    let content = self.extension(size)?;
                    update(&mut self.defaults, records(&content)?);
                }
                _ => return self.entry(&header, extensions).map(Some),
            }
            if self.defaults.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() as u64
                > MAX_EXTENSION
            {
                return Err(ArchiveError::Extension);
            }
        }
        Err(ArchiveError::Extension)
    }

    /// Data of the current entry: less than the buffer holds only at its end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let wanted = usize::try_from(self.data).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = read_up_to(&mut self.input, &mut buffer[..wanted]).map_err(ArchiveError::Read)?;
        if count < wanted {
            return Err(ArchiveError::Truncated);
        }
        self.data -= count as u64;
        Ok(count)
    }

    /// The reader below, where the data of the current entry begins.
    pub(crate) fn input(&self) -> &R {
        &self.input
    }

    /// The reader below, behind the last entry that was read.
    pub(crate) fn into_inner(self) -> R {
        self.input
    }

    fn skip(&mut self) -> Result<(), ArchiveError> {
        // An entry may say that it has all that a number holds.
        let left = self.data.saturating_add(self.padding);
        let skipped =
            io::copy(&mut self.input.by_ref().take(left), &mut io::sink()).map_err(ArchiveError::Read)?;
        // What fills the last block may be missing at the end.
        if skipped < self.data {
            return Err(ArchiveError::Truncated);
        }
        (self.data, self.padding) = (0, 0);
        Ok(())
    }

    /// `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, ArchiveError> {
        let mut header = Header::new_old();
        match read_up_to(&mut self.input, header.as_mut_bytes()).map_err(ArchiveError::Read)? {
            BLOCK if header.as_bytes().iter().any(|&byte| byte != 0) => {}
            0 | BLOCK => return Ok(None),
            _ => return Err(ArchiveError::Truncated),
        }
        let sum = header.as_bytes().iter().enumerate();
        // The checksum itself counts as blanks.
        let sum: u32 =
            sum.map(|(at, &byte)| if (148..156).contains(&at) { 32 } else { u32::from(byte) }).sum();
        if header.cksum().map_err(bad_header)? != sum {
            return Err(ArchiveError::Header("its checksum is wrong".into()));
        }
        Ok(Some(header))
    }

    fn set_data(&mut self, size: u64) {
        self.data = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        if size > MAX_EXTENSION {
            return Err(ArchiveError::Extension);
        }
        self.set_data(size);
        let mut content = vec![0; usize::try_from(size).map_err(|_| ArchiveError::Extension)?];
        self.read(&mut content)?;
        Ok(content)
    }

    fn text(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        let mut content = self.extension(size)?;
        let end = content.iter().position(|&byte| byte == 0).unwrap_or(content.len());
        content.truncate(end);
        Ok(content)
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry, ArchiveError> {
        let Extensions { name, link, records } = extensions;
        let text = |key: &[u8]| records.get(key).cloned();
        let path = text(sparse::NAME)
            .or(name)
            .or_else(|| text(b"path"))
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let link = link
            .or_else(|| text(b"linkpath"))
            .or_else(|| header.link_name_bytes().map(Cow::into_owned))
            .unwrap_or_default();
        let kind = match header.entry_type() {
            // Before there was a type for directories their names ended with a slash.
            EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::HardLink,
            EntryType::Char => Kind::CharDevice,
            EntryType::Block => Kind::BlockDevice,
            EntryType::Fifo => Kind::Fifo,
            other => {
                let message = format!("an entry of the unknown type {:?}", char::from(other.as_byte()));
                return Err(ArchiveError::Header(message.into()));
            }
        };
        let number = |key: &[u8], own: Result<u64, ArchiveError>| match records.get(key) {
            Some(value) => decimal(value).ok_or(ArchiveError::Header("a number that is none".into())),
            None => own,
        };
        let old = header.as_old();
        let id = |key: &[u8], own: Result<u64, ArchiveError>| {
            u32::try_from(number(key, own)?)
                .map_err(|_| ArchiveError::Header("an owner beyond all users".into()))
        };
        let mut entry = Entry {
            kind,
            link,
            mode: field(&old.mode, header.mode())? & 0o7777,
            uid: id(b"uid", field(&old.uid, header.uid()))?,
            gid: id(b"gid", field(&old.gid, header.gid()))?,
            modified: match records.get(&b"mtime"[..]) {
                Some(time) => pax_time(time).ok_or(ArchiveError::Header("a time that is none".into()))?,
                None => (field(&old.mtime, header.mtime())?.try_into().unwrap_or(i64::MAX), 0),
            },
            attributes: records
                .iter()
                .filter_map(|(key, value)| Some((key.strip_prefix(ATTRIBUTE)?.to_vec(), value.clone())))
                .collect(),
            device: (
                header.device_major().ok().flatten().unwrap_or_default(),
                header.device_minor().ok().flatten().unwrap_or_default(),
            ),
            size: 0,
            extents: Vec::new(),
            path,
        };
        // Links of some archives tell the size of what they lead to, and have no data.
        if kind == Kind::File {
            self.set_data(number(b"size", field(&old.size, header.entry_size()))?);
            (entry.size, entry.extents) = self.extents(header, &records, &entry.path)?;
        }
        Ok(entry)
    }

    /// The length of a file, and where its data goes.
    fn extents(
        &mut self,
        header: &Header,
        records: &Records,
        path: &[u8],
    ) -> Result<(u64, Vec<Extent>), ArchiveError> {
        let refused = || ArchiveError::Sparse(String::from_utf8_lossy(path).into_owned());
        let (size, extents) = if header.entry_type() == EntryType::GNUSparse {
            let gnu = header.as_gnu().ok_or_else(refused)?;
            let mut map = sparse::Old::new(gnu).ok_or_else(refused)?;
            while map.continues() {
                let mut block = [0; BLOCK];
                if read_up_to(&mut self.input, &mut block).map_err(ArchiveError::Read)? < BLOCK {
                    return Err(ArchiveError::Truncated);
                }
                map.extend(&block).ok_or_else(refused)?;
            }
            (gnu.real_size().map_err(bad_header)?, map.into_extents())
        } else if let Some(size) = sparse::pax_size(records) {
            let extents = match sparse::pax_map(records) {
                Some(map) => sparse::parse_map(&map).ok_or_else(refused)?,
                None => sparse::read_map(|block| match self.read(block)? {
                    BLOCK => Ok(()),
                    _ => Err(refused()),
                })?
                .ok_or_else(refused)?,
            };
            (decimal(size).ok_or_else(refused)?, extents)
        } else {
            (self.data, vec![Extent { at: 0, length: self.data }])
        };
        // Overlapping or missing data would make of the archive whatever its reader prefers.
        if sparse::fits(&extents, size, self.data) { Ok((size, extents)) } else { Err(refused()) }
    }
}

/// A number of a header. Writers leave blank what they have no number for, and readers take that for none.
fn field<T: Default>(text: &[u8], number: io::Result<T>) -> Result<T, ArchiveError> {
    if text.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Ok(T::default());
    }
    number.map_err(bad_header)
}

#[expect(clippy::needless_pass_by_value, reason = "an argument of `map_err`")]
fn bad_header(error: io::Error) -> ArchiveError {
    ArchiveError::Header(error.to_string().into())
}

/// Adds records. One without a value takes back what was said before; only attributes may be empty.
fn update(known: &mut Records, records: Vec<Record>) {
    for (key, value) in records {
        if value.is_empty() && !key.starts_with(ATTRIBUTE) {
            known.remove(&key);
        } else {
            known.insert(key, value);
        }
    }
}

/// Records of the form `LENGTH KEY=VALUE\n`, where the length counts all of it. The `tar` crate takes the first line break in a
/// value for its end: names may have some, and attributes are any bytes.
fn records(mut content: &[u8]) -> Result<Vec<Record>, ArchiveError> {
    let mut records = Vec::new();
    // Some writers fill the rest with zeros.
    while content.first().is_some_and(|&byte| byte != 0) {
        let (record, rest) = record(content)
            .ok_or(ArchiveError::Header("a record in front of an entry that is not one of pax".into()))?;
        records.push(record);
        content = rest;
    }
    Ok(records)
}

/// The first record with its key and its value, and what follows it.
fn record(content: &[u8]) -> Option<(Record, &[u8])> {
    let blank = content.iter().position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&content[..blank])?).ok()?;
    let (record, rest) = content.split_at_checked(length)?;
    let pair = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = pair.iter().position(|&byte| byte == b'=')?;
    Some(((pair[..equals].to_vec(), pair[equals + 1..].to_vec()), rest))
}

pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `seconds[.fraction]`
fn pax_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().ok()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    match (seconds.starts_with('-'), nanoseconds) {
        (false, _) | (_, 0) => Some((whole, nanoseconds)),
        (true, _) => Some((whole.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
    }
}
