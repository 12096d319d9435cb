//! What the controllers measure, under upstream's names where upstream has it (contract 9.3). Which metric a change of
//! a run goes to is decided in `ropewalk-core`; this records it, and counts what only the process sees.

mod requests;
mod running;
mod series;
mod workqueue;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use kube::Client;
use kube::runtime::reflector::Store;
use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use ropewalk_api::config::Config;
use ropewalk_api::{PipelineRun, TaskRun};
use ropewalk_core::metrics::Measure;
use tokio::sync::watch;

use self::requests::Requests;
use self::running::Running;
use self::series::Series;
pub(crate) use self::workqueue::Workqueue;
use crate::Error;

/// The controllers' metrics, shared by all of them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Requests that change something, by resource and verb.
    pub(crate) writes: IntCounterVec,
    /// Reconciles that ended in an error, by kind and class.
    pub(crate) errors: IntCounterVec,
    /// Events that were never recorded.
    pub(crate) events_lost: IntCounter,
    /// TaskRuns to be reconciled.
    pub(crate) taskruns: Workqueue,
    /// PipelineRuns to be reconciled.
    pub(crate) pipelineruns: Workqueue,
    series: Series,
    running: Running,
    requests: Requests,
}

impl Metrics {
    /// Registers everything in `registry`.
    pub fn new(registry: &Registry) -> Result<Self, Error> {
        let name = "ropewalk_controller_writes_total";
        let writes = Opts::new(name, "Writes to the API server");
        let writes = register(registry, name, IntCounterVec::new(writes, &["resource", "verb"]))?;
        let name = "ropewalk_controller_reconcile_errors_total";
        let errors = Opts::new(name, "Reconciles to be tried again");
        let errors = register(registry, name, IntCounterVec::new(errors, &["kind", "class"]))?;
        let name = "ropewalk_controller_events_lost_total";
        let events_lost = IntCounter::new(name, "Events about runs that could not be recorded");
        let events_lost = register(registry, name, events_lost)?;
        let series = register(registry, "tekton_pipelines_controller_*", Series::new())?;
        let running = register(registry, "tekton_pipelines_controller_running_*", Running::new())?;
        let requests = register(registry, "http_client_*", Requests::new())?;
        let taskruns = register(registry, "kn_workqueue_*", Workqueue::new("taskrun"))?;
        let pipelineruns = register(registry, "kn_workqueue_*", Workqueue::new("pipelinerun"))?;
        Ok(Self { writes, errors, events_lost, taskruns, pipelineruns, series, running, requests })
    }

    /// The same client, with its requests counted and timed. Has to be called within a tokio runtime.
    pub fn counting(&self, client: Client) -> Client {
        self.requests.counting(client)
    }

    /// Records what the change of a run, now written, is worth.
    pub(crate) fn record(&self, measures: &[Measure]) {
        self.series.record(measures);
    }

    /// From now on, a scrape counts the runs in these caches.
    pub(crate) fn count_runs(
        &self,
        taskruns: Store<TaskRun>,
        pipelineruns: Store<PipelineRun>,
        config: watch::Receiver<Arc<Config>>,
    ) {
        self.running.start(taskruns, pipelineruns, config);
    }
}

fn register<M: Collector + Clone + 'static>(
    registry: &Registry,
    name: &'static str,
    metric: prometheus::Result<M>,
) -> Result<M, Error> {
    let metric = metric.map_err(|source| Error::Metric { name, source })?;
    registry.register(Box::new(metric.clone())).map_err(|source| Error::Metric { name, source })?;
    Ok(metric)
}
