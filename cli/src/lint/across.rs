//! Whether documents agree with each other: references, params, results, workspaces and overrides. Pure.
//!
//! None of this can be seen at admission, where an object stands alone; most of it would fail a run only once it has
//! started. What is referred to and not among the documents may be in the cluster: it is a finding only when something
//! of its kind is given.

mod definitions;
mod given;
mod pipeline;

use std::sync::Arc;

use ropewalk_api::config::Config;
use ropewalk_api::defaults::Defaulted;
use ropewalk_api::{Param, PipelineRun, StepRef, TaskRun, TaskSpec, WorkspaceBinding, strict};
use serde::de::DeserializeOwned;

use crate::diagnostic::Diagnostic;
use crate::documents::Document;
use definitions::{Definitions, Interface};
use given::{Given, Scope};

/// Everything that does not fit together, document by document.
pub(super) fn check(documents: &[Document]) -> Vec<Diagnostic> {
    let definitions = Definitions::new(documents);
    let mut found = definitions.duplicates();
    for document in documents {
        let mut report = Report { document, found: Vec::new() };
        match document.kind() {
            "Task" => {
                if let Some(task) = definitions.own_task(document) {
                    steps(&task.spec, "spec", &definitions, &mut report);
                }
            }
            "TaskRun" => {
                if let Some(run) = read::<TaskRun>(document) {
                    task_run(&run, &definitions, &mut report);
                }
            }
            "Pipeline" => {
                if let Some(pipeline) = definitions.own_pipeline(document) {
                    pipeline::check(&pipeline.spec, "spec", None, &definitions, &mut report);
                }
            }
            "PipelineRun" => {
                if let Some(run) = read::<PipelineRun>(document) {
                    pipeline_run(&run, &definitions, &mut report);
                }
            }
            _ => {}
        }
        found.append(&mut report.found);
    }
    found
}

/// The object with its defaults, when it can be read; that it cannot has been said already.
fn read<T: Defaulted + DeserializeOwned>(document: &Document) -> Option<T> {
    let mut object: T = strict::decode(&document.value).ok()?;
    object.set_defaults(&Config::default());
    Some(object)
}

/// What is found in one document.
struct Report<'a> {
    document: &'a Document,
    found: Vec<Diagnostic>,
}

impl Report<'_> {
    /// An error at `culprit`, a part of the field's text; the whole field when that is empty.
    fn error(&mut self, path: &str, culprit: &str, message: String, hint: Option<String>) {
        let diagnostic = self.diagnostic(path, culprit, message, hint);
        self.found.push(diagnostic);
    }

    fn warning(&mut self, path: &str, culprit: &str, message: String, hint: Option<String>) {
        let diagnostic = self.diagnostic(path, culprit, message, hint).as_warning();
        self.found.push(diagnostic);
    }

    fn diagnostic(&self, path: &str, culprit: &str, message: String, hint: Option<String>) -> Diagnostic {
        let place = self.document.locate_within(path, culprit);
        let diagnostic = Diagnostic::new(message).at(Arc::clone(&self.document.source), place);
        match hint {
            Some(hint) => diagnostic.hint(hint),
            None => diagnostic,
        }
    }
}

/// `did you mean "x"?`
fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    strict::nearest(word, known).map(|known| format!("did you mean \"{known}\"?"))
}

fn task_run(run: &TaskRun, definitions: &Definitions<'_>, report: &mut Report<'_>) {
    let spec = &run.spec;
    let interface = if let Some(task_spec) = &spec.task_spec {
        steps(task_spec, "spec.taskSpec", definitions, report);
        Some(Interface::of_task("the embedded task".to_owned(), task_spec, true))
    } else {
        let task_ref = spec.task_ref.as_ref();
        task_ref.and_then(|task_ref| definitions.task(task_ref, "spec.taskRef", report))
    };
    let Some(interface) = interface else { return };
    let subject = if interface.open { "spec.taskSpec" } else { "spec.taskRef" };
    brought(&spec.params, &spec.workspaces, subject, &interface, report);
    let steps = spec.step_specs.iter().map(|spec| &*spec.name).collect::<Vec<_>>();
    let sidecars = spec.sidecar_specs.iter().map(|spec| &*spec.name).collect();
    let overrides = [
        ("stepSpecs", "step", steps, &interface.steps),
        ("sidecarSpecs", "sidecar", sidecars, &interface.sidecars),
    ];
    for (field, what, names, known) in overrides {
        for (index, name) in names.into_iter().enumerate().filter(|(_, name)| !known.contains(name)) {
            report.error(
                &format!("spec.{field}[{index}].name"),
                name,
                format!("{} has no {what} \"{name}\"", interface.what),
                did_you_mean(name, known.iter().copied()),
            );
        }
    }
}

fn pipeline_run(run: &PipelineRun, definitions: &Definitions<'_>, report: &mut Report<'_>) {
    let spec = &run.spec;
    let interface = if let Some(pipeline_spec) = &spec.pipeline_spec {
        pipeline::check(pipeline_spec, "spec.pipelineSpec", Some(spec), definitions, report);
        Some(Interface::of_pipeline("the embedded pipeline".to_owned(), pipeline_spec, true))
    } else {
        let pipeline_ref = spec.pipeline_ref.as_ref();
        pipeline_ref.and_then(|pipeline_ref| definitions.pipeline(pipeline_ref, "spec.pipelineRef", report))
    };
    let Some(interface) = interface else { return };
    let subject = if interface.open { "spec.pipelineSpec" } else { "spec.pipelineRef" };
    brought(&spec.params, &spec.workspaces, subject, &interface, report);
    for (index, name) in spec.task_run_specs.iter().map(|spec| &*spec.pipeline_task_name).enumerate() {
        if !interface.steps.contains(&name) {
            report.error(
                &format!("spec.taskRunSpecs[{index}].pipelineTaskName"),
                name,
                format!("{} has no task \"{name}\"", interface.what),
                did_you_mean(name, interface.steps.iter().copied()),
            );
        }
    }
}

/// What a run brings along for the definition at `subject`.
fn brought(
    params: &[Param],
    workspaces: &[WorkspaceBinding],
    subject: &str,
    interface: &Interface<'_>,
    report: &mut Report<'_>,
) {
    Given { params, matrix: None, base: "spec", subject }.check(interface, &Scope::default(), report);
    let bound: Vec<&str> = workspaces.iter().map(|binding| binding.name.as_str()).collect();
    interface.check_workspaces(&bound, "spec", report);
}

/// The StepActions that the steps of a Task refer to, and the params they get.
fn steps(spec: &TaskSpec, path: &str, definitions: &Definitions<'_>, report: &mut Report<'_>) {
    let scope = Scope::of_params(&spec.params);
    for (index, step) in spec.steps.iter().enumerate() {
        let Some(StepRef { name, resolver, .. }) = &step.step_ref else { continue };
        let (base, subject) = (format!("{path}.steps[{index}]"), format!("{path}.steps[{index}].ref"));
        if !resolver.is_empty() {
            continue;
        }
        if let Some(interface) = definitions.step_action(name, &subject, report) {
            Given { params: &step.params, matrix: None, base: &base, subject: &subject }
                .check(&interface, &scope, report);
        }
    }
}
