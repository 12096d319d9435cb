//! The decision: which bindings name the user, which rules they lead to, and whether one of them covers the request.
//! Pure.
//!
//! The state keeps an index from subjects to bindings, so that the work follows the bindings of this user in this
//! namespace and not all there are.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Attributes, User, rule, user};
use crate::{
    object,
    state::{ObjectKey, State},
    table::{Behaviour, Resource},
};

/// Whether something is allowed, and what is said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) allowed: bool,
    /// The binding that allows it, or what is wrong with those that might have; often empty.
    pub(crate) reason: String,
}

/// How the index names who a binding is for; user and group names cannot be mistaken for each other.
fn of_user(name: &str) -> String {
    format!("u:{name}")
}

fn of_group(name: &str) -> String {
    format!("g:{name}")
}

/// The subjects of a binding under their names in the index; none of any other object.
pub(crate) fn subjects(resource: &Resource, object: &Value) -> BTreeSet<String> {
    if !matches!(resource.behaviour, Behaviour::RoleBinding | Behaviour::ClusterRoleBinding) {
        return BTreeSet::new();
    }
    let subjects = object.get("subjects").and_then(Value::as_array).into_iter().flatten();
    subjects.filter_map(|subject| subject_key(subject, object::namespace(object))).collect()
}

fn subject_key(subject: &Value, namespace: &str) -> Option<String> {
    let name = object::text(subject, "name");
    match object::text(subject, "kind") {
        "User" => Some(of_user(name)),
        "Group" => Some(of_group(name)),
        "ServiceAccount" => {
            let own = object::text(subject, "namespace");
            let namespace = if own.is_empty() { namespace } else { own };
            (!namespace.is_empty()).then(|| of_user(&user::account_name(namespace, name)))
        }
        _ => None,
    }
}

/// One rule that is the user's, and the binding it comes by.
struct Found<'a> {
    rule: &'a Value,
    binding: &'a Value,
    subject: &'a str,
}

/// Shows every rule of the user in the namespace until one is enough; roles that are not there are told at the end.
fn visit(
    state: &State,
    user: &User,
    namespace: &str,
    mut enough: impl FnMut(&Found<'_>) -> bool,
) -> Vec<String> {
    let table = state.table();
    let id = |behaviour| table.by_behaviour(behaviour);
    let mut missing = Vec::new();
    let everywhere = id(Behaviour::ClusterRoleBinding).map(|id| (id, ""));
    let here = id(Behaviour::RoleBinding).filter(|_| !namespace.is_empty()).map(|id| (id, namespace));
    let keys = || std::iter::once(of_user(&user.name)).chain(user.groups.iter().map(|group| of_group(group)));
    for (bindings, place) in everywhere.into_iter().chain(here) {
        for subject in keys() {
            for key in state.bindings(&subject, bindings, place) {
                let Some(binding) = state.get(bindings, key) else { continue };
                match rules_of(state, binding) {
                    Ok(rules) => {
                        for rule in rules {
                            if enough(&Found { rule, binding, subject: &subject }) {
                                return Vec::new();
                            }
                        }
                    }
                    Err(role) => missing.push(role),
                }
            }
        }
    }
    missing
}

/// The rules a binding gives, or how the role is called that is not there.
pub(super) fn rules_of<'a>(state: &'a State, binding: &Value) -> Result<&'a [Value], String> {
    let name = object::text(binding, "roleRef.name");
    let kind = object::text(binding, "roleRef.kind");
    let (behaviour, namespace) = match kind {
        "Role" => (Behaviour::Role, object::namespace(binding)),
        _ => (Behaviour::ClusterRole, ""),
    };
    let role =
        state.table().by_behaviour(behaviour).and_then(|id| state.get(id, &ObjectKey::new(namespace, name)));
    match role {
        Some(role) => Ok(rules(role)),
        None => Err(format!("{}.rbac.authorization.k8s.io {name:?} not found", kind.to_lowercase())),
    }
}

/// The rules of a role.
pub(super) fn rules(role: &Value) -> &[Value] {
    role.get("rules").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Decides about a request.
pub(crate) fn decide(state: &State, user: &User, wanted: &Attributes) -> Decision {
    if user.is_in(user::MASTERS) {
        return Decision { allowed: true, reason: String::new() };
    }
    let combined = wanted.combined();
    let mut by = None;
    let missing = visit(state, user, &wanted.namespace, |found| {
        let allows = rule::allows(found.rule, wanted, &combined);
        if allows {
            by = Some(describe(found));
        }
        allows
    });
    match by {
        Some(by) => Decision { allowed: true, reason: format!("RBAC: allowed by {by}") },
        None => Decision { allowed: false, reason: told(&missing) },
    }
}

fn told(missing: &[String]) -> String {
    match missing {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        several => format!("RBAC: [{}]", several.join(", ")),
    }
}

fn describe(found: &Found<'_>) -> String {
    let (name, namespace) = (object::name(found.binding), object::namespace(found.binding));
    let binding = if namespace.is_empty() {
        format!("ClusterRoleBinding {name:?}")
    } else {
        format!("RoleBinding {:?}", format!("{name}/{namespace}"))
    };
    let subjects = found.binding.get("subjects").and_then(Value::as_array).into_iter().flatten();
    let mut named =
        subjects.filter(|subject| subject_key(subject, namespace).as_deref() == Some(found.subject));
    let to = named.next().map_or_else(String::new, |subject| {
        let (kind, name) = (object::text(subject, "kind"), object::text(subject, "name"));
        if kind == "ServiceAccount" {
            let own = object::text(subject, "namespace");
            let place = if own.is_empty() { namespace } else { own };
            format!("{kind} {:?}", format!("{name}/{place}"))
        } else {
            format!("{kind} {name:?}")
        }
    });
    let role = |field: &str| object::text(found.binding, &format!("roleRef.{field}")).to_owned();
    format!("{binding} of {} {:?} to {to}", role("kind"), role("name"))
}

/// All rules of a user in a namespace, and what is said of roles that are not there.
pub(crate) fn rules_for(state: &State, user: &User, namespace: &str) -> (Vec<Value>, String) {
    let mut all = Vec::new();
    if user.is_in(user::MASTERS) {
        all.extend(rule::everything());
    }
    let missing = visit(state, user, namespace, |found| {
        all.push(found.rule.clone());
        false
    });
    (all, told(&missing))
}
