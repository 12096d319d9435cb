//! What `ropewalk up` keeps through restarts: every API object, in one file, written before anybody is told.
//!
//! The API server's state is in memory and answers alone. Its changes go through a queue to one thread that writes all
//! that wait as one transaction, so that many writers share the cost of a disk's synchronisation. An answer, whether of
//! a write or of a read that saw it, leaves only when all it tells is on disk, and so do watch events: what anybody has
//! seen, no crash takes back. For the same reason what could not be written is taken back in memory, and whoever waited
//! for it is told that it failed.
//!
//! [`file`] is the file, [`room`] decides how full it may get; the queue before it is in [`crate::server`].

mod file;
mod room;
#[cfg(test)]
pub(crate) mod testing;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ropewalk_apiserver::{Delta, DeltaKind, ResourceTable};

pub use file::File;
pub use file::Kept;
pub(crate) use file::{Changes, Key};
pub(crate) use room::room;

/// Why objects cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be made or opened.
    #[error("cannot open \"{path}\", which holds the API's objects")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not one of ours, or was changed by something else.
    #[error(
        "\"{path}\", which holds the API's objects, is damaged ({why}); put a copy of it back in place, or move it away \
         to start without objects"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file was written by a later version of the program.
    #[error(
        "\"{path}\" was written by a newer ropewalk (its schema is {found}, this program knows up to {known}); use that \
         one, or another directory with --data-dir"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
        /// The newest schema known.
        known: u64,
    },
    /// The disk is full, or broken.
    #[error("cannot write to \"{path}\": {why}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The server is being stopped.
    #[error("the server is stopping")]
    Closed,
}

/// What these changes come to: of several changes of an object the last one counts.
pub(crate) fn changes<'a>(
    table: &ResourceTable,
    deltas: impl IntoIterator<Item = &'a Arc<Delta>>,
) -> Changes {
    let of = |delta: &Arc<Delta>| {
        let value = (delta.kind != DeltaKind::Deleted).then(|| Arc::clone(&delta.object));
        (Key::new(table, delta.resource, &delta.key), value)
    };
    deltas.into_iter().map(of).collect()
}
