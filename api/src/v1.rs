//! `tekton.dev/v1`: Task, TaskRun, Pipeline, PipelineRun and the types they share (contract section 1).
//!
//! Lists and maps read `null` as empty, because Go clients write it, and are left out when empty.

mod container;
mod params;
mod pipeline;
mod pipelinerun;
mod podtemplate;
mod task;
mod taskrun;
mod workspaces;

pub use container::{Sidecar, Step, StepOutputConfig, StepRef, StepTemplate, WorkspaceUsage};
pub use params::{
    Param, ParamSpec, PipelineResult, PipelineRunResult, PropertySpec, StepResult, TaskResult, TaskRunResult,
};
pub use pipeline::{
    EmbeddedTask, IncludeParams, Matrix, Pipeline, PipelineRef, PipelineSpec, PipelineTask,
    PipelineTaskMetadata, PipelineWorkspaceDeclaration, TaskRef, WorkspacePipelineTaskBinding,
};
pub use pipelinerun::{
    ChildStatusReference, PipelineRun, PipelineRunSpec, PipelineRunStatus, PipelineTaskRunSpec,
    PipelineTaskRunTemplate, SkippedTask, TimeoutFields, pipelinerun_spec_status,
};
pub use podtemplate::PodTemplate;
pub use task::{Task, TaskSpec};
pub use taskrun::{
    Artifact, ArtifactValue, Artifacts, Provenance, RefSource, SidecarState, StepState, TaskBreakpoints,
    TaskRun, TaskRunDebug, TaskRunSidecarSpec, TaskRunSpec, TaskRunStatus, TaskRunStepSpec,
    taskrun_spec_status,
};
pub use workspaces::{WorkspaceBinding, WorkspaceDeclaration};

use serde::{Deserialize, Deserializer};

/// Reads `null` as the type's default.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// For fields that are left out when false.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
pub(crate) fn is_false(value: &bool) -> bool {
    !value
}

/// For counts that are left out when zero.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
pub(crate) fn is_zero(value: &i64) -> bool {
    *value == 0
}
