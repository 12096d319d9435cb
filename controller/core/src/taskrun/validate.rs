//! What can only be checked once run and Task are both known (contract 2.7).

use std::collections::BTreeMap;

use ropewalk_api::config::Config;
use ropewalk_api::names::step_container;
use ropewalk_api::variables::{self, Reference, Subscript};
use ropewalk_api::{Param, ParamSpec, ParamType, ParamValue, TaskRun, TaskSpec};
use serde_json::Value;

use super::passes;
use super::reason;
use super::resolve::Failure;

/// Refuses what this engine does not do yet, instead of running something else or waiting for ever.
pub(super) fn features(run: &TaskRun, spec: &TaskSpec) -> Result<(), Failure> {
    let unsupported = |place: &str, feature: &str| {
        Err(Failure::of_user(format_args!("{place} uses \"{feature}\", which is not supported")))
    };
    if run.spec.debug.is_some() {
        return unsupported("the TaskRun", "debug");
    }
    for (index, step) in spec.steps.iter().enumerate() {
        let place = || format!("step \"{}\"", step_container(&step.name, index).replacen("step-", "", 1));
        if step.step_ref.is_some() {
            return unsupported(&place(), "ref");
        }
        if step.when.iter().any(|when| !when.cel.is_empty()) {
            return unsupported(&place(), "when.cel");
        }
    }
    let artifact = texts(spec).into_iter().find_map(|text| {
        variables::variables(&text).find(|variable| is_artifact(variable.key)).map(|v| v.raw.to_owned())
    });
    match artifact {
        Some(variable) => unsupported("the Task", &variable),
        None => Ok(()),
    }
}

fn is_artifact(key: &str) -> bool {
    let Some(reference) = Reference::parse(key) else { return false };
    matches!(
        reference.names().as_slice(),
        ["step", "artifacts", "path"] | ["artifacts", "path"] | ["steps", _, "inputs" | "outputs", _]
    )
}

/// Params: given where there is no default, of the declared type, with all keys, from the allowed values.
pub(super) fn params(run: &TaskRun, spec: &TaskSpec, task: &str, config: &Config) -> Result<(), Failure> {
    let given = &run.spec.params;
    let invalid =
        |text: String| Failure::of_user(format_args!("invalid input params for task {task}: {text}"));
    let value_of = |name: &str| given.iter().find(|param| param.name == name).map(|param| &param.value);

    let missing: Vec<&str> = names(spec, |param| param.default.is_none() && value_of(&param.name).is_none());
    if !missing.is_empty() {
        return Err(invalid(format!(
            "missing values for these params which have no default values: [{}]",
            missing.join(" ")
        )));
    }
    let mistyped: Vec<&str> =
        names(spec, |param| value_of(&param.name).is_some_and(|value| !fits(param, value)));
    if !mistyped.is_empty() {
        return Err(invalid(format!(
            "param types don't match the user-specified type: [{}]",
            mistyped.join(" ")
        )));
    }
    let incomplete = missing_keys(spec, given);
    if !incomplete.is_empty() {
        return Err(invalid(format!(
            "missing keys for these params which are required in ParamSpec's properties {}",
            go_map(&incomplete)
        )));
    }
    array_indexes(run, spec)?;
    if config.features.enable_param_enum { allowed(run, spec) } else { Ok(()) }
}

fn names(spec: &TaskSpec, keep: impl Fn(&ParamSpec) -> bool) -> Vec<&str> {
    spec.params.iter().filter(|param| keep(param)).map(|param| param.name.as_str()).collect()
}

/// A string that holds a variable may become anything.
fn fits(declared: &ParamSpec, value: &ParamValue) -> bool {
    declared.value_type() == value.kind() || value.as_str().is_some_and(|text| text.contains("$("))
}

fn missing_keys(spec: &TaskSpec, given: &[Param]) -> BTreeMap<String, Vec<String>> {
    let mut missing = BTreeMap::new();
    for declared in spec.params.iter().filter(|param| param.value_type() == ParamType::Object) {
        let value = given.iter().find(|param| param.name == declared.name).map(|param| &param.value);
        let has = |key: &String| {
            [value, declared.default.as_ref()]
                .into_iter()
                .flatten()
                .any(|value| matches!(value, ParamValue::Object(entries) if entries.contains_key(key)))
        };
        if matches!(value, Some(ParamValue::String(_))) {
            continue;
        }
        let keys: Vec<String> = declared.properties.keys().filter(|key| !has(key)).cloned().collect();
        if !keys.is_empty() {
            missing.insert(declared.name.clone(), keys);
        }
    }
    missing
}

/// `map[a:[x y] b:[z]]`, as the contract's messages spell a map of lists.
pub(super) fn go_map(map: &BTreeMap<String, Vec<String>>) -> String {
    let entries: Vec<String> = map.iter().map(|(key, list)| format!("{key}:[{}]", list.join(" "))).collect();
    format!("map[{}]", entries.join(" "))
}

/// `$(params.a[5])` of an array that is shorter would reach the step as it stands.
fn array_indexes(run: &TaskRun, spec: &TaskSpec) -> Result<(), Failure> {
    let values = passes::param_values(run, spec);
    let mut wrong: Vec<String> = Vec::new();
    for text in texts(spec) {
        for variable in variables::variables(&text) {
            let Some(reference) = variable.path() else { continue };
            let name = match reference.names().as_slice() {
                ["params", name] | ["inputs", "params", name] => (*name).to_owned(),
                _ => continue,
            };
            let (Some(Subscript::Index(index)), Some(ParamValue::Array(items))) =
                (reference.subscript, values.get(&name))
            else {
                continue;
            };
            if index >= items.len() && !wrong.iter().any(|raw| raw == variable.raw) {
                wrong.push(variable.raw.to_owned());
            }
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::of_user(format_args!("non-existent param references:[{}]", wrong.join(" "))))
}

fn allowed(run: &TaskRun, spec: &TaskSpec) -> Result<(), Failure> {
    let values = passes::param_values(run, spec);
    for declared in spec.params.iter().filter(|param| !param.allowed.is_empty()) {
        let Some(value) = values.get(&declared.name).and_then(ParamValue::as_str) else { continue };
        if !value.is_empty() && declared.allowed.iter().all(|allowed| allowed != value) {
            return Err(Failure {
                reason: reason::INVALID_PARAM_VALUE,
                message: format!(
                    "[User error] param `{}` value: {value} is not in the enum list",
                    declared.name
                ),
            });
        }
    }
    Ok(())
}

/// Workspaces: bound unless optional, and declared when bound.
pub(super) fn workspaces(run: &TaskRun, spec: &TaskSpec) -> Result<(), Failure> {
    let bound = &run.spec.workspaces;
    for declared in spec.workspaces.iter().filter(|declared| !declared.optional) {
        if bound.iter().all(|binding| binding.name != declared.name) {
            return Err(Failure::of_user(format_args!(
                "declared workspace \"{}\" is required but has not been bound",
                declared.name
            )));
        }
    }
    for binding in bound {
        if spec.workspaces.iter().all(|declared| declared.name != binding.name) {
            return Err(Failure::of_user(format_args!(
                "workspace binding \"{}\" does not match any declared workspace",
                binding.name
            )));
        }
    }
    Ok(())
}

/// `stepSpecs` and `sidecarSpecs` name steps and sidecars that exist.
pub(super) fn overrides(run: &TaskRun, spec: &TaskSpec) -> Result<(), Failure> {
    for over in &run.spec.step_specs {
        if spec.steps.iter().all(|step| step.name != over.name) {
            return Err(Failure::of_user(format_args!("invalid StepOverride: No Step named {}", over.name)));
        }
    }
    for over in &run.spec.sidecar_specs {
        if spec.sidecars.iter().all(|sidecar| sidecar.name != over.name) {
            return Err(Failure::of_user(format_args!(
                "invalid SidecarOverride: No Sidecar named {}",
                over.name
            )));
        }
    }
    Ok(())
}

/// The first text of a substituted step that refers to a param nobody declares. A value can bring such a reference in;
/// passing it on would hand the step a text its author never meant.
pub(crate) fn unknown_param(spec: &TaskSpec) -> Option<String> {
    let mut found = Vec::new();
    for step in &spec.steps {
        let mut value = serde_json::to_value(step).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            // Words for people are never substituted.
            fields.retain(|field, _| field != "displayName" && field != "results");
        }
        collect(&value, &mut found);
    }
    let unknown = |text: &String| {
        variables::variables(text).filter_map(|variable| variable.path()).any(|reference| {
            match reference.names().as_slice() {
                ["params", name, ..] | ["inputs", "params", name, ..] => {
                    spec.params.iter().all(|declared| declared.name != *name)
                }
                _ => false,
            }
        })
    };
    found.into_iter().find(unknown)
}

/// Every string of a Task's steps, sidecars, template and volumes that holds a variable.
fn texts(spec: &TaskSpec) -> Vec<String> {
    let mut found = Vec::new();
    for part in [
        serde_json::to_value(&spec.steps),
        serde_json::to_value(&spec.sidecars),
        serde_json::to_value(&spec.step_template),
        serde_json::to_value(&spec.volumes),
    ] {
        collect(&part.unwrap_or_default(), &mut found);
    }
    found
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) if text.contains("$(") => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(fields) => fields.values().for_each(|value| collect(value, found)),
        _ => {}
    }
}
