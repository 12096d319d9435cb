//! What follows from a change: dependents of a gone owner go, owners that waited for them go, emptied namespaces go.
//! Pure.
//!
//! In Kubernetes a controller does this a moment later; here it is part of the request, so that a world at rest
//! has nothing left to collect.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    delete::{self, Options, Policy},
    object::{self, FOREGROUND, Owner},
    state::{Delta, DeltaKind, ObjectKey, State},
    table::{Behaviour, ResourceId},
};

/// Follows up on every change of the request, and on what that changes in turn.
pub(crate) fn settle(state: &mut State, now: Timestamp) {
    let mut next = 0;
    while let Some(delta) = state.fresh_at(next) {
        next += 1;
        follow(state, &delta, now);
    }
}

fn follow(state: &mut State, delta: &Arc<Delta>, now: Timestamp) {
    let uid = object::uid(&delta.object);
    if delta.kind == DeltaKind::Deleted {
        for (id, key) in state.dependents(uid) {
            check_owners(state, id, &key, now);
        }
        for owner in object::owners(&delta.object) {
            finish_foreground(state, owner.uid);
        }
        finish_namespace(state, &delta.key.namespace);
        return;
    }
    // Only the newest state of an object says what is to be done about it.
    if state.by_uid(uid) != Some(&(delta.resource, delta.key.clone())) {
        return;
    }
    check_owners(state, delta.resource, &delta.key, now);
    let Some(object) = state.get(delta.resource, &delta.key).cloned() else { return };
    if object::is_deleting(&object) && object::finalizers(&object).contains(&FOREGROUND) {
        for (id, key) in state.dependents(uid) {
            check_owners(state, id, &key, now);
        }
        finish_foreground(state, uid);
    }
}

#[derive(PartialEq)]
enum Presence {
    /// There, or of a kind this server cannot know about.
    Solid,
    /// There, but waiting for its dependents to go first.
    Waiting,
    Absent,
}

fn presence(state: &State, owner: &Owner<'_>, namespace: &str) -> Presence {
    let (group, _) = owner.api_version.split_once('/').unwrap_or(("", owner.api_version));
    let Some(kind) = state.table().of_kind(group, owner.kind) else { return Presence::Solid };
    // Nobody can say in which namespace to look for it, and what cannot be looked for is not held to be gone.
    if namespace.is_empty() && state.table().get(kind).namespaced {
        return Presence::Solid;
    }
    let Some((id, key)) = state.by_uid(owner.uid) else { return Presence::Absent };
    // An owner is cluster-scoped or in the same namespace; anything else counts as absent. So does one under another
    // kind or name, where it is looked for in Kubernetes.
    let is_here = key.namespace.is_empty() || key.namespace == namespace;
    if !is_here || *id != kind || key.name != owner.name {
        return Presence::Absent;
    }
    if waits(state, *id, key) { Presence::Waiting } else { Presence::Solid }
}

/// Whether an object is being deleted in the foreground: it is there until its dependents are gone.
fn waits(state: &State, id: ResourceId, key: &ObjectKey) -> bool {
    state
        .get(id, key)
        .is_some_and(|object| object::is_deleting(object) && object::finalizers(object).contains(&FOREGROUND))
}

/// Deletes an object none of whose owners is left, and drops references to gone owners from one that keeps some.
fn check_owners(state: &mut State, id: ResourceId, key: &ObjectKey, now: Timestamp) {
    let Some(object) = state.get(id, key).cloned() else { return };
    let owners = object::owners(&object);
    // What is being deleted goes in the way in which that began.
    if owners.is_empty() || object::is_deleting(&object) {
        return;
    }
    let found: Vec<Presence> = owners.iter().map(|owner| presence(state, owner, &key.namespace)).collect();
    if found.iter().all(|presence| *presence == Presence::Solid) {
        return;
    }
    if found.contains(&Presence::Solid) {
        let mut kept = (*object).clone();
        let mut solid = found.iter().map(|presence| *presence == Presence::Solid);
        object::retain_meta(&mut kept, "ownerReferences", |_| solid.next().unwrap_or(true));
        state.put(id, kept);
        return;
    }
    // The children of a dependent go before it, too, where its owner waits for that.
    let dependents = state.dependents(object::uid(&object));
    let foreground = found.contains(&Presence::Waiting) && !dependents.is_empty();
    if foreground && dependents.iter().any(|(id, key)| waits(state, *id, key)) {
        // Its child may be its owner. In a circle each would wait for the next, so this one keeps nobody waiting.
        let mut patient = (*object).clone();
        object::each_owner(&mut patient, |owner| {
            owner.insert("blockOwnerDeletion".into(), Value::from(false));
        });
        state.put(id, patient);
    }
    let policy = foreground.then_some(Policy::Foreground);
    delete::begin(state, id, key, &Options { policy, ..Options::default() }, now);
}

/// Lets an owner go that was deleted in the foreground, once nothing that blocks it is left.
fn finish_foreground(state: &mut State, uid: &str) {
    let Some((id, key)) = state.by_uid(uid).cloned() else { return };
    let Some(owner) = state.get(id, &key).cloned() else { return };
    if !object::is_deleting(&owner) || !object::finalizers(&owner).contains(&FOREGROUND) {
        return;
    }
    let blocked = state.dependents(uid).iter().any(|(id, key)| {
        state
            .get(*id, key)
            .is_some_and(|object| object::owners(object).iter().any(|owner| owner.uid == uid && owner.blocks))
    });
    if blocked {
        return;
    }
    let mut released = (*owner).clone();
    object::retain_meta(&mut released, "finalizers", |finalizer| finalizer.as_str() != Some(FOREGROUND));
    if object::finalizers(&released).is_empty() && object::grace(&released).unwrap_or_default() == 0 {
        state.remove(id, &key);
    } else {
        state.put(id, released);
    }
}

/// Removes a namespace in deletion once nothing is left in it.
pub(crate) fn finish_namespace(state: &mut State, namespace: &str) {
    let Some(id) = state.table().by_behaviour(Behaviour::Namespace).filter(|_| !namespace.is_empty()) else {
        return;
    };
    let key = ObjectKey::new("", namespace);
    if !state.get(id, &key).is_some_and(|namespace| object::is_deleting(namespace)) {
        return;
    }
    let ids: Vec<ResourceId> =
        state.table().iter().filter(|(_, resource)| resource.namespaced).map(|(id, _)| id).collect();
    if ids.into_iter().all(|id| state.objects(id, Some(namespace)).next().is_none()) {
        state.remove(id, &key);
    }
}

/// Deletes everything in a namespace.
pub(crate) fn empty_namespace(state: &mut State, namespace: &str, now: Timestamp) {
    let ids: Vec<ResourceId> =
        state.table().iter().filter(|(_, resource)| resource.namespaced).map(|(id, _)| id).collect();
    for id in ids {
        let keys: Vec<ObjectKey> = state.objects(id, Some(namespace)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            delete::begin(state, id, &key, &Options::default(), now);
        }
    }
}

/// Drops the references of dependents to an owner that leaves them behind.
pub(crate) fn orphan(state: &mut State, uid: &str) {
    for (id, key) in state.dependents(uid) {
        let Some(object) = state.get(id, &key) else { continue };
        let mut freed: Value = (**object).clone();
        object::retain_meta(&mut freed, "ownerReferences", |owner| object::text(owner, "uid") != uid);
        state.put(id, freed);
    }
}
