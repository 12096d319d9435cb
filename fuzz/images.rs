//! What is fuzzed of images: bytes go in as a layer, as an archive of images, and as the parts of a layout. Whatever they
//! are, nothing panics, nothing changes but the directory that they are unpacked into, that can be removed again, and an error
//! is one that people can read. Each target tells whether the input was taken.
//!
//! Both the fuzzer's programs and the tests of `ropewalk-images` are made of this file. Needs root, as unpacking does.

#![allow(dead_code, reason = "each program is about one of these")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use ropewalk_images::{Digest, Limits, Store, decompress, load, unpack};
use tempfile::TempDir;

/// Little: what is refused for its size is refused soon.
const LIMITS: Limits = Limits { bytes: 1 << 20, entries: 200 };

/// Longer than a path, a digest and what is said of them.
const MAX_ERROR: usize = 32 << 10;

/// A layer, which may be compressed, upon one that has directories: comes to the same twice.
pub(crate) fn layer(bytes: &[u8]) -> bool {
    let place = Place::new();
    let before = place.others();
    let [first, second] = ["inside", "again"].map(|name| {
        let into = place.at(name);
        fs::create_dir(&into).expect("writable");
        match decompress(bytes) {
            Ok(archive) => {
                let unpacked = unpack(archive, &into, &[place.at("below")], &LIMITS);
                unpacked.map(|unpacked| (unpacked, seen(&into))).map_err(|error| told(&error))
            }
            Err(error) => Err(told(&error)),
        }
    });
    assert_eq!(first, second);
    assert_eq!(before, place.others(), "something outside has changed");
    if let Ok((unpacked, _)) = &first {
        assert!(unpacked.bytes <= LIMITS.bytes);
    }
    place.remove();
    first.is_ok()
}

/// An archive of images, which may be compressed.
pub(crate) fn archive(bytes: &[u8]) -> bool {
    let place = Place::new();
    fs::write(place.at("archive"), bytes).expect("writable");
    place.load("archive")
}

/// Parts with lines of `--` between them: an index or what `docker save` writes, then everything else, in files by digest and
/// by number. In those that are
/// JSON `$1` to `$9` stand for the digest of a later part, and `#1` to `#9` for its size, so that what is changed is still
/// what its digest says.
pub(crate) fn layout(bytes: &[u8]) -> bool {
    let mut parts = vec![Vec::new()];
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        if line == b"--\n" {
            parts.push(Vec::new());
        } else if let Some(part) = parts.last_mut() {
            part.extend_from_slice(line);
        }
    }
    let place = Place::new();
    fs::create_dir_all(place.at("layout/blobs/sha256")).expect("writable");
    let mut described = BTreeMap::new();
    for (number, part) in parts.iter().enumerate().rev() {
        let content = filled(part, &described);
        let digest = Digest::of(&content).to_string();
        let path = match (number, content.first()) {
            (0, Some(b'[')) => "manifest.json".to_owned(),
            (0, _) => "index.json".to_owned(),
            _ => format!("blobs/{}", digest.replace(':', "/")),
        };
        let directory = place.at("layout");
        fs::write(directory.join(number.to_string()), &content).expect("writable");
        fs::write(directory.join(path), &content).expect("writable");
        described.insert(number, (digest, content.len()));
    }
    place.load("layout")
}

fn filled(part: &[u8], described: &BTreeMap<usize, (String, usize)>) -> Vec<u8> {
    if !part.starts_with(b"{") && !part.starts_with(b"[") {
        return part.to_vec();
    }
    let mut content = Vec::with_capacity(part.len());
    let mut rest = part.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        let number = rest.peek().map_or(0, |digit| usize::from(digit.wrapping_sub(b'0')));
        match (byte, described.get(&number)) {
            (b'$', Some((digest, _))) => content.extend_from_slice(digest.as_bytes()),
            (b'#', Some((_, size))) => content.extend_from_slice(size.to_string().as_bytes()),
            _ => {
                content.push(byte);
                continue;
            }
        }
        rest.next();
    }
    content
}

/// Where an input is tried.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        // The store waits until layers are on the disk; these need not be.
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let place = Self(directory.expect("writable"));
        fs::create_dir_all(place.at("below/etc/deep")).expect("writable");
        fs::set_permissions(place.at("below/etc"), fs::Permissions::from_mode(0o2750)).expect("ours");
        chown(place.at("below/etc"), Some(7), Some(8)).expect("root may");
        fs::write(place.at("below/etc/passwd"), "root").expect("writable");
        fs::write(place.at("outside"), "untouched").expect("writable");
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What an input must not change.
    fn others(&self) -> [BTreeMap<PathBuf, String>; 2] {
        ["below", "outside"].map(|name| seen(&self.at(name)))
    }

    /// Whether it is taken; what is, is whole and can be removed.
    fn load(self, name: &str) -> bool {
        let before = self.others();
        let store = Store::open(&self.at("store"), LIMITS).expect("a store");
        let loaded = load(&store, &self.at(name), None);
        assert_eq!(before, self.others(), "something outside has changed");
        match &loaded {
            Ok(images) => {
                for image in images {
                    let found = store.find(&image.reference).expect("readable").expect("it was loaded");
                    assert!(found.lowers.iter().all(|lower| lower.is_dir()), "{found:?}");
                }
            }
            Err(error) => {
                told(error);
            }
        }
        for image in store.list().expect("readable") {
            store.remove(&image.id).expect("removable");
        }
        store.prune(0).expect("removable");
        let left: Vec<_> = ["layers", "incoming"]
            .iter()
            .flat_map(|part| fs::read_dir(self.at("store").join(part)).expect("readable"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        self.remove();
        loaded.is_ok()
    }

    fn remove(self) {
        self.0.close().expect("what was unpacked can be removed");
    }
}

/// An error with its causes.
fn told(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    assert!(!text.is_empty() && text.len() < MAX_ERROR, "an error of {} bytes", text.len());
    text
}

/// Everything at a path and below it but times: those of directories that no layer tells of are those of the test.
fn seen(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let metadata = fs::symlink_metadata(&path).expect("it was listed");
        let content = if metadata.is_dir() {
            let listed = fs::read_dir(&path).expect("a directory");
            todo.extend(listed.map(|entry| entry.expect("readable").path()));
            Vec::new()
        } else if metadata.is_file() {
            fs::read(&path).expect("a file")
        } else {
            let link = fs::read_link(&path).unwrap_or_default();
            link.into_os_string().into_encoded_bytes()
        };
        let (mode, owner) = (metadata.mode(), (metadata.uid(), metadata.gid()));
        let (links, device) = (metadata.nlink(), metadata.rdev());
        let content = Digest::of(&content);
        let name = path.strip_prefix(root).expect("below it").to_owned();
        seen.insert(name, format!("{mode:o} {owner:?} {links} {device:x} {content}"));
    }
    seen
}
