//! Images made by the tests, in OCI layouts: programs of this machine with the libraries they need, and whatever a test adds.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use ropewalk_images::{Digest, Image, Limits, Store, load};
use ropewalk_registry::fake::Fake;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

/// What the tests' scripts call.
const PROGRAMS: [&str; 8] = ["sh", "cat", "id", "ls", "stat", "sleep", "touch", "rm"];

/// The archive of a layer in the making.
pub(crate) struct Layer(Builder<Vec<u8>>);

impl Layer {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn header(kind: EntryType, mode: u32, size: usize) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size as u64);
        header
    }

    pub(crate) fn file(mut self, path: &str, mode: u32, contents: &[u8]) -> Self {
        let mut header = Self::header(EntryType::Regular, mode, contents.len());
        self.0.append_data(&mut header, path, contents).expect("written");
        self
    }

    pub(crate) fn directory(mut self, path: &str, mode: u32) -> Self {
        let mut header = Self::header(EntryType::Directory, mode, 0);
        self.0.append_data(&mut header, path, &[][..]).expect("written");
        self
    }

    pub(crate) fn link(mut self, path: &str, to: &str) -> Self {
        let mut header = Self::header(EntryType::Symlink, 0o777, 0);
        self.0.append_link(&mut header, path, to).expect("written");
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().expect("an archive")
    }
}

/// A layer with a shell and some programs.
fn programs() -> &'static [u8] {
    static LAYER: OnceLock<Vec<u8>> = OnceLock::new();
    LAYER.get_or_init(|| {
        let mut files = BTreeSet::new();
        for program in PROGRAMS {
            let path = format!("/bin/{program}");
            let listed = Command::new("ldd").arg(&path).output().expect("ldd runs");
            let listed = String::from_utf8(listed.stdout).expect("text");
            files.extend(listed.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned));
            files.insert(path);
        }
        let layer = files.iter().fold(Layer::new().directory("tmp", 0o1777), |layer, path| {
            layer.file(path.trim_start_matches('/'), 0o755, &fs::read(path).expect("read"))
        });
        layer.bytes()
    })
}

/// An image of [`programs`] and further layers above them: its manifest, and what that refers to.
pub(crate) struct Made {
    pub(crate) manifest: Value,
    pub(crate) blobs: Vec<Vec<u8>>,
}

pub(crate) fn make(layers: Vec<Layer>, config: &Value) -> Made {
    let mut blobs = Vec::new();
    let mut blob = |kind: &str, content: Vec<u8>| {
        let (digest, size) = (Digest::of(&content).to_string(), content.len());
        blobs.push(content);
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": size})
    };
    let layers = [programs().to_vec()].into_iter().chain(layers.into_iter().map(Layer::bytes));
    let layers: Vec<Value> = layers.map(|layer| blob("layer.v1.tar", layer)).collect();
    // What is not compressed has the same digest either way.
    let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let document = json!({"os": "linux", "architecture": architecture, "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = blob("config.v1+json", document.to_string().into_bytes());
    Made { manifest: json!({"schemaVersion": 2, "config": config, "layers": layers}), blobs }
}

/// Adds an image to the images in a directory.
pub(crate) fn add(images: &Path, name: &str, layers: Vec<Layer>, config: &Value) -> Image {
    let layout = tempfile::tempdir().expect("a directory");
    let directory = layout.path().join("blobs/sha256");
    fs::create_dir_all(&directory).expect("made");
    let Made { manifest, mut blobs } = make(layers, config);
    let manifest = manifest.to_string().into_bytes();
    let (digest, size) = (Digest::of(&manifest).to_string(), manifest.len());
    blobs.push(manifest);
    for content in blobs {
        let name = Digest::of(&content).to_string();
        fs::write(directory.join(name.trim_start_matches("sha256:")), content).expect("written");
    }
    let manifest = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
        "size": size, "annotations": {"org.opencontainers.image.ref.name": name}});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]}).to_string();
    fs::write(layout.path().join("index.json"), index).expect("written");
    fs::write(layout.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
    load(&store(images), layout.path(), None).expect("loaded").pop().expect("an image")
}

/// Puts an image into a registry.
pub(crate) fn publish(registry: &Fake, repository: &str, tag: &str, layers: Vec<Layer>, config: &Value) {
    let Made { manifest, blobs } = make(layers, config);
    for content in blobs {
        registry.blob(content);
    }
    registry.tag(repository, tag, &manifest);
}

/// The images in a directory.
pub(crate) fn store(images: &Path) -> Store {
    Store::open(images, Limits::default()).expect("opened")
}
