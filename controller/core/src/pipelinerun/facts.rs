//! What is known about each pipeline task: its text, its child, and what became of it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use ropewalk_api::{
    PipelineRun, PipelineSpec, PipelineTask, TaskRun, TaskSpec, conditions, labels, names,
    taskrun_spec_status,
};

use super::lifecycle::TIMED_OUT_MESSAGE;
use super::results::{self, Unresolved};
use super::substitute::in_pipeline_task;
use crate::dag::{self, Dag, Place, ResultReference};
use crate::substitution::Replacements;

/// What became of a pipeline task's child.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// There is none.
    NotStarted,
    /// It is not done.
    Running,
    /// It succeeded.
    Succeeded,
    /// It failed, or the run's own timeouts cancelled it.
    Failed,
    /// It failed and its pipeline task says `continue`.
    Ignored,
    /// Somebody cancelled it.
    Cancelled,
}

impl Outcome {
    /// The child is done, well or badly.
    pub(super) fn is_done(self) -> bool {
        !matches!(self, Self::NotStarted | Self::Running)
    }
}

/// One pipeline task.
#[derive(Debug)]
pub(super) struct Node<'a> {
    /// Substituted as far as possible.
    pub(super) task: PipelineTask,
    /// It belongs to `finally`.
    pub(super) finally: bool,
    /// Its child's name, there already or to be made.
    pub(super) child_name: String,
    /// Its child.
    pub(super) child: Option<&'a TaskRun>,
    /// The run's status lists a child that was not seen: a cache that lags behind, or somebody deleted it.
    /// It is made again under its name, which is nothing new where it exists, and never counts as
    /// skipped.
    pub(super) recorded: bool,
    /// What became of the child.
    pub(super) outcome: Outcome,
    /// The references its text held before results were filled in.
    pub(super) references: Vec<(Place, ResultReference)>,
    /// Those without a value; while there is one, no reference of the task is filled in.
    pub(super) unresolved: Vec<Unresolved>,
    /// The results to fill into an embedded Task.
    pub(super) results: Replacements,
    /// The Task, when a child may have to be made from it.
    pub(super) task_spec: Option<Arc<TaskSpec>>,
}

/// A run's pipeline tasks: the graph's first, then those of `finally`, in spec order.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// The run.
    pub(super) run: &'a PipelineRun,
    /// The tasks.
    pub(super) nodes: Vec<Node<'a>>,
    /// The graph over the first of them.
    pub(super) dag: Dag,
    positions: BTreeMap<String, usize>,
}

impl<'a> Facts<'a> {
    /// Matches tasks with children and fills in the results of finished ones.
    pub(super) fn new(
        run: &'a PipelineRun,
        spec: &PipelineSpec,
        dag: Dag,
        children: &'a [Arc<TaskRun>],
    ) -> Self {
        let finder = Children::new(run, children);
        let graph = spec.tasks.iter().map(|task| (task, false));
        let nodes: Vec<Node<'a>> = graph
            .chain(spec.finally.iter().map(|task| (task, true)))
            .map(|(task, finally)| {
                let (child_name, child) = finder.find(&task.name);
                Node {
                    recorded: finder.recorded.contains_key(task.name.as_str()),
                    task: task.clone(),
                    finally,
                    child_name,
                    child,
                    outcome: outcome(task, child),
                    references: dag::in_task(task),
                    unresolved: Vec::new(),
                    results: Replacements::new(),
                    task_spec: None,
                }
            })
            .collect();
        let positions =
            nodes.iter().enumerate().map(|(position, node)| (node.task.name.clone(), position)).collect();
        let mut facts = Self { run, nodes, dag, positions };
        facts.fill_in_results(false);
        facts
    }

    /// The task of this name.
    pub(super) fn named(&self, name: &str) -> Option<&Node<'a>> {
        self.positions.get(name).map(|position| &self.nodes[*position])
    }

    /// No child was made yet.
    pub(super) fn is_before_first_child(&self) -> bool {
        self.nodes.iter().all(|node| node.child.is_none())
    }

    /// Replaces the variables only `finally` tasks know, then their results. Only once the graph is done.
    pub(super) fn fill_in_finally(&mut self, set: &Replacements) {
        for node in self.nodes.iter_mut().filter(|node| node.finally) {
            in_pipeline_task(set, &mut node.task);
        }
        self.fill_in_results(true);
    }

    fn fill_in_results(&mut self, finally: bool) {
        for position in 0..self.nodes.len() {
            if self.nodes[position].finally != finally {
                continue;
            }
            let (unresolved, set) = results::for_task(self, &self.nodes[position]);
            let node = &mut self.nodes[position];
            if unresolved.is_empty() {
                in_pipeline_task(&set, &mut node.task);
                node.results = set;
            }
            node.unresolved = unresolved;
        }
    }
}

fn outcome(task: &PipelineTask, child: Option<&TaskRun>) -> Outcome {
    let Some(child) = child else {
        return Outcome::NotStarted;
    };
    let succeeded = child
        .status
        .as_ref()
        .and_then(|status| conditions::find(&status.conditions, conditions::SUCCEEDED))
        .map(|condition| (condition.status.as_str(), condition.reason.as_str()));
    match succeeded {
        Some(("True", _)) => Outcome::Succeeded,
        Some(("False", taskrun_spec_status::CANCELLED)) => {
            if child.spec.status_message == TIMED_OUT_MESSAGE {
                Outcome::Failed
            } else {
                Outcome::Cancelled
            }
        }
        Some(("False", _)) if task.ignores_failure() => Outcome::Ignored,
        Some(("False", _)) => Outcome::Failed,
        _ => Outcome::Running,
    }
}

/// Finds a pipeline task's child by the run's status, by its derived name, or by its label: the status may
/// have been lost between making the child and writing it down.
struct Children<'a> {
    run_name: String,
    by_name: BTreeMap<&'a str, &'a TaskRun>,
    by_label: BTreeMap<&'a str, &'a TaskRun>,
    recorded: BTreeMap<&'a str, &'a str>,
}

impl<'a> Children<'a> {
    fn new(run: &'a PipelineRun, children: &'a [Arc<TaskRun>]) -> Self {
        let named = children.iter().filter_map(|child| Some((child.metadata.name.as_deref()?, &**child)));
        let labelled = children.iter().filter_map(|child| {
            Some((child.metadata.labels.as_ref()?.get(labels::PIPELINE_TASK)?.as_str(), &**child))
        });
        let references = run.status.iter().flat_map(|status| &status.child_references);
        Self {
            run_name: run.metadata.name.clone().unwrap_or_default(),
            by_name: named.collect(),
            by_label: labelled.collect(),
            recorded: references
                .map(|child| (child.pipeline_task_name.as_str(), child.name.as_str()))
                .collect(),
        }
    }

    fn find(&self, task: &str) -> (String, Option<&'a TaskRun>) {
        let derived = names::child_name(&self.run_name, &format!("-{task}"));
        let name = self.recorded.get(task).map_or(derived, |name| (*name).to_owned());
        let child = self.by_name.get(name.as_str()).or_else(|| self.by_label.get(task)).copied();
        let found = child.and_then(|child| child.metadata.name.clone());
        (found.unwrap_or(name), child)
    }
}
