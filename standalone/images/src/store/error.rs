//! What may go wrong in a store.

use std::io;
use std::path::{Path, PathBuf};

use ropewalk_core::images::reference::ReferenceError;

use crate::documents::DocumentError;
use crate::unpack::UnpackError;

/// Why the store cannot do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file of the store.
    #[error("cannot {what} \"{}\"", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What should name an image.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A document of an image.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A layer is not what a document says it is.
    #[error(
        "a layer has digest {found} and {bytes} bytes in place of {digest} and {size}; transfer it again"
    )]
    Blob {
        /// What it should have.
        digest: String,
        /// What it should have.
        size: u64,
        /// What it has.
        found: String,
        /// What it has, as far as it was read.
        bytes: u64,
    },
    /// The archive in a layer is not what the configuration says it is.
    #[error("layer {diff_id} has an archive with digest {found}; the image was made wrong")]
    DiffId {
        /// What it should have.
        diff_id: String,
        /// What it has.
        found: String,
    },
    /// A layer that cannot be unpacked.
    #[error("layer {diff_id} cannot be unpacked")]
    Unpack {
        /// Of its archive.
        diff_id: String,
        /// Why not.
        source: UnpackError,
    },
    /// An image was to be added of which a layer is not here.
    #[error("layer {0} of the image is not here")]
    MissingLayer(String),
    /// It was removed in the meantime.
    #[error("image \"{0}\" was removed just now; try again")]
    Gone(String),
    /// No such image.
    #[error("there is no image \"{0}\"; \"ropewalk image ls\" lists all")]
    Unknown(String),
    /// Something runs with it.
    #[error("image \"{reference}\" is in use by \"{}\"", user.display())]
    InUse {
        /// The image.
        reference: String,
        /// One of those that use it.
        user: PathBuf,
    },
}

/// Names the operation and the file of an error.
pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::File { what, path: path.to_owned(), source }
}
