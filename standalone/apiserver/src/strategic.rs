//! Strategic merge patch for the built-in kinds: lists of objects merge by a key, `$patch` directives apply. Pure.

use serde_json::{Map, Value};

/// The key by which the elements of a list merge; `None` for lists that are replaced as a whole. Taken from the
/// `patchMergeKey` tags of k8s.io/api; field names do not repeat there with different keys, but for `ports`.
fn merge_keys(field: &str) -> &'static [&'static str] {
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "env"
        | "volumes"
        | "imagePullSecrets"
        | "secrets"
        | "resourceClaims"
        | "schedulingGates" => &["name"],
        "volumeMounts" => &["mountPath"],
        "volumeDevices" => &["devicePath"],
        // Containers, then services.
        "ports" => &["containerPort", "port"],
        "ownerReferences" => &["uid"],
        "conditions" | "addresses" => &["type"],
        "hostAliases" | "podIPs" | "hostIPs" => &["ip"],
        "topologySpreadConstraints" => &["topologyKey"],
        _ => &[],
    }
}

/// Applies a strategic merge patch.
pub(crate) fn merge(object: &mut Value, patch: Value) {
    if let Value::Object(patch) = patch {
        merge_map(object, patch);
    }
}

fn merge_map(target: &mut Value, mut patch: Map<String, Value>) {
    match patch.remove("$patch").as_ref().and_then(Value::as_str) {
        Some("replace") => {
            *target = Value::Object(patch);
            return;
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return;
        }
        _ => {}
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(map) = target.as_object_mut() else { return };
    if let Some(Value::Array(keep)) = patch.remove("$retainKeys") {
        map.retain(|key, _| keep.iter().any(|kept| kept.as_str() == Some(key)));
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(list)), Value::Array(gone)) = (map.get_mut(field), &value) {
                list.retain(|entry| !gone.contains(entry));
            }
            continue;
        }
        // The order of elements is kept as it is; `$setElementOrder` only asks for a nicer one.
        if key.starts_with('$') {
            continue;
        }
        match value {
            Value::Null => {
                map.remove(&key);
            }
            Value::Object(patch) => merge_map(map.entry(key).or_insert(Value::Null), patch),
            Value::Array(patch) => {
                let field = key.clone();
                merge_list(map.entry(key).or_insert_with(|| Value::Array(Vec::new())), patch, &field);
            }
            value => {
                map.insert(key, value);
            }
        }
    }
}

fn directive(value: &Value) -> Option<&str> {
    value.get("$patch").and_then(Value::as_str)
}

fn merge_list(target: &mut Value, mut patch: Vec<Value>, field: &str) {
    let replaced = patch.iter().any(|entry| directive(entry) == Some("replace"));
    patch.retain(|entry| {
        !(directive(entry) == Some("replace") && entry.as_object().is_some_and(|map| map.len() == 1))
    });
    let Value::Array(list) = target else {
        *target = Value::Array(patch);
        return;
    };
    // Finalizers are the one list of plain strings that merges as a set.
    if field == "finalizers" && !replaced {
        for entry in patch {
            if !list.contains(&entry) {
                list.push(entry);
            }
        }
        return;
    }
    let keys = merge_keys(field);
    if replaced || keys.is_empty() {
        *list = patch;
        return;
    }
    for entry in patch {
        let key = keys.iter().find(|key| entry.get(**key).is_some());
        let same = |known: &Value| key.is_some_and(|key| known.get(*key) == entry.get(*key));
        let position = list.iter().position(same);
        match (position, directive(&entry)) {
            (Some(index), Some("delete")) => {
                list.remove(index);
            }
            (None, Some("delete")) => {}
            (Some(index), _) => merge(&mut list[index], entry),
            (None, _) => {
                // Merged onto nothing, so that directives inside do not end up in the object.
                let mut fresh = Value::Object(Map::new());
                merge(&mut fresh, entry);
                list.push(fresh);
            }
        }
    }
}

#[cfg(test)]
mod tests;
