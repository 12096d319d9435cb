//! `/api` and `/apis` with all that is below them, for clients that ask for it (kubectl from 1.26 on): one request in place
//! of one for each group and version. Pure.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::{Subresource, subresources, verbs, versions};
use crate::table::{Resource, ResourceTable, Version};

/// The form of the answer; clients know by it that they got what they asked for.
const MEDIA_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Whether this is the first form of those the client takes that the server has.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut known = accept.flat_map(|value| value.split(',')).filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next()?;
        let parameters: Vec<&str> = parts.collect();
        let says = |key: &str| parameters.iter().any(|parameter| parameter.starts_with(key));
        let whole = ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"];
        match media_type {
            "application/json" if whole.iter().all(|parameter| parameters.contains(parameter)) => Some(true),
            "application/json" | "application/*" | "*/*" if !says("as=") => Some(false),
            _ => None,
        }
    });
    known.next().unwrap_or_default()
}

/// The core group alone, or all others; nothing for whoever has it already.
pub(crate) fn answer(table: &ResourceTable, core: bool, headers: &HeaderMap) -> Response<Vec<u8>> {
    let groups = if core { vec![("", vec!["v1"])] } else { versions(table).into_iter().collect() };
    let items: Vec<Value> = groups
        .into_iter()
        .map(|(group, versions)| {
            let versions: Vec<Value> =
                versions.into_iter().map(|version| version_value(table, group, version)).collect();
            json!({ "metadata": { "name": group, "creationTimestamp": null }, "versions": versions })
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    });
    let body = list.to_string();
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    let tag = format!("\"{:016X}\"", hasher.finish());
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = Response::new(if known { Vec::new() } else { body.into_bytes() });
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    fields.insert(header::VARY, HeaderValue::from_static("Accept"));
    // It is hexadecimal.
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        fields.insert(header::ETAG, tag);
    }
    response
}

fn version_value(table: &ResourceTable, group: &str, version: &str) -> Value {
    let routes = table.routes().filter(|(g, v, ..)| *g == group && *v == version);
    let resources: Vec<Value> =
        routes.map(|(_, _, resource, index)| resource_value(resource, index)).collect();
    json!({ "version": version, "resources": resources, "freshness": "Current" })
}

fn resource_value(resource: &Resource, index: usize) -> Value {
    let version = &resource.versions[index];
    let mut entry = json!({
        "resource": resource.plural, "responseKind": kind(&version.group, &version.name, &resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": verbs(resource),
    });
    for (key, names) in [("shortNames", &resource.short_names), ("categories", &resource.categories)] {
        if !names.is_empty() {
            entry[key] = json!(names);
        }
    }
    let parts = subresources(resource, index);
    if !parts.is_empty() {
        entry["subresources"] = parts.iter().map(|part| subresource_value(part, version)).collect();
    }
    entry
}

fn subresource_value(part: &Subresource<'_>, of: &Version) -> Value {
    let (group, version) = part.elsewhere.unwrap_or((&of.group, &of.name));
    json!({ "subresource": part.name, "responseKind": kind(group, version, part.kind), "verbs": part.verbs })
}

fn kind(group: &str, version: &str, kind: &str) -> Value {
    json!({ "group": group, "version": version, "kind": kind })
}
