//! Versions of runs that were replaced by writes of ours, and that a cache may still show. Pure but for a lock.
//!
//! A pod's news often come before those of the status that was written with it. What would be decided on the version
//! before it, the API server would refuse as stale, and deciding anew would have to wait for a pause.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;
use serde::Deserialize;

/// Runs at once whose news are on their way: far more than are written in the moment that they take. One more costs a
/// refused write.
const RUNS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// The replaced version of each run, by its UID.
#[derive(Debug)]
pub(crate) struct Superseded(Mutex<LruCache<String, String>>);

impl Default for Superseded {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(RUNS)))
    }
}

#[derive(Deserialize)]
struct Answer {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    uid: String,
    resource_version: String,
}

impl Superseded {
    /// Notes the API server's answer to a write on this version.
    pub(crate) fn note(&self, version: &str, answer: &str) {
        // Without a newer version the cache will not change, and what it shows is right.
        if let Ok(Answer { metadata }) = serde_json::from_str(answer)
            && metadata.resource_version != version
        {
            self.lock(|versions| drop(versions.put(metadata.uid, version.to_owned())));
        }
    }

    /// Whether there is a newer version, whose arrival will wake the run.
    pub(crate) fn has(&self, uid: &str, version: &str) -> bool {
        self.lock(|versions| {
            let is_known = versions.peek(uid).is_some_and(|replaced| replaced == version);
            if !is_known {
                versions.pop(uid);
            }
            is_known
        })
    }

    fn lock<T>(&self, work: impl FnOnce(&mut LruCache<String, String>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(version: &str) -> String {
        format!(
            "{{\"kind\": \"TaskRun\", \"metadata\": {{\"uid\": \"u\", \"resourceVersion\": \"{version}\"}}}}"
        )
    }

    #[test]
    fn a_version_is_superseded_until_another_is_seen() {
        let superseded = Superseded::default();
        superseded.note("7", &answer("9"));
        assert!(superseded.has("u", "7") && superseded.has("u", "7"));
        assert!(!superseded.has("v", "7"));
        assert!(!superseded.has("u", "9"));
        assert!(!superseded.has("u", "7"), "a cache that goes back shows what it has");
    }

    #[test]
    fn a_write_that_changes_nothing_supersedes_nothing() {
        let superseded = Superseded::default();
        superseded.note("7", &answer("7"));
        superseded.note("7", "not JSON");
        assert!(!superseded.has("u", "7"));
    }
}
