//! TaskRun (contract 1.3).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use ropewalk_entrypoint_protocol::duration::GoDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Param, PodTemplate, TaskRef, TaskRunResult, TaskSpec, WorkspaceBinding, is_false, is_zero, or_default,
};
use crate::conditions::Condition;

/// Values of `spec.status` of a TaskRun.
pub mod taskrun_spec_status {
    /// Stop it.
    pub const CANCELLED: &str = "TaskRunCancelled";
    /// Do not start it yet.
    pub const PENDING: &str = "TaskRunPending";
}

/// One execution of a Task.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "tekton.dev",
    version = "v1",
    kind = "TaskRun",
    namespaced,
    schema = "disabled",
    status = "TaskRunStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "One execution of a Task."
)]
#[serde(rename_all = "camelCase")]
pub struct TaskRunSpec {
    /// Breakpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug: Option<TaskRunDebug>,
    /// Values for the Task's params.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Param>,
    /// Who the pod runs as; `default` by defaulting.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub service_account_name: String,
    /// The Task, by reference; excludes `taskSpec`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_ref: Option<TaskRef>,
    /// The Task, embedded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_spec: Option<TaskSpec>,
    /// See [`taskrun_spec_status`].
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Why `status` was set.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub status_message: String,
    /// How often a failed attempt is tried again.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub retries: i64,
    /// How long one attempt may take; 0 is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// Pod-level fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
    /// Bindings for the Task's workspaces.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub workspaces: Vec<WorkspaceBinding>,
    /// Resources of single steps.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub step_specs: Vec<TaskRunStepSpec>,
    /// Resources of single sidecars.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub sidecar_specs: Vec<TaskRunSidecarSpec>,
    /// Resources of the whole task, split over its steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_resources: Option<ResourceRequirements>,
    /// The controller that serves the run; immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
}

/// Debugging of a run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct TaskRunDebug {
    /// Where to stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breakpoints: Option<TaskBreakpoints>,
}

/// Where a run stops for a person to look.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskBreakpoints {
    /// `enabled`: at the first failing step.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub on_failure: String,
    /// Before these steps.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub before_steps: Vec<String>,
}

/// Resources for one step.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRunStepSpec {
    /// The step.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Its resources.
    #[serde(default, deserialize_with = "or_default")]
    pub compute_resources: ResourceRequirements,
}

/// Resources for one sidecar.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRunSidecarSpec {
    /// The sidecar.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Its resources.
    #[serde(default, deserialize_with = "or_default")]
    pub compute_resources: ResourceRequirements,
}

/// What became of a TaskRun.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRunStatus {
    /// The generation last acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Succeeded` first; sorted by type.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Notes of the engine.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The pod of the current attempt.
    #[serde(default, deserialize_with = "or_default")]
    pub pod_name: String,
    /// When the current attempt began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the run was found done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// The steps, in order.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepState>,
    /// Statuses of failed attempts that were tried again.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub retries_status: Vec<TaskRunStatus>,
    /// Task results.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<TaskRunResult>,
    /// Artifacts; `{}` on every run that finished with a pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Artifacts>,
    /// The sidecars.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub sidecars: Vec<SidecarState>,
    /// The Task as it was run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_spec: Option<TaskSpec>,
    /// Where the Task came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// Trace context.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub span_context: BTreeMap<String, String>,
}

/// The state of one step.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepState {
    /// Not started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<ContainerStateWaiting>,
    /// Running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<ContainerStateRunning>,
    /// Ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminated: Option<ContainerStateTerminated>,
    /// The step's name, without prefix.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The container's name, with prefix.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// The image that ran.
    #[serde(
        rename = "imageID",
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub image_id: String,
    /// Step results.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<TaskRunResult>,
    /// Where the StepAction came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// `Completed`, `Continued`, `Error`, `Skipped`, `TimeoutExceeded`, ...
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub termination_reason: String,
    /// Artifacts read.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Artifact>,
    /// Artifacts made.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Artifact>,
}

/// The state of one sidecar.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarState {
    /// Not started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<ContainerStateWaiting>,
    /// Running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<ContainerStateRunning>,
    /// Ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminated: Option<ContainerStateTerminated>,
    /// The sidecar's name, without prefix.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The container's name, with prefix.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// The image that ran.
    #[serde(
        rename = "imageID",
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub image_id: String,
}

/// Artifacts of a run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Artifacts {
    /// Read.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Artifact>,
    /// Made.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Artifact>,
}

/// One artifact.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Its name.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it consists of.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<ArtifactValue>,
    /// The build's own product.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub build_output: bool,
}

/// One part of an artifact.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ArtifactValue {
    /// Algorithm to hex digest.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
    /// Where it is.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub uri: String,
}

/// Where a definition came from and the flags in force.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// The source of a remote definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ref_source: Option<RefSource>,
    /// A camelCase mirror of the feature-flags ConfigMap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature_flags: Option<BTreeMap<String, serde_json::Value>>,
}

/// The source of a remote definition.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefSource {
    /// Where it is.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// Algorithm to hex digest.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
    /// The file or object within.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub entry_point: String,
}
