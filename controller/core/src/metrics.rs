//! What a change of one run adds to the metrics (contract 9.3). Pure; the controller records.

mod labels;
mod path;
mod running;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ropewalk_api::conditions::{self, Condition, SUCCEEDED};
use ropewalk_api::config::{DurationType, Observability, PipelineRunLevel, TaskRunLevel};
use ropewalk_api::{PipelineRun, PipelineRunStatus, TaskRun, TaskRunStatus};

pub use path::url_template;
pub use running::{RUNNING, pipelineruns, taskruns};

/// The value of the label `otel_scope_name` on every metric of runs.
pub const SCOPE: &str = "tekton_pipelines_controller";

/// Upper bounds of the buckets of durations of runs, in seconds.
const DURATIONS: &[f64] =
    &[10., 30., 60., 300., 900., 1800., 3600., 5400., 10_800., 21_600., 43_200., 86_400.];

/// Upper bounds of the buckets of pod latencies, in milliseconds.
const LATENCIES: &[f64] = &[5., 10., 25., 50., 100., 250., 500., 1000., 2500., 5000., 10_000.];

/// A metric about runs, under its upstream name.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(missing_docs, reason = "each is its name in CamelCase")]
pub enum Metric {
    PipelineRunDurationSeconds,
    PipelineRunTaskRunDurationSeconds,
    PipelineRunTotal,
    RunningPipelineRuns,
    RunningPipelineRunsWaitingOnPipelineResolution,
    RunningPipelineRunsWaitingOnTaskResolution,
    RunningTaskRuns,
    RunningTaskRunsThrottledByNode,
    RunningTaskRunsThrottledByQuota,
    RunningTaskRunsWaitingOnTaskResolution,
    TaskRunDurationSeconds,
    TaskRunTotal,
    TaskRunsPodLatencyMilliseconds,
}

impl Metric {
    /// The name it is scraped by.
    pub fn name(self) -> &'static str {
        self.text().0
    }

    /// What it says, in words.
    pub fn help(self) -> &'static str {
        self.text().1
    }

    fn text(self) -> (&'static str, &'static str) {
        match self {
            Self::PipelineRunDurationSeconds => (
                "tekton_pipelines_controller_pipelinerun_duration_seconds",
                "Seconds from the start of a PipelineRun to its end",
            ),
            Self::PipelineRunTaskRunDurationSeconds => (
                "tekton_pipelines_controller_pipelinerun_taskrun_duration_seconds",
                "Seconds from the start to the end of a TaskRun that belongs to a PipelineRun",
            ),
            Self::PipelineRunTotal => {
                ("tekton_pipelines_controller_pipelinerun_total", "PipelineRuns that have ended")
            }
            Self::RunningPipelineRuns => {
                ("tekton_pipelines_controller_running_pipelineruns", "PipelineRuns that have not ended")
            }
            Self::RunningPipelineRunsWaitingOnPipelineResolution => (
                "tekton_pipelines_controller_running_pipelineruns_waiting_on_pipeline_resolution",
                "PipelineRuns whose Pipeline is being resolved",
            ),
            Self::RunningPipelineRunsWaitingOnTaskResolution => (
                "tekton_pipelines_controller_running_pipelineruns_waiting_on_task_resolution",
                "PipelineRuns with a Task that is being resolved",
            ),
            Self::RunningTaskRuns => {
                ("tekton_pipelines_controller_running_taskruns", "TaskRuns that have not ended")
            }
            Self::RunningTaskRunsThrottledByNode => (
                "tekton_pipelines_controller_running_taskruns_throttled_by_node",
                "TaskRuns whose pod no node has room for",
            ),
            Self::RunningTaskRunsThrottledByQuota => (
                "tekton_pipelines_controller_running_taskruns_throttled_by_quota",
                "TaskRuns whose pod a resource quota holds back",
            ),
            Self::RunningTaskRunsWaitingOnTaskResolution => (
                "tekton_pipelines_controller_running_taskruns_waiting_on_task_resolution_count",
                "TaskRuns whose Task is being resolved",
            ),
            Self::TaskRunDurationSeconds => (
                "tekton_pipelines_controller_taskrun_duration_seconds",
                "Seconds from the start to the end of a TaskRun of its own",
            ),
            Self::TaskRunTotal => ("tekton_pipelines_controller_taskrun_total", "TaskRuns that have ended"),
            Self::TaskRunsPodLatencyMilliseconds => (
                "tekton_pipelines_controller_taskruns_pod_latency_milliseconds",
                "Milliseconds from the creation of a TaskRun's pod to its being scheduled",
            ),
        }
    }
}

/// What becomes of a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Instrument {
    /// It is added.
    Counter,
    /// It replaces the one before.
    Gauge,
    /// It is counted in one of these buckets, given by their upper bounds in ascending order.
    Histogram(&'static [f64]),
}

/// Label names with their values.
pub type Labels = BTreeMap<&'static str, String>;

/// One value for one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// The metric.
    pub metric: Metric,
    /// What becomes of the value.
    pub instrument: Instrument,
    /// Which series of the metric, without `otel_scope_name`.
    pub labels: Labels,
    /// The value, in the unit that the metric's name ends in.
    pub value: f64,
}

/// What a new status of a TaskRun is worth: its duration and its count when it ends, once; and the latency of each
/// attempt's `pod`, when its steps are first seen to have started.
pub fn taskrun(
    run: &TaskRun,
    after: &TaskRunStatus,
    pod: Option<&Pod>,
    config: &Observability,
) -> Vec<Measure> {
    let nothing = TaskRunStatus::default();
    let before = run.status.as_ref().unwrap_or(&nothing);
    let mut measures = Vec::new();
    if let Some(latency) = pod.filter(|_| !has_started(before) && has_started(after)).and_then(latency) {
        measures.push(Measure {
            metric: Metric::TaskRunsPodLatencyMilliseconds,
            instrument: Instrument::Histogram(LATENCIES),
            labels: labels::of_taskrun(run, config.taskrun_level),
            value: latency,
        });
    }
    let Some(end) = end(&before.conditions, &after.conditions) else { return measures };
    let mut series = labels::of_taskrun(run, config.taskrun_level);
    let mut single = config.taskrun_level == TaskRunLevel::TaskRun;
    let metric = if labels::has_pipelinerun(run) {
        single |= config.pipelinerun_level == PipelineRunLevel::PipelineRun;
        series.extend(labels::of_parent(run, config.pipelinerun_level));
        Metric::PipelineRunTaskRunDurationSeconds
    } else {
        Metric::TaskRunDurationSeconds
    };
    let times = (after.start_time.as_ref(), after.completion_time.as_ref());
    let instrument = duration_instrument(config.taskrun_duration, single);
    measures.extend([
        duration(metric, instrument, series, &end, times, config),
        total(Metric::TaskRunTotal, &end),
    ]);
    measures
}

/// What a new status of a PipelineRun is worth: its duration and its count when it ends, once.
pub fn pipelinerun(run: &PipelineRun, after: &PipelineRunStatus, config: &Observability) -> Vec<Measure> {
    let before = run.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let Some(end) = end(before, &after.conditions) else { return Vec::new() };
    let series = labels::of_pipelinerun(run, config.pipelinerun_level);
    let single = config.pipelinerun_level == PipelineRunLevel::PipelineRun;
    let instrument = duration_instrument(config.pipelinerun_duration, single);
    let times = (after.start_time.as_ref(), after.completion_time.as_ref());
    vec![
        duration(Metric::PipelineRunDurationSeconds, instrument, series, &end, times, config),
        total(Metric::PipelineRunTotal, &end),
    ]
}

/// How a run has ended.
struct End<'a> {
    status: &'static str,
    reason: &'a str,
}

/// `None` unless the run was going on before and is not any more: a status written again after the end counts nothing.
fn end<'a>(before: &[Condition], after: &'a [Condition]) -> Option<End<'a>> {
    if conditions::is_done(before) || !conditions::is_done(after) {
        return None;
    }
    let condition = conditions::find(after, SUCCEEDED)?;
    let status = match condition.reason.as_str() {
        "Cancelled" | "TaskRunCancelled" => "cancelled",
        _ if condition.status == "True" => "success",
        _ => "failed",
    };
    Some(End { status, reason: &condition.reason })
}

/// Buckets for a single run say nothing, so at the level of runs only the latest value is kept.
fn duration_instrument(configured: DurationType, single: bool) -> Instrument {
    match configured {
        DurationType::Histogram if !single => Instrument::Histogram(DURATIONS),
        DurationType::Histogram | DurationType::LastValue => Instrument::Gauge,
    }
}

fn duration(
    metric: Metric,
    instrument: Instrument,
    mut labels: Labels,
    end: &End<'_>,
    (start, completion): (Option<&Time>, Option<&Time>),
    config: &Observability,
) -> Measure {
    labels.insert("status", end.status.to_owned());
    if config.reason {
        labels.insert("reason", end.reason.to_owned());
    }
    // A run that was refused before it started took no time.
    let value = start.zip(completion).map_or(0., |(start, end)| seconds(written(start), written(end)));
    Measure { metric, instrument, labels, value }
}

fn total(metric: Metric, end: &End<'_>) -> Measure {
    let labels = Labels::from([("status", end.status.to_owned())]);
    Measure { metric, instrument: Instrument::Counter, labels, value: 1. }
}

/// The current attempt's steps have been seen to start. Until then a retry still shows those of the attempt before.
fn has_started(status: &TaskRunStatus) -> bool {
    !status.pod_name.is_empty()
        && status.steps.iter().any(|step| step.running.is_some() || step.terminated.is_some())
        && status.retries_status.last().is_none_or(|last| last.steps != status.steps)
}

/// Milliseconds between a pod's creation and its being scheduled; `None` where nobody has written that down.
fn latency(pod: &Pod) -> Option<f64> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "True")?;
    let scheduled = scheduled.last_transition_time.as_ref()?.0;
    Some(seconds(pod.metadata.creation_timestamp.as_ref()?.0, scheduled) * 1000.)
}

/// A time as it stands in objects, in whole seconds: the one of now has more, and its fraction would count to every
/// duration.
fn written(time: &Time) -> Timestamp {
    Timestamp::from_second(time.0.as_second()).unwrap_or(time.0)
}

/// Never negative: clocks of two machines may disagree.
fn seconds(start: Timestamp, end: Timestamp) -> f64 {
    end.duration_since(start).as_secs_f64().max(0.)
}
