//! Result references between pipeline tasks, and the edges they make (contract 4.3 and 7.1).
//!
//! Validation and scheduling read references through these functions only, and so cannot disagree. Pure.

use std::collections::BTreeSet;

use ropewalk_entrypoint_protocol::variables::{self, Subscript, Variable};
use serde::Serialize;

use crate::{Param, ParamValue, PipelineTask, WhenExpression};

/// The list of a Pipeline a reference points into.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Section {
    /// `$(tasks.…)`.
    Tasks,
    /// `$(finally.…)`; only pipeline results may use it.
    Finally,
}

impl Section {
    /// The word it is written with: `tasks` or `finally`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tasks => "tasks",
            Self::Finally => "finally",
        }
    }
}

/// `$(tasks.<pipeline task>.results.<result>)`, with an optional key and an optional subscript.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResultRef {
    /// Where the pipeline task is looked for.
    pub section: Section,
    /// The pipeline task that writes the result.
    pub pipeline_task: String,
    /// The result.
    pub result: String,
    /// The key of an object result: `.key`.
    pub property: Option<String>,
    /// The closing `[0]` or `[*]`.
    pub subscript: Option<Subscript>,
    /// The whole variable, `$(` and `)` included.
    pub raw: String,
}

impl ResultRef {
    /// Reads a variable as a result reference.
    ///
    /// `None` for anything else, and for two spellings that look like one: quoted brackets
    /// (`results["r"]`) and more than five dotted parts. Both stay verbatim, as contract 4.3 has it.
    pub fn parse(variable: &Variable<'_>) -> Option<Self> {
        let reference = variable.path()?;
        if reference.quoted {
            return None;
        }
        let (section, task, result, property) = match reference.names().as_slice() {
            [section, task, "results", result] => (*section, *task, *result, None),
            [section, task, "results", result, key] => (*section, *task, *result, Some(*key)),
            _ => return None,
        };
        let section = match section {
            "tasks" => Section::Tasks,
            "finally" => Section::Finally,
            _ => return None,
        };
        Some(Self {
            section,
            pipeline_task: task.to_owned(),
            result: result.to_owned(),
            property: property.map(str::to_owned),
            subscript: reference.subscript,
            raw: variable.raw.to_owned(),
        })
    }

    /// What stands between the parentheses.
    pub fn key(&self) -> &str {
        self.raw.trim_start_matches("$(").trim_end_matches(')')
    }
}

/// The result references in a text, in order.
pub fn in_text(text: &str) -> Vec<ResultRef> {
    variables::variables(text).filter_map(|variable| ResultRef::parse(&variable)).collect()
}

/// The result references in a value, in order; keys of objects hold none.
pub fn in_value(value: &ParamValue) -> Vec<ResultRef> {
    texts(value).flat_map(in_text).collect()
}

/// The result references in params, in order.
pub fn in_params(params: &[Param]) -> Vec<ResultRef> {
    params.iter().flat_map(|param| in_value(&param.value)).collect()
}

/// The result references in when expressions, in order.
pub fn in_when(when: &[WhenExpression]) -> Vec<ResultRef> {
    when.iter()
        .flat_map(|expression| {
            std::iter::once(&expression.input)
                .chain(&expression.values)
                .chain(std::iter::once(&expression.cel))
                .flat_map(|text| in_text(text))
        })
        .collect()
}

/// The result references in a matrix: its params, then those of its `include` entries.
pub fn in_matrix(task: &PipelineTask) -> Vec<ResultRef> {
    let Some(matrix) = &task.matrix else { return Vec::new() };
    let mut found = in_params(&matrix.params);
    found.extend(matrix.include.iter().flat_map(|include| in_params(&include.params)));
    found
}

/// The result references in the steps and sidecars of an embedded Task: results propagate into them.
pub fn in_embedded_task(task: &PipelineTask) -> Vec<ResultRef> {
    let Some(embedded) = &task.task_spec else { return Vec::new() };
    let mut found = Vec::new();
    in_strings_of(&embedded.task_spec.steps, &mut found);
    in_strings_of(&embedded.task_spec.sidecars, &mut found);
    found
}

/// Every result reference that makes an edge, each once: params, matrix, when, then the embedded Task.
///
/// Resolver params, workspace sub-paths and display names make none (contract 7.1).
pub fn result_refs(task: &PipelineTask) -> Vec<ResultRef> {
    let mut found = in_params(&task.params);
    found.extend(in_matrix(task));
    found.extend(in_when(&task.when));
    found.extend(in_embedded_task(task));
    let mut seen = BTreeSet::new();
    found.retain(|reference| seen.insert(reference.raw.clone()));
    found
}

/// The pipeline tasks that must be done before this one: `runAfter`, then those it takes results from;
/// each once, in the order first named.
pub fn dependencies(task: &PipelineTask) -> Vec<String> {
    let mut seen = BTreeSet::new();
    task.run_after
        .iter()
        .cloned()
        .chain(result_refs(task).into_iter().map(|reference| reference.pipeline_task))
        .filter(|name| seen.insert(name.clone()))
        .collect()
}

/// The step and the result named by the first `$(steps.<step>.results.<result>)` of a Task's result, whatever stands
/// around it: upstream takes over what the step wrote, and nothing of the text.
pub fn step_result(text: &str) -> Option<(&str, &str)> {
    let (_, rest) = text.split_once("$(steps.")?;
    let (step, rest) = rest.split_once(".results.")?;
    let (result, _) = rest.split_once(')')?;
    Some((step, result))
}

/// The texts of a value: itself, its elements, or the values of its keys.
pub fn texts(value: &ParamValue) -> Box<dyn Iterator<Item = &str> + '_> {
    match value {
        ParamValue::String(text) => Box::new(std::iter::once(text.as_str())),
        ParamValue::Array(items) => Box::new(items.iter().map(String::as_str)),
        ParamValue::Object(entries) => Box::new(entries.values().map(String::as_str)),
    }
}

/// Walks the JSON form, so that no field of a container can be forgotten.
fn in_strings_of<T: Serialize>(part: &T, found: &mut Vec<ResultRef>) {
    // These types have string keys only, which is all serialisation can fail over.
    if let Ok(json) = serde_json::to_value(part) {
        walk(&json, found);
    }
}

fn walk(value: &serde_json::Value, found: &mut Vec<ResultRef>) {
    match value {
        serde_json::Value::String(text) => found.extend(in_text(text)),
        serde_json::Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
        serde_json::Value::Object(entries) => entries.values().for_each(|entry| walk(entry, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn reference(raw: &str, property: Option<&str>, subscript: Option<Subscript>) -> ResultRef {
        ResultRef {
            section: Section::Tasks,
            pipeline_task: "a-1".into(),
            result: "r_x".into(),
            property: property.map(str::to_owned),
            subscript,
            raw: raw.into(),
        }
    }

    #[rstest]
    #[case("$(tasks.a-1.results.r_x)", None, None)]
    #[case("$(tasks.a-1.results.r_x[2])", None, Some(Subscript::Index(2)))]
    #[case("$(tasks.a-1.results.r_x[*])", None, Some(Subscript::All))]
    #[case("$(tasks.a-1.results.r_x.key)", Some("key"), None)]
    fn reads_dotted_references(
        #[case] text: &str,
        #[case] property: Option<&str>,
        #[case] subscript: Option<Subscript>,
    ) {
        assert_eq!(in_text(&format!("x{text}y")), [reference(text, property, subscript)]);
    }

    #[rstest]
    #[case("$(tasks.a.results[\"r\"])")]
    #[case("$(tasks.a.results['r'])")]
    #[case("$(tasks.a.results.r.k.more)")]
    #[case("$(tasks.a.status)")]
    #[case("$(tasks.a.outputs.r)")]
    #[case("$(steps.a.results.r)")]
    #[case("$(params.a)")]
    #[case("tasks.a.results.r")]
    fn other_spellings_are_no_references(#[case] text: &str) {
        assert_eq!(in_text(text), []);
    }

    #[test]
    fn edges_come_from_run_after_params_matrix_when_and_embedded_steps() {
        let task: PipelineTask = serde_json::from_value(json!({
            "name": "x",
            "displayName": "$(tasks.display.results.r)",
            "runAfter": ["after", "p"],
            "params": [{"name": "a", "value": ["$(tasks.p.results.r)", "$(tasks.q.results.r[*])"]}],
            "matrix": {
                "params": [{"name": "m", "value": ["$(tasks.m.results.r)"]}],
                "include": [{"params": [{"name": "i", "value": "$(tasks.i.results.r)"}]}],
            },
            "when": [
                {"input": "$(tasks.w.results.r)", "operator": "in", "values": ["$(tasks.v.results.r)"]},
                {"cel": "'$(tasks.c.results.r)' == 'a'"},
            ],
            "workspaces": [{"name": "w", "subPath": "$(tasks.sub.results.r)"}],
            "taskSpec": {
                "steps": [{"name": "s", "image": "i", "env": [{"name": "E", "value": "$(tasks.e.results.r)"}]}],
                "sidecars": [{"name": "s", "image": "$(tasks.s.results.r)"}],
                "description": "$(tasks.d.results.r)",
            },
        }))
        .unwrap();
        assert_eq!(dependencies(&task), ["after", "p", "q", "m", "i", "w", "v", "c", "e", "s"]);
    }
}
