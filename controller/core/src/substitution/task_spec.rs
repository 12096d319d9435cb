//! Which fields of a Task are substituted (contract 4.2).

use ropewalk_api::{PodTemplate, TaskSpec, WorkspaceBinding};

use super::Replacements;

/// Replaces in every field of a Task that contract 4.2 lists, in place.
pub fn in_task_spec(_replacements: &Replacements, _spec: &mut TaskSpec) {}

/// Replaces in the strings of a pod template, in place.
pub fn in_pod_template(_replacements: &Replacements, _template: &mut PodTemplate) {}

/// Replaces in the strings of a workspace binding, in place.
pub fn in_workspace_binding(_replacements: &Replacements, _binding: &mut WorkspaceBinding) {}
