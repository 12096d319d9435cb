//! How far a pull is. Pure but for telling it.

use std::sync::Arc;

use tokio::sync::watch;

/// How far it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// Compressed bytes that are here.
    pub done: u64,
    /// Compressed bytes of the layers that were not here; 0 as long as that is not known.
    pub total: u64,
}

/// Counts for those who watch.
#[derive(Clone, Debug)]
pub(crate) struct Counter(Arc<watch::Sender<Progress>>);

impl Counter {
    pub(crate) fn new(sender: watch::Sender<Progress>) -> Self {
        Self(Arc::new(sender))
    }

    /// From here on so many bytes are to come.
    pub(crate) fn begin(&self, total: u64) {
        self.0.send_replace(Progress { done: 0, total });
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.0.send_modify(|progress| progress.done += bytes);
    }
}
