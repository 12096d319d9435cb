//! Children that were sent to the API server and that a cache may not show yet.
//!
//! A plan that overlooks such a child could skip its task as not started, and go on to `finally` beside it. Until the
//! cache has seen it, or the API server says that there is none, it is read by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ropewalk_core::plan::{Resource, Write};

/// The namespaces of children by their names.
type Names = BTreeMap<String, String>;

/// Names of children by the UID of their controller. It holds what is on its way, a moment's worth of writes. A process
/// that starts lists everything, and needs no memory of its predecessor's.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    names: Mutex<HashMap<String, Names>>,
}

impl Attempts {
    /// Notes a child before it is sent: its answer may be lost.
    pub(crate) fn note(&self, write: &Write) {
        if let Write::Create { target, object } = write
            && matches!(target.resource, Resource::Pod | Resource::TaskRun)
            && let Some(uid) = object.pointer("/metadata/ownerReferences/0/uid").and_then(|uid| uid.as_str())
        {
            self.lock()
                .entry(uid.to_owned())
                .or_default()
                .insert(target.name.clone(), target.namespace.clone());
        }
    }

    /// The children of this controller that may be missing in the cache.
    pub(crate) fn of(&self, uid: &str) -> Vec<String> {
        self.lock().get(uid).map(|names| names.keys().cloned().collect()).unwrap_or_default()
    }

    /// A child of this name is on its way to this namespace, whosever it is.
    pub(crate) fn expects(&self, namespace: &str, name: &str) -> bool {
        self.lock().values().any(|names| names.get(name).is_some_and(|there| there == namespace))
    }

    /// The cache shows it, or it does not exist.
    pub(crate) fn settle(&self, uid: &str, name: &str) {
        let mut names = self.lock();
        if let Some(of_uid) = names.get_mut(uid) {
            of_uid.remove(name);
            if of_uid.is_empty() {
                names.remove(uid);
            }
        }
    }

    /// The controller of these is gone, and nobody will look for them.
    pub(crate) fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Names>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ropewalk_core::plan::Target;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_child_is_remembered_until_it_is_seen() {
        let target = Target { resource: Resource::TaskRun, namespace: "ns".into(), name: "run-a".into() };
        let object = json!({ "metadata": { "ownerReferences": [{ "uid": "u" }] } });
        let attempts = Attempts::default();
        attempts.note(&Write::Create { target: target.clone(), object });
        attempts.note(&Write::Delete { target, uid: Some("u".into()) });
        assert_eq!(attempts.of("u"), ["run-a"]);
        assert_eq!(attempts.of("v"), [""; 0]);
        assert!(attempts.expects("ns", "run-a") && !attempts.expects("ns", "run-b"));
        assert!(!attempts.expects("another", "run-a"));
        attempts.settle("u", "run-a");
        assert_eq!(attempts.of("u"), [""; 0]);
        assert!(attempts.lock().is_empty());
    }

    #[test]
    fn the_children_of_a_deleted_run_are_forgotten() {
        let target = Target { resource: Resource::Pod, namespace: "ns".into(), name: "run-pod".into() };
        let object = json!({ "metadata": { "ownerReferences": [{ "uid": "u" }] } });
        let attempts = Attempts::default();
        attempts.note(&Write::Create { target, object });
        attempts.forget("u");
        assert!(attempts.lock().is_empty());
    }
}
