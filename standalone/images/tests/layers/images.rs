//! Each image is unpacked twice: by `umoci`, and by us, layer by layer, with overlayfs on top. Both must look the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ropewalk_core::images::reference::Digest;
use ropewalk_images::{Limits, decompress, unpack};
use serde_json::{Value, json};
use tar::EntryType;

use crate::archive::{Archive, BASE, Compression, header};
use crate::{lacks_root, skip, tree};

/// An image by what is special about it.
struct Image {
    name: &'static str,
    layers: Vec<Archive>,
}

fn image(name: &'static str, layers: impl IntoIterator<Item = Archive>) -> Image {
    Image { name, layers: layers.into_iter().collect() }
}

fn archive() -> Archive {
    Archive::default()
}

/// What most of the images lie on.
fn base() -> Archive {
    archive()
        .dir("./", 0o755)
        .dir("etc/", 0o755)
        .file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\n")
        .dir("usr", 0o755)
        .dir("usr/bin", 0o755)
        .file("usr/bin/tool", 0o755, b"#!/bin/sh\n")
        .file("usr/bin/other", 0o755, b"other\n")
        .symlink("bin", "usr/bin")
        .dir("var/", 0o755)
        .dir("var/cache/", 0o700)
        .file("var/cache/a", 0o600, b"a")
        .file("var/cache/b", 0o600, b"b")
        .dir("tmp", 0o1777)
}

fn images() -> Vec<Image> {
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    let deep = "level/".repeat(40);
    let mut images = vec![
        image("one layer", [base()]),
        image("no entries", [archive()]),
        image("an empty layer between two", [base(), archive(), archive().file("etc/new", 0o644, b"new")]),
        image("a file left out", [base(), archive().whiteout("usr/bin/tool")]),
        image("a directory left out", [base(), archive().whiteout("var/cache")]),
        image("a link left out", [base(), archive().whiteout("bin")]),
        image("left out at the root", [base(), archive().whiteout("var")]),
        image(
            "left out and back in a later layer",
            [
                base(),
                archive().whiteout("usr/bin/tool"),
                archive().dir("usr", 0o755).dir("usr/bin", 0o755).file("usr/bin/tool", 0o750, b"new\n"),
            ],
        ),
        image(
            "a directory left out and new in a later layer",
            [
                base(),
                archive().whiteout("var/cache"),
                archive().dir("var/", 0o755).dir("var/cache/", 0o711).file("var/cache/c", 0o600, b"c"),
            ],
        ),
        image(
            "opaque",
            [base(), archive().dir("var/cache/", 0o755).opaque("var/cache").file("var/cache/c", 0o644, b"c")],
        ),
        image(
            "opaque, told last",
            [base(), archive().dir("var/cache/", 0o755).file("var/cache/c", 0o644, b"c").opaque("var/cache")],
        ),
        image(
            "opaque with a directory of below inside",
            [
                base().dir("var/cache/in", 0o755).file("var/cache/in/old", 0o644, b"old"),
                archive().dir("var/cache/", 0o755).opaque("var/cache").dir("var/cache/in", 0o750).file(
                    "var/cache/in/new",
                    0o644,
                    b"new",
                ),
            ],
        ),
        image(
            "a file where a directory was",
            [base(), archive().whiteout("var/cache").file("var/cache", 0o644, b"file")],
        ),
        image(
            "a file where a directory was, without leaving it out",
            [base(), archive().file("var/cache", 0o644, b"file")],
        ),
        image(
            "a directory where a file was",
            [base(), archive().dir("usr/bin/tool", 0o755).file("usr/bin/tool/inside", 0o644, b"inside")],
        ),
        image("a link where a file was", [base(), archive().symlink("usr/bin/tool", "other")]),
        image("a file where a link was", [base(), archive().file("bin", 0o644, b"no link")]),
        image(
            "a directory where a link was",
            [base(), archive().dir("bin", 0o755).file("bin/own", 0o644, b"own")],
        ),
        image("a file beneath a link of below", [base(), archive().file("bin/own", 0o755, b"own")]),
        image("left out beneath a link of below", [base(), archive().whiteout("bin/tool")]),
        image(
            "a link to what only below has",
            [base(), archive().symlink("sbin", "usr/bin").file("sbin/own", 0o755, b"own")],
        ),
        image(
            "beneath links of below that lead up and to the root",
            [
                archive()
                    .file("var/cache/a", 0o600, b"a")
                    .symlink("usr/up", "../var")
                    .symlink("var/again", "/usr/up/cache"),
                archive().file("usr/up/again/deep/own", 0o644, b"own"),
                archive().dir("var/again/deep", 0o711).file("var/again/deep/more", 0o644, b"more"),
            ],
        ),
        image(
            "beneath a link of below that leads nowhere",
            [archive().symlink("lost", "not/there"), archive().file("lost/own", 0o644, b"own")],
        ),
        image(
            "beneath a name whose link was left out",
            [archive().symlink("bin", "usr/bin"), archive().whiteout("bin").file("bin/own", 0o644, b"own")],
        ),
        image(
            "a hard link to a file of below",
            [base(), archive().link("usr/bin/again", "usr/bin/tool").link("tool", "bin/tool")],
        ),
        image("a hard link to a link of below", [base(), archive().link("too", "bin")]),
        image(
            "a hard link to a file of below with all it has",
            [
                archive()
                    .pax(&[("SCHILY.xattr.security.capability", CAP_NET_BIND), ("mtime", b"1234567890.5")])
                    .owned("capable", (12, 1000), 0o6755, b"capable"),
                archive().link("again", "capable"),
            ],
        ),
        image("another mode for a directory", [base(), archive().dir("var/cache/", 0o2775)]),
        image("the root's own mode", [base(), archive().dir("./", 0o711)]),
        image(
            "hard links",
            [archive()
                .file("a", 0o644, b"shared")
                .link("b", "a")
                .dir("d", 0o755)
                .link("d/c", "a")
                .link("e", "./d/c")],
        ),
        image("a hard link to a link", [archive().symlink("to", "nowhere").link("too", "to")]),
        image(
            "hard links of which one is replaced later",
            [archive().file("a", 0o644, b"shared").link("b", "a"), archive().file("a", 0o644, b"own")],
        ),
        image(
            "links that lead up, out and in circles",
            [archive()
                .symlink("up", "../../../etc/passwd")
                .symlink("absolute", "/etc/shadow")
                .symlink("circle", "circle")
                .symlink("empty-parent", "./no/such/thing")],
        ),
        image(
            "setuid, setgid and sticky",
            [archive()
                .file("su", 0o4755, b"su")
                .file("sg", 0o2755, b"sg")
                .dir("sticky", 0o1777)
                .file("all", 0o7777, b"")],
        ),
        image("modes that take everything away", [archive().dir("none", 0).file("none/file", 0, b"secret")]),
        image(
            "owners",
            [archive()
                .owned("user", (1000, 1000), 0o640, b"user")
                .owned("large", (65_534, 2_000_000), 0o4755, b"large")
                .pax(&[("uid", b"3000000000"), ("gid", b"12")])
                .file("beyond octal", 0o600, b"")],
        ),
        image("numbers left blank", [blank_numbers()]),
        image(
            "times",
            [archive()
                .pax(&[("mtime", b"1234567890.123456789")])
                .file("fraction", 0o644, b"")
                .dir("in", 0o755)
                .file("in/later", 0o644, b"")],
        ),
        image(
            "pipes and devices",
            [archive().node("pipe", EntryType::Fifo, (0, 0)).node("null", EntryType::Char, (1, 3)).node(
                "disk",
                EntryType::Block,
                (7, 200),
            )],
        ),
        image(
            "attributes",
            [archive()
                .pax(&[("SCHILY.xattr.user.origin", b"ours\0and more")])
                .file("tagged", 0o644, b"tagged")
                .pax(&[("SCHILY.xattr.security.capability", CAP_NET_BIND)])
                .file("capable", 0o755, b"capable")
                .pax(&[("SCHILY.xattr.user.of-directory", b"yes")])
                .dir("tagged-dir", 0o755)],
        ),
        image(
            "line breaks in names and attributes",
            [archive()
                .pax(&[
                    ("SCHILY.xattr.user.lines", b"one\ntwo\n"),
                    ("SCHILY.xattr.security.capability", CAP_DAC_OVERRIDE_AND_FOWNER),
                    ("path", b"two\nlines"),
                ])
                .file("short", 0o755, b"")],
        ),
        image(
            "long names",
            [archive()
                .dir(&format!("{}/", "d".repeat(90)), 0o755)
                .file(&long, 0o644, b"far")
                .symlink("s", &"x/".repeat(120))],
        ),
        image(
            "long names in pax records",
            [archive().pax(&[("path", format!("p/{long}").as_bytes())]).file("short", 0o644, b"far")],
        ),
        image(
            "parents nobody lists",
            [
                archive().file("opt/app/bin/run", 0o755, b"run"),
                archive().file("opt/app/etc/conf", 0o644, b"c"),
            ],
        ),
        image("deep", [archive().file(&format!("{deep}leaf"), 0o644, b"leaf")]),
        image("holes", [sparse_pax()]),
        image(
            "twice in one layer",
            [archive()
                .file("same", 0o644, b"first and longer")
                .file("same", 0o600, b"second")
                .dir("was", 0o755)
                .file("was/in", 0o644, b"")
                .file("was", 0o644, b"file")],
        ),
        image(
            "names with dots and slashes too many",
            [archive()
                .dir("./a/./", 0o755)
                .file("./a//b", 0o644, b"b")
                .file("/rooted", 0o644, b"r")
                .file("...", 0o644, b".")],
        ),
        image(
            "names that are not text",
            [archive().pax(&[("path", b"caf\xe9 \xff")]).file("x", 0o644, b"bytes")],
        ),
        image("a large file", [archive().file("large", 0o644, &vec![7; 3 << 20])]),
        image(
            "what an older union file system left",
            [base(), archive().dir(".wh..wh.plnk", 0o700).file(".wh..wh.aufs", 0o444, b"")],
        ),
        image(
            "many layers",
            (0..12).map(|n| {
                let kept = archive().dir("n", 0o755).file(&format!("n/{n}"), 0o644, &[n]).file(
                    "n/last",
                    0o644,
                    &[n],
                );
                if n > 2 { kept.whiteout(&format!("n/{}", n - 2)) } else { kept }
            }),
        ),
    ];
    images.sort_by_key(|image| image.name);
    images
}

/// A capability as the file system stores it: version 2, effective, CAP_NET_BIND_SERVICE permitted.
const CAP_NET_BIND: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The same for two others, which together have the number of a line break.
const CAP_DAC_OVERRIDE_AND_FOWNER: &[u8] = &[1, 0, 0, 2, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// As archives that tell nobody's name are written by some.
fn blank_numbers() -> Archive {
    let mut header = header(EntryType::Regular, 0o644);
    let old = header.as_old_mut();
    (old.uid, old.gid, old.size, old.mtime) = ([0; 8], [b' '; 8], [0; 12], [0; 12]);
    archive().entry(header, "blank", "", b"")
}

/// 1 MiB with 512 bytes of data in its middle and 3 at its end, in the old way.
fn sparse_gnu() -> Archive {
    let mut header = header(EntryType::GNUSparse, 0o644);
    header.set_size(512 + 3);
    let gnu = header.as_gnu_mut().expect("made so");
    gnu.set_real_size(1 << 20);
    let octal =
        |field: &mut [u8; 12], number: u64| field.copy_from_slice(format!("{number:011o}\0").as_bytes());
    for (at, (offset, length)) in [(512 * 1024, 512), ((1 << 20) - 3, 3)].into_iter().enumerate() {
        octal(&mut gnu.sparse[at].offset, offset);
        octal(&mut gnu.sparse[at].numbytes, length);
    }
    let data = [vec![b'm'; 512], b"end".to_vec()].concat();
    archive().entry(header, "old", "", &data)
}

/// The same in pax records of version 1.0.
fn sparse_pax() -> Archive {
    let mut map = b"2\n524288\n512\n1048573\n3\n".to_vec();
    map.resize(512, 0);
    let data = [map, vec![b'm'; 512], b"end".to_vec()].concat();
    archive()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"new"),
            ("GNU.sparse.realsize", b"1048576"),
        ])
        .file("GNUSparseFile.0/new", 0o644, &data)
}

/// `umoci` knows the new way only.
#[test]
fn holes_are_the_same_in_the_old_way() {
    if lacks_root() {
        return;
    }
    let work = tempfile::tempdir().expect("a temporary directory");
    let [old, new] = [sparse_gnu(), sparse_pax()].map(|layer| {
        unpack(&layer.bytes()[..], work.path(), BASE, &Limits::default()).expect("a good archive").bytes
    });
    assert_eq!((old, new), (515, 515));
    let [old, new] = ["old", "new"].map(|name| fs::read(work.path().join(name)).expect("a file"));
    assert!(
        old == new && old.len() == 1 << 20 && old.ends_with(b"end"),
        "{} and {} bytes",
        old.len(),
        new.len()
    );
}

/// `sha256:` and the digits.
fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// The image as an OCI layout; `umoci` of Debian 12 knows gzip only.
fn layout(image: &Image, into: &Path) {
    let blobs = into.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a new directory");
    let blob = |bytes: &[u8]| {
        let digest = digest(bytes);
        fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).expect("a new file");
        (digest, bytes.len())
    };
    let described = |media_type: &str, bytes: &[u8]| {
        let (digest, size) = blob(bytes);
        json!({"mediaType": media_type, "digest": digest, "size": size})
    };
    let json = |value: &Value| value.to_string().into_bytes();
    let layers: Vec<_> = image
        .layers
        .iter()
        .map(|layer| {
            described("application/vnd.oci.image.layer.v1.tar+gzip", &layer.compressed(Compression::Gzip))
        })
        .collect();
    let diff_ids: Vec<_> = image.layers.iter().map(|layer| digest(&layer.bytes())).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = described("application/vnd.oci.image.config.v1+json", &json(&config));
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    let mut manifest = described("application/vnd.oci.image.manifest.v1+json", &json(&manifest));
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "it"});
    fs::write(into.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())
        .expect("writable");
    fs::write(into.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("writable");
}

fn by_umoci(image: &Image, work: &Path) -> PathBuf {
    let (layout_dir, bundle) = (work.join("layout"), work.join("bundle"));
    layout(image, &layout_dir);
    let output = Command::new("umoci")
        .args(["unpack", "--image"])
        .arg(format!("{}:it", layout_dir.display()))
        .arg(&bundle)
        .output()
        .expect("umoci was found");
    assert!(output.status.success(), "{}: umoci: {}", image.name, String::from_utf8_lossy(&output.stderr));
    bundle.join("rootfs")
}

/// Our layers, one upon the other, seen through overlayfs in a mount namespace of its own: copied from there, since the
/// namespace ends with the process that made it.
fn by_us(image: &Image, work: &Path, compression: Compression) -> PathBuf {
    let mut lower = Vec::<String>::new();
    for (number, layer) in image.layers.iter().enumerate() {
        let directory = work.join(format!("{compression:?}{number}"));
        fs::create_dir(&directory).expect("a new directory");
        let bytes = layer.compressed(compression);
        let input = decompress(&bytes[..]).expect("memory can be read");
        let unpacked = unpack(input, &directory, &lower, &Limits::default())
            .map_err(|error| format!("{}: layer {number}: {error:?}", image.name))
            .expect("a good archive");
        if unpacked.opaque {
            lower.clear();
        }
        lower.insert(0, directory.display().to_string());
    }
    // A lone layer needs one below it.
    let (below, merged, copy) =
        (work.join("below"), work.join("merged"), work.join(format!("{compression:?}")));
    for directory in [&below, &merged] {
        fs::create_dir_all(directory).expect("writable");
    }
    lower.push(below.display().to_string());
    let script = r#"mount -t overlay overlay -o "lowerdir=$1" "$2" && cp -a "$2" "$3""#;
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh", &lower.join(":")])
        .args([&merged, &copy])
        .output()
        .expect("unshare is part of every Debian");
    assert!(output.status.success(), "{}: {}", image.name, String::from_utf8_lossy(&output.stderr));
    copy
}

#[test]
fn images_look_as_umoci_unpacks_them() {
    let has_umoci = Command::new("umoci").arg("--version").output().is_ok();
    if lacks_root() || skip(!has_umoci, "umoci") {
        return;
    }
    let images = images();
    assert!(images.len() >= 40, "{} images", images.len());
    let mut wrong = Vec::new();
    for image in &images {
        let work = tempfile::tempdir().expect("a temporary directory");
        let theirs = tree::look(&by_umoci(image, work.path()));
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let ours = tree::look(&by_us(image, work.path(), compression));
            let differences = tree::differences(&ours, &theirs);
            if !differences.is_empty() {
                wrong.push(format!("{} ({compression:?}):\n{}", image.name, differences.join("\n")));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} images differ\n{}", wrong.len(), images.len(), wrong.join("\n\n"));
}
