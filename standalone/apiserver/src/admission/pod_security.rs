//! `PodSecurity`: what pods may ask for in a namespace, by the labels of the namespace, in kube-apiserver's words. Pure.
//!
//! The levels are those of the Pod Security Standards; `checks` holds them one by one. There is no audit log here, so
//! of the audit labels only the values are checked.

mod checks;

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

use crate::{
    object,
    state::State,
    status::{Failure, FieldError, Result},
    table::{Behaviour, Resource},
};

use checks::Violation;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// Pods looked at when a namespace becomes stricter, as many as in kube-apiserver.
const EXISTING: usize = 3000;

/// How much pods may ask for; the later the less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level, and the minor release of Kubernetes that says what it means; `None` for the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    level: Level,
    minor: Option<u32>,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })?;
        match self.minor {
            Some(minor) => write!(f, ":v1.{minor}"),
            None => f.write_str(":latest"),
        }
    }
}

impl Policy {
    /// The policy a namespace has for a mode, `enforce` or `warn`. A level nobody knows is the strictest where it is
    /// enforced, and none where it only warns.
    fn of(namespace: &Value, mode: &str) -> Self {
        let strictest = if mode == "enforce" { Level::Restricted } else { Level::Privileged };
        let level = object::label(namespace, &format!("{PREFIX}{mode}"));
        let version = object::label(namespace, &format!("{PREFIX}{mode}-version"));
        Self {
            level: level.map_or(Level::Privileged, |text| parse_level(text).unwrap_or(strictest)),
            minor: version.and_then(|text| parse_version(text).ok()).flatten(),
        }
    }

    fn violations(self, pod: &Value) -> Vec<Violation> {
        checks::run(self.level, self.minor.unwrap_or(u32::MAX), pod)
    }

    /// `Err` with what pods with this specification violate and how.
    fn check(self, pod: &Value) -> std::result::Result<(), String> {
        let found = self.violations(pod);
        if found.is_empty() {
            return Ok(());
        }
        let shown = found.iter().map(|violation| match violation.detail.as_str() {
            "" => violation.reason.clone(),
            detail => format!("{} ({detail})", violation.reason),
        });
        Err(format!("violate PodSecurity \"{self}\": {}", shown.collect::<Vec<_>>().join(", ")))
    }
}

fn parse_level(text: &str) -> std::result::Result<Level, &'static str> {
    match text {
        "privileged" => Ok(Level::Privileged),
        "baseline" => Ok(Level::Baseline),
        "restricted" => Ok(Level::Restricted),
        _ => Err("must be one of privileged, baseline, restricted"),
    }
}

fn parse_version(text: &str) -> std::result::Result<Option<u32>, &'static str> {
    if text == "latest" {
        return Ok(None);
    }
    let digits = text.strip_prefix("v1.").filter(|digits| !digits.starts_with('+'));
    let minor = digits.and_then(|digits| digits.parse::<u32>().ok());
    let written = |minor: &u32| text == format!("v1.{minor}");
    minor.filter(written).map(Some).ok_or("must be \"latest\" or \"v1.x\"")
}

/// Refuses a pod that its namespace does not allow, and returns what the user is warned of.
pub(super) fn admit(
    state: &State,
    resource: &Resource,
    old: Option<&Value>,
    object: &Value,
) -> Result<Vec<String>> {
    if resource.behaviour == Behaviour::Namespace {
        return of_namespace(state, resource, old, object);
    }
    let is_pod = resource.behaviour == Behaviour::Pod;
    // What makes pods later is only warned of: the pods themselves are refused.
    let pod = if is_pod { Some(object) } else { template(resource, object) };
    let unchanged = old.is_some_and(|old| is_pod && images(old) == images(object));
    let Some(pod) = pod.filter(|_| !unchanged) else { return Ok(Vec::new()) };
    let Some(namespaces) = state.table().by_behaviour(Behaviour::Namespace) else { return Ok(Vec::new()) };
    let key = crate::state::ObjectKey::new("", object::namespace(object));
    let Some(namespace) = state.get(namespaces, &key) else { return Ok(Vec::new()) };
    if is_pod && let Err(why) = Policy::of(namespace, "enforce").check(pod) {
        let why = why.replacen("violate", "violates", 1);
        return Err(Failure::forbidden(resource, object::name(object), &why));
    }
    let warning = Policy::of(namespace, "warn").check(pod).err();
    Ok(warning.map(|warning| format!("would {warning}")).into_iter().collect())
}

fn template<'a>(resource: &Resource, object: &'a Value) -> Option<&'a Value> {
    (resource.group == "apps").then(|| object::at(object, "spec.template")).flatten()
}

fn images(pod: &Value) -> Vec<&Value> {
    checks::containers(pod.get("spec").unwrap_or(&Value::Null))
        .filter_map(|container| container.get("image"))
        .collect()
}

/// Refuses labels that say nothing, and warns of the pods that a stricter level would not have let in.
fn of_namespace(
    state: &State,
    resource: &Resource,
    old: Option<&Value>,
    namespace: &Value,
) -> Result<Vec<String>> {
    let mut errors = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        let keys = [format!("{PREFIX}{mode}"), format!("{PREFIX}{mode}-version")];
        for (at, key) in keys.iter().enumerate() {
            let known = old.and_then(|old| object::label(old, key));
            let Some(value) = object::label(namespace, key).filter(|value| Some(*value) != known) else {
                continue;
            };
            let fault = if at == 0 { parse_level(value).err() } else { parse_version(value).err() };
            errors.extend(
                fault.map(|why| {
                    FieldError::invalid(format!("metadata.labels[{key}]"), &Value::from(value), why)
                }),
            );
        }
    }
    let name = object::name(namespace);
    if !errors.is_empty() {
        return Err(Failure::invalid(resource, name, &errors));
    }
    let policy = Policy::of(namespace, "enforce");
    let before = old.map(|old| Policy::of(old, "enforce"));
    if before.is_none_or(|before| before == policy || policy.level < before.level) {
        return Ok(Vec::new());
    }
    Ok(existing(state, name, policy))
}

/// Warnings about the pods there are.
fn existing(state: &State, namespace: &str, policy: Policy) -> Vec<String> {
    let Some(pods) = state.table().by_behaviour(Behaviour::Pod) else { return Vec::new() };
    // Pods come in the order of their names, so that the first of a kind names it.
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for (key, pod) in state.objects(pods, Some(namespace)).take(EXISTING) {
        let reasons: Vec<String> =
            policy.violations(pod).into_iter().map(|violation| violation.reason).collect();
        if !reasons.is_empty() {
            found.entry(reasons.join(", ")).or_insert_with(|| (key.name.clone(), 0)).1 += 1;
        }
    }
    if found.is_empty() {
        return Vec::new();
    }
    let mut lines: Vec<String> = found
        .into_iter()
        .map(|(reasons, (first, count))| match count {
            1 => format!("{first}: {reasons}"),
            2 => format!("{first} (and 1 other pod): {reasons}"),
            _ => format!("{first} (and {} other pods): {reasons}", count - 1),
        })
        .collect();
    lines.sort_unstable();
    let head = format!(
        "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{policy}\""
    );
    lines.insert(0, head);
    lines
}

#[cfg(test)]
mod tests;
