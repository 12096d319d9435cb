//! Which objects a controller reference points to: an index over a reflector, so that no reconcile searches a cache.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use kube::Resource;
use kube::runtime::watcher::Event;

/// Names of children by the UID of their controller. Its size is that of the reflector beside it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owners {
    state: Arc<RwLock<State>>,
}

#[derive(Debug, Default)]
struct State {
    children: HashMap<String, BTreeSet<String>>,
    /// What a list has brought so far; takes the place of `children` when the list is complete.
    relisted: HashMap<String, BTreeSet<String>>,
}

impl Owners {
    /// The names of the children of the controller with this UID, in order.
    pub(crate) fn children(&self, uid: &str) -> Vec<String> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.children.get(uid).map(|names| names.iter().cloned().collect()).unwrap_or_default()
    }

    /// Follows the watch; called with every event before the reflector sees it.
    pub(crate) fn apply<K: Resource>(&self, event: &Event<K>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Apply(object) => insert(&mut state.children, object),
            Event::Delete(object) => remove(&mut state.children, object),
            Event::Init => state.relisted.clear(),
            Event::InitApply(object) => insert(&mut state.relisted, object),
            Event::InitDone => state.children = std::mem::take(&mut state.relisted),
        }
    }
}

/// The UID of an object's controller.
pub(crate) fn controller_uid<K: Resource>(object: &K) -> Option<&str> {
    object
        .meta()
        .owner_references
        .as_deref()
        .unwrap_or_default()
        .iter()
        .find(|owner| owner.controller == Some(true))
        .map(|owner| owner.uid.as_str())
}

fn insert<K: Resource>(children: &mut HashMap<String, BTreeSet<String>>, object: &K) {
    if let (Some(uid), Some(name)) = (controller_uid(object), object.meta().name.clone()) {
        children.entry(uid.to_owned()).or_default().insert(name);
    }
}

fn remove<K: Resource>(children: &mut HashMap<String, BTreeSet<String>>, object: &K) {
    let (Some(uid), Some(name)) = (controller_uid(object), object.meta().name.as_deref()) else {
        return;
    };
    if let Some(names) = children.get_mut(uid) {
        names.remove(name);
        if names.is_empty() {
            children.remove(uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use kube::api::ObjectMeta;

    use super::*;

    fn pod(name: &str, owner: &str) -> Pod {
        let owner = OwnerReference { uid: owner.into(), controller: Some(true), ..OwnerReference::default() };
        Pod {
            metadata: ObjectMeta {
                name: Some(name.into()),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        }
    }

    #[test]
    fn follows_applies_and_deletes() {
        let owners = Owners::default();
        owners.apply(&Event::Apply(pod("b", "u")));
        owners.apply(&Event::Apply(pod("a", "u")));
        owners.apply(&Event::Apply(pod("c", "v")));
        assert_eq!(owners.children("u"), ["a", "b"]);
        owners.apply(&Event::Delete(pod("a", "u")));
        assert_eq!(owners.children("u"), ["b"]);
        assert_eq!(owners.children("nobody"), [""; 0]);
    }

    #[test]
    fn a_new_list_replaces_what_was_known_only_when_complete() {
        let owners = Owners::default();
        owners.apply(&Event::Apply(pod("old", "u")));
        owners.apply(&Event::<Pod>::Init);
        owners.apply(&Event::InitApply(pod("new", "u")));
        assert_eq!(owners.children("u"), ["old"]);
        owners.apply(&Event::<Pod>::InitDone);
        assert_eq!(owners.children("u"), ["new"]);
    }
}
