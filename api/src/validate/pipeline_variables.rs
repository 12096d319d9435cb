//! The variables in the params, matrix and when expressions of pipeline tasks (contract 2.3).

use std::collections::{BTreeMap, BTreeSet};

use super::errors::shown;
use super::usage::{Pool, Takes, may_hold_variables, non_existent, one_of, params_in};
use super::{FieldError, FieldErrors};
use crate::references::{self, Section};
use crate::variables::{self, Reference, Subscript, Variable};
use crate::{Param, ParamType, ParamValue, PipelineSpec, PipelineTask};

/// What a variable may begin with here.
const PREFIXES: [&str; 6] = ["params", "tasks", "finally", "context", "workspaces", "results"];

/// The part of a pipeline task a text stands in.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Params,
    Matrix,
    When,
    Cel,
}

/// The matrixed tasks by their names, with [`results`].
type Matrixed<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeSet<ParamType>>>;

/// A text of a pipeline task, and where it stands.
struct Place<'a> {
    part: Part,
    path: String,
    text: &'a str,
    takes: Takes,
}

/// The params that a list of pipeline tasks may refer to; `None` where nobody can say.
pub(super) struct Pools<'a> {
    pub(super) tasks: Option<Pool<'a>>,
    pub(super) finally: Option<Pool<'a>>,
}

/// Paths from the Pipeline's spec on.
pub(super) fn validate(spec: &PipelineSpec, pools: &Pools<'_>) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let names: BTreeSet<&str> = spec.tasks.iter().map(|task| task.name.as_str()).collect();
    let matrixed: Matrixed<'_> = spec
        .tasks
        .iter()
        .filter(|task| task.matrix.is_some())
        .map(|task| (task.name.as_str(), results(task)))
        .collect();
    for (index, task) in spec.tasks.iter().enumerate() {
        let mut own = FieldErrors::default();
        // Upstream looks at the contexts of the last task of each list only; what the others hold may be meant for
        // the Task it is passed to.
        let last = index + 1 == spec.tasks.len();
        for place in places(task) {
            own.also(everywhere(&place, pools.tasks.as_ref(), last));
            own.also(no_execution_status(&place));
            own.also(matrixed_in_aggregate(&place, &matrixed));
        }
        errors.also(own.via_index("tasks", index));
    }
    let finally: BTreeSet<&str> = spec.finally.iter().map(|task| task.name.as_str()).collect();
    for (index, task) in spec.finally.iter().enumerate() {
        let mut own = FieldErrors::default();
        let last = index + 1 == spec.finally.len();
        for place in places(task) {
            own.also(everywhere(&place, pools.finally.as_ref(), last));
            own.also(status_of_known_tasks(&place, &names));
            own.also(results_of_known_tasks(&place, &names, &finally));
        }
        errors.also(own.via_index("finally", index));
    }
    errors
}

/// Those that may hold variables: most hold none, and nobody pays for their paths.
fn places(task: &PipelineTask) -> Vec<Place<'_>> {
    let mut places = Vec::new();
    values("", &task.params, Part::Params, &mut places);
    if let Some(matrix) = &task.matrix {
        values("matrix.", &matrix.params, Part::Matrix, &mut places);
        for (index, include) in matrix.include.iter().enumerate() {
            values(&format!("matrix.include[{index}]."), &include.params, Part::Matrix, &mut places);
        }
    }
    for (index, when) in task.when.iter().enumerate() {
        let texts = [
            (Part::When, when.input.as_str(), Takes::OneString),
            (Part::Cel, when.cel.as_str(), Takes::OneString),
        ];
        let values = when.values.iter().map(|text| (Part::When, text.as_str(), Takes::Elements));
        for (part, text, takes) in texts.into_iter().chain(values) {
            if may_hold_variables(text) {
                places.push(Place { part, path: format!("when[{index}]"), text, takes });
            }
        }
    }
    places
}

fn values<'a>(prefix: &str, params: &'a [Param], part: Part, places: &mut Vec<Place<'a>>) {
    for Param { name, value } in params {
        let mut place = |text: &'a str, takes: Takes, within: &dyn Fn() -> String| {
            if may_hold_variables(text) {
                let path = format!("{prefix}params[{}].value{}", shown(name), within());
                places.push(Place { part, path, text, takes });
            }
        };
        match value {
            ParamValue::String(text) => place(text, Takes::AnyValue, &String::new),
            ParamValue::Array(items) => {
                for (index, text) in items.iter().enumerate() {
                    place(text, Takes::Elements, &|| format!("[{index}]"));
                }
            }
            ParamValue::Object(entries) => {
                for (key, text) in entries {
                    place(text, Takes::OneString, &|| format!(".{key}"));
                }
            }
        }
    }
}

/// The variable as upstream recognises it here: dotted, without quoted brackets.
fn dotted(variable: &Variable<'_>) -> Option<Reference> {
    variable.path().filter(|reference| !reference.quoted)
}

fn everywhere(place: &Place<'_>, pool: Option<&Pool<'_>>, with_contexts: bool) -> FieldErrors {
    let mut errors = FieldErrors::default();
    // Upstream does not look for params in CEL.
    if let Some(pool) = pool.filter(|_| place.part != Part::Cel) {
        errors.also(params_in(place.text, &place.path, place.takes, pool));
    }
    let mut unknown_context = None;
    for variable in variables::variables(place.text) {
        let Some(reference) = dotted(&variable) else { continue };
        let names = reference.names();
        if !names.first().is_some_and(|first| PREFIXES.contains(first)) {
            errors.push(FieldError::invalid(
                format!(
                    "invalid variable reference \"{}\", must start with a valid prefix: params, tasks, finally, \
                     context, workspaces, or results; if you meant a shell variable, use ${{VAR}} instead",
                    variable.raw
                ),
                &place.path,
            ));
        }
        let (name, known): (&str, &[&str]) = match names.as_slice() {
            ["context", "pipelineRun", name, ..] => (*name, &["name", "namespace", "uid"]),
            ["context", "pipeline", name, ..] => (*name, &["name"]),
            ["context", "pipelineTask", name, ..] => (*name, &["retries"]),
            _ => continue,
        };
        if !known.contains(&name) && unknown_context.is_none() {
            let error = non_existent(place.text, &place.path).culprit(variable.raw);
            unknown_context = Some(error.hint(one_of(known)));
        }
    }
    // Once for a text, which the report quotes whole.
    if with_contexts && !matches!(place.part, Part::When | Part::Cel) {
        errors.also(unknown_context.into_iter().collect());
    }
    errors
}

/// `tasks.<name>.status`, `tasks.<name>.reason` and `tasks.status`: the name, or `None` for the aggregate.
///
/// Upstream sees none of them in a text that also holds a result reference, nor in a matrix.
fn execution_status(place: &Place<'_>) -> Vec<Option<String>> {
    if place.part == Part::Matrix || !references::in_text(place.text).is_empty() {
        return Vec::new();
    }
    variables::variables(place.text)
        .filter_map(|variable| {
            let reference = dotted(&variable)?;
            match reference.names().as_slice() {
                ["tasks", "status"] => Some(None),
                ["tasks", name, "status" | "reason"] => Some(Some((*name).to_owned())),
                _ => None,
            }
        })
        .collect()
}

fn no_execution_status(place: &Place<'_>) -> FieldErrors {
    execution_status(place)
        .into_iter()
        .map(|_| {
            FieldError::invalid(
                "pipeline tasks can not refer to execution status of any other pipeline task or aggregate status of \
                 tasks",
                &place.path,
            )
        })
        .collect()
}

fn status_of_known_tasks(place: &Place<'_>, names: &BTreeSet<&str>) -> FieldErrors {
    execution_status(place)
        .into_iter()
        .flatten()
        .filter(|name| !names.contains(name.as_str()))
        .map(|name| {
            FieldError::invalid(format!("pipeline task {name} is not defined in the pipeline"), &place.path)
        })
        .collect()
}

fn results_of_known_tasks(
    place: &Place<'_>,
    names: &BTreeSet<&str>,
    finally: &BTreeSet<&str>,
) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if place.part == Part::Matrix {
        return errors;
    }
    for reference in references::in_text(place.text) {
        let name = &reference.pipeline_task;
        let what = if finally.contains(name.as_str()) {
            format!("a final task {name}")
        } else if !names.contains(name.as_str()) || reference.section == Section::Finally {
            format!("a task {name} which is not defined in the pipeline")
        } else {
            continue;
        };
        errors.push(FieldError::invalid(
            format!("invalid task result reference, final task has task result reference from {what}"),
            &place.path,
        ));
    }
    errors
}

/// The results of a matrixed task whose type is another than one string, by their names.
fn results(task: &PipelineTask) -> BTreeMap<&str, BTreeSet<ParamType>> {
    let mut types: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for result in task.task_spec.iter().flat_map(|embedded| &embedded.task_spec.results) {
        let kind = result.value_type();
        if kind != ParamType::String {
            types.entry(result.name.as_str()).or_default().insert(kind);
        }
    }
    types
}

/// The runs of a matrix give a list of results, and each of those is a string.
fn matrixed_in_aggregate(place: &Place<'_>, matrixed: &Matrixed<'_>) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if place.part != Part::Params {
        return errors;
    }
    for reference in references::in_text(place.text) {
        let Some(results) = matrixed.get(reference.pipeline_task.as_str()) else { continue };
        if reference.subscript != Some(Subscript::All) {
            errors.push(FieldError::invalid(
                format!(
                    "A matrixed pipelineTask can only be consumed in aggregate using [*] notation, but is currently \
                     set to {}",
                    reference.key()
                ),
                &place.path,
            ));
        }
        for kind in results.get(reference.result.as_str()).into_iter().flatten() {
            errors.push(FieldError::invalid(
                format!(
                    "Matrixed PipelineTasks emitting results must have an underlying type string, but result {} \
                     has type {kind} in pipelineTask",
                    reference.result
                ),
                &place.path,
            ));
        }
    }
    errors
}
