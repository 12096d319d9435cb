//! What the webhooks count.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};
use ropewalk_api::kinds;

use crate::admit::{Operation, Request};

/// Counters of the webhooks. Names of ours: upstream's come from a library and name its parts.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    shed: IntCounter,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// They have been registered in this registry before.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let requests = Opts::new("ropewalk_webhook_requests_total", "Admission requests answered");
        let requests = IntCounterVec::new(requests, &["webhook", "kind", "operation", "allowed"])?;
        let name = "ropewalk_webhook_request_duration_seconds";
        // A decision takes a fraction of a millisecond; API servers wait for ten seconds.
        let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0];
        let seconds = HistogramOpts::new(name, "Time from a whole request to its answer").buckets(buckets);
        let seconds = HistogramVec::new(seconds, &["webhook"])?;
        let name = "ropewalk_webhook_requests_shed_total";
        let shed = IntCounter::new(name, "Requests turned away because too many were being answered")?;
        let collectors: [Box<dyn Collector>; 3] =
            [Box::new(requests.clone()), Box::new(seconds.clone()), Box::new(shed.clone())];
        collectors.into_iter().try_for_each(|collector| registry.register(collector))?;
        Ok(Self { requests, seconds, shed })
    }

    pub(crate) fn answered(&self, webhook: &str, request: &Request<'_>, allowed: bool, took: Duration) {
        let operation = match request.operation {
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Delete => "delete",
        };
        // Anybody who reaches the port can send any kind, and each would stay for ever.
        let known = request.kind == "ConfigMap" || kinds::find(request.kind).is_some();
        let kind = if known { request.kind } else { "other" };
        let allowed = if allowed { "true" } else { "false" };
        self.requests.with_label_values(&[webhook, kind, operation, allowed]).inc();
        self.seconds.with_label_values(&[webhook]).observe(took.as_secs_f64());
    }

    pub(crate) fn shed(&self) {
        self.shed.inc();
    }
}
