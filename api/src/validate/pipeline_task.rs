//! One task of a Pipeline: what it runs, how it fails, how it fans out (contract 2.3).

use std::collections::{BTreeMap, BTreeSet};

use super::names::{is_dns_label, label_detail};
use super::pipeline::Within;
use super::usage::{Around, Pool, is_task_artifact, may_hold_variables};
use super::{FieldError, FieldErrors, common, task};
use crate::config::{ApiFields, Config};
use crate::{EmbeddedTask, Matrix, Param, ParamValue, PipelineTask, TaskRef, references, variables};

/// Paths from the task on. `around` are the params an embedded Task may use beside its own and those in `given`.
pub(super) fn validate(
    task: &PipelineTask,
    around: Around<'_>,
    given: &[Param],
    config: &Config,
) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if !is_dns_label(&task.name) {
        errors.push(
            FieldError::new(format!("invalid value \"{}\"", task.name), &["name"])
                .detail(label_detail("Pipeline Task name")),
        );
    }
    errors.also(body(task, config));
    if let Some(task_ref) = &task.task_ref {
        errors.also(task_reference(task_ref, config).via_field("taskRef"));
    }
    if let Some(embedded) = &task.task_spec {
        errors.also(embedded_task(embedded, given, around, config).via_field("taskSpec"));
    }
    if let Some(pipeline_ref) = &task.pipeline_ref {
        let reference = common::Reference {
            name: &pipeline_ref.name,
            resolver: &pipeline_ref.resolver,
            params: &pipeline_ref.params,
            variables: false,
        };
        errors.also(reference.validate(config).via_field("pipelineRef"));
    }
    if let Some(pipeline) = &task.pipeline_spec {
        errors.also(
            super::pipeline::pipeline_spec(pipeline, Within::Pipeline, config).via_field("pipelineSpec"),
        );
    }
    errors.also(common::when(&task.when, config));
    errors.also(unique(&task.params));
    errors.also(on_error(task, config));
    errors.also(artifacts(task, config));
    if let Some(matrix) = &task.matrix {
        errors.also(self::matrix(matrix, &task.params, config));
    }
    errors
}

/// Exactly one of the four things a pipeline task can run.
fn body(task: &PipelineTask, config: &Config) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let set: Vec<&str> = [
        (task.task_ref.is_some(), "taskRef"),
        (task.task_spec.is_some(), "taskSpec"),
        (task.pipeline_ref.is_some(), "pipelineRef"),
        (task.pipeline_spec.is_some(), "pipelineSpec"),
    ]
    .into_iter()
    .filter_map(|(set, field)| set.then_some(field))
    .collect();
    match set.len() {
        0 if config.features.enable_api_fields == ApiFields::Alpha => {
            errors.push(FieldError::neither(&["taskRef", "taskSpec", "pipelineRef", "pipelineSpec"]));
        }
        0 => errors.push(FieldError::neither(&["taskRef", "taskSpec"])),
        1 => {}
        _ => errors.push(FieldError::new("expected exactly one, got multiple", &set)),
    }
    for field in set {
        if field.starts_with("pipeline") {
            errors.also(common::gate(field, ApiFields::Alpha, config, field));
        }
        if field.ends_with("Spec")
            && config.features.disable_inline_spec.iter().any(|kind| kind == "pipeline")
        {
            errors.push(FieldError::disallowed(&[field]));
        }
    }
    errors
}

fn task_reference(task_ref: &TaskRef, config: &Config) -> FieldErrors {
    let custom = !task_ref.api_version.is_empty() || !["", "Task"].contains(&task_ref.kind.as_str());
    if custom {
        return custom_task("ref", &task_ref.kind, &task_ref.api_version);
    }
    common::Reference {
        name: &task_ref.name,
        resolver: &task_ref.resolver,
        params: &task_ref.params,
        variables: true,
    }
    .validate(config)
}

fn embedded_task(
    embedded: &EmbeddedTask,
    given: &[Param],
    around: Around<'_>,
    config: &Config,
) -> FieldErrors {
    let EmbeddedTask { api_version, kind, task_spec, .. } = embedded;
    let mut errors = FieldErrors::default();
    if task_spec.steps.is_empty() && !(api_version.is_empty() && kind.is_empty()) {
        return custom_task("spec", kind, api_version);
    }
    for (text, field) in [(api_version, "apiVersion"), (kind, "kind")] {
        if !text.is_empty() {
            errors.push(FieldError::new(
                format!("taskSpec.{field} cannot be specified when using taskSpec.steps"),
                &[field],
            ));
        }
    }
    let pool = Pool::new(&task_spec.params, around).given(given);
    errors.also(task::task_spec(task_spec, &pool, config));
    errors
}

fn custom_task(what: &str, kind: &str, api_version: &str) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (text, field) in [(kind, "kind"), (api_version, "apiVersion")] {
        if text.is_empty() {
            errors.push(FieldError::invalid(format!("custom task {what} must specify {field}"), field));
        }
    }
    let (group, version) = api_version.split_once('/').unwrap_or_default();
    if !api_version.is_empty() && (group.is_empty() || version.is_empty() || version.contains('/')) {
        errors.push(FieldError::invalid(
            format!("invalid apiVersion format \"{api_version}\", must be in the format \"group/version\""),
            "apiVersion",
        ));
    }
    errors
}

fn on_error(task: &PipelineTask, config: &Config) -> FieldErrors {
    let on_error = task.on_error.as_str();
    if on_error.is_empty() || on_error.starts_with("$(params") {
        return FieldErrors::default();
    }
    let mut errors = common::gate("OnError", ApiFields::Beta, config, "onError");
    if !["continue", "stopAndFail"].contains(&on_error) {
        errors.push(
            FieldError::invalid(on_error, "onError")
                .detail("PipelineTask OnError must be either \"continue\" or \"stopAndFail\""),
        );
    }
    if on_error == "continue" && task.retries > 0 {
        errors.push(FieldError::new(
            "PipelineTask OnError cannot be set to \"continue\" when Retries is greater than 0",
            &["onError"],
        ));
    }
    errors
}

/// `$(tasks.<task>.inputs|outputs.<artifact>)` in the params.
fn artifacts(task: &PipelineTask, config: &Config) -> FieldErrors {
    if config.features.enable_artifacts || !task.params.iter().any(|param| holds_task_artifact(&param.value))
    {
        return FieldErrors::default();
    }
    FieldError::new(
        "feature flag enable-artifacts should be set to true to use artifacts feature.",
        &["params"],
    )
    .into()
}

fn holds_task_artifact(value: &ParamValue) -> bool {
    let texts = references::texts(value).filter(|text| may_hold_variables(text));
    texts.flat_map(variables::variables).any(|variable| is_task_artifact(&variable))
}

fn matrix(matrix: &Matrix, params: &[Param], config: &Config) -> FieldErrors {
    let mut errors = common::gate("matrix", ApiFields::Beta, config, "matrix");
    let (count, limit) = (combinations(matrix), config.defaults.max_matrix_combinations);
    if count > limit {
        errors.push(FieldError::out_of_bounds(count, 0, limit, "matrix"));
    }
    errors.also(unique(&matrix.params).via_field("matrix"));
    for (index, include) in matrix.include.iter().enumerate() {
        errors.also(unique(&include.params).via_index("include", index).via_field("matrix"));
    }
    let included = matrix.include.iter().flat_map(|include| &include.params);
    let names: BTreeSet<&str> =
        matrix.params.iter().chain(included).map(|param| param.name.as_str()).collect();
    for param in params.iter().filter(|param| names.contains(param.name.as_str())) {
        let name = &param.name;
        errors.push(FieldError::both(&[&format!("matrix[{name}]"), &format!("params[{name}]")]));
    }
    errors
}

/// The number of children, by upstream's own count (contract 7.2): the product of the literal arrays, and for each
/// `include` entry the leading values of its params that no array lists.
fn combinations(matrix: &Matrix) -> usize {
    if matrix.params.is_empty() {
        return matrix.include.len();
    }
    let mut listed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut product = 1_usize;
    for param in &matrix.params {
        // A reference to an array has a length only at run time.
        let ParamValue::Array(items) = &param.value else { continue };
        product = product.saturating_mul(items.len());
        listed.entry(&param.name).or_default().extend(items.iter().map(String::as_str));
    }
    let added = matrix.include.iter().map(|include| {
        include
            .params
            .iter()
            .filter_map(|param| Some((listed.get(param.name.as_str())?, param.value.as_str()?)))
            .take_while(|(listed, value)| !listed.contains(value))
            .count()
    });
    added.fold(product, usize::saturating_add)
}

/// Params given to a pipeline task: no name twice, by its exact spelling.
fn unique(params: &[Param]) -> FieldErrors {
    let mut seen = BTreeSet::new();
    params
        .iter()
        .enumerate()
        .filter(|(_, param)| !seen.insert(param.name.as_str()))
        .map(|(index, param)| {
            FieldError::new(
                format!(
                    "parameter names must be unique, the parameter \"{}\" is also defined at",
                    param.name
                ),
                &[&format!("params[{index}].name")],
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn check(task: Value, config: &Config) -> String {
        let task: PipelineTask = serde_json::from_value(task).unwrap();
        validate(&task, Around::Unknown, &task.params, config).to_string()
    }

    #[rstest]
    #[case(json!({"name": "a", "taskRef": {"name": "t", "kind": "Task"}}), "")]
    #[case(json!({"name": "a", "taskRef": {"name": "$(params.t)", "kind": "Task"}}), "")]
    #[case(json!({"name": "a", "taskRef": {"name": "t", "kind": "K", "apiVersion": "e.dev/v1"}}), "")]
    #[case(json!({"name": "a", "taskSpec": {"apiVersion": "e.dev/v1", "kind": "K", "spec": {}}}), "")]
    #[case(json!({"name": "a"}), "expected exactly one, got neither: taskRef, taskSpec")]
    #[case(
        json!({"name": "a", "taskRef": {"name": "t"}, "taskSpec": {"steps": [{"image": "i"}]}}),
        "expected exactly one, got multiple: taskRef, taskSpec"
    )]
    #[case(
        json!({"name": "a", "pipelineRef": {"name": "p"}}),
        "pipelineRef requires \"enable-api-fields\" feature gate to be \"alpha\" but it is \"beta\": pipelineRef"
    )]
    #[case(json!({"name": "a", "taskRef": {"kind": "Task"}}), "missing field(s): taskRef.name")]
    #[case(
        json!({"name": "a", "taskRef": {"kind": "K"}}),
        "invalid value: custom task ref must specify apiVersion: taskRef.apiVersion"
    )]
    #[case(
        json!({"name": "a", "taskSpec": {"apiVersion": "v1", "kind": "K"}}),
        "invalid value: invalid apiVersion format \"v1\", must be in the format \"group/version\": taskSpec.apiVersion"
    )]
    #[case(
        json!({"name": "a", "taskSpec": {"apiVersion": "e.dev/v1", "steps": [{"image": "i"}]}}),
        "taskSpec.apiVersion cannot be specified when using taskSpec.steps: taskSpec.apiVersion"
    )]
    #[case(json!({"name": "a", "taskSpec": {}}), "missing field(s): taskSpec.steps")]
    #[case(
        json!({"name": "a", "taskRef": {"name": "t"}, "params": [{"name": "p"}, {"name": "P"}, {"name": "p"}]}),
        "parameter names must be unique, the parameter \"p\" is also defined at: params[2].name"
    )]
    #[case(
        json!({"name": "a", "taskRef": {"name": "t"}, "onError": "continue", "retries": 1}),
        "PipelineTask OnError cannot be set to \"continue\" when Retries is greater than 0: onError"
    )]
    #[case(json!({"name": "a", "taskRef": {"name": "t"}, "onError": "$(params.e)", "retries": 1}), "")]
    #[case(
        json!({"name": "a", "taskRef": {"name": "t"}, "onError": "no"}),
        "invalid value: no: onError\nPipelineTask OnError must be either \"continue\" or \"stopAndFail\""
    )]
    #[case(
        json!({"name": "a", "taskRef": {"name": "t"}, "params": [{"name": "p", "value": "v"}], "matrix": {"params": [{"name": "p", "value": ["v"]}]}}),
        "expected exactly one, got both: matrix[p], params[p]"
    )]
    fn tasks(#[case] task: Value, #[case] text: &str) {
        assert_eq!(check(task, &Config::default()), text);
    }

    #[test]
    fn an_embedded_task_may_use_every_key_it_is_given() {
        let task = json!({
            "name": "a",
            "params": [{"name": "o", "value": {"given": "v"}}],
            "taskSpec": {
                "params": [{"name": "o", "type": "object", "properties": {"declared": {}}}],
                "steps": [{"image": "$(params.o.given)$(params.o.declared)$(params.o.no)"}],
            },
        });
        let expected = "non-existent variable in \"$(params.o.given)$(params.o.declared)$(params.o.no)\": \
                        taskSpec.steps[0].image";
        assert_eq!(check(task, &Config::default()), expected);
    }

    #[test]
    fn a_name_is_a_label() {
        let text = check(json!({"name": "a_b", "taskRef": {"name": "t"}}), &Config::default());
        assert_eq!(text.lines().next(), Some("invalid value \"a_b\": name"));
    }

    #[test]
    fn inline_specs_can_be_forbidden() {
        let mut config = Config::default();
        config.features.disable_inline_spec = vec!["pipeline".to_owned()];
        let task = json!({"name": "a", "taskSpec": {"steps": [{"image": "i"}]}});
        assert_eq!(check(task, &config), "must not set the field(s): taskSpec");
    }

    #[test]
    fn a_matrix_has_a_limit() {
        let mut config = Config::default();
        config.defaults.max_matrix_combinations = 3;
        let task = json!({"name": "a", "taskRef": {"name": "t"}, "matrix": {"params": [
            {"name": "p", "value": ["1", "2"]}, {"name": "q", "value": ["1", "2"]},
        ]}});
        assert_eq!(check(task, &config), "expected 0 <= 4 <= 3: matrix");
    }

    /// The worked example of contract 12.9.
    #[test]
    fn includes_are_counted_by_their_leading_unlisted_values() {
        let matrix: Matrix = serde_json::from_value(json!({
            "params": [{"name": "os", "value": ["linux", "mac"]}, {"name": "arch", "value": ["x", "y", "z"]}],
            "include": [
                {"name": "common", "params": [{"name": "flags", "value": "-a"}]},
                {"name": "macs", "params": [{"name": "os", "value": "mac"}, {"name": "extra", "value": "e"}]},
                {"name": "clash", "params": [
                    {"name": "os", "value": "linux"}, {"name": "arch", "value": "z"}, {"name": "flags", "value": "-b"},
                ]},
                {"name": "fresh", "params": [{"name": "os", "value": "bsd"}, {"name": "arch", "value": "w"}]},
                {"name": "mixed", "params": [{"name": "os", "value": "bsd2"}, {"name": "arch", "value": "x"}]},
            ],
        }))
        .unwrap();
        assert_eq!(combinations(&matrix), 9);
    }
}
