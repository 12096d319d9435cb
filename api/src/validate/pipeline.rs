//! Pipeline and every place one is embedded in (contract 2.3).

use std::collections::BTreeSet;

use super::pipeline_variables::Pools;
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
        errors.also(pipeline_spec(&self.spec, Within::Stored, config).via_field("spec"));
        errors
    }
}

/// Where a Pipeline's spec stands: what is around it propagates into it.
#[derive(Clone, Copy)]
pub(super) enum Within<'a> {
    /// In a Pipeline, which declares all that it uses.
    Stored,
    /// In a run, which brings params and workspaces.
    Run(&'a PipelineRunSpec),
    /// In a task of another Pipeline.
    Pipeline,
}

/// A Pipeline's spec, with paths from it on.
pub(super) fn pipeline_spec(spec: &PipelineSpec, within: Within<'_>, config: &Config) -> FieldErrors {
    if *spec == PipelineSpec::default() {
        let fields = ["description", "params", "resources", "tasks", "workspaces"];
        return FieldError::new("expected at least one, got none", &fields).into();
    }
    let stored = matches!(within, Within::Stored);
    let with_steps = spec.tasks.iter().chain(&spec.finally).any(|task| task.task_spec.is_some());
    let mut errors = params::of_a_pipeline(&spec.params, stored && with_steps, config);
    let hints = Hints::default();
    let names = match within {
        Within::Stored => spec.params.iter().map(|param| param.name.as_str()).collect(),
        Within::Run(run) => propagated_params(spec, run),
        Within::Pipeline => BTreeSet::new(),
    };
    let known = Around::Known(&names, &hints);
    let mut task_names = BTreeSet::new();
    for (field, tasks) in [("tasks", &spec.tasks), ("finally", &spec.finally)] {
        // Upstream does not look into embedded Tasks of `finally` in a run.
        let around = match within {
            Within::Stored => known,
            Within::Run(_) if field == "tasks" => known,
            Within::Run(_) | Within::Pipeline => Around::Unknown,
        };
        for (index, task) in tasks.iter().enumerate() {
            // Only in a run does an embedded Task see what it is given without declaring it.
            let given = if stored { &[][..] } else { &task.params };
            let mut own = pipeline_task::validate(task, around, given, config);
            if !task_names.insert(task.name.as_str()) {
                own.push(FieldError::both(&["name"]));
            }
            errors.also(own.via_index(field, index));
        }
    }
    errors.also(graph::validate(&spec.tasks));
    errors.also(finally(spec));
    errors.also(workspaces(spec));
    if stored {
        errors.also(bound_workspaces(spec));
    }
    let declared = |around| Pool::new(&spec.params, around).with_open_objects();
    let pools = match within {
        Within::Stored => {
            Pools { tasks: Some(declared(Around::Nothing)), finally: Some(declared(Around::Nothing)) }
        }
        Within::Run(run) => Pools { tasks: Some(declared(known).given(&run.params)), finally: None },
        Within::Pipeline => Pools { tasks: None, finally: None },
    };
    errors.also(pipeline_variables::validate(spec, &pools));
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

fn workspaces(spec: &PipelineSpec) -> FieldErrors {
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
    errors
}

/// Elsewhere the bindings look at what is around the Pipeline.
fn bound_workspaces(spec: &PipelineSpec) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let names: BTreeSet<&str> = spec.workspaces.iter().map(|workspace| workspace.name.as_str()).collect();
    let hints = Hints::default();
    let lists: [(&str, &[PipelineTask]); 2] = [("tasks", &spec.tasks), ("finally", &spec.finally)];
    for (field, index, task) in lists
        .iter()
        .flat_map(|(field, tasks)| tasks.iter().enumerate().map(move |(i, task)| (field, i, task)))
    {
        let mut bound = BTreeSet::new();
        for (at, binding) in task.workspaces.iter().enumerate() {
            let path = || format!("{field}[{index}].workspaces[{at}]");
            if !bound.insert(binding.name.as_str()) {
                let text = format!("workspace name \"{}\" must be unique", binding.name);
                errors.push(FieldError::new(text, &[&path()]));
            }
            let name = binding.pipeline_workspace();
            if !names.contains(name) {
                let path = path();
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
