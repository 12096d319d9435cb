//! The substitution passes over a Task, in the order that can be observed (contract 4.1, 4.2 and 12.4).

use std::collections::BTreeMap;

use indexmap::IndexMap;
use ropewalk_api::config::Config;
use ropewalk_api::{ParamSpec, ParamValue, PodTemplate, TaskRun, TaskSpec, WorkspaceBinding};
use ropewalk_entrypoint_protocol::paths;

use super::resolve::Resolved;
use crate::credentials::Credentials;
use crate::pod;
use crate::substitution::{self, Replacements, Scope};

/// Runs every pass but that of the credentials, which is made for the pod alone.
pub(super) fn all(run: &TaskRun, mut spec: TaskSpec, task_name: &str, config: &Config) -> Resolved {
    let params = params(run, &spec);
    let mut workspaces = run.spec.workspaces.clone();
    for binding in &mut workspaces {
        substitution::in_workspace_binding(&params, binding);
    }
    let mut pod_template = pod_template(run, config);
    if let Some(template) = &mut pod_template {
        substitution::in_pod_template(&params, template);
    }

    substitution::in_task_spec(&params, &mut spec);
    substitution::in_task_spec(&contexts(run, task_name), &mut spec);
    step_results(&mut spec);
    substitution::in_task_spec(&results(&spec), &mut spec);
    substitution::in_task_spec(&exit_codes(&spec), &mut spec);
    workspace_paths(&workspaces, &mut spec);
    substitution::in_task_spec(&workspace_facts(run, &workspaces, &spec), &mut spec);
    Resolved {
        spec,
        workspaces,
        pod_template,
        labels: Vec::new(),
        annotations: Vec::new(),
        images: BTreeMap::new(),
        credentials: Credentials::default(),
    }
}

/// The pass of the pod build.
pub(crate) fn credentials(spec: &mut TaskSpec) {
    let mut set = Replacements::new();
    set.text("credentials.path", paths::CREDS);
    substitution::in_task_spec(&set, spec);
}

/// The values of all params: defaults, and what the run gives over them. An object keeps the default's other keys.
pub(super) fn param_values(run: &TaskRun, spec: &TaskSpec) -> IndexMap<String, ParamValue> {
    let mut values = defaults(&spec.params);
    for param in &run.spec.params {
        let value = match (values.get(&param.name), &param.value) {
            (Some(ParamValue::Object(default)), ParamValue::Object(given)) => {
                let mut merged = default.clone();
                merged.extend(given.clone());
                ParamValue::Object(merged)
            }
            _ => param.value.clone(),
        };
        values.insert(param.name.clone(), value);
    }
    values
}

/// A string default sees the other params' defaults, never what the run gives (contract 4.1).
fn defaults(declared: &[ParamSpec]) -> IndexMap<String, ParamValue> {
    let raw = || declared.iter().filter_map(|param| Some((param.name.clone(), param.default.clone()?)));
    let mut set = Replacements::new();
    for (name, value) in raw() {
        set.param(Scope::Task, &name, &value);
    }
    raw()
        .map(|(name, value)| match value {
            ParamValue::String(text) => (name, ParamValue::String(set.in_text(&text))),
            other => (name, other),
        })
        .collect()
}

fn params(run: &TaskRun, spec: &TaskSpec) -> Replacements {
    let mut set = Replacements::new();
    for (name, value) in param_values(run, spec) {
        set.param(Scope::Task, &name, &value);
    }
    set
}

fn contexts(run: &TaskRun, task_name: &str) -> Replacements {
    let metadata = &run.metadata;
    let retries = run.status.as_ref().map_or(0, |status| status.retries_status.len());
    let mut set = Replacements::new();
    set.text("context.taskRun.name", metadata.name.clone().unwrap_or_default());
    set.text("context.taskRun.namespace", metadata.namespace.clone().unwrap_or_default());
    set.text("context.taskRun.uid", metadata.uid.clone().unwrap_or_default());
    set.text("context.task.name", task_name);
    set.text("context.task.retry-count", retries.to_string());
    set
}

fn step_results(spec: &mut TaskSpec) {
    let names = pod::step_containers(&spec.steps);
    for (step, container) in spec.steps.iter_mut().zip(&names) {
        let mut set = Replacements::new();
        for result in &step.results {
            let path = paths::step_result(container, &result.name);
            result_path(&mut set, "step.results", &result.name, &path);
        }
        substitution::in_step(&set, step);
    }
}

fn results(spec: &TaskSpec) -> Replacements {
    let mut set = Replacements::new();
    for result in &spec.results {
        result_path(&mut set, "results", &result.name, &paths::result(&result.name));
    }
    set
}

fn result_path(set: &mut Replacements, prefix: &str, name: &str, path: &str) {
    for key in [
        format!("{prefix}.{name}.path"),
        format!("{prefix}[\"{name}\"].path"),
        format!("{prefix}['{name}'].path"),
    ] {
        set.text(key, path);
    }
}

fn exit_codes(spec: &TaskSpec) -> Replacements {
    let mut set = Replacements::new();
    for container in pod::step_containers(&spec.steps) {
        set.text(format!("steps.{container}.exitCode.path"), paths::step_exit_code(&container));
    }
    set
}

/// `workspaces.W.path`; inside a step or sidecar that lists W for itself, its own mount path.
fn workspace_paths(bindings: &[WorkspaceBinding], spec: &mut TaskSpec) {
    let declared = spec.workspaces.clone();
    let set_for = |usages: &[ropewalk_api::WorkspaceUsage]| {
        let mut set = Replacements::new();
        for declaration in &declared {
            let bound = bindings.iter().any(|binding| binding.name == declaration.name);
            let own = usages
                .iter()
                .find(|usage| usage.name == declaration.name && !usage.mount_path.is_empty())
                .map(|usage| usage.mount_path.clone());
            let path = if bound { own.unwrap_or_else(|| declaration.path()) } else { String::new() };
            set.text(format!("workspaces.{}.path", declaration.name), path);
        }
        set
    };
    for step in &mut spec.steps {
        substitution::in_step(&set_for(&step.workspaces), step);
    }
    for sidecar in &mut spec.sidecars {
        substitution::in_sidecar(&set_for(&sidecar.workspaces), sidecar);
    }
    substitution::in_task_spec(&set_for(&[]), spec);
}

fn workspace_facts(run: &TaskRun, bindings: &[WorkspaceBinding], spec: &TaskSpec) -> Replacements {
    let owner_uid = run.metadata.uid.as_deref().unwrap_or_default();
    let volumes = pod::volume_names(bindings, owner_uid);
    let mut set = Replacements::new();
    for declaration in &spec.workspaces {
        let name = &declaration.name;
        let binding = bindings.iter().find(|binding| binding.name == *name);
        set.text(format!("workspaces.{name}.bound"), binding.is_some().to_string());
        if let Some(binding) = binding {
            let claim = pod::bound_claim(binding, owner_uid).unwrap_or_default();
            set.text(format!("workspaces.{name}.claim"), claim);
            set.text(format!("workspaces.{name}.volume"), volumes[name].clone());
        }
    }
    set
}

/// The run's template over the configured one: lists by name with the run's items first, the rest where unset.
fn pod_template(run: &TaskRun, config: &Config) -> Option<PodTemplate> {
    let (Some(own), Some(base)) = (&run.spec.pod_template, &config.defaults.pod_template) else {
        return run.spec.pod_template.clone().or_else(|| config.defaults.pod_template.clone());
    };
    let mut merged = own.clone();
    for variable in &base.env {
        if own.env.iter().all(|mine| mine.name != variable.name) {
            merged.env.push(variable.clone());
        }
    }
    for volume in &base.volumes {
        if own.volumes.iter().all(|mine| mine.name != volume.name) {
            merged.volumes.push(volume.clone());
        }
    }
    macro_rules! unless_set {
        ($($field:ident: $unset:expr),* $(,)?) => {
            $(if $unset(&own.$field) { merged.$field = base.$field.clone(); })*
        };
    }
    unless_set! {
        node_selector: std::collections::BTreeMap::is_empty,
        tolerations: Vec::is_empty,
        affinity: Option::is_none,
        security_context: Option::is_none,
        runtime_class_name: Option::is_none,
        automount_service_account_token: Option::is_none,
        dns_policy: Option::is_none,
        dns_config: Option::is_none,
        enable_service_links: Option::is_none,
        priority_class_name: Option::is_none,
        scheduler_name: String::is_empty,
        image_pull_secrets: Vec::is_empty,
        host_aliases: Vec::is_empty,
        host_users: Option::is_none,
        topology_spread_constraints: Vec::is_empty,
    }
    merged.host_network |= base.host_network;
    Some(merged)
}
