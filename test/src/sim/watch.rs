//! What a process has heard of one resource: a cache, and the changes that are on their way to it. No IO.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use kube::Resource;
use ropewalk_apiserver::{Delta, DeltaKind, ObjectKey};
use ropewalk_core::cache::Cached;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::SimError;

/// A reflector: it lags behind the server by what is pending.
pub(super) struct Watch<K> {
    objects: BTreeMap<ObjectKey, Arc<K>>,
    pending: VecDeque<Arc<Delta>>,
}

impl<K: DeserializeOwned + Cached> Watch<K> {
    /// A watch that has just listed.
    pub(super) fn list<'a>(objects: impl Iterator<Item = &'a Arc<Value>>) -> Result<Self, SimError> {
        let objects = objects
            .map(|object| slim::<K>(object).map(|object| (key_of(&object), Arc::new(object))))
            .collect::<Result<_, _>>()?;
        Ok(Self { objects, pending: VecDeque::new() })
    }

    /// Takes in the next change; the answer is the object it is about.
    pub(super) fn advance(&mut self) -> Result<Option<Arc<K>>, SimError> {
        let Some(delta) = self.pending.pop_front() else { return Ok(None) };
        let object = Arc::new(slim::<K>(&delta.object)?);
        if delta.kind == DeltaKind::Deleted {
            self.objects.remove(&delta.key);
        } else {
            self.objects.insert(delta.key.clone(), Arc::clone(&object));
        }
        Ok(Some(object))
    }
}

impl<K: Resource> Watch<K> {
    pub(super) fn push(&mut self, delta: Arc<Delta>) {
        self.pending.push_back(delta);
    }

    pub(super) fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&Arc<K>> {
        self.objects.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    /// The objects that this UID controls, by name.
    pub(super) fn children(&self, uid: &str) -> BTreeMap<String, Arc<K>> {
        self.objects
            .values()
            .filter(|object| controller_uid(object.as_ref()) == Some(uid))
            .map(|object| (object.meta().name.clone().unwrap_or_default(), Arc::clone(object)))
            .collect()
    }
}

/// Namespace and name.
pub(super) fn key_of<K: Resource>(object: &K) -> ObjectKey {
    ObjectKey {
        namespace: object.meta().namespace.clone().unwrap_or_default(),
        name: object.meta().name.clone().unwrap_or_default(),
    }
}

/// The UID of an object's controller.
pub(super) fn controller_uid<K: Resource>(object: &K) -> Option<&str> {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

/// The object as a cache keeps it.
fn slim<K: DeserializeOwned + Cached>(object: &Value) -> Result<K, SimError> {
    let mut object = read::<K>(object)?;
    object.slim();
    Ok(object)
}

/// The object as our code sees it.
pub(super) fn read<K: DeserializeOwned>(object: &Value) -> Result<K, SimError> {
    K::deserialize(object).map_err(|source| SimError::Unreadable { object: object.to_string(), source })
}
