//! The passes over a whole Pipeline: params, contexts, bound workspaces (contract 4.3 and 7.9). Pure.

use std::collections::BTreeSet;

use ropewalk_api::{Param, ParamValue, PipelineRun, PipelineSpec, PipelineTask};

use crate::substitution::{Replacements, Scope, in_task_spec};

/// The Pipeline with every variable replaced that a run knows from its start; results come later, per task.
pub(super) fn pipeline(
    run: &PipelineRun,
    pipeline_name: &str,
    spec: &PipelineSpec,
    params: &[Param],
) -> PipelineSpec {
    let mut spec = spec.clone();
    let mut outer = Replacements::new();
    outer.params(Scope::Pipeline, params);
    let mut propagated = Replacements::new();
    propagated.params(Scope::Task, params);
    let contexts = contexts(run, pipeline_name);
    let bound = bound_workspaces(run, &spec);
    for task in spec.tasks.iter_mut().chain(&mut spec.finally) {
        // A param of the pipeline task itself wins over what the run propagates: the TaskRun fills that one
        // in.
        let own: BTreeSet<&str> = own_params(task);
        if params.iter().any(|param| own.contains(param.name.as_str())) {
            let others: Vec<Param> =
                params.iter().filter(|param| !own.contains(param.name.as_str())).cloned().collect();
            let mut shadowed = Replacements::new();
            shadowed.params(Scope::Task, &others);
            lacking_keys(&mut shadowed, params, task);
            embedded(&shadowed, task);
        } else {
            embedded(&propagated, task);
        }
        in_pipeline_task(&outer, task);
        for pass in [&contexts, &bound] {
            embedded(pass, task);
            in_pipeline_task(pass, task);
        }
    }
    spec
}

/// What the run's objects have and the pipeline task's own of the same name lack: keys propagate one by one.
fn lacking_keys(set: &mut Replacements, params: &[Param], task: &PipelineTask) {
    for own in &task.params {
        let whole = params.iter().find(|param| param.name == own.name).map(|param| &param.value);
        let (Some(ParamValue::Object(whole)), ParamValue::Object(part)) = (whole, &own.value) else {
            continue;
        };
        for (key, text) in whole.iter().filter(|(key, _)| !part.contains_key(*key)) {
            for prefix in ["params", "inputs.params"] {
                set.text(format!("{prefix}.{}.{key}", own.name), text);
            }
        }
    }
}

/// The names of the params a pipeline task gives itself, its matrix included.
pub(super) fn own_params(task: &PipelineTask) -> BTreeSet<&str> {
    let matrix = task.matrix.iter().flat_map(|matrix| {
        matrix.params.iter().chain(matrix.include.iter().flat_map(|include| &include.params))
    });
    task.params.iter().chain(matrix).map(|param| param.name.as_str()).collect()
}

fn embedded(set: &Replacements, task: &mut PipelineTask) {
    if set.is_empty() {
        return;
    }
    if let Some(embedded) = &mut task.task_spec {
        in_task_spec(set, &mut embedded.task_spec);
    }
}

/// Replaces in the fields of a pipeline task itself; its embedded Task is left alone.
pub(super) fn in_pipeline_task(set: &Replacements, task: &mut PipelineTask) {
    if set.is_empty() {
        return;
    }
    task.params = set.in_params(&task.params);
    if let Some(matrix) = &mut task.matrix {
        matrix.params = set.in_params(&matrix.params);
        for include in &mut matrix.include {
            include.params = set.in_params(&include.params);
        }
    }
    task.when = set.in_when(&task.when);
    set.apply(&mut task.display_name);
    set.apply(&mut task.on_error);
    for workspace in &mut task.workspaces {
        set.apply(&mut workspace.sub_path);
    }
    if let Some(reference) = &mut task.task_ref {
        set.apply(&mut reference.name);
        reference.params = set.in_params(&reference.params);
    }
}

/// `context.pipelineRun.*` and `context.pipeline.name`.
pub(super) fn contexts(run: &PipelineRun, pipeline_name: &str) -> Replacements {
    let mut set = Replacements::new();
    set.text("context.pipelineRun.name", run.metadata.name.clone().unwrap_or_default());
    set.text("context.pipelineRun.namespace", run.metadata.namespace.clone().unwrap_or_default());
    set.text("context.pipelineRun.uid", run.metadata.uid.clone().unwrap_or_default());
    set.text("context.pipeline.name", pipeline_name);
    set
}

fn bound_workspaces(run: &PipelineRun, spec: &PipelineSpec) -> Replacements {
    let bound: BTreeSet<&str> = run.spec.workspaces.iter().map(|binding| binding.name.as_str()).collect();
    let declared = spec.workspaces.iter().map(|workspace| workspace.name.as_str());
    let mut set = Replacements::new();
    for name in declared.chain(bound.iter().copied()) {
        set.text(format!("workspaces.{name}.bound"), bound.contains(name).to_string());
    }
    set
}
