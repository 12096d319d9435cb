//! References to results of other pipeline tasks, as far as they are recognised (contract 4.3). Pure.

use ropewalk_api::variables::{self, Subscript};
use ropewalk_api::{Param, ParamValue, PipelineTask};
use serde_json::Value;

/// A `$(tasks.T.results.R)` or `$(finally.T.results.R)`, with its index, star or key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResultReference {
    /// It says `finally` instead of `tasks`.
    pub finally: bool,
    /// The pipeline task.
    pub task: String,
    /// The result.
    pub result: String,
    /// The key of an object.
    pub key: Option<String>,
    /// `[i]` or `[*]`.
    pub subscript: Option<Subscript>,
}

/// Where in a pipeline task a reference stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// In `params`.
    Params,
    /// In `when`.
    When,
    /// In `matrix`.
    Matrix,
    /// In a step or sidecar of an embedded `taskSpec`.
    Embedded,
}

impl ResultReference {
    /// Reads the text between `$(` and `)`. Quoted spellings are not recognised, nor are results with dots in
    /// their name.
    pub fn parse(key: &str) -> Option<Self> {
        let reference = variables::Reference::parse(key)?;
        if reference.quoted {
            return None;
        }
        let (origin, task, result, key) = match reference.names().as_slice() {
            [origin, task, "results", result] => (*origin, *task, *result, None),
            [origin, task, "results", result, key] => (*origin, *task, *result, Some((*key).to_owned())),
            _ => return None,
        };
        if !matches!(origin, "tasks" | "finally") {
            return None;
        }
        Some(Self {
            finally: origin == "finally",
            task: task.to_owned(),
            result: result.to_owned(),
            key,
            subscript: reference.subscript,
        })
    }
}

/// The references in a text, in order.
pub fn in_text(text: &str) -> impl Iterator<Item = ResultReference> + '_ {
    variables::variables(text).filter_map(|variable| ResultReference::parse(variable.key))
}

/// The references in a value, in order.
pub fn in_value(value: &ParamValue) -> Vec<ResultReference> {
    match value {
        ParamValue::String(text) => in_text(text).collect(),
        ParamValue::Array(items) => items.iter().flat_map(|item| in_text(item)).collect(),
        ParamValue::Object(entries) => entries.values().flat_map(|item| in_text(item)).collect(),
    }
}

/// The references of a pipeline task that make edges: in params, matrix, when, and an embedded Task's steps
/// and sidecars.
pub fn in_task(task: &PipelineTask) -> Vec<(Place, ResultReference)> {
    let mut found = Vec::new();
    let mut params = |place: Place, params: &[Param]| {
        let references = params.iter().flat_map(|param| in_value(&param.value));
        found.extend(references.map(|reference| (place, reference)));
    };
    params(Place::Params, &task.params);
    if let Some(matrix) = &task.matrix {
        params(Place::Matrix, &matrix.params);
        for include in &matrix.include {
            params(Place::Matrix, &include.params);
        }
    }
    for when in &task.when {
        let texts = std::iter::once(&when.input).chain(&when.values).chain(std::iter::once(&when.cel));
        found.extend(texts.flat_map(|text| in_text(text)).map(|reference| (Place::When, reference)));
    }
    if let Some(embedded) = &task.task_spec {
        let parts = (&embedded.task_spec.steps, &embedded.task_spec.sidecars);
        strings(&serde_json::to_value(parts).unwrap_or_default(), &mut |text| {
            found.extend(in_text(text).map(|reference| (Place::Embedded, reference)));
        });
    }
    found
}

/// Hands every string in a JSON value to `each`, depth first.
pub(crate) fn strings(value: &Value, each: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(items) => items.iter().for_each(|item| strings(item, each)),
        Value::Object(fields) => fields.values().for_each(|field| strings(field, each)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
