//! What is fuzzed in `fuzz/`, without a fuzzer: its inputs, those that once failed among them, and good ones that are spoilt,
//! the same ones each time.

use std::fmt::Debug;
use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::json;
use tar::EntryType;

use crate::archive::{Archive, Compression};
use crate::lacks_root;
use crate::load::{docker, layout, pack};

#[path = "../../../../fuzz/images.rs"]
mod targets;

type Target = fn(&[u8]) -> bool;

const TARGETS: [(&str, Target); 3] =
    [("image_archive", targets::archive), ("image_layer", targets::layer), ("image_layout", targets::layout)];

/// Spoilt inputs of each target: some seconds in a debug build.
const CASES: u32 = 600;

/// A name says what an input is about.
#[test]
fn inputs_that_are_kept_pass() {
    if lacks_root() {
        return;
    }
    for (name, target) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
        let mut taken = Vec::new();
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("readable").path();
            if target(&fs::read(&path).expect("readable")) {
                taken.push(path.file_name().expect("a file").to_string_lossy().into_owned());
            }
        }
        taken.sort();
        // Of the others it is held that they are refused: a name that begins so is that of a good input.
        assert!(!taken.is_empty() && taken.iter().all(|name| name.starts_with("good-")), "{name}: {taken:?}");
    }
}

/// One of everything.
fn varied() -> Archive {
    Archive::default()
        .dir("dir", 0o755)
        .file("dir/file", 0o644, b"content")
        .symlink("up", "..")
        .link("hard", "dir/file")
        .whiteout("dir/gone")
        .whiteout("etc/passwd")
        .opaque("dir")
        .file("etc/deep/file", 0o600, b"")
        .node("pipe", EntryType::Fifo, (0, 0))
        .node("disk", EntryType::Block, (7, 1))
        .pax(&[("SCHILY.xattr.user.a", b"b"), ("mtime", b"1.5")])
        .file("tagged", 0o4755, b"x")
        .file(&"long/".repeat(30), 0o644, b"")
        .pax(&[("GNU.sparse.realsize", b"4096"), ("GNU.sparse.map", b"0,4,100,4"), ("path", b"holes")])
        .file("h", 0o644, b"datadata")
}

/// Changes of an archive's bytes: of single ones, of whole blocks, and of its length.
#[derive(Clone, Debug)]
struct Damage {
    edits: Vec<(Index, u8)>,
    numbers: Option<(Index, usize, &'static [u8])>,
    copy: Option<(Index, Index)>,
    cut: Option<Index>,
}

/// Where headers have numbers: mode, owner, size, time, and the extents of a file with holes.
const NUMBERS: [usize; 6] = [100, 108, 124, 136, 386, 483];

/// Numbers as headers have them, up to the largest that fits into one.
const EXTREMES: [&[u8]; 6] = [
    b"77777777777\0",
    b"00000000000\0",
    b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"            ",
];

fn damage() -> impl Strategy<Value = Damage> {
    let byte = prop_oneof![Just(b'.'), Just(b'/'), Just(0), Just(b'\n'), b'0'..=b'7', any::<u8>()];
    let numbers = (any::<Index>(), select(&NUMBERS[..]), select(&EXTREMES[..]));
    (
        vec((any::<Index>(), byte), 0..12),
        option::weighted(0.3, numbers),
        option::weighted(0.3, (any::<Index>(), any::<Index>())),
        option::weighted(0.2, any::<Index>()),
    )
        .prop_map(|(edits, numbers, copy, cut)| Damage { edits, numbers, copy, cut })
}

impl Damage {
    /// Headers get right checksums, so that what is behind them is reached.
    fn done_to(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for (index, byte) in &self.edits {
            let at = index.index(bytes.len());
            bytes[at] = *byte;
        }
        if let Some((index, field, number)) = &self.numbers {
            let at = index.index(bytes.len() / 512) * 512 + field;
            bytes[at..at + number.len()].copy_from_slice(number);
        }
        if let Some((from, to)) = &self.copy {
            let [from, to] = [from, to].map(|index| index.index(bytes.len() / 512) * 512);
            bytes.copy_within(from..from + 512, to);
        }
        for header in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        if let Some(cut) = &self.cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes
    }
}

/// Tries the same inputs whenever and wherever it runs.
fn each<T: Debug>(inputs: impl Strategy<Value = T>, test: impl Fn(T)) {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome = runner.run(&inputs, |input| {
        test(input);
        Ok(())
    });
    outcome.expect("none does harm");
}

#[test]
fn spoilt_layers_pass() {
    if lacks_root() {
        return;
    }
    let good = varied();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        assert!(targets::layer(&good.compressed(compression)), "{compression:?}");
    }
    each(damage(), |damage| {
        targets::layer(&damage.done_to(good.bytes()));
    });
}

#[test]
fn spoilt_archives_pass() {
    if lacks_root() {
        return;
    }
    let good = [
        pack(&layout(Some("r.example/app:1"), &[varied(), varied()])).bytes(),
        pack(&docker(&json!(["r.example/app:1"]), &[varied()])).bytes(),
    ];
    for archive in &good {
        assert!(targets::archive(archive));
    }
    each((0..good.len(), damage()), |(which, damage)| {
        targets::archive(&damage.done_to(good[which].clone()));
    });
}

/// An index, a manifest, a configuration and a layer; and the same from `docker save`.
fn layouts() -> [String; 2] {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = format!(
        "{{\"architecture\":\"{architecture}\",\"os\":\"linux\",\"config\":{{\"Env\":[\"A=b\"],\"User\":\"0\"}},\
         \"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"$3\"]}}}}"
    );
    let layer = "\0".repeat(1024);
    let described = |part: usize, what: &str| {
        format!(
            "{{\"mediaType\":\"application/vnd.oci.image.{what}\",\"digest\":\"${part}\",\"size\":#{part}"
        )
    };
    let index = format!(
        "{{\"schemaVersion\":2,\"manifests\":[{},\"annotations\":{{\"org.opencontainers.image.ref.name\":\
         \"r.example/app:1\"}}}}]}}",
        described(1, "manifest.v1+json")
    );
    let manifest = format!(
        "{{\"schemaVersion\":2,\"config\":{}}},\"layers\":[{}}}]}}",
        described(2, "config.v1+json"),
        described(3, "layer.v1.tar")
    );
    let saved = "[{\"Config\":\"2\",\"RepoTags\":[\"r.example/app:1\"],\"Layers\":[\"3\"]}]";
    [
        format!("{index}\n--\n{manifest}\n--\n{config}\n--\n{layer}"),
        format!("{saved}\n--\n{{}}\n--\n{config}\n--\n{layer}"),
    ]
}

const PIECES: [&str; 26] = [
    "$1",
    "$2",
    "$3",
    "#1",
    "#2",
    "\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "--\n",
    "null",
    "-1",
    "18446744073709551615",
    "1e99",
    "../",
    "sha256:",
    "sha512:",
    "\"manifests\":",
    "\"layers\":",
    "\"config\":",
    "\"\"",
    "é",
    "\\u0000",
];

#[test]
fn spoilt_layouts_pass() {
    if lacks_root() {
        return;
    }
    let good = layouts();
    for layout in &good {
        assert!(targets::layout(layout.as_bytes()));
    }
    let changes = vec((any::<Index>(), 0..12_usize, select(&PIECES[..])), 1..5);
    each((select(good.to_vec()), changes), |(mut text, changes)| {
        for (at, length, piece) in changes {
            let at = text.floor_char_boundary(at.index(text.len() + 1));
            let end = text.ceil_char_boundary((at + length).min(text.len()));
            text.replace_range(at..end, piece);
        }
        targets::layout(text.as_bytes());
    });
}
