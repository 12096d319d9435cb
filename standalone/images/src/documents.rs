//! Manifests, indexes and configurations of images. Pure.

use std::collections::BTreeMap;

use oci_spec::image::{Arch, Descriptor, MediaType, Os, Platform};
use ropewalk_core::images::reference::{Digest, ReferenceError};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::store::{Blob, Layer};

/// Bytes of one document: what the distribution specification asks registries to take of a manifest.
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// Layers that overlayfs puts on each other.
const MAX_LAYERS: usize = 500;

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// More than [`MAX_DOCUMENT`].
    #[error("the {0} has more than {MAX_DOCUMENT} bytes")]
    Large(&'static str),
    /// Not JSON, or not of the shape it should be.
    #[error("the {what} is not what the OCI image specification describes")]
    Shape {
        /// Which document.
        what: &'static str,
        /// Where it is not.
        source: serde_json::Error,
    },
    /// Something is named by what is no digest.
    #[error("the {what} names content in an unknown way")]
    Digest {
        /// Which document.
        what: &'static str,
        /// What it says.
        source: ReferenceError,
    },
    /// Too many.
    #[error("the image has {0} layers; overlayfs takes {MAX_LAYERS}")]
    Layers(usize),
    /// The manifest and the configuration disagree.
    #[error("the image's manifest has {manifest} layers and its configuration {config}")]
    Count {
        /// In the manifest.
        manifest: usize,
        /// In the configuration.
        config: usize,
    },
    /// Something that is no layer of files: encrypted, or none of an image at all.
    #[error("the image has a layer of type \"{0}\", which cannot be unpacked")]
    Layer(String),
    /// Neither a manifest nor an index, or both.
    #[error("it is neither an image manifest nor an image index; push the image again with a current tool")]
    Kind,
    /// For other machines.
    #[error("the image is for {images}, and not for this machine, which is {machine}")]
    Platform {
        /// `os/architecture`, or several.
        images: String,
        /// `os/architecture`
        machine: String,
    },
}

/// What an image says about itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Config {
    /// Of the layers' archives, from the lowest on.
    pub diff_ids: Vec<Digest>,
    /// When it was made, as it says, in RFC 3339.
    pub created: Option<String>,
    /// `NAME=VALUE`
    pub env: Vec<String>,
    /// `USER[:GROUP]`, by name or number; empty for root.
    pub user: String,
    /// The command and its first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments, or the command where there is no entrypoint.
    pub cmd: Vec<String>,
    /// Empty for `/`.
    pub working_dir: String,
    /// What to end it with, in place of SIGTERM.
    pub stop_signal: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Paths that want a volume.
    pub volumes: Vec<String>,
}

/// A configuration as tools write it. The specification requires some of this, but Docker leaves out the list of layers of
/// an image that has none, and other tools write `null`: container engines take both as empty.
#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    os: Os,
    architecture: Arch,
    created: Option<String>,
    rootfs: Option<RawRootFs>,
    config: Option<RawRun>,
}

#[derive(Default, Deserialize)]
struct RawRootFs {
    diff_ids: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawRun {
    env: Option<Vec<String>>,
    user: Option<String>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    volumes: Option<BTreeMap<String, Option<IgnoredAny>>>,
}

impl Config {
    /// Reads the configuration of an image for this machine.
    pub fn parse(content: &[u8]) -> Result<Self, DocumentError> {
        const WHAT: &str = "configuration";
        let raw: RawConfig = parse(WHAT, content)?;
        if (&raw.os, &raw.architecture) != (&Os::Linux, &Arch::default()) {
            let images = format!("{}/{}", raw.os, raw.architecture);
            return Err(DocumentError::Platform { images, machine: machine() });
        }
        let diff_ids = raw.rootfs.unwrap_or_default().diff_ids.unwrap_or_default();
        if diff_ids.len() > MAX_LAYERS {
            return Err(DocumentError::Layers(diff_ids.len()));
        }
        let diff_ids = diff_ids.iter().map(|id| digest(WHAT, id)).collect::<Result<_, _>>()?;
        let run = raw.config.unwrap_or_default();
        Ok(Self {
            diff_ids,
            created: raw.created,
            env: run.env.unwrap_or_default(),
            user: run.user.unwrap_or_default(),
            entrypoint: run.entrypoint.unwrap_or_default(),
            cmd: run.cmd.unwrap_or_default(),
            working_dir: run.working_dir.unwrap_or_default(),
            stop_signal: run.stop_signal.filter(|signal| !signal.is_empty()),
            labels: run.labels.unwrap_or_default(),
            volumes: run.volumes.unwrap_or_default().into_keys().collect(),
        })
    }
}

/// Where an image's parts are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manifest {
    /// Its configuration.
    pub config: Blob,
    /// Its layers as they are transferred, from the lowest on.
    pub layers: Vec<Blob>,
}

impl Manifest {
    /// The layers with what the configuration knows of them.
    pub fn layers(&self, config: &Config) -> Result<Vec<Layer>, DocumentError> {
        if self.layers.len() != config.diff_ids.len() {
            return Err(DocumentError::Count { manifest: self.layers.len(), config: config.diff_ids.len() });
        }
        let both = config.diff_ids.iter().zip(&self.layers);
        Ok(both.map(|(diff_id, blob)| Layer { diff_id: diff_id.clone(), blob: Some(blob.clone()) }).collect())
    }
}

/// What a name or a digest leads to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Document {
    /// One image.
    Image(Manifest),
    /// One image per platform: where the manifest of the one for this machine is.
    Index(Blob),
}

/// Which of both it is; media types are wrong often enough.
#[derive(Deserialize)]
struct Kind {
    config: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
}

impl Document {
    /// Reads a manifest or an index, in OCI's form or Docker's, where an index is called a manifest list.
    pub fn parse(content: &[u8]) -> Result<Self, DocumentError> {
        match parse("manifest", content)? {
            Kind { config: Some(_), manifests: None } => parse_manifest(content).map(Self::Image),
            Kind { config: None, manifests: Some(_) } => {
                blob("index", select(&parse_index(content)?)?).map(Self::Index)
            }
            Kind { .. } => Err(DocumentError::Kind),
        }
    }
}

/// A manifest as tools write it: without layers there may be `null` in their place.
#[derive(Deserialize)]
struct RawManifest {
    config: Descriptor,
    layers: Option<Vec<Descriptor>>,
}

fn parse_manifest(content: &[u8]) -> Result<Manifest, DocumentError> {
    let raw: RawManifest = parse("manifest", content)?;
    let layers = raw.layers.unwrap_or_default();
    if layers.len() > MAX_LAYERS {
        return Err(DocumentError::Layers(layers.len()));
    }
    if let Some(other) = layers.iter().map(Descriptor::media_type).find(|it| !is_layer(it)) {
        return Err(DocumentError::Layer(other.to_string()));
    }
    let layers = layers.iter().map(|it| blob("manifest", it)).collect::<Result<_, _>>()?;
    Ok(Manifest { config: blob("manifest", &raw.config)?, layers })
}

/// How it is compressed is looked up in the layer itself.
fn is_layer(media_type: &MediaType) -> bool {
    let text = media_type.to_string();
    let layers = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    layers.iter().any(|layer| match text.strip_prefix(layer) {
        Some(rest) => matches!(rest, "" | "+gzip" | "+zstd" | ".gzip" | ".zstd"),
        None => false,
    })
}

/// An index as tools write it: without images there may be `null` in their place.
#[derive(Deserialize)]
struct RawIndex {
    manifests: Option<Vec<Descriptor>>,
}

pub(crate) fn parse_index(content: &[u8]) -> Result<Vec<Descriptor>, DocumentError> {
    parse("index", content).map(|index: RawIndex| index.manifests.unwrap_or_default())
}

/// The image for this machine: the first one that names its platform, or one that names none where it is the only one.
pub(crate) fn select(manifests: &[Descriptor]) -> Result<&Descriptor, DocumentError> {
    let fits = |platform: &Platform| {
        // Of the variants only the least is on every machine, and it is called so or not at all.
        let least = match platform.architecture() {
            Arch::Amd64 => "v1",
            Arch::ARM64 => "v8",
            _ => "",
        };
        (platform.os(), platform.architecture()) == (&Os::Linux, &Arch::default())
            && platform.variant().as_ref().is_none_or(|variant| variant.is_empty() || variant == least)
    };
    let found = match manifests {
        [only] if only.platform().is_none() => Some(only),
        all => all.iter().find(|it| it.platform().as_ref().is_some_and(fits)),
    };
    found.ok_or_else(|| {
        let named = manifests.iter().filter_map(|it| it.platform().as_ref());
        let mut images: Vec<_> = named.map(|it| format!("{}/{}", it.os(), it.architecture())).collect();
        images.dedup();
        // More than anybody publishes.
        images.truncate(32);
        let images = if images.is_empty() { "no platform".to_owned() } else { images.join(", ") };
        DocumentError::Platform { images, machine: machine() }
    })
}

/// `os/architecture` in the words of images.
pub fn machine() -> String {
    format!("{}/{}", Os::Linux, Arch::default())
}

pub(crate) fn blob(what: &'static str, descriptor: &Descriptor) -> Result<Blob, DocumentError> {
    Ok(Blob { digest: digest(what, descriptor.digest().as_ref())?, size: descriptor.size() })
}

fn digest(what: &'static str, text: &str) -> Result<Digest, DocumentError> {
    text.parse().map_err(|source| DocumentError::Digest { what, source })
}

pub(crate) fn parse<T: DeserializeOwned>(what: &'static str, content: &[u8]) -> Result<T, DocumentError> {
    if content.len() as u64 > MAX_DOCUMENT {
        return Err(DocumentError::Large(what));
    }
    serde_json::from_slice(content).map_err(|source| DocumentError::Shape { what, source })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn id(of: &str) -> String {
        Digest::of(of.as_bytes()).to_string()
    }

    fn descriptor(media_type: &str, of: &str) -> Value {
        json!({ "mediaType": media_type, "digest": id(of), "size": 7 })
    }

    /// The layers by manifest and configuration, each with what a tool may have written in their place.
    fn layers(in_manifest: &Value, rootfs: &Value) -> Result<usize, String> {
        let config =
            json!({ "architecture": Arch::default(), "os": "linux", "rootfs": rootfs, "config": null });
        let manifest = json!({ "schemaVersion": 2, "layers": in_manifest,
            "config": descriptor("application/vnd.oci.image.config.v1+json", "config") });
        let read = || {
            let config = Config::parse(config.to_string().as_bytes())?;
            match Document::parse(manifest.to_string().as_bytes())? {
                Document::Image(manifest) => manifest.layers(&config),
                Document::Index(_) => Err(DocumentError::Kind),
            }
        };
        read().map(|layers| layers.len()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_image_without_layers_may_leave_them_out() {
        let none = [json!(null), json!([])];
        let rootfs = [
            json!(null),
            json!({}),
            json!({ "type": "layers" }),
            json!({ "type": "layers", "diff_ids": null }),
            json!({ "type": "layers", "diff_ids": [] }),
        ];
        let one = json!([descriptor(LAYER, "layer")]);
        for rootfs in &rootfs {
            for none in &none {
                assert_eq!(layers(none, rootfs), Ok(0), "{none} {rootfs}");
            }
            let expected = "the image's manifest has 1 layers and its configuration 0";
            assert_eq!(layers(&one, rootfs), Err(expected.to_owned()), "{rootfs}");
        }
        let counted = json!({ "diff_ids": [id("diff")] });
        assert_eq!(layers(&one, &counted), Ok(1));
        let expected = "the image's manifest has 0 layers and its configuration 1";
        assert_eq!(layers(&none[0], &counted), Err(expected.to_owned()));
    }

    #[test]
    fn what_is_null_in_a_configuration_is_empty() {
        let run = ["Env", "User", "Entrypoint", "Cmd", "WorkingDir", "StopSignal", "Labels", "ExposedPorts"];
        let mut run: Value = run.iter().map(|field| ((*field).to_owned(), Value::Null)).collect();
        run["Volumes"] = json!({ "/b": null, "/a": {} });
        let config =
            json!({ "architecture": Arch::default(), "config": run, "history": null, "created": null });
        let parsed = Config::parse(config.to_string().as_bytes()).expect("a configuration");
        assert_eq!(parsed, Config { volumes: vec!["/a".into(), "/b".into()], ..Config::default() });
    }

    #[test]
    fn what_an_image_is_for_cannot_be_left_out() {
        let refused = |config: Value| Config::parse(config.to_string().as_bytes()).expect_err("refused");
        assert!(matches!(refused(json!({ "os": "linux" })), DocumentError::Shape { .. }));
        let windows = json!({ "os": "windows", "architecture": Arch::default() });
        assert!(matches!(refused(windows), DocumentError::Platform { .. }));
        let index = json!({ "schemaVersion": 2, "manifests": null });
        assert!(matches!(Document::parse(index.to_string().as_bytes()), Err(DocumentError::Kind)));
    }
}
