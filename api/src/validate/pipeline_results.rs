//! The results a Pipeline declares: expressions over results of its tasks (contract 2.3).

use std::collections::BTreeSet;

use super::{FieldError, FieldErrors};
use crate::references::{self, ResultRef, Section};
use crate::{ParamType, ParamValue, PipelineSpec, PipelineTask, variables};

/// Paths from the Pipeline's spec on.
pub(super) fn validate(spec: &PipelineSpec) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let names = |tasks: &'_ [PipelineTask]| tasks.iter().map(|task| task.name.clone()).collect();
    let known = Known { tasks: names(&spec.tasks), finally: names(&spec.finally) };
    for (index, result) in spec.results.iter().enumerate() {
        if let Some(text) = problem(&result.value, &known) {
            errors.push(FieldError::invalid(text, &format!("results[{index}].value")));
        }
    }
    errors
}

fn problem(value: &ParamValue, known: &Known) -> Option<String> {
    let expressions: Vec<&str> = references::texts(value)
        .flat_map(variables::variables)
        .filter(|variable| variable.path().is_some_and(|reference| !reference.quoted))
        .map(|variable| variable.key)
        .collect();
    if expressions.is_empty() {
        return Some(
            "expected pipeline results to be task result expressions but no expressions were found"
                .to_owned(),
        );
    }
    let found = references::in_value(value);
    if found.is_empty() {
        return Some(
            "expected pipeline results to be task result expressions but an invalid expressions was found"
                .to_owned(),
        );
    }
    if found.len() != expressions.len() {
        let keys: Vec<&str> = found.iter().map(ResultRef::key).collect();
        return Some(format!(
            "expected all of the expressions [{}] to be result expressions but only [{}] were",
            expressions.join(" "),
            keys.join(" ")
        ));
    }
    // Upstream looks for the tasks of string results only.
    let unknown = value.kind() == ParamType::String && !found.iter().all(|reference| known.has(reference));
    unknown.then(|| "referencing a nonexistent task".to_owned())
}

/// The names of the pipeline tasks.
struct Known {
    tasks: BTreeSet<String>,
    finally: BTreeSet<String>,
}

impl Known {
    fn has(&self, reference: &ResultRef) -> bool {
        let names = match reference.section {
            Section::Tasks => &self.tasks,
            Section::Finally => &self.finally,
        };
        names.contains(&reference.pipeline_task)
    }
}
