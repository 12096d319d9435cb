//! TaskRun: from a snapshot to a plan (contract 5 and 6).

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use ropewalk_api::config::Config;
use ropewalk_api::{Task, TaskRun};

use crate::plan::Plan;
use crate::settings::Settings;
use crate::snapshot::{Lookup, Refusal};

/// Everything a decision about one TaskRun depends on.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was taken.
    pub now: Timestamp,
    /// The ConfigMaps.
    pub config: Arc<Config>,
    /// The process's settings.
    pub settings: Arc<Settings>,
    /// The run as the API server has it.
    pub run: Arc<TaskRun>,
    /// The referenced Task; looked up only when [`wants_task`] says so.
    pub task: Lookup<Task>,
    /// Every pod whose controller is this run, of any attempt, in order of name.
    pub pods: Vec<Arc<Pod>>,
    /// Writes refused in earlier rounds of this reconcile.
    pub refusals: Vec<Refusal>,
}

/// The name of the Task to look up before planning: a run by reference that has not stored its spec yet.
pub fn wants_task(_run: &TaskRun) -> Option<&str> {
    None
}

/// What to do about a TaskRun now.
pub fn plan(_snapshot: &Snapshot) -> Plan {
    Plan::default()
}
