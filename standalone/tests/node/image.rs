//! Images made by the tests, in OCI layouts: programs of this machine with the libraries they need, and whatever a test adds.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use ropewalk_images::{Digest, Image, Limits, Store, load};
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

/// Adds an image of [`programs`] and these layers above them to the images in a directory.
pub(crate) fn add(images: &Path, name: &str, layers: Vec<Layer>, config: &Value) -> Image {
    let layout = tempfile::tempdir().expect("a directory");
    let blobs = layout.path().join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("made");
    let blob = |kind: &str, content: &[u8]| {
        let digest = Digest::of(content).to_string();
        fs::write(blobs.join(digest.trim_start_matches("sha256:")), content).expect("written");
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": content.len()})
    };
    let layers = layers.into_iter().map(Layer::bytes);
    let layers: Vec<Value> =
        [programs().to_vec()].into_iter().chain(layers).map(|layer| blob("layer.v1.tar", &layer)).collect();
    // What is not compressed has the same digest either way.
    let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let document = json!({"os": "linux", "architecture": architecture, "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = blob("config.v1+json", document.to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string();
    let mut manifest = blob("manifest.v1+json", manifest.as_bytes());
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]}).to_string();
    fs::write(layout.path().join("index.json"), index).expect("written");
    fs::write(layout.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
    load(&store(images), layout.path(), None).expect("loaded").pop().expect("an image")
}

/// The images in a directory.
pub(crate) fn store(images: &Path) -> Store {
    Store::open(images, Limits::default()).expect("opened")
}
