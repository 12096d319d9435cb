//! What v1 has no field for, in the annotations that keep it. Pure.
//!
//! Upstream's annotations are read and written where upstream has one, so that either engine understands objects of the
//! other. Everything else is in one of ours: a map from JSON pointers to values.
//!
//! Annotations are written by anybody. One that cannot be read, or is about a place that is not there, stays as it is:
//! upstream fails then, and with it every list the object is in.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::differences;
use crate::ROPEWALK_GROUP;

const RESOURCES: &str = "tekton.dev/v1beta1Resources";
const RESOURCES_RESULT: &str = "tekton.dev/v1beta1ResourcesResult";
const RESOURCES_STATUS: &str = "tekton.dev/v1beta1ResourcesStatus";
const CLOUD_EVENTS: &str = "tekton.dev/v1beta1CloudEvents";
const TASK_DEPRECATIONS: &str = "tekton.dev/v1beta1.task-deprecations";

/// Our annotation.
pub(super) fn ours() -> String {
    format!("{ROPEWALK_GROUP}/v1beta1")
}

/// Values by where they stand: the JSON pointer of the field in v1beta1, with the names of v1 for what is around it.
#[derive(Debug, Default)]
pub(super) struct Kept(BTreeMap<String, Value>);

impl Kept {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, pointer: String, value: Value) {
        self.0.insert(pointer, value);
    }

    pub(super) fn get(&self, pointer: &str) -> Option<&Value> {
        self.0.get(pointer)
    }

    pub(super) fn remove(&mut self, pointer: &str) -> Option<Value> {
        self.0.remove(pointer)
    }

    pub(super) fn pointers(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Takes out of the annotations of an object whatever there is a place for.
    pub(super) fn load(kind: &str, object: &mut Value) -> Self {
        let mut kept = Self::default();
        let tasks = tasks(kind, object);
        let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return kept };
        let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else {
            return kept;
        };
        kept.0.extend(take(annotations, &ours()).unwrap_or_else(Map::new));
        for &(annotation, pointer) in upstream(kind) {
            if let Some(value) = take(annotations, annotation) {
                kept.0.insert(pointer.to_owned(), value);
            }
        }
        if let Some(mut deprecations) = take::<Map<_, _>>(annotations, TASK_DEPRECATIONS) {
            for task in tasks {
                if let Some(known) = deprecations.remove(&task.name)
                    && let Err(other) = kept.load_deprecations(&task, known)
                {
                    deprecations.insert(task.name, other);
                }
            }
            put(annotations, TASK_DEPRECATIONS, deprecations);
        }
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
        kept
    }

    /// Gives the value back when it does not describe this task: its steps have changed since.
    fn load_deprecations(&mut self, task: &Task, known: Value) -> Result<(), Value> {
        let steps = match known.get("deprecatedSteps").and_then(Value::as_array) {
            Some(steps) if steps.len() == task.steps => steps,
            _ => return Err(known),
        };
        for (index, step) in steps.iter().enumerate() {
            self.load_fields("Step", &format!("{}/steps/{index}", task.pointer), step);
        }
        if let Some(template) = known.get("deprecatedStepTemplate") {
            self.load_fields("StepTemplate", &format!("{}/stepTemplate", task.pointer), template);
        }
        Ok(())
    }

    fn load_fields(&mut self, within: &str, pointer: &str, fields: &Value) {
        for (field, _) in differences::gone(within) {
            if let Some(value) = fields.get(field) {
                self.0.insert(format!("{pointer}/{field}"), value.clone());
            }
        }
    }

    /// Puts everything into annotations of the object.
    pub(super) fn store(mut self, kind: &str, object: &mut Value) {
        if self.0.is_empty() {
            return;
        }
        let tasks = tasks(kind, object);
        let Some(annotations) = annotations(object) else { return };
        for &(annotation, pointer) in upstream(kind) {
            if let Some(value) = self.0.remove(pointer) {
                annotations.insert(annotation.to_owned(), Value::String(value.to_string()));
            }
        }
        let mut deprecations = read(annotations, TASK_DEPRECATIONS);
        for task in tasks {
            if let Some(known) = self.deprecations(&task) {
                deprecations.insert(task.name, known);
            }
        }
        put(annotations, TASK_DEPRECATIONS, deprecations);
        let mut rest = read(annotations, &ours());
        rest.extend(self.0);
        put(annotations, &ours(), rest);
    }

    fn deprecations(&mut self, task: &Task) -> Option<Value> {
        let mut fields = |within: &str, pointer: &str| -> Map<String, Value> {
            let taken = differences::gone(within).filter_map(|(field, _)| {
                let value = self.0.remove(&format!("{pointer}/{field}"))?;
                Some((field.to_owned(), value))
            });
            taken.collect()
        };
        let template = fields("StepTemplate", &format!("{}/stepTemplate", task.pointer));
        let steps: Vec<_> =
            (0..task.steps).map(|index| fields("Step", &format!("{}/steps/{index}", task.pointer))).collect();
        if template.is_empty() && steps.iter().all(Map::is_empty) {
            return None;
        }
        let mut known = Map::new();
        // Upstream wants one for each step.
        known.insert("deprecatedSteps".to_owned(), steps.into_iter().map(Value::Object).collect());
        if !template.is_empty() {
            known.insert("deprecatedStepTemplate".to_owned(), Value::Object(template));
        }
        Some(Value::Object(known))
    }
}

/// Upstream's annotations for one field each.
fn upstream(kind: &str) -> &'static [(&'static str, &'static str)] {
    match kind {
        "TaskRun" => &[
            (RESOURCES, "/spec/resources"),
            (CLOUD_EVENTS, "/status/cloudEvents"),
            (RESOURCES_RESULT, "/status/resourcesResult"),
            (RESOURCES_STATUS, "/status/taskSpec/resources"),
        ],
        // It never had any.
        "ResolutionRequest" => &[],
        _ => &[(RESOURCES, "/spec/resources")],
    }
}

/// A Task within an object, as upstream's annotation knows it.
struct Task {
    name: String,
    pointer: String,
    steps: usize,
}

/// The Tasks upstream's annotation is about. Where there is a spec and a copy of it in the status, under the same names,
/// it is about the spec.
fn tasks(kind: &str, object: &Value) -> Vec<Task> {
    let own = object["metadata"]["name"].as_str().unwrap_or_default();
    let first = |pointers: [&'static str; 2]| {
        pointers.into_iter().find(|pointer| object.pointer(pointer).is_some_and(Value::is_object))
    };
    let pipeline = match kind {
        "Task" => return task(object, own, "/spec".to_owned()).into_iter().collect(),
        "TaskRun" => {
            let found = first(["/spec/taskSpec", "/status/taskSpec"]);
            return found.and_then(|pointer| task(object, own, pointer.to_owned())).into_iter().collect();
        }
        "Pipeline" => Some("/spec"),
        _ => first(["/spec/pipelineSpec", "/status/pipelineSpec"]),
    };
    let mut tasks = BTreeMap::new();
    for list in
        pipeline.into_iter().flat_map(|pointer| ["tasks", "finally"].map(|list| format!("{pointer}/{list}")))
    {
        for (index, pipeline_task) in
            object.pointer(&list).and_then(Value::as_array).into_iter().flatten().enumerate()
        {
            let name = pipeline_task["name"].as_str().unwrap_or_default();
            if let Some(task) = task(object, name, format!("{list}/{index}/taskSpec")) {
                tasks.entry(task.name.clone()).or_insert(task);
            }
        }
    }
    tasks.into_values().collect()
}

fn task(object: &Value, name: &str, pointer: String) -> Option<Task> {
    let spec = object.pointer(&pointer)?.as_object()?;
    let steps = spec.get("steps").and_then(Value::as_array).map_or(0, Vec::len);
    Some(Task { name: name.to_owned(), pointer, steps })
}

fn annotations(object: &mut Value) -> Option<&mut Map<String, Value>> {
    let metadata = object.as_object_mut()?.entry("metadata").or_insert(Value::Null);
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    let annotations = metadata.as_object_mut()?.entry("annotations").or_insert(Value::Null);
    if annotations.is_null() {
        *annotations = Value::Object(Map::new());
    }
    annotations.as_object_mut()
}

/// Takes an annotation out, if it is what it should be.
fn take<T: DeserializeOwned>(annotations: &mut Map<String, Value>, name: &str) -> Option<T> {
    let value = serde_json::from_str(annotations.get(name)?.as_str()?).ok()?;
    annotations.remove(name);
    Some(value)
}

/// What an annotation holds already.
fn read(annotations: &Map<String, Value>, name: &str) -> Map<String, Value> {
    let text = annotations.get(name).and_then(Value::as_str).unwrap_or_default();
    serde_json::from_str(text).unwrap_or_default()
}

fn put(annotations: &mut Map<String, Value>, name: &str, value: Map<String, Value>) {
    if !value.is_empty() {
        annotations.insert(name.to_owned(), Value::String(Value::Object(value).to_string()));
    }
}
