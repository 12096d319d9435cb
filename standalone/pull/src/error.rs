//! Why an image is not here.

use std::io;

use ropewalk_images::{DocumentError, StoreError};
use ropewalk_registry::{Error as RegistryError, StatusCode};

/// An image that was not pulled. With its causes it names the registry, the repository and what was asked for, and no secret.
#[derive(Debug, thiserror::Error)]
#[error("image \"{image}\" cannot be pulled{}", tried(mirrors))]
pub struct PullError {
    pub(crate) image: String,
    #[source]
    pub(crate) cause: Cause,
    /// What was wrong with the mirrors that were asked before.
    pub(crate) mirrors: Vec<String>,
}

fn tried(mirrors: &[String]) -> String {
    if mirrors.is_empty() {
        String::new()
    } else {
        format!(" (from a mirror neither: {})", mirrors.join("; "))
    }
}

/// Who could help.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The registry has no such image.
    NotFound,
    /// The registry does not let these credentials have it.
    Denied,
    /// The registry does not answer, or not now.
    Unreachable,
    /// What the registry has is not what it should be, or is for other machines.
    Invalid,
    /// This machine: its disk, or what is configured about registries.
    Local,
}

impl PullError {
    /// Who could help.
    pub fn kind(&self) -> Kind {
        match &self.cause {
            Cause::Registry(RegistryError::Missing { .. }) => Kind::NotFound,
            Cause::Registry(RegistryError::Denied { .. }) => Kind::Denied,
            Cause::Registry(RegistryError::Status { status, .. })
                if matches!(*status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) =>
            {
                Kind::Denied
            }
            Cause::Registry(RegistryError::Hosts { .. }) => Kind::Local,
            Cause::Registry(RegistryError::Http { .. } | RegistryError::Status { .. }) => Kind::Unreachable,
            Cause::Registry(error) if error.is_transient() => Kind::Unreachable,
            Cause::Store(StoreError::File { .. } | StoreError::Gone(_)) | Cause::Write(_) | Cause::Broken => {
                Kind::Local
            }
            _ => Kind::Invalid,
        }
    }
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot keep a layer while it comes")]
    Write(#[source] io::Error),
    #[error("it is in the old form of Docker's (schema 1); push it again with a current tool")]
    Schema1,
    #[error("its index leads to another index")]
    Nested,
    #[error("it has a layer of type \"{0}\", which no registry may give away")]
    Foreign(String),
    #[error("its layers amount to more than {} GiB", crate::MAX_IMAGE >> 30)]
    TooLarge,
    #[error("the pull broke off: a defect")]
    Broken,
}
