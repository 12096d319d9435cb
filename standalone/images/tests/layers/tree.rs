//! Everything that can be seen of a tree of files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Later than any time in the layers, and earlier than the tests run.
const TODAY: i64 = 1_750_000_000;

/// One file, directory or whatever it is; texts, so that a difference can be read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Seen {
    kind: String,
    mode: String,
    owner: (u32, u32),
    /// `None` for what no layer tells the time of: 1970, or when it was unpacked.
    modified: Option<(i64, i64)>,
    /// The least path with the same inode, for files that have several.
    same_as: Option<PathBuf>,
    attributes: BTreeMap<String, Vec<u8>>,
}

/// All entries below a root, with the root itself, by path.
pub(crate) fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut inodes = BTreeMap::<u64, PathBuf>::new();
    let mut todo = vec![root.to_owned()];
    let mut paths = Vec::new();
    while let Some(path) = todo.pop() {
        if fs::symlink_metadata(&path).expect("it was listed").is_dir() {
            todo.extend(
                fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("readable").path()),
            );
        }
        paths.push(path);
    }
    paths.sort();
    for path in paths {
        let metadata = fs::symlink_metadata(&path).expect("it was listed");
        let name = path.strip_prefix(root).expect("below the root").to_owned();
        let kind = metadata.file_type();
        let kind = if kind.is_symlink() {
            format!("link to {}", fs::read_link(&path).expect("a link").display())
        } else if kind.is_dir() {
            "directory".to_owned()
        } else if kind.is_char_device() {
            format!("character device {:x}", metadata.rdev())
        } else if kind.is_block_device() {
            format!("block device {:x}", metadata.rdev())
        } else if kind.is_fifo() {
            "fifo".to_owned()
        } else {
            let content = fs::read(&path).expect("a file");
            format!("file of {} bytes, sum {}", content.len(), sum(&content))
        };
        let same_as = (kind != "directory" && metadata.nlink() > 1)
            .then(|| inodes.entry(metadata.ino()).or_insert_with(|| name.clone()).clone());
        let entry = Seen {
            kind,
            mode: format!("{:o}", metadata.mode()),
            owner: (metadata.uid(), metadata.gid()),
            modified: (1..TODAY)
                .contains(&metadata.mtime())
                .then(|| (metadata.mtime(), metadata.mtime_nsec())),
            same_as,
            attributes: attributes(&path),
        };
        seen.insert(name, entry);
    }
    seen
}

fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 4096];
    // Neither devices nor links have any.
    let length = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let names = names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value).expect("it was listed");
            value.truncate(length);
            (String::from_utf8_lossy(name).into_owned(), value)
        })
        .collect()
}

/// Tells contents apart; nobody here makes two of one sum on purpose.
fn sum(content: &[u8]) -> u64 {
    content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// What differs, a line each.
pub(crate) fn differences(ours: &BTreeMap<PathBuf, Seen>, theirs: &BTreeMap<PathBuf, Seen>) -> Vec<String> {
    let paths: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    paths
        .into_iter()
        .filter(|path| ours.get(*path) != theirs.get(*path))
        .map(|path| {
            let name = String::from_utf8_lossy(path.as_os_str().as_bytes());
            format!("\"{name}\"\n  ours   {:?}\n  theirs {:?}", ours.get(path), theirs.get(path))
        })
        .collect()
}
