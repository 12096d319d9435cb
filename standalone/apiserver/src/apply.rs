//! Who manages which field: `managedFields` at every write, and server-side apply. Pure.
//!
//! The rules are those of Kubernetes' structured merge: whoever changes a field by an update takes it over; whoever
//! applies a configuration owns what is in it, is refused what others own and is to become something else, and by
//! leaving a field out gives it up, upon which it goes unless somebody else owns it.

mod merge;
mod set;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    object::{self, stamp},
    status::{Failure, Result},
    table::Resource,
};
use merge::Comparison;
use set::FieldSet;

/// Most entries of updates an object keeps, as in kube-apiserver; the oldest become one.
const UPDATERS: usize = 10;
/// Who made what was there when nobody kept books.
const BEFORE: &str = "before-first-apply";
/// Who made what the oldest entries tell of.
const ANCIENT: &str = "ancient-changes";

/// Fields of the metadata that belong to the server.
const UNMANAGED: [&str; 9] = [
    "clusterName",
    "creationTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "selfLink",
    "uid",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// One entry of `managedFields`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    manager: String,
    operation: Operation,
    api_version: String,
    subresource: String,
    time: String,
    fields: FieldSet,
}

impl Entry {
    /// Whether two entries are the same manager's: updates are kept apart by version, too.
    fn is_of(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    fn decode(value: &Value) -> Option<Self> {
        let text = |key: &str| object::text(value, key).to_owned();
        let operation = match object::text(value, "operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let (manager, api_version) = (text("manager"), text("apiVersion"));
        let is_known = object::text(value, "fieldsType") == "FieldsV1" && !api_version.is_empty();
        is_known.then_some(())?;
        let fields = FieldSet::from_value(value.get("fieldsV1")?)?;
        Some(Self {
            manager,
            operation,
            api_version,
            subresource: text("subresource"),
            time: text("time"),
            fields,
        })
    }

    fn encode(&self) -> Value {
        let mut value = json!({
            "manager": self.manager, "operation": self.operation.as_str(), "apiVersion": self.api_version,
            "fieldsType": "FieldsV1", "fieldsV1": self.fields.to_value(),
        });
        for (key, text) in [("time", &self.time), ("subresource", &self.subresource)] {
            if !text.is_empty() {
                value[key] = Value::from(text.as_str());
            }
        }
        value
    }

    /// How a conflict names the manager.
    fn shown(&self) -> String {
        let mut shown = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            shown = format!("{shown} with subresource {:?}", self.subresource);
        }
        match self.operation {
            Operation::Apply => shown,
            Operation::Update => format!("{shown} using {}", self.api_version),
        }
    }
}

/// All entries of a list; `None` where one of them is none.
fn decode(list: Option<&Value>) -> Option<Vec<Entry>> {
    list.and_then(Value::as_array).into_iter().flatten().map(Entry::decode).collect()
}

fn entries(object: &Value) -> Vec<Entry> {
    decode(object::at(object, "metadata.managedFields")).unwrap_or_default()
}

/// Entries as `managedFields` lists them; `None` where nobody manages anything.
fn encode(mut entries: Vec<Entry>) -> Option<Value> {
    entries.retain(|entry| !entry.fields.is_empty());
    entries.sort_by(|a, b| {
        let of = |entry: &Entry| (entry.operation, entry.time.clone(), entry.manager.clone());
        of(a)
            .cmp(&of(b))
            .then_with(|| (&a.api_version, &a.subresource).cmp(&(&b.api_version, &b.subresource)))
    });
    (!entries.is_empty()).then(|| entries.iter().map(Entry::encode).collect())
}

/// What a client that is not applying says about `managedFields` itself.
#[derive(Debug)]
pub(crate) enum Requested {
    /// Nothing: the entries go on as they are.
    Nothing,
    /// To be forgotten.
    Reset,
    /// To be these.
    Entries(Value),
}

impl Requested {
    /// Reads it off an object before its empty fields are dropped.
    pub(crate) fn of(object: &Value) -> Self {
        match object::at(object, "metadata.managedFields") {
            Some(Value::Array(list)) if list.is_empty() || *list == [json!({})] => Self::Reset,
            Some(list @ Value::Array(_)) => Self::Entries(list.clone()),
            _ => Self::Nothing,
        }
    }
}

/// One write, as its manager's doing.
pub(crate) struct Tracker<'a> {
    pub(crate) resource: &'a Resource,
    /// Index of the version of the request.
    pub(crate) version: usize,
    pub(crate) manager: &'a str,
    /// Empty for the object itself.
    pub(crate) subresource: &'a str,
    pub(crate) now: Timestamp,
}

impl Tracker<'_> {
    fn api_version(&self) -> String {
        self.resource.versions[self.version].api_version()
    }

    fn entry(&self, manager: &str, operation: Operation, fields: FieldSet) -> Entry {
        Entry {
            manager: manager.to_owned(),
            operation,
            api_version: self.api_version(),
            subresource: self.subresource.to_owned(),
            time: stamp(self.now),
            fields,
        }
    }

    /// Takes out what this endpoint cannot change, and what nobody manages.
    fn restrict(&self, fields: &mut FieldSet) {
        let has_status = self.resource.versions[self.version].status;
        fields.children.retain(|element, _| match element.as_str() {
            "f:apiVersion" | "f:kind" => false,
            "f:status" => !has_status || !self.subresource.is_empty(),
            "f:metadata" => self.subresource.is_empty() || !self.resource.custom,
            _ => self.subresource.is_empty(),
        });
        if let Some(metadata) = fields.children.get_mut("f:metadata") {
            metadata.member = false;
            for name in UNMANAGED {
                metadata.children.remove(&set::field(name));
            }
            if metadata.is_empty() {
                fields.children.remove("f:metadata");
            }
        }
        fields.member = false;
    }

    fn comparison(&self, version: usize, old: &Value, new: &Value) -> Comparison {
        let mut comparison = Comparison::of(old, new, self.resource.shape(version));
        self.restrict(&mut comparison.changed);
        self.restrict(&mut comparison.removed);
        comparison
    }

    /// The differences in each of the versions that entries are kept in; an entry in a version that is no more is
    /// dropped.
    fn comparisons(
        &self,
        old: &Value,
        new: &Value,
        entries: &mut Vec<Entry>,
    ) -> Result<BTreeMap<String, Comparison>> {
        let own = self.api_version();
        let mut found = BTreeMap::from([(own.clone(), self.comparison(self.version, old, new))]);
        entries.retain(|entry| {
            self.resource.versions.iter().any(|version| version.api_version() == entry.api_version)
        });
        for (index, version) in self.resource.versions.iter().enumerate() {
            let name = version.api_version();
            if name == own || !entries.iter().any(|entry| entry.api_version == name) {
                continue;
            }
            let convert = |object: &Value| {
                let converted = self.resource.to_version(object.clone(), self.version, index);
                converted.map_err(|why| Failure::internal(format!("conversion failed: {why}")))
            };
            found.insert(name, self.comparison(index, &convert(old)?, &convert(new)?));
        }
        Ok(found)
    }

    /// The `managedFields` after an update to `new`, or a creation where there is no `old`.
    pub(crate) fn update(
        &self,
        old: Option<&Value>,
        new: &Value,
        requested: &Requested,
    ) -> Result<Option<Value>> {
        let known = || old.map(entries).unwrap_or_default();
        let mut entries = match requested {
            Requested::Reset => Vec::new(),
            Requested::Nothing => known(),
            Requested::Entries(list) => {
                decode(Some(list)).filter(|list| !list.is_empty()).unwrap_or_else(known)
            }
        };
        if old.is_some() && entries.is_empty() {
            // Nobody has kept books so far; the first apply will begin.
            return Ok(None);
        }
        let nothing = nothing(self.resource);
        let mut comparisons = self.comparisons(old.unwrap_or(&nothing), new, &mut entries)?;
        let mut own = self.entry(self.manager, Operation::Update, FieldSet::default());
        for entry in &mut entries {
            let Some(comparison) = comparisons.get(&entry.api_version) else { continue };
            if !entry.is_of(&own) {
                entry.fields.subtract(&comparison.changed);
            }
            entry.fields.subtract(&comparison.removed);
        }
        let changed = comparisons.remove(&self.api_version()).unwrap_or_default().changed;
        if let Some(known) = entries.iter_mut().find(|entry| entry.is_of(&own)) {
            let before = known.fields.clone();
            known.fields.unite(&changed);
            if known.fields != before {
                known.time = own.time;
            }
        } else {
            own.fields = changed;
            entries.push(own);
        }
        bound(&mut entries);
        Ok(encode(entries))
    }

    /// Lays an applied configuration over what is there, if anything, with its new owners noted. The configuration
    /// is of the kind and name asked for.
    pub(crate) fn apply(&self, live: Option<&Value>, mut config: Value, force: bool) -> Result<Value> {
        let shape = self.resource.shape(self.version);
        let faults = merge::faults(&config, shape);
        if !faults.is_empty() {
            return Err(self.untyped(&config, &faults));
        }
        self.narrow(&mut config);
        let nothing = json!({});
        let old = live.unwrap_or(&nothing);
        let mut entries = entries(old);
        if entries.is_empty() && live.is_some() {
            let empty = self::nothing(self.resource);
            let fields = self.comparison(self.version, &empty, old).changed;
            entries
                .push(Entry { subresource: String::new(), ..self.entry(BEFORE, Operation::Update, fields) });
        }
        let mut claims = merge::claimed(&config, shape);
        self.restrict(&mut claims);
        let mut own = self.entry(self.manager, Operation::Apply, claims);
        let position = entries.iter().position(|entry| entry.is_of(&own));
        let last = position.map(|index| entries.remove(index));

        let mut merged = old.clone();
        merge::merge(&mut merged, &config, shape);
        if let Some(last) = &last {
            let mut kept = own.fields.clone();
            for entry in &entries {
                kept.unite(&entry.fields);
            }
            merge::remove(&mut merged, shape, &last.fields, &kept);
        }
        let comparisons = self.comparisons(old, &merged, &mut entries)?;
        let mut conflicts = Vec::new();
        for entry in &mut entries {
            let Some(comparison) = comparisons.get(&entry.api_version) else { continue };
            let taken = entry.fields.intersection(&comparison.changed);
            conflicts.extend(taken.paths().into_iter().map(|path| (entry.shown(), path)));
            entry.fields.subtract(&taken);
            entry.fields.subtract(&comparison.removed);
        }
        if !conflicts.is_empty() && !force {
            return Err(conflict(conflicts));
        }
        if let Some(last) = last
            && last.fields == own.fields
            && last.api_version == own.api_version
            && comparisons.values().all(|found| found.changed.is_empty() && found.removed.is_empty())
        {
            own.time = last.time;
        }
        entries.push(own);
        object::set_meta(&mut merged, "managedFields", encode(entries));
        Ok(merged)
    }

    /// Leaves in a configuration what this endpoint writes.
    fn narrow(&self, config: &mut Value) {
        let has_status = self.resource.versions[self.version].status;
        let Some(map) = config.as_object_mut() else { return };
        if self.subresource.is_empty() {
            map.retain(|key, _| key != "status" || !has_status);
        } else {
            map.retain(|key, _| matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
        }
    }

    fn untyped(&self, config: &Value, faults: &[String]) -> Failure {
        let version = &self.resource.versions[self.version];
        let place = match object::namespace(config) {
            "" => object::name(config).to_owned(),
            namespace => format!("{namespace}/{}", object::name(config)),
        };
        let faults =
            if let [one] = faults { one.clone() } else { format!("errors:\n  {}", faults.join("\n  ")) };
        Failure::internal(format!(
            "failed to create typed patch object ({place}; {}, Kind={}): {faults}",
            version.api_version(),
            self.resource.kind
        ))
    }
}

/// What an object of a kind is before anything is in it. Go's types always have the structs that are no pointers: whoever
/// makes an object owns what is in those, and not that they are there.
fn nothing(resource: &Resource) -> Value {
    if resource.custom {
        return json!({});
    }
    match resource.plural.as_str() {
        "events" => json!({
            "eventTime": null, "firstTimestamp": null, "involvedObject": {}, "lastTimestamp": null,
            "reportingComponent": "", "reportingInstance": "", "source": {},
        }),
        "pods" => json!({ "spec": { "containers": [] }, "status": {} }),
        "persistentvolumeclaims" => json!({ "spec": { "resources": {} }, "status": {} }),
        "services" => json!({ "spec": {}, "status": { "loadBalancer": {} } }),
        "configmaps" | "secrets" | "serviceaccounts" | "roles" | "clusterroles" => json!({}),
        _ => json!({ "spec": {}, "status": {} }),
    }
}

/// Joins the oldest updates where there are too many.
fn bound(entries: &mut Vec<Entry>) {
    while entries.iter().filter(|entry| entry.operation == Operation::Update).count() > UPDATERS {
        let mut updates: Vec<usize> =
            (0..entries.len()).filter(|index| entries[*index].operation == Operation::Update).collect();
        updates.sort_by_key(|index| (entries[*index].manager != ANCIENT, entries[*index].time.clone()));
        let (Some(first), Some(second)) = (updates.first().copied(), updates.get(1).copied()) else { return };
        let younger = entries[second].clone();
        let oldest = &mut entries[first];
        ANCIENT.clone_into(&mut oldest.manager);
        oldest.subresource.clear();
        oldest.time = younger.time;
        oldest.fields.unite(&younger.fields);
        entries.remove(second);
    }
}

/// The refusal of a configuration, with everybody it takes something from.
fn conflict(conflicts: Vec<(String, String)>) -> Failure {
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|(manager, path)| {
            json!({ "reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": path })
        })
        .collect();
    let message = if let [(manager, path)] = conflicts.as_slice() {
        format!("Apply failed with 1 conflict: conflict with {manager}: {path}")
    } else {
        let count = conflicts.len();
        let mut managers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (manager, path) in conflicts {
            managers.entry(manager).or_default().push(format!("- {path}"));
        }
        let lists: Vec<String> = managers
            .into_iter()
            .map(|(manager, paths)| format!("conflicts with {manager}:\n{}", paths.join("\n")))
            .collect();
        format!("Apply failed with {count} conflicts: {}", lists.join("\n"))
    };
    Failure::apply_conflict(message, &causes)
}
