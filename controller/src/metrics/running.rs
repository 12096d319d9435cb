//! Gauges of what is going on, counted from the caches when somebody asks.

use std::sync::{Arc, OnceLock};

use kube::runtime::reflector::Store;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use ropewalk_api::config::Config;
use ropewalk_api::{PipelineRun, TaskRun};
use ropewalk_core::metrics::{self, Measure, RUNNING};
use tokio::sync::watch;

use super::series::{Family, descs};

/// Counts runs at each scrape: one pass over what is cached, which a scrape's own answer outweighs. Before the
/// controllers have started there is nothing to say, so that of several replicas only the one that leads counts.
#[derive(Clone, Debug)]
pub(super) struct Running {
    sources: Arc<OnceLock<Sources>>,
    descs: Arc<[Desc]>,
}

#[derive(Debug)]
struct Sources {
    taskruns: Store<TaskRun>,
    pipelineruns: Store<PipelineRun>,
    config: watch::Receiver<Arc<Config>>,
}

impl Running {
    pub(super) fn new() -> prometheus::Result<Self> {
        Ok(Self { sources: Arc::default(), descs: descs(&RUNNING)? })
    }

    pub(super) fn start(
        &self,
        taskruns: Store<TaskRun>,
        pipelineruns: Store<PipelineRun>,
        config: watch::Receiver<Arc<Config>>,
    ) {
        // The controllers start once in a process.
        let _ = self.sources.set(Sources { taskruns, pipelineruns, config });
    }
}

impl Collector for Running {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(sources) = self.sources.get() else { return Vec::new() };
        let config = Arc::clone(&sources.config.borrow());
        let mut measures =
            metrics::pipelineruns(sources.pipelineruns.state().into_iter(), &config.observability);
        measures.extend(metrics::taskruns(sources.taskruns.state().into_iter(), &config.observability));
        families(&measures)
    }
}

/// Neighbours of one form make one family; the registry puts those of one name together.
fn families(measures: &[Measure]) -> Vec<MetricFamily> {
    let alike = |a: &Measure, b: &Measure| a.metric == b.metric && a.labels.keys().eq(b.labels.keys());
    measures
        .chunk_by(alike)
        .filter_map(|measures| {
            let mut family = Family::new(measures.first()?).ok()?;
            for measure in measures {
                family.record(measure);
            }
            Some(family.collect())
        })
        .flatten()
        .collect()
}
