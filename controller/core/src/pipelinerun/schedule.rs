//! Which pipeline tasks start now, wait, are skipped, or cannot be (contract 7.1 and 12.3). Pure.

use super::facts::{Facts, Node, Outcome, Place};
use super::lifecycle::{Limits, Request};
use super::results::{self, Cause};
use super::skip::SkipReason;

/// What is to be done about a pipeline task.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// Nothing: it has its children.
    Started,
    /// Nothing yet: these are not done. None are named when it waits for the whole graph.
    Waiting(Vec<usize>),
    /// Make its children, those that are missing.
    Due,
    /// It will not be run.
    Skipped(SkipReason),
    /// It cannot be run, because a task it builds on did not write a result.
    Invalid(String),
}

impl Verdict {
    /// Nothing more will come of the task.
    pub(super) fn is_settled(&self, node: &Node<'_>) -> bool {
        match self {
            Self::Started => node.outcome.is_done(),
            Self::Skipped(_) | Self::Invalid(_) => true,
            Self::Waiting(_) | Self::Due => false,
        }
    }
}

/// Everything about the run, apart from its tasks, that decides what starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    /// What `spec.status` asks for.
    pub(super) request: Request,
    /// The timeouts.
    pub(super) limits: Limits,
}

/// The verdicts about the graph's tasks, by position.
pub(super) fn graph(facts: &Facts<'_>, circumstances: &Circumstances) -> Vec<Verdict> {
    let stopping = facts
        .nodes
        .iter()
        .filter(|node| !node.finally)
        .any(|node| matches!(node.outcome, Outcome::Failed | Outcome::Cancelled));
    let first = round(facts, circumstances, stopping, &[]);
    if !first.iter().any(|verdict| matches!(verdict, Verdict::Invalid(_))) {
        return first;
    }
    // A task that cannot be run stops the run, the other tasks that are due in the same moment included.
    round(facts, circumstances, true, &first)
}

/// One pass in the graph's order. Tasks that `before` found invalid stay so.
fn round(
    facts: &Facts<'_>,
    circumstances: &Circumstances,
    stopping: bool,
    before: &[Verdict],
) -> Vec<Verdict> {
    let mut verdicts = vec![Verdict::Due; facts.dag.order().len()];
    for &position in facts.dag.order() {
        verdicts[position] = match before.get(position) {
            Some(invalid @ Verdict::Invalid(_)) => invalid.clone(),
            _ => judge(facts, circumstances, stopping, position, &verdicts),
        };
    }
    verdicts
}

fn judge(
    facts: &Facts<'_>,
    circumstances: &Circumstances,
    stopping: bool,
    position: usize,
    verdicts: &[Verdict],
) -> Verdict {
    let node = &facts.nodes[position];
    if let Some(verdict) = with_child(node) {
        return verdict;
    }
    if stopping {
        return Verdict::Skipped(SkipReason::Stopping);
    }
    match circumstances.request {
        Request::CancelRunFinally => return Verdict::Skipped(SkipReason::GracefullyCancelled),
        Request::StopRunFinally => return Verdict::Skipped(SkipReason::GracefullyStopped),
        Request::Run => {}
    }
    // A parent that turns out invalid in this pass stops the run in the next one; until then its children
    // wait.
    let open: Vec<usize> = facts
        .dag
        .parents(position)
        .filter(|&parent| {
            matches!(verdicts[parent], Verdict::Invalid(_))
                || !verdicts[parent].is_settled(&facts.nodes[parent])
        })
        .collect();
    if open.is_empty() && !holds(node) {
        return Verdict::Skipped(SkipReason::When);
    }
    let cascades = |parent: usize| match verdicts[parent] {
        Verdict::Skipped(reason) => reason != SkipReason::When,
        _ => false,
    };
    if facts.dag.parents(position).any(cascades) {
        return Verdict::Skipped(SkipReason::Parent);
    }
    if !open.is_empty() {
        return Verdict::Waiting(open);
    }
    if let Some(verdict) = without_results(facts, node) {
        return verdict;
    }
    if circumstances.limits.pipeline_over() {
        return Verdict::Skipped(SkipReason::PipelineTimeout);
    }
    if circumstances.limits.tasks_over() {
        return Verdict::Skipped(SkipReason::TasksTimeout);
    }
    if node.has_empty_matrix() {
        return Verdict::Skipped(SkipReason::EmptyMatrix);
    }
    Verdict::Due
}

/// A task with a child is never skipped; what is missing of its children is made.
fn with_child(node: &Node<'_>) -> Option<Verdict> {
    match (node.has_started(), node.is_complete()) {
        (false, _) => None,
        (true, false) => Some(Verdict::Due),
        (true, true) => Some(Verdict::Started),
    }
}

fn holds(node: &Node<'_>) -> bool {
    node.task.when.iter().all(ropewalk_api::WhenExpression::evaluate)
}

/// The verdict about a task that lacks a result although all its parents are done.
fn without_results(facts: &Facts<'_>, node: &Node<'_>) -> Option<Verdict> {
    if node.unresolved.is_empty() {
        return None;
    }
    // A result whose task ran and did not write it is a mistake. One whose task was skipped is no mistake,
    // unless only an embedded Task asks for it (contract 7.1).
    let mistake = node.unresolved.iter().find(|unresolved| unresolved.cause != Cause::NotRun).or_else(|| {
        let excused = |place: Place| matches!(place, Place::Params | Place::When);
        let none_excused = !node.unresolved.iter().any(|unresolved| excused(unresolved.place));
        node.unresolved.first().filter(|_| none_excused)
    });
    Some(match mistake {
        Some(unresolved) if !node.task.ignores_failure() => {
            Verdict::Invalid(results::complaint(facts, &node.task.name, unresolved))
        }
        _ => Verdict::Skipped(SkipReason::MissingResults),
    })
}

/// The verdicts about the tasks of `finally`, in spec order, given those about the graph.
pub(super) fn finally(facts: &Facts<'_>, circumstances: &Circumstances, graph_done: bool) -> Vec<Verdict> {
    let nodes = facts.nodes.iter().filter(|node| node.finally);
    nodes
        .map(|node| {
            if let Some(verdict) = with_child(node) {
                verdict
            } else if !graph_done {
                Verdict::Waiting(Vec::new())
            } else if !node.unresolved.is_empty() {
                Verdict::Skipped(SkipReason::MissingResults)
            } else if !holds(node) {
                Verdict::Skipped(SkipReason::When)
            } else if circumstances.limits.pipeline_over() {
                Verdict::Skipped(SkipReason::PipelineTimeout)
            } else if circumstances.limits.finally_over() {
                Verdict::Skipped(SkipReason::FinallyTimeout)
            } else if node.has_empty_matrix() {
                Verdict::Skipped(SkipReason::EmptyMatrix)
            } else {
                Verdict::Due
            }
        })
        .collect()
}
