//! Labels and annotations that tools read (contract 10).

use crate::conversion;

/// On a TaskRun made from a reference: the Task.
pub const TASK: &str = "tekton.dev/task";
/// On a pod: its TaskRun.
pub const TASK_RUN: &str = "tekton.dev/taskRun";
/// On a pod: its TaskRun's UID.
pub const TASK_RUN_UID: &str = "tekton.dev/taskRunUID";
/// The Pipeline.
pub const PIPELINE: &str = "tekton.dev/pipeline";
/// On a child: its PipelineRun.
pub const PIPELINE_RUN: &str = "tekton.dev/pipelineRun";
/// On a child: its PipelineRun's UID.
pub const PIPELINE_RUN_UID: &str = "tekton.dev/pipelineRunUID";
/// On a child: the pipeline task.
pub const PIPELINE_TASK: &str = "tekton.dev/pipelineTask";
/// On a child: `tasks` or `finally`.
pub const MEMBER_OF: &str = "tekton.dev/memberOf";
/// On runs and pods: who manages them.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Annotation: the release of the engine that touched the run.
pub const RELEASE: &str = "pipeline.tekton.dev/release";
/// Annotation of a pod: the first step may start.
pub const READY: &str = "tekton.dev/ready";
/// Its value.
pub const READY_VALUE: &str = "READY";
/// Annotation of a TaskRun: its pipeline task ignores failures (`continue`).
pub const PIPELINE_TASK_ON_ERROR: &str = "pipeline.tekton.dev/pipeline-task-on-error";
/// On a ResolutionRequest: which resolver is asked.
pub const RESOLVER_TYPE: &str = "resolution.tekton.dev/type";
/// kubectl's own record.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Annotations of Chains, never copied to children.
pub const CHAINS_PREFIX: &str = "chains.tekton.dev/";

/// Whether an annotation is a record about the object it stands on, and never copied to what is made from it: kubectl's of
/// what was applied, and ours of what a version has no field for.
pub fn is_record(annotation: &str) -> bool {
    annotation == LAST_APPLIED || conversion::is_record(annotation)
}
