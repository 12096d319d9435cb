//! `/openapi/v3`: the documents that kubectl reads before it creates, merges or explains anything. Pure.
//!
//! kubectl looks in the patch operation of a kind for `x-kubernetes-group-version-kind` and a `fieldValidation`
//! parameter; finding them it leaves validation to the server. Without them it refuses to create or apply.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{
    table::{Resource, ResourceTable, Version},
    types,
};

const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

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
    let mut definitions = types::described();
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
        let mut schema = match (&version.schema, definitions.get(&name)) {
            (Some(schema), _) => described(schema),
            (None, Some(definition)) => definition.clone(),
            (None, None) => json!({ "type": "object" }),
        };
        schema["x-kubernetes-group-version-kind"] = json!([gvk]);
        schemas.insert(name, schema);
    }
    if paths.is_empty() {
        return None;
    }
    let mut wanted = Vec::new();
    schemas.values().for_each(|schema| references(schema, &mut wanted));
    while let Some(name) = wanted.pop() {
        if let Some(definition) = definitions.remove(&name).filter(|_| !schemas.contains_key(&name)) {
            references(&definition, &mut wanted);
            schemas.insert(name, definition);
        }
    }
    Some(json!({
        "openapi": "3.0.0", "info": { "title": "Kubernetes", "version": "v1.36.0" },
        "paths": paths, "components": { "schemas": schemas },
    }))
}

/// The schema of a definition with what it leaves to the server to say.
fn described(schema: &Value) -> Value {
    let mut schema = schema.clone();
    let text = |description: &str| json!({ "type": "string", "description": description });
    schema["properties"]["apiVersion"] = text("The version of the kind, with its group.");
    schema["properties"]["kind"] = text("The kind of the object.");
    let metadata = format!("#/components/schemas/{METADATA}");
    schema["properties"]["metadata"] =
        json!({ "description": "Standard object metadata.", "allOf": [{ "$ref": metadata }] });
    schema
}

/// Adds the names of all definitions a schema refers to.
pub(crate) fn references(schema: &Value, names: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                names.extend(reference.rsplit('/').next().map(str::to_owned));
            }
            map.values().for_each(|schema| references(schema, names));
        }
        Value::Array(list) => list.iter().for_each(|schema| references(schema, names)),
        _ => {}
    }
}

/// Built-in kinds have the names that Kubernetes gives them; others have their group's parts turned round, as in
/// `dev.tekton.v1.TaskRun`.
fn schema_name(resource: &Resource, version: &Version) -> String {
    if !resource.custom {
        return types::core_name(&version.group, &version.name, &resource.kind);
    }
    let mut parts: Vec<&str> = version.group.split('.').collect();
    parts.reverse();
    format!("{}.{}.{}", parts.join("."), version.name, resource.kind)
}
