//! The pod a TaskRun becomes: a pure function of the run, its Task and the configuration (contract 5.1 to 5.5, 5.7, 5.9).
//!
//! Where nodes mount images as volumes the entrypoint comes by one, and each container links the steps' status
//! directories, writes its script and makes its working directory itself. Elsewhere one init container, `prepare`, does
//! all that, which upstream splits over three.

mod prepare;
mod quantity;
mod resources;
mod scripts;
mod sidecar;
mod step;
mod volumes;
mod workspaces;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use ropewalk_api::config::Config;
use ropewalk_api::names::{child_name, step_container};
use ropewalk_api::{GoDuration, PodTemplate, ROPEWALK_GROUP, Task, TaskRun, labels};

use crate::credentials::{Account, Credentials};
use crate::settings::Settings;
use crate::taskrun::resolve::{self, Resolved};
use crate::taskrun::{passes, validate};

pub use resources::check as check_resources;
pub(crate) use step::bare_images;
pub(crate) use workspaces::bound_claim;
pub use workspaces::{claim, claim_name, volume_names};

/// Prefix of the containers of steps.
pub const STEP_PREFIX: &str = "step-";
/// Prefix of the containers of sidecars.
pub const SIDECAR_PREFIX: &str = "sidecar-";
/// The one init container, where image volumes do not make it superfluous.
pub const PREPARE: &str = "prepare";

/// The annotation of a pod that names the secrets its service account named in vain when it was made.
pub(crate) fn missing_secrets_key() -> String {
    format!("{ROPEWALK_GROUP}/missing-secrets")
}

/// Why no pod can be made from a Task. The text ends up in the run's condition.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PodError {
    /// The image's own entrypoint would have to be read from its registry.
    #[error(
        "step \"{0}\" has neither command nor script; set a command, as image entrypoints are not looked up"
    )]
    NoCommand(String),
    /// Its registry did not say what the image runs.
    #[error(
        "step \"{step}\" has neither command nor script, and the entrypoint of image \"{image}\" cannot be looked up: \
         {cause}"
    )]
    Image {
        /// The step.
        step: String,
        /// Its image.
        image: String,
        /// Why, and what to do about it.
        cause: String,
    },
    /// `onError` says something unknown, after substitution.
    #[error("step \"{step}\" has onError \"{value}\", expected \"continue\" or \"stopAndFail\"")]
    OnError {
        /// The step.
        step: String,
        /// What it says.
        value: String,
    },
    /// A script for Windows.
    #[error("the script of \"{0}\" starts with \"#!win\", and Windows is not supported")]
    WindowsScript(String),
    /// A param's value referred to a param that is not declared.
    #[error("non-existent variable in \"{0}\"")]
    UnknownVariable(String),
    /// Two volumes of the same name.
    #[error("multiple volumes with same name \"{0}\"")]
    DuplicateVolume(String),
    /// The run itself does not hold together; the text is that of its condition.
    #[error("{0}")]
    Invalid(String),
}

/// The pod of a run's current attempt, exactly as the controller would create it; for `ropewalk render`.
///
/// `task` is the referenced Task, absent for an embedded one; `account` is the run's service account. Fails with the text of the condition the run would get.
pub fn render(
    run: &TaskRun,
    task: Option<&Task>,
    account: &Account,
    config: &Config,
    settings: &Settings,
) -> Result<Pod, PodError> {
    let mut resolved =
        resolve::resolve(run, task, config).map_err(|failure| PodError::Invalid(failure.message))?;
    resolved.credentials = Credentials::of(&service_account(run, config), account)
        .map_err(|error| PodError::Invalid(error.to_string()))?;
    build(&resolved.adopt(run), &resolved, config, settings)
}

/// The pod of attempt `attempt`, counted from 0 (contract 5.1).
pub fn name(run_name: &str, attempt: usize) -> String {
    match attempt {
        0 => child_name(run_name, "-pod"),
        retry => child_name(run_name, &format!("-pod-retry{retry}")),
    }
}

/// How long one attempt may take; zero is unlimited.
pub fn timeout(run: &TaskRun, config: &Config) -> GoDuration {
    run.spec.timeout.unwrap_or(config.defaults.timeout)
}

/// Whether a pod made from this Task waits for the controller's word before its first step.
fn waits_for_sidecars(task: &Resolved, config: &Config) -> bool {
    config.features.await_sidecar_readiness && !task.spec.sidecars.is_empty()
}

/// The pod for a run's current attempt.
///
/// `run` carries the labels and annotations of its Task already; `task` is substituted and validated.
pub fn build(run: &TaskRun, task: &Resolved, config: &Config, settings: &Settings) -> Result<Pod, PodError> {
    let mut task = task.clone();
    passes::credentials(&mut task.spec);
    let task = &task;
    if let Some(text) = validate::unknown_param(&task.spec) {
        return Err(PodError::UnknownVariable(text));
    }
    let mounted = workspaces::mount(run, task);
    let scripts = scripts::place(&task.spec)?;
    let steps = step::merged(task, &mounted);
    let credentials = Some(&task.credentials).filter(|_| !config.features.disable_creds_init);
    let wait_for_ready = waits_for_sidecars(task, config);
    let containers = step::containers(&step::Inputs {
        run,
        task,
        config,
        settings,
        mounted: &mounted,
        scripts: &scripts,
        credentials,
        steps: &steps,
        wait_for_ready,
    })?;
    let sidecars = sidecar::containers(run, &task.spec, &mounted, &scripts, settings);
    let prepare = (!settings.image_volumes).then(|| prepare::container(&steps, &scripts, config, settings));

    let template = task.pod_template.clone().unwrap_or_default();
    let mut all_volumes = volumes::of_pod(steps.len(), &scripts, credentials, settings);
    all_volumes.extend(task.spec.volumes.iter().cloned());
    all_volumes.extend(mounted.volumes);
    all_volumes.extend(template.volumes.iter().cloned());
    let mut seen = BTreeSet::new();
    if let Some(twice) = all_volumes.iter().find(|volume| !seen.insert(&volume.name)) {
        return Err(PodError::DuplicateVolume(twice.name.clone()));
    }

    Ok(Pod {
        metadata: metadata(run, config, settings, credentials, !wait_for_ready),
        spec: Some(pod_spec(
            template,
            PodSpec {
                active_deadline_seconds: Some(active_deadline(timeout(run, config))),
                containers: containers.into_iter().chain(sidecars).collect(),
                init_containers: prepare.map(|container| vec![container]),
                restart_policy: Some("Never".to_owned()),
                service_account_name: Some(service_account(run, config)),
                volumes: Some(all_volumes),
                ..PodSpec::default()
            },
        )),
        status: None,
    })
}

/// The service account of a run's pod.
pub(crate) fn service_account(run: &TaskRun, config: &Config) -> String {
    match run.spec.service_account_name.as_str() {
        "" => config.defaults.service_account.clone(),
        name => name.to_owned(),
    }
}

/// Half as long again as the run may take: the controller ends a run in time, this ends a pod nobody looks after.
fn active_deadline(timeout: GoDuration) -> i64 {
    if timeout.is_zero() {
        return i64::from(i32::MAX);
    }
    // Kubernetes refuses 0.
    (timeout.as_nanos().saturating_mul(3) / 2 / 1_000_000_000).clamp(1, i64::from(i32::MAX))
}

fn metadata(
    run: &TaskRun,
    config: &Config,
    settings: &Settings,
    credentials: Option<&Credentials>,
    ready: bool,
) -> ObjectMeta {
    let run_name = run.metadata.name.clone().unwrap_or_default();
    let uid = run.metadata.uid.clone().unwrap_or_default();
    let mut pod_labels = run.metadata.labels.clone().unwrap_or_default();
    pod_labels.insert(labels::TASK_RUN.to_owned(), run_name.clone());
    pod_labels.insert(labels::TASK_RUN_UID.to_owned(), uid.clone());
    pod_labels.insert(labels::MANAGED_BY.to_owned(), config.defaults.managed_by.clone());

    let mut annotations = run.metadata.annotations.clone().unwrap_or_default();
    annotations.remove(labels::MANAGED_BY);
    annotations.retain(|key, _| !labels::is_record(key));
    annotations.insert(labels::RELEASE.to_owned(), settings.release.clone());
    if let Some(missing) = credentials.map(|it| &it.missing).filter(|missing| !missing.is_empty()) {
        annotations.insert(missing_secrets_key(), missing.join(", "));
    }
    if ready {
        annotations.insert(labels::READY.to_owned(), labels::READY_VALUE.to_owned());
    }

    let attempt = run.status.as_ref().map_or(0, |status| status.retries_status.len());
    ObjectMeta {
        name: Some(name(&run_name, attempt)),
        namespace: run.metadata.namespace.clone(),
        labels: Some(pod_labels),
        annotations: Some(annotations),
        owner_references: Some(vec![owner(run)]),
        ..ObjectMeta::default()
    }
}

/// The reference that makes a run the controller of its children.
pub fn owner(run: &TaskRun) -> OwnerReference {
    OwnerReference {
        api_version: "tekton.dev/v1".to_owned(),
        kind: "TaskRun".to_owned(),
        name: run.metadata.name.clone().unwrap_or_default(),
        uid: run.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn pod_spec(template: PodTemplate, spec: PodSpec) -> PodSpec {
    let list = |items: Vec<_>| (!items.is_empty()).then_some(items);
    PodSpec {
        node_selector: (!template.node_selector.is_empty()).then_some(template.node_selector),
        tolerations: (!template.tolerations.is_empty()).then_some(template.tolerations),
        affinity: template.affinity,
        security_context: template.security_context,
        runtime_class_name: template.runtime_class_name,
        automount_service_account_token: template.automount_service_account_token,
        dns_policy: template.dns_policy,
        dns_config: template.dns_config,
        enable_service_links: template.enable_service_links,
        priority_class_name: template.priority_class_name,
        scheduler_name: (!template.scheduler_name.is_empty()).then_some(template.scheduler_name),
        image_pull_secrets: list(template.image_pull_secrets),
        host_aliases: (!template.host_aliases.is_empty()).then_some(template.host_aliases),
        host_network: template.host_network.then_some(true),
        host_users: template.host_users,
        topology_spread_constraints: (!template.topology_spread_constraints.is_empty())
            .then_some(template.topology_spread_constraints),
        ..spec
    }
}

/// The container names of a Task's steps, in order.
pub fn step_containers(steps: &[ropewalk_api::Step]) -> Vec<String> {
    steps.iter().enumerate().map(|(index, step)| step_container(&step.name, index)).collect()
}
