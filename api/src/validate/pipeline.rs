//! Pipeline and every place one is embedded in (contract 2.3).

use std::collections::BTreeSet;

use super::usage::{Around, Pool};
use super::{
    FieldError, FieldErrors, Validated, graph, params, pipeline_results, pipeline_task, pipeline_variables,
};
use crate::config::Config;
use crate::strict::Hints;
use crate::{Pipeline, PipelineRunSpec, PipelineSpec, PipelineTask};

impl Validated for Pipeline {
    fn validate(&self, config: &Config) -> FieldErrors {
        let mut errors = self.validate_metadata();
        errors.also(pipeline_spec(&self.spec, None, config).via_field("spec"));
        errors
    }
}

/// A Pipeline's spec, with paths from it on. `run` is the run it is embedded in: what that run gives propagates into
/// embedded Tasks.
pub(super) fn pipeline_spec(
    spec: &PipelineSpec,
    run: Option<&PipelineRunSpec>,
    config: &Config,
) -> FieldErrors {
    if *spec == PipelineSpec::default() {
        let fields = ["description", "params", "resources", "tasks", "workspaces"];
        return FieldError::new("expected at least one, got none", &fields).into();
    }
    let mut errors = params::declared(&spec.params, config);
    let hints = Hints::default();
    let propagated = run.map(|run| propagated_params(spec, run));
    let mut names = BTreeSet::new();
    for (field, tasks) in [("tasks", &spec.tasks), ("finally", &spec.finally)] {
        // Upstream does not look into embedded Tasks of `finally`.
        let around = match &propagated {
            Some(names) if field == "tasks" => Around::Known(names, &hints),
            _ => Around::Unknown,
        };
        for (index, task) in tasks.iter().enumerate() {
            let mut own = pipeline_task::validate(task, around, config);
            if !names.insert(task.name.as_str()) {
                own.push(FieldError::both(&["name"]));
            }
            errors.also(own.via_index(field, index));
        }
    }
    errors.also(graph::validate(&spec.tasks));
    errors.also(finally(spec));
    errors.also(workspaces(spec, run.is_some()));
    let given = run.map_or(&[][..], |run| &run.params);
    let pool = Pool::new(&spec.params, Around::Nothing).given(given);
    errors.also(pipeline_variables::validate(spec, &pool));
    errors.also(pipeline_results::validate(spec));
    errors
}

/// Every param name that may reach an embedded Task of a run: one pool for all of them (contract 2.2).
fn propagated_params<'a>(spec: &'a PipelineSpec, run: &'a PipelineRunSpec) -> BTreeSet<&'a str> {
    let mut names: BTreeSet<&str> = run.params.iter().map(|param| param.name.as_str()).collect();
    names.extend(spec.params.iter().map(|param| param.name.as_str()));
    for task in spec.tasks.iter().chain(&spec.finally) {
        names.extend(task.params.iter().map(|param| param.name.as_str()));
        if let Some(matrix) = &task.matrix {
            let included = matrix.include.iter().flat_map(|include| &include.params);
            names.extend(matrix.params.iter().chain(included).map(|param| param.name.as_str()));
        }
        if let Some(embedded) = &task.task_spec {
            names.extend(embedded.task_spec.params.iter().map(|param| param.name.as_str()));
        }
    }
    names
}

fn finally(spec: &PipelineSpec) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if spec.tasks.is_empty() && !spec.finally.is_empty() {
        errors.push(FieldError::invalid(
            format!("spec.tasks is empty but spec.finally has {} tasks", spec.finally.len()),
            "finally",
        ));
    }
    for (index, task) in spec.finally.iter().enumerate() {
        if !task.run_after.is_empty() {
            let error = FieldError::invalid(
                format!(
                    "no runAfter allowed under spec.finally, final task {} has runAfter specified",
                    task.name
                ),
                &format!("finally[{index}]"),
            );
            errors.push(error.place(format!("finally[{index}].runAfter")));
        }
    }
    errors
}

fn workspaces(spec: &PipelineSpec, in_a_run: bool) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let mut names = BTreeSet::new();
    for (index, workspace) in spec.workspaces.iter().enumerate() {
        let path = format!("workspaces[{index}]");
        if workspace.name.is_empty() {
            errors.push(FieldError::invalid(format!("workspace {index} has empty name"), &path));
        }
        if !names.insert(workspace.name.as_str()) {
            errors.push(FieldError::invalid(
                format!("workspace with name \"{}\" appears more than once", workspace.name),
                &path,
            ));
        }
    }
    if in_a_run {
        // There the bindings look straight at the run's workspaces.
        return errors;
    }
    let hints = Hints::default();
    let lists: [(&str, &[PipelineTask]); 2] = [("tasks", &spec.tasks), ("finally", &spec.finally)];
    for (field, index, task) in lists
        .iter()
        .flat_map(|(field, tasks)| tasks.iter().enumerate().map(move |(i, task)| (field, i, task)))
    {
        for (at, binding) in task.workspaces.iter().enumerate() {
            let name = binding.pipeline_workspace();
            if !names.contains(name) {
                let path = format!("{field}[{index}].workspaces[{at}]");
                let text = format!(
                    "pipeline task \"{}\" expects workspace with name \"{name}\" but none exists in pipeline spec",
                    task.name
                );
                let said = if binding.workspace.is_empty() { "name" } else { "workspace" };
                let hint = hints.nearest(name, names.iter().copied());
                let hint = hint.map(|known| format!("did you mean \"{known}\"?")).unwrap_or_default();
                let error = FieldError::invalid(text, &path).place(format!("{path}.{said}"));
                errors.push(error.hint(hint));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests;
