//! How long to wait before a reconcile that failed is tried again. Pure but for a lock.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Resource;
use kube::runtime::reflector::ObjectRef;
use ropewalk_cluster::backoff::Doubling;

/// Why a reconcile failed, as far as it matters for the next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// The object had changed: the watch brings the newer one soon, or has brought it.
    Conflict,
    /// The API server did not answer, or not as it should.
    Outage,
}

impl Failure {
    fn pauses(self) -> Doubling {
        match self {
            Self::Conflict => Doubling::new(Duration::from_millis(50), Duration::from_secs(1)),
            // The longest is what an outage may cost after its end, the first what a single failure costs.
            Self::Outage => Doubling::new(Duration::from_secs(1), Duration::from_secs(30)),
        }
    }
}

/// The pauses of every object whose last reconcile failed. A success or the end of the object removes it, so that there
/// are never more than are cached.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    failing: Mutex<HashMap<String, (Failure, Doubling)>>,
}

impl Retries {
    /// How long to wait after this failure: longer each time in a row.
    pub(crate) fn pause<K: Resource<DynamicType = ()>>(
        &self,
        object: &ObjectRef<K>,
        failure: Failure,
    ) -> Duration {
        let mut failing = self.lock();
        let fresh = || (failure, failure.pauses());
        let entry = failing.entry(key(object)).or_insert_with(fresh);
        if entry.0 != failure {
            *entry = fresh();
        }
        entry.1.next().unwrap_or_default()
    }

    /// A reconcile succeeded, or the object is gone.
    pub(crate) fn forget<K: Resource<DynamicType = ()>>(&self, object: &ObjectRef<K>) {
        let mut failing = self.lock();
        // The rule: nothing fails.
        if !failing.is_empty() {
            failing.remove(&key(object));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Failure, Doubling)>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key<K: Resource<DynamicType = ()>>(object: &ObjectRef<K>) -> String {
    format!("{}/{}/{}", K::kind(&()), object.namespace.as_deref().unwrap_or_default(), object.name)
}

#[cfg(test)]
mod tests {
    use ropewalk_api::TaskRun;

    use super::*;

    fn run(name: &str) -> ObjectRef<TaskRun> {
        ObjectRef::new(name).within("ns")
    }

    #[test]
    fn pauses_grow_for_each_object_alone_until_it_succeeds() {
        let retries = Retries::default();
        let pause = |name, failure| retries.pause(&run(name), failure).as_millis();
        let outages: Vec<_> = (0..7).map(|_| pause("a", Failure::Outage)).collect();
        assert_eq!(outages, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(pause("b", Failure::Outage), 1000);
        assert_eq!(pause("a", Failure::Conflict), 50);
        assert_eq!(pause("a", Failure::Conflict), 100);
        retries.forget(&run("a"));
        assert_eq!(pause("a", Failure::Outage), 1000);
        retries.forget(&run("a"));
        retries.forget(&run("b"));
        assert!(retries.lock().is_empty());
    }
}
