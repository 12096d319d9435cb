//! What the server remembers: objects, what they are found by, the history that watches resume from. Pure.
//!
//! Every change goes through [`State::put`] or [`State::remove`], which keep the parts in step.

mod events;
mod furnish;
mod history;
mod index;
mod room;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::Value;

use self::{events::Events, history::History, index::Index};
use crate::{
    defaults,
    names::Names,
    object::{self, stamp},
    scheduler::Line,
    status::Result,
    table::{Behaviour, Resource, ResourceId, ResourceTable},
};

pub use self::{
    history::{Delta, DeltaKind, HISTORY},
    room::Room,
};

/// Namespace (empty for cluster-scoped objects) and name, in the order lists are in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Namespace, empty for a cluster-scoped object.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub(crate) fn of(object: &Value) -> Self {
        Self::new(object::namespace(object), object::name(object))
    }
}

/// All objects of a server. Cloning is cheap in memory (objects are shared), and is how a simulation keeps the
/// state a crashed process left behind.
#[derive(Clone, Debug)]
pub struct State {
    table: ResourceTable,
    objects: Vec<BTreeMap<ObjectKey, Arc<Value>>>,
    index: Index,
    /// What pods trust the server by, PEM, where it can be reached from them.
    authority: Option<Arc<str>>,
    room: Room,
    version: u64,
    history: History,
    events: Events,
    /// The pods that have not ended.
    line: Line,
    pub(crate) names: Names,
    /// Nothing done here counts: objects keep the versions they have.
    rehearsal: bool,
}

impl State {
    /// A server with the namespaces `default` and `kube-system` and nothing else. All UIDs and generated names
    /// follow from `seed`; `now` is when the namespaces were made.
    pub fn new(table: ResourceTable, seed: u64, now: Timestamp) -> Self {
        let mut state = Self::empty(table, seed);
        state.furnish(now);
        // What is there from the start is no news to anyone.
        state.history.begin_at(state.version);
        state.history.take_fresh();
        state
    }

    /// A server that goes on where an earlier one ended, at `version`, with the objects it had; whatever a new one has
    /// is made where it is missing. Watches resume from `version` at the earliest. Changes made by this are the first
    /// that [`State::take_fresh`] gives.
    ///
    /// Objects of resources or versions that the table does not have are not served; they are named in the second
    /// part of the answer.
    pub fn restore(
        table: ResourceTable,
        seed: u64,
        now: Timestamp,
        version: u64,
        objects: impl IntoIterator<Item = Value>,
    ) -> (Self, Vec<String>) {
        let mut state = Self::empty(table, seed);
        let mut unknown = Vec::new();
        let mut events = Vec::new();
        for object in objects {
            let (id, mut object) = match state.table.to_storage(object) {
                Ok(found) => found,
                Err(name) => {
                    unknown.push(name);
                    continue;
                }
            };
            // An earlier server may have known fewer; as in Kubernetes, they are filled in wherever an object is read.
            let resource = state.table.get(id);
            defaults::fill(&mut object, resource.shape(resource.storage));
            let key = ObjectKey::of(&object);
            if state.table.get(id).behaviour == Behaviour::Event {
                events.push((
                    object::resource_version(&object).parse::<u64>().unwrap_or_default(),
                    key.clone(),
                ));
            }
            state.index(id, &key, &object);
            state.objects[id.0].insert(key, Arc::new(object));
        }
        state.events = Events::restored(events);
        state.version = version;
        // Before anything is made: whoever has seen all of the earlier server is to be told of that, too.
        state.history.begin_at(version);
        state.furnish(now);
        (state, unknown)
    }

    fn empty(mut table: ResourceTable, seed: u64) -> Self {
        table.share_schemas();
        Self {
            objects: vec![BTreeMap::new(); table.len()],
            table,
            index: Index::default(),
            authority: None,
            room: Room::Enough,
            version: 0,
            history: History::default(),
            events: Events::default(),
            line: Line::default(),
            names: Names::new(seed),
            rehearsal: false,
        }
    }

    /// A copy for a dry run.
    pub(crate) fn rehearsal(&self) -> Self {
        Self { rehearsal: true, ..self.clone() }
    }

    /// The resource table.
    pub fn table(&self) -> &ResourceTable {
        &self.table
    }

    /// How much the requests from now on may write.
    pub fn set_room(&mut self, room: Room) {
        self.room = room;
    }

    /// Refuses a new object where there is no room for it.
    pub(crate) fn check_room_to_create(&self) -> Result<()> {
        self.room.check_new()
    }

    /// Refuses a change of an object where there is no room for it.
    pub(crate) fn check_room_to_update(&self, object: &Value) -> Result<()> {
        self.room.check_change(object)
    }

    /// The resourceVersion of the newest change of any object.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// One object, in its storage version.
    pub fn get(&self, id: ResourceId, key: &ObjectKey) -> Option<&Arc<Value>> {
        self.objects[id.0].get(key)
    }

    /// All objects of a resource in the order of namespace and name; those of one namespace where one is given.
    pub fn objects(
        &self,
        id: ResourceId,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = (&ObjectKey, &Arc<Value>)> {
        let start = ObjectKey::new(namespace.unwrap_or_default(), "");
        let namespace = namespace.map(str::to_owned);
        self.objects[id.0].range(start..).take_while(move |(key, _)| {
            namespace.as_ref().is_none_or(|namespace| key.namespace == *namespace)
        })
    }

    pub(crate) fn resource(&self, id: ResourceId) -> Arc<Resource> {
        Arc::clone(self.table.get(id))
    }

    /// The object with this UID, if it is still there.
    pub(crate) fn by_uid(&self, uid: &str) -> Option<&(ResourceId, ObjectKey)> {
        self.index.by_uid(uid)
    }

    /// Objects that name this UID as an owner.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<(ResourceId, ObjectKey)> {
        self.index.dependents(uid)
    }

    /// Role bindings of one resource in one namespace that are for this subject.
    pub(crate) fn bindings<'a>(
        &'a self,
        subject: &str,
        id: ResourceId,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a ObjectKey> {
        self.index.bindings(subject, id, namespace)
    }

    /// The pods that have not ended: those that wait for a node, and those on nodes.
    pub(crate) fn line(&self) -> &Line {
        &self.line
    }

    /// Whether pods can reach the server, and so get tokens.
    pub(crate) fn has_authority(&self) -> bool {
        self.authority.is_some()
    }

    /// Changes after `since`, or `None` where some of them fell off the history.
    pub(crate) fn changes_since(&self, since: u64) -> Option<impl Iterator<Item = &Arc<Delta>>> {
        self.history.since(since)
    }

    /// Whether a change of this resource is among those not yet taken.
    pub(crate) fn fresh_touches(&self, id: ResourceId) -> bool {
        self.history.fresh().iter().any(|delta| delta.resource == id)
    }

    /// The n-th change since they were last taken.
    pub(crate) fn fresh_at(&self, index: usize) -> Option<Arc<Delta>> {
        self.history.fresh().get(index).cloned()
    }

    /// Takes the changes made since the last call. Those of a request are in [`crate::Handled`]; what is left are those
    /// of [`State::restore`] and [`crate::install`].
    pub fn take_fresh(&mut self) -> Vec<Arc<Delta>> {
        self.history.take_fresh()
    }

    /// Stores a new object with the system fields it still lacks, and what comes with it.
    pub(crate) fn create(&mut self, id: ResourceId, mut object: Value, now: Timestamp) -> Arc<Value> {
        self.fill_system_fields(&mut object, now);
        let resource = self.resource(id);
        if resource.counts_generations {
            object::set_meta(&mut object, "generation", Some(Value::from(1)));
        }
        let stored = self.put(id, object);
        match resource.behaviour {
            Behaviour::Namespace => self.furnish_namespace(object::name(&stored), now),
            Behaviour::Event => {
                if let Some(oldest) = self.events.add(ObjectKey::of(&stored)) {
                    self.remove(id, &oldest);
                }
            }
            _ => {}
        }
        stored
    }

    /// `uid` and `creationTimestamp`, which admission may already see.
    pub(crate) fn fill_system_fields(&mut self, object: &mut Value, now: Timestamp) {
        if object::uid(object).is_empty() {
            let uid = self.names.uid();
            object::set_meta(object, "uid", Some(Value::from(uid)));
            object::set_meta(object, "creationTimestamp", Some(Value::from(stamp(now))));
        }
    }

    /// Drops events that have not happened for the time they are kept for.
    pub(crate) fn expire_events(&mut self, now: Timestamp) {
        let Some(id) = self.table.by_behaviour(Behaviour::Event) else { return };
        while let Some(oldest) = self.events.oldest() {
            if self.get(id, oldest).is_some_and(|event| events::is_recent(event, now)) {
                break;
            }
            if let Some(oldest) = self.events.take_oldest() {
                self.remove(id, &oldest);
            }
        }
    }

    /// Stores an object under its own namespace and name with the next resourceVersion.
    pub(crate) fn put(&mut self, id: ResourceId, mut object: Value) -> Arc<Value> {
        self.version += 1;
        let key = ObjectKey::of(&object);
        let version = if self.rehearsal {
            self.objects[id.0].get(&key).map(|known| Value::from(object::resource_version(known)))
        } else {
            Some(Value::from(self.version.to_string()))
        };
        object::set_meta(&mut object, "resourceVersion", version);
        let object = Arc::new(object);
        let previous = self.objects[id.0].insert(key.clone(), Arc::clone(&object));
        if let Some(previous) = &previous {
            self.unindex(id, &key, previous);
        }
        self.index(id, &key, &object);
        if previous.is_some() && self.table.get(id).behaviour == Behaviour::Event {
            self.events.renew(&key);
        }
        let kind = if previous.is_some() { DeltaKind::Modified } else { DeltaKind::Added };
        self.history.record(Delta {
            resource_version: self.version,
            resource: id,
            kind,
            key,
            object: Arc::clone(&object),
            previous,
        });
        object
    }

    /// Removes an object; the answer is its last state.
    pub(crate) fn remove(&mut self, id: ResourceId, key: &ObjectKey) -> Option<Arc<Value>> {
        let previous = self.objects[id.0].remove(key)?;
        self.unindex(id, key, &previous);
        if self.table.get(id).behaviour == Behaviour::Pod {
            self.line.forget(key);
        }
        self.version += 1;
        let last = if self.rehearsal {
            Arc::clone(&previous)
        } else {
            let mut last = (*previous).clone();
            object::set_meta(&mut last, "resourceVersion", Some(Value::from(self.version.to_string())));
            Arc::new(last)
        };
        self.history.record(Delta {
            resource_version: self.version,
            resource: id,
            kind: DeltaKind::Deleted,
            key: key.clone(),
            object: Arc::clone(&last),
            previous: Some(previous),
        });
        Some(last)
    }

    /// Takes back the newest changes: given in order, all after some point, none of them told to anybody. The counter
    /// goes back, too.
    pub fn take_back(&mut self, deltas: &[Arc<Delta>]) {
        let Some(first) = deltas.first() else { return };
        for delta in deltas.iter().rev() {
            let (id, key) = (delta.resource, &delta.key);
            if let Some(current) = self.objects[id.0].remove(key) {
                self.unindex(id, key, &current);
            }
            if let Some(previous) = &delta.previous {
                self.index(id, key, previous);
                self.objects[id.0].insert(key.clone(), Arc::clone(previous));
            }
            if self.table.get(id).behaviour == Behaviour::Event {
                match delta.kind {
                    DeltaKind::Added => self.events.forget(key),
                    DeltaKind::Deleted => self.events.put_back(key),
                    DeltaKind::Modified => {}
                }
            }
        }
        self.version = first.resource_version - 1;
        self.history.go_back_to(self.version);
    }

    fn index(&mut self, id: ResourceId, key: &ObjectKey, object: &Value) {
        let resource = self.table.get(id);
        if resource.behaviour == Behaviour::Pod {
            self.line.note(key, object);
        }
        self.index.add(resource, id, key, object);
    }

    fn unindex(&mut self, id: ResourceId, key: &ObjectKey, object: &Value) {
        self.index.remove(self.table.get(id), id, key, object);
    }
}
