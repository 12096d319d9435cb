//! What is known about each pipeline task: its text, its children, and what became of them. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use ropewalk_api::references::{self, ResultRef};
use ropewalk_api::{
    PipelineRun, PipelineSpec, PipelineTask, TaskRun, TaskSpec, conditions, taskrun_spec_status,
};

use super::lifecycle::TIMED_OUT_MESSAGE;
use super::matrix::{self, MatrixError};
use super::results::{self, Unresolved};
use super::runs::{Finder, Run};
use super::substitute::in_pipeline_task;
use crate::dag::Dag;
use crate::substitution::Replacements;

/// What became of a pipeline task's children.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    /// There are none.
    NotStarted,
    /// Not all are done.
    Running,
    /// They succeeded.
    Succeeded,
    /// One failed, or the run's own timeouts cancelled it.
    Failed,
    /// One failed and the pipeline task says `continue`.
    Ignored,
    /// Somebody cancelled one.
    Cancelled,
}

impl Outcome {
    /// The children are done, well or badly.
    pub(super) fn is_done(self) -> bool {
        !matches!(self, Self::NotStarted | Self::Running)
    }
}

/// Where in a pipeline task a reference stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// In `params`.
    Params,
    /// In `matrix`.
    Matrix,
    /// In `when`.
    When,
    /// In a step or sidecar of an embedded Task.
    Embedded,
}

/// One pipeline task.
#[derive(Debug)]
pub(super) struct Node<'a> {
    /// Substituted as far as possible.
    pub(super) task: PipelineTask,
    /// It belongs to `finally`.
    pub(super) finally: bool,
    /// Its children: one, or one per combination of its matrix. While the matrix is not known, those there
    /// are.
    pub(super) runs: Vec<Run<'a>>,
    /// Why its matrix has no combinations.
    pub(super) matrix_error: Option<MatrixError>,
    /// What became of the children.
    pub(super) outcome: Outcome,
    /// The references its text held before results were filled in.
    pub(super) references: Vec<(Place, ResultRef)>,
    /// Those without a value; while there is one, no reference of the task is filled in.
    pub(super) unresolved: Vec<Unresolved>,
    /// The results to fill into an embedded Task.
    pub(super) results: Replacements,
    /// The Task, when a child may have to be made from it.
    pub(super) task_spec: Option<Arc<TaskSpec>>,
}

impl<'a> Node<'a> {
    fn new(finder: &Finder<'a>, task: &PipelineTask, finally: bool) -> Self {
        let runs = match matrix::of(task) {
            Some(_) => finder.existing(task),
            None => vec![finder.only(task)],
        };
        Self {
            outcome: outcome(task, &runs),
            task: task.clone(),
            finally,
            runs,
            matrix_error: None,
            references: in_task(task),
            unresolved: Vec::new(),
            results: Replacements::new(),
            task_spec: None,
        }
    }

    /// The children that were seen.
    pub(super) fn children(&self) -> impl Iterator<Item = &'a TaskRun> + '_ {
        self.runs.iter().filter_map(|run| run.child)
    }

    /// A child was made at some time.
    pub(super) fn has_started(&self) -> bool {
        self.runs.iter().any(Run::exists)
    }

    /// All its children were made, and seen.
    pub(super) fn is_complete(&self) -> bool {
        !self.runs.is_empty() && self.runs.iter().all(|run| run.child.is_some())
    }

    /// Its matrix is known, and has no combination.
    pub(super) fn has_empty_matrix(&self) -> bool {
        self.runs.is_empty() && self.unresolved.is_empty() && self.matrix_error.is_none()
    }
}

/// The references that make edges, and where they stand.
fn in_task(task: &PipelineTask) -> Vec<(Place, ResultRef)> {
    [
        (Place::Params, references::in_params(&task.params)),
        (Place::Matrix, references::in_matrix(task)),
        (Place::When, references::in_when(&task.when)),
        (Place::Embedded, references::in_embedded_task(task)),
    ]
    .into_iter()
    .flat_map(|(place, found)| found.into_iter().map(move |reference| (place, reference)))
    .collect()
}

/// A run's pipeline tasks: the graph's first, then those of `finally`, in spec order.
pub(super) struct Facts<'a> {
    /// The run.
    pub(super) run: &'a PipelineRun,
    /// The tasks.
    pub(super) nodes: Vec<Node<'a>>,
    /// The graph over the first of them.
    pub(super) dag: Dag,
    positions: BTreeMap<String, usize>,
    finder: Finder<'a>,
    max_combinations: usize,
}

impl<'a> Facts<'a> {
    /// Matches tasks with children and fills in the results of finished ones. A matrix makes at most
    /// `max_combinations` children.
    pub(super) fn new(
        run: &'a PipelineRun,
        spec: &PipelineSpec,
        dag: Dag,
        children: &'a [Arc<TaskRun>],
        max_combinations: usize,
    ) -> Self {
        let finder = Finder::new(run, children);
        let graph = spec.tasks.iter().map(|task| Node::new(&finder, task, false));
        let nodes: Vec<Node<'a>> =
            graph.chain(spec.finally.iter().map(|task| Node::new(&finder, task, true))).collect();
        let positions =
            nodes.iter().enumerate().map(|(position, node)| (node.task.name.clone(), position)).collect();
        let mut facts = Self { run, nodes, dag, positions, finder, max_combinations };
        // In the graph's order: what a matrix fans out to may come from a result, and is a result for the
        // next.
        for position in facts.dag.order().to_vec() {
            facts.fill_in_results(position);
        }
        facts
    }

    /// The task of this name.
    pub(super) fn named(&self, name: &str) -> Option<&Node<'a>> {
        self.positions.get(name).map(|position| &self.nodes[*position])
    }

    /// No child was seen yet.
    pub(super) fn is_before_first_child(&self) -> bool {
        self.nodes.iter().all(|node| node.children().next().is_none())
    }

    /// Replaces the variables only `finally` tasks know, then their results. Only once the graph is done.
    pub(super) fn fill_in_finally(&mut self, set: &Replacements) {
        for position in 0..self.nodes.len() {
            if self.nodes[position].finally {
                in_pipeline_task(set, &mut self.nodes[position].task);
                self.fill_in_results(position);
            }
        }
    }

    fn fill_in_results(&mut self, position: usize) {
        let (unresolved, set) = results::for_task(self, &self.nodes[position]);
        let node = &mut self.nodes[position];
        node.unresolved = unresolved;
        if !node.unresolved.is_empty() {
            return;
        }
        in_pipeline_task(&set, &mut node.task);
        node.results = set;
        let Some(matrix) = matrix::of(&node.task) else { return };
        match matrix::combinations(&node.task.name, matrix, self.max_combinations) {
            Ok(combinations) => node.runs = self.finder.fan_out(&node.task, combinations),
            Err(error) => node.matrix_error = Some(error),
        }
        node.outcome = outcome(&node.task, &node.runs);
    }
}

/// One that was cancelled counts before one that failed, and both only once all are done.
fn outcome(task: &PipelineTask, runs: &[Run<'_>]) -> Outcome {
    if !runs.iter().any(|run| run.child.is_some()) {
        return Outcome::NotStarted;
    }
    let mut all = Outcome::Succeeded;
    for run in runs {
        let Some(child) = run.child else { return Outcome::Running };
        match (all, of_child(task, child)) {
            (_, Outcome::Running) => return Outcome::Running,
            (_, Outcome::Cancelled) => all = Outcome::Cancelled,
            (Outcome::Succeeded | Outcome::Ignored, worse) if worse != Outcome::Succeeded => all = worse,
            _ => {}
        }
    }
    all
}

fn of_child(task: &PipelineTask, child: &TaskRun) -> Outcome {
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
