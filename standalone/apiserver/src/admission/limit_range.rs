//! `LimitRange`: what containers ask for when they do not say, and the least and the most that containers, pods and
//! claims may ask for, in kube-apiserver's words. Pure.

use std::collections::BTreeSet;

use ropewalk_quantity::Quantity;
use serde_json::{Map, Value};

use crate::{
    object,
    resources::{self, Resources, Side},
    state::State,
    status::{Failure, Result},
    table::{Behaviour, Resource},
};

/// Where a pod says what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// The lists of containers, as their fields and as the words for their members.
const LISTS: [(&str, &str); 2] = [("containers", "container"), ("initContainers", "init container")];

/// Completes a `LimitRange` as it is written: the limit that containers get by default is the most they may have, and
/// what they ask for by default is that limit, or else the least they must.
pub(crate) fn complete(range: &mut Value) {
    let limits = range.get_mut("spec").and_then(|spec| spec.get_mut("limits")).and_then(Value::as_array_mut);
    for item in limits.into_iter().flatten().filter(|item| item["type"] == "Container") {
        for (field, source) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")]
        {
            let Some(from) = item.get(source).and_then(Value::as_object).cloned() else { continue };
            let into = object::map_mut(item, field);
            for (name, quantity) in from {
                into.entry(name).or_insert(quantity);
            }
        }
    }
}

/// Fills in what a new pod leaves open from the ranges of its namespace.
pub(super) fn fill(state: &State, pod: &mut Value) {
    for range in ranges(state, pod) {
        fill_from(&range, pod);
    }
}

fn fill_from(range: &Value, pod: &mut Value) {
    let mut requests = Value::Object(Map::new());
    let mut limits = Value::Object(Map::new());
    for item in items(range, "Container") {
        for (field, into) in [("defaultRequest", &mut requests), ("default", &mut limits)] {
            for (name, quantity) in item.get(field).and_then(Value::as_object).into_iter().flatten() {
                into[name] = quantity.clone();
            }
        }
    }
    let mut told = Vec::new();
    for (list, word) in LISTS {
        for container in containers_mut(pod, list) {
            for (field, noun, defaults) in [("requests", "request", &requests), ("limits", "limit", &limits)]
            {
                let set = merge(container, field, defaults);
                if !set.is_empty() {
                    let names = set.into_iter().collect::<Vec<_>>().join(", ");
                    told.push(format!("{names} {noun} for {word} {}", object::text(container, "name")));
                }
            }
        }
    }
    if !told.is_empty() {
        let text = format!("LimitRanger plugin set: {}", told.join("; "));
        let annotations =
            object::meta_mut(pod).entry("annotations").or_insert_with(|| Value::Object(Map::new()));
        annotations[ANNOTATION] = Value::from(text);
    }
}

/// Sets the amounts a container does not state, and returns their names.
fn merge(container: &mut Value, field: &str, defaults: &Value) -> BTreeSet<String> {
    let mut set = BTreeSet::new();
    let known = container.get("resources").and_then(|both| both.get(field)).cloned();
    for (name, quantity) in defaults.as_object().into_iter().flatten() {
        if known.as_ref().and_then(|known| known.get(name)).is_none() {
            object::map_mut(container, "resources");
            object::map_mut(&mut container["resources"], field).insert(name.clone(), quantity.clone());
            set.insert(name.clone());
        }
    }
    set
}

/// Refuses a pod or a claim that asks for less or more than a range of its namespace allows. `old` is what the claim
/// was before, where it was there: what it asked for already is not judged again.
pub(super) fn admit(state: &State, resource: &Resource, old: Option<&Value>, object: &Value) -> Result<()> {
    let faults = |range: &Value| match resource.behaviour {
        Behaviour::Pod if old.is_none() => of_pod(range, object),
        Behaviour::PersistentVolumeClaim => of_claim(range, old, object),
        _ => Vec::new(),
    };
    if !matches!(resource.behaviour, Behaviour::Pod | Behaviour::PersistentVolumeClaim) {
        return Ok(());
    }
    for range in ranges(state, object) {
        let found = faults(&range);
        let why = if let [one] = found.as_slice() { one.clone() } else { format!("[{}]", found.join(", ")) };
        if !found.is_empty() {
            return Err(Failure::forbidden(resource, object::name(object), &why));
        }
    }
    Ok(())
}

fn of_pod(range: &Value, pod: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    for item in items(range, "Container") {
        for (list, _) in LISTS {
            let spec = pod.get("spec").and_then(|spec| spec.get(list)).and_then(Value::as_array);
            for container in spec.into_iter().flatten() {
                check(item, &Side::Requests.of(container), &Side::Limits.of(container), &mut faults);
            }
        }
    }
    for item in items(range, "Pod") {
        let [requests, limits] = [Side::Requests, Side::Limits].map(|side| resources::of_pod(pod, side));
        check(item, &requests, &limits, &mut faults);
    }
    faults
}

fn of_claim(range: &Value, old: Option<&Value>, claim: &Value) -> Vec<String> {
    let asked = |claim: &Value| Side::Requests.of(claim.get("spec").unwrap_or(&Value::Null));
    let (before, requests) = (old.map(asked).unwrap_or_default(), asked(claim));
    let mut faults = Vec::new();
    for item in items(range, "PersistentVolumeClaim") {
        let changed = |name: &String| !before.contains_key(name) || before.get(name) != requests.get(name);
        for (name, least) in bounds(item, "min").into_iter().filter(|(name, _)| changed(name)) {
            faults.extend(too_little(item, &name, least, requests.get(&name), None));
        }
        for (name, most) in bounds(item, "max").into_iter().filter(|(name, _)| changed(name)) {
            faults.extend(match requests.get(&name) {
                None => Some(format!("{}.  No request is specified", bound("maximum", item, &name, most))),
                Some(request) => over(item, &name, most, "request", *request),
            });
        }
    }
    faults
}

/// Holds what is asked for, and may be used, against one item of a range.
fn check(item: &Value, requests: &Resources, limits: &Resources, faults: &mut Vec<String>) {
    for (name, least) in bounds(item, "min") {
        faults.extend(too_little(item, &name, least, requests.get(&name), limits.get(&name)));
    }
    for (name, most) in bounds(item, "max") {
        faults.extend(match (limits.get(&name), requests.get(&name)) {
            (None, _) => Some(format!("{}.  No limit is specified", bound("maximum", item, &name, most))),
            (Some(limit), request) => over(item, &name, most, "limit", *limit)
                .or_else(|| request.and_then(|request| over(item, &name, most, "request", *request))),
        });
    }
    for (name, most) in bounds(item, "maxLimitRequestRatio") {
        faults.extend(too_far_apart(item, &name, most, requests.get(&name), limits.get(&name)));
    }
}

/// `minimum cpu usage per Container is 100m`
fn bound(which: &str, item: &Value, name: &str, enforced: Quantity) -> String {
    format!("{which} {name} usage per {} is {enforced}", object::text(item, "type"))
}

fn too_little(
    item: &Value,
    name: &str,
    least: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let text = bound("minimum", item, name, least);
    match (request, limit) {
        (None, _) => Some(format!("{text}.  No request is specified")),
        (Some(request), _) if *request < least => Some(format!("{text}, but request is {request}")),
        (_, Some(limit)) if *limit < least => Some(format!("{text}, but limit is {limit}")),
        _ => None,
    }
}

fn over(item: &Value, name: &str, most: Quantity, what: &str, found: Quantity) -> Option<String> {
    (found > most).then(|| format!("{}, but {what} is {found}", bound("maximum", item, name, most)))
}

fn too_far_apart(
    item: &Value,
    name: &str,
    most: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let text = format!("{name} max limit to request ratio per {} is {most}", object::text(item, "type"));
    let known = |quantity: Option<&Quantity>| quantity.copied().filter(|quantity| !quantity.is_zero());
    let Some(request) = known(request) else {
        return Some(format!("{text}, but no request is specified or request is 0"));
    };
    let Some(limit) = known(limit) else {
        return Some(format!("{text}, but no limit is specified or limit is 0"));
    };
    let (ratio, most) = (limit.ratio(request)?, most.ratio(Quantity::ONE)?);
    (ratio > most).then(|| format!("{text}, but provided ratio is {ratio:.6}"))
}

fn bounds(item: &Value, field: &str) -> Resources {
    resources::amounts(item.get(field))
}

fn items<'a>(range: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let all = object::at(range, "spec.limits").and_then(Value::as_array).into_iter().flatten();
    all.filter(move |item| object::text(item, "type") == kind)
}

fn containers_mut<'a>(pod: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    let found = pod.get_mut("spec").and_then(|spec| spec.get_mut(list)).and_then(Value::as_array_mut);
    found.into_iter().flatten()
}

fn ranges(state: &State, object: &Value) -> Vec<std::sync::Arc<Value>> {
    let Some((id, _)) = state.table().find("", "v1", "limitranges") else { return Vec::new() };
    state.objects(id, Some(object::namespace(object))).map(|(_, range)| range.clone()).collect()
}

#[cfg(test)]
mod tests;
