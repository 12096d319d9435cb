//! `tekton.dev/v1beta1`: StepAction and CustomRun (contract 1.2 and 1.6).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, SecurityContext, VolumeMount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use ropewalk_entrypoint_protocol::duration::GoDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::Condition;
use crate::v1::{
    Param, ParamSpec, PipelineTaskMetadata, StepResult, TaskRef, WorkspaceBinding, is_zero, or_default,
};

/// A reusable step.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "tekton.dev",
    version = "v1beta1",
    kind = "StepAction",
    namespaced,
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq",
    doc = "A reusable step."
)]
#[serde(rename_all = "camelCase")]
pub struct StepActionSpec {
    /// For people.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The image.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Replaces the image's entrypoint.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Arguments.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// A script in any language; excludes `command`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub script: String,
    /// Where it starts.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Declared params.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<ParamSpec>,
    /// Results it writes.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<StepResult>,
    /// The container's security context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
    /// Mounts.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,
}

/// A run that another controller carries out.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "tekton.dev",
    version = "v1beta1",
    kind = "CustomRun",
    namespaced,
    schema = "disabled",
    status = "CustomRunStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A run carried out by another controller."
)]
#[serde(rename_all = "camelCase")]
pub struct CustomRunSpec {
    /// What to run, by reference; excludes `customSpec`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_ref: Option<TaskRef>,
    /// What to run, embedded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom_spec: Option<EmbeddedCustomRunSpec>,
    /// Params.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Param>,
    /// `RunCancelled` asks it to stop.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Why `status` was set.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub status_message: String,
    /// How often its controller may try again.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub retries: i64,
    /// Who it runs as.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub service_account_name: String,
    /// How long it may take; 60 minutes when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// Workspaces.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub workspaces: Vec<WorkspaceBinding>,
}

/// What another controller shall run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EmbeddedCustomRunSpec {
    /// The group and version it knows.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// The kind it knows.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Labels and annotations.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "PipelineTaskMetadata::is_empty"
    )]
    pub metadata: PipelineTaskMetadata,
    /// Its own spec, as it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<serde_json::Value>,
}

/// What became of a CustomRun.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomRunStatus {
    /// The generation last acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Succeeded` and whatever else its controller adds.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Notes of its controller.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Results.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<CustomRunResult>,
    /// Statuses of earlier attempts.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub retries_status: Vec<CustomRunStatus>,
    /// Whatever its controller wants to keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra_fields: Option<serde_json::Value>,
}

/// A result of a CustomRun; always a string.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct CustomRunResult {
    /// Its name.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Its value.
    #[serde(default, deserialize_with = "or_default")]
    pub value: String,
}
