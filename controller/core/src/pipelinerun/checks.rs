//! What is checked before anything runs, in the contract's order and words (contract 7.6). Pure.

use std::collections::BTreeMap;
use std::fmt::Display;

use ropewalk_api::config::{Config, FeatureFlags};
use ropewalk_api::defaults::Defaulted;
use ropewalk_api::references::in_value;
use ropewalk_api::validate::Validated;
use ropewalk_api::variables::{Reference, Subscript, variables};
use ropewalk_api::{
    EmbeddedTask, Param, ParamType, ParamValue, Pipeline, PipelineRun, PipelineSpec, PipelineTask, TaskSpec,
};

use super::facts::Facts;
use super::params::{DefaultError, Problems, go_list, go_map};
use super::resolve::Origin;
use super::{matrix, substitute, texts};
use crate::dag::{Dag, DagError};
use crate::plan::Write;

/// A run that cannot go on: the condition's reason and message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Failure {
    /// One word.
    pub(super) reason: &'static str,
    /// A sentence.
    pub(super) message: String,
}

/// Why a decision ends early.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stop {
    /// The run has failed.
    Failed(Failure),
    /// This must be written, and seen, before anything else.
    First(Write),
    /// The snapshot lacks what was asked for.
    Unseen(String),
}

impl Stop {
    /// The run has failed.
    pub(super) fn failed(reason: &'static str, message: String) -> Self {
        Self::Failed(Failure { reason, message })
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A failure the user caused, and can mend.
fn failure(reason: &'static str, context: impl Display, user_error: impl Display) -> Failure {
    Failure { reason, message: format!("{context}[User error] {user_error}") }
}

/// No. 3: the graph, and names that are unique over `tasks` and `finally`.
pub(super) fn graph(origin: &Origin, spec: &PipelineSpec) -> Result<Dag, Failure> {
    let invalid = |clause: &str, error: DagError| {
        let context = format!("PipelineRun {}'s Pipeline DAG is invalid{clause}: ", origin.run);
        failure("PipelineInvalidGraph", context, error)
    };
    let dag = Dag::new(&spec.tasks).map_err(|error| invalid("", error))?;
    let all: Vec<PipelineTask> = spec
        .tasks
        .iter()
        .chain(&spec.finally)
        .map(|task| PipelineTask { name: task.name.clone(), ..PipelineTask::default() })
        .collect();
    Dag::new(&all).map_err(|error| invalid(" for finally clause", error))?;
    Ok(dag)
}

/// No. 4: a Pipeline that was looked up, by the rules of admission: it may be older than they are.
pub(super) fn admitted(origin: &Origin, config: &Config, pipeline: &Pipeline) -> Result<(), Failure> {
    let mut pipeline = pipeline.clone();
    pipeline.set_defaults(config);
    let errors = pipeline.validate(config);
    if errors.is_empty() {
        return Ok(());
    }
    let context = format!("Pipeline {} can't be Run; it has an invalid spec: ", origin.pipeline);
    Err(failure("PipelineValidationFailed", context, errors))
}

/// No. 4: the spec itself. What this engine does not do yet is refused here, before anything has started.
pub(super) fn spec(origin: &Origin, spec: &PipelineSpec) -> Result<(), Failure> {
    let context = || format!("Pipeline {} can't be Run; it has an invalid spec: ", origin.pipeline);
    for task in spec.tasks.iter().chain(&spec.finally) {
        if let Some(feature) = unsupported(task) {
            let text =
                format!("pipeline task \"{}\" uses \"{feature}\", which is not supported yet", task.name);
            return Err(failure("PipelineValidationFailed", context(), text));
        }
        if task.task_ref.is_some() == task.task_spec.is_some() {
            let text =
                format!("pipeline task \"{}\" needs exactly one of \"taskRef\" and \"taskSpec\"", task.name);
            return Err(failure("PipelineValidationFailed", context(), text));
        }
    }
    Ok(())
}

fn unsupported(task: &PipelineTask) -> Option<&'static str> {
    let custom =
        |task: &EmbeddedTask| !task.api_version.is_empty() || !task.kind.is_empty() || task.spec.is_some();
    let reference = task.task_ref.as_ref();
    if task.pipeline_ref.is_some() {
        Some("pipelineRef")
    } else if task.pipeline_spec.is_some() {
        Some("pipelineSpec")
    } else if reference.is_some_and(|reference| !reference.resolver.is_empty()) {
        Some("taskRef.resolver")
    } else if reference.is_some_and(ropewalk_api::TaskRef::is_custom_task) {
        Some("taskRef.apiVersion")
    } else if task.task_spec.as_ref().is_some_and(custom) {
        Some("taskSpec.apiVersion")
    } else if task.when.iter().any(|when| !when.cel.is_empty()) {
        Some("when.cel")
    } else {
        None
    }
}

/// No. 5 to 8: the run's params against the Pipeline's.
pub(super) fn params(
    origin: &Origin,
    features: &FeatureFlags,
    spec: &PipelineSpec,
    given: &[Param],
) -> Result<(), Failure> {
    let Origin { run, pipeline, .. } = origin;
    let problems = Problems::find(&spec.params, given, false);
    if !problems.missing.is_empty() {
        return Err(failure(
            "ParameterMissing",
            format!("PipelineRun {run} is missing some parameters required by Pipeline {pipeline}: "),
            format!("pipelineRun missing parameters: {}", go_list(&problems.missing)),
        ));
    }
    if !problems.mistyped.is_empty() {
        return Err(failure(
            "ParameterTypeMismatch",
            format!(
                "PipelineRun {run} parameters have mismatching types with Pipeline {pipeline}'s parameters: "
            ),
            format!("parameters have inconsistent types : {}", go_list(&problems.mistyped)),
        ));
    }
    if features.enable_param_enum {
        let values: BTreeMap<&str, &ParamValue> =
            given.iter().map(|param| (param.name.as_str(), &param.value)).collect();
        let clash = spec.params.iter().filter(|spec| !spec.allowed.is_empty()).find_map(|spec| {
            let value = values.get(spec.name.as_str())?.as_str()?;
            (!value.is_empty() && spec.allowed.iter().all(|allowed| allowed != value))
                .then(|| format!("param `{}` value: {value} is not in the enum list", spec.name))
        });
        if let Some(clash) = clash {
            let context = format!("PipelineRun {run} parameters have invalid value: ");
            return Err(failure("InvalidParamValue", context, clash));
        }
    }
    if !problems.missing_keys.is_empty() {
        return Err(failure(
            "ObjectParameterMissKeys",
            format!(
                "PipelineRun {run} parameters is missing object keys required by Pipeline {pipeline}'s \
                 parameters: "
            ),
            format!("pipelineRun missing object keys for parameters: {}", go_map(&problems.missing_keys)),
        ));
    }
    Ok(())
}

/// No. 9: `$(params.a[3])` of an array that is shorter. `values` are the params as they take effect.
pub(super) fn array_indices(origin: &Origin, spec: &PipelineSpec, values: &[Param]) -> Result<(), Failure> {
    let arrays: BTreeMap<&str, usize> = spec
        .params
        .iter()
        .filter(|declared| declared.value_type() == ParamType::Array)
        .filter_map(|declared| {
            let value = values.iter().find(|param| param.name == declared.name)?;
            match &value.value {
                ParamValue::Array(items) => Some((declared.name.as_str(), items.len())),
                _ => None,
            }
        })
        .collect();
    if arrays.is_empty() {
        return Ok(());
    }
    let mut beyond = Vec::new();
    for task in spec.tasks.iter().chain(&spec.finally) {
        let embedded = task.task_spec.as_ref().map(|embedded| &embedded.task_spec);
        let outer = PipelineTask { task_spec: None, ..task.clone() };
        texts::for_each(&outer, |text| {
            beyond.extend(indices_beyond(text, |name| arrays.get(name).copied()));
        });
        let own = substitute::own_params(task);
        let shadowed = |name: &str| {
            own.contains(name)
                || embedded.is_some_and(|spec| spec.params.iter().any(|param| param.name == name))
        };
        texts::for_each(&embedded, |text| {
            let length = |name: &str| arrays.get(name).copied().filter(|_| !shadowed(name));
            beyond.extend(indices_beyond(text, length));
        });
    }
    if beyond.is_empty() {
        return Ok(());
    }
    beyond.sort();
    beyond.dedup();
    Err(failure(
        "ParamArrayIndexingInvalid",
        format!(
            "PipelineRun {} failed validation: failed to validate Pipeline {}'s parameter which has an \
             invalid index while referring to an array: ",
            origin.run, origin.pipeline
        ),
        format!("non-existent param references:{}", go_list(&beyond)),
    ))
}

fn indices_beyond(text: &str, length: impl Fn(&str) -> Option<usize>) -> Vec<String> {
    variables(text)
        .filter(|variable| {
            let Some(Reference { parts, subscript: Some(Subscript::Index(index)), .. }) =
                Reference::parse(variable.key)
            else {
                return false;
            };
            match parts.as_slice() {
                [params, name] if params == "params" => length(name).is_some_and(|length| index >= length),
                _ => false,
            }
        })
        .map(|variable| variable.raw.to_owned())
        .collect()
}

/// No. 10 and 11: workspaces and `taskRunSpecs`.
pub(super) fn bindings(origin: &Origin, run: &PipelineRun, spec: &PipelineSpec) -> Result<(), Failure> {
    let unbound = spec.workspaces.iter().find(|declared| {
        !declared.optional && run.spec.workspaces.iter().all(|binding| binding.name != declared.name)
    });
    if let Some(workspace) = unbound {
        return Err(failure(
            "InvalidWorkspaceBindings",
            format!(
                "PipelineRun {} doesn't bind Pipeline {}'s Workspaces correctly: ",
                origin.run, origin.pipeline
            ),
            format!(
                "pipeline requires workspace with name \"{}\" be provided by pipelinerun",
                workspace.name
            ),
        ));
    }
    let unknown = run.spec.task_run_specs.iter().find(|settings| {
        spec.tasks.iter().chain(&spec.finally).all(|task| task.name != settings.pipeline_task_name)
    });
    if let Some(settings) = unknown {
        return Err(failure(
            "InvalidTaskRunSpecs",
            format!("PipelineRun {} doesn't define taskRunSpecs correctly: ", origin.run),
            format!(
                "pipelineRun's taskrunSpecs defined wrong taskName: \"{}\", does not exist in Pipeline",
                settings.pipeline_task_name
            ),
        ));
    }
    Ok(())
}

/// No. 12: defaults that cannot be worked out.
pub(super) fn defaults(origin: &Origin, error: &DefaultError) -> Failure {
    let context = format!("Failed to apply parameters to Pipeline {}: ", origin.pipeline);
    failure("PipelineValidationFailed", context, error)
}

/// No. 4 again, after substitution: `onError` may have been a param.
pub(super) fn substituted(origin: &Origin, spec: &PipelineSpec) -> Result<(), Failure> {
    let context = || format!("Pipeline {} can't be Run; it has an invalid spec: ", origin.pipeline);
    for task in spec.tasks.iter().chain(&spec.finally) {
        if !matches!(task.on_error.as_str(), "" | "continue" | "stopAndFail") {
            let text = format!(
                "pipeline task \"{}\" has the onError value \"{}\", which must be one of \"continue\" and \
                 \"stopAndFail\"",
                task.name, task.on_error
            );
            return Err(failure("PipelineValidationFailed", context(), text));
        }
        if task.ignores_failure() && task.retries > 0 {
            let text = "PipelineTask OnError cannot be set to \"continue\" when Retries is greater than 0";
            return Err(failure("PipelineValidationFailed", context(), text));
        }
    }
    Ok(())
}

/// No. 14: the params of tasks that have no child yet, against their Tasks.
pub(super) fn task_params(run_name: &str, facts: &Facts<'_>) -> Result<(), Failure> {
    for node in facts.nodes.iter().filter(|node| !node.is_complete()) {
        let Some(task_spec) = &node.task_spec else { continue };
        let mut given = node.task.params.clone();
        if let Some(matrix) = matrix::of(&node.task) {
            let includes = matrix.include.iter().flat_map(|include| &include.params);
            let names = matrix.params.iter().chain(includes).map(|param| &param.name);
            // Each child gets one string out of the array.
            given.extend(names.map(|name| Param { name: name.clone(), value: ParamValue::default() }));
        }
        let problems = Problems::find(&task_spec.params, &given, true);
        let text = if !problems.missing.is_empty() {
            format!(
                "missing values for these params which have no default values: {}",
                go_list(&problems.missing)
            )
        } else if !problems.mistyped.is_empty() {
            format!("param types don't match the user-specified type: {}", go_list(&problems.mistyped))
        } else if !problems.missing_keys.is_empty() {
            format!(
                "missing keys for these params which are required in ParamSpec's properties {}",
                go_map(&problems.missing_keys)
            )
        } else {
            continue;
        };
        let reference = node.task.task_ref.as_ref().map(|reference| reference.name.as_str());
        let name = reference.unwrap_or(&node.task.name);
        return Err(failure(
            "PipelineValidationFailed",
            format!("Validation failed for pipelinerun {run_name} with error "),
            format!("invalid input params for task {name}: {text}"),
        ));
    }
    Ok(())
}

/// No. 16, only before the first child: results that nobody declares, and optional workspaces given to Tasks
/// that need theirs.
pub(super) fn before_first_child(
    run_name: &str,
    facts: &Facts<'_>,
    spec: &PipelineSpec,
) -> Result<(), Failure> {
    let declares = |task: &TaskSpec, name: &str| task.results.iter().any(|result| result.name == name);
    let undeclared = |task: &str, result: &str| match facts.named(task) {
        None => Some(format!("the referenced pipeline task \"{task}\" does not exist")),
        Some(node) => node
            .task_spec
            .as_ref()
            .filter(|spec| !declares(spec, result))
            .map(|_| format!("\"{result}\" is not a named result returned by pipeline task \"{task}\"")),
    };
    for node in &facts.nodes {
        for (_, reference) in &node.references {
            if let Some(text) = undeclared(&reference.pipeline_task, &reference.result) {
                let name = &node.task.name;
                return Err(failure(
                    "InvalidTaskResultReference",
                    "",
                    format!("invalid result reference in pipeline task \"{name}\": {text}"),
                ));
            }
        }
    }
    for result in &spec.results {
        for reference in in_value(&result.value) {
            if let Some(text) = undeclared(&reference.pipeline_task, &reference.result) {
                return Err(failure(
                    "InvalidPipelineResultReference",
                    format!("Failed to resolve pipeline result reference for \"{run_name}\" with error "),
                    format!("invalid pipeline result \"{}\": {text}", result.name),
                ));
            }
        }
    }
    for node in &facts.nodes {
        let Some(task_spec) = &node.task_spec else { continue };
        for entry in node.task.workspaces.iter().filter(|entry| !entry.workspace.is_empty()) {
            let optional =
                spec.workspaces.iter().any(|declared| declared.name == entry.workspace && declared.optional);
            let required =
                task_spec.workspaces.iter().any(|declared| declared.name == entry.name && !declared.optional);
            if optional && required {
                return Err(failure(
                    "RequiredWorkspaceMarkedOptional",
                    "Optional workspace not supported by task: ",
                    format!(
                        "pipeline workspace \"{}\" is marked optional but pipeline task \"{}\" requires it \
                         be provided",
                        entry.workspace, node.task.name
                    ),
                ));
            }
        }
    }
    Ok(())
}
