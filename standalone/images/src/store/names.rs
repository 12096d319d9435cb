//! Which references are for which image.

use std::collections::BTreeMap;
use std::path::Path;

use ropewalk_core::images::reference::{Digest, Reference};
use serde::{Deserialize, Serialize};

use super::error::{StoreError, failed};

const FILE: &str = "names.json";

/// Bytes of the file: a hundred thousand names and more.
const MAX_BYTES: u64 = 64 << 20;

/// How an image came by a name.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// From the registry that the name says.
    Pulled,
    /// From a file, by hand.
    Loaded,
}

/// References with everything filled in, and what they are for.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<String, Named>);

/// What has a name.
#[derive(Debug, Deserialize, Serialize)]
struct Named {
    id: String,
    origin: Origin,
}

impl Names {
    pub(super) fn read(directory: &Path) -> Result<Self, StoreError> {
        let Some(content) = super::read(&directory.join(FILE), MAX_BYTES)? else {
            return Ok(Self::default());
        };
        let names = serde_json::from_slice(&content);
        names.map(Self).map_err(|error| failed("read", &directory.join(FILE))(error.into()))
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), StoreError> {
        let content = serde_json::to_vec_pretty(&self.0);
        let content = content.map_err(|error| failed("write", &directory.join(FILE))(error.into()))?;
        super::write(directory, FILE, &content)
    }

    /// The full name and the image's id. An id is its own name; whether there is such an image it does not tell.
    pub(super) fn find(&self, reference: &str) -> Result<Option<(String, Digest)>, StoreError> {
        if let Ok(id) = reference.parse::<Digest>() {
            return Ok(Some((id.to_string(), id)));
        }
        let name = reference.parse::<Reference>()?.full_name();
        let id = self.0.get(&name).and_then(|named| named.id.parse().ok());
        Ok(id.map(|id| (name, id)))
    }

    pub(super) fn of(&self, id: &Digest) -> impl Iterator<Item = &str> {
        let id = id.to_string();
        self.0.iter().filter(move |(_, named)| named.id == id).map(|(name, _)| name.as_str())
    }

    /// The name by digest in the same repository, where there is one.
    pub(super) fn pinned(&self, name: &str, id: &Digest) -> String {
        if name.contains('@') {
            return name.to_owned();
        }
        let digests = self.of(id).filter(|other| other.contains('@'));
        let mut digests = digests.filter(|other| repository(other) == repository(name));
        digests.next().map_or_else(|| id.to_string(), str::to_owned)
    }

    /// Gives an image a name; who had it before has it no longer.
    pub(super) fn add(&mut self, reference: &Reference, id: &Digest, origin: Origin) {
        self.0.insert(reference.full_name(), Named { id: id.to_string(), origin });
    }

    /// How a full name came here. Only this machine knows images by their ids.
    pub(super) fn origin(&self, name: &str) -> Origin {
        self.0.get(name).map_or(Origin::Loaded, |named| named.origin)
    }

    /// Whether an image came by one of its names by hand.
    pub(super) fn has_loaded(&self, id: &Digest) -> bool {
        self.of(id).any(|name| self.origin(name) == Origin::Loaded)
    }

    /// Takes one name away, and the digests of its repository with the last tag there; by an id, all.
    pub(super) fn remove(&mut self, name: &str, id: &Digest) {
        if name == id.to_string() {
            self.forget(id);
            return;
        }
        self.0.remove(name);
        let of_repository: Vec<_> =
            self.of(id).filter(|other| repository(other) == repository(name)).map(str::to_owned).collect();
        if of_repository.iter().all(|other| other.contains('@')) && !name.contains('@') {
            for other in of_repository {
                self.0.remove(&other);
            }
        }
    }

    /// Takes all names of an image away.
    pub(super) fn forget(&mut self, id: &Digest) {
        let id = id.to_string();
        self.0.retain(|_, named| named.id != id);
    }
}

/// A full name without its tag or digest.
fn repository(name: &str) -> &str {
    let end = name.find('@').or_else(|| name.rfind(':')).unwrap_or(name.len());
    &name[..end]
}
