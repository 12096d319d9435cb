//! Images from files: OCI layouts, as directories or archives, and archives of `docker save`.

mod source;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::image::Descriptor;
use ropewalk_core::images::reference::{Digest, Reference, ReferenceError, Version};
use serde::Deserialize;

use crate::documents::{self, Config, Document, DocumentError, parse_index, select};
use crate::entries::ArchiveError;
use crate::store::{Blob, Image, Layer, Origin, Store, StoreError};
use source::Source;

/// Where layouts begin.
const INDEX: &str = "index.json";
/// Where archives of `docker save` begin.
const DOCKER: &str = "manifest.json";

/// How deep indexes name indexes: a layout's own, one per name, one per platform, and one to spare.
const MAX_DEPTH: usize = 4;

/// Why images cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file or directory itself.
    #[error("cannot {what} \"{}\"", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Not an archive.
    #[error("\"{}\" cannot be read as an archive", path.display())]
    Archive {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: ArchiveError,
    },
    /// More files than images have.
    #[error("\"{}\" has more than {limit} files", path.display())]
    Files {
        /// Where.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// Nothing of an image.
    #[error("\"{}\" is neither an OCI image layout nor an archive of \"docker save\"", .0.display())]
    Format(PathBuf),
    /// A file that there should be, within.
    #[error("it has no file \"{0}\"")]
    Missing(String),
    /// A path that leads out, or to what is no file.
    #[error("its path \"{0}\" does not lead to a file within it")]
    Path(String),
    /// A document.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A document that is not what its name says.
    #[error("its file \"{name}\" has digest {found}; transfer it again")]
    Digest {
        /// Which file.
        name: String,
        /// What it has.
        found: String,
    },
    /// Indexes upon indexes.
    #[error("its image is deeper than {MAX_DEPTH} indexes in each other")]
    Deep,
    /// A name that is none.
    #[error("it calls an image \"{name}\"")]
    Reference {
        /// What it says.
        name: String,
        /// Why that is no name.
        source: ReferenceError,
    },
    /// No name, or only a tag.
    #[error("it does not say what its image is called; say so with --name")]
    NoName,
    /// One name for many.
    #[error(
        "one name was given, and it has {0} images; copy out the one that is meant, as with \"skopeo copy\""
    )]
    Several(usize),
    /// No image.
    #[error("it has no image")]
    Empty,
    /// The image cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An image, to be read from a source.
struct Found {
    names: Vec<Reference>,
    config: Vec<u8>,
    /// With the files they are in.
    layers: Vec<(Layer, String)>,
}

/// Adds all images for this machine in a file or directory, under the names they have there, or the only one under the name
/// given. What fails leaves those before it.
pub fn load(store: &Store, path: &Path, name: Option<&Reference>) -> Result<Vec<Image>, LoadError> {
    let source = Source::open(path, store)?;
    let found = if source.has(INDEX)? {
        from_layout(&source, name)?
    } else if source.has(DOCKER)? {
        from_docker(&source, name)?
    } else {
        return Err(LoadError::Format(path.to_owned()));
    };
    if found.is_empty() {
        return Err(LoadError::Empty);
    }
    found.into_iter().map(|image| add(store, &source, &image)).collect()
}

fn add(store: &Store, source: &Source, image: &Found) -> Result<Image, LoadError> {
    let incoming = store.begin()?;
    let mut below = Vec::new();
    for (layer, file) in &image.layers {
        if !incoming.has_layer(&below, &layer.diff_id)? {
            incoming.add_layer(&below, layer, source.reader(file)?)?;
        }
        below.push(layer.diff_id.clone());
    }
    Ok(incoming.finish(&image.names, &image.config, Origin::Loaded)?)
}

fn from_layout(source: &Source, name: Option<&Reference>) -> Result<Vec<Found>, LoadError> {
    let mut by_name = BTreeMap::<Option<Called>, Vec<Descriptor>>::new();
    for descriptor in parse_index(&source.document("index", INDEX)?)? {
        by_name.entry(own_name(&descriptor)).or_default().push(descriptor);
    }
    if name.is_some() && by_name.len() > 1 {
        return Err(LoadError::Several(by_name.len()));
    }
    let images = by_name.into_iter().map(|(own, descriptors)| {
        let name = match (name, own) {
            (Some(name), _) => name.clone(),
            (None, Some(Called::Whole(own))) => reference(&own)?,
            (None, Some(Called::Tag(_)) | None) => return Err(LoadError::NoName),
        };
        from_descriptors(source, &name, &descriptors)
    });
    images.collect()
}

/// What a layout calls an image. Images of one name are for several platforms.
#[derive(Eq, Ord, PartialEq, PartialOrd)]
enum Called {
    /// As containerd and skopeo write it.
    Whole(String),
    /// A mere tag, as others write.
    Tag(String),
}

fn own_name(descriptor: &Descriptor) -> Option<Called> {
    let annotations = descriptor.annotations().as_ref()?;
    let whole = annotations.get("io.containerd.image.name").cloned().map(Called::Whole);
    whole.or_else(|| {
        let name = annotations.get("org.opencontainers.image.ref.name")?.clone();
        Some(if name.contains(['/', ':']) { Called::Whole(name) } else { Called::Tag(name) })
    })
}

fn from_descriptors(source: &Source, name: &Reference, all: &[Descriptor]) -> Result<Found, LoadError> {
    let mut blob = documents::blob("index", select(all)?)?;
    let mut names = vec![name.clone()];
    for _ in 0..MAX_DEPTH {
        names.push(Reference { version: Version::Digest(blob.digest.clone()), ..name.clone() });
        match Document::parse(&verified(source, &blob)?)? {
            Document::Index(next) => blob = next,
            Document::Image(manifest) => {
                let config = verified(source, &manifest.config)?;
                let layers = manifest.layers(&Config::parse(&config)?)?;
                let layers = layers.into_iter().zip(&manifest.layers);
                let layers = layers.map(|(layer, blob)| (layer, file_of(&blob.digest))).collect();
                return Ok(Found { names, config, layers });
            }
        }
    }
    Err(LoadError::Deep)
}

/// A document of a layout, which is what its digest says.
fn verified(source: &Source, blob: &Blob) -> Result<Vec<u8>, LoadError> {
    let name = file_of(&blob.digest);
    let content = source.document("manifest", &name)?;
    let found = Digest::of(&content);
    if found == blob.digest { Ok(content) } else { Err(LoadError::Digest { name, found: found.to_string() }) }
}

fn file_of(digest: &Digest) -> String {
    format!("blobs/{}", digest.to_string().replace(':', "/"))
}

/// One image in what `docker save` writes.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

fn from_docker(source: &Source, name: Option<&Reference>) -> Result<Vec<Found>, LoadError> {
    let saved: Vec<Saved> = documents::parse("manifest", &source.document("manifest", DOCKER)?)?;
    if name.is_some() && saved.len() > 1 {
        return Err(LoadError::Several(saved.len()));
    }
    let images = saved.into_iter().map(|saved| {
        let names = match (name, saved.repo_tags.unwrap_or_default()) {
            (Some(name), _) => vec![name.clone()],
            (None, tags) => tags.iter().map(|tag| reference(tag)).collect::<Result<Vec<_>, _>>()?,
        };
        if names.is_empty() {
            return Err(LoadError::NoName);
        }
        let config = source.document("configuration", &saved.config)?;
        let found = Digest::of(&config);
        // It is called by its digest.
        let stem = saved.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        if format!("sha256:{stem}").parse::<Digest>().is_ok_and(|digest| digest != found) {
            return Err(LoadError::Digest { name: saved.config, found: found.to_string() });
        }
        let diff_ids = Config::parse(&config)?.diff_ids;
        let (manifest, count) = (saved.layers.len(), diff_ids.len());
        if manifest != count {
            return Err(DocumentError::Count { manifest, config: count }.into());
        }
        let layers = diff_ids.into_iter().map(|diff_id| Layer { diff_id, blob: None });
        Ok(Found { names, config, layers: layers.zip(saved.layers).collect() })
    });
    images.collect()
}

fn reference(name: &str) -> Result<Reference, LoadError> {
    name.parse().map_err(|source| LoadError::Reference { name: name.to_owned(), source })
}
