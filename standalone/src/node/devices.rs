//! The machine's devices, which privileged containers get.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use ropewalk_kubelet::isolation::{LinuxDevice, device};
use rustix::fs::{major, minor};

/// Devices taken at most: machines have hundreds.
const MOST: usize = 4096;

/// Directories below `/dev`, at most so deep in each other.
const DEPTH: u32 = 8;

/// What every container has of its own in `/dev`.
const OWN: [&str; 13] = [
    "console", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "tty", "urandom",
    "zero",
];

/// The devices below `/dev`; those that cannot be read are left out.
pub(super) fn all() -> Vec<LinuxDevice> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), DEPTH, &mut found);
    found
}

fn collect(directory: &Path, depth: u32, found: &mut Vec<LinuxDevice>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let own = directory == Path::new("/dev") && OWN.iter().any(|own| name == *own);
        // Not through links: what they lead to is found by itself.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if own || found.len() == MOST {
            continue;
        }
        let kind = metadata.file_type();
        if kind.is_dir() && depth > 0 {
            collect(&path, depth - 1, found);
        } else if kind.is_char_device() || kind.is_block_device() {
            let (number, mode) = (metadata.rdev(), metadata.mode() & 0o777);
            let numbers = (major(number), minor(number));
            found.extend(device(
                &path,
                kind.is_block_device(),
                numbers,
                mode,
                (metadata.uid(), metadata.gid()),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_but_for_those_of_every_container() {
        let paths: Vec<_> = all().iter().map(|device| device.path().clone()).collect();
        for path in &paths {
            let kind = fs::symlink_metadata(path).expect("it is there").file_type();
            assert!(kind.is_char_device() || kind.is_block_device(), "{}", path.display());
        }
        assert!(!paths.iter().any(|path| path == Path::new("/dev/null")));
    }
}
