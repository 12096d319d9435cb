//! Archives that somebody wrote to do harm.

use std::fs;
use std::io::{self, Read};

use ropewalk_images::{ArchiveError, Limits, UnpackError, Unpacked, decompress, unpack};
use rustix::io::Errno;
use tar::EntryType;

use crate::archive::{Archive, BASE, Compression, header};
use crate::{lacks_root, tree};

/// Unpacks beside a file that nobody may touch.
fn attempt(layer: &Archive) -> Result<Unpacked, UnpackError> {
    let work = tempfile::tempdir().expect("a temporary directory");
    let (inside, outside) = (work.path().join("inside"), work.path().join("outside"));
    fs::create_dir(&inside).expect("writable");
    fs::write(&outside, "untouched").expect("writable");
    let before = tree::look(work.path());
    let result = unpack(&layer.bytes()[..], &inside, BASE, &Limits { bytes: 1 << 20, entries: 100 });
    let mut after = tree::look(work.path());
    after.retain(|path, _| !path.starts_with("inside"));
    let mut before = before;
    before.retain(|path, _| !path.starts_with("inside"));
    assert_eq!(before, after, "something outside has changed");
    result
}

#[test]
fn no_path_leads_out() {
    if lacks_root() {
        return;
    }
    for path in ["../outside", "a/../../outside", "a/..", "..", "./../outside"] {
        let result = attempt(&Archive::default().file(path, 0o644, b"overwritten"));
        assert!(matches!(&result, Err(UnpackError::Path(_))), "\"{path}\": {result:?}");
    }
    let absolute = attempt(&Archive::default().file("/outside", 0o644, b"within"));
    assert!(absolute.is_ok(), "{absolute:?}");
}

#[test]
fn no_link_leads_out() {
    if lacks_root() {
        return;
    }
    let up = Archive::default().symlink("up", "..").file("up/outside", 0o644, b"overwritten");
    // The kernel takes what is above the layer's root for the root itself.
    assert!(attempt(&up).is_ok());
    let through = Archive::default().symlink("out", "../outside").file("out", 0o644, b"instead of the link");
    assert!(attempt(&through).is_ok());
    let chain = Archive::default()
        .symlink("a", "b")
        .symlink("b", "../..")
        .dir("a/made", 0o755)
        .file("a/made/f", 0o644, b"");
    assert!(attempt(&chain).is_ok());
    for target in ["../outside", "/../outside", "up/outside", "missing", ".", ""] {
        let layer = Archive::default().symlink("up", "..").link("hard", target);
        let result = attempt(&layer);
        assert!(matches!(&result, Err(UnpackError::Link { .. })), "\"{target}\": {result:?}");
    }
    let magic = Archive::default().symlink("self", "/proc/self/cwd").file("self/planted", 0o644, b"");
    // The layer's own, which is made for it.
    assert!(attempt(&magic).is_ok());
}

#[test]
fn nothing_is_left_out_but_by_its_name() {
    if lacks_root() {
        return;
    }
    for name in [".wh.", ".wh..", ".wh..."] {
        let result = attempt(&Archive::default().file(name, 0o644, b""));
        assert!(matches!(&result, Err(UnpackError::Path(_))), "\"{name}\": {result:?}");
    }
    let device = attempt(&Archive::default().node("gone", EntryType::Char, (0, 0)));
    assert!(matches!(&device, Err(UnpackError::Device(name)) if name == "gone"), "{device:?}");
}

#[test]
fn attributes_of_overlayfs_are_not_the_archives_to_set() {
    if lacks_root() {
        return;
    }
    let work = tempfile::tempdir().expect("a temporary directory");
    let layer = Archive::default()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ])
        .dir("dir", 0o755);
    unpack(&layer.bytes()[..], work.path(), BASE, &Limits::default()).expect("a good archive");
    let mut names = [0; 256];
    let length = rustix::fs::listxattr(work.path().join("dir"), &mut names).expect("readable");
    assert_eq!(String::from_utf8_lossy(&names[..length]), "");
}

#[test]
fn what_is_too_much_is_refused() {
    if lacks_root() {
        return;
    }
    let data = vec![0; 600 << 10];
    let large = Archive::default().file("a", 0o644, &data).file("b", 0o644, &data);
    assert!(matches!(attempt(&large), Err(UnpackError::Bytes(1_048_576))));
    let many = (0..101).fold(Archive::default(), |layer, number| layer.file(&number.to_string(), 0o644, b""));
    assert!(matches!(attempt(&many), Err(UnpackError::Entries(100))));
    let deep = Archive::default().file(&"d/".repeat(1000), 0o644, b"");
    assert!(matches!(attempt(&deep), Err(UnpackError::Path(_))));
    // Each link leads as deep as a path may, and the next goes on from there.
    let further = "d/".repeat(200);
    let deeper = Archive::default()
        .dir(&further, 0o755)
        .symlink("link", &further)
        .dir(&format!("link/{further}"), 0o755);
    let result = attempt(&deeper);
    assert!(
        matches!(&result, Err(UnpackError::Write { source, .. }) if source.raw_os_error() == Some(Errno::NAMETOOLONG.raw_os_error())),
        "{result:?}"
    );
    let mut hole = header(EntryType::GNUSparse, 0o644);
    hole.as_gnu_mut().expect("made so").set_real_size(1 << 40);
    assert!(matches!(attempt(&Archive::default().entry(hole, "hole", "", b"")), Err(UnpackError::Bytes(_))));
}

/// A header that promises more than follows must not make room for it.
#[test]
fn names_and_attributes_have_a_bound_before_they_are_read() {
    if lacks_root() {
        return;
    }
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader]
    {
        let mut promise = header(kind, 0o644);
        promise.set_size(1 << 40);
        let result = attempt(&Archive::default().block(promise, b""));
        assert!(
            matches!(&result, Err(UnpackError::Archive(ArchiveError::Extension))),
            "{kind:?}: {result:?}"
        );
    }
    let endless = (0..100).fold(Archive::default(), |layer, _| layer.raw(EntryType::GNULongName, b"name\0"));
    assert!(matches!(attempt(&endless), Err(UnpackError::Archive(ArchiveError::Extension))));
}

#[test]
fn names_and_attributes_have_a_bound_together_too() {
    if lacks_root() {
        return;
    }
    let value = vec![b'x'; 900_000];
    let described = |entries: usize| {
        (0..entries).fold(Archive::default(), |archive, number| {
            archive.pax(&[("comment", &value)]).file(&format!("f{number}"), 0o644, b"")
        })
    };
    assert_eq!(attempt(&described(15)).expect("a strange archive, but not a large one").bytes, 0);
    let result = attempt(&described(25));
    assert!(matches!(&result, Err(UnpackError::Archive(ArchiveError::Read(_)))), "{result:?}");
}

#[test]
fn holes_must_agree_with_the_data() {
    if lacks_root() {
        return;
    }
    for map in [
        "1\n0\n600\n",
        "2\n100\n10\n50\n10\n",
        "1\n18446744073709551615\n1\n",
        "1\n-1\n1\n",
        "99999999\n",
        "x\n",
        "1",
    ] {
        let mut data = map.as_bytes().to_vec();
        data.resize(512, 0);
        data.extend([b'd'; 20]);
        let layer = Archive::default()
            .pax(&[("GNU.sparse.realsize", b"4096"), ("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")])
            .file("holes", 0o644, &data);
        let result = attempt(&layer);
        assert!(matches!(&result, Err(UnpackError::Archive(ArchiveError::Sparse(_)))), "{map:?}: {result:?}");
    }
}

#[test]
fn broken_archives_are_refused() {
    if lacks_root() {
        return;
    }
    let whole = Archive::default().file("file", 0o644, &[1; 5000]).bytes();
    let work = tempfile::tempdir().expect("a temporary directory");
    for length in [100, 512, 700, 4000] {
        let result = unpack(&whole[..length], work.path(), BASE, &Limits::default());
        assert!(
            matches!(&result, Err(UnpackError::Archive(ArchiveError::Truncated))),
            "{length}: {result:?}"
        );
        fs::remove_file(work.path().join("file")).unwrap_or_default();
    }
    let mut bent = whole.clone();
    bent[0] ^= 1;
    assert!(matches!(
        unpack(&bent[..], work.path(), BASE, &Limits::default()),
        Err(UnpackError::Archive(ArchiveError::Header(_)))
    ));
    for compression in [Compression::Gzip, Compression::Zstd] {
        let mut bytes = Archive::default().file("file", 0o644, b"content").compressed(compression);
        bytes.truncate(bytes.len() / 2);
        let result = decompress(&bytes[..]).map(|input| unpack(input, work.path(), BASE, &Limits::default()));
        assert!(!matches!(&result, Ok(Ok(_))), "{compression:?}: {result:?}");
        fs::remove_file(work.path().join("file")).unwrap_or_default();
    }
}

/// A kilobyte of zeros again and again: what is behind the end of the archive counts as well.
#[test]
fn bombs_end_at_the_limit() {
    if lacks_root() {
        return;
    }
    let mut bytes = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    io::copy(&mut io::repeat(0).take(64 << 20), &mut bytes).expect("memory takes it");
    let bytes = bytes.finish().expect("memory takes it");
    let work = tempfile::tempdir().expect("a temporary directory");
    let input = decompress(&bytes[..]).expect("memory can be read");
    let result = unpack(input, work.path(), BASE, &Limits { bytes: 1 << 20, entries: 10 });
    assert!(matches!(result, Err(UnpackError::Bytes(_))), "{result:?}");
}
