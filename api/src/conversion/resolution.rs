//! ResolutionRequest between v1beta1, which is stored, and v1alpha1: there params are a map of strings, and neither `url`
//! nor the status' `source` exists. Pure.
//!
//! Upstream drops `url` and fails where a param is no string, and with it every list the object is in. Here both wait in
//! the annotation of [`Kept`].

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::is_empty;
use super::kept::Kept;
use crate::{schema, strict};

const KIND: &str = "ResolutionRequest";
/// Definitions of v1alpha1 stand beside those of v1beta1 under the same name with this before it.
const PREFIX: &str = "v1alpha1.";
const SPEC: &str = "ResolutionRequestSpec";
const STATUS: &str = "ResolutionRequestStatus";

const PARAMS: &str = "/spec/params";
/// What only v1beta1 has: the type it is in, its pointer, the part of the object and the name there.
const GONE: [(&str, &str, &str, &str); 2] =
    [(SPEC, "/spec/url", "spec", "url"), (STATUS, "/status/source", "status", "source")];

/// The definitions of v1alpha1, from those of v1beta1.
pub(crate) fn definitions(v1beta1: &Map<String, Value>) -> Map<String, Value> {
    let mut derived = Map::new();
    for name in [SPEC, STATUS] {
        let mut definition = v1beta1[name].clone();
        if let Some(properties) = definition.get_mut("properties").and_then(Value::as_object_mut) {
            for (_, _, _, field) in GONE.iter().filter(|(within, ..)| *within == name) {
                properties.remove(*field);
            }
            if let Some(Value::Object(params)) = properties.get_mut("params") {
                params.remove("items");
                params.insert("type".to_owned(), json!("object"));
                params.insert("additionalProperties".to_owned(), json!({"type": "string"}));
            }
        }
        derived.insert(format!("{PREFIX}{name}"), definition);
    }
    derived
}

/// The schema of an object in v1alpha1, from that in v1beta1.
pub(crate) fn referring(mut root: Value) -> Value {
    for (part, name) in [("spec", SPEC), ("status", STATUS)] {
        root["properties"][part] = json!({"$ref": format!("{}{PREFIX}{name}", schema::DEFINITIONS)});
    }
    root
}

/// Makes an object of v1beta1 one of v1alpha1.
pub(super) fn to_v1alpha1(object: &mut Value) {
    let mut kept = Kept::default();
    if let Some(Value::Array(list)) = object.pointer(PARAMS) {
        let map: Map<_, _> =
            list.iter().filter_map(|param| Some((name(param)?.to_owned(), text(param)?.into()))).collect();
        if as_list(&map) != *list {
            kept.insert(PARAMS.to_owned(), Value::Array(list.clone()));
        }
        object["spec"]["params"] = Value::Object(map);
    }
    for (_, pointer, part, field) in GONE {
        let fields = object.get_mut(part).and_then(Value::as_object_mut);
        if let Some(value) = fields.and_then(|fields| fields.remove(field)).filter(|value| !is_empty(value)) {
            kept.insert(pointer.to_owned(), value);
        }
    }
    kept.store(KIND, object);
}

/// Makes an object of v1alpha1 one of v1beta1.
pub(super) fn to_v1beta1(object: &mut Value) {
    let mut kept = Kept::load(KIND, object);
    let listed = kept.get(PARAMS).filter(|value| fits(SPEC, "params", value)).and_then(Value::as_array);
    // Clients leave an empty map out.
    let map = match object.pointer(PARAMS) {
        Some(Value::Object(map)) => Some(map.clone()),
        None | Some(Value::Null) => listed.is_some().then(Map::new),
        Some(_) => None,
    };
    if let (Some(map), Some(Value::Object(spec))) = (map, object.get_mut("spec")) {
        let (params, used) = match listed {
            Some(listed) => (merged(listed, map), true),
            None => (as_list(&map), false),
        };
        spec.insert("params".to_owned(), Value::Array(params));
        if used {
            kept.remove(PARAMS);
        }
    }
    for (within, pointer, part, field) in GONE {
        let Some(Value::Object(fields)) = object.get_mut(part) else { continue };
        // Annotations are written by anybody.
        let there = fields.contains_key(field);
        let value = kept.get(pointer).filter(|value| !there && fits(within, field, value));
        if let Some(value) = value.cloned() {
            fields.insert(field.to_owned(), value);
            kept.remove(pointer);
        }
    }
    kept.store(KIND, object);
}

fn as_list(map: &Map<String, Value>) -> Vec<Value> {
    map.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}

/// The params of `listed`, with those that v1alpha1 can show as `map` has them now.
fn merged(listed: &[Value], mut map: Map<String, Value>) -> Vec<Value> {
    let shown: BTreeSet<String> =
        listed.iter().filter(|param| text(param).is_some()).filter_map(name).map(str::to_owned).collect();
    let gone: BTreeSet<_> = shown.iter().filter(|name| !map.contains_key(*name)).cloned().collect();
    let mut params = Vec::new();
    // Of several with one name the last one is shown.
    for param in listed.iter().rev() {
        let mut param = param.clone();
        if let Some(name) = name(&param).map(str::to_owned) {
            if text(&param).is_some() {
                match map.remove(&name) {
                    Some(value) => param["value"] = value,
                    None if gone.contains(&name) => continue,
                    None => {}
                }
            } else if !shown.contains(&name) && map.contains_key(&name) {
                // Somebody has given it a value that can be shown.
                continue;
            }
        }
        params.push(param);
    }
    params.reverse();
    params.extend(as_list(&map));
    params
}

fn name(param: &Value) -> Option<&str> {
    param.get("name")?.as_str()
}

fn text(param: &Value) -> Option<&str> {
    param.get("value")?.as_str()
}

/// Whether the value is one for this field of v1beta1.
fn fits(within: &str, field: &str, value: &Value) -> bool {
    let definition = schema::definition(within);
    let property = definition.and_then(|definition| definition["properties"].get(field));
    property.is_some_and(|property| strict::fits(property, value))
}
