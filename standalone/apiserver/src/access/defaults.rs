//! The roles every cluster has, as far as there are resources here for them. Pure.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{aggregate, rule};
use crate::{
    state::{ObjectKey, State},
    table::{Behaviour, ResourceId},
};

const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];
const BOOTSTRAPPING: &str = "rbac-defaults";
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Makes sure of the default roles and their bindings, and puts the server's authority, PEM, into every namespace that
/// there is and will be. Without it, nobody but the server's own process may do anything, and pods get no tokens.
///
/// Rules and subjects that a default one lacks are added to it, others are left alone, and so is one annotated with
/// `rbac.authorization.kubernetes.io/autoupdate: "false"`, as kube-apiserver does at its start.
pub fn install(state: &mut State, authority: &str, now: Timestamp) {
    let table = state.table();
    if let Some(bindings) = table.by_behaviour(Behaviour::ClusterRoleBinding) {
        install_roles(state, cluster_roles(), now);
        for binding in bindings_of_groups() {
            provide(state, bindings, binding, "subjects", now);
        }
    }
    state.publish_authority(authority, now);
}

/// Makes sure of further cluster roles, as [`install`] does of the default ones; they become part of those that gather
/// roles with their labels.
pub fn install_roles(state: &mut State, roles: impl IntoIterator<Item = Value>, now: Timestamp) {
    let Some(id) = state.table().by_behaviour(Behaviour::ClusterRole) else { return };
    for role in roles {
        provide(state, id, role, "rules", now);
    }
    aggregate(state);
}

/// Creates an object, or adds to the list of the one that is there what it lacks.
fn provide(state: &mut State, id: ResourceId, object: Value, list: &str, now: Timestamp) {
    let Some(known) = state.get(id, &ObjectKey::of(&object)).cloned() else {
        state.create(id, object, now);
        return;
    };
    let autoupdate = known["metadata"]["annotations"].get(AUTOUPDATE).and_then(Value::as_str);
    let entries = |object: &Value| object[list].as_array().cloned().unwrap_or_default();
    let mut wanted = entries(&known);
    let missing: Vec<Value> = entries(&object).into_iter().filter(|entry| !wanted.contains(entry)).collect();
    if missing.is_empty() || autoupdate == Some("false") {
        return;
    }
    wanted.extend(missing);
    let mut updated = (*known).clone();
    updated[list] = wanted.into();
    state.put(id, updated);
}

fn metadata(name: &str) -> Value {
    json!({ "name": name, "labels": { "kubernetes.io/bootstrapping": BOOTSTRAPPING } })
}

fn role(name: &str, rules: impl Into<Value>) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata(name),
        "rules": rules.into(),
    })
}

/// A role whose rules become those of another, too.
fn part(of: &str, rules: Value) -> Value {
    let mut role = role(&format!("system:aggregate-to-{of}"), rules);
    role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{of}")] = json!("true");
    role
}

/// A role that gathers its rules; in turn it is part of `into`.
fn gathering(name: &str, into: Option<&str>) -> Value {
    let mut role = role(name, json!([]));
    let key = format!("rbac.authorization.k8s.io/aggregate-to-{name}");
    role["aggregationRule"] = json!({ "clusterRoleSelectors": [{ "matchLabels": { key: "true" } }] });
    if let Some(into) = into {
        role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{into}")] = json!("true");
    }
    role
}

fn rules_on(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({ "apiGroups": [group], "resources": resources, "verbs": verbs })
}

fn cluster_roles() -> Vec<Value> {
    const RBAC: &str = "rbac.authorization.k8s.io";
    let health = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
    let discovery = ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"];
    let discovery: Vec<&str> = discovery.iter().chain(&health).copied().collect();
    let seen = [
        "configmaps",
        "endpoints",
        "events",
        "limitranges",
        "namespaces",
        "namespaces/status",
        "persistentvolumeclaims",
        "persistentvolumeclaims/status",
        "pods",
        "pods/log",
        "pods/status",
        "resourcequotas",
        "resourcequotas/status",
        "serviceaccounts",
        "services",
        "services/status",
    ];
    let written = ["configmaps", "events", "persistentvolumeclaims", "serviceaccounts", "services"];
    vec![
        role("cluster-admin", rule::everything().to_vec()),
        gathering("admin", None),
        gathering("edit", Some("admin")),
        gathering("view", Some("edit")),
        part(
            "admin",
            json!([
                rules_on("authorization.k8s.io", &["localsubjectaccessreviews"], &["create"]),
                rules_on(RBAC, &["rolebindings", "roles"], &READ),
                rules_on(RBAC, &["rolebindings", "roles"], &WRITE),
            ]),
        ),
        part(
            "edit",
            json!([
                rules_on(
                    "",
                    &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets"],
                    &READ
                ),
                rules_on("", &["serviceaccounts"], &["impersonate"]),
                rules_on("", &["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"], &WRITE),
                rules_on("", &["pods/eviction"], &["create"]),
                rules_on("", &["secrets"], &WRITE),
                rules_on("", &written, &WRITE),
                rules_on("", &["serviceaccounts/token"], &["create"]),
                rules_on("apps", &["statefulsets"], &WRITE),
                rules_on("events.k8s.io", &["events"], &WRITE),
                rules_on("coordination.k8s.io", &["leases"], &READ),
                rules_on("coordination.k8s.io", &["leases"], &WRITE),
            ]),
        ),
        part(
            "view",
            json!([
                rules_on("", &seen, &READ),
                rules_on("apps", &["statefulsets", "statefulsets/status"], &READ),
                rules_on("events.k8s.io", &["events"], &READ),
            ]),
        ),
        role("system:discovery", json!([{ "nonResourceURLs": discovery, "verbs": ["get"] }])),
        role("system:public-info-viewer", json!([{ "nonResourceURLs": health, "verbs": ["get"] }])),
        role(
            "system:basic-user",
            json!([
                rules_on(
                    "authorization.k8s.io",
                    &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                    &["create"],
                ),
                rules_on("authentication.k8s.io", &["selfsubjectreviews"], &["create"]),
            ]),
        ),
    ]
}

fn bindings_of_groups() -> impl Iterator<Item = Value> {
    let bindings: [(&str, &[&str]); 4] = [
        ("cluster-admin", &[super::user::MASTERS]),
        ("system:basic-user", &[super::user::AUTHENTICATED]),
        ("system:discovery", &[super::user::AUTHENTICATED]),
        ("system:public-info-viewer", &[super::user::AUTHENTICATED, super::user::UNAUTHENTICATED]),
    ];
    bindings.into_iter().map(|(name, groups)| {
        let group = "rbac.authorization.k8s.io";
        let subject = |name: &&str| json!({ "kind": "Group", "apiGroup": group, "name": name });
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": metadata(name),
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": name },
            "subjects": groups.iter().map(subject).collect::<Vec<_>>(),
        })
    })
}
