//! Reading and changing the metadata of an object that is a plain JSON value. Pure.

use std::io;

use jiff::Timestamp;
use serde_json::{Map, Value};

/// Largest object, in bytes of JSON: what etcd takes by default. Each body is bounded, but not what many patches add up to.
pub(crate) const OBJECT_LIMIT: usize = 3 * 512 * 1024;

/// The finalizer of foreground deletion.
pub(crate) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of a deletion that leaves dependents behind.
pub(crate) const ORPHAN: &str = "orphan";

/// One entry of `metadata.ownerReferences`.
pub(crate) struct Owner<'a> {
    pub(crate) uid: &'a str,
    pub(crate) api_version: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
    pub(crate) blocks: bool,
}

/// Whether an object is no larger than [`OBJECT_LIMIT`].
pub(crate) fn fits(object: &Value) -> bool {
    serde_json::to_writer(Room(OBJECT_LIMIT), object).is_ok()
}

/// Takes so many bytes and no more.
struct Room(usize);

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The value at a dotted path of object keys.
pub(crate) fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |value, key| value.get(key))
}

/// The string at a dotted path, empty where there is none.
pub(crate) fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

fn meta<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    object.get("metadata")?.get(key)
}

fn meta_text<'a>(object: &'a Value, key: &str) -> &'a str {
    meta(object, key).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn name(object: &Value) -> &str {
    meta_text(object, "name")
}

pub(crate) fn namespace(object: &Value) -> &str {
    meta_text(object, "namespace")
}

pub(crate) fn uid(object: &Value) -> &str {
    meta_text(object, "uid")
}

pub(crate) fn resource_version(object: &Value) -> &str {
    meta_text(object, "resourceVersion")
}

pub(crate) fn is_deleting(object: &Value) -> bool {
    meta(object, "deletionTimestamp").is_some_and(|stamp| !stamp.is_null())
}

/// Seconds of grace of a deletion in progress.
pub(crate) fn grace(object: &Value) -> Option<i64> {
    meta(object, "deletionGracePeriodSeconds").and_then(Value::as_i64)
}

pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    strings(meta(object, "finalizers"))
}

fn strings(list: Option<&Value>) -> Vec<&str> {
    list.and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

pub(crate) fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    meta(object, "labels")?.get(key)?.as_str()
}

pub(crate) fn owners(object: &Value) -> Vec<Owner<'_>> {
    let Some(list) = meta(object, "ownerReferences").and_then(Value::as_array) else { return Vec::new() };
    list.iter()
        .map(|owner| Owner {
            uid: text(owner, "uid"),
            api_version: text(owner, "apiVersion"),
            kind: text(owner, "kind"),
            name: text(owner, "name"),
            blocks: owner.get("blockOwnerDeletion").and_then(Value::as_bool).unwrap_or_default(),
        })
        .collect()
}

/// The map at `key`, made where it is missing or not a map.
pub(crate) fn map_mut<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    let parent = as_map(object);
    as_map(parent.entry(key).or_insert_with(|| Value::Object(Map::new())))
}

fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object just above"),
    }
}

pub(crate) fn meta_mut(object: &mut Value) -> &mut Map<String, Value> {
    map_mut(object, "metadata")
}

/// Sets `metadata.<key>`, or removes it where the value is `None` or null.
pub(crate) fn set_meta(object: &mut Value, key: &str, value: Option<Value>) {
    match value.filter(|value| !value.is_null()) {
        Some(value) => meta_mut(object).insert(key.to_owned(), value),
        None => meta_mut(object).remove(key),
    };
}

/// Copies `metadata.<key>` of `from`, absence included.
pub(crate) fn copy_meta(object: &mut Value, from: &Value, key: &str) {
    set_meta(object, key, meta(from, key).cloned());
}

/// Sets or, with `None`, removes a top-level field.
pub(crate) fn set_field(object: &mut Value, key: &str, value: Option<Value>) {
    match value {
        Some(value) => as_map(object).insert(key.to_owned(), value),
        None => as_map(object).remove(key),
    };
}

/// Keeps the entries of the list `metadata.<key>` that pass, and drops an empty list altogether.
pub(crate) fn retain_meta(object: &mut Value, key: &str, keep: impl FnMut(&Value) -> bool) {
    let map = meta_mut(object);
    if let Some(Value::Array(list)) = map.get_mut(key) {
        list.retain(keep);
        if list.is_empty() {
            map.remove(key);
        }
    }
}

/// Changes each entry of `metadata.ownerReferences`.
pub(crate) fn each_owner(object: &mut Value, change: impl FnMut(&mut Map<String, Value>)) {
    if let Some(Value::Array(list)) = meta_mut(object).get_mut("ownerReferences") {
        list.iter_mut().filter_map(Value::as_object_mut).for_each(change);
    }
}

pub(crate) fn add_finalizer(object: &mut Value, finalizer: &str) {
    let list = meta_mut(object).entry("finalizers").or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(list) = list
        && !list.iter().any(|entry| entry.as_str() == Some(finalizer))
    {
        list.push(Value::from(finalizer));
    }
}

/// A time as Kubernetes writes it: RFC 3339 in UTC, whole seconds.
pub(crate) fn stamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
