//! Counters of what the controllers do.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use crate::Error;

/// The controllers' metrics, shared by all of them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Requests that change something, by resource and verb.
    pub(crate) writes: IntCounterVec,
    /// Seconds from observe to applied, by kind.
    pub(crate) reconciles: HistogramVec,
    /// Reconciles that ended in an error, by kind and class.
    pub(crate) errors: IntCounterVec,
}

impl Metrics {
    /// Registers everything in `registry`.
    pub fn new(registry: &Registry) -> Result<Self, Error> {
        let writes = Opts::new("ropewalk_controller_writes_total", "Writes to the API server");
        let writes = register(
            registry,
            "ropewalk_controller_writes_total",
            IntCounterVec::new(writes, &["resource", "verb"]),
        )?;
        let name = "ropewalk_controller_reconcile_seconds";
        let reconciles = HistogramOpts::new(name, "Time from observing to having applied");
        let reconciles = register(registry, name, HistogramVec::new(reconciles, &["kind"]))?;
        let name = "ropewalk_controller_reconcile_errors_total";
        let errors = Opts::new(name, "Reconciles to be tried again");
        let errors = register(registry, name, IntCounterVec::new(errors, &["kind", "class"]))?;
        Ok(Self { writes, reconciles, errors })
    }
}

fn register<M: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    name: &'static str,
    metric: prometheus::Result<M>,
) -> Result<M, Error> {
    let metric = metric.map_err(|source| Error::Metric { name, source })?;
    registry.register(Box::new(metric.clone())).map_err(|source| Error::Metric { name, source })?;
    Ok(metric)
}
