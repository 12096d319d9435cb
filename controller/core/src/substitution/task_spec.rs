//! Which fields of a Task are substituted (contract 4.2).
//!
//! Not touched, on purpose: compute resources, security contexts, timeouts, probes, ports, lifecycle hooks, display
//! names, results, and emptyDir and hostPath volumes.

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, KeyToPath, ProjectedVolumeSource, Volume, VolumeMount,
};
use ropewalk_api::{PodTemplate, Sidecar, Step, StepTemplate, TaskSpec, WorkspaceBinding};
use serde_json::{Map, Value};

use super::Replacements;

/// Replaces in every field of a Task that contract 4.2 lists, in place.
pub fn in_task_spec(replacements: &Replacements, spec: &mut TaskSpec) {
    if replacements.is_empty() {
        return;
    }
    for step in &mut spec.steps {
        in_step(replacements, step);
    }
    for sidecar in &mut spec.sidecars {
        in_sidecar(replacements, sidecar);
    }
    if let Some(template) = &mut spec.step_template {
        in_step_template(replacements, template);
    }
    for volume in &mut spec.volumes {
        in_volume(replacements, volume);
    }
    for workspace in &mut spec.workspaces {
        replacements.apply_option(&mut workspace.mount_path);
    }
}

/// Replaces in one step, in place; some variables mean something else in each step.
pub fn in_step(replacements: &Replacements, step: &mut Step) {
    replacements.apply(&mut step.name);
    replacements.apply(&mut step.image);
    replacements.apply_option(&mut step.image_pull_policy);
    step.command = replacements.in_list(&step.command);
    step.args = replacements.in_list(&step.args);
    replacements.apply(&mut step.script);
    replacements.apply(&mut step.working_dir);
    in_env(replacements, &mut step.env);
    in_env_from(replacements, &mut step.env_from);
    in_volume_mounts(replacements, &mut step.volume_mounts);
    replacements.apply(&mut step.on_error);
    step.when = replacements.in_when(&step.when);
    step.params = replacements.in_params(&step.params);
    for workspace in &mut step.workspaces {
        replacements.apply(&mut workspace.mount_path);
    }
    for stream in [&mut step.stdout_config, &mut step.stderr_config].into_iter().flatten() {
        replacements.apply_option(&mut stream.path);
    }
    if let Some(step_ref) = &mut step.step_ref {
        replacements.apply(&mut step_ref.name);
        step_ref.params = replacements.in_params(&step_ref.params);
    }
}

/// Replaces in one sidecar, in place.
pub fn in_sidecar(replacements: &Replacements, sidecar: &mut Sidecar) {
    replacements.apply(&mut sidecar.name);
    replacements.apply(&mut sidecar.image);
    replacements.apply_option(&mut sidecar.image_pull_policy);
    sidecar.command = replacements.in_list(&sidecar.command);
    sidecar.args = replacements.in_list(&sidecar.args);
    replacements.apply(&mut sidecar.script);
    replacements.apply(&mut sidecar.working_dir);
    in_env(replacements, &mut sidecar.env);
    in_env_from(replacements, &mut sidecar.env_from);
    in_volume_mounts(replacements, &mut sidecar.volume_mounts);
    for workspace in &mut sidecar.workspaces {
        replacements.apply(&mut workspace.mount_path);
    }
}

fn in_step_template(replacements: &Replacements, template: &mut StepTemplate) {
    replacements.apply(&mut template.image);
    replacements.apply_option(&mut template.image_pull_policy);
    template.command = replacements.in_list(&template.command);
    template.args = replacements.in_list(&template.args);
    replacements.apply(&mut template.working_dir);
    in_env(replacements, &mut template.env);
    in_env_from(replacements, &mut template.env_from);
    in_volume_mounts(replacements, &mut template.volume_mounts);
}

/// Replaces in the strings of a pod template, in place; node selector keys count as strings.
pub fn in_pod_template(replacements: &Replacements, template: &mut PodTemplate) {
    // Tolerations, affinity, volumes, DNS: hundreds of string fields of Kubernetes' own types. All of them take part.
    let Ok(value) = serde_json::to_value(&*template) else { return };
    if let Ok(replaced) = serde_json::from_value(in_json(replacements, value)) {
        *template = replaced;
    }
}

fn in_json(replacements: &Replacements, value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(replacements.in_text(&text)),
        Value::Array(items) => {
            Value::Array(items.into_iter().map(|item| in_json(replacements, item)).collect())
        }
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(key, value)| (replacements.in_text(&key), in_json(replacements, value)))
                .collect::<Map<_, _>>(),
        ),
        other => other,
    }
}

/// Replaces in the strings of a workspace binding, in place.
pub fn in_workspace_binding(replacements: &Replacements, binding: &mut WorkspaceBinding) {
    replacements.apply(&mut binding.sub_path);
    if let Some(claim) = &mut binding.persistent_volume_claim {
        replacements.apply(&mut claim.claim_name);
    }
    if let Some(config_map) = &mut binding.config_map {
        replacements.apply(&mut config_map.name);
        in_items(replacements, &mut config_map.items);
    }
    if let Some(secret) = &mut binding.secret {
        replacements.apply_option(&mut secret.secret_name);
        in_items(replacements, &mut secret.items);
    }
    if let Some(projected) = &mut binding.projected {
        in_projected(replacements, projected);
    }
    if let Some(csi) = &mut binding.csi {
        replacements.apply(&mut csi.driver);
        if let Some(secret) = &mut csi.node_publish_secret_ref {
            replacements.apply(&mut secret.name);
        }
    }
}

fn in_volume(replacements: &Replacements, volume: &mut Volume) {
    replacements.apply(&mut volume.name);
    if let Some(config_map) = &mut volume.config_map {
        replacements.apply(&mut config_map.name);
        in_items(replacements, &mut config_map.items);
    }
    if let Some(secret) = &mut volume.secret {
        replacements.apply_option(&mut secret.secret_name);
        in_items(replacements, &mut secret.items);
    }
    if let Some(claim) = &mut volume.persistent_volume_claim {
        replacements.apply(&mut claim.claim_name);
    }
    if let Some(projected) = &mut volume.projected {
        in_projected(replacements, projected);
    }
    if let Some(csi) = &mut volume.csi {
        replacements.apply(&mut csi.driver);
        if let Some(secret) = &mut csi.node_publish_secret_ref {
            replacements.apply(&mut secret.name);
        }
        for value in csi.volume_attributes.iter_mut().flat_map(|attributes| attributes.values_mut()) {
            replacements.apply(value);
        }
    }
}

fn in_projected(replacements: &Replacements, projected: &mut ProjectedVolumeSource) {
    for source in projected.sources.iter_mut().flatten() {
        if let Some(config_map) = &mut source.config_map {
            replacements.apply(&mut config_map.name);
            in_items(replacements, &mut config_map.items);
        }
        if let Some(secret) = &mut source.secret {
            replacements.apply(&mut secret.name);
            in_items(replacements, &mut secret.items);
        }
        if let Some(token) = &mut source.service_account_token {
            replacements.apply_option(&mut token.audience);
        }
    }
}

fn in_items(replacements: &Replacements, items: &mut Option<Vec<KeyToPath>>) {
    for item in items.iter_mut().flatten() {
        replacements.apply(&mut item.key);
        replacements.apply(&mut item.path);
    }
}

fn in_env(replacements: &Replacements, env: &mut [EnvVar]) {
    for variable in env {
        replacements.apply_option(&mut variable.value);
        let Some(source) = &mut variable.value_from else { continue };
        if let Some(secret) = &mut source.secret_key_ref {
            replacements.apply(&mut secret.name);
            replacements.apply(&mut secret.key);
        }
        if let Some(config_map) = &mut source.config_map_key_ref {
            replacements.apply(&mut config_map.name);
            replacements.apply(&mut config_map.key);
        }
    }
}

fn in_env_from(replacements: &Replacements, sources: &mut [EnvFromSource]) {
    for source in sources {
        replacements.apply_option(&mut source.prefix);
        if let Some(config_map) = &mut source.config_map_ref {
            replacements.apply(&mut config_map.name);
        }
        if let Some(secret) = &mut source.secret_ref {
            replacements.apply(&mut secret.name);
        }
    }
}

fn in_volume_mounts(replacements: &Replacements, mounts: &mut [VolumeMount]) {
    for mount in mounts {
        replacements.apply(&mut mount.name);
        replacements.apply(&mut mount.mount_path);
        replacements.apply_option(&mut mount.sub_path);
    }
}
