//! `config-observability` (contract 9.3), as far as this engine acts on it: which labels the metrics of runs carry.

use super::parse::Reader;

/// What `config-observability` decides.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Observability {
    /// `metrics.taskrun.level`.
    pub taskrun_level: TaskRunLevel,
    /// `metrics.taskrun.duration-type`.
    pub taskrun_duration: DurationType,
    /// `metrics.pipelinerun.level`.
    pub pipelinerun_level: PipelineRunLevel,
    /// `metrics.pipelinerun.duration-type`.
    pub pipelinerun_duration: DurationType,
    /// `metrics.running-pipelinerun.level`; `None` counts all of them together, and nothing else.
    pub running_pipelinerun_level: Option<PipelineRunLevel>,
    /// `metrics.count.enable-reason`: durations carry the reason of the run's end.
    pub reason: bool,
    /// `metrics.taskrun.throttle.enable-namespace`: throttled TaskRuns are counted by namespace.
    pub throttle_namespace: bool,
}

/// How finely metrics of TaskRuns are told apart; a finer level has the labels of the coarser ones too.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum TaskRunLevel {
    /// By namespace.
    Namespace,
    /// By Task.
    #[default]
    Task,
    /// By TaskRun: as many series as there are runs.
    TaskRun,
}

/// How finely metrics of PipelineRuns are told apart; a finer level has the labels of the coarser ones too.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum PipelineRunLevel {
    /// By namespace.
    Namespace,
    /// By Pipeline.
    #[default]
    Pipeline,
    /// By PipelineRun: as many series as there are runs.
    PipelineRun,
}

/// How durations are kept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum DurationType {
    /// All of them, in buckets.
    #[default]
    Histogram,
    /// The latest.
    LastValue,
}

pub(super) fn read(reader: &mut Reader<'_>) -> Observability {
    let mut read = Observability::default();
    let taskrun = |text: &str| match text {
        "namespace" => Some(TaskRunLevel::Namespace),
        "task" => Some(TaskRunLevel::Task),
        "taskrun" => Some(TaskRunLevel::TaskRun),
        _ => None,
    };
    let pipelinerun = |text: &str| match text {
        "namespace" => Some(PipelineRunLevel::Namespace),
        "pipeline" => Some(PipelineRunLevel::Pipeline),
        "pipelinerun" => Some(PipelineRunLevel::PipelineRun),
        _ => None,
    };
    let duration = |text: &str| match text {
        "histogram" => Some(DurationType::Histogram),
        "lastvalue" => Some(DurationType::LastValue),
        _ => None,
    };
    let pipelinerun_levels = "\"namespace\", \"pipeline\" or \"pipelinerun\"";
    let durations = "\"histogram\" or \"lastvalue\"";
    reader.set(
        "metrics.taskrun.level",
        &mut read.taskrun_level,
        taskrun,
        "\"namespace\", \"task\" or \"taskrun\"",
    );
    reader.set("metrics.taskrun.duration-type", &mut read.taskrun_duration, duration, durations);
    reader.set("metrics.pipelinerun.level", &mut read.pipelinerun_level, pipelinerun, pipelinerun_levels);
    reader.set("metrics.pipelinerun.duration-type", &mut read.pipelinerun_duration, duration, durations);
    reader.set(
        "metrics.running-pipelinerun.level",
        &mut read.running_pipelinerun_level,
        |text| pipelinerun(text).map(Some),
        pipelinerun_levels,
    );
    reader.flag("metrics.count.enable-reason", &mut read.reason);
    reader.flag("metrics.taskrun.throttle.enable-namespace", &mut read.throttle_namespace);
    read
}
