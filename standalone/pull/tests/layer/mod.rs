//! Layers as registries have them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use flate2::Compression;
use flate2::write::GzEncoder;
use ropewalk_core::images::reference::Digest;

/// A layer as it is transferred, and the digest of its archive.
pub(crate) struct Layer {
    pub(crate) blob: Vec<u8>,
    pub(crate) diff_id: Digest,
}

impl Layer {
    /// One file of whoever runs the test, as others may not be given away.
    pub(crate) fn of(name: &str, content: &[u8]) -> Self {
        let owner = fs::metadata("/proc/self").expect("a process");
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(owner.uid().into());
        header.set_gid(owner.gid().into());
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_data(&mut header, name, content).expect("an entry");
        let archive = archive.into_inner().expect("an archive");
        let mut blob = GzEncoder::new(Vec::new(), Compression::fast());
        blob.write_all(&archive).expect("compressed");
        Self { blob: blob.finish().expect("compressed"), diff_id: Digest::of(&archive) }
    }
}
