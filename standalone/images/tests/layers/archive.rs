//! Layers written for the tests, header by header: hostile ones are not what a library writes.

use std::io::Write;

use tar::{EntryType, Header};

/// Seconds of everything that is made without a time of its own.
pub(crate) const TIME: u64 = 1_700_000_000;

/// Nothing below.
pub(crate) const BASE: &[&str] = &[];

/// A layer in the making.
#[derive(Clone, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

pub(crate) fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(TIME);
    header.set_size(0);
    header
}

impl Archive {
    /// One entry as its header and name say; what does not fit into the header goes before it.
    pub(crate) fn entry(mut self, mut header: Header, path: &str, link: &str, data: &[u8]) -> Self {
        for (kind, text, limit) in [(EntryType::GNULongName, path, 100), (EntryType::GNULongLink, link, 100)]
        {
            if text.len() > limit {
                self = self.raw(kind, format!("{text}\0").as_bytes());
            }
        }
        let gnu = header.as_gnu_mut().expect("made so");
        fill(&mut gnu.name, path.as_bytes());
        fill(&mut gnu.linkname, link.as_bytes());
        self.block(header, data)
    }

    /// One entry of a kind that describes the next, with this content.
    pub(crate) fn raw(self, kind: EntryType, content: &[u8]) -> Self {
        let mut header = header(kind, 0o644);
        fill(&mut header.as_gnu_mut().expect("made so").name, b"././@LongLink");
        header.set_size(content.len() as u64);
        self.block(header, content)
    }

    /// The header with its checksum, then the data in whole blocks.
    pub(crate) fn block(mut self, mut header: Header, data: &[u8]) -> Self {
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        let mut header = header(EntryType::Regular, mode);
        header.set_size(content.len() as u64);
        self.entry(header, path, "", content)
    }

    pub(crate) fn owned(self, path: &str, (uid, gid): (u64, u64), mode: u32, content: &[u8]) -> Self {
        let mut header = header(EntryType::Regular, mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_size(content.len() as u64);
        self.entry(header, path, "", content)
    }

    pub(crate) fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(header(EntryType::Directory, mode), path, "", b"")
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(header(EntryType::Symlink, 0o777), path, target, b"")
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        self.entry(header(EntryType::Link, 0o644), path, target, b"")
    }

    pub(crate) fn node(self, path: &str, kind: EntryType, (major, minor): (u32, u32)) -> Self {
        let mut header = header(kind, 0o600);
        header.set_device_major(major).expect("a GNU header has it");
        header.set_device_minor(minor).expect("a GNU header has it");
        self.entry(header, path, "", b"")
    }

    /// Takes away what the layers below have at the path.
    pub(crate) fn whiteout(self, path: &str) -> Self {
        let (directory, name) =
            path.rsplit_once('/').map_or(("", path), |(directory, name)| (directory, name));
        let slash = if directory.is_empty() { "" } else { "/" };
        self.file(&format!("{directory}{slash}.wh.{name}"), 0o644, b"")
    }

    /// Takes away all that the layers below have in the directory.
    pub(crate) fn opaque(self, directory: &str) -> Self {
        self.file(&format!("{directory}/.wh..wh..opq"), 0o644, b"")
    }

    /// Pax records for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            content.extend(pax_record(key, value));
        }
        self.raw(EntryType::XHeader, &content)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    pub(crate) fn compressed(&self, compression: Compression) -> Vec<u8> {
        let bytes = self.bytes();
        match compression {
            Compression::None => bytes,
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&bytes).expect("memory takes it");
                encoder.finish().expect("memory takes it")
            }
            Compression::Zstd => zstd::encode_all(&bytes[..], 3).expect("memory takes it"),
        }
    }
}

fn fill(field: &mut [u8], text: &[u8]) {
    field.fill(0);
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// `length key=value\n`, where the length counts itself.
fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    let mut record = format!("{length} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}
