//! What containers do: a table in place of programs. No IO.

use std::collections::BTreeMap;

/// One run of a step's command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct StepRun {
    /// How long it takes.
    pub(super) seconds: u32,
    /// How it ends.
    pub(super) exit_code: i32,
}

/// What every step of a world does. Steps that are not named take a second and succeed.
#[derive(Clone, Debug, Default)]
pub struct Script {
    steps: BTreeMap<(String, String), Vec<StepRun>>,
    results: BTreeMap<(String, String), String>,
}

impl Script {
    /// A step of a pipeline task, or of a TaskRun that stands alone: what its command does at each attempt, the last
    /// entry holding for all that follow.
    #[must_use]
    pub fn step(mut self, task: &str, step: &str, attempts: impl IntoIterator<Item = (u32, i32)>) -> Self {
        let attempts =
            attempts.into_iter().map(|(seconds, exit_code)| StepRun { seconds, exit_code }).collect();
        self.steps.insert((task.to_owned(), step.to_owned()), attempts);
        self
    }

    /// What a task writes as its result. Results that are not named hold their own name.
    #[must_use]
    pub fn result(mut self, task: &str, result: &str, value: &str) -> Self {
        self.results.insert((task.to_owned(), result.to_owned()), value.to_owned());
        self
    }

    /// What a step does at this attempt, counted from 0.
    pub(super) fn run(&self, task: &str, step: &str, attempt: usize) -> StepRun {
        self.steps
            .get(&(task.to_owned(), step.to_owned()))
            .and_then(|attempts| attempts.get(attempt).or(attempts.last()))
            .cloned()
            .unwrap_or(StepRun { seconds: 1, exit_code: 0 })
    }

    /// The content of a result file.
    pub(super) fn value(&self, task: &str, result: &str) -> String {
        let named = self.results.get(&(task.to_owned(), result.to_owned()));
        named.cloned().unwrap_or_else(|| result.to_owned())
    }
}
