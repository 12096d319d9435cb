//! The series of the metrics of runs. Which labels they have follows the configuration, so they are made as values come
//! in; their number is bounded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, Opts};
use ropewalk_core::metrics::{Instrument, Labels, Measure, Metric, SCOPE};

/// The label that says which part of a program a metric is about, on all metrics that upstream has.
pub(super) const SCOPE_LABEL: &str = "otel_scope_name";

/// Series that one metric may have. At the level of runs each run is a series: this many let every one of 30 runs a
/// second be seen by a scrape twice a minute, and take a few megabytes of memory. The one that has not changed for
/// longest goes first.
const MAX_SERIES: usize = 2000;

/// The metrics that change as runs do.
#[derive(Clone, Debug)]
pub(super) struct Series {
    families: Arc<Mutex<BTreeMap<Metric, Family>>>,
    descs: Arc<[Desc]>,
}

impl Series {
    pub(super) fn new() -> prometheus::Result<Self> {
        let metrics = [
            Metric::PipelineRunDurationSeconds,
            Metric::PipelineRunTaskRunDurationSeconds,
            Metric::PipelineRunTotal,
            Metric::TaskRunDurationSeconds,
            Metric::TaskRunTotal,
            Metric::TaskRunsPodLatencyMilliseconds,
        ];
        Ok(Self { families: Arc::default(), descs: descs(&metrics)? })
    }

    pub(super) fn record(&self, measures: &[Measure]) {
        // Nothing between lock and unlock leaves a family half-changed.
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        for measure in measures {
            let fits = families.get(&measure.metric).is_some_and(|family| family.fits(measure));
            if !fits {
                // Nobody can add up series of different labels or types: a new configuration starts anew.
                match Family::new(measure) {
                    Ok(family) => drop(families.insert(measure.metric, family)),
                    Err(error) => {
                        tracing::error!(error = &error as &dyn std::error::Error, "cannot make a metric");
                        continue;
                    }
                }
            }
            if let Some(family) = families.get_mut(&measure.metric) {
                family.record(measure);
            }
        }
    }
}

impl Collector for Series {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        families.values().flat_map(Family::collect).collect()
    }
}

/// What registers a metric: its name, so that nobody else takes it. Its labels may change.
pub(super) fn descs(metrics: &[Metric]) -> prometheus::Result<Arc<[Desc]>> {
    let desc = |metric: &Metric| {
        Desc::new(metric.name().to_owned(), metric.help().to_owned(), Vec::new(), scope(SCOPE))
    };
    metrics.iter().map(desc).collect()
}

/// The label of a part of the program.
pub(super) fn scope(name: &str) -> std::collections::HashMap<String, String> {
    [(SCOPE_LABEL.to_owned(), name.to_owned())].into()
}

/// All series of one metric: the same label names, the same type.
#[derive(Debug)]
pub(super) struct Family {
    instrument: Instrument,
    names: Vec<&'static str>,
    values: Values,
    /// When each series was last changed, in the order of changes.
    changed: BTreeMap<Labels, u64>,
    changes: u64,
}

#[derive(Debug)]
enum Values {
    Counter(CounterVec),
    Gauge(GaugeVec),
    Histogram(HistogramVec),
}

impl Family {
    /// Empty, and of the form that this value needs.
    pub(super) fn new(measure: &Measure) -> prometheus::Result<Self> {
        let names: Vec<&'static str> = measure.labels.keys().copied().collect();
        let opts = Opts::new(measure.metric.name(), measure.metric.help()).const_labels(scope(SCOPE));
        let values = match measure.instrument {
            Instrument::Counter => Values::Counter(CounterVec::new(opts, &names)?),
            Instrument::Gauge => Values::Gauge(GaugeVec::new(opts, &names)?),
            Instrument::Histogram(buckets) => {
                let opts = HistogramOpts { common_opts: opts, buckets: buckets.to_vec() };
                Values::Histogram(HistogramVec::new(opts, &names)?)
            }
        };
        Ok(Self { instrument: measure.instrument, names, values, changed: BTreeMap::new(), changes: 0 })
    }

    /// Whether a value is of this family's form.
    pub(super) fn fits(&self, measure: &Measure) -> bool {
        self.instrument == measure.instrument && self.names.iter().eq(measure.labels.keys())
    }

    /// Takes a value that fits.
    pub(super) fn record(&mut self, measure: &Measure) {
        let labels: Vec<&str> = measure.labels.values().map(String::as_str).collect();
        match &self.values {
            Values::Counter(counters) => counters.with_label_values(&labels).inc_by(measure.value),
            Values::Gauge(gauges) => gauges.with_label_values(&labels).set(measure.value),
            Values::Histogram(histograms) => histograms.with_label_values(&labels).observe(measure.value),
        }
        self.changes += 1;
        self.changed.insert(measure.labels.clone(), self.changes);
        if self.changed.len() > MAX_SERIES {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self.changed.iter().min_by_key(|(_, changed)| **changed);
        let Some(oldest) = oldest.map(|(labels, _)| labels.clone()) else { return };
        self.changed.remove(&oldest);
        let labels: Vec<&str> = oldest.values().map(String::as_str).collect();
        let removed = match &self.values {
            Values::Counter(counters) => counters.remove_label_values(&labels),
            Values::Gauge(gauges) => gauges.remove_label_values(&labels),
            Values::Histogram(histograms) => histograms.remove_label_values(&labels),
        };
        debug_assert!(removed.is_ok(), "what was recorded is there");
    }

    pub(super) fn collect(&self) -> Vec<MetricFamily> {
        match &self.values {
            Values::Counter(counters) => counters.collect(),
            Values::Gauge(gauges) => gauges.collect(),
            Values::Histogram(histograms) => histograms.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::proto::LabelPair;

    use super::*;

    fn latest(run: usize) -> Measure {
        Measure {
            metric: Metric::TaskRunDurationSeconds,
            instrument: Instrument::Gauge,
            labels: Labels::from([("taskrun", format!("run-{run}"))]),
            value: 1.,
        }
    }

    fn names(series: &Series) -> Vec<String> {
        let families = series.collect();
        let metrics = families.iter().flat_map(MetricFamily::get_metric);
        let labels = metrics.flat_map(|metric| metric.get_label().iter().filter(|l| l.name() == "taskrun"));
        labels.map(|label| label.value().to_owned()).collect()
    }

    #[test]
    fn the_series_that_changed_longest_ago_goes_first() {
        let series = Series::new().expect("descriptions");
        for run in 0..MAX_SERIES {
            series.record(&[latest(run)]);
        }
        series.record(&[latest(0), latest(MAX_SERIES)]);
        let names = names(&series);
        assert_eq!(names.len(), MAX_SERIES);
        assert!(names.contains(&"run-0".to_owned()), "it has just changed");
        assert!(names.contains(&format!("run-{MAX_SERIES}")));
        assert!(!names.contains(&"run-1".to_owned()));
    }

    #[test]
    fn a_new_level_starts_anew() {
        let series = Series::new().expect("descriptions");
        series.record(&[latest(1)]);
        let mut coarse = latest(1);
        coarse.labels = Labels::from([("namespace", "ns".to_owned())]);
        series.record(&[coarse]);
        let families = series.collect();
        assert_eq!(families.len(), 1);
        let labels: Vec<&str> = families[0].get_metric()[0].get_label().iter().map(LabelPair::name).collect();
        assert_eq!(labels, ["namespace", SCOPE_LABEL]);
        assert_eq!(families[0].get_metric().len(), 1);
    }
}
