//! How archives describe files with holes: GNU tar's old headers, and its pax records of versions 0.1 and 1.0.

use std::collections::BTreeMap;

use tar::{GnuExtSparseHeader, GnuHeader, GnuSparseHeader};

use crate::entries::{ArchiveError, decimal};

/// The key of a sparse file's real name.
pub(crate) const NAME: &[u8] = b"GNU.sparse.name";

/// Pieces of data in one file. A file of 64 GiB with a hole in every MiB has as many.
const MAX_EXTENTS: usize = 1 << 16;

const BLOCK: usize = 512;

/// Data between holes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Extent {
    pub(crate) at: u64,
    pub(crate) length: u64,
}

/// Whether the extents are in order, end within the file, and take as much data as there is.
pub(crate) fn fits(extents: &[Extent], size: u64, data: u64) -> bool {
    let mut end = 0u64;
    let mut sum = 0u64;
    for extent in extents {
        if extent.at < end {
            return false;
        }
        let Some(next) = extent.at.checked_add(extent.length) else { return false };
        end = next;
        sum += extent.length;
    }
    end <= size && sum == data
}

/// The map in GNU tar's old headers.
pub(crate) struct Old {
    extents: Vec<Extent>,
    continues: bool,
}

impl Old {
    pub(crate) fn new(header: &GnuHeader) -> Option<Self> {
        let mut map = Self { extents: Vec::new(), continues: header.is_extended() };
        map.add(&header.sparse)?;
        Some(map)
    }

    /// Whether another block of the map follows.
    pub(crate) fn continues(&self) -> bool {
        self.continues
    }

    pub(crate) fn extend(&mut self, block: &[u8; BLOCK]) -> Option<()> {
        let mut header = GnuExtSparseHeader::new();
        header.as_mut_bytes().copy_from_slice(block);
        self.continues = header.is_extended();
        self.add(&header.sparse)
    }

    pub(crate) fn into_extents(self) -> Vec<Extent> {
        self.extents
    }

    fn add(&mut self, headers: &[GnuSparseHeader]) -> Option<()> {
        for header in headers.iter().filter(|header| !header.is_empty()) {
            self.extents.push(Extent { at: header.offset().ok()?, length: header.length().ok()? });
        }
        (self.extents.len() <= MAX_EXTENTS).then_some(())
    }
}

/// The real size of a file that pax records describe as one with holes, in digits.
pub(crate) fn pax_size(records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Option<&Vec<u8>> {
    records.get(&b"GNU.sparse.realsize"[..]).or(records.get(&b"GNU.sparse.size"[..]))
}

/// The map of version 0.1, in one record.
pub(crate) fn pax_map(records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Option<Vec<u8>> {
    records.get(&b"GNU.sparse.map"[..]).cloned()
}

/// `at,length,at,length...`
pub(crate) fn parse_map(map: &[u8]) -> Option<Vec<Extent>> {
    let numbers: Vec<u64> = map.split(|&byte| byte == b',').map(decimal).collect::<Option<_>>()?;
    pairs(&numbers)
}

/// The map of version 1.0: lines before the data, the first of which counts the pairs that follow. `None` when it is
/// something else.
pub(crate) fn read_map(
    mut next: impl FnMut(&mut [u8]) -> Result<(), ArchiveError>,
) -> Result<Option<Vec<Extent>>, ArchiveError> {
    let mut numbers = Vec::new();
    let mut line = Vec::new();
    let mut block = [0; BLOCK];
    loop {
        next(&mut block)?;
        for &byte in &block {
            if byte != b'\n' {
                line.push(byte);
                if line.len() > MAX_DIGITS {
                    return Ok(None);
                }
                continue;
            }
            let Some(number) = decimal(&line) else { return Ok(None) };
            line.clear();
            numbers.push(number);
            let Some(wanted) = usize::try_from(numbers[0]).ok().filter(|&count| count <= MAX_EXTENTS) else {
                return Ok(None);
            };
            if numbers.len() == 1 + 2 * wanted {
                return Ok(pairs(&numbers[1..]));
            }
        }
    }
}

/// Digits of the largest number.
const MAX_DIGITS: usize = 20;

fn pairs(numbers: &[u64]) -> Option<Vec<Extent>> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    let fits = rest.is_empty() && pairs.len() <= MAX_EXTENTS;
    fits.then(|| pairs.iter().map(|&[at, length]| Extent { at, length }).collect())
}
