//! What is known of digests: content that never changes, so that one look-up serves every later one (contract 5.4), for
//! whoever asks the same registry with the same credentials. What these have opened says nothing about others, and whoever
//! runs a registry may claim to have any digest.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use ropewalk_core::images::reference::{Digest, Reference};
use ropewalk_core::images::{Commands, Wanted};

/// Some hundred bytes each, and 32 kB at worst.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// The commands of the images and indexes used last, by what would have been wanted by digest.
pub(super) struct Digests(Mutex<LruCache<Wanted, Arc<Commands>>>);

impl Default for Digests {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(CAPACITY)))
    }
}

impl Digests {
    pub(super) fn get(
        &self,
        wanted: &Wanted,
        reference: &Reference,
        digest: &Digest,
    ) -> Option<Arc<Commands>> {
        self.lock().get(&pinned(wanted, reference, digest)).cloned()
    }

    pub(super) fn put(
        &self,
        wanted: &Wanted,
        reference: &Reference,
        digest: &Digest,
        commands: &Arc<Commands>,
    ) {
        self.lock().put(pinned(wanted, reference, digest), Arc::clone(commands));
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Wanted, Arc<Commands>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pinned(wanted: &Wanted, reference: &Reference, digest: &Digest) -> Wanted {
    Wanted { image: reference.at(digest), ..wanted.clone() }
}
