//! Task and every place a Task is embedded in (contract 2.2).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::VolumeMount;

use super::names::{is_dns_label, label_detail};
use super::usage::{self, Around, Pool};
use super::{FieldError, FieldErrors, Validated, common, params};
use crate::config::{ApiFields, Config};
use crate::{GoDuration, Sidecar, Step, StepTemplate, Task, TaskSpec, WorkspaceDeclaration};

/// The sidecar that upstream adds to read results from logs.
const RESULTS_SIDECAR: &str = "tekton-log-results";

impl Validated for Task {
    fn validate(&self, config: &Config) -> FieldErrors {
        let mut errors = self.validate_metadata();
        errors.also(
            task_spec(&self.spec, &Pool::new(&self.spec.params, Around::Nothing), config).via_field("spec"),
        );
        errors
    }
}

/// A Task's spec, with paths from it on; `pool` holds the params its steps may refer to.
pub(super) fn task_spec(spec: &TaskSpec, pool: &Pool<'_>, config: &Config) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if spec.steps.is_empty() {
        errors.push(FieldError::missing(&["steps"]));
    }
    errors.also(volumes(spec));
    errors.also(workspaces(spec));
    errors.also(workspace_usages(spec, config));
    errors.also(params::of_a_task(&spec.params, config));
    errors.also(params::task_results(&spec.results));
    let (mut names, results) = (BTreeSet::new(), usage::result_names(&spec.results));
    for (index, step) in spec.steps.iter().enumerate() {
        let mut own = self::step(step, spec.step_template.as_deref(), config);
        if !step.name.is_empty() && !names.insert(step.name.as_str()) {
            own.push(FieldError::both(&["name"]));
        }
        own.also(usage::step_variables(step, pool, &results));
        errors.also(own.via_index("steps", index));
    }
    if let Some(template) = &spec.step_template {
        errors.also(volume_mounts(&template.volume_mounts).via_field("stepTemplate"));
    }
    for (index, sidecar) in spec.sidecars.iter().enumerate() {
        // Upstream names no index here.
        errors.also(self::sidecar(sidecar, index).via_field("sidecars"));
    }
    errors
}

fn volumes(spec: &TaskSpec) -> FieldErrors {
    let mut seen = BTreeSet::new();
    spec.volumes
        .iter()
        .enumerate()
        .filter(|(_, volume)| !seen.insert(volume.name.as_str()))
        .map(|(index, volume)| {
            FieldError::new(
                format!("multiple volumes with same name \"{}\"", volume.name),
                &[&format!("volumes[{index}].name")],
            )
        })
        .collect()
}

fn workspaces(spec: &TaskSpec) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let mut names = BTreeSet::new();
    let template = spec.step_template.iter().flat_map(|template| &template.volume_mounts);
    let mut paths: BTreeSet<String> = spec
        .steps
        .iter()
        .flat_map(|step| &step.volume_mounts)
        .chain(template)
        .map(|mount| clean(&mount.mount_path))
        .collect();
    for (index, workspace) in spec.workspaces.iter().enumerate() {
        let WorkspaceDeclaration { name, .. } = workspace;
        let path = |field: &str| format!("workspaces[{index}].{field}");
        if !names.insert(name.as_str()) {
            errors
                .push(FieldError::new(format!("workspace name \"{name}\" must be unique"), &[&path("name")]));
        }
        let mount_path = clean(&workspace.path());
        if paths.contains(&mount_path) {
            errors.push(FieldError::new(
                format!("workspace mount path \"{mount_path}\" must be unique"),
                &[&path("mountPath")],
            ));
        }
        paths.insert(mount_path);
    }
    errors
}

fn workspace_usages(spec: &TaskSpec, config: &Config) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let declared: BTreeSet<&str> = spec.workspaces.iter().map(|workspace| workspace.name.as_str()).collect();
    let steps = spec.steps.iter().map(|step| ("steps", "step workspaces", &step.workspaces)).enumerate();
    let sidecars = spec
        .sidecars
        .iter()
        .map(|sidecar| ("sidecars", "sidecar workspaces", &sidecar.workspaces))
        .enumerate();
    for (index, (list, feature, usages)) in steps.chain(sidecars) {
        let mut own = FieldErrors::default();
        if !usages.is_empty() {
            own.also(common::gate(feature, ApiFields::Beta, config, "workspaces"));
        }
        for (at, usage) in usages.iter().enumerate().filter(|(_, usage)| !declared.contains(&*usage.name)) {
            own.push(FieldError::new(
                format!("undefined workspace \"{}\"", usage.name),
                &[&format!("workspaces[{at}].name")],
            ));
        }
        errors.also(own.via_index(list, index));
    }
    errors
}

/// The template gives what the step itself leaves out, unless that refers to a StepAction.
fn step(step: &Step, template: Option<&StepTemplate>, config: &Config) -> FieldErrors {
    // These two stand for all others of a step, as upstream returns at them.
    if usage::uses_artifacts(step) && !config.features.enable_artifacts {
        return FieldError::new(
            "feature flag enable-artifacts should be set to true to use artifacts feature.",
            &[""],
        )
        .into();
    }
    if let Some(timeout) = step.timeout.filter(|timeout| *timeout < GoDuration::ZERO) {
        return FieldError::invalid(timeout, "negative timeout").into();
    }
    let mut errors = FieldErrors::default();
    if let Some(step_ref) = &step.step_ref {
        let reference = common::Reference {
            name: &step_ref.name,
            resolver: &step_ref.resolver,
            params: &step_ref.params,
            variables: false,
        };
        errors.also(reference.validate(config).via_field("ref"));
        for (used, field, words) in [
            (!step.image.is_empty(), "image", "image"),
            (!step.command.is_empty(), "command", "command"),
            (!step.args.is_empty(), "args", "args"),
            (!step.script.is_empty(), "script", "script"),
            (!step.working_dir.is_empty(), "workingDir", "working dir"),
            (!step.env.is_empty(), "env", "env"),
            (!step.volume_mounts.is_empty(), "volumeMounts", "volumeMounts"),
            (!step.results.is_empty(), "results", "results"),
        ] {
            if used {
                errors.push(FieldError::new(format!("{words} cannot be used with Ref"), &[field]));
            }
        }
        errors.also(common::unique_params(&step.params));
    } else {
        if !step.params.is_empty() {
            errors.push(FieldError::new("params cannot be used without Ref", &["params"]));
        }
        if step.image.is_empty() && template.is_none_or(|template| template.image.is_empty()) {
            errors.push(FieldError::missing(&["Image"]));
        }
    }
    if !step.name.is_empty() && !is_dns_label(&step.name) {
        errors.push(
            FieldError::new(format!("invalid value \"{}\"", step.name), &["name"])
                .detail(label_detail("Task step name")),
        );
    }
    if !step.script.is_empty() {
        let template = template.filter(|_| step.step_ref.is_none());
        if !step.command.is_empty() || template.is_some_and(|template| !template.command.is_empty()) {
            errors.push(FieldError::new("script cannot be used with command", &["script"]));
        }
        if step.script.trim_start().starts_with("#!win") {
            errors.also(common::gate("windows script support", ApiFields::Alpha, config, "script"));
        }
    }
    if !(step.on_error.is_empty()
        || step.on_error.starts_with("$(params")
        || ["continue", "stopAndFail"].contains(&step.on_error.as_str()))
    {
        errors.push(
            FieldError::new(format!("invalid value: \"{}\"", step.on_error), &["onError"])
                .detail("Task step onError must be either \"continue\" or \"stopAndFail\""),
        );
    }
    for (set, field, feature) in [
        (step.stdout_config.is_some(), "stdoutConfig", "step stdout stream support"),
        (step.stderr_config.is_some(), "stderrConfig", "step stderr stream support"),
    ] {
        if set {
            errors.also(common::gate(feature, ApiFields::Alpha, config, field));
        }
    }
    errors.also(volume_mounts(&step.volume_mounts));
    errors.also(params::step_results(&step.results));
    errors.also(common::when(&step.when, config));
    errors
}

fn volume_mounts(mounts: &[VolumeMount]) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (index, mount) in mounts.iter().enumerate() {
        let path = format!("volumeMounts[{index}]");
        let cleaned = clean(&mount.mount_path);
        if cleaned.starts_with("/tekton/") && !cleaned.starts_with("/tekton/home") {
            errors.push(FieldError::new(
                format!(
                    "volumeMount cannot be mounted under /tekton/ (volumeMount \"{}\" mounted at \"{}\")",
                    mount.name, mount.mount_path
                ),
                &[&format!("{path}.mountPath")],
            ));
        }
        if mount.name.starts_with("tekton-internal-") {
            errors.push(FieldError::new(
                format!("volumeMount name \"{}\" cannot start with \"tekton-internal-\"", mount.name),
                &[&format!("{path}.name")],
            ));
        }
    }
    errors
}

fn sidecar(sidecar: &Sidecar, index: usize) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if sidecar.name == RESULTS_SIDECAR {
        errors.push(
            FieldError::new(
                format!("Invalid: cannot use reserved sidecar name {RESULTS_SIDECAR}"),
                &["name"],
            )
            .place(format!("[{index}].name")),
        );
    }
    if sidecar.image.is_empty() {
        errors.push(FieldError::missing(&["image"]).place(format!("[{index}]")));
    }
    if !(sidecar.script.is_empty() || sidecar.command.is_empty()) {
        let error = FieldError::new("script cannot be used with command", &["script"]);
        errors.push(error.place(format!("[{index}].script")));
    }
    errors
}

/// A path without `.`, `..`, doubled or closing slashes, as Go's `filepath.Clean` has it.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests;
