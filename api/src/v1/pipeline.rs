//! Pipeline (contract 1.4) and the references to Tasks and Pipelines.

use std::collections::BTreeMap;

use kube::CustomResource;
use ropewalk_entrypoint_protocol::duration::GoDuration;
use ropewalk_entrypoint_protocol::when::WhenExpression;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Param, ParamSpec, PipelineResult, TaskSpec, is_false, is_zero, or_default};

/// A graph of tasks.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "tekton.dev",
    version = "v1",
    kind = "Pipeline",
    namespaced,
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq",
    doc = "A reusable graph of tasks."
)]
#[serde(rename_all = "camelCase")]
pub struct PipelineSpec {
    /// For people.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// For people.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The graph.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<PipelineTask>,
    /// Declared params.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<ParamSpec>,
    /// Declared workspaces.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub workspaces: Vec<PipelineWorkspaceDeclaration>,
    /// Declared results.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<PipelineResult>,
    /// Run after the graph, whatever became of it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub finally: Vec<PipelineTask>,
}

/// One node of a Pipeline.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineTask {
    /// Unique in the Pipeline.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// For people.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// For people.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The Task, by reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_ref: Option<TaskRef>,
    /// The Task, embedded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_spec: Option<EmbeddedTask>,
    /// A Pipeline, by reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline_ref: Option<PipelineRef>,
    /// A Pipeline, embedded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline_spec: Option<Box<PipelineSpec>>,
    /// The task is skipped unless all hold.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<WhenExpression>,
    /// How often a failed attempt is tried again.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub retries: i64,
    /// Tasks that must be done first.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub run_after: Vec<String>,
    /// Values for the Task's params.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Param>,
    /// Fan-out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matrix: Option<Matrix>,
    /// Bindings from the Pipeline's workspaces.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub workspaces: Vec<WorkspacePipelineTaskBinding>,
    /// How long one attempt may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// `stopAndFail` (default) or `continue`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub on_error: String,
}

impl PipelineTask {
    /// A failure of this task does not stop the run.
    pub fn ignores_failure(&self) -> bool {
        self.on_error == "continue"
    }
}

/// A Task written into a Pipeline; `apiVersion`, `kind` and `spec` make it a custom task.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EmbeddedTask {
    /// Of a custom task.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Of a custom task.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Of a custom task, as it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<serde_json::Value>,
    /// Labels and annotations for the child.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "PipelineTaskMetadata::is_empty"
    )]
    pub metadata: PipelineTaskMetadata,
    /// The Task itself.
    #[serde(flatten)]
    pub task_spec: TaskSpec,
}

/// Labels and annotations given to a child.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct PipelineTaskMetadata {
    /// Labels.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl PipelineTaskMetadata {
    /// Neither labels nor annotations.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

/// A reference to a Task, by name or through a resolver.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRef {
    /// Its name.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `Task` by defaulting.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Set, with `kind`, for a custom task.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// The resolver that finds it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub resolver: String,
    /// The resolver's params.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Param>,
}

impl TaskRef {
    /// A custom task: `apiVersion` and `kind` are both set, whatever they say (contract 1.1).
    pub fn is_custom_task(&self) -> bool {
        !self.api_version.is_empty() && !self.kind.is_empty()
    }
}

/// A reference to a Pipeline, by name or through a resolver.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineRef {
    /// Its name.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `tekton.dev/v1`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// The resolver that finds it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub resolver: String,
    /// The resolver's params.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Param>,
}

/// One child per combination of values.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Matrix {
    /// Arrays to combine.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Param>,
    /// Combinations to extend or add.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<IncludeParams>,
}

/// One named extra of a matrix.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct IncludeParams {
    /// Shown as the child's display name.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its params.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub params: Vec<Param>,
}

/// A workspace a Pipeline declares.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct PipelineWorkspaceDeclaration {
    /// The name runs bind.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A run need not bind it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub optional: bool,
}

/// Which workspace of the Pipeline a task's workspace is.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkspacePipelineTaskBinding {
    /// The Task's name for it.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// The Pipeline's name for it; the same when absent.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub workspace: String,
    /// A directory of the volume.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub sub_path: String,
}

impl WorkspacePipelineTaskBinding {
    /// The Pipeline's name for the workspace, defaulted.
    pub fn pipeline_workspace(&self) -> &str {
        if self.workspace.is_empty() { &self.name } else { &self.workspace }
    }
}
