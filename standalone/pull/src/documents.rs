//! From a reference to what an image for this machine consists of.

use ropewalk_core::images::reference::{Digest, Reference, Version};
use ropewalk_images::{Document, Manifest};
use ropewalk_registry::{Patience, Session};
use serde::Deserialize;

use crate::error::Cause;

/// What is needed before the first layer.
pub(crate) struct Documents {
    /// The reference, and the digests by which the same can be had.
    pub(crate) names: Vec<Reference>,
    pub(crate) manifest: Manifest,
    /// As it came: its digest is the image's id.
    pub(crate) config: Vec<u8>,
}

/// Asks for a manifest, for the one that an index names if it is one, and for its configuration.
pub(crate) async fn documents(
    session: &Session<'_>,
    patience: &mut Patience,
    reference: &Reference,
) -> Result<Documents, Cause> {
    let content = session.fetch_manifest(&reference.version, patience).await?;
    let mut names = vec![reference.clone()];
    let digest = Digest::of(&content);
    names.push(by_digest(reference, &digest));
    let manifest = match parse(&content)? {
        Document::Image(manifest) => manifest,
        Document::Index(blob) => {
            names.push(by_digest(reference, &blob.digest));
            let content = session.fetch_manifest(&Version::Digest(blob.digest), patience).await?;
            match parse(&content)? {
                Document::Image(manifest) => manifest,
                Document::Index(_) => return Err(Cause::Nested),
            }
        }
    };
    let config = session.fetch_blob(&manifest.config.digest, patience).await?;
    Ok(Documents { names, manifest, config })
}

pub(crate) fn by_digest(reference: &Reference, digest: &Digest) -> Reference {
    Reference { version: Version::Digest(digest.clone()), ..reference.clone() }
}

/// What is told apart before anything else is expected of a manifest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Form {
    #[serde(default)]
    schema_version: u64,
    #[serde(default)]
    layers: Vec<FormOfLayer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FormOfLayer {
    #[serde(default)]
    media_type: String,
}

fn parse(content: &[u8]) -> Result<Document, Cause> {
    // What is not even of this shape is told by who knows all of it.
    if let Ok(form) = serde_json::from_slice::<Form>(content) {
        if form.schema_version == 1 {
            return Err(Cause::Schema1);
        }
        let is_foreign = |layer: &FormOfLayer| {
            layer.media_type.contains(".foreign.") || layer.media_type.contains(".nondistributable.")
        };
        if let Some(layer) = form.layers.into_iter().find(is_foreign) {
            return Err(Cause::Foreign(layer.media_type));
        }
    }
    Ok(Document::parse(content)?)
}
