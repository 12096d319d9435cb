//! What may change in a run that exists (contract 12.1). The old object decides whether the run is done.

use serde::Serialize;
use serde_json::Value;

use super::{FieldError, FieldErrors};

/// Maps, and structs that Go's types hold by value: clients in Go write them when they are empty, whatever they read.
/// Where a struct is held by a pointer, as `emptyDir` is, an empty one says something.
const EMPTY_IS_ABSENT: [&str; 11] = [
    "annotations",
    "computeResources",
    "labels",
    "limits",
    "matchLabels",
    "metadata",
    "nodeSelector",
    "requests",
    "resources",
    "status",
    "taskRunTemplate",
];

/// Whether two specs are the same to upstream, which compares Go values and holds nil and empty lists and maps equal:
/// clients in Go drop some of these and add others when they put back what they have read.
pub fn is_same_spec(a: &impl Serialize, b: &impl Serialize) -> bool {
    let plain = |spec: Result<Value, _>| {
        spec.ok().map(|mut spec: Value| {
            drop_empty(&mut spec);
            spec
        })
    };
    let (a, b) = (plain(serde_json::to_value(a)), plain(serde_json::to_value(b)));
    a.is_some() && a == b
}

fn drop_empty(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.retain(|name, value| {
            drop_empty(value);
            match value {
                Value::Null => false,
                // A param's empty list is a value.
                Value::Array(items) => !items.is_empty() || matches!(name.as_str(), "value" | "default"),
                Value::Object(fields) => !fields.is_empty() || !EMPTY_IS_ABSENT.contains(&name.as_str()),
                _ => true,
            }
        }),
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        _ => {}
    }
}

/// A change of a run's spec. `same(true)` compares the specs apart from the fields that ask a run to stop,
/// `same(false)` compares them whole; both hold specs equal that differ only by today's defaults.
pub(super) struct Change<'a, F: Fn(bool) -> bool> {
    /// Before and after; compared apart from the rest.
    pub(super) managed_by: (Option<&'a str>, Option<&'a str>),
    pub(super) same: F,
}

impl<F: Fn(bool) -> bool> Change<'_, F> {
    /// Paths from the spec on. `done` is the old object's state, `free` names what may change while it is not.
    pub(super) fn validate(&self, done: bool, kind: &str, free: &str) -> FieldErrors {
        let mut errors = FieldErrors::default();
        if self.managed_by.0 != self.managed_by.1 {
            // Upstream reports this path below a second `spec`.
            errors.push(FieldError::invalid("managedBy is immutable", "spec.managedBy"));
        }
        if !(self.same)(!done) {
            let text = if done {
                format!("Once the {kind} is complete, no updates are allowed")
            } else {
                format!("Once the {kind} has started, only {free} updates are allowed")
            };
            errors.push(FieldError::invalid(text, ""));
        }
        errors
    }
}
