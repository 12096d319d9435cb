//! The image that is pulled: layers as those of an application upon a distribution, the same at each run.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use ropewalk_core::images::reference::Digest;
use ropewalk_test::harness::registry::Registry;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Bytes of text and of noise that files are cut from: much more than what compression looks back at.
const POOL: usize = 4 << 20;

/// Seconds of every file.
const TIME: u64 = 1_700_000_000;

/// What was made.
pub(crate) struct Made {
    pub(crate) layers: usize,
    pub(crate) files: usize,
    /// Unpacked.
    pub(crate) bytes: usize,
    /// Compressed.
    pub(crate) transferred: usize,
}

/// Files of one kind: their share of the image in per cent, their mean size, and of how many in ten bytes are noise.
struct Kind {
    folder: &'static str,
    percent: usize,
    size: usize,
    noise: usize,
}

/// From the lowest layer on: a distribution, what runs programs, their libraries in very small files, and the program.
const LAYERS: [&[Kind]; 4] = [
    &[
        Kind { folder: "usr/share", percent: 12, size: 6 << 10, noise: 0 },
        Kind { folder: "usr/lib", percent: 16, size: 300 << 10, noise: 3 },
    ],
    &[Kind { folder: "opt/runtime", percent: 28, size: 3 << 20, noise: 3 }],
    &[Kind { folder: "srv/node_modules", percent: 16, size: 3 << 10, noise: 1 }],
    &[Kind { folder: "srv/app", percent: 28, size: 16 << 20, noise: 2 }],
];

/// Makes the image and pushes it with tag `1`.
pub(crate) async fn push(registry: &Registry, repository: &str, megabytes: usize) -> Result<Made> {
    let mut made = Made { layers: LAYERS.len(), files: 0, bytes: 0, transferred: 0 };
    let mut source = Source::new();
    let (mut layers, mut diff_ids): (Vec<Value>, Vec<String>) = (Vec::new(), Vec::new());
    for (number, kinds) in LAYERS.iter().enumerate() {
        let mut layer = Builder::new(Vec::new());
        if number == 0 {
            programs(&mut layer)?;
        }
        for kind in *kinds {
            let wanted = megabytes * 10_000 * kind.percent;
            let mut bytes = 0;
            while bytes < wanted {
                let mut content = source.file(kind);
                content.truncate(wanted - bytes);
                made.files += 1;
                bytes += content.len();
                // Folders of some dozen files, as packages have them.
                let path = format!("{}/package-{}/file-{}", kind.folder, made.files / 40, made.files);
                layer.append_data(&mut header(0o644, content.len()), path, &content[..])?;
            }
            made.bytes += bytes;
        }
        if number == LAYERS.len() - 1 {
            // What upper layers take away of lower ones.
            for gone in 0..20 {
                let path = format!("usr/share/package-{gone}/.wh.file-{}", gone * 40 + 39);
                layer.append_data(&mut header(0o644, 0), path, &[][..])?;
            }
        }
        let archive = layer.into_inner()?;
        diff_ids.push(Digest::of(&archive).to_string());
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&archive)?;
        let compressed = encoder.finish()?;
        made.transferred += compressed.len();
        layers.push(registry.push(repository, LAYER, compressed.into()).await?);
    }
    let machine = ropewalk_images::machine();
    let (os, architecture) = machine.split_once('/').context("a machine is a system and an architecture")?;
    let config = json!({
        "architecture": architecture, "os": os, "config": { "Cmd": ["/bin/true"], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = registry.push(repository, CONFIG, config.to_string().into()).await?;
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers });
    registry.push_manifest(repository, Some("1"), &manifest).await?;
    Ok(made)
}

fn header(mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(mode);
    header.set_mtime(TIME);
    header.set_size(size as u64);
    header
}

/// This machine's `true`, with the libraries that it loads.
fn programs(layer: &mut Builder<Vec<u8>>) -> Result<()> {
    let listed = Command::new("ldd").arg("/bin/true").output().context("cannot run ldd")?;
    ensure!(listed.status.success(), "ldd does not know /bin/true");
    let listed = String::from_utf8(listed.stdout)?;
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    let paths: BTreeSet<_> = libraries.chain(["/bin/true"]).collect();
    for path in paths {
        let content = fs::read(path).with_context(|| format!("cannot read \"{path}\""))?;
        layer.append_data(&mut header(0o755, content.len()), path.trim_start_matches('/'), &content[..])?;
    }
    Ok(())
}

/// Where contents come from.
struct Source {
    text: Vec<u8>,
    noise: Vec<u8>,
    state: u64,
}

impl Source {
    fn new() -> Self {
        let mut source = Self { text: Vec::with_capacity(POOL), noise: Vec::with_capacity(POOL), state: 1 };
        let words: Vec<String> =
            (0..2000).map(|_| format!("{:x} ", source.next() >> (24 + source.state % 30))).collect();
        while source.text.len() < POOL {
            let word = source.below(words.len());
            source.text.extend_from_slice(words[word].as_bytes());
        }
        while source.noise.len() < POOL {
            let noise = source.next();
            source.noise.extend_from_slice(&noise.to_le_bytes());
        }
        source
    }

    /// Vigna's splitmix64: enough that nothing repeats.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap_or_default()
    }

    /// From nothing to twice the mean size.
    fn file(&mut self, kind: &Kind) -> Vec<u8> {
        let size = self.below(2 * kind.size);
        let mut content = Vec::with_capacity(size);
        while content.len() < size {
            let is_noise = self.below(10) < kind.noise;
            let length = self.below(64 << 10).min(size - content.len()) + 1;
            let at = self.below(POOL - (64 << 10) - 1);
            let pool = if is_noise { &self.noise } else { &self.text };
            content.extend_from_slice(&pool[at..at + length]);
        }
        content
    }
}
