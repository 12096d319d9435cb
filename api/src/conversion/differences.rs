//! What v1beta1 has under another name, in another place, or alone (contract 1.0). Conversion and the schemas of v1beta1
//! both follow this table. Pure.

use serde_json::{Map, Value, json};

use crate::schema;

/// Definitions of v1beta1 stand beside those of v1 under the same name with this before it.
pub(crate) const PREFIX: &str = "v1beta1.";

/// A type, the name one of its fields has in v1beta1, and the one it has in v1.
pub(crate) const RENAMED: [(&str, &str, &str); 13] = [
    ("PipelineRunStatus", "pipelineResults", "results"),
    ("PipelineTaskRunSpec", "sidecarOverrides", "sidecarSpecs"),
    ("PipelineTaskRunSpec", "stepOverrides", "stepSpecs"),
    ("PipelineTaskRunSpec", "taskPodTemplate", "podTemplate"),
    ("PipelineTaskRunSpec", "taskServiceAccountName", "serviceAccountName"),
    ("Sidecar", "resources", "computeResources"),
    ("Step", "resources", "computeResources"),
    ("StepTemplate", "resources", "computeResources"),
    ("TaskRunSidecarSpec", "resources", "computeResources"),
    ("TaskRunSpec", "sidecarOverrides", "sidecarSpecs"),
    ("TaskRunSpec", "stepOverrides", "stepSpecs"),
    ("TaskRunStatus", "taskResults", "results"),
    ("TaskRunStepSpec", "resources", "computeResources"),
];

/// The type whose fields [`TEMPLATED`] stand within its field [`TEMPLATE`] in v1.
pub(crate) const TEMPLATE_OF: &str = "PipelineRunSpec";
/// See [`TEMPLATE_OF`].
pub(crate) const TEMPLATE: &str = "taskRunTemplate";
/// See [`TEMPLATE_OF`].
pub(crate) const TEMPLATED: [&str; 2] = ["podTemplate", "serviceAccountName"];

/// What becomes in v1 of a field that only v1beta1 has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// Kept in an annotation.
    Kept,
    /// The same, for objects of an older release: no client may set it.
    Refused,
    /// Left out, as upstream does: `childReferences` says where to look.
    Dropped,
    /// `timeouts.pipeline`.
    Timeout,
    /// A reference through the resolver `bundles`, of this kind. New objects may not have it.
    Bundle(&'static str),
}

/// A field that only v1beta1 has: its type, its name, and what becomes of it.
pub(crate) const GONE: [(&str, &str, Fate); 35] = [
    ("EmbeddedTask", "resources", Fate::Refused),
    ("PipelineRef", "bundle", Fate::Bundle("Pipeline")),
    ("PipelineRunSpec", "resources", Fate::Refused),
    ("PipelineRunSpec", "timeout", Fate::Timeout),
    ("PipelineRunStatus", "runs", Fate::Dropped),
    ("PipelineRunStatus", "taskRuns", Fate::Dropped),
    ("PipelineSpec", "resources", Fate::Refused),
    ("PipelineTask", "resources", Fate::Refused),
    ("Provenance", "configSource", Fate::Kept),
    ("Step", "lifecycle", Fate::Kept),
    ("Step", "livenessProbe", Fate::Kept),
    ("Step", "ports", Fate::Kept),
    ("Step", "readinessProbe", Fate::Kept),
    ("Step", "startupProbe", Fate::Kept),
    ("Step", "stdin", Fate::Kept),
    ("Step", "stdinOnce", Fate::Kept),
    ("Step", "terminationMessagePath", Fate::Kept),
    ("Step", "terminationMessagePolicy", Fate::Kept),
    ("Step", "tty", Fate::Kept),
    ("StepTemplate", "lifecycle", Fate::Kept),
    ("StepTemplate", "livenessProbe", Fate::Kept),
    ("StepTemplate", "name", Fate::Kept),
    ("StepTemplate", "ports", Fate::Kept),
    ("StepTemplate", "readinessProbe", Fate::Kept),
    ("StepTemplate", "startupProbe", Fate::Kept),
    ("StepTemplate", "stdin", Fate::Kept),
    ("StepTemplate", "stdinOnce", Fate::Kept),
    ("StepTemplate", "terminationMessagePath", Fate::Kept),
    ("StepTemplate", "terminationMessagePolicy", Fate::Kept),
    ("StepTemplate", "tty", Fate::Kept),
    ("TaskRef", "bundle", Fate::Bundle("Task")),
    ("TaskRunSpec", "resources", Fate::Refused),
    ("TaskRunStatus", "cloudEvents", Fate::Kept),
    ("TaskRunStatus", "resourcesResult", Fate::Kept),
    ("TaskSpec", "resources", Fate::Refused),
];

/// The fields that only v1beta1's `within` has.
pub(crate) fn gone(within: &str) -> impl Iterator<Item = (&'static str, Fate)> + use<'_> {
    GONE.iter().filter(move |(name, ..)| *name == within).map(|(_, field, fate)| (*field, *fate))
}

/// The name in v1beta1 of what v1 calls `field`, where it has another one or another place.
pub(crate) fn moved(within: &str, field: &str) -> Option<&'static str> {
    if within == TEMPLATE_OF && field == TEMPLATE {
        return Some("spec.podTemplate and spec.serviceAccountName");
    }
    RENAMED.iter().find(|(name, _, v1)| *name == within && *v1 == field).map(|(_, v1beta1, _)| *v1beta1)
}

/// The definitions of v1beta1, from those of v1.
pub(crate) fn definitions(v1: &Map<String, Value>) -> Map<String, Value> {
    let mut derived = Map::new();
    for (name, definition) in v1.iter().filter(|(name, _)| !name.starts_with(schema::KUBERNETES)) {
        let mut definition = definition.clone();
        if let Some(properties) = definition.get_mut("properties").and_then(Value::as_object_mut) {
            differ(name, properties, v1);
        }
        derived.insert(format!("{PREFIX}{name}"), referring(definition));
    }
    derived
}

/// The same schema with references to definitions of v1beta1.
pub(crate) fn referring(mut schema: Value) -> Value {
    match &mut schema {
        Value::Object(entries) => {
            for (key, value) in entries.iter_mut() {
                let ours = value
                    .as_str()
                    .and_then(|path| path.strip_prefix(schema::DEFINITIONS))
                    .filter(|name| key == "$ref" && !name.starts_with(schema::KUBERNETES));
                *value = match ours {
                    Some(name) => Value::String(format!("{}{PREFIX}{name}", schema::DEFINITIONS)),
                    None => referring(value.take()),
                };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = referring(item.take())),
        _ => {}
    }
    schema
}

fn differ(name: &str, properties: &mut Map<String, Value>, v1: &Map<String, Value>) {
    let of = |name: &str, field: &str| v1[name]["properties"][field].clone();
    for (_, v1beta1, v1) in RENAMED.iter().filter(|(within, ..)| *within == name) {
        let property = properties.remove(*v1).unwrap_or_default();
        properties.insert((*v1beta1).to_owned(), property);
    }
    if name == TEMPLATE_OF {
        properties.remove(TEMPLATE);
        for field in TEMPLATED {
            properties.insert(field.to_owned(), of("PipelineTaskRunTemplate", field));
        }
    }
    for (field, _) in gone(name) {
        let property = match (name, field) {
            (_, "bundle") | ("StepTemplate", "name") => text(),
            (_, "timeout") => of("TimeoutFields", "pipeline"),
            (_, "runs" | "taskRuns") => json!({"type": "object"}),
            (_, "configSource") => of("Provenance", "refSource"),
            (_, "cloudEvents") => {
                let status = json!({"condition": text(), "sentAt": text(), "message": text(), "retryCount": {"type": "integer"}});
                list(json!({"target": text(), "status": fields(status)}))
            }
            (_, "resourcesResult") => {
                list(json!({"key": text(), "value": text(), "resourceName": text(), "type": {}}))
            }
            ("EmbeddedTask" | "TaskSpec", _) => in_and_out(&json!({
                "name": text(), "type": text(), "description": text(), "targetPath": text(),
                "optional": {"type": "boolean"},
            })),
            ("PipelineSpec", _) => {
                list(json!({"name": text(), "type": text(), "optional": {"type": "boolean"}}))
            }
            ("PipelineTask", _) => in_and_out(
                &json!({"name": text(), "resource": text(), "from": {"type": "array", "items": text()}}),
            ),
            ("PipelineRunSpec", _) => list(binding()),
            ("TaskRunSpec", _) => {
                let mut binding = binding();
                binding["paths"] = json!({"type": "array", "items": text()});
                in_and_out(&binding)
            }
            // What a step cannot have any more, a sidecar still has.
            _ => of("Sidecar", field),
        };
        properties.insert(field.to_owned(), property);
    }
}

fn binding() -> Value {
    json!({
        "name": text(),
        "resourceRef": fields(json!({"name": text(), "apiVersion": text()})),
        "resourceSpec": fields(json!({
            "description": text(),
            "type": text(),
            "params": list(json!({"name": text(), "value": text()})),
            "secrets": list(json!({"fieldName": text(), "secretKey": text(), "secretName": text()})),
        })),
    })
}

fn text() -> Value {
    json!({"type": "string"})
}

#[expect(clippy::needless_pass_by_value, reason = "what `json!` makes is handed over")]
fn fields(properties: Value) -> Value {
    json!({"type": "object", "properties": properties})
}

fn list(properties: Value) -> Value {
    json!({"type": "array", "items": fields(properties)})
}

fn in_and_out(properties: &Value) -> Value {
    fields(json!({"inputs": list(properties.clone()), "outputs": list(properties.clone())}))
}
