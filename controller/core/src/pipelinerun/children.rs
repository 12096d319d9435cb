//! A pipeline task's TaskRun, complete (contract 7.9 and 10). Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use ropewalk_api::config::Config;
use ropewalk_api::{
    GoDuration, Param, PipelineRun, PipelineTaskMetadata, PipelineTaskRunSpec, PodTemplate, Task,
    TaskRunSpec, WorkspaceBinding, labels,
};
use serde_json::{Value, json};

use super::facts::Node;
use super::lifecycle::Timeouts;
use super::resolve::Origin;
use super::runs::Run;
use super::workspaces;
use crate::plan::{Resource, Target, Write};
use crate::substitution::{Replacements, Scope, in_task_spec};

/// The reference that makes the run a child's controller.
pub(super) fn owner_reference(run: &PipelineRun) -> OwnerReference {
    let (api_version, kind, _) = Resource::PipelineRun.names();
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: run.metadata.name.clone().unwrap_or_default(),
        uid: run.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What all children of a run have in common.
pub(super) struct Nursery<'a> {
    /// The run.
    pub(super) run: &'a PipelineRun,
    /// The ConfigMaps.
    pub(super) config: &'a Config,
    /// The release to write down.
    pub(super) release: &'a str,
    /// Where the Pipeline came from.
    pub(super) origin: &'a Origin,
    /// The run's timeouts.
    pub(super) timeouts: Timeouts,
    /// The run's workspaces, their variables replaced.
    pub(super) workspaces: &'a [WorkspaceBinding],
}

/// The params of a child: those of its combination, then those of the pipeline task.
fn params(node: &Node<'_>, child: &Run<'_>) -> Vec<Param> {
    let combined = child.combination.params.iter();
    let mut params: Vec<Param> =
        combined.map(|(name, value)| Param { name: name.clone(), value: value.as_str().into() }).collect();
    params.extend(at_creation(node).in_params(&node.task.params));
    params
}

fn at_creation(node: &Node<'_>) -> Replacements {
    let mut set = Replacements::new();
    set.text("context.pipelineTask.retries", node.task.retries.to_string());
    set
}

/// What people read for a child: the names of `include` entries, or the pipeline task's text with the child's
/// params.
pub(super) fn display_name(node: &Node<'_>, child: &Run<'_>) -> String {
    if !child.combination.display_name.is_empty() || node.task.display_name.is_empty() {
        return child.combination.display_name.clone();
    }
    let mut own = Replacements::new();
    own.params(Scope::Pipeline, &params(node, child));
    own.in_text(&at_creation(node).in_text(&node.task.display_name))
}

impl Nursery<'_> {
    /// One TaskRun of a task that is due. `task` is the referenced Task, for its labels. An error is the
    /// sentence about why it cannot be made.
    pub(super) fn child(
        &self,
        node: &Node<'_>,
        child: &Run<'_>,
        task: Option<&Task>,
    ) -> Result<Write, String> {
        let run = self.run;
        let pipeline_task = &node.task;
        let no_settings = PipelineTaskRunSpec::default();
        let settings = run
            .spec
            .task_run_specs
            .iter()
            .find(|settings| settings.pipeline_task_name == pipeline_task.name)
            .unwrap_or(&no_settings);
        let task_spec = node.task_spec.as_deref().cloned().unwrap_or_default();

        let template = &run.spec.task_run_template;
        let service_account = [&settings.service_account_name, &template.service_account_name]
            .into_iter()
            .find(|name| !name.is_empty());
        let spec = TaskRunSpec {
            params: params(node, child),
            service_account_name: service_account.cloned().unwrap_or_default(),
            task_ref: pipeline_task.task_ref.clone(),
            task_spec: pipeline_task.task_spec.as_ref().map(|embedded| {
                let mut spec = embedded.task_spec.clone();
                in_task_spec(&node.results, &mut spec);
                spec
            }),
            retries: pipeline_task.retries,
            timeout: settings
                .timeout
                .or(pipeline_task.timeout)
                .or_else(|| self.inherited_timeout(node.finally)),
            pod_template: merge(settings.pod_template.as_ref(), template.pod_template.as_ref()),
            workspaces: workspaces::for_child(run, self.workspaces, pipeline_task, &task_spec)?,
            step_specs: settings.step_specs.clone(),
            sidecar_specs: settings.sidecar_specs.clone(),
            compute_resources: settings.compute_resources.clone(),
            managed_by: run.spec.managed_by.clone(),
            ..TaskRunSpec::default()
        };
        let (api_version, kind, _) = Resource::TaskRun.names();
        let namespace = run.metadata.namespace.clone().unwrap_or_default();
        let object = json!({
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {
                "name": child.name,
                "namespace": namespace,
                "labels": self.labels(node, settings.metadata.as_ref(), task),
                "annotations": self.annotations(node, settings.metadata.as_ref(), task),
                "ownerReferences": [owner_reference(run)],
            },
            "spec": spec,
        });
        let target = Target { resource: Resource::TaskRun, namespace, name: child.name.clone() };
        Ok(Write::Create { target, object })
    }

    /// A limit on the graph or on `finally` reaches a child only where the default would be shorter (contract
    /// 7.4).
    fn inherited_timeout(&self, finally: bool) -> Option<GoDuration> {
        let limit = if finally { self.timeouts.finally } else { self.timeouts.tasks };
        limit.filter(|limit| limit.is_zero() || *limit > self.config.defaults.timeout)
    }

    fn labels(
        &self,
        node: &Node<'_>,
        settings: Option<&PipelineTaskMetadata>,
        task: Option<&Task>,
    ) -> BTreeMap<String, String> {
        let run = self.run;
        let mut all = task.and_then(|task| task.metadata.labels.clone()).unwrap_or_default();
        if let Some(embedded) = &node.task.task_spec {
            all.extend(embedded.metadata.labels.clone());
        }
        all.extend(run.metadata.labels.clone().unwrap_or_default());
        let member_of = if node.finally { "finally" } else { "tasks" };
        let ours = [
            (labels::PIPELINE, self.origin.label.as_str()),
            (labels::PIPELINE_RUN, run.metadata.name.as_deref().unwrap_or_default()),
            (labels::PIPELINE_RUN_UID, run.metadata.uid.as_deref().unwrap_or_default()),
            (labels::PIPELINE_TASK, node.task.name.as_str()),
            (labels::MEMBER_OF, member_of),
        ];
        let task_name = node.task.task_ref.as_ref().map(|task_ref| (labels::TASK, task_ref.name.as_str()));
        all.extend(ours.into_iter().chain(task_name).map(|(key, value)| (key.to_owned(), value.to_owned())));
        all.extend(settings.map(|metadata| metadata.labels.clone()).unwrap_or_default());
        all
    }

    fn annotations(
        &self,
        node: &Node<'_>,
        settings: Option<&PipelineTaskMetadata>,
        task: Option<&Task>,
    ) -> BTreeMap<String, String> {
        let mut all = task.and_then(|task| task.metadata.annotations.clone()).unwrap_or_default();
        if let Some(embedded) = &node.task.task_spec {
            all.extend(embedded.metadata.annotations.clone());
        }
        all.extend(self.run.metadata.annotations.clone().unwrap_or_default());
        all.retain(|key, _| !labels::is_record(key) && !key.starts_with(labels::CHAINS_PREFIX));
        all.insert(labels::RELEASE.to_owned(), self.release.to_owned());
        if node.task.ignores_failure() {
            all.insert(labels::PIPELINE_TASK_ON_ERROR.to_owned(), node.task.on_error.clone());
        }
        all.extend(settings.map(|metadata| metadata.annotations.clone()).unwrap_or_default());
        all
    }
}

/// The task's own pod template over the run's: lists with names are merged by name, other fields are taken
/// where the task's has none (contract 1.1).
fn merge(own: Option<&PodTemplate>, base: Option<&PodTemplate>) -> Option<PodTemplate> {
    let (Some(own), Some(base)) = (own, base) else {
        return own.or(base).cloned();
    };
    let mut merged = own.clone();
    merged
        .env
        .extend(base.env.iter().filter(|env| own.env.iter().all(|mine| mine.name != env.name)).cloned());
    merged.volumes.extend(
        base.volumes.iter().filter(|volume| own.volumes.iter().all(|mine| mine.name != volume.name)).cloned(),
    );
    merged.host_network |= base.host_network;
    let fill = |own: &mut Value, base: Value| {
        if let (Value::Object(own), Value::Object(base)) = (own, base) {
            for (field, value) in base {
                own.entry(field).or_insert(value);
            }
        }
    };
    let mut fields = serde_json::to_value(&merged).unwrap_or_default();
    fill(&mut fields, serde_json::to_value(base).unwrap_or_default());
    Some(serde_json::from_value(fields).unwrap_or(merged))
}
