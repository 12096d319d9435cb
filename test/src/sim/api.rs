//! The API server of a simulation: the kernel, the webhooks, and the changes nobody has been told of yet. No IO.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use http::Request;
use jiff::Timestamp;
use ropewalk_api::config::Config;
use ropewalk_apiserver::{Context, Delta, Outcome, Resource, ResourceTable, State, TableError, handle};
use ropewalk_core::settings::Settings;
use ropewalk_standalone::admission::Webhooks;
use serde_json::Value;

/// What every world serves; made once, as it takes longer than many a simulation. Nobody asks for the definitions
/// themselves, and copying them would take longer still.
static TABLE: LazyLock<Result<ResourceTable, TableError>> = LazyLock::new(|| {
    let mut table = ResourceTable::built_in();
    for crd in ropewalk_api::crd::all() {
        table.add(Resource::from_crd(&crd)?)?;
    }
    Ok(table)
});

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) code: u16,
    /// The object asked for, or a `Status`; null when the body is no JSON.
    pub(super) body: Value,
}

impl Answer {
    /// A field of a `Status`.
    pub(super) fn text(&self, field: &str) -> &str {
        self.body.get(field).and_then(Value::as_str).unwrap_or_default()
    }
}

/// The kernel and what goes with it.
pub(super) struct Api {
    /// Everything stored.
    pub(super) state: State,
    admission: Webhooks,
    untold: Vec<Arc<Delta>>,
}

impl Api {
    /// An API server that serves Kubernetes' kinds and ours; `seed` makes its UIDs and generated names.
    pub(super) fn new(
        config: Arc<Config>,
        settings: &Settings,
        seed: u64,
        now: Timestamp,
    ) -> Result<Self, &'static TableError> {
        let table = TABLE.as_ref()?.clone();
        let admission = Webhooks::new(config, settings);
        Ok(Self { state: State::new(table, seed, now), admission, untold: Vec::new() })
    }

    /// Handles one request.
    pub(super) fn send(&mut self, request: &Request<Vec<u8>>, now: Timestamp) -> Answer {
        let handled = handle(&mut self.state, request, &Context { now, admission: &self.admission });
        self.untold.extend(handled.deltas);
        match handled.outcome {
            Outcome::Response(response) => Answer {
                code: response.status().as_u16(),
                body: serde_json::from_slice(response.body()).unwrap_or_default(),
            },
            // Nothing here asks for a stream.
            Outcome::Watch(_) | Outcome::Log(_) | Outcome::Exec(_) | Outcome::Attach(_) => {
                Answer { code: 405, body: Value::Null }
            }
        }
    }

    /// The changes since the last call, in order.
    pub(super) fn take_untold(&mut self) -> Vec<Arc<Delta>> {
        std::mem::take(&mut self.untold)
    }

    /// All objects of a resource, in order of namespace and name.
    pub(super) fn objects(&self, resource: Watched) -> impl Iterator<Item = &Arc<Value>> {
        let (group, version, plural) = resource.url();
        let found = self.state.table().find(group, version, plural);
        found.into_iter().flat_map(|(id, _)| self.state.objects(id, None).map(|(_, object)| object))
    }

    /// The watched resource a change belongs to, if any.
    pub(super) fn watched(&self, delta: &Delta) -> Option<Watched> {
        let plural = &self.state.table().get(delta.resource).plural;
        Watched::ALL.into_iter().find(|resource| resource.url().2 == plural)
    }
}

/// The resources that the controllers watch.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Watched {
    /// `pods`
    Pods,
    /// `taskruns`
    TaskRuns,
    /// `pipelineruns`
    PipelineRuns,
    /// `tasks`
    Tasks,
    /// `pipelines`
    Pipelines,
}

impl Watched {
    /// All of them.
    pub(super) const ALL: [Self; 5] =
        [Self::Pods, Self::TaskRuns, Self::PipelineRuns, Self::Tasks, Self::Pipelines];

    /// Group, version and plural.
    fn url(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Pods => ("", "v1", "pods"),
            Self::TaskRuns => (ropewalk_api::GROUP, "v1", "taskruns"),
            Self::PipelineRuns => (ropewalk_api::GROUP, "v1", "pipelineruns"),
            Self::Tasks => (ropewalk_api::GROUP, "v1", "tasks"),
            Self::Pipelines => (ropewalk_api::GROUP, "v1", "pipelines"),
        }
    }
}

/// How many requests of each verb went to each resource.
pub type Tally = BTreeMap<(&'static str, &'static str), usize>;
