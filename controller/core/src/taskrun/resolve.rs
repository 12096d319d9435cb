//! From a run to the Task it runs: found, validated against the run, and substituted (contract 2.7, 4, 12.2).

use std::collections::BTreeMap;

use ropewalk_api::config::Config;
use ropewalk_api::{PodTemplate, Task, TaskRun, TaskSpec, WorkspaceBinding, WorkspaceDeclaration, labels};

use super::{passes, reason, validate};
use crate::credentials::Credentials;
use crate::images;

/// A run's Task, ready to be made into a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// Substituted; what `status.taskSpec` stores.
    pub spec: TaskSpec,
    /// The run's bindings, substituted.
    pub workspaces: Vec<WorkspaceBinding>,
    /// The run's pod template over the configured one, substituted.
    pub pod_template: Option<PodTemplate>,
    /// Labels the run takes over from its Task.
    pub labels: Vec<(String, String)>,
    /// Annotations the run takes over from its Task.
    pub annotations: Vec<(String, String)>,
    /// What registries said of the images whose own command is run.
    pub images: BTreeMap<String, images::Lookup>,
    /// The secrets of the run's service account.
    pub credentials: Credentials,
}

/// Why a run cannot start: the reason and message of its condition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

impl Failure {
    /// A mistake in the run or its Task.
    pub(super) fn of_user(message: impl std::fmt::Display) -> Self {
        Self { reason: reason::VALIDATION_FAILED, message: format!("[User error] {message}") }
    }
}

impl Resolved {
    /// The run as it is once it has taken over its Task's labels and annotations; its own win.
    pub fn adopt(&self, run: &TaskRun) -> TaskRun {
        let mut run = run.clone();
        for (map, taken) in
            [(&mut run.metadata.labels, &self.labels), (&mut run.metadata.annotations, &self.annotations)]
        {
            for (key, value) in taken {
                map.get_or_insert_default().entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        run
    }
}

/// Finds, validates and substitutes. `task` is the referenced Task, if it was looked up and found.
pub fn resolve(run: &TaskRun, task: Option<&Task>, config: &Config) -> Result<Resolved, Failure> {
    let Source { mut spec, task_name, labels, annotations } = source(run, task)?;
    validate::features(run, &spec)?;
    validate::params(run, &spec, &task_name, config)?;
    if run.spec.task_spec.is_some() {
        declare_bound(run, &mut spec);
    }
    validate::workspaces(run, &spec)?;
    validate::overrides(run, &spec)?;
    let mut resolved = passes::all(run, spec, &task_name, config);
    resolved.labels = labels;
    resolved.annotations = annotations;
    Ok(resolved)
}

struct Source {
    spec: TaskSpec,
    task_name: String,
    labels: Vec<(String, String)>,
    annotations: Vec<(String, String)>,
}

/// An embedded Task is read from the run every time; a referenced one only until its spec is stored (contract 12.2).
fn source(run: &TaskRun, task: Option<&Task>) -> Result<Source, Failure> {
    let run_name = run.metadata.name.as_deref().unwrap_or_default();
    let plain = |spec: &TaskSpec, task_name: &str| Source {
        spec: spec.clone(),
        task_name: task_name.to_owned(),
        labels: Vec::new(),
        annotations: Vec::new(),
    };
    if let Some(spec) = &run.spec.task_spec {
        return Ok(plain(spec, run_name));
    }
    let Some(reference) = &run.spec.task_ref else {
        return Err(Failure::of_user("expected exactly one of taskRef and taskSpec, got neither"));
    };
    if !reference.resolver.is_empty() {
        return Err(Failure {
            reason: reason::RESOLUTION_FAILED,
            message: format!(
                "resolver \"{}\" is not supported; embed the Task as taskSpec or apply it and refer to it by name",
                reference.resolver
            ),
        });
    }
    if let Some(spec) = run.status.as_ref().and_then(|status| status.task_spec.as_ref()) {
        return Ok(plain(spec, &reference.name));
    }
    let Some(task) = task else {
        return Err(Failure {
            reason: reason::RESOLUTION_FAILED,
            message: format!(
                "error when listing tasks for taskRun {run_name}: tasks.tekton.dev \"{}\" not found",
                reference.name
            ),
        });
    };
    let pairs = |map: &Option<BTreeMap<String, String>>| -> Vec<(String, String)> {
        let all = map.iter().flatten().map(|(key, value)| (key.clone(), value.clone()));
        all.filter(|(key, _)| !labels::is_record(key)).collect()
    };
    let mut task_labels = pairs(&task.metadata.labels);
    task_labels.push((labels::TASK.to_owned(), reference.name.clone()));
    Ok(Source {
        spec: task.spec.clone(),
        task_name: reference.name.clone(),
        labels: task_labels,
        annotations: pairs(&task.metadata.annotations),
    })
}

/// An embedded Task need not declare a workspace its run binds.
fn declare_bound(run: &TaskRun, spec: &mut TaskSpec) {
    for binding in &run.spec.workspaces {
        if spec.workspaces.iter().all(|declared| declared.name != binding.name) {
            spec.workspaces.push(WorkspaceDeclaration { name: binding.name.clone(), ..Default::default() });
        }
    }
}
