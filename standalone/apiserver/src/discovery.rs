//! Discovery documents: which groups, versions and resources there are. Pure.
//!
//! There is one for each group and version, and [`aggregated`] all of them in one.

pub(crate) mod aggregated;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::table::{Behaviour, Resource, ResourceTable};

/// The Kubernetes version the server behaves like, and so claims to be.
const MINOR: &str = "36";

/// `/version`
pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": MINOR, "gitVersion": format!("v1.{MINOR}.0"), "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc", "platform": "linux/amd64",
    })
}

/// `/api`
pub(crate) fn core_versions() -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    })
}

/// Groups other than the core group, with their versions, the preferred one first.
fn versions(table: &ResourceTable) -> BTreeMap<&str, Vec<&str>> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (group, version, _, _) in table.routes().filter(|(group, ..)| !group.is_empty()) {
        let known = groups.entry(group).or_default();
        if !known.contains(&version) {
            known.push(version);
        }
    }
    for known in groups.values_mut() {
        known.sort_by_key(|version| priority(version));
    }
    groups
}

/// Kubernetes' order of versions: stable ones before beta before alpha, higher numbers first.
fn priority(version: &str) -> (u8, std::cmp::Reverse<u64>, std::cmp::Reverse<u64>) {
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let number = digits(version.trim_start_matches('v'));
    let rest = version.get(1 + number.len()..).unwrap_or_default();
    let (rank, minor) = if let Some(minor) = rest.strip_prefix("beta") {
        (1, minor)
    } else if let Some(minor) = rest.strip_prefix("alpha") {
        (2, minor)
    } else {
        (0, "")
    };
    let parse = |text: &str| std::cmp::Reverse(text.parse().unwrap_or_default());
    (rank, parse(&number), parse(&digits(minor)))
}

fn group_value(group: &str, versions: &[&str]) -> Value {
    let entry = |version: &&str| json!({ "groupVersion": format!("{group}/{version}"), "version": version });
    json!({
        "name": group,
        "versions": versions.iter().map(entry).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(entry),
    })
}

/// `/apis`
pub(crate) fn groups(table: &ResourceTable) -> Value {
    let groups: Vec<Value> =
        versions(table).into_iter().map(|(group, versions)| group_value(group, &versions)).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/<group>`
pub(crate) fn group(table: &ResourceTable, group: &str) -> Option<Value> {
    let versions = versions(table).remove(group)?;
    let mut value = group_value(group, &versions);
    value["kind"] = Value::from("APIGroup");
    value["apiVersion"] = Value::from("v1");
    Some(value)
}

fn verbs(resource: &Resource) -> &'static [&'static str] {
    match resource.behaviour {
        Behaviour::ReadOnly => &["get", "list", "watch"],
        Behaviour::Review => &["create"],
        // All namespaces at once are deleted by nobody.
        Behaviour::Namespace => &["create", "delete", "get", "list", "patch", "update", "watch"],
        _ => &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
    }
}

/// A part of a resource with a URL of its own.
struct Subresource<'a> {
    name: &'static str,
    /// Group and version of its kind, where they are not those of the resource.
    elsewhere: Option<(&'static str, &'static str)>,
    kind: &'a str,
    verbs: &'static [&'static str],
}

fn subresources(resource: &Resource, version: usize) -> Vec<Subresource<'_>> {
    let of = |name, kind, verbs| Subresource { name, elsewhere: None, kind, verbs };
    let mut parts = Vec::new();
    if resource.versions[version].status {
        parts.push(of("status", &resource.kind, &["get", "patch", "update"]));
    }
    match resource.behaviour {
        Behaviour::ServiceAccount => {
            let elsewhere = Some(("authentication.k8s.io", "v1"));
            parts.push(Subresource { elsewhere, ..of("token", "TokenRequest", &["create"]) });
        }
        Behaviour::Pod => {
            parts.push(of("log", "Pod", &["get"]));
            parts.push(of("exec", "PodExecOptions", &["create", "get"]));
            parts.push(of("attach", "PodAttachOptions", &["create", "get"]));
            parts.push(of("binding", "Binding", &["create"]));
            // `kubectl drain` deletes pods instead, where it is not told of what kind evictions are.
            let elsewhere = Some(("policy", "v1"));
            parts.push(Subresource { elsewhere, ..of("eviction", "Eviction", &["create"]) });
        }
        _ => {}
    }
    parts
}

/// `/api/v1` and `/apis/<group>/<version>`
pub(crate) fn resources(table: &ResourceTable, group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    for (_, _, resource, index) in table.routes().filter(|(g, v, ..)| *g == group && *v == version) {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": verbs(resource),
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        list.push(entry);
        for part in subresources(resource, index) {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, part.name), "singularName": "",
                "namespaced": resource.namespaced, "kind": part.kind, "verbs": part.verbs,
            });
            if let Some((group, version)) = part.elsewhere {
                entry["group"] = Value::from(group);
                entry["version"] = Value::from(version);
            }
            list.push(entry);
        }
    }
    if list.is_empty() {
        return None;
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list,
    }))
}
