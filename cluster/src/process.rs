//! What this process uses: memory, CPU time, open files. Reads `/proc` and the process's clock.

use prometheus::core::{Collector, Desc};
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Counter, MetricFamily};
use rustix::time::{ClockId, clock_gettime};

const CPU: &str = "process_cpu_seconds_total";

/// The usual collector, except that CPU time is told in fractions of a second: a busy minute of ours is a few of them.
pub(crate) struct Process(ProcessCollector);

impl Process {
    /// Of the calling process.
    pub(crate) fn this() -> Self {
        Self(ProcessCollector::for_self())
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.0.collect();
        for family in families.iter_mut().filter(|family| family.name() == CPU) {
            for metric in family.mut_metric() {
                let mut seconds = Counter::default();
                seconds.set_value(cpu_seconds());
                metric.set_counter(seconds);
            }
        }
        families
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact for the first ten million years")]
fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}
