//! Gauges of what is going on, counted from the runs there are (contract 9.3).

use std::borrow::Borrow;
use std::collections::BTreeMap;

use ropewalk_api::conditions::{self, Condition, SUCCEEDED};
use ropewalk_api::config::Observability;
use ropewalk_api::{PipelineRun, TaskRun};

use super::{Instrument, Labels, Measure, Metric, labels};
use crate::taskrun::reason;

/// Every metric that [`pipelineruns`] and [`taskruns`] give.
pub const RUNNING: [Metric; 7] = [
    Metric::RunningPipelineRuns,
    Metric::RunningPipelineRunsWaitingOnPipelineResolution,
    Metric::RunningPipelineRunsWaitingOnTaskResolution,
    Metric::RunningTaskRuns,
    Metric::RunningTaskRunsThrottledByNode,
    Metric::RunningTaskRunsThrottledByQuota,
    Metric::RunningTaskRunsWaitingOnTaskResolution,
];

/// The reason of a run whose Pipeline is asked of a resolver.
const RESOLVING_PIPELINE: &str = "ResolvingPipelineRef";
/// The reason of a run with a Task that is asked of a resolver.
const RESOLVING_TASK: &str = "ResolvingTaskRef";

/// How many PipelineRuns have not ended: all of them without a label, and by the labels of the level, if there is one.
pub fn pipelineruns(runs: impl Iterator<Item: Borrow<PipelineRun>>, config: &Observability) -> Vec<Measure> {
    let mut running = BTreeMap::from([(Labels::new(), 0)]);
    let (mut on_pipeline, mut on_task) = (0, 0);
    for run in runs {
        let run = run.borrow();
        let conditions = run.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        if conditions::is_done(conditions) {
            continue;
        }
        *running.entry(Labels::new()).or_default() += 1;
        if let Some(level) = config.running_pipelinerun_level {
            *running.entry(labels::of_pipelinerun(run, level)).or_default() += 1;
        }
        match reason_of(conditions) {
            RESOLVING_PIPELINE => on_pipeline += 1,
            RESOLVING_TASK => on_task += 1,
            _ => {}
        }
    }
    let mut gauges = gauges(Metric::RunningPipelineRuns, running);
    gauges.push(gauge(Metric::RunningPipelineRunsWaitingOnPipelineResolution, Labels::new(), on_pipeline));
    gauges.push(gauge(Metric::RunningPipelineRunsWaitingOnTaskResolution, Labels::new(), on_task));
    gauges
}

/// How many TaskRuns have not ended, and how many of those are held back by what. With namespaces asked for, every
/// namespace with a TaskRun that has not ended is told, a zero included.
pub fn taskruns(runs: impl Iterator<Item: Borrow<TaskRun>>, config: &Observability) -> Vec<Measure> {
    let (mut running, mut on_task) = (0, 0);
    let mut by_quota = BTreeMap::new();
    if !config.throttle_namespace {
        by_quota.insert(Labels::new(), 0);
    }
    let mut by_node = by_quota.clone();
    for run in runs {
        let run = run.borrow();
        let conditions = run.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        if conditions::is_done(conditions) {
            continue;
        }
        running += 1;
        let labels = if config.throttle_namespace {
            Labels::from([("namespace", run.metadata.namespace.clone().unwrap_or_default())])
        } else {
            Labels::new()
        };
        let reason = reason_of(conditions);
        *by_quota.entry(labels.clone()).or_default() += u32::from(reason == reason::EXCEEDED_RESOURCE_QUOTA);
        *by_node.entry(labels).or_default() += u32::from(reason == reason::EXCEEDED_NODE_RESOURCES);
        on_task += u32::from(reason == RESOLVING_TASK);
    }
    let mut all = gauges(Metric::RunningTaskRunsThrottledByQuota, by_quota);
    all.extend(gauges(Metric::RunningTaskRunsThrottledByNode, by_node));
    all.push(gauge(Metric::RunningTaskRuns, Labels::new(), running));
    all.push(gauge(Metric::RunningTaskRunsWaitingOnTaskResolution, Labels::new(), on_task));
    all
}

fn reason_of(conditions: &[Condition]) -> &str {
    conditions::find(conditions, SUCCEEDED).map_or("", |condition| &condition.reason)
}

fn gauges(metric: Metric, counts: BTreeMap<Labels, u32>) -> Vec<Measure> {
    counts.into_iter().map(|(labels, count)| gauge(metric, labels, count)).collect()
}

fn gauge(metric: Metric, labels: Labels, count: u32) -> Measure {
    Measure { metric, instrument: Instrument::Gauge, labels, value: f64::from(count) }
}
