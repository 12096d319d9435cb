//! The status of a run while it is being worked out, and the condition it ends in (contract 7.6 and 12.10).
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use ropewalk_api::conditions::{self, ConditionStatus, SUCCEEDED};
use ropewalk_api::{ChildStatusReference, PipelineRunStatus, SkippedTask};

use super::Snapshot;
use super::children;
use super::facts::{Facts, Outcome};
use super::lifecycle::{Limits, Request};
use super::schedule::Verdict;
use super::skip::SkipReason;
use crate::plan::{Plan, Resource, Target, Write, status_patch};
use crate::{diagnosis, events, metrics};

/// How much of the reasons for failed validation fits into a message (contract 7.6), in bytes.
const MAX_COMPLAINTS: usize = 1024;

/// A plan in the making.
pub(super) struct Draft<'a> {
    snapshot: &'a Snapshot,
    /// The status as it shall be.
    pub(super) status: PipelineRunStatus,
    /// Everything but the status write.
    pub(super) plan: Plan,
}

impl<'a> Draft<'a> {
    /// Begins with the status as it is.
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        let mut status = snapshot.run.status.clone().unwrap_or_default();
        status.observed_generation = snapshot.run.metadata.generation;
        Self { snapshot, status, plan: Plan::default() }
    }

    /// The moment of the decision.
    pub(super) fn now(&self) -> Time {
        Time(self.snapshot.now)
    }

    /// Sets the condition of a run that goes on.
    pub(super) fn go_on(&mut self, reason: &str, message: &str) {
        let now = self.now();
        let conditions = &mut self.status.conditions;
        conditions::set(conditions, SUCCEEDED, ConditionStatus::Unknown, reason, message, &now);
    }

    /// Sets the condition of a run that has ended.
    pub(super) fn end(&mut self, succeeded: bool, reason: &str, message: &str) {
        let now = self.now();
        let status = if succeeded { ConditionStatus::True } else { ConditionStatus::False };
        conditions::set(&mut self.status.conditions, SUCCEEDED, status, reason, message, &now);
        self.status.completion_time = Some(now);
        self.plan.requeue = None;
        self.plan.report.clear();
        self.diagnose_failure(None);
    }

    /// Says what a run that goes on waits for, or that it waits for nothing.
    pub(super) fn diagnose(&mut self, text: Option<&str>) {
        let now = self.now();
        if let Some(until) = diagnosis::follow(&mut self.status.conditions, text, &now) {
            let left = Duration::try_from(until.duration_since(now.0)).unwrap_or_default();
            self.plan.requeue = Some(self.plan.requeue.map_or(left, |requeue| requeue.min(left)));
        }
    }

    /// Says what kept a run that has failed from going on, beside its condition.
    pub(super) fn diagnose_failure(&mut self, text: Option<&str>) {
        let now = self.now();
        diagnosis::set(&mut self.status.conditions, ConditionStatus::False, text, &now);
    }

    /// The plan, with the status write if anything in it changed.
    pub(super) fn finish(mut self) -> Plan {
        let run = &self.snapshot.run;
        let target = Target {
            resource: Resource::PipelineRun,
            namespace: run.metadata.namespace.clone().unwrap_or_default(),
            name: run.metadata.name.clone().unwrap_or_default(),
        };
        let before = run.status.as_ref().map(serde_json::to_value).transpose();
        let before = before.ok().flatten().unwrap_or_else(|| serde_json::json!({}));
        if let Ok(after) = serde_json::to_value(&self.status) {
            let version = run.metadata.resource_version.as_deref();
            self.plan.status = status_patch(target, version, &before, &after);
            let conditions = run.status.as_ref().map(|status| status.conditions.as_slice());
            self.plan.events = events::of(conditions.unwrap_or_default(), &self.status.conditions);
            let observability = &self.snapshot.config.observability;
            self.plan.measures = metrics::pipelinerun(run, &self.status, observability);
        }
        self.plan
    }

    /// Adds writes.
    pub(super) fn write(&mut self, writes: impl IntoIterator<Item = Write>) {
        self.plan.writes.extend(writes);
    }
}

/// `skippedTasks`, in spec order. `finally` tasks list their when expressions only when those are the reason.
pub(super) fn skipped_tasks(facts: &Facts<'_>, verdicts: &[Verdict]) -> Vec<SkippedTask> {
    facts
        .nodes
        .iter()
        .zip(verdicts)
        .filter_map(|(node, verdict)| match verdict {
            Verdict::Skipped(reason) => Some((node, *reason)),
            _ => None,
        })
        .map(|(node, reason)| SkippedTask {
            name: node.task.name.clone(),
            reason: reason.as_str().to_owned(),
            when_expressions: if !node.finally || reason == SkipReason::When {
                node.task.when.clone()
            } else {
                Vec::new()
            },
        })
        .collect()
}

/// `childReferences` in spec order: those there, and those of `born`, the names of children made just now. An
/// entry once written is kept.
pub(super) fn child_references(
    facts: &Facts<'_>,
    written: &[ChildStatusReference],
    born: &BTreeSet<String>,
) -> Vec<ChildStatusReference> {
    let (api_version, kind, _) = Resource::TaskRun.names();
    let written: BTreeMap<&str, &ChildStatusReference> =
        written.iter().map(|reference| (reference.name.as_str(), reference)).collect();
    let mut references = Vec::new();
    for node in &facts.nodes {
        for run in &node.runs {
            if let Some(reference) = written.get(run.name.as_str()) {
                references.push((*reference).clone());
            } else if run.exists() || born.contains(&run.name) {
                references.push(ChildStatusReference {
                    api_version: api_version.to_owned(),
                    kind: kind.to_owned(),
                    name: run.name.clone(),
                    display_name: children::display_name(node, run),
                    pipeline_task_name: node.task.name.clone(),
                    when_expressions: node.task.when.clone(),
                });
            }
        }
    }
    references
}

/// How many pipeline tasks are in which state.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Counts {
    succeeded: usize,
    failed: usize,
    ignored: usize,
    cancelled: usize,
    skipped: usize,
    incomplete: usize,
    timed_out_skips: usize,
    complaints: Vec<String>,
    open_finally: usize,
}

impl Counts {
    /// Of these tasks under these verdicts.
    pub(super) fn new(facts: &Facts<'_>, verdicts: &[Verdict]) -> Self {
        let mut counts = Self::default();
        for (node, verdict) in facts.nodes.iter().zip(verdicts) {
            if node.finally && !verdict.is_settled(node) {
                counts.open_finally += 1;
            }
            match (verdict, node.outcome) {
                (Verdict::Skipped(reason), _) => {
                    counts.skipped += 1;
                    counts.timed_out_skips += usize::from(reason.is_timeout());
                }
                (Verdict::Invalid(complaint), _) => counts.complaints.push(complaint.clone()),
                (_, Outcome::NotStarted | Outcome::Running) => counts.incomplete += 1,
                (_, Outcome::Succeeded) => counts.succeeded += 1,
                (_, Outcome::Failed) => counts.failed += 1,
                (_, Outcome::Ignored) => counts.ignored += 1,
                (_, Outcome::Cancelled) => counts.cancelled += 1,
            }
        }
        counts
    }

    /// Nothing is left to do.
    pub(super) fn is_complete(&self) -> bool {
        self.incomplete == 0
    }

    fn completed(&self) -> usize {
        self.succeeded + self.failed + self.cancelled + self.ignored
    }

    fn progress(&self) -> String {
        format!(
            "Tasks Completed: {} (Failed: {}, Cancelled {}), Incomplete: {}, Skipped: {}",
            self.completed(),
            self.failed,
            self.cancelled,
            self.incomplete,
            self.skipped
        )
    }

    fn summary(&self) -> String {
        let ignored = if self.ignored > 0 { format!(" (Ignored: {})", self.ignored) } else { String::new() };
        let text = format!(
            "Tasks Completed: {} (Failed: {}{ignored}, Cancelled {}), Skipped: {}",
            self.completed(),
            self.failed + self.ignored,
            self.cancelled,
            self.skipped
        );
        if !self.complaints.is_empty() {
            let mut complaints = self.complaints.join("; ");
            if complaints.len() > MAX_COMPLAINTS {
                complaints.truncate(complaints.floor_char_boundary(MAX_COMPLAINTS));
                complaints.push_str("...");
            }
            return format!("{text}, Failed Validation: {} ({complaints})", self.complaints.len());
        }
        text
    }
}

/// What a run's condition becomes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Ending {
    /// It goes on: reason and message.
    Open(&'static str, String),
    /// It has ended: whether well, reason and message.
    Closed(bool, &'static str, String),
}

/// Decides the condition (contract 7.6, final decision order).
pub(super) fn ending(run_name: &str, counts: &Counts, limits: &Limits, request: Request) -> Ending {
    let closed = |reason, message| Ending::Closed(false, reason, message);
    if limits.pipeline_over() {
        let limit = limits.timeouts.pipeline;
        return closed(
            "PipelineRunTimeout",
            format!("PipelineRun \"{run_name}\" failed to finish within \"{limit}\""),
        );
    }
    let tasks_limit = limits.timeouts.tasks.filter(|_| limits.tasks_over());
    if let Some(limit) = tasks_limit
        && counts.open_finally == 0
    {
        return closed(
            "PipelineRunTimeout",
            format!("PipelineRun \"{run_name}\" failed due to tasks failed to finish within \"{limit}\""),
        );
    }
    if !counts.is_complete() {
        let reason = match request {
            _ if tasks_limit.is_some() => "PipelineRunTimeoutRunningFinally",
            Request::CancelRunFinally => "CancelledRunningFinally",
            Request::StopRunFinally => "StoppedRunningFinally",
            Request::Run if counts.cancelled > 0 || (counts.failed > 0 && counts.open_finally == 0) => {
                "PipelineRunStopping"
            }
            Request::Run => "Running",
        };
        return Ending::Open(reason, counts.progress());
    }
    if !counts.complaints.is_empty() {
        return closed("PipelineValidationFailed", counts.summary());
    }
    if counts.failed > 0 || counts.timed_out_skips > 0 {
        return closed("Failed", counts.summary());
    }
    if request != Request::Run {
        return closed("Cancelled", cancelled_message(run_name));
    }
    if counts.cancelled > 0 {
        return closed("Cancelled", counts.summary());
    }
    let reason = if counts.skipped > 0 { "Completed" } else { "Succeeded" };
    Ending::Closed(true, reason, counts.summary())
}

/// The message of a cancelled run.
pub(super) fn cancelled_message(run_name: &str) -> String {
    format!("PipelineRun \"{run_name}\" was cancelled")
}
