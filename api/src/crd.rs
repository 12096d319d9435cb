//! The CustomResourceDefinitions of every kind, cut from the full schemas. Pure.
//!
//! One pass turns a full schema into what a CRD takes ("structural"): references inlined, recursion and whatever is in
//! [`SCHEMALESS`] left open, everything Kubernetes does not allow there (`default`, `$ref`, `anyOf` with null)
//! dropped. The result has to stay small: `kubectl apply` keeps a copy in an annotation of at most 256 kB.

use serde_json::{Map, Value, json};

use crate::conversion::differences;
use crate::kinds::{self, Kind};
use crate::schema;

/// Left open: by the type and its field. Copies of specs, specs within runs and pipelines, and volumes would each add
/// tens of kB per place; the webhook looks for unknown fields in them instead (see [`crate::strict`]).
const SCHEMALESS: [(&str, &str); 10] = [
    ("CustomRunStatus", "retriesStatus"),
    ("PipelineRunSpec", "pipelineSpec"),
    ("PipelineRunStatus", "pipelineSpec"),
    ("PipelineTask", "pipelineSpec"),
    ("PipelineTask", "taskSpec"),
    ("TaskRunSpec", "taskSpec"),
    ("TaskRunStatus", "retriesStatus"),
    ("TaskRunStatus", "taskSpec"),
    ("TaskSpec", "volumes"),
    ("WorkspaceBinding", "volumeClaimTemplate"),
];

/// The type in which every field of Kubernetes' own types is left open.
const KUBERNETES_LEFT_OPEN: &str = "PodTemplate";

/// Upstream's one kind without a subresource for the status, be there a status or not.
const WITHOUT_STATUS: &str = "VerificationPolicy";

/// The version whose users API servers warn.
const DEPRECATED: (&str, &str) = ("ResolutionRequest", "v1alpha1");

/// The CRDs, in the order of [`kinds::ALL`].
pub fn all() -> Vec<Value> {
    kinds::ALL.iter().map(definition).collect()
}

fn definition(kind: &Kind) -> Value {
    let mut names = json!({
        "kind": kind.kind,
        "listKind": format!("{}List", kind.kind),
        "plural": kind.plural,
        "singular": kind.singular,
        "categories": ["tekton", "tekton-pipelines"],
    });
    if !kind.short_names.is_empty() {
        names["shortNames"] = json!(kind.short_names);
    }
    let mut definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{}", kind.plural, kind.group)},
        "spec": {
            "group": kind.group,
            "names": names,
            "scope": "Namespaced",
            "versions": kind.versions().map(|name| version(kind, name)).collect::<Vec<_>>(),
        },
    });
    if kind.is_converted() {
        definition["spec"]["conversion"] = conversion();
    }
    definition
}

fn version(kind: &Kind, name: &str) -> Value {
    let mut version = json!({
        "name": name,
        "served": true,
        "storage": name == kind.version,
        "schema": {"openAPIV3Schema": schema_of(kind, name)},
    });
    if kind.kind != WITHOUT_STATUS {
        version["subresources"] = json!({"status": {}});
    }
    if (kind.kind, name) == DEPRECATED {
        version["deprecated"] = true.into();
    }
    if let Some(columns) = columns(kind, name) {
        version["additionalPrinterColumns"] = columns;
    }
    version
}

/// Upstream's place. The webhook writes there whom to trust.
fn conversion() -> Value {
    json!({
        "strategy": "Webhook",
        "webhook": {
            "clientConfig": {
                "service": {
                    "name": "tekton-pipelines-webhook",
                    "namespace": "tekton-pipelines",
                    "path": "/resource-conversion",
                    "port": 443,
                },
            },
            "conversionReviewVersions": ["v1"],
        },
    })
}

/// What `kubectl get` shows beside names, as upstream has it.
fn columns(kind: &Kind, version: &str) -> Option<Value> {
    let column = |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
    let condition = |name: &str, field: &str| {
        column(name, "string", &format!(".status.conditions[?(@.type==\"Succeeded\")].{field}"))
    };
    let verdict = [condition("Succeeded", "status"), condition("Reason", "reason")];
    let owner =
        |name: &str, field: &str| column(name, "string", &format!(".metadata.ownerReferences[0].{field}"));
    let columns = match (kind.kind, version) {
        DEPRECATED => verdict.to_vec(),
        ("ResolutionRequest", _) => [
            [owner("OwnerKind", "kind"), owner("Owner", "name")],
            verdict,
            [
                column("StartTime", "string", ".metadata.creationTimestamp"),
                condition("EndTime", "lastTransitionTime"),
            ],
        ]
        .concat(),
        _ if kind.runs => [
            verdict,
            [
                column("StartTime", "date", ".status.startTime"),
                column("CompletionTime", "date", ".status.completionTime"),
            ],
        ]
        .concat(),
        _ => return None,
    };
    Some(columns.into())
}

fn schema_of(kind: &Kind, version: &str) -> Value {
    let Some(full) = schema::full(kind.kind, version) else { return open("object") };
    let mut properties = Map::new();
    for (name, property) in full["properties"].as_object().into_iter().flatten() {
        let structural = match name.as_str() {
            // The API server has its own idea of these and allows no other.
            "apiVersion" | "kind" => json!({"type": "string"}),
            "metadata" => json!({"type": "object"}),
            _ => structural(property, None, &mut Vec::new()),
        };
        properties.insert(name.clone(), structural);
    }
    json!({"type": "object", "properties": properties})
}

/// `within` is the definition the schema stands in, `path` the definitions open around it.
fn structural(schema: &'static Value, within: Option<&'static str>, path: &mut Vec<&'static str>) -> Value {
    let (name, target) = schema::resolve(schema);
    if name.is_some_and(|name| path.contains(&name)) {
        return describe(open("object"), schema, within);
    }
    let depth = path.len();
    path.extend(name);
    let structural = match schema::json_type(target) {
        _ if schema::is_int_or_string(target) => json!({"x-kubernetes-int-or-string": true}),
        Some("object") => object(target, name.or(within), path),
        Some("array") => json!({"type": "array", "items": structural(&target["items"], within, path)}),
        Some(scalar) => {
            let mut structural = json!({"type": scalar});
            for key in ["format", "enum"] {
                // Kubernetes' idea of a duration has units that Go's has not.
                if let Some(value) = target.get(key).filter(|_| !schema::is_duration(target)) {
                    structural[key] = value.clone();
                }
            }
            structural
        }
        None => json!({"x-kubernetes-preserve-unknown-fields": true}),
    };
    path.truncate(depth);
    let description = if schema.get("description").is_some() { schema } else { target };
    describe(structural, description, within)
}

fn object(schema: &'static Value, name: Option<&'static str>, path: &mut Vec<&'static str>) -> Value {
    if let Some(values) = schema.get("additionalProperties") {
        return if values.is_object() && values.get("type").is_some() || values.get("$ref").is_some() {
            json!({"type": "object", "additionalProperties": structural(values, name, path)})
        } else {
            open("object")
        };
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return open("object") };
    let ours = name.is_none_or(|name| !name.starts_with(schema::KUBERNETES));
    let mut kept = Map::new();
    for (field, property) in properties {
        let mut structural = structural(property, name, path);
        if name.is_some_and(|name| is_schemaless(name, field, property)) {
            structural = emptied(structural);
        }
        if ours && structural.get("type").is_some() {
            structural["nullable"] = Value::Bool(true);
        }
        kept.insert(field.clone(), structural);
    }
    let mut structural = json!({"type": "object", "properties": kept});
    // Our own types require nothing here: validation says better what is missing.
    if let Some(required) = schema.get("required").filter(|_| !ours) {
        structural["required"] = required.clone();
    }
    structural
}

fn is_schemaless(name: &str, field: &str, property: &'static Value) -> bool {
    let name = name.strip_prefix(differences::PREFIX).unwrap_or(name);
    if SCHEMALESS.contains(&(name, field)) {
        return true;
    }
    let (_, target) = schema::resolve(property);
    let item = target.get("items").map_or(property, |items| items);
    let (item_name, _) = schema::resolve(item);
    name == KUBERNETES_LEFT_OPEN && item_name.is_some_and(|item| item.starts_with(schema::KUBERNETES))
}

/// The same JSON type, with anything in it.
fn emptied(structural: Value) -> Value {
    let description = structural.get("description").cloned();
    let mut emptied = match structural["type"].as_str() {
        Some("array") => json!({"type": "array", "items": open("object")}),
        Some("object") => open("object"),
        _ => structural,
    };
    if let Some(description) = description {
        emptied["description"] = description;
    }
    emptied
}

fn open(json_type: &str) -> Value {
    json!({"type": json_type, "x-kubernetes-preserve-unknown-fields": true})
}

/// Adds the description, except inside Kubernetes' own types: those are two thirds of the size and well known.
fn describe(mut structural: Value, from: &Value, within: Option<&str>) -> Value {
    let ours = within.is_none_or(|within| !within.starts_with(schema::KUBERNETES));
    if let Some(text) = from.get("description").and_then(Value::as_str).filter(|_| ours) {
        // The texts are doc comments; links mean nothing here.
        structural["description"] = Value::String(text.replace("[`", "`").replace("`]", "`"));
    }
    structural
}

#[cfg(test)]
mod tests;
