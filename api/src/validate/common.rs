//! Rules that several kinds share: stability gates, references, given params, `when`, workspace bindings.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ResourceRequirements;

use super::names::{is_qualified_name, looks_like_url};
use super::{FieldError, FieldErrors, cel};
use crate::config::{ApiFields, Config};
use crate::{GoDuration, Param, TaskRunSidecarSpec, TaskRunStepSpec, WhenExpression, WorkspaceBinding};

/// The flag that lets in what is not stable yet.
const GATE: &str = "enable-api-fields";

/// Refuses `feature` unless `enable-api-fields` is at least `needed`.
pub(super) fn gate(feature: &str, needed: ApiFields, config: &Config, path: &str) -> FieldErrors {
    let current = config.features.enable_api_fields;
    if current >= needed {
        return FieldErrors::default();
    }
    let allowed = match needed {
        ApiFields::Alpha => "\"alpha\"",
        _ => "\"alpha\" or \"beta\"",
    };
    FieldError::new(
        format!(
            "{feature} requires \"{GATE}\" feature gate to be {allowed} but it is \"{}\"",
            current.as_str()
        ),
        &[path],
    )
    .into()
}

/// The parts that all references have: to Tasks, Pipelines and StepActions.
pub(super) struct Reference<'a> {
    pub(super) name: &'a str,
    pub(super) resolver: &'a str,
    pub(super) params: &'a [Param],
    /// The name may hold variables, to be judged once they are replaced.
    pub(super) variables: bool,
}

impl Reference<'_> {
    /// Exactly one way to find the thing referred to (contract 2.1).
    pub(super) fn validate(&self, config: &Config) -> FieldErrors {
        let mut errors = FieldErrors::default();
        let concise = || {
            FieldErrors::from_iter((!config.features.enable_concise_resolver_syntax).then(|| {
                FieldError::new(
                    "feature flag enable-concise-resolver-syntax should be set to true to use concise resolver \
                     syntax",
                    &[""],
                )
            }))
        };
        if !self.resolver.is_empty() {
            errors.also(gate("resolver", ApiFields::Beta, config, "resolver"));
            if !self.name.is_empty() {
                errors.also(concise());
                if !looks_like_url(self.name) {
                    errors.push(FieldError::invalid("invalid URI for request", "name"));
                }
            }
        }
        if !self.params.is_empty() {
            errors.also(gate("resolver params", ApiFields::Beta, config, "params"));
            if !self.name.is_empty() {
                errors.push(
                    FieldError::both(&["name", "params"]).hint(
                        "params in a reference are for its resolver; those of what runs stand beside it",
                    ),
                );
            }
            if self.resolver.is_empty() {
                errors.push(FieldError::missing(&["resolver"]));
            }
            errors.also(unique_params(self.params));
        }
        if self.resolver.is_empty() && self.params.is_empty() {
            if self.name.is_empty() {
                errors.push(FieldError::missing(&["name"]));
            } else if looks_like_url(self.name) {
                errors.also(concise());
                errors.push(FieldError::missing(&["resolver"]));
            } else if !(is_qualified_name(self.name) || self.variables && self.name.contains("$(")) {
                errors.push(FieldError::invalid(
                    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                     with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                     validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                    "name",
                ));
            }
        }
        errors
    }
}

/// Given params: no name twice, whatever its case (contract 2.1).
pub(super) fn unique_params(params: &[Param]) -> FieldErrors {
    let mut seen = BTreeSet::new();
    params
        .iter()
        .filter(|param| !seen.insert(param.name.to_lowercase()))
        .map(|param| FieldError::both(&[&format!("params[{}].name", param.name)]))
        .collect()
}

/// The `when` list of a pipeline task or step.
pub(super) fn when(expressions: &[WhenExpression], config: &Config) -> FieldErrors {
    let mut errors = FieldErrors::default();
    for (index, expression) in expressions.iter().enumerate() {
        errors.also(when_expression(expression, config).via_index("when", index));
    }
    errors
}

fn when_expression(expression: &WhenExpression, config: &Config) -> FieldErrors {
    let WhenExpression { input, operator, values, cel } = expression;
    if !cel.is_empty() {
        if !config.features.enable_cel_in_when_expression {
            return FieldError::new(
                format!(
                    "feature flag enable-cel-in-whenexpression should be set to true to use CEL: {cel} in \
                     WhenExpression"
                ),
                &[""],
            )
            .into();
        }
        if !(input.is_empty() && operator.is_empty() && values.is_empty()) {
            return FieldError::new(
                format!("cel and input+operator+values cannot be set in one WhenExpression: {cel}"),
                &[""],
            )
            .into();
        }
        return cel::check(cel).err().map_or_else(FieldErrors::default, |error| {
            let wrong = FieldError::new(format!("invalid cel expression: {error}"), &["cel"]);
            // What is substituted is the text of the expression, before anybody reads it.
            let bare = cel.contains("$(") && !cel.contains(['\'', '"']);
            let hint = if bare { "a variable stands in quotes: '$(params.name)' == 'value'" } else { "" };
            wrong.hint(hint).into()
        });
    }
    if input.is_empty() && operator.is_empty() && values.is_empty() {
        return FieldError::missing(&[""]).into();
    }
    if !matches!(operator.as_str(), "in" | "notin") {
        let text = format!("operator \"{operator}\" is not recognized. valid operators: in,notin");
        return FieldError::invalid(text, "").place("operator").into();
    }
    if values.is_empty() {
        return FieldError::invalid("expecting non-empty values field", "").place("values").into();
    }
    FieldErrors::default()
}

/// What a run binds a workspace to: exactly one source, and what that source needs (contract 2.1).
pub(super) fn workspace_binding(binding: &WorkspaceBinding) -> FieldErrors {
    // Upstream counts seven sources and names these.
    const NAMED: [&str; 5] =
        ["persistentvolumeclaim", "volumeclaimtemplate", "emptydir", "configmap", "secret"];
    let count = [
        binding.volume_claim_template.is_some(),
        binding.persistent_volume_claim.is_some(),
        binding.empty_dir.is_some(),
        binding.config_map.is_some(),
        binding.secret.is_some(),
        binding.projected.is_some(),
        binding.csi.is_some(),
    ]
    .into_iter()
    .filter(|set| *set)
    .count();
    let mut errors = FieldErrors::default();
    match count {
        0 => errors.push(FieldError::neither(&NAMED)),
        1 => {}
        _ => errors.push(FieldError::both(&NAMED)),
    }
    let mut require = |missing: bool, path: &str| {
        if missing {
            errors.push(FieldError::missing(&[path]));
        }
    };
    let claim = binding.persistent_volume_claim.as_ref();
    require(claim.is_some_and(|claim| claim.claim_name.is_empty()), "persistentvolumeclaim.claimname");
    require(binding.config_map.as_ref().is_some_and(|map| map.name.is_empty()), "configmap.name");
    let secret = binding.secret.as_ref();
    require(secret.is_some_and(|s| s.secret_name.as_deref().is_none_or(str::is_empty)), "secret.secretName");
    let projected = binding.projected.as_ref();
    require(projected.is_some_and(|p| p.sources.as_ref().is_none_or(Vec::is_empty)), "projected.sources");
    require(binding.csi.as_ref().is_some_and(|csi| csi.driver.is_empty()), "csi.driver");
    errors
}

/// The bindings of a TaskRun or CustomRun: each right, no name twice, whatever its case.
pub(super) fn workspace_bindings(bindings: &[WorkspaceBinding]) -> FieldErrors {
    let mut seen = BTreeSet::new();
    let mut errors = FieldErrors::default();
    for (index, binding) in bindings.iter().enumerate() {
        if !seen.insert(binding.name.to_lowercase()) {
            errors.push(FieldError::both(&[&format!("workspaces[{index}].name")]));
        }
        errors.also(workspace_binding(binding).via_index("workspaces", index));
    }
    errors
}

/// Resources for single steps and sidecars, beside those for the whole task (contract 2.4).
pub(super) fn overrides(
    steps: &[TaskRunStepSpec],
    sidecars: &[TaskRunSidecarSpec],
    whole_task: bool,
    config: &Config,
) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if !steps.is_empty() {
        errors.also(gate("stepSpecs", ApiFields::Beta, config, "stepSpecs"));
    }
    if !sidecars.is_empty() {
        errors.also(gate("sidecarSpecs", ApiFields::Beta, config, "sidecarSpecs"));
    }
    if whole_task {
        errors.also(gate("computeResources", ApiFields::Beta, config, "computeResources"));
    }
    let names = |field: &str, names: Vec<&str>| {
        let mut seen = BTreeSet::new();
        let mut errors = FieldErrors::default();
        for (index, name) in names.into_iter().enumerate() {
            let path = format!("{field}[{index}].name");
            if name.is_empty() {
                errors.push(FieldError::missing(&[&path]));
            } else if !seen.insert(name.to_lowercase()) {
                errors.push(FieldError::both(&[&path]));
            }
        }
        errors
    };
    errors.also(names("stepSpecs", steps.iter().map(|spec| spec.name.as_str()).collect()));
    errors.also(names("sidecarSpecs", sidecars.iter().map(|spec| spec.name.as_str()).collect()));
    let step = steps.iter().position(|spec| spec.compute_resources != ResourceRequirements::default());
    if let Some(index) = step.filter(|_| whole_task) {
        errors.push(FieldError::both(&[&format!("stepSpecs[{index}].computeResources"), "computeResources"]));
    }
    errors
}

/// `podTemplate.env` must leave the forbidden names alone; `path` is where upstream reports it.
pub(super) fn forbidden_env(
    template: Option<&crate::PodTemplate>,
    config: &Config,
    path: &str,
) -> FieldErrors {
    template
        .into_iter()
        .flat_map(|template| &template.env)
        .filter(|env| config.defaults.forbidden_env.contains(&env.name))
        .map(|env| {
            FieldError::invalid(format!("PodTemplate cannot update a forbidden env: {}", env.name), path)
        })
        .collect()
}

/// A duration that must not be negative.
pub(super) fn not_negative(timeout: Option<GoDuration>, path: &str) -> FieldErrors {
    timeout
        .filter(|timeout| *timeout < GoDuration::ZERO)
        .map(|timeout| FieldError::invalid(format!("{timeout} should be >= 0"), path))
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn stable() -> Config {
        let mut config = Config::default();
        config.features.enable_api_fields = ApiFields::Stable;
        config
    }

    #[rstest]
    #[case("t", "", json!([]), "")]
    #[case("a.b/t", "", json!([]), "")]
    #[case("", "git", json!([{"name": "a", "value": "b"}]), "")]
    #[case("", "", json!([]), "missing field(s): name")]
    #[case("t", "git", json!([]), "feature flag enable-concise-resolver-syntax should be set to true to use concise resolver syntax: \ninvalid value: invalid URI for request: name")]
    #[case("t", "", json!([{"name": "a"}]), "expected exactly one, got both: name, params\nmissing field(s): resolver")]
    #[case("", "git", json!([{"name": "a"}, {"name": "A"}]), "expected exactly one, got both: params[A].name")]
    #[case("git://x", "", json!([]), "feature flag enable-concise-resolver-syntax should be set to true to use concise resolver syntax: \nmissing field(s): resolver")]
    fn references(#[case] name: &str, #[case] resolver: &str, #[case] params: Value, #[case] text: &str) {
        let params: Vec<Param> = serde_json::from_value(params).unwrap();
        let reference = Reference { name, resolver, params: &params, variables: false };
        assert_eq!(reference.validate(&Config::default()).to_string(), text);
    }

    #[test]
    fn a_resolver_is_beta() {
        let reference = Reference { name: "", resolver: "git", params: &[], variables: false };
        assert_eq!(
            reference.validate(&stable()).to_string(),
            "resolver requires \"enable-api-fields\" feature gate to be \"alpha\" or \"beta\" but it is \"stable\": \
             resolver"
        );
    }

    #[rstest]
    #[case(json!({"input": "a", "operator": "in", "values": ["a"]}), "")]
    #[case(json!({}), "missing field(s): when[0]")]
    #[case(json!({"input": "a", "operator": "exists", "values": ["a"]}), "invalid value: operator \"exists\" is not recognized. valid operators: in,notin: when[0]")]
    #[case(json!({"input": "a", "operator": "in"}), "invalid value: expecting non-empty values field: when[0]")]
    #[case(json!({"cel": "true"}), "feature flag enable-cel-in-whenexpression should be set to true to use CEL: true in WhenExpression: when[0]")]
    fn when_expressions(#[case] expression: Value, #[case] text: &str) {
        let expression = serde_json::from_value(expression).unwrap();
        assert_eq!(when(&[expression], &Config::default()).to_string(), text);
    }

    #[rstest]
    #[case(json!({"name": "w", "emptyDir": {}}), "")]
    #[case(json!({"name": "w", "projected": {"sources": [{"secret": {"name": "s"}}]}}), "")]
    #[case(json!({"name": "w"}), "expected exactly one, got neither: workspaces[0].configmap, workspaces[0].emptydir, workspaces[0].persistentvolumeclaim, workspaces[0].secret, workspaces[0].volumeclaimtemplate")]
    #[case(json!({"name": "w", "emptyDir": {}, "secret": {"secretName": "s"}}), "expected exactly one, got both: workspaces[0].configmap, workspaces[0].emptydir, workspaces[0].persistentvolumeclaim, workspaces[0].secret, workspaces[0].volumeclaimtemplate")]
    #[case(json!({"name": "w", "persistentVolumeClaim": {"claimName": ""}}), "missing field(s): workspaces[0].persistentvolumeclaim.claimname")]
    #[case(json!({"name": "w", "configMap": {}}), "missing field(s): workspaces[0].configmap.name")]
    #[case(json!({"name": "w", "secret": {}}), "missing field(s): workspaces[0].secret.secretName")]
    #[case(json!({"name": "w", "projected": {}}), "missing field(s): workspaces[0].projected.sources")]
    #[case(json!({"name": "w", "csi": {}}), "missing field(s): workspaces[0].csi.driver")]
    fn bindings(#[case] binding: Value, #[case] text: &str) {
        let binding = serde_json::from_value(binding).unwrap();
        assert_eq!(workspace_bindings(&[binding]).to_string(), text);
    }

    #[test]
    fn a_workspace_is_bound_once() {
        let bindings: Vec<_> =
            serde_json::from_value(json!([{"name": "w", "emptyDir": {}}, {"name": "W", "emptyDir": {}}]))
                .unwrap();
        assert_eq!(
            workspace_bindings(&bindings).to_string(),
            "expected exactly one, got both: workspaces[1].name"
        );
    }

    #[test]
    fn step_resources_exclude_those_of_the_whole_task() {
        let steps: Vec<TaskRunStepSpec> = serde_json::from_value(json!([
            {"name": "a", "computeResources": {"limits": {"cpu": 1}}}, {"name": "a"}, {},
        ]))
        .unwrap();
        assert_eq!(
            overrides(&steps, &[], true, &Config::default()).to_string(),
            "expected exactly one, got both: computeResources, stepSpecs[0].computeResources, stepSpecs[1].name\n\
             missing field(s): stepSpecs[2].name"
        );
    }
}
