//! What the server remembers: objects, indexes by UID and owner, the history that watches resume from. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    access, builtin, defaults,
    names::Names,
    object,
    scheduler::Line,
    status::{Failure, Result},
    table::{Behaviour, DEFINITIONS, Resource, ResourceId, ResourceTable},
};

/// Changes kept for watches to resume from. At some 10 kB a version this is at most about 80 MB, and covers the
/// writes of more than 200 task runs while a client reconnects; a client that was away for longer lists again.
pub const HISTORY: usize = 8192;

/// Events kept, the oldest dropped first: a count bounds memory however fast they come.
const EVENTS: usize = 10_000;

/// How long an event is kept after it last happened, as in Kubernetes.
const EVENT_AGE: SignedDuration = SignedDuration::from_hours(1);

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

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaKind {
    /// It came into being.
    Added,
    /// It changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// One change of one object; what watches are made of.
#[derive(Clone, Debug)]
pub struct Delta {
    /// The server-wide counter after this change, which is also the object's `metadata.resourceVersion`.
    pub resource_version: u64,
    /// The object's resource.
    pub resource: ResourceId,
    /// What happened.
    pub kind: DeltaKind,
    /// The object's namespace and name.
    pub key: ObjectKey,
    /// The object after the change, in its storage version; for a deletion its last state, with the
    /// resourceVersion of the deletion.
    pub object: Arc<Value>,
    /// The object before the change, so that watches see objects enter and leave their selectors.
    pub previous: Option<Arc<Value>>,
}

/// How much may still be written, for a server whose objects take room somewhere. Deletions always may: they make room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// Everything may.
    #[default]
    Enough,
    /// New objects are refused for this reason; what is there may change, so that what has begun can end.
    Scarce(Arc<str>),
    /// Changes are refused, too, but for those of objects in deletion.
    None(Arc<str>),
}

/// All objects of a server. Cloning is cheap in memory (objects are shared), and is how a simulation keeps the
/// state a crashed process left behind.
#[derive(Clone, Debug)]
pub struct State {
    table: ResourceTable,
    objects: Vec<BTreeMap<ObjectKey, Arc<Value>>>,
    uids: BTreeMap<String, (ResourceId, ObjectKey)>,
    dependents: BTreeMap<String, BTreeSet<(ResourceId, ObjectKey)>>,
    /// Role bindings by those they are for, see `access::subjects`.
    bindings: BTreeMap<String, BTreeSet<(ResourceId, ObjectKey)>>,
    /// What pods trust the server by, PEM, where it can be reached from them.
    authority: Option<Arc<str>>,
    room: Room,
    version: u64,
    history: VecDeque<Arc<Delta>>,
    /// Version of the newest change that fell off the history; watches can resume from here on.
    horizon: u64,
    /// Events in the order they were last written, to drop the oldest.
    events: VecDeque<ObjectKey>,
    /// The pods that have not ended.
    line: Line,
    pub(crate) names: Names,
    /// Changes made since they were last taken.
    fresh: Vec<Arc<Delta>>,
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
        state.history.clear();
        state.fresh.clear();
        state.horizon = state.version;
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
        events.sort_unstable();
        state.events = events.into_iter().map(|(_, key)| key).collect();
        state.version = version;
        state.furnish(now);
        state.history.clear();
        state.horizon = version;
        (state, unknown)
    }

    fn empty(mut table: ResourceTable, seed: u64) -> Self {
        table.share_schemas();
        Self {
            objects: vec![BTreeMap::new(); table.len()],
            table,
            uids: BTreeMap::new(),
            dependents: BTreeMap::new(),
            bindings: BTreeMap::new(),
            authority: None,
            room: Room::Enough,
            version: 0,
            history: VecDeque::new(),
            horizon: 0,
            events: VecDeque::new(),
            line: Line::default(),
            names: Names::new(seed),
            fresh: Vec::new(),
            rehearsal: false,
        }
    }

    /// Makes the namespaces and definitions every server has, where they are missing.
    fn furnish(&mut self, now: Timestamp) {
        let namespaces = self.table.by_behaviour(Behaviour::Namespace);
        for name in ["default", "kube-system"] {
            let Some(id) = namespaces else { break };
            if self.get(id, &ObjectKey::new("", name)).is_some() {
                continue;
            }
            let mut namespace =
                json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
            builtin::prepare_create(Behaviour::Namespace, &mut namespace);
            self.create(id, namespace, now);
        }
        self.load_definitions(now);
    }

    fn load_definitions(&mut self, now: Timestamp) {
        let definitions = self.table.take_definitions();
        let Some((id, _)) = self.table.find("apiextensions.k8s.io", "v1", DEFINITIONS) else {
            return;
        };
        for mut definition in definitions {
            if let Some(known) = self.get(id, &ObjectKey::of(&definition)).cloned() {
                if known["spec"] != definition["spec"] {
                    let mut updated = (*known).clone();
                    updated["spec"] = definition["spec"].take();
                    self.put(id, updated);
                }
                continue;
            }
            definition["status"] = json!({
                "acceptedNames": definition["spec"]["names"],
                "conditions": [
                    { "type": "NamesAccepted", "status": "True", "reason": "NoConflicts",
                      "message": "no conflicts found", "lastTransitionTime": stamp(now) },
                    { "type": "Established", "status": "True", "reason": "InitialNamesAccepted",
                      "message": "the initial names have been accepted", "lastTransitionTime": stamp(now) },
                ],
            });
            self.create(id, definition, now);
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
        match &self.room {
            Room::Enough => Ok(()),
            Room::Scarce(why) | Room::None(why) => Err(Failure::insufficient_storage(&**why)),
        }
    }

    /// Refuses a change of an object where there is no room for it.
    pub(crate) fn check_room_to_update(&self, object: &Value) -> Result<()> {
        match &self.room {
            Room::None(why) if !object::is_deleting(object) => Err(Failure::insufficient_storage(&**why)),
            _ => Ok(()),
        }
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
        self.uids.get(uid)
    }

    /// Objects that name this UID as an owner.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<(ResourceId, ObjectKey)> {
        self.dependents.get(uid).map(|set| set.iter().cloned().collect()).unwrap_or_default()
    }

    /// Role bindings of one resource in one namespace that are for this subject.
    pub(crate) fn bindings<'a>(
        &'a self,
        subject: &str,
        id: ResourceId,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a ObjectKey> {
        let start = (id, ObjectKey::new(namespace, ""));
        let all = self.bindings.get(subject).map(|set| set.range(start..));
        let here = move |(other, key): &&(ResourceId, ObjectKey)| *other == id && key.namespace == namespace;
        all.into_iter().flatten().take_while(here).map(|(_, key)| key)
    }

    /// The pods that have not ended: those that wait for a node, and those on nodes.
    pub(crate) fn line(&self) -> &Line {
        &self.line
    }

    /// Whether a change of this resource is among those not yet taken.
    pub(crate) fn fresh_touches(&self, id: ResourceId) -> bool {
        self.fresh.iter().any(|delta| delta.resource == id)
    }

    /// Whether pods can reach the server, and so get tokens.
    pub(crate) fn has_authority(&self) -> bool {
        self.authority.is_some()
    }

    /// Puts the server's authority into every namespace that there is and will be.
    pub(crate) fn publish_authority(&mut self, pem: &str, now: Timestamp) {
        self.authority = Some(pem.into());
        let Some(id) = self.table.by_behaviour(Behaviour::Namespace) else { return };
        let living = self.objects[id.0].iter().filter(|(_, namespace)| !object::is_deleting(namespace));
        let namespaces: Vec<ObjectKey> = living.map(|(key, _)| key.clone()).collect();
        for namespace in namespaces {
            self.add_authority(&namespace.name, now);
        }
    }

    fn add_authority(&mut self, namespace: &str, now: Timestamp) {
        let Some(pem) = self.authority.clone() else { return };
        let Some((id, _)) = self.table.find("", "v1", "configmaps") else { return };
        let data = json!({ "ca.crt": &*pem });
        if let Some(known) = self.get(id, &ObjectKey::new(namespace, access::ROOT_CA)).cloned() {
            if known["data"] != data {
                let mut updated = (*known).clone();
                updated["data"] = data;
                self.put(id, updated);
            }
            return;
        }
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": access::ROOT_CA, "namespace": namespace },
            "data": data,
        });
        self.create(id, map, now);
    }

    /// Changes after `since`, or `None` where some of them fell off the history.
    pub(crate) fn changes_since(&self, since: u64) -> Option<impl Iterator<Item = &Arc<Delta>>> {
        if since < self.horizon {
            return None;
        }
        let start = self.history.partition_point(|delta| delta.resource_version <= since);
        Some(self.history.range(start..))
    }

    /// The n-th change since they were last taken.
    pub(crate) fn fresh_at(&self, index: usize) -> Option<Arc<Delta>> {
        self.fresh.get(index).cloned()
    }

    /// Takes the changes made since the last call. Those of a request are in [`crate::Handled`]; what is left are those
    /// of [`State::restore`] and [`crate::install`].
    pub fn take_fresh(&mut self) -> Vec<Arc<Delta>> {
        std::mem::take(&mut self.fresh)
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
            Behaviour::Namespace => {
                self.add_service_account(object::name(&stored), now);
                self.add_authority(object::name(&stored), now);
            }
            Behaviour::Event => self.bound_events(id, ObjectKey::of(&stored)),
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

    fn add_service_account(&mut self, namespace: &str, now: Timestamp) {
        if let Some((id, _)) = self.table.find("", "v1", "serviceaccounts") {
            let account = json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": { "name": "default", "namespace": namespace },
            });
            self.create(id, account, now);
        }
    }

    fn bound_events(&mut self, id: ResourceId, key: ObjectKey) {
        self.events.push_back(key);
        if self.events.len() > EVENTS
            && let Some(oldest) = self.events.pop_front()
        {
            self.remove(id, &oldest);
        }
    }

    /// Drops events that have not happened for an hour.
    pub(crate) fn expire_events(&mut self, now: Timestamp) {
        let Some(id) = self.table.by_behaviour(Behaviour::Event) else { return };
        while let Some(oldest) = self.events.front() {
            let last = self.get(id, oldest).and_then(|event| happened(event, now));
            if last.is_some_and(|last| now.duration_since(last) < EVENT_AGE) {
                break;
            }
            if let Some(oldest) = self.events.pop_front() {
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
            // One that happens again is as good as new.
            self.events.retain(|known| *known != key);
            self.events.push_back(key.clone());
        }
        let kind = if previous.is_some() { DeltaKind::Modified } else { DeltaKind::Added };
        self.record(Delta {
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
        self.record(Delta {
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
                    DeltaKind::Added => self.events.retain(|known| known != key),
                    DeltaKind::Deleted if !self.events.contains(key) => self.events.push_front(key.clone()),
                    DeltaKind::Deleted | DeltaKind::Modified => {}
                }
            }
        }
        self.version = first.resource_version - 1;
        self.horizon = self.horizon.min(self.version);
        let kept = self.history.partition_point(|delta| delta.resource_version <= self.version);
        self.history.truncate(kept);
    }

    fn index(&mut self, id: ResourceId, key: &ObjectKey, object: &Value) {
        if self.table.get(id).behaviour == Behaviour::Pod {
            self.line.note(key, object);
        }
        self.uids.insert(object::uid(object).to_owned(), (id, key.clone()));
        for owner in object::owners(object) {
            self.dependents.entry(owner.uid.to_owned()).or_default().insert((id, key.clone()));
        }
        for subject in access::subjects(self.table.get(id), object) {
            self.bindings.entry(subject).or_default().insert((id, key.clone()));
        }
    }

    fn unindex(&mut self, id: ResourceId, key: &ObjectKey, object: &Value) {
        self.uids.remove(object::uid(object));
        for subject in access::subjects(self.table.get(id), object) {
            if let Some(set) = self.bindings.get_mut(&subject) {
                set.remove(&(id, key.clone()));
                if set.is_empty() {
                    self.bindings.remove(&subject);
                }
            }
        }
        for owner in object::owners(object) {
            if let Some(set) = self.dependents.get_mut(owner.uid) {
                set.remove(&(id, key.clone()));
                if set.is_empty() {
                    self.dependents.remove(owner.uid);
                }
            }
        }
    }

    fn record(&mut self, delta: Delta) {
        let delta = Arc::new(delta);
        self.fresh.push(Arc::clone(&delta));
        self.history.push_back(delta);
        if self.history.len() > HISTORY
            && let Some(lost) = self.history.pop_front()
        {
            self.horizon = lost.resource_version;
        }
    }
}

/// When an event last happened, or was made; what lies in the future is a client's mistake.
fn happened(event: &Value, now: Timestamp) -> Option<Timestamp> {
    let times = ["metadata.creationTimestamp", "lastTimestamp", "series.lastObservedTime"];
    times.iter().filter_map(|path| object::text(event, path).parse().ok()).filter(|time| *time <= now).max()
}

/// A time as Kubernetes writes it: RFC 3339 in UTC, whole seconds.
pub(crate) fn stamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
