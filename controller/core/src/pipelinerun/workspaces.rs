//! Workspaces of a run handed on to its tasks, and the claims made for them (contract 5.9 and 7.8). Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::PersistentVolumeClaimVolumeSource;
use ropewalk_api::variables::{Reference, variables};
use ropewalk_api::{PipelineRun, PipelineTask, TaskSpec, WorkspaceBinding, WorkspacePipelineTaskBinding};

use super::children::owner_reference;
use super::texts;
use crate::plan::{Resource, Target, Write};
use crate::pod;
use crate::substitution::{Replacements, in_workspace_binding};

/// One claim per workspace with a template, owned by the run.
pub(super) fn claims(run: &PipelineRun) -> Vec<Write> {
    let namespace = run.metadata.namespace.clone().unwrap_or_default();
    let owner = owner_reference(run);
    let claims = run.spec.workspaces.iter().filter_map(|binding| pod::claim(binding, &namespace, &owner));
    claims
        .map(|claim| Write::Create {
            target: Target {
                resource: Resource::PersistentVolumeClaim,
                namespace: namespace.clone(),
                name: claim.metadata.name.clone().unwrap_or_default(),
            },
            object: serde_json::to_value(claim).unwrap_or_default(),
        })
        .collect()
}

/// A binding of the run with the values of its own fields: params it was given, contexts, and results.
pub(super) fn resolved(binding: &WorkspaceBinding, passes: &[&Replacements]) -> WorkspaceBinding {
    let mut binding = binding.clone();
    for pass in passes {
        in_workspace_binding(pass, &mut binding);
        pass.apply(&mut binding.sub_path);
    }
    binding
}

/// The bindings of a child; an error is the sentence about a workspace the run does not have.
///
/// `bindings` are those of the run, resolved and in its order.
pub(super) fn for_child(
    run: &PipelineRun,
    bindings: &[WorkspaceBinding],
    task: &PipelineTask,
    task_spec: &TaskSpec,
) -> Result<Vec<WorkspaceBinding>, String> {
    let mut given = Vec::new();
    for entry in entries(task) {
        let source = entry.pipeline_workspace();
        let Some(binding) = bindings.iter().find(|binding| binding.name == source) else {
            if task_spec.workspaces.iter().any(|declared| declared.name == entry.name && declared.optional) {
                continue;
            }
            return Err(format!(
                "expected workspace \"{source}\" to be provided by pipelinerun for pipeline task \"{}\"",
                task.name
            ));
        };
        let mut child = binding.clone();
        if let Some(template) = child.volume_claim_template.take() {
            let owner_uid = run.metadata.uid.as_deref().unwrap_or_default();
            child.persistent_volume_claim = Some(PersistentVolumeClaimVolumeSource {
                claim_name: pod::claim_name(&template, source, owner_uid),
                read_only: None,
            });
        }
        child.sub_path = join(&child.sub_path, &entry.sub_path);
        child.name = entry.name;
        given.push(child);
    }
    Ok(given)
}

/// What the pipeline task lists, and what its embedded Task mentions without listing.
fn entries(task: &PipelineTask) -> Vec<WorkspacePipelineTaskBinding> {
    let mut entries = task.workspaces.clone();
    let listed: BTreeSet<&str> = task.workspaces.iter().map(|entry| entry.name.as_str()).collect();
    if let Some(embedded) = &task.task_spec {
        let spec = &embedded.task_spec;
        let mut mentioned = BTreeSet::new();
        let parts = (&spec.steps, &spec.sidecars, &spec.step_template);
        texts::for_each(&parts, |text| {
            mentioned.extend(variables(text).filter_map(|variable| {
                let mut parts = Reference::parse(variable.key)?.parts.into_iter();
                (parts.next()? == "workspaces").then(|| parts.next()).flatten()
            }));
        });
        entries.extend(
            mentioned
                .into_iter()
                .filter(|name| !listed.contains(name.as_str()))
                .map(|name| WorkspacePipelineTaskBinding { name, ..WorkspacePipelineTaskBinding::default() }),
        );
    }
    entries
}

/// The task's directory within the binding's, cleaned as Go's `path.Join` does.
fn join(binding: &str, task: &str) -> String {
    let whole = format!("{binding}/{task}");
    let rooted = binding.starts_with('/') || (binding.is_empty() && task.starts_with('/'));
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match (part, parts.last()) {
            ("..", Some(&last)) if last != ".." => {
                parts.pop();
            }
            ("..", None) if rooted => {}
            _ => parts.push(part),
        }
    }
    let path = parts.join("/");
    if rooted { format!("/{path}") } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_paths_are_joined_and_cleaned() {
        for (binding, task, expected) in [
            ("", "", ""),
            ("a", "", "a"),
            ("", "b", "b"),
            ("a/", "./b//c", "a/b/c"),
            ("a", "../b", "b"),
            ("a", "../../b", "../b"),
            ("/a", "../../b", "/b"),
        ] {
            assert_eq!(join(binding, task), expected, "{binding:?} and {task:?}");
        }
    }
}
