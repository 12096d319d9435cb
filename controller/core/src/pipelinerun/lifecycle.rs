//! The end of a run that does not come by itself: timeouts and cancellation (contract 7.4 and 7.5). Pure.

use std::time::Duration;

use jiff::Timestamp;
use ropewalk_api::{
    GoDuration, PipelineRun, TaskRun, conditions, pipelinerun_spec_status, taskrun_spec_status,
};
use serde_json::json;

use super::facts::Node;
use crate::plan::{Resource, Target, Write};
use crate::snapshot::Refusal;

/// The `statusMessage` of children a timeout of the run cancels.
pub(super) const TIMED_OUT_MESSAGE: &str =
    "TaskRun cancelled as the PipelineRun it belongs to has timed out.";
/// The `statusMessage` of children that are cancelled with the run.
pub(super) const CANCELLED_MESSAGE: &str =
    "TaskRun cancelled as the PipelineRun it belongs to has been cancelled.";
/// Times in objects are cut to whole seconds. A run may take this much longer rather than that much shorter.
const TIME_PRECISION: Duration = Duration::from_secs(1);
/// When to try again to cancel children the API server refused to cancel: soon enough for a person who waits,
/// seldom enough not to press an API server in trouble.
pub(super) const RETRY_CANCEL: Duration = Duration::from_secs(5);

/// What `spec.status` asks for while the graph runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Request {
    /// Nothing.
    Run,
    /// Cancel the graph, then run `finally`.
    CancelRunFinally,
    /// Let the graph's running tasks end, then run `finally`.
    StopRunFinally,
}

impl Request {
    /// Of this run.
    pub(super) fn of(run: &PipelineRun) -> Self {
        match run.spec.status.as_str() {
            pipelinerun_spec_status::CANCELLED_RUN_FINALLY => Self::CancelRunFinally,
            pipelinerun_spec_status::STOPPED_RUN_FINALLY => Self::StopRunFinally,
            _ => Self::Run,
        }
    }
}

/// The three timeouts, the derived ones worked out; zero is unlimited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Timeouts {
    /// Of the whole run, from its start.
    pub(super) pipeline: GoDuration,
    /// Of the graph, from the run's start.
    pub(super) tasks: Option<GoDuration>,
    /// Of `finally`, from its own start.
    pub(super) finally: Option<GoDuration>,
}

impl Timeouts {
    /// Of this run; `default` is the whole run's when it says nothing.
    pub(super) fn of(run: &PipelineRun, default: GoDuration) -> Self {
        let given = run.spec.timeouts.clone().unwrap_or_default();
        let pipeline = given.pipeline.unwrap_or(default);
        let rest = |part: Option<GoDuration>| {
            let part = part.filter(|part| !part.is_zero() && !pipeline.is_zero())?;
            Some(GoDuration(pipeline.as_nanos().saturating_sub(part.as_nanos())))
        };
        Self {
            pipeline,
            tasks: given.tasks.or_else(|| rest(given.finally)),
            finally: given.finally.or_else(|| rest(given.tasks)),
        }
    }
}

/// Where a run stands against its timeouts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The timeouts.
    pub(super) timeouts: Timeouts,
    /// Now.
    pub(super) now: Timestamp,
    /// When the run began.
    pub(super) start: Option<Timestamp>,
    /// When `finally` began.
    pub(super) finally_start: Option<Timestamp>,
}

impl Limits {
    /// No timeout at all.
    pub(super) const NONE: Self = Self {
        timeouts: Timeouts { pipeline: GoDuration::ZERO, tasks: None, finally: None },
        now: Timestamp::UNIX_EPOCH,
        start: None,
        finally_start: None,
    };

    /// The whole run took too long.
    pub(super) fn pipeline_over(&self) -> bool {
        self.left(Some(self.timeouts.pipeline), self.start) == Some(Duration::ZERO)
    }

    /// The graph's time is up, whether or not the graph is still running (contract 7.4, last point).
    pub(super) fn tasks_over(&self) -> bool {
        self.left(self.timeouts.tasks, self.start) == Some(Duration::ZERO)
    }

    /// `finally` took too long.
    pub(super) fn finally_over(&self) -> bool {
        self.left(self.timeouts.finally, self.finally_start) == Some(Duration::ZERO)
    }

    /// How long until the next timeout.
    pub(super) fn next(&self) -> Option<Duration> {
        [
            self.left(Some(self.timeouts.pipeline), self.start),
            self.left(self.timeouts.tasks, self.start),
            self.left(self.timeouts.finally, self.finally_start),
        ]
        .into_iter()
        .flatten()
        .filter(|left| !left.is_zero())
        .min()
    }

    fn left(&self, timeout: Option<GoDuration>, since: Option<Timestamp>) -> Option<Duration> {
        let timeout = timeout.filter(|timeout| !timeout.is_zero())?;
        let elapsed = Duration::try_from(self.now.duration_since(since?)).unwrap_or_default();
        Some(timeout.as_std().saturating_add(TIME_PRECISION).saturating_sub(elapsed))
    }
}

/// A child that may have to be cancelled: its name, and itself if it was seen.
pub(super) type Candidate<'a> = (&'a str, Option<&'a TaskRun>);

/// The children of these tasks, those that were recorded but not seen included: they may be running all the
/// same.
pub(super) fn candidates<'n>(
    nodes: impl Iterator<Item = &'n Node<'n>>,
) -> impl Iterator<Item = Candidate<'n>> {
    let runs = nodes.flat_map(|node| &node.runs).filter(|run| run.exists());
    runs.map(|run| (run.name.as_str(), run.child))
}

/// The patches that cancel the ones among these that still run, and what the API server said against earlier
/// patches.
pub(super) fn cancel<'c>(
    run: &PipelineRun,
    children: impl Iterator<Item = Candidate<'c>>,
    refusals: &[Refusal],
    message: &str,
) -> (Vec<Write>, Vec<String>) {
    let mut writes = Vec::new();
    let mut errors = Vec::new();
    let namespace = run.metadata.namespace.clone().unwrap_or_default();
    for (name, child) in children {
        let done = child
            .and_then(|child| child.status.as_ref())
            .is_some_and(|status| conditions::is_done(&status.conditions));
        let asked = child.is_some_and(|child| child.spec.status == taskrun_spec_status::CANCELLED);
        if done || asked {
            continue;
        }
        match Refusal::of(refusals, Resource::TaskRun, name) {
            Some(refusal) => errors.push(refusal.message.clone()),
            None => writes.push(Write::Patch {
                target: Target {
                    resource: Resource::TaskRun,
                    namespace: namespace.clone(),
                    name: name.to_owned(),
                },
                subresource: None,
                patch: json!({
                    "spec": {"status": taskrun_spec_status::CANCELLED, "statusMessage": message}
                }),
            }),
        }
    }
    (writes, errors)
}
