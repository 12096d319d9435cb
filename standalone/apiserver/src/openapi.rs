//! `/openapi/v3`: as much as kubectl reads before it creates or explains anything. Pure.
//!
//! kubectl looks in the patch operation of a kind for `x-kubernetes-group-version-kind` and a `fieldValidation`
//! parameter; finding them it leaves validation to the server. Without them it refuses to create or apply.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::table::{Resource, ResourceTable, Version};

/// `/openapi/v3`
pub(crate) fn index(table: &ResourceTable) -> Value {
    let documents: BTreeSet<String> =
        table.routes().map(|(group, version, _, _)| document_path(group, version)).collect();
    let paths: Map<String, Value> = documents
        .into_iter()
        .map(|path| {
            let url = json!({ "serverRelativeURL": format!("/openapi/v3/{path}") });
            (path, url)
        })
        .collect();
    json!({ "paths": paths })
}

fn document_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The document of one group and version.
pub(crate) fn document(table: &ResourceTable, group: &str, version: &str) -> Option<Value> {
    let base = document_path(group, version);
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for (_, _, resource, index) in table.routes().filter(|(g, v, ..)| *g == group && *v == version) {
        let version = &resource.versions[index];
        let gvk = json!({ "group": version.group, "version": version.name, "kind": resource.kind });
        let namespace = if resource.namespaced { "namespaces/{namespace}/" } else { "" };
        let name = schema_name(resource, version);
        let content =
            json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{name}") } } });
        let operation = |action: &str, codes: &str| {
            json!({
                "parameters": [
                    { "name": "dryRun", "in": "query", "schema": { "type": "string", "uniqueItems": true } },
                    { "name": "fieldManager", "in": "query", "schema": { "type": "string", "uniqueItems": true } },
                    { "name": "fieldValidation", "in": "query", "schema": { "type": "string", "uniqueItems": true } },
                ],
                "responses": { codes: { "description": "OK", "content": content } },
                "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind": gvk,
            })
        };
        let item = format!("/{base}/{namespace}{}/{{name}}", resource.plural);
        let list = format!("/{base}/{namespace}{}", resource.plural);
        paths.insert(item, json!({
            "get": operation("get", "200"), "put": operation("put", "200"), "patch": operation("patch", "200"),
        }));
        paths.insert(list, json!({ "post": operation("post", "201") }));
        let mut schema = version.schema.clone().unwrap_or_else(|| json!({ "type": "object" }));
        schema["x-kubernetes-group-version-kind"] = json!([gvk]);
        schemas.insert(name, schema);
    }
    if paths.is_empty() {
        return None;
    }
    Some(json!({
        "openapi": "3.0.0", "info": { "title": "Kubernetes", "version": "v1.36.0" },
        "paths": paths, "components": { "schemas": schemas },
    }))
}

/// The group's parts turned round, as in `dev.tekton.v1.TaskRun`.
fn schema_name(resource: &Resource, version: &Version) -> String {
    let mut parts: Vec<&str> = if version.group.is_empty() {
        vec!["core", "api", "k8s", "io"]
    } else {
        version.group.split('.').collect()
    };
    parts.reverse();
    format!("{}.{}.{}", parts.join("."), version.name, resource.kind)
}
