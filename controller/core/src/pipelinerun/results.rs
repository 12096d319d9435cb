//! Results of tasks: filled into other tasks, and collected into the run's own (contract 4.3, 7.1 and 7.7).
//! Pure.

use std::borrow::Cow;

use ropewalk_api::references::{ResultRef, in_text, in_value, texts};
use ropewalk_api::variables::{self, Subscript};
use ropewalk_api::{ParamValue, PipelineResult, PipelineRunResult, TaskRun};

use super::facts::{Facts, Node, Outcome, Place};
use super::matrix;
use crate::substitution::Replacements;

/// A reference without a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Unresolved {
    /// Where it stands.
    pub(super) place: Place,
    /// Which.
    pub(super) reference: ResultRef,
    /// Why.
    pub(super) cause: Cause,
}

/// Why a reference has no value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Cause {
    /// Its task has not been run to an end.
    NotRun,
    /// Its task ran without writing it.
    NotEmitted,
    /// The array is shorter.
    OutOfBounds {
        /// Of the array.
        size: usize,
    },
    /// The object has no such key, or it is no object.
    NoKey,
}

/// What the references of a task resolve to, and those that do not. References in `displayName`,
/// `workspaces.subPath` and `taskRef` make no edge and hold nothing up.
pub(super) fn for_task(facts: &Facts<'_>, node: &Node<'_>) -> (Vec<Unresolved>, Replacements) {
    let mut set = Replacements::new();
    let mut unresolved = Vec::new();
    for (place, reference) in &node.references {
        match look_up(facts, reference) {
            Ok(value) => add(&mut set, reference, &value),
            Err(cause) => {
                unresolved.push(Unresolved { place: *place, reference: reference.clone(), cause });
            }
        }
    }
    let mut loose: Vec<ResultRef> = in_text(&node.task.display_name);
    loose.extend(node.task.workspaces.iter().flat_map(|workspace| in_text(&workspace.sub_path)));
    if let Some(task_ref) = &node.task.task_ref {
        loose.extend(in_text(&task_ref.name));
        loose.extend(task_ref.params.iter().flat_map(|param| in_value(&param.value)));
    }
    for reference in &loose {
        if let Ok(value) = look_up(facts, reference) {
            add(&mut set, reference, &value);
        }
    }
    add_lengths(facts, node, &mut set);
    (unresolved, set)
}

/// The results that a text refers to, as far as they are there.
pub(super) fn for_texts<'t>(facts: &Facts<'_>, texts: impl Iterator<Item = &'t str>) -> Replacements {
    let mut set = Replacements::new();
    for reference in texts.flat_map(in_text) {
        if let Ok(value) = look_up(facts, &reference) {
            add(&mut set, &reference, &value);
        }
    }
    set
}

/// `tasks.T.matrix.length` and `tasks.T.matrix.R.length` in params. They make no edge: a task that is not
/// done has none.
fn add_lengths(facts: &Facts<'_>, node: &Node<'_>, set: &mut Replacements) {
    let values = node.task.params.iter().map(|param| &param.value);
    for variable in values.flat_map(texts).flat_map(variables::variables) {
        let Some(path) = variable.path() else { continue };
        let (name, result) = match path.names().as_slice() {
            ["tasks", name, "matrix", "length"] => ((*name).to_owned(), None),
            ["tasks", name, "matrix", result, "length"] => ((*name).to_owned(), Some((*result).to_owned())),
            _ => continue,
        };
        let done =
            facts.named(&name).filter(|node| matrix::of(&node.task).is_some() && node.outcome.is_done());
        if let Some(other) = done {
            let length = match &result {
                None => other.runs.len(),
                Some(result) => other.children().filter_map(|child| result_of(child, result)).count(),
            };
            set.text(variable.key, length.to_string());
        }
    }
}

fn add(set: &mut Replacements, reference: &ResultRef, value: &ParamValue) {
    let task = format!("tasks.{}.results", reference.pipeline_task);
    let key = format!("{task}.{}", reference.result);
    if set.knows(&key) {
        return;
    }
    set.value(&key, value);
    // Quoted spellings are filled in only beside a dotted one (contract 4.3).
    if let ParamValue::String(text) = value {
        set.text(format!("{task}[\"{}\"]", reference.result), text);
        set.text(format!("{task}['{}']", reference.result), text);
    }
}

fn result_of<'c>(child: &'c TaskRun, name: &str) -> Option<&'c ParamValue> {
    let results = child.status.iter().flat_map(|status| &status.results);
    results.into_iter().find(|result| result.name == name).map(|result| &result.value)
}

/// The results of a matrix as one array, in the order of the children's names (contract 7.2).
fn aggregated(node: &Node<'_>, name: &str) -> Option<ParamValue> {
    let mut children: Vec<&TaskRun> = node.children().collect();
    children.sort_by_key(|child| child.metadata.name.as_deref());
    let texts: Vec<String> = children
        .into_iter()
        .filter_map(|child| Some(result_of(child, name)?.as_str().unwrap_or_default().to_owned()))
        .collect();
    (!texts.is_empty()).then_some(ParamValue::Array(texts))
}

/// The whole result a reference names; an error when it, its element or its key is not there.
fn look_up<'f>(facts: &Facts<'f>, reference: &ResultRef) -> Result<Cow<'f, ParamValue>, Cause> {
    let node = facts.named(&reference.pipeline_task).ok_or(Cause::NotRun)?;
    if !node.outcome.is_done() {
        return Err(Cause::NotRun);
    }
    let value = if matrix::of(&node.task).is_some() {
        aggregated(node, &reference.result).map(Cow::Owned)
    } else {
        let child = node.children().next();
        child.and_then(|child| result_of(child, &reference.result)).map(Cow::Borrowed)
    };
    let value = value.ok_or(Cause::NotEmitted)?;
    match (&*value, &reference.property, reference.subscript) {
        (ParamValue::Object(entries), Some(key), _) if entries.contains_key(key) => Ok(value),
        (_, Some(_), _) => Err(Cause::NoKey),
        (ParamValue::Array(items), None, Some(Subscript::Index(index))) if index >= items.len() => {
            Err(Cause::OutOfBounds { size: items.len() })
        }
        (_, None, _) => Ok(value),
    }
}

/// The sentence about a reference that `consumer` cannot have (contract 7.1).
pub(super) fn complaint(facts: &Facts<'_>, consumer: &str, unresolved: &Unresolved) -> String {
    let ResultRef { pipeline_task: task, result, property, subscript, .. } = &unresolved.reference;
    let succeeded = facts.named(task).is_some_and(|node| node.outcome == Outcome::Succeeded);
    match (unresolved.cause, property, subscript) {
        (Cause::OutOfBounds { size }, _, Some(Subscript::Index(index))) => format!(
            "invalid result reference in pipeline task \"{consumer}\": array Result Index {index} for Task \
             {task} Result {result} is out of bound of size {size}"
        ),
        (Cause::NoKey, Some(key), _) => format!(
            "Invalid task result reference: Could not find key {key} of result with name {result} for \
             pipeline task {task}"
        ),
        (Cause::NotEmitted, ..) if succeeded => format!(
            "task \"{task}\" completed successfully but did not emit the result \"{result}\", which is \
             referenced by task \"{consumer}\""
        ),
        _ => format!(
            "Invalid task result reference: Could not find result with name {result} for pipeline task \
             {task}"
        ),
    }
}

/// The run's results, and the names of those whose references do not exist although their task ran well.
pub(super) fn of_run(
    facts: &Facts<'_>,
    declared: &[PipelineResult],
) -> (Vec<PipelineRunResult>, Vec<String>) {
    let mut results = Vec::new();
    let mut invalid = Vec::new();
    for result in declared {
        match value_of(facts, &result.value) {
            Collected::Value(value) => results.push(PipelineRunResult { name: result.name.clone(), value }),
            Collected::Invalid => invalid.push(result.name.clone()),
            Collected::Nothing => {}
        }
    }
    (results, invalid)
}

enum Collected {
    Value(ParamValue),
    Invalid,
    Nothing,
}

fn value_of(facts: &Facts<'_>, value: &ParamValue) -> Collected {
    let references = in_value(value);
    if references.is_empty() {
        return Collected::Nothing;
    }
    let mut set = Replacements::new();
    let mut absent = false;
    for reference in &references {
        match look_up(facts, reference) {
            Ok(value) => {
                add(&mut set, reference, &value);
                // Pipeline results are the one place where `finally.T.results.R` means something.
                let key = format!("finally.{}.results.{}", reference.pipeline_task, reference.result);
                set.value(&key, &value);
            }
            Err(Cause::OutOfBounds { .. } | Cause::NoKey) => return Collected::Invalid,
            Err(Cause::NotRun | Cause::NotEmitted) => {
                let node = facts.named(&reference.pipeline_task);
                let ran_well = node.is_some_and(|node| node.outcome == Outcome::Succeeded);
                if ran_well {
                    return Collected::Invalid;
                }
                absent = true;
            }
        }
    }
    if absent {
        return Collected::Nothing;
    }
    // A bare reference to an array gives its first element; only `[*]` gives the array (contract 4.3).
    if let ParamValue::String(text) = value
        && let [reference] = references.as_slice()
        && reference.subscript.is_none()
        && variables::whole(text).is_some()
        && reference.property.is_none()
        && let Ok(value) = look_up(facts, reference)
        && let ParamValue::Array(items) = &*value
    {
        return Collected::Value(ParamValue::String(items.first().cloned().unwrap_or_default()));
    }
    Collected::Value(set.in_value(value))
}
