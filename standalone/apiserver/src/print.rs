//! Tables: the columns kubectl prints, from the JSON paths of the resource table. Pure.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{object, read::partial, table::Version};

/// A `meta.k8s.io/v1` Table of these objects.
pub(crate) fn table(version: &Version, objects: &[Cow<'_, Value>], now: Timestamp) -> Value {
    let mut columns = vec![json!({
        "name": "Name", "type": "string", "format": "name", "description": "Name of the object", "priority": 0,
    })];
    columns.extend(version.columns.iter().map(|column| {
        json!({
            "name": column.name, "type": if column.kind == "date" { "string" } else { column.kind.as_str() },
            "format": "", "description": column.description, "priority": column.priority,
        })
    }));
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut cells = vec![Value::from(object::name(object))];
            cells.extend(
                version.columns.iter().map(|column| cell(object, &column.json_path, &column.kind, now)),
            );
            json!({ "cells": cells, "object": partial(object) })
        })
        .collect();
    let resource_version = match objects {
        [one] => object::resource_version(one),
        _ => "",
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": { "resourceVersion": resource_version },
        "columnDefinitions": columns, "rows": rows,
    })
}

fn cell(object: &Value, path: &str, kind: &str, now: Timestamp) -> Value {
    let found = find(object, path);
    match found {
        None | Some(Value::Null) => Value::Null,
        Some(value) if kind == "date" => match value.as_str().and_then(|text| text.parse::<Timestamp>().ok())
        {
            Some(time) => Value::from(age(now.duration_since(time).as_secs())),
            None => Value::from("<unknown>"),
        },
        Some(value @ (Value::Object(_) | Value::Array(_))) => Value::from(value.to_string()),
        Some(value) if kind == "string" && !value.is_string() => Value::from(value.to_string()),
        Some(value) => value.clone(),
    }
}

/// A duration as kubectl shortens it.
fn age(seconds: i64) -> String {
    let (minute, hour, day) = (60, 3600, 86400);
    let pair = |unit: i64, name: &str, small: i64, small_name: &str| {
        let rest = seconds % unit / small;
        let rest = if rest == 0 { String::new() } else { format!("{rest}{small_name}") };
        format!("{}{name}{rest}", seconds / unit)
    };
    match seconds {
        ..0 => "<invalid>".into(),
        s if s < 2 * minute => format!("{s}s"),
        s if s < 10 * minute => pair(minute, "m", 1, "s"),
        s if s < 3 * hour => format!("{}m", s / minute),
        s if s < 8 * hour => pair(hour, "h", minute, "m"),
        s if s < 2 * day => format!("{}h", s / hour),
        s if s < 8 * day => pair(day, "d", hour, "h"),
        s => format!("{}d", s / day),
    }
}

/// The first value at a JSON path of the kind printer columns use: keys, `[n]`, `[*]` and
/// `[?(@.key=="value")]`.
fn find<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let path = path.trim_start_matches('$');
    if path.is_empty() {
        return Some(value);
    }
    if let Some(rest) = path.strip_prefix('[') {
        let (inside, rest) = rest.split_once(']')?;
        let list = value.as_array()?;
        if let Some(filter) = inside.strip_prefix("?(@.").and_then(|filter| filter.strip_suffix(')')) {
            let (key, wanted) = filter.split_once("==")?;
            let wanted = wanted.trim().trim_matches(['"', '\'']);
            let matches = |entry: &&Value| entry.get(key.trim()).and_then(Value::as_str) == Some(wanted);
            return find(list.iter().find(matches)?, rest);
        }
        let index = if inside == "*" { 0 } else { inside.parse().ok()? };
        return find(list.get(index)?, rest);
    }
    let path = path.strip_prefix('.')?;
    // A dot in a key is written with a backslash before it.
    let mut key = String::new();
    let mut chars = path.char_indices();
    let mut end = path.len();
    while let Some((index, c)) = chars.next() {
        match c {
            '\\' => key.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => {
                end = index;
                break;
            }
            c => key.push(c),
        }
    }
    find(value.get(&key)?, &path[end..])
}
