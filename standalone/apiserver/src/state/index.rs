//! Objects by what is asked of them besides their names: their UID, their owners, whom they bind. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::ObjectKey;
use crate::{
    access, object,
    table::{Resource, ResourceId},
};

type Place = (ResourceId, ObjectKey);

/// What is known of objects without looking at each.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    uids: BTreeMap<String, Place>,
    /// Objects by the UIDs of their owners.
    dependents: BTreeMap<String, BTreeSet<Place>>,
    /// Role bindings by those they are for, see `access::subjects`.
    bindings: BTreeMap<String, BTreeSet<Place>>,
}

impl Index {
    /// Takes up an object.
    pub(super) fn add(&mut self, resource: &Resource, id: ResourceId, key: &ObjectKey, object: &Value) {
        self.uids.insert(object::uid(object).to_owned(), (id, key.clone()));
        for owner in object::owners(object) {
            self.dependents.entry(owner.uid.to_owned()).or_default().insert((id, key.clone()));
        }
        for subject in access::subjects(resource, object) {
            self.bindings.entry(subject).or_default().insert((id, key.clone()));
        }
    }

    /// Drops an object as it was when it was added.
    pub(super) fn remove(&mut self, resource: &Resource, id: ResourceId, key: &ObjectKey, object: &Value) {
        self.uids.remove(object::uid(object));
        let place = (id, key.clone());
        for owner in object::owners(object) {
            drop_from(&mut self.dependents, owner.uid, &place);
        }
        for subject in access::subjects(resource, object) {
            drop_from(&mut self.bindings, &subject, &place);
        }
    }

    /// The object with this UID.
    pub(super) fn by_uid(&self, uid: &str) -> Option<&Place> {
        self.uids.get(uid)
    }

    /// Objects that name this UID as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Place> {
        self.dependents.get(uid).map(|set| set.iter().cloned().collect()).unwrap_or_default()
    }

    /// Role bindings of one resource in one namespace that are for this subject.
    pub(super) fn bindings<'a>(
        &'a self,
        subject: &str,
        id: ResourceId,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a ObjectKey> {
        let start = (id, ObjectKey::new(namespace, ""));
        let all = self.bindings.get(subject).map(|set| set.range(start..));
        let here = move |(other, key): &&Place| *other == id && key.namespace == namespace;
        all.into_iter().flatten().take_while(here).map(|(_, key)| key)
    }
}

fn drop_from(sets: &mut BTreeMap<String, BTreeSet<Place>>, name: &str, place: &Place) {
    if let Some(set) = sets.get_mut(name) {
        set.remove(place);
        if set.is_empty() {
            sets.remove(name);
        }
    }
}
