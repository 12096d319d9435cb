//! `ResourceQuota`: what a namespace may hold and use, kept in the quota's status and enforced at creation, in
//! kube-apiserver's words. Pure.
//!
//! In Kubernetes a controller counts again when something is gone; here usage is counted as part of the request that
//! changed it, so the status is never behind.

use std::collections::{BTreeMap, BTreeSet};

use ropewalk_quantity::Quantity;
use serde_json::{Value, json};

use crate::{
    object,
    resources::{self, Resources, Side},
    state::{DeltaKind, State},
    status::{Failure, Result},
    table::{Behaviour, Resource, ResourceId},
};

/// What a pod has to state for each container as soon as a quota counts it.
const STATED: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

/// Kinds of the core group that are counted by their plain plural name, too.
const COUNTED: [&str; 5] = ["configmaps", "persistentvolumeclaims", "resourcequotas", "secrets", "services"];

/// What an object takes of everything that quotas count.
fn usage(resource: &Resource, object: &Value) -> Resources {
    let mut used = Resources::from([(format!("count/{}", resource.qualified()), Quantity::ONE)]);
    if !resource.group.is_empty() {
        return used;
    }
    let plural = resource.plural.as_str();
    if COUNTED.contains(&plural) {
        used.insert(plural.to_owned(), Quantity::ONE);
    }
    match plural {
        // One that has ended uses nothing any more; that it is there is still counted.
        "pods" if !crate::builtin::is_over(object) => {
            let [requests, limits] =
                [Side::Requests, Side::Limits].map(|side| resources::of_pod(object, side));
            resources::add(&mut used, &compute(&requests, &limits));
        }
        "persistentvolumeclaims" => {
            let class = object::text(object, "spec.storageClassName");
            let storage = Side::Requests.of(&object["spec"]).get("storage").copied();
            let counted = [("requests.storage", storage), ("persistentvolumeclaims", Some(Quantity::ONE))];
            for (name, quantity) in counted {
                let Some(quantity) = quantity else { continue };
                used.insert(name.to_owned(), quantity);
                if !class.is_empty() {
                    used.insert(format!("{class}.storageclass.storage.k8s.io/{name}"), quantity);
                }
            }
        }
        "services" => {
            let kind = object::text(object, "spec.type");
            let ports = object::at(object, "spec.ports").and_then(Value::as_array).map_or(0, Vec::len);
            let ports = Quantity::whole(i64::try_from(ports).unwrap_or(i64::MAX));
            if matches!(kind, "NodePort" | "LoadBalancer") {
                used.insert("services.nodeports".to_owned(), ports);
            }
            if kind == "LoadBalancer" {
                used.insert("services.loadbalancers".to_owned(), Quantity::ONE);
            }
        }
        _ => {}
    }
    used
}

/// The names under which quotas count what a container or a pod asks for and may use.
fn compute(requests: &Resources, limits: &Resources) -> Resources {
    let mut used = Resources::from([("pods".to_owned(), Quantity::ONE)]);
    for (name, quantity) in requests {
        let native = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        let huge = name.starts_with("hugepages-");
        if native || huge {
            used.insert(name.clone(), *quantity);
        }
        if native || huge || is_extended(name) {
            used.insert(format!("requests.{name}"), *quantity);
        }
    }
    for (name, quantity) in limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(format!("limits.{name}"), *quantity);
        }
    }
    used
}

/// Whether a resource is one that somebody added, such as `example.com/gpu`.
fn is_extended(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, _)| !domain.ends_with("kubernetes.io"))
}

/// Whether a quota is about this object at all.
fn covers(quota: &Value, resource: &Resource, object: &Value) -> bool {
    let strings = object::at(quota, "spec.scopes").and_then(Value::as_array).into_iter().flatten();
    let plain = strings.filter_map(Value::as_str).map(|scope| (scope, "Exists", Vec::new()));
    let selectors = object::at(quota, "spec.scopeSelector.matchExpressions").and_then(Value::as_array);
    let selected = selectors.into_iter().flatten().map(|selector| {
        let values = selector.get("values").and_then(Value::as_array).into_iter().flatten();
        let values = values.filter_map(Value::as_str).collect();
        (object::text(selector, "scopeName"), object::text(selector, "operator"), values)
    });
    plain.chain(selected).all(|(scope, operator, values)| {
        resource.behaviour == Behaviour::Pod && in_scope(scope, operator, &values, object)
    })
}

fn in_scope(scope: &str, operator: &str, values: &[&str], pod: &Value) -> bool {
    let ends = || object::at(pod, "spec.activeDeadlineSeconds").and_then(Value::as_i64).is_some();
    match scope {
        "Terminating" => ends(),
        "NotTerminating" => !ends(),
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => {
            let class = object::text(pod, "spec.priorityClassName");
            match operator {
                "Exists" => !class.is_empty(),
                "DoesNotExist" => class.is_empty(),
                "In" => values.contains(&class) && !class.is_empty(),
                "NotIn" => !values.contains(&class),
                _ => false,
            }
        }
        _ => false,
    }
}

/// Whether no container asks for CPU or memory, or is limited in them.
fn is_best_effort(pod: &Value) -> bool {
    [Side::Requests, Side::Limits].into_iter().all(|side| {
        let total = resources::of_pod(pod, side);
        ["cpu", "memory"].iter().all(|name| total.get(*name).is_none_or(|quantity| quantity.is_zero()))
    })
}

fn only(resources: &Resources, names: &Resources) -> Resources {
    let kept = resources.iter().filter(|(name, _)| names.contains_key(*name));
    kept.map(|(name, quantity)| (name.clone(), *quantity)).collect()
}

/// Judges one object against one quota: `old` is what the object was before, where it was there. The error is why not.
fn judge(
    quota: &Value,
    resource: &Resource,
    old: Option<&Value>,
    object: &Value,
) -> std::result::Result<(), String> {
    if !covers(quota, resource, object) {
        return Ok(());
    }
    let name = object::name(quota);
    let hard = resources::amounts(object::at(quota, "status.hard"));
    if resource.behaviour == Behaviour::Pod {
        let missing = unstated(&hard, object);
        if !missing.is_empty() {
            return Err(format!("failed quota: {name}: must specify {missing}"));
        }
    }
    let before = old.filter(|old| covers(quota, resource, old));
    let before = before.map(|old| usage(resource, old)).unwrap_or_default();
    let mut requested = only(&usage(resource, object), &hard);
    for (name, quantity) in &mut requested {
        *quantity = quantity.minus(before.get(name).copied().unwrap_or(Quantity::ZERO));
    }
    let used = resources::amounts(object::at(quota, "status.used"));
    let used = |name: &String| used.get(name).copied().unwrap_or(Quantity::ZERO);
    requested
        .retain(|name, quantity| !quantity.is_zero() && hard.get(name) < Some(&used(name).plus(*quantity)));
    if requested.is_empty() {
        return Ok(());
    }
    let used = requested.keys().map(|name| (name.clone(), used(name))).collect();
    let (requested, used, limited) = (
        resources::listed(&requested),
        resources::listed(&used),
        resources::listed(&only(&hard, &requested)),
    );
    Err(format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"))
}

/// What the quota counts and containers do not say: `cpu for: a,b; memory for: b`.
fn unstated(hard: &Resources, pod: &Value) -> String {
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for list in ["containers", "initContainers"] {
        let containers = object::at(pod, "spec").and_then(|spec| spec.get(list)).and_then(Value::as_array);
        for container in containers.into_iter().flatten() {
            let stated = compute(&Side::Requests.of(container), &Side::Limits.of(container));
            for name in STATED.iter().filter(|name| hard.contains_key(**name) && !stated.contains_key(**name))
            {
                missing.entry(name).or_default().insert(object::text(container, "name"));
            }
        }
    }
    let shown = missing.into_iter().map(|(name, containers)| {
        format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(","))
    });
    shown.collect::<Vec<_>>().join("; ")
}

fn quotas(state: &State) -> Option<ResourceId> {
    state.table().find("", "v1", "resourcequotas").map(|(id, _)| id)
}

/// Refuses an object that its namespace has no room for.
pub(super) fn admit(state: &State, resource: &Resource, old: Option<&Value>, object: &Value) -> Result<()> {
    // What a pod takes is settled at its creation.
    let skip = !resource.namespaced || resource.behaviour == Behaviour::Pod && old.is_some();
    let Some(id) = quotas(state).filter(|_| !skip) else { return Ok(()) };
    for (_, quota) in state.objects(id, Some(object::namespace(object))) {
        judge(quota, resource, old, object)
            .map_err(|why| Failure::forbidden(resource, object::name(object), &why))?;
    }
    Ok(())
}

/// Brings the status of quotas up to date with the changes not yet taken.
pub(crate) fn settle(state: &mut State) {
    let Some(id) = quotas(state) else { return };
    let mut stale = BTreeSet::new();
    let mut next = 0;
    while let Some(delta) = state.fresh_at(next) {
        next += 1;
        let namespace = &delta.key.namespace;
        if stale.contains(namespace) || state.objects(id, Some(namespace)).next().is_none() {
            continue;
        }
        let resource = state.table().get(delta.resource);
        let counts = match (&delta.previous, delta.kind) {
            (Some(previous), DeltaKind::Modified) if delta.resource != id => {
                // Scopes and usage are all that matters; most changes touch neither.
                let matters = |pod: &Value| {
                    (usage(resource, pod), object::at(pod, "spec.activeDeadlineSeconds").cloned())
                };
                matters(previous) != matters(&delta.object)
            }
            _ => true,
        };
        if counts {
            stale.insert(namespace.clone());
        }
    }
    for namespace in stale {
        let quotas: Vec<_> =
            state.objects(id, Some(&namespace)).map(|(_, quota)| (**quota).clone()).collect();
        for mut quota in quotas {
            let hard = resources::amounts(object::at(&quota, "spec.hard"));
            let status = json!({ "hard": texts(&hard), "used": texts(&used(state, &quota, hard)) });
            if quota.get("status") != Some(&status) {
                quota["status"] = status;
                state.put(id, quota);
            }
        }
    }
}

/// What the objects of a quota's namespace take of what it limits.
fn used(state: &State, quota: &Value, hard: Resources) -> Resources {
    let mut total: Resources = hard.into_keys().map(|name| (name, Quantity::ZERO)).collect();
    for (id, resource) in state.table().iter().filter(|(_, resource)| resource.namespaced) {
        if !total.keys().any(|name| may_count(name, resource)) {
            continue;
        }
        for (_, object) in state.objects(id, Some(object::namespace(quota))) {
            if covers(quota, resource, object) {
                let more = only(&usage(resource, object), &total);
                resources::add(&mut total, &more);
            }
        }
    }
    total
}

/// Whether objects of this kind can take of it, so that the others need not be looked at.
fn may_count(name: &str, resource: &Resource) -> bool {
    match name.strip_prefix("count/") {
        Some(counted) => counted == resource.qualified(),
        None => {
            resource.group.is_empty()
                && (COUNTED.contains(&resource.plural.as_str()) || resource.behaviour == Behaviour::Pod)
        }
    }
}

fn texts(resources: &Resources) -> BTreeMap<&str, String> {
    resources.iter().map(|(name, quantity)| (name.as_str(), quantity.to_string())).collect()
}

#[cfg(test)]
mod tests;
