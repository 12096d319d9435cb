//! The tasks of a pipeline, held against the definitions they run and against each other's results. Pure.

use std::collections::BTreeMap;

use ropewalk_api::references::{self, ResultRef};
use ropewalk_api::variables::Subscript;
use ropewalk_api::{ParamType, PipelineRunSpec, PipelineSpec, PipelineTask};
use serde_json::Value;

use super::definitions::{Definitions, Interface};
use super::given::{Given, Scope};
use super::{Report, did_you_mean, steps};

/// `path` leads to the pipeline's spec; `run` is the run it is embedded in.
pub(super) fn check(
    spec: &PipelineSpec,
    path: &str,
    run: Option<&PipelineRunSpec>,
    definitions: &Definitions<'_>,
    report: &mut Report<'_>,
) {
    let lists = [("tasks", &spec.tasks), ("finally", &spec.finally)];
    let tasks: Vec<(String, &PipelineTask)> = lists
        .into_iter()
        .flat_map(|(list, tasks)| tasks.iter().enumerate().map(move |(i, task)| (list, i, task)))
        .map(|(list, index, task)| (format!("{path}.{list}[{index}]"), task))
        .collect();
    let interfaces: BTreeMap<&str, Interface<'_>> = tasks
        .iter()
        .filter_map(|(base, task)| Some((task.name.as_str(), interface(task, base, definitions, report)?)))
        .collect();

    let mut scope = Scope::of_params(&spec.params);
    scope.around.extend(run.into_iter().flat_map(|run| &run.params).map(|param| param.name.as_str()));
    for (_, task) in &tasks {
        for (name, (kind, _)) in interfaces.get(task.name.as_str()).iter().flat_map(|known| &known.results) {
            let kind = if task.matrix.is_some() { ParamType::Array } else { *kind };
            scope.results.insert((task.name.as_str(), *name), kind);
        }
    }
    for (base, task) in &tasks {
        let Some(interface) = interfaces.get(task.name.as_str()) else { continue };
        let subject = format!("{base}.{}", subject(task));
        Given { params: &task.params, matrix: task.matrix.as_ref(), base, subject: &subject }
            .check(interface, &scope, report);
        let bound: Vec<&str> = task.workspaces.iter().map(|binding| binding.name.as_str()).collect();
        if !interface.open {
            interface.check_workspaces(&bound, base, report);
        }
    }
    let matrixed = |name: &str| tasks.iter().any(|(_, task)| task.name == name && task.matrix.is_some());
    let known = Known { interfaces: &interfaces, matrixed: &matrixed };
    if let Some(value) = value_at(&report.document.value, path) {
        known.walk(value, path, report);
    }
}

fn subject(task: &PipelineTask) -> &'static str {
    if task.task_spec.is_some() {
        "taskSpec"
    } else if task.pipeline_ref.is_some() {
        "pipelineRef"
    } else {
        "taskRef"
    }
}

fn interface<'a>(
    task: &'a PipelineTask,
    base: &str,
    definitions: &'a Definitions<'_>,
    report: &mut Report<'_>,
) -> Option<Interface<'a>> {
    if let Some(embedded) = &task.task_spec {
        steps(&embedded.task_spec, &format!("{base}.taskSpec"), definitions, report);
        // A custom task's spec is its controller's.
        let custom = embedded.task_spec.steps.is_empty();
        let what = format!("the embedded task \"{}\"", task.name);
        return (!custom).then(|| Interface::of_task(what, &embedded.task_spec, true));
    }
    if let Some(pipeline_ref) = &task.pipeline_ref {
        return definitions.pipeline(pipeline_ref, &format!("{base}.pipelineRef"), report);
    }
    definitions.task(task.task_ref.as_ref()?, &format!("{base}.taskRef"), report)
}

fn value_at<'a>(root: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(root, |value, field| value.get(field))
}

/// What the tasks of a pipeline give each other.
struct Known<'a> {
    interfaces: &'a BTreeMap<&'a str, Interface<'a>>,
    matrixed: &'a dyn Fn(&str) -> bool,
}

impl Known<'_> {
    /// Walks the JSON form, so that no text with a reference is forgotten and each is found with its path.
    fn walk(&self, value: &Value, path: &str, report: &mut Report<'_>) {
        match value {
            Value::String(text) => {
                for reference in references::in_text(text) {
                    self.result(&reference, path, report);
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.walk(item, &format!("{path}[{index}]"), report);
                }
            }
            // A pipeline in a pipeline has tasks of its own.
            Value::Object(entries) => {
                for (key, value) in entries.iter().filter(|(key, _)| *key != "pipelineSpec") {
                    self.walk(value, &format!("{path}.{key}"), report);
                }
            }
            _ => {}
        }
    }

    fn result(&self, reference: &ResultRef, path: &str, report: &mut Report<'_>) {
        let ResultRef { pipeline_task, result, raw, property, subscript, .. } = reference;
        let Some(interface) = self.interfaces.get(pipeline_task.as_str()) else { return };
        if interface.what.starts_with("Pipeline") {
            return;
        }
        let Some((kind, keys)) = interface.results.get(result.as_str()) else {
            let known: Vec<_> = interface.results.keys().map(|name| format!("\"{name}\"")).collect();
            let hint = did_you_mean(result, interface.results.keys().copied())
                .or_else(|| (!known.is_empty()).then(|| format!("its results are {}", known.join(", "))));
            let message = format!("{} declares no result \"{result}\"", interface.what);
            return report.error(path, raw, message, hint);
        };
        if let Some(key) = property {
            if *kind != ParamType::Object {
                let message = format!("result \"{result}\" is of type {kind} and has no key \"{key}\"");
                report.error(path, raw, message, None);
            } else if !keys.contains_key(key) {
                let message = format!("result \"{result}\" declares no key \"{key}\"");
                report.error(path, raw, message, did_you_mean(key, keys.keys().map(String::as_str)));
            }
        }
        let list = *kind == ParamType::Array || (self.matrixed)(pipeline_task);
        if matches!(subscript, Some(Subscript::Index(_))) && !list
            || *subscript == Some(Subscript::All) && *kind == ParamType::String && !list
        {
            report.error(
                path,
                raw,
                format!("result \"{result}\" is of type {kind} and has no elements"),
                (*kind == ParamType::String)
                    .then(|| format!("write $(tasks.{pipeline_task}.results.{result}), without brackets")),
            );
        }
    }
}
