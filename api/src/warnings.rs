//! What Kubernetes and admission accept and hardly anybody means: names of objects that cannot exist, params nobody
//! uses, results nobody writes, images that change under their name. Pure.
//!
//! Admission sends them to whoever applies an object, `ropewalk lint` shows them beside the text.

mod names;
mod usage;

use std::fmt;

use serde_json::Value;

/// One doubt about an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Warning {
    /// Where: `spec.steps[0].image`.
    pub path: String,
    /// What.
    pub message: String,
    /// What would be right; may be empty.
    pub hint: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, " ({})", self.hint) }
    }
}

/// Kinds that are kept for those who read them, and that this version does not act on.
const IDLE: [(&str, &str); 2] = [
    ("ResolutionRequest", "no resolver acts on requests in this version, so this one stays unanswered"),
    (
        "VerificationPolicy",
        "signatures are not verified by this version, so this policy keeps nothing from running",
    ),
];

/// Doubts as they are found, of which only the first are put into words.
#[derive(Debug, Default)]
pub struct Doubts {
    /// The first.
    pub first: Vec<Warning>,
    /// How many there are beside those.
    pub more: usize,
    /// How many are put into words.
    most: usize,
}

impl Doubts {
    fn push(&mut self, warning: impl FnOnce() -> Warning) {
        if self.first.len() < self.most {
            self.first.push(warning());
        } else {
            self.more += 1;
        }
    }
}

/// Every doubt about an object of this kind whose form is right, in the order of its fields' names.
pub fn check(kind: &str, object: &Value) -> Vec<Warning> {
    check_first(kind, object, usize::MAX).first
}

/// As [`check`], with words for so many of them.
pub fn check_first(kind: &str, object: &Value, most: usize) -> Doubts {
    let mut warnings = Doubts { most, ..Doubts::default() };
    if let Some((_, message)) = IDLE.iter().find(|(idle, _)| *idle == kind) {
        let (path, message) = ("kind".to_owned(), (*message).to_owned());
        warnings.push(|| Warning { path, message, hint: String::new() });
    }
    let Some(spec) = object.get("spec") else { return warnings };
    names::check(spec, "spec", &mut warnings);
    let around = usage::Uses::of(spec);
    match kind {
        "Task" => usage::task(spec, "spec", &around, &mut warnings),
        "StepAction" => usage::params(spec, "spec", &around, &mut warnings),
        "Pipeline" => usage::pipeline(spec, "spec", &around, &mut warnings),
        "TaskRun" => {
            if let Some(embedded) = spec.get("taskSpec") {
                usage::task(embedded, "spec.taskSpec", &around, &mut warnings);
            }
        }
        "PipelineRun" => {
            if let Some(embedded) = spec.get("pipelineSpec") {
                usage::pipeline(embedded, "spec.pipelineSpec", &around, &mut warnings);
            }
        }
        _ => {}
    }
    warnings
}

/// The elements of a list, each with what tells its path; none when it is no list.
fn items<'a>(
    object: &'a Value,
    field: &'a str,
    path: &'a str,
) -> impl Iterator<Item = (impl Fn() -> String + 'a, &'a Value)> + 'a {
    let list = object.get(field).and_then(Value::as_array);
    let items = list.into_iter().flatten().enumerate();
    items.map(move |(index, item)| (move || format!("{path}.{field}[{index}]"), item))
}

/// A text of each element of a list; none when it is no list.
fn texts<'a>(object: &'a Value, list: &str, field: &'static str) -> impl Iterator<Item = &'a str> + use<'a> {
    let list = object.get(list).and_then(Value::as_array);
    list.into_iter().flatten().map(move |item| text(item, field))
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
