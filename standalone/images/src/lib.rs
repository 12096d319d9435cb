//! Container images as a node keeps them: layers unpacked for overlayfs. IO: files only.
//!
//! A layer is somebody's archive. Nothing in it reaches a place outside its own directory, and what it may take of memory, disk
//! and time has a limit.

mod below;
mod compression;
mod entries;
mod sparse;
mod unpack;

pub use compression::decompress;
pub use entries::ArchiveError;
pub use unpack::{Limits, UnpackError, Unpacked, unpack};
