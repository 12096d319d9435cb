//! What waits to be reconciled and what is being reconciled, under the names of knative's work queues.
//!
//! kube-runtime does not let its queue be seen, so this keeps a copy: a run is in it from the event that concerns it
//! until its reconcile begins. Timers and retries come due inside kube-runtime; they count as added when their reconcile
//! begins, with no time spent waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::runtime::reflector::{Lookup, ObjectRef, Store};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntGauge, Opts};

use super::series::scope;

/// The scope of everything knative measures for Kubernetes.
pub(super) const SCOPE: &str = "knative.dev/pkg/observability/metrics/k8s";

/// Upper bounds of the buckets, in seconds; knative's.
pub(super) const SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1., 2.5, 5., 7.5, 10.];

/// One kind's queue.
#[derive(Clone, Debug)]
pub(crate) struct Workqueue {
    state: Arc<Mutex<State>>,
    depth: IntGauge,
    adds: IntCounter,
    retries: IntCounter,
    waited: Histogram,
    worked: Histogram,
    unfinished: Gauge,
}

/// Runs by namespace and name, with the time since when.
#[derive(Debug, Default)]
struct State {
    /// Never more than the cache holds.
    waiting: HashMap<String, Instant>,
    /// Never more than are reconciled at once.
    working: HashMap<String, Instant>,
}

impl Workqueue {
    pub(super) fn new(name: &str) -> prometheus::Result<Self> {
        let opts =
            |metric, help| Opts::new(metric, help).const_labels(scope(SCOPE)).const_label("name", name);
        let seconds = |metric, help| {
            Histogram::with_opts(HistogramOpts { common_opts: opts(metric, help), buckets: SECONDS.to_vec() })
        };
        Ok(Self {
            state: Arc::default(),
            depth: IntGauge::with_opts(opts("kn_workqueue_depth", "Runs waiting to be reconciled"))?,
            adds: IntCounter::with_opts(opts("kn_workqueue_adds_total", "Runs that had to be reconciled"))?,
            retries: IntCounter::with_opts(opts(
                "kn_workqueue_retries_total",
                "Reconciles to be tried again",
            ))?,
            waited: seconds(
                "kn_workqueue_queue_duration_seconds",
                "Seconds from a change of a run to its reconcile",
            )?,
            worked: seconds("kn_workqueue_process_duration_seconds", "Seconds a reconcile takes")?,
            unfinished: Gauge::with_opts(opts(
                "kn_workqueue_unfinished_work_seconds",
                "Seconds that the reconciles going on have taken so far, added up",
            ))?,
        })
    }

    /// Something has happened to a run, or to something of its. A run that is gone waits for nothing.
    pub(crate) fn touch<K>(&self, run: &ObjectRef<K>, cache: &Store<K>)
    where
        K: Lookup<DynamicType = ()> + Clone + 'static,
    {
        let exists = cache.get(run).is_some();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !exists {
            state.waiting.remove(&key(run));
        } else if let std::collections::hash_map::Entry::Vacant(entry) = state.waiting.entry(key(run)) {
            entry.insert(Instant::now());
            self.adds.inc();
        }
    }

    /// The reconcile of a run begins; it ends when the answer is dropped.
    pub(crate) fn take<K: Lookup<DynamicType = ()>>(&self, run: &ObjectRef<K>) -> Work {
        let (key, now) = (key(run), Instant::now());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let since = state.waiting.remove(&key).unwrap_or_else(|| {
            self.adds.inc();
            now
        });
        self.waited.observe((now - since).as_secs_f64());
        state.working.insert(key.clone(), now);
        drop(state);
        Work { queue: self.clone(), key, begun: now }
    }

    /// A reconcile failed and will be tried again.
    pub(crate) fn retry(&self) {
        self.retries.inc();
    }
}

/// A reconcile going on.
pub(crate) struct Work {
    queue: Workqueue,
    key: String,
    begun: Instant,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.queue.worked.observe(self.begun.elapsed().as_secs_f64());
        self.queue.state.lock().unwrap_or_else(PoisonError::into_inner).working.remove(&self.key);
    }
}

impl Collector for Workqueue {
    fn desc(&self) -> Vec<&Desc> {
        let counters = self.depth.desc().into_iter().chain(self.adds.desc()).chain(self.retries.desc());
        let times = self.waited.desc().into_iter().chain(self.worked.desc()).chain(self.unfinished.desc());
        counters.chain(times).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.depth.set(i64::try_from(state.waiting.len()).unwrap_or(i64::MAX));
        let unfinished: Duration = state.working.values().map(Instant::elapsed).sum();
        self.unfinished.set(unfinished.as_secs_f64());
        drop(state);
        let counters =
            self.depth.collect().into_iter().chain(self.adds.collect()).chain(self.retries.collect());
        let times = self.waited.collect().into_iter().chain(self.worked.collect());
        counters.chain(times).chain(self.unfinished.collect()).collect()
    }
}

fn key<K: Lookup>(run: &ObjectRef<K>) -> String {
    format!("{}/{}", run.namespace.as_deref().unwrap_or_default(), run.name)
}
