//! The graph of a Pipeline's tasks: who waits for whom (contract 7.1). Pure.
//!
//! Tasks are known by their position in the spec, and every order this module gives breaks ties by that
//! position.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use ropewalk_api::{PipelineTask, references};

/// Why the tasks of a Pipeline are no graph. The texts are those of contract 2.3, the cycle's path added.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DagError {
    /// Tasks wait for each other.
    #[error("cycle detected; {}", describe(path))]
    Cycle {
        /// Each depends on the next; the last is the first again.
        path: Vec<String>,
    },
    /// A task waits for one that is not there.
    #[error(
        "couldn't add link between {task} and {dependency}: task {task} depends on {dependency} but \
         {dependency} wasn't present in Pipeline"
    )]
    UnknownDependency {
        /// The one that waits.
        task: String,
        /// The one it waits for.
        dependency: String,
    },
    /// Two tasks have one name.
    #[error("duplicate pipeline task \"{name}\"")]
    DuplicateTask {
        /// The name.
        name: String,
    },
}

fn describe(path: &[String]) -> String {
    let first = match path {
        [task, dependency, ..] => format!("task \"{task}\" depends on \"{dependency}\""),
        _ => String::new(),
    };
    if path.len() <= 3 {
        return first;
    }
    let whole = path.iter().map(|task| format!("\"{task}\"")).collect::<Vec<_>>().join(" -> ");
    format!("{first} ({whole})")
}

/// A graph without cycles.
#[derive(Clone, Debug)]
pub struct Dag {
    /// Node `i` is task `i`; edges lead from a task to those that wait for it.
    graph: DiGraph<(), ()>,
    order: Vec<usize>,
}

impl Dag {
    /// The graph of `tasks`: `runAfter`, and the dotted references to results of other tasks.
    pub fn new(tasks: &[PipelineTask]) -> Result<Self, DagError> {
        let mut positions = BTreeMap::new();
        for (position, task) in tasks.iter().enumerate() {
            if positions.insert(task.name.as_str(), position).is_some() {
                return Err(DagError::DuplicateTask { name: task.name.clone() });
            }
        }
        let mut graph = DiGraph::with_capacity(tasks.len(), tasks.len());
        for _ in tasks {
            graph.add_node(());
        }
        for (position, task) in tasks.iter().enumerate() {
            let mut parents = BTreeSet::new();
            for dependency in references::dependencies(task) {
                let parent = positions.get(dependency.as_str()).ok_or_else(|| {
                    DagError::UnknownDependency { task: task.name.clone(), dependency: dependency.clone() }
                })?;
                parents.insert(*parent);
            }
            for parent in parents {
                graph.add_edge(NodeIndex::new(parent), NodeIndex::new(position), ());
            }
        }
        match topological(&graph) {
            Ok(order) => Ok(Self { graph, order }),
            Err(cycle) => Err(DagError::Cycle {
                path: cycle.into_iter().map(|position| tasks[position].name.clone()).collect(),
            }),
        }
    }

    /// All tasks, each after those it waits for.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The tasks this one waits for.
    pub fn parents(&self, task: usize) -> impl Iterator<Item = usize> + '_ {
        neighbours(&self.graph, task, Direction::Incoming)
    }

    /// The tasks that wait for this one.
    pub fn children(&self, task: usize) -> impl Iterator<Item = usize> + '_ {
        neighbours(&self.graph, task, Direction::Outgoing)
    }
}

/// In order of position: petgraph hands out edges newest first.
fn neighbours(
    graph: &DiGraph<(), ()>,
    task: usize,
    direction: Direction,
) -> impl Iterator<Item = usize> + '_ {
    let mut found: Vec<usize> =
        graph.neighbors_directed(NodeIndex::new(task), direction).map(NodeIndex::index).collect();
    found.sort_unstable();
    found.into_iter()
}

/// The order of the graph, or a cycle. Written here because petgraph's `toposort` neither breaks ties by
/// position nor tells a cycle's path, and its `tarjan_scc` recurses as deep as the graph.
fn topological(graph: &DiGraph<(), ()>) -> Result<Vec<usize>, Vec<usize>> {
    let mut waiting: Vec<usize> = graph
        .node_indices()
        .map(|node| graph.neighbors_directed(node, Direction::Incoming).count())
        .collect();
    let mut ready: BTreeSet<usize> =
        waiting.iter().enumerate().filter(|(_, parents)| **parents == 0).map(|(task, _)| task).collect();
    let mut order = Vec::with_capacity(waiting.len());
    while let Some(task) = ready.pop_first() {
        order.push(task);
        for child in graph.neighbors(NodeIndex::new(task)) {
            waiting[child.index()] -= 1;
            if waiting[child.index()] == 0 {
                ready.insert(child.index());
            }
        }
    }
    match waiting.iter().position(|parents| *parents > 0) {
        None => Ok(order),
        Some(stuck) => Err(cycle_from(graph, &waiting, stuck)),
    }
}

/// Walks from a task that never became ready to one it waits for, until a task comes up again.
fn cycle_from(graph: &DiGraph<(), ()>, waiting: &[usize], stuck: usize) -> Vec<usize> {
    let mut path = vec![stuck];
    let mut seen = BTreeMap::from([(stuck, 0)]);
    let mut at = stuck;
    while let Some(next) = neighbours(graph, at, Direction::Incoming).find(|parent| waiting[*parent] > 0) {
        if let Some(start) = seen.get(&next) {
            let mut cycle = path.split_off(*start);
            let first = cycle.iter().enumerate().min_by_key(|(_, task)| **task).map_or(0, |(at, _)| at);
            cycle.rotate_left(first);
            cycle.push(cycle[0]);
            return cycle;
        }
        seen.insert(next, path.len());
        path.push(next);
        at = next;
    }
    path
}
