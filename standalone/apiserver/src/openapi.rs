//! `/openapi/v3`: the documents that kubectl reads before it creates, merges or explains anything. Pure.
//!
//! kubectl looks in the patch operation of a kind for `x-kubernetes-group-version-kind` and a `fieldValidation`
//! parameter; finding them it leaves validation to the server. Without them it refuses to create or apply.

//!
//! A document is reached by a URL that says its hash, and under that it never changes: clients keep it.

pub(crate) mod v2;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use crate::{
    route::Query,
    table::{Resource, ResourceTable, Version},
    types,
};

const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// How long a document is kept by clients, at most: what HTTP calls for ever.
const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);

/// `/openapi/v3`
pub(crate) fn index(table: &ResourceTable) -> Value {
    let paths: Map<String, Value> = table
        .hashes()
        .iter()
        .map(|(path, hash)| (path.clone(), json!({ "serverRelativeURL": url(path, hash) })))
        .collect();
    json!({ "paths": paths })
}

fn url(path: &str, hash: &str) -> String {
    format!("/openapi/v3/{path}?hash={hash}")
}

/// The hashes of all documents by their paths. They are made for this, which takes a while: a table does it once.
pub(crate) fn hashes(table: &ResourceTable) -> BTreeMap<String, String> {
    let (mut found, definitions) = (BTreeMap::new(), types::described());
    for (group, version, ..) in table.routes() {
        found.entry(document_path(group, version)).or_insert_with(|| {
            let document = document(table, group, version, &definitions).map(|document| document.to_string());
            let mut hasher = DefaultHasher::new();
            document.hash(&mut hasher);
            format!("{:016X}", hasher.finish())
        });
    }
    found
}

/// The document of one group and version, for whoever does not have it yet; `None` where there is none.
pub(crate) fn answer(
    table: &ResourceTable,
    (group, version): (&str, &str),
    query: &Query,
    headers: &HeaderMap,
    now: Timestamp,
) -> Option<Response<Vec<u8>>> {
    let path = document_path(group, version);
    let hash = table.hashes().get(&path)?;
    let mut response = Response::new(Vec::new());
    let tag = format!("{hash:?}");
    let wanted = query.text("hash");
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
    let mut known = known.flat_map(|tags| tags.split(',')).map(|known| known.trim().trim_start_matches("W/"));
    let fields = if wanted.is_empty() {
        vec![(header::CACHE_CONTROL, "no-cache, private".to_owned())]
    } else if wanted == hash {
        let end = now.checked_add(YEAR).unwrap_or(Timestamp::MAX).strftime("%a, %d %b %Y %H:%M:%S GMT");
        vec![(header::CACHE_CONTROL, "public, immutable".to_owned()), (header::EXPIRES, end.to_string())]
    } else {
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        vec![(header::LOCATION, url(&path, hash))]
    };
    for (name, value) in
        fields.into_iter().chain([(header::ETAG, tag.clone()), (header::VARY, "Accept".to_owned())])
    {
        // All of it is plain text.
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    if response.status() == StatusCode::OK {
        if known.any(|known| known == tag || known == "*") {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            *response.body_mut() =
                document(table, group, version, &types::described())?.to_string().into_bytes();
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
    }
    Some(response)
}

fn document_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The document of one group and version.
fn document(
    table: &ResourceTable,
    group: &str,
    version: &str,
    definitions: &Map<String, Value>,
) -> Option<Value> {
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
        if let Some(definition) = definitions.get(&name).filter(|_| !schemas.contains_key(&name)) {
            references(definition, &mut wanted);
            schemas.insert(name, definition.clone());
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
