//! Layers and archives as bytes: fixed order, owners and times, so that the same content has the same digest. Pure.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// Path below the root directory, to mode and content.
pub(crate) type Files = BTreeMap<String, (u32, Vec<u8>)>;

/// Nothing in an image depends on when it was made.
const EPOCH: &str = "1970-01-01T00:00:00Z";

/// One layer: an uncompressed tar, so that its digest is its identity in both image formats.
pub(crate) struct Layer {
    bytes: Vec<u8>,
    digest: String,
    /// Shown by `docker history`.
    what: String,
}

impl Layer {
    /// Everything belongs to root and so cannot be changed by the user the container runs as.
    pub(crate) fn new(files: &Files, what: &str) -> anyhow::Result<Self> {
        let parents: BTreeSet<&str> = files.keys().flat_map(|path| parents(path)).collect();
        let mut tar = Builder::new(Vec::new());
        for parent in parents {
            append(&mut tar, &format!("{parent}/"), EntryType::Directory, 0o755, &[])?;
        }
        for (path, (mode, bytes)) in files {
            append(&mut tar, path, EntryType::Regular, *mode, bytes)?;
        }
        let bytes = tar.into_inner().context("end a layer")?;
        let digest = digest(&bytes);
        Ok(Self { bytes, digest, what: what.to_owned() })
    }
}

/// One image for one architecture.
pub(crate) struct Image {
    /// Its last path segment.
    pub(crate) name: &'static str,
    pub(crate) architecture: &'static str,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) layers: Vec<Layer>,
}

impl Image {
    /// The archive.
    pub(crate) fn archive(&self) -> anyhow::Result<Vec<u8>> {
        let digests: Vec<String> =
            self.layers.iter().map(|layer| format!("sha256:{}", layer.digest)).collect();
        let config = json!({
            "architecture": self.architecture,
            "os": "linux",
            "created": EPOCH,
            "config": {
                "User": format!("{user}:{user}", user = super::USER),
                "Entrypoint": self.entrypoint,
                "WorkingDir": "/",
                "Labels": {
                    "org.opencontainers.image.licenses": "Apache-2.0",
                    "org.opencontainers.image.title": format!("ropewalk-{}", self.name),
                    "org.opencontainers.image.version": concat!("v", env!("CARGO_PKG_VERSION")),
                },
            },
            "rootfs": {"type": "layers", "diff_ids": digests},
            "history": self.layers.iter()
                .map(|layer| json!({"created": EPOCH, "created_by": layer.what}))
                .collect::<Vec<_>>(),
        })
        .to_string();
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", &layer.bytes))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", config.as_bytes()),
            "layers": layers,
        })
        .to_string();

        let reference = super::reference(self.name);
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
        entry["platform"] = json!({"architecture": self.architecture, "os": "linux"});
        entry["annotations"] = json!({
            // containerd takes the whole name from the first, tools of the OCI layout the tag from the second.
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": concat!("v", env!("CARGO_PKG_VERSION")),
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        });
        let docker = json!([{
            "Config": blob(&digest(config.as_bytes())),
            "RepoTags": [reference],
            "Layers": self.layers.iter().map(|layer| blob(&layer.digest)).collect::<Vec<_>>(),
        }]);

        let mut blobs = BTreeMap::new();
        for bytes in [config.as_bytes(), manifest.as_bytes()] {
            blobs.insert(blob(&digest(bytes)), bytes);
        }
        for layer in &self.layers {
            blobs.insert(blob(&layer.digest), &layer.bytes);
        }
        let mut tar = Builder::new(Vec::new());
        let layout = json!({"imageLayoutVersion": "1.0.0"});
        for (path, value) in [("oci-layout", layout), ("index.json", index), ("manifest.json", docker)] {
            append(&mut tar, path, EntryType::Regular, 0o644, value.to_string().as_bytes())?;
        }
        for directory in ["blobs/", "blobs/sha256/"] {
            append(&mut tar, directory, EntryType::Directory, 0o755, &[])?;
        }
        for (path, bytes) in blobs {
            append(&mut tar, &path, EntryType::Regular, 0o644, bytes)?;
        }
        tar.into_inner().context("end an archive")
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{}", digest(bytes)), "size": bytes.len()})
}

fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn blob(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

/// Every directory above a path, the outermost first.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

fn append(
    tar: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    bytes: &[u8],
) -> anyhow::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(u64::try_from(bytes.len())?);
    tar.append_data(&mut header, path, bytes).with_context(|| format!("add {path}"))
}
