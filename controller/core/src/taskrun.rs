//! TaskRun: from a snapshot to a plan (contract 5 and 6).
//!
//! A run that goes well costs four writes: its pod, `Started`, `Running`, and its end.

mod containers;
mod creation;
mod credentials;
mod diagnosis;
mod draft;
mod failure;
mod lifecycle;
mod look_ups;
pub(crate) mod passes;
pub mod resolve;
mod results;
mod sidecars;
mod steps;
pub(crate) mod validate;
mod waiting;
mod warnings;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use ropewalk_api::config::Config;
use ropewalk_api::{Task, TaskRun, conditions, taskrun_spec_status};

pub(crate) use creation::provenance;
pub use warnings::PodWarning;

use crate::credentials::{Account, Answer};
use crate::images;
use crate::plan::Plan;
use crate::pod;
use crate::settings::Settings;
use crate::snapshot::{Lookup, Refusal};

/// Everything a decision about one TaskRun depends on.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was taken.
    pub now: Timestamp,
    /// The ConfigMaps.
    pub config: Arc<Config>,
    /// The process's settings.
    pub settings: Arc<Settings>,
    /// The run as the API server has it.
    pub run: Arc<TaskRun>,
    /// The referenced Task; looked up only when [`wants_task`] says so.
    pub task: Lookup<Task>,
    /// The service account of the pod; looked up only when [`wants_account`] says so.
    pub account: Option<Answer<Account>>,
    /// Every pod whose controller is this run, of any attempt, in order of name.
    pub pods: Vec<Arc<Pod>>,
    /// What nodes said of these pods in events, in a fixed order.
    pub warnings: Vec<PodWarning>,
    /// How far the look-ups of images are that earlier plans named, by image; `None` where registries are not asked.
    pub images: Option<BTreeMap<String, images::Lookup>>,
    /// Writes refused in earlier rounds of this reconcile.
    pub refusals: Vec<Refusal>,
}

/// Reasons of the `Succeeded` condition of a TaskRun (contract 6).
pub mod reason {
    #![expect(missing_docs, reason = "the words are the contract's own")]
    pub const STARTED: &str = "Started";
    pub const PENDING: &str = "Pending";
    pub const TASK_RUN_PENDING: &str = "TaskRunPending";
    pub const RUNNING: &str = "Running";
    pub const TO_BE_RETRIED: &str = "ToBeRetried";
    pub const SUCCEEDED: &str = "Succeeded";
    pub const FAILED: &str = "Failed";
    pub const FAILURE_IGNORED: &str = "FailureIgnored";
    pub const CANCELLED: &str = "TaskRunCancelled";
    pub const TIMED_OUT: &str = "TaskRunTimeout";
    pub const RESOLUTION_FAILED: &str = "TaskRunResolutionFailed";
    pub const VALIDATION_FAILED: &str = "TaskRunValidationFailed";
    pub const INVALID_PARAM_VALUE: &str = "InvalidParamValue";
    pub const IMAGE_PULL_FAILED: &str = "TaskRunImagePullFailed";
    pub const PULL_IMAGE_FAILED: &str = "PullImageFailed";
    pub const CONFIG_ERROR: &str = "CreateContainerConfigError";
    pub const POD_CREATION_FAILED: &str = "PodCreationFailed";
    pub const POD_ADMISSION_FAILED: &str = "PodAdmissionFailed";
    pub const POD_EVICTED: &str = "PodEvicted";
    pub const EXCEEDED_RESOURCE_QUOTA: &str = "ExceededResourceQuota";
    pub const EXCEEDED_NODE_RESOURCES: &str = "ExceededNodeResources";
    pub const CLAIM_CREATION_FAILED: &str = "CouldntCreateWorkspacePVC";
}

/// The name of the Task to look up before planning: a run by reference that has not stored its spec yet.
pub fn wants_task(run: &TaskRun) -> Option<&str> {
    let status = run.status.as_ref();
    let done = status.is_some_and(|status| conditions::is_done(&status.conditions));
    let stored = status.is_some_and(|status| status.task_spec.is_some());
    let held =
        matches!(run.spec.status.as_str(), taskrun_spec_status::PENDING | taskrun_spec_status::CANCELLED);
    if done || stored || held || run.spec.task_spec.is_some() {
        return None;
    }
    let task = run.spec.task_ref.as_ref()?;
    (task.resolver.is_empty() && !task.name.is_empty()).then_some(task.name.as_str())
}

/// The service account to look up before planning, with its secrets: that of a run whose pod is still to be made.
pub fn wants_account(
    run: &TaskRun,
    pods: &[Arc<Pod>],
    config: &Config,
    settings: &Settings,
) -> Option<String> {
    let status = run.status.as_ref();
    let done = status.is_some_and(|status| conditions::is_done(&status.conditions));
    let held =
        matches!(run.spec.status.as_str(), taskrun_spec_status::PENDING | taskrun_spec_status::CANCELLED);
    if done
        || held
        || config.features.disable_creds_init
        || !lifecycle::is_ours(run, settings)
        || draft::pod_of(run, status, pods).is_some()
    {
        return None;
    }
    Some(pod::service_account(run, config))
}

/// What to do about a TaskRun now.
pub fn plan(snapshot: &Snapshot) -> Plan {
    lifecycle::plan(snapshot)
}
