//! The labels of a run's series by level (contract 9.3).

use std::collections::BTreeMap;

use ropewalk_api::config::{PipelineRunLevel, TaskRunLevel};
use ropewalk_api::{PipelineRun, TaskRun, labels};

use super::Labels;

/// The name of what is defined in the run itself.
const ANONYMOUS: &str = "anonymous";

/// `namespace`, `task` and `taskrun`, as far as the level goes.
pub(super) fn of_taskrun(run: &TaskRun, level: TaskRunLevel) -> Labels {
    let mut series = namespace(run.metadata.namespace.as_deref());
    if level >= TaskRunLevel::Task {
        series.insert("task", task(run).to_owned());
    }
    if level >= TaskRunLevel::TaskRun {
        series.insert("taskrun", run.metadata.name.clone().unwrap_or_default());
    }
    series
}

/// `namespace`, `pipeline` and `pipelinerun`, as far as the level goes.
pub(super) fn of_pipelinerun(run: &PipelineRun, level: PipelineRunLevel) -> Labels {
    let mut series = namespace(run.metadata.namespace.as_deref());
    if level >= PipelineRunLevel::Pipeline {
        series.insert("pipeline", pipeline(run).to_owned());
    }
    if level >= PipelineRunLevel::PipelineRun {
        series.insert("pipelinerun", run.metadata.name.clone().unwrap_or_default());
    }
    series
}

/// Whether a TaskRun says that it belongs to a PipelineRun.
pub(super) fn has_pipelinerun(run: &TaskRun) -> bool {
    label(run.metadata.labels.as_ref(), labels::PIPELINE_RUN).is_some()
        && label(run.metadata.labels.as_ref(), labels::PIPELINE).is_some()
}

/// `pipeline` and `pipelinerun` of the PipelineRun a TaskRun belongs to, as far as the level goes.
pub(super) fn of_parent(run: &TaskRun, level: PipelineRunLevel) -> Labels {
    let all = run.metadata.labels.as_ref();
    let parent = label(all, labels::PIPELINE_RUN).unwrap_or_default();
    let mut series = Labels::new();
    if level >= PipelineRunLevel::Pipeline {
        // A Pipeline that is named after the run is one that the run defines.
        let pipeline = label(all, labels::PIPELINE).filter(|name| *name != parent);
        series.insert("pipeline", pipeline.unwrap_or(ANONYMOUS).to_owned());
    }
    if level >= PipelineRunLevel::PipelineRun {
        series.insert("pipelinerun", parent.to_owned());
    }
    series
}

fn task(run: &TaskRun) -> &str {
    let all = run.metadata.labels.as_ref();
    match &run.spec.task_ref {
        Some(reference) if reference.resolver.is_empty() => &reference.name,
        Some(_) => label(all, labels::TASK).unwrap_or(ANONYMOUS),
        None => label(all, labels::PIPELINE_TASK).unwrap_or(ANONYMOUS),
    }
}

fn pipeline(run: &PipelineRun) -> &str {
    let generated = run.metadata.generate_name.as_deref().is_some_and(|prefix| !prefix.is_empty());
    match &run.spec.pipeline_ref {
        Some(reference) if reference.resolver.is_empty() => &reference.name,
        None if !generated => ANONYMOUS,
        _ => label(run.metadata.labels.as_ref(), labels::PIPELINE).unwrap_or(ANONYMOUS),
    }
}

fn namespace(name: Option<&str>) -> Labels {
    Labels::from([("namespace", name.unwrap_or_default().to_owned())])
}

fn label<'a>(labels: Option<&'a BTreeMap<String, String>>, key: &str) -> Option<&'a str> {
    labels?.get(key).map(String::as_str).filter(|value| !value.is_empty())
}
