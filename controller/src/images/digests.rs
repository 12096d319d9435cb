//! What is known of digests: content that never changes, so that one look-up serves every later one (contract 5.4).

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use ropewalk_core::images::Commands;
use ropewalk_core::images::reference::Digest;

/// Some hundred bytes each, and 32 kB at worst.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// The commands of the images and indexes used last.
pub(super) struct Digests(Mutex<LruCache<Digest, Arc<Commands>>>);

impl Default for Digests {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(CAPACITY)))
    }
}

impl Digests {
    pub(super) fn get(&self, digest: &Digest) -> Option<Arc<Commands>> {
        self.lock().get(digest).cloned()
    }

    pub(super) fn put(&self, digest: &Digest, commands: &Arc<Commands>) {
        self.lock().put(digest.clone(), Arc::clone(commands));
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Digest, Arc<Commands>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
