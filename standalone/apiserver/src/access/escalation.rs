//! Nobody hands out what they do not have: the checks on writes of roles and bindings. Pure.

use serde_json::Value;

use super::{
    Attributes, Caller,
    authorize::{self, rules, rules_of},
    rule,
    user::MASTERS,
};
use crate::{
    object,
    state::State,
    status::{Failure, FieldError, Result},
    table::{Behaviour, Resource},
};

/// Checks a role or binding that is about to be stored; other objects pass.
pub(crate) fn check_write(
    state: &State,
    caller: &Caller<'_>,
    resource: &Resource,
    old: Option<&Value>,
    new: &Value,
) -> Result<()> {
    match resource.behaviour {
        Behaviour::Role | Behaviour::ClusterRole => check_role(state, caller, resource, old, new),
        Behaviour::RoleBinding | Behaviour::ClusterRoleBinding => {
            check_form(resource, old, new)?;
            check_binding(state, caller, resource, old, new)
        }
        _ => Ok(()),
    }
}

fn check_role(
    state: &State,
    caller: &Caller<'_>,
    resource: &Resource,
    old: Option<&Value>,
    new: &Value,
) -> Result<()> {
    // Labels count as the rules do: by them a role becomes part of another that gathers.
    let unchanged = old.is_some_and(|old| granting(old) == granting(new));
    if unchanged || caller.user.is_in(MASTERS) || may(state, caller, "escalate", resource, new) {
        return Ok(());
    }
    let gathers = new.get("aggregationRule").is_some_and(|rule| !rule.is_null());
    if gathers && !missing(state, caller, "", &rule::everything()).is_empty() {
        let why = "must have cluster-admin privileges to use the aggregationRule";
        return Err(Failure::forbidden(resource, object::name(new), why));
    }
    confirm(state, caller, resource, new, rules(new))
}

/// What of a role decides about what anybody may do.
fn granting(role: &Value) -> [Option<&Value>; 3] {
    [object::at(role, "metadata.labels"), role.get("rules"), role.get("aggregationRule")]
}

fn check_binding(
    state: &State,
    caller: &Caller<'_>,
    resource: &Resource,
    old: Option<&Value>,
    new: &Value,
) -> Result<()> {
    let same = |key: &str| old.is_some_and(|old| old.get(key) == new.get(key));
    if caller.user.is_in(MASTERS) || (same("roleRef") && same("subjects")) {
        return Ok(());
    }
    let bound = Attributes {
        verb: "bind".into(),
        group: resource.group.clone(),
        resource: if object::text(new, "roleRef.kind") == "Role" { "roles" } else { "clusterroles" }.into(),
        namespace: object::namespace(new).into(),
        name: object::text(new, "roleRef.name").into(),
        ..Attributes::default()
    };
    if authorize::decide(state, caller.user, &bound).allowed {
        return Ok(());
    }
    let rules = rules_of(state, new).map_err(|_| {
        let id = if bound.resource == "roles" { Behaviour::Role } else { Behaviour::ClusterRole };
        let id = state.table().by_behaviour(id);
        id.map_or_else(Failure::unknown_path, |id| Failure::not_found(state.table().get(id), &bound.name))
    })?;
    confirm(state, caller, resource, new, rules)
}

fn may(state: &State, caller: &Caller<'_>, verb: &str, resource: &Resource, object: &Value) -> bool {
    let wanted = Attributes {
        verb: verb.into(),
        group: resource.group.clone(),
        resource: resource.plural.clone(),
        namespace: object::namespace(object).into(),
        name: object::name(object).into(),
        ..Attributes::default()
    };
    authorize::decide(state, caller.user, &wanted).allowed
}

/// Which of these rules the caller has not in this namespace.
fn missing(
    state: &State,
    caller: &Caller<'_>,
    namespace: &str,
    rules: &[Value],
) -> std::collections::BTreeSet<rule::Grant> {
    let (own, _) = authorize::rules_for(state, caller.user, namespace);
    let mut wanted = rule::grants(rules);
    wanted.retain(|grant| !own.iter().any(|rule| grant.is_in(rule)));
    wanted
}

fn confirm(
    state: &State,
    caller: &Caller<'_>,
    resource: &Resource,
    object: &Value,
    rules: &[Value],
) -> Result<()> {
    let missing = missing(state, caller, object::namespace(object), rules);
    if missing.is_empty() {
        return Ok(());
    }
    let groups: Vec<String> = caller.user.groups.iter().map(|group| format!("{group:?}")).collect();
    let why = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        caller.user.name,
        groups.join(" "),
        rule::describe(&missing)
    );
    Err(Failure::forbidden(resource, object::name(object), &why))
}

/// What a binding refers to is there in words that can be followed, and stays what it is.
fn check_form(resource: &Resource, old: Option<&Value>, new: &Value) -> Result<()> {
    let mut errors = Vec::new();
    let kind = new.get("roleRef").and_then(|role| role.get("kind")).cloned().unwrap_or_default();
    let known: &[&str] = if resource.behaviour == Behaviour::RoleBinding {
        &["ClusterRole", "Role"]
    } else {
        &["ClusterRole"]
    };
    if !known.contains(&kind.as_str().unwrap_or_default()) {
        let known: Vec<_> = known.iter().map(|&kind| Value::from(kind)).collect();
        errors.push(FieldError::not_supported("roleRef.kind", &kind, &known));
    }
    if object::text(new, "roleRef.name").is_empty() {
        errors.push(FieldError::required("roleRef.name", ""));
    }
    if let Some(role) = old.and_then(|old| old.get("roleRef"))
        && Some(role) != new.get("roleRef")
    {
        let shown = new.get("roleRef").cloned().unwrap_or_default();
        errors.push(FieldError::invalid("roleRef", &shown, "cannot change roleRef"));
    }
    if errors.is_empty() { Ok(()) } else { Err(Failure::invalid(resource, object::name(new), &errors)) }
}
