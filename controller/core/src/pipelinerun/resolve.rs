//! Where a run's Pipeline and its tasks' Tasks come from (contract 7.6 no. 1 and 13, 7.9). Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use ropewalk_api::{Pipeline, PipelineRun, PipelineSpec, PipelineTask, Task, labels};
use serde_json::json;

use super::checks::{Failure, Stop};
use super::facts::{Facts, Node};
use crate::plan::{Resource, Target, Write};
use crate::snapshot::{Lookup, Refusal};

/// Who a run's Pipeline is.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    /// `namespace/name` of the run, as messages have it.
    pub(super) run: String,
    /// The Pipeline's name; an embedded one has the run's.
    pub(super) name: String,
    /// `namespace/name` of the Pipeline.
    pub(super) pipeline: String,
    /// The value of the label `tekton.dev/pipeline`.
    pub(super) label: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// The name of the Pipeline to look up: there is a reference by name, and its spec was not stored yet.
pub(super) fn wanted_pipeline(run: &PipelineRun) -> Option<&str> {
    let reference = run.spec.pipeline_ref.as_ref()?;
    let stored = run.status.as_ref().is_some_and(|status| status.pipeline_spec.is_some());
    let by_name = reference.resolver.is_empty() && !reference.name.is_empty();
    (by_name && !stored && run.spec.pipeline_spec.is_none()).then_some(reference.name.as_str())
}

/// The Pipeline of a run: the embedded one, the stored one, or the one looked up.
pub(super) fn pipeline(run: &PipelineRun, found: &Lookup<Pipeline>) -> Result<(Origin, PipelineSpec), Stop> {
    let namespace = run.metadata.namespace.as_deref().unwrap_or_default();
    let run_name = run.metadata.name.as_deref().unwrap_or_default();
    let qualified = format!("{namespace}/{run_name}");
    let origin = |name: &str, label: &str| Origin {
        run: qualified.clone(),
        name: name.to_owned(),
        pipeline: format!("{namespace}/{name}"),
        label: label.to_owned(),
        ..Origin::default()
    };
    if let Some(spec) = &run.spec.pipeline_spec {
        let generated = run.metadata.generate_name.as_deref();
        let generated = generated.map(|prefix| prefix.strip_suffix('-').unwrap_or(prefix));
        let label = generated.filter(|prefix| !prefix.is_empty()).unwrap_or(run_name);
        return Ok((origin(run_name, label), spec.clone()));
    }
    let fail = |text: String| {
        Err(Stop::failed(
            "CouldntGetPipeline",
            format!("Error retrieving pipeline for pipelinerun {qualified}: {text}"),
        ))
    };
    let Some(reference) = &run.spec.pipeline_ref else {
        return fail("neither \"pipelineRef\" nor \"pipelineSpec\" is set".to_owned());
    };
    if !reference.resolver.is_empty() {
        return Err(Stop::failed(
            "PipelineValidationFailed",
            format!(
                "PipelineRun {qualified} can't be Run; its \"pipelineRef\" uses the resolver \"{}\", and \
                 remote references are not supported yet: refer to a Pipeline in the namespace by \"name\"",
                reference.resolver
            ),
        ));
    }
    let name = reference.name.as_str();
    if let Some(spec) = run.status.as_ref().and_then(|status| status.pipeline_spec.as_ref()) {
        return Ok((origin(name, name), spec.clone()));
    }
    match found {
        Lookup::Found(pipeline) => {
            let origin = Origin {
                labels: pipeline.metadata.labels.clone().unwrap_or_default(),
                annotations: pipeline.metadata.annotations.clone().unwrap_or_default(),
                ..origin(name, name)
            };
            Ok((origin, pipeline.spec.clone()))
        }
        Lookup::Missing => fail(format!(
            "error when getting Pipeline for PipelineRun {run_name}: tekton client cannot get pipeline \
             {name} from local cluster: pipelines.tekton.dev \"{name}\" not found"
        )),
        Lookup::NotNeeded => Err(Stop::Unseen(format!("the Pipeline \"{name}\""))),
    }
}

/// The patch that gives a run its Pipeline's labels and annotations when the spec is first stored. It is a
/// plan of its own: it changes the resource version that the status write depends on.
pub(super) fn metadata_patch(run: &PipelineRun, origin: &Origin, refusals: &[Refusal]) -> Option<Write> {
    let name = run.metadata.name.as_deref().unwrap_or_default();
    let stored = run.status.as_ref().is_some_and(|status| status.pipeline_spec.is_some());
    if stored || Refusal::of(refusals, Resource::PipelineRun, name).is_some() {
        return None;
    }
    let absent = |wanted: &BTreeMap<String, String>, there: Option<&BTreeMap<String, String>>| {
        let missing = wanted.iter().filter(|(key, _)| there.is_none_or(|map| !map.contains_key(*key)));
        missing.map(|(key, value)| (key.clone(), value.clone())).collect::<BTreeMap<_, _>>()
    };
    let there = run.metadata.labels.as_ref();
    let mut labels = absent(&origin.labels, there);
    if there.and_then(|map| map.get(labels::PIPELINE)) != Some(&origin.label) {
        labels.insert(labels::PIPELINE.to_owned(), origin.label.clone());
    }
    let mut annotations = absent(&origin.annotations, run.metadata.annotations.as_ref());
    annotations.retain(|key, _| !labels::is_record(key) && !key.starts_with(labels::CHAINS_PREFIX));
    if labels.is_empty() && annotations.is_empty() {
        return None;
    }
    let mut metadata = serde_json::Map::new();
    for (field, map) in [("labels", labels), ("annotations", annotations)] {
        if !map.is_empty() {
            metadata.insert(field.to_owned(), json!(map));
        }
    }
    let target = Target {
        resource: Resource::PipelineRun,
        namespace: run.metadata.namespace.clone().unwrap_or_default(),
        name: name.to_owned(),
    };
    Some(Write::Patch { target, subresource: None, patch: json!({ "metadata": metadata }) })
}

/// The name of the Task that a task refers to of which a child is still missing; none while the name still
/// holds a variable.
pub(super) fn wanted_task<'n>(node: &'n Node<'_>) -> Option<&'n str> {
    let name = task_name(&node.task)?;
    (!node.is_complete() && !name.contains("$(")).then_some(name)
}

/// A child is still missing, and its Task's name still holds a variable.
pub(super) fn needs_variables(node: &Node<'_>) -> bool {
    !node.is_complete() && task_name(&node.task).is_some_and(|name| name.contains("$("))
}

/// The name of the Task a task refers to.
pub(super) fn task_name(task: &PipelineTask) -> Option<&str> {
    task.task_ref.as_ref().map(|reference| reference.name.as_str())
}

/// Gives every task its Task, as far as it is embedded or was looked up; a missing one ends the run.
pub(super) fn tasks(
    facts: &mut Facts<'_>,
    origin: &Origin,
    found: &BTreeMap<String, Lookup<Task>>,
) -> Result<(), Failure> {
    for node in facts.nodes.iter_mut().filter(|node| node.task_spec.is_none() && !node.is_complete()) {
        if let Some(embedded) = &node.task.task_spec {
            node.task_spec = Some(Arc::new(embedded.task_spec.clone()));
            continue;
        }
        let Some(name) = wanted_task(node) else { continue };
        match found.get(name) {
            Some(Lookup::Found(task)) => node.task_spec = Some(Arc::new(task.spec.clone())),
            Some(Lookup::Missing) => {
                return Err(no_such_task(origin, name));
            }
            Some(Lookup::NotNeeded) | None => {}
        }
    }
    Ok(())
}

/// The run's end over a Task that is not there.
pub(super) fn no_such_task(origin: &Origin, name: &str) -> Failure {
    Failure {
        reason: "CouldntGetTask",
        message: format!(
            "Pipeline {} can't be Run; it contains Tasks that don't exist: Couldn't retrieve Task \
             \"{name}\": tasks.tekton.dev \"{name}\" not found",
            origin.pipeline
        ),
    }
}
