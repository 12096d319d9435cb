//! Which TaskRuns a pipeline task has, and which it should have. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use ropewalk_api::{ChildStatusReference, PipelineRun, PipelineTask, TaskRun, labels, names};

use super::matrix::Combination;

/// One child of a pipeline task, there already or to be made.
#[derive(Clone, Debug)]
pub(super) struct Run<'a> {
    /// Its name.
    pub(super) name: String,
    /// Itself, if it was seen.
    pub(super) child: Option<&'a TaskRun>,
    /// The run's status lists a child that was not seen: a cache that lags behind, or somebody deleted it.
    /// It is made again under its name, which is nothing new where it exists, and never counts as
    /// skipped.
    pub(super) recorded: bool,
    /// What it has from a matrix.
    pub(super) combination: Combination,
}

impl Run<'_> {
    /// It was made at some time.
    pub(super) fn exists(&self) -> bool {
        self.child.is_some() || self.recorded
    }
}

/// Finds children by the run's status, by their derived names, or by their labels: the status may have been
/// lost between making a child and writing it down.
pub(super) struct Finder<'a> {
    run_name: String,
    by_name: BTreeMap<&'a str, &'a TaskRun>,
    by_label: BTreeMap<&'a str, Vec<&'a TaskRun>>,
    recorded: BTreeMap<&'a str, Vec<&'a ChildStatusReference>>,
}

impl<'a> Finder<'a> {
    /// Over the children of this run.
    pub(super) fn new(run: &'a PipelineRun, children: &'a [Arc<TaskRun>]) -> Self {
        let mut finder = Self {
            run_name: run.metadata.name.clone().unwrap_or_default(),
            by_name: BTreeMap::new(),
            by_label: BTreeMap::new(),
            recorded: BTreeMap::new(),
        };
        for child in children {
            finder.by_name.insert(child.metadata.name.as_deref().unwrap_or_default(), child);
            if let Some(task) = child.metadata.labels.as_ref().and_then(|map| map.get(labels::PIPELINE_TASK))
            {
                finder.by_label.entry(task).or_default().push(child);
            }
        }
        for reference in run.status.iter().flat_map(|status| &status.child_references) {
            finder.recorded.entry(&reference.pipeline_task_name).or_default().push(reference);
        }
        finder
    }

    /// The one child of a task without matrix.
    pub(super) fn only(&self, task: &PipelineTask) -> Run<'a> {
        let recorded = self.recorded.get(task.name.as_str()).and_then(|references| references.first());
        let name = recorded.map_or_else(
            || names::child_name(&self.run_name, &format!("-{}", task.name)),
            |reference| reference.name.clone(),
        );
        let labelled = || self.by_label.get(task.name.as_str()).and_then(|children| children.first());
        let child = self.by_name.get(name.as_str()).or_else(labelled).copied();
        let found = child.and_then(|child| child.metadata.name.clone());
        Run {
            name: found.unwrap_or(name),
            child,
            recorded: child.is_none() && recorded.is_some(),
            combination: Combination::default(),
        }
    }

    /// The children a matrix has, while it is not known which it should have.
    pub(super) fn existing(&self, task: &PipelineTask) -> Vec<Run<'a>> {
        let labelled = self.by_label.get(task.name.as_str()).into_iter().flatten();
        let mut runs: BTreeMap<&str, Option<&'a TaskRun>> = labelled
            .map(|child| (child.metadata.name.as_deref().unwrap_or_default(), Some(*child)))
            .collect();
        for reference in self.recorded.get(task.name.as_str()).into_iter().flatten() {
            runs.entry(&reference.name).or_insert_with(|| self.by_name.get(reference.name.as_str()).copied());
        }
        let run = |(name, child): (&str, Option<&'a TaskRun>)| Run {
            name: name.to_owned(),
            child,
            recorded: child.is_none(),
            combination: Combination::default(),
        };
        runs.into_iter().map(run).collect()
    }

    /// The children a matrix should have.
    pub(super) fn fan_out(&self, task: &PipelineTask, combinations: Vec<Combination>) -> Vec<Run<'a>> {
        let count = combinations.len();
        let references = self.recorded.get(task.name.as_str());
        let recorded = |name: &str| {
            references.is_some_and(|references| references.iter().any(|reference| reference.name == name))
        };
        let run = |(index, combination)| {
            let name = self.name(&task.name, index, count);
            let child = self.by_name.get(name.as_str()).copied();
            Run { recorded: child.is_none() && recorded(&name), name, child, combination }
        };
        combinations.into_iter().enumerate().map(run).collect()
    }

    /// Contract 7.1: one child has the plain name; an index that hashing would cut off is put back.
    fn name(&self, task: &str, index: usize, count: usize) -> String {
        let plain = names::child_name(&self.run_name, &format!("-{task}"));
        if count == 1 {
            return plain;
        }
        let suffix = format!("-{index}");
        let numbered = names::child_name(&self.run_name, &format!("-{task}{suffix}"));
        if numbered.ends_with(&suffix) {
            return numbered;
        }
        let room = names::MAX_NAME - format!("-{count}").len();
        let cut: String = plain.chars().take(room).collect();
        format!("{cut}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbered_names_stay_apart_however_long() {
        for run_name in ["run", &"r".repeat(40), &"r".repeat(63)] {
            let mut run = PipelineRun::default();
            run.metadata.name = Some(run_name.to_owned());
            let finder = Finder::new(&run, &[]);
            for task in ["t", &"t".repeat(30), &"t".repeat(63)] {
                let names: BTreeSet<String> = (0..12).map(|index| finder.name(task, index, 12)).collect();
                assert_eq!(names.len(), 12, "{run_name} {task}");
                for name in names {
                    assert!(name.len() <= 63 && name.contains('-'), "{name}");
                }
            }
        }
    }
}
