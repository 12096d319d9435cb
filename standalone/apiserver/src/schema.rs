//! Structural schemas: dropping unknown fields, filling in defaults, checking types and bounds. Pure.
//!
//! The rules and messages are those of k8s.io/apiextensions-apiserver. `pattern` and `format` are not checked, and
//! rules in CEL are not run: no definition served here has any.

use serde_json::{Map, Value};

use crate::status::FieldError;

/// Fields of `ObjectMeta`.
const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or_default()
}

fn preserves(schema: &Value) -> bool {
    flag(schema, "x-kubernetes-preserve-unknown-fields")
}

fn property<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    schema
        .get("properties")
        .and_then(|properties| properties.get(key))
        .or_else(|| schema.get("additionalProperties").filter(|schema| schema.is_object()))
}

fn child(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Drops what the schema does not know, and returns the paths of what was dropped. `root` and embedded resources
/// keep `apiVersion`, `kind` and `metadata`.
pub(crate) fn prune(object: &mut Value, schema: Option<&Value>) -> Vec<String> {
    let mut dropped = Vec::new();
    if let Some(Value::Object(meta)) = object.get_mut("metadata") {
        meta.retain(|key, value| {
            let known = METADATA.contains(&key.as_str());
            if !known {
                dropped.push(child("metadata", key));
            }
            // Go's types leave out what is empty, and so nobody can tell it from what is missing.
            known && !is_empty(value)
        });
    }
    if let Some(schema) = schema {
        prune_value(object, schema, "", true, &mut dropped);
    }
    dropped
}

fn prune_value(value: &mut Value, schema: &Value, path: &str, resource: bool, dropped: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let resource = resource || flag(schema, "x-kubernetes-embedded-resource");
            let open = preserves(schema) || schema.get("additionalProperties") == Some(&Value::Bool(true));
            map.retain(|key, value| {
                if resource && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                    return true;
                }
                if let Some(schema) = property(schema, key) {
                    prune_value(value, schema, &child(path, key), false, dropped);
                    return true;
                }
                if !open {
                    dropped.push(child(path, key));
                }
                open
            });
        }
        Value::Array(list) => {
            if let Some(schema) = schema.get("items") {
                for (index, value) in list.iter_mut().enumerate() {
                    prune_value(value, schema, &format!("{path}[{index}]"), false, dropped);
                }
            }
        }
        _ => {}
    }
}

/// Fills in the schema's defaults, for missing fields and for nulls where null is not allowed.
pub(crate) fn default(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(map) => {
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                for (key, schema) in properties {
                    fill(map, key, schema);
                }
            }
            for (key, value) in map.iter_mut() {
                if let Some(schema) = property(schema, key) {
                    default(value, schema);
                }
            }
        }
        Value::Array(list) => {
            if let Some(schema) = schema.get("items") {
                for value in list {
                    default(value, schema);
                }
            }
        }
        _ => {}
    }
}

fn fill(map: &mut Map<String, Value>, key: &str, schema: &Value) {
    let Some(value) = schema.get("default") else { return };
    match map.get(key) {
        None => {}
        Some(Value::Null) if !flag(schema, "nullable") => {}
        Some(_) => return,
    }
    map.insert(key.to_owned(), value.clone());
}

/// Checks an object against the schema of its kind. Metadata is checked elsewhere.
pub(crate) fn validate(object: &Value, schema: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    validate_value(object, schema, "", &mut errors);
    errors
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn has_type(value: &Value, wanted: &str) -> bool {
    match (wanted, value) {
        ("integer", Value::Number(number)) => {
            number.as_f64().is_some_and(|number| number.fract().abs() < f64::EPSILON)
        }
        ("number", Value::Number(_)) => true,
        _ => type_name(value) == wanted,
    }
}

fn validate_value(value: &Value, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if value.is_null() && flag(schema, "nullable") {
        return;
    }
    let int_or_string = flag(schema, "x-kubernetes-int-or-string");
    if int_or_string && !value.is_string() && !has_type(value, "integer") {
        errors.push(wrong_type(value, path, "integer,string"));
        return;
    }
    if let Some(wanted) = schema.get("type").and_then(Value::as_str).filter(|wanted| !wanted.is_empty())
        && !has_type(value, wanted)
    {
        errors.push(wrong_type(value, path, wanted));
        return;
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        errors.push(FieldError::not_supported(path, value, allowed));
    }
    match value {
        Value::Object(map) => validate_map(map, schema, path, errors),
        Value::Array(list) => {
            check_count(value, schema, path, list.len(), ("minItems", "maxItems"), "items", errors);
            if let Some(schema) = schema.get("items") {
                for (index, value) in list.iter().enumerate() {
                    validate_value(value, schema, &format!("{path}[{index}]"), errors);
                }
            }
        }
        Value::String(text) => {
            let count = text.chars().count();
            check_count(value, schema, path, count, ("minLength", "maxLength"), "chars long", errors);
        }
        Value::Number(_) => check_bounds(value, schema, path, errors),
        Value::Null | Value::Bool(_) => {}
    }
    if !int_or_string {
        check_junctors(value, schema, path, errors);
    }
}

fn wrong_type(value: &Value, path: &str, wanted: &str) -> FieldError {
    let found = type_name(value);
    let message = format!("Invalid value: {found:?}: {path} in body must be of type {wanted}: {found:?}");
    FieldError { field: path.to_owned(), reason: "FieldValueTypeInvalid", message }
}

fn validate_map(map: &Map<String, Value>, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for key in
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    {
        if !map.contains_key(key) {
            errors.push(FieldError::required(child(path, key), ""));
        }
    }
    for (key, value) in map {
        if path.is_empty() && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        if let Some(schema) = property(schema, key) {
            validate_value(value, schema, &child(path, key), errors);
        }
    }
}

fn check_count(
    value: &Value,
    schema: &Value,
    path: &str,
    count: usize,
    (least, most): (&str, &str),
    unit: &str,
    errors: &mut Vec<FieldError>,
) {
    let bound =
        |key: &str| schema.get(key).and_then(Value::as_u64).and_then(|bound| usize::try_from(bound).ok());
    let verb = if unit == "items" { "should have" } else { "should be" };
    if let Some(bound) = bound(least)
        && count < bound
    {
        let why = format!("{path} in body {verb} at least {bound} {unit}");
        errors.push(FieldError::invalid(path, value, &why));
    }
    if let Some(bound) = bound(most)
        && count > bound
    {
        errors.push(FieldError::too_long(path, &format!("may not be more than {bound} {unit}")));
    }
}

fn check_bounds(value: &Value, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let Some(number) = value.as_f64() else { return };
    if let Some(bound) = schema.get("minimum")
        && bound.as_f64().is_some_and(|bound| number < bound)
    {
        let why = format!("{path} in body should be greater than or equal to {bound}");
        errors.push(FieldError::invalid(path, value, &why));
    }
    if let Some(bound) = schema.get("maximum")
        && bound.as_f64().is_some_and(|bound| number > bound)
    {
        let why = format!("{path} in body should be less than or equal to {bound}");
        errors.push(FieldError::invalid(path, value, &why));
    }
}

fn check_junctors(value: &Value, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let passes = |schema: &Value| {
        let mut errors = Vec::new();
        validate_value(value, schema, path, &mut errors);
        errors.is_empty()
    };
    let list = |key: &str| schema.get(key).and_then(Value::as_array);
    for schema in list("allOf").into_iter().flatten() {
        validate_value(value, schema, path, errors);
    }
    let mut refuse = |why: &str| {
        errors.push(FieldError::invalid(path, value, &format!("{path} in body must {why}")));
    };
    if list("anyOf").is_some_and(|any| !any.iter().any(passes)) {
        refuse("validate at least one schema (anyOf)");
    }
    if list("oneOf").is_some_and(|one| one.iter().filter(|schema| passes(schema)).count() != 1) {
        refuse("validate one and only one schema (oneOf)");
    }
    if schema.get("not").is_some_and(passes) {
        refuse("not validate the schema (not)");
    }
}
