//! Container images as a node keeps them: layers unpacked for overlayfs, and a store of them. IO: files only.
//!
//! An image is somebody's. Nothing in it reaches a place outside its own directory, and what it may take of memory, disk and
//! time has a limit.

mod below;
mod compression;
mod copy;
mod documents;
mod entries;
mod hashing;
mod load;
mod sparse;
mod store;
mod unpack;
mod user_namespace;

pub use compression::decompress;
pub use documents::{Config, Document, DocumentError, MAX_DOCUMENT, Manifest, machine};
pub use entries::ArchiveError;
pub use load::{LoadError, load};
pub use ropewalk_core::images::reference::{Digest, Reference, ReferenceError, Version};
pub use store::{Blob, Image, Incoming, Layer, Listed, Origin, Removed, SHORT_ID, Store, StoreError};
pub use unpack::{Limits, UnpackError, Unpacked, unpack};
pub use user_namespace::{is_in_user_namespace, opaque_attribute};
