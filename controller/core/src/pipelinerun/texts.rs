//! Every text of a part of a spec. Pure.

use serde::Serialize;
use serde_json::Value;

/// Hands every string of a part to `each`, depth first. It walks the JSON form, so that no field is
/// forgotten.
pub(super) fn for_each(part: &impl Serialize, mut each: impl FnMut(&str)) {
    // Specs have string keys only, which is all serialisation can fail over.
    walk(&serde_json::to_value(part).unwrap_or_default(), &mut each);
}

fn walk(value: &Value, each: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(items) => items.iter().for_each(|item| walk(item, each)),
        Value::Object(fields) => fields.values().for_each(|field| walk(field, each)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
