//! What two versions of an object differ in, merging an applied configuration, removing what is no longer applied.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::set::{self, FieldSet};
use crate::types::{ListKind, Shape};

/// The elements of a list by path element; `None` where the list is one value, or an element cannot be told apart.
fn elements<'a>(list: &'a [Value], shape: Shape<'_>) -> Option<Vec<(String, &'a Value)>> {
    let kind = shape.list();
    let mut seen = BTreeSet::new();
    let mut found = Vec::with_capacity(list.len());
    for value in list {
        let element = match &kind {
            ListKind::Atomic => return None,
            ListKind::Set => set::value(value),
            ListKind::Map(keys) => key_of(value, keys, shape.items())?,
        };
        if !seen.insert(element.clone()) {
            return None;
        }
        found.push((element, value));
    }
    (kind != ListKind::Atomic).then_some(found)
}

fn key_of(value: &Value, keys: &[&str], shape: Shape<'_>) -> Option<String> {
    let mut found = BTreeMap::new();
    for key in keys {
        found.insert(*key, value.get(*key).or_else(|| shape.default_of(key))?);
    }
    Some(set::key(found))
}

fn field<'a>(shape: Shape<'a>, key: &str) -> Shape<'a> {
    shape.field(key).unwrap_or(Shape::unknown())
}

/// What changed between two versions of an object.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// What is there now and was not, or is another value than before.
    pub(super) changed: FieldSet,
    pub(super) removed: FieldSet,
}

impl Comparison {
    pub(super) fn of(old: &Value, new: &Value, shape: Shape<'_>) -> Self {
        let mut comparison = Self::default();
        compare(old, new, shape, &mut comparison.changed, &mut comparison.removed);
        comparison
    }
}

fn compare(old: &Value, new: &Value, shape: Shape<'_>, changed: &mut FieldSet, removed: &mut FieldSet) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) if !shape.is_atomic_map() => {
            for (key, value) in new {
                let (element, shape) = (set::field(key), field(shape, key));
                match old.get(key) {
                    Some(old) if old == value => {}
                    Some(old) => {
                        let removed = removed.child(element.clone());
                        compare(old, value, shape, changed.child(element), removed);
                    }
                    None => whole(value, shape, changed.child(element)),
                }
            }
            for (key, value) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
                whole(value, field(shape, key), removed.child(set::field(key)));
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            let (Some(before), Some(after)) = (elements(before, shape), elements(after, shape)) else {
                changed.member |= before != after;
                return;
            };
            let known: BTreeMap<&str, &Value> =
                before.iter().map(|(key, value)| (key.as_str(), *value)).collect();
            for (element, value) in &after {
                match known.get(element.as_str()) {
                    Some(old) => {
                        let removed = removed.child(element.clone());
                        compare(old, value, shape.items(), changed.child(element.clone()), removed);
                    }
                    None => whole(value, shape.items(), changed.child(element.clone())),
                }
            }
            let kept: BTreeSet<&str> = after.iter().map(|(element, _)| element.as_str()).collect();
            for (element, value) in before.iter().filter(|(element, _)| !kept.contains(element.as_str())) {
                whole(value, shape.items(), removed.child(element.clone()));
            }
        }
        (old, new) => changed.member |= old != new,
    }
}

/// A value with everything in it.
fn whole(value: &Value, shape: Shape<'_>, found: &mut FieldSet) {
    found.member = true;
    each(value, shape, |element, value, shape| whole(value, shape, found.child(element)));
}

/// Visits the parts of a value that are told apart.
fn each<'a>(value: &'a Value, shape: Shape<'_>, mut visit: impl FnMut(String, &'a Value, Shape<'_>)) {
    match value {
        Value::Object(map) if !shape.is_atomic_map() => {
            for (key, value) in map {
                visit(set::field(key), value, field(shape, key));
            }
        }
        Value::Array(list) => {
            for (element, value) in elements(list, shape).into_iter().flatten() {
                visit(element, value, shape.items());
            }
        }
        _ => {}
    }
}

/// What an applied configuration lays claim to: its leaves, and the elements of its lists.
pub(super) fn claimed(config: &Value, shape: Shape<'_>) -> FieldSet {
    let mut claims = FieldSet::default();
    claim(config, shape, &mut claims);
    claims.member = false;
    claims
}

fn claim(value: &Value, shape: Shape<'_>, claims: &mut FieldSet) {
    let mut leaf = true;
    each(value, shape, |element, value, shape| {
        leaf = false;
        let is_field = element.starts_with("f:");
        let child = claims.child(element);
        claim(value, shape, child);
        child.member |= !is_field;
    });
    claims.member |= leaf;
}

/// Why a configuration cannot be applied, place by place.
pub(super) fn faults(config: &Value, shape: Shape<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    check(config, shape, "", &mut faults);
    faults
}

fn check(value: &Value, shape: Shape<'_>, path: &str, faults: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = format!("{path}.{key}");
                match shape.field(key) {
                    Some(shape) => check(value, shape, &path, faults),
                    None => faults.push(format!("{path}: field not declared in schema")),
                }
            }
        }
        Value::Array(list) => {
            let kind = shape.list();
            let mut seen = BTreeSet::new();
            for (index, value) in list.iter().enumerate() {
                let element = match &kind {
                    ListKind::Atomic => None,
                    ListKind::Set => Some(set::value(value)),
                    ListKind::Map(keys) => {
                        let element = key_of(value, keys, shape.items());
                        if element.is_none() {
                            let missing = keys.iter().find(|key| value.get(**key).is_none()).copied();
                            faults.push(format!(
                                "{path}: element {index}: associative list with keys has an element that omits key field \
                                 {:?} (and doesn't have default value)",
                                missing.unwrap_or_default()
                            ));
                        }
                        element
                    }
                };
                let place = match element {
                    Some(element) => {
                        let mut one = FieldSet::default();
                        one.child(element.clone()).member = true;
                        let shown = one.paths().concat();
                        if !seen.insert(element) {
                            faults.push(format!("{path}: duplicate entries for key {shown}"));
                        }
                        format!("{path}{shown}")
                    }
                    None => format!("{path}[{index}]"),
                };
                check(value, shape.items(), &place, faults);
            }
        }
        _ => {}
    }
}

/// Lays a configuration over an object.
pub(super) fn merge(live: &mut Value, config: &Value, shape: Shape<'_>) {
    match (live, config) {
        (Value::Object(live), Value::Object(config)) if !shape.is_atomic_map() => {
            for (key, value) in config {
                match live.get_mut(key) {
                    Some(known) => merge(known, value, field(shape, key)),
                    None => {
                        live.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(live), Value::Array(config)) => {
            let applied = elements(config, shape);
            let order =
                elements(live, shape).map(|known| known.into_iter().map(|(element, _)| element).collect());
            let (Some(applied), Some(order)) = (applied, order) else {
                live.clone_from(config);
                return;
            };
            let order: Vec<String> = order;
            for (element, value) in applied {
                match order.iter().position(|known| *known == element) {
                    Some(index) => merge(&mut live[index], value, shape.items()),
                    None => live.push(value.clone()),
                }
            }
        }
        (live, config) => live.clone_from(config),
    }
}

/// Removes what is in `gone` and neither itself nor in any part in `kept`.
pub(super) fn remove(value: &mut Value, shape: Shape<'_>, gone: &FieldSet, kept: &FieldSet) {
    let nothing = FieldSet::default();
    // Whether a part goes as a whole, is looked into, or stays.
    let goes =
        |element: &str| gone.get(element).is_some_and(|gone| gone.member) && kept.get(element).is_none();
    match value {
        Value::Object(map) if !shape.is_atomic_map() => {
            map.retain(|key, value| {
                let element = set::field(key);
                if goes(&element) {
                    return false;
                }
                let Some(gone) = gone.get(&element) else { return true };
                let had = !is_hollow(value);
                remove(value, field(shape, key), gone, kept.get(&element).unwrap_or(&nothing));
                // What it held was all there was to it.
                !(had && is_hollow(value) && kept.get(&element).is_none())
            });
        }
        Value::Array(list) => {
            let Some(known) = elements(list, shape) else { return };
            let order: Vec<String> = known.into_iter().map(|(element, _)| element).collect();
            let mut order = order.iter();
            list.retain_mut(|value| {
                let Some(element) = order.next() else { return true };
                if goes(element) {
                    return false;
                }
                if let Some(gone) = gone.get(element) {
                    remove(value, shape.items(), gone, kept.get(element).unwrap_or(&nothing));
                }
                true
            });
        }
        _ => {}
    }
}

fn is_hollow(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}
