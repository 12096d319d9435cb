//! Manifests, indexes and configurations of images: the few fields that say what an image runs. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer};

use super::Command;
use super::reference::{Digest, ReferenceError};

/// What a manifest may be, as an `Accept` header.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// Platforms of one image: official images have up to twenty. Each costs two requests.
pub const MAX_PLATFORMS: usize = 32;

/// Why content from a registry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not of the shape it should be.
    #[error("it is not what the OCI image specification describes")]
    Shape(#[source] serde_json::Error),
    /// Neither kind, or both.
    #[error("it is neither an image manifest nor an image index; push the image again with a current tool")]
    Kind,
    /// A descriptor without a usable digest.
    #[error("it names its content in an unknown way")]
    Digest(#[source] ReferenceError),
    /// More than [`MAX_PLATFORMS`].
    #[error("it has more than {MAX_PLATFORMS} platforms")]
    Platforms,
    /// A configuration that does not say what it is for.
    #[error("it names no platform")]
    NoPlatform,
}

/// The content of a manifest.
#[derive(Debug, PartialEq)]
pub enum Manifest {
    /// One image: the digest of its configuration.
    Image(Digest),
    /// One image per platform.
    Index(Vec<Platform>),
}

/// An image for one platform.
#[derive(Debug, PartialEq)]
pub struct Platform {
    /// `os/arch` or `os/arch/variant`.
    pub name: String,
    /// The digest of its manifest.
    pub manifest: Digest,
}

#[derive(Deserialize)]
struct RawManifest {
    config: Option<RawDescriptor>,
    manifests: Option<Vec<RawDescriptor>>,
}

#[derive(Deserialize)]
struct RawDescriptor {
    digest: String,
    platform: Option<RawPlatform>,
}

/// `null` is empty, as container engines read it.
#[derive(Deserialize)]
struct RawPlatform {
    #[serde(default, deserialize_with = "or_empty")]
    os: String,
    #[serde(default, deserialize_with = "or_empty")]
    architecture: String,
    #[serde(default, deserialize_with = "or_empty")]
    variant: String,
}

fn or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl RawPlatform {
    /// `unknown/unknown` is what build tools give to attestations.
    fn is_known(&self) -> bool {
        let is_known = |text: &str| !text.is_empty() && text != "unknown";
        is_known(&self.os) && is_known(&self.architecture)
    }

    fn name(&self) -> String {
        let plain = format!("{}/{}", self.os, self.architecture);
        if self.variant.is_empty() { plain } else { format!("{plain}/{}", self.variant) }
    }
}

impl Manifest {
    /// Reads a manifest of either kind. Of several images for one platform the first is the one nodes take.
    pub fn parse(content: &[u8]) -> Result<Self, ManifestError> {
        let raw: RawManifest = serde_json::from_slice(content).map_err(ManifestError::Shape)?;
        let digest = |text: &str| text.parse().map_err(ManifestError::Digest);
        match (raw.config, raw.manifests) {
            (Some(config), None) => Ok(Self::Image(digest(&config.digest)?)),
            (None, Some(children)) => {
                let mut seen = BTreeSet::new();
                let mut platforms = Vec::new();
                for child in &children {
                    let Some(platform) = child.platform.as_ref().filter(|it| it.is_known()) else { continue };
                    if !seen.insert(platform.name()) {
                        continue;
                    }
                    if platforms.len() == MAX_PLATFORMS {
                        return Err(ManifestError::Platforms);
                    }
                    platforms.push(Platform { name: platform.name(), manifest: digest(&child.digest)? });
                }
                Ok(Self::Index(platforms))
            }
            _ => Err(ManifestError::Kind),
        }
    }
}

/// The configuration of an image.
#[derive(Debug, PartialEq)]
pub struct ImageConfig {
    /// `os/arch`
    pub platform: String,
    /// What it runs.
    pub command: Command,
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(flatten)]
    platform: RawPlatform,
    config: Option<RawRun>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawRun {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
}

impl ImageConfig {
    /// Reads a configuration.
    pub fn parse(content: &[u8]) -> Result<Self, ManifestError> {
        let raw: RawConfig = serde_json::from_slice(content).map_err(ManifestError::Shape)?;
        if raw.platform.os.is_empty() || raw.platform.architecture.is_empty() {
            return Err(ManifestError::NoPlatform);
        }
        let run = raw.config.unwrap_or_default();
        Ok(Self {
            platform: format!("{}/{}", raw.platform.os, raw.platform.architecture),
            command: Command {
                entrypoint: run.entrypoint.unwrap_or_default(),
                cmd: run.cmd.unwrap_or_default(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn digest(content: &str) -> Digest {
        Digest::of(content.as_bytes())
    }

    fn parse(manifest: &Value) -> Result<Manifest, String> {
        Manifest::parse(manifest.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    fn child(os: &str, architecture: &str, variant: &str, content: &str) -> Value {
        let mut platform = json!({ "os": os, "architecture": architecture });
        if !variant.is_empty() {
            platform["variant"] = variant.into();
        }
        json!({ "digest": digest(content).to_string(), "platform": platform })
    }

    #[test]
    fn an_index_is_its_known_platforms() {
        let index = json!({ "schemaVersion": 2, "manifests": [
            child("linux", "amd64", "", "a"),
            child("linux", "arm64", "v8", "b"),
            child("unknown", "unknown", "", "c"),
            { "digest": digest("d").to_string() },
            child("windows", "amd64", "", "e"),
            child("windows", "amd64", "", "f"),
        ]});
        let platform = |name: &str, content| Platform { name: name.to_owned(), manifest: digest(content) };
        let expected =
            [platform("linux/amd64", "a"), platform("linux/arm64/v8", "b"), platform("windows/amd64", "e")];
        assert_eq!(parse(&index), Ok(Manifest::Index(expected.into())));
    }

    #[test]
    fn one_image_is_its_configuration() {
        let manifest =
            json!({ "schemaVersion": 2, "config": { "digest": digest("c").to_string() }, "layers": [] });
        assert_eq!(parse(&manifest), Ok(Manifest::Image(digest("c"))));
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        for manifest in [
            json!({ "schemaVersion": 1, "fsLayers": [], "history": [] }),
            json!({ "config": { "digest": digest("c").to_string() }, "manifests": [] }),
        ] {
            assert_eq!(parse(&manifest), Err(ManifestError::Kind.to_string()));
        }
        assert!(matches!(Manifest::parse(b"<html>"), Err(ManifestError::Shape(_))));
        let odd = json!({ "config": { "digest": "sha512:00" } }).to_string();
        assert!(matches!(Manifest::parse(odd.as_bytes()), Err(ManifestError::Digest(_))));
        let children: Vec<Value> =
            (0..=MAX_PLATFORMS).map(|i| child("linux", &format!("a{i}"), "", "x")).collect();
        let wide = json!({ "manifests": children }).to_string();
        assert!(matches!(Manifest::parse(wide.as_bytes()), Err(ManifestError::Platforms)));
    }

    #[test]
    fn a_configuration_is_its_platform_without_variant_and_its_command() {
        for variant in [json!("v8"), json!(null)] {
            let config = json!({ "os": "linux", "architecture": "arm64", "variant": variant,
                "config": { "Entrypoint": ["/e"], "Cmd": null, "Env": [] } });
            let parsed = ImageConfig::parse(config.to_string().as_bytes()).expect("a configuration");
            let command = Command { entrypoint: vec!["/e".into()], cmd: Vec::new() };
            assert_eq!(parsed, ImageConfig { platform: "linux/arm64".into(), command });
        }
        assert!(matches!(ImageConfig::parse(b"{}"), Err(ManifestError::NoPlatform)));
    }
}
