//! Tables: the columns kubectl prints, from the JSON paths of the resource table, or of a kind's own. Pure.

mod builtin;

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    object,
    read::partial,
    route::Query,
    status::{Failure, Result},
    table::{Behaviour, Resource, Version},
};

/// What the rows of a table carry besides their cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    /// Nothing.
    Nothing,
    /// The object's metadata, without the query's asking.
    Metadata,
    /// The whole object.
    Object,
}

impl Include {
    /// `includeObject` of a query.
    pub(crate) fn of(query: &Query) -> Result<Self> {
        match query.text("includeObject") {
            "None" => Ok(Self::Nothing),
            "" | "Metadata" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            other => Err(Failure::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        }
    }
}

/// A `meta.k8s.io/v1` Table of these objects, which are in the version with this index.
pub(crate) fn table(
    resource: &Resource,
    version: usize,
    objects: &[Cow<'_, Value>],
    include: Include,
    now: Timestamp,
) -> Value {
    let version = &resource.versions[version];
    let own = builtin::printer(&resource.plural).filter(|_| !resource.custom);
    let columns = match &own {
        Some(own) => own
            .columns
            .iter()
            .map(|(name, kind, format, priority)| definition(name, kind, format, "", i64::from(*priority)))
            .collect(),
        None => defined(version, resource.custom),
    };
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let cells = if let Some(own) = &own {
                (own.cells)(object, now)
            } else {
                let found = version.columns.iter();
                let found = found.map(|column| cell(object, &column.json_path, &column.kind, now));
                std::iter::once(Value::from(object::name(object))).chain(found).collect()
            };
            let shown = match include {
                Include::Nothing => Value::Null,
                Include::Metadata => partial(object),
                Include::Object => object.clone().into_owned(),
            };
            let mut row = json!({ "cells": cells, "object": shown });
            if let Some(condition) = completed(resource, object) {
                row["conditions"] = json!([condition]);
            }
            row
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

/// What a row says of a pod that has ended, so that clients can leave it out.
fn completed(resource: &Resource, object: &Value) -> Option<Value> {
    let (reason, message) = match object::text(object, "status.phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    (resource.behaviour == Behaviour::Pod)
        .then(|| json!({ "type": "Completed", "status": "True", "reason": reason, "message": message }))
}

fn definition(name: &str, kind: &str, format: &str, description: &str, priority: i64) -> Value {
    json!({ "name": name, "type": kind, "format": format, "description": description, "priority": priority })
}

/// The name, and what the resource table says.
fn defined(version: &Version, custom: bool) -> Vec<Value> {
    let mut columns = vec![definition("Name", "string", "name", "", 0)];
    columns.extend(version.columns.iter().map(|column| {
        // Kubernetes' own kinds call an age what it is in the cell; definitions say what it is in the object.
        let kind = if column.kind == "date" && !custom { "string" } else { &column.kind };
        definition(&column.name, kind, "", &column.description, column.priority)
    }));
    columns
}

fn cell(object: &Value, path: &str, kind: &str, now: Timestamp) -> Value {
    let found = find(object, path);
    match found {
        None | Some(Value::Null) => Value::Null,
        Some(value) if kind == "date" => Value::from(since(value.as_str().unwrap_or_default(), now)),
        Some(value @ (Value::Object(_) | Value::Array(_))) => Value::from(value.to_string()),
        Some(value) if kind == "string" && !value.is_string() => Value::from(value.to_string()),
        Some(value) => value.clone(),
    }
}

/// How long ago a time is, as kubectl shortens it.
fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => age(now.duration_since(time).as_secs()),
        Err(_) => "<unknown>".into(),
    }
}

fn age(seconds: i64) -> String {
    let (minute, hour, day, year) = (60, 3600, 86400, 365 * 86400);
    let pair = |unit: i64, name: &str, small: i64, small_name: &str| {
        let rest = seconds % unit / small;
        let rest = if rest == 0 { String::new() } else { format!("{rest}{small_name}") };
        format!("{}{name}{rest}", seconds / unit)
    };
    match seconds {
        ..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        s if s < 2 * minute => format!("{s}s"),
        s if s < 10 * minute => pair(minute, "m", 1, "s"),
        s if s < 3 * hour => format!("{}m", s / minute),
        s if s < 8 * hour => pair(hour, "h", minute, "m"),
        s if s < 2 * day => format!("{}h", s / hour),
        s if s < 8 * day => pair(day, "d", hour, "h"),
        s if s < 2 * year => format!("{}d", s / day),
        s if s < 8 * year => pair(year, "y", day, "d"),
        s => format!("{}y", s / year),
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
