//! PipelineRun: from a snapshot to a plan (contract 7).

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use ropewalk_api::config::Config;
use ropewalk_api::{Pipeline, PipelineRun, Task, TaskRun};

use crate::plan::Plan;
use crate::settings::Settings;
use crate::snapshot::{Lookup, Refusal};

/// Everything a decision about one PipelineRun depends on.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was taken.
    pub now: Timestamp,
    /// The ConfigMaps.
    pub config: Arc<Config>,
    /// The process's settings.
    pub settings: Arc<Settings>,
    /// The run as the API server has it.
    pub run: Arc<PipelineRun>,
    /// The referenced Pipeline; looked up only when [`wants_pipeline`] says so.
    pub pipeline: Lookup<Pipeline>,
    /// The Tasks that [`wants_tasks`] names.
    pub tasks: BTreeMap<String, Lookup<Task>>,
    /// Every TaskRun whose controller is this run, in order of name.
    pub children: Vec<Arc<TaskRun>>,
    /// Writes refused in earlier rounds of this reconcile.
    pub refusals: Vec<Refusal>,
}

/// The name of the Pipeline to look up before planning: a run by reference that has not stored its spec yet.
pub fn wants_pipeline(_run: &PipelineRun) -> Option<&str> {
    None
}

/// The names of the Tasks to look up before planning: those of pipeline tasks that have no child yet.
pub fn wants_tasks(
    _run: &PipelineRun,
    _pipeline: Option<&Pipeline>,
    _children: &[Arc<TaskRun>],
) -> Vec<String> {
    Vec::new()
}

/// What to do about a PipelineRun now.
pub fn plan(_snapshot: &Snapshot) -> Plan {
    Plan::default()
}
