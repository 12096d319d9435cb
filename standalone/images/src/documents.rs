//! Manifests, indexes and configurations of images. Pure.

use std::collections::BTreeMap;

use oci_spec::image::{
    Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, Os, Platform,
};
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

impl Config {
    /// Reads the configuration of an image for this machine.
    pub fn parse(content: &[u8]) -> Result<Self, DocumentError> {
        const WHAT: &str = "configuration";
        let raw: ImageConfiguration = parse(WHAT, content)?;
        if (raw.os(), raw.architecture()) != (&Os::Linux, &Arch::default()) {
            let images = format!("{}/{}", raw.os(), raw.architecture());
            return Err(DocumentError::Platform { images, machine: machine() });
        }
        let diff_ids = raw.rootfs().diff_ids();
        if diff_ids.len() > MAX_LAYERS {
            return Err(DocumentError::Layers(diff_ids.len()));
        }
        let diff_ids = diff_ids.iter().map(|id| digest(WHAT, id)).collect::<Result<_, _>>()?;
        let run = raw.config().clone().unwrap_or_default();
        let mut volumes = run.volumes().clone().unwrap_or_default();
        volumes.sort_unstable();
        Ok(Self {
            diff_ids,
            created: raw.created().clone(),
            env: run.env().clone().unwrap_or_default(),
            user: run.user().clone().unwrap_or_default(),
            entrypoint: run.entrypoint().clone().unwrap_or_default(),
            cmd: run.cmd().clone().unwrap_or_default(),
            working_dir: run.working_dir().clone().unwrap_or_default(),
            stop_signal: run.stop_signal().clone().filter(|signal| !signal.is_empty()),
            labels: run.labels().clone().unwrap_or_default().into_iter().collect(),
            volumes,
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

fn parse_manifest(content: &[u8]) -> Result<Manifest, DocumentError> {
    let raw: ImageManifest = parse("manifest", content)?;
    if raw.layers().len() > MAX_LAYERS {
        return Err(DocumentError::Layers(raw.layers().len()));
    }
    if let Some(other) = raw.layers().iter().map(Descriptor::media_type).find(|it| !is_layer(it)) {
        return Err(DocumentError::Layer(other.to_string()));
    }
    let layers = raw.layers().iter().map(|it| blob("manifest", it)).collect::<Result<_, _>>()?;
    Ok(Manifest { config: blob("manifest", raw.config())?, layers })
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

pub(crate) fn parse_index(content: &[u8]) -> Result<Vec<Descriptor>, DocumentError> {
    parse("index", content).map(|index: ImageIndex| index.manifests().clone())
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
