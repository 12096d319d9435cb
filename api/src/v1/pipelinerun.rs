//! PipelineRun (contract 1.5).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use ropewalk_entrypoint_protocol::duration::GoDuration;
use ropewalk_entrypoint_protocol::when::WhenExpression;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Param, PipelineRef, PipelineRunResult, PipelineSpec, PipelineTaskMetadata, PodTemplate, Provenance,
    TaskRunSidecarSpec, TaskRunStepSpec, WorkspaceBinding, or_default,
};
use crate::conditions::Condition;

/// Values of `spec.status` of a PipelineRun.
pub mod pipelinerun_spec_status {
    /// Stop everything at once.
    pub const CANCELLED: &str = "Cancelled";
    /// Stop running tasks, then run `finally`.
    pub const CANCELLED_RUN_FINALLY: &str = "CancelledRunFinally";
    /// Start no more tasks, let running ones end, then run `finally`.
    pub const STOPPED_RUN_FINALLY: &str = "StoppedRunFinally";
    /// Do not start it yet.
    pub const PENDING: &str = "PipelineRunPending";
}

/// One execution of a Pipeline.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "tekton.dev",
    version = "v1",
    kind = "PipelineRun",
    namespaced,
    schema = "disabled",
    status = "PipelineRunStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "One execution of a Pipeline."
)]
#[serde(rename_all = "camelCase")]
pub struct PipelineRunSpec {
    /// The Pipeline, by reference; excludes `pipelineSpec`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline_ref: Option<PipelineRef>,
    /// The Pipeline, embedded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline_spec: Option<PipelineSpec>,
    /// Values for the Pipeline's params.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Param>,
    /// See [`pipelinerun_spec_status`].
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Limits on the whole, on `tasks` and on `finally`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<TimeoutFields>,
    /// Pod-level fields of every child.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "PipelineTaskRunTemplate::is_empty"
    )]
    pub task_run_template: PipelineTaskRunTemplate,
    /// Bindings for the Pipeline's workspaces.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub workspaces: Vec<WorkspaceBinding>,
    /// Settings of single pipeline tasks.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub task_run_specs: Vec<PipelineTaskRunSpec>,
    /// The controller that serves the run; immutable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
}

/// How long parts of a run may take; 0 is unlimited.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct TimeoutFields {
    /// The whole run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<GoDuration>,
    /// The tasks of the graph together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<GoDuration>,
    /// The finally tasks together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finally: Option<GoDuration>,
}

/// What every child TaskRun gets.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineTaskRunTemplate {
    /// Pod-level fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
    /// Who the pods run as.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub service_account_name: String,
}

impl PipelineTaskRunTemplate {
    /// Nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Settings of one pipeline task's runs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineTaskRunSpec {
    /// The pipeline task.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub pipeline_task_name: String,
    /// Who its pods run as.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub service_account_name: String,
    /// Pod-level fields.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
    /// Resources of single steps.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub step_specs: Vec<TaskRunStepSpec>,
    /// Resources of single sidecars.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub sidecar_specs: Vec<TaskRunSidecarSpec>,
    /// Labels and annotations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<PipelineTaskMetadata>,
    /// Resources of the whole task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_resources: Option<ResourceRequirements>,
    /// How long one attempt may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
}

/// What became of a PipelineRun.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineRunStatus {
    /// The generation last acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Succeeded` first; sorted by type.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Notes of the engine.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it was found done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Pipeline results.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<PipelineRunResult>,
    /// The Pipeline as it was run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline_spec: Option<PipelineSpec>,
    /// Tasks that were not run, and why.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub skipped_tasks: Vec<SkippedTask>,
    /// The children.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub child_references: Vec<ChildStatusReference>,
    /// When the finally tasks began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finally_start_time: Option<Time>,
    /// Where the Pipeline came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// Trace context.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub span_context: BTreeMap<String, String>,
}

/// A task that was not run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SkippedTask {
    /// The pipeline task.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Why; the exact texts are in contract 7.1.
    #[serde(default, deserialize_with = "or_default")]
    pub reason: String,
    /// Its when expressions, substituted.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub when_expressions: Vec<WhenExpression>,
}

/// A child of a PipelineRun.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChildStatusReference {
    /// `tekton.dev/v1`, for a CustomRun `tekton.dev/v1beta1`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// `TaskRun`, `CustomRun` or `PipelineRun`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The child's name.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// For people.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// The pipeline task it runs.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub pipeline_task_name: String,
    /// Its when expressions, substituted.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub when_expressions: Vec<WhenExpression>,
}
