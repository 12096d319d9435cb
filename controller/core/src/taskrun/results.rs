//! Task results from the steps' termination messages (contract 5.6 and 12.6).

use std::collections::BTreeMap;

use indexmap::IndexMap;
use k8s_openapi::api::core::v1::Pod;
use ropewalk_api::names::step_container;
use ropewalk_api::{ParamType, ParamValue, TaskResult, TaskRunResult, TaskSpec, references};
use ropewalk_entrypoint_protocol::termination::{ResultType, Termination};

use super::{containers, validate};

/// The results of a pod that has ended, and what is wrong with them.
pub(super) struct Collected {
    /// Those that hold.
    pub(super) results: Vec<TaskRunResult>,
    /// The message of the failure they cause, if any does not fit its declaration.
    pub(super) problem: Option<String>,
}

/// Reads the results of every step; of several with one name the last one counts, in the place of the first.
pub(super) fn collect(pod: &Pod, spec: &TaskSpec) -> Collected {
    let raw = read(pod, spec);
    let mut results = Vec::new();
    let mut mistyped = Vec::new();
    let mut incomplete = BTreeMap::new();
    for (name, text) in &raw {
        let Some(declared) = spec.results.iter().find(|declared| declared.name == *name) else { continue };
        let expected = declared.value_type();
        let value = match expected {
            ParamType::String => ParamValue::String(text.clone()),
            ParamType::Array | ParamType::Object => ParamValue::decode(text),
        };
        if value.kind() != expected {
            mistyped.push(format!(
                "\"{name}\": task result is expected to be \"{expected}\" type but was initialized to a different \
                 type \"{}\"",
                value.kind()
            ));
            continue;
        }
        let missing = missing_keys(declared, &value);
        if !missing.is_empty() {
            incomplete.insert(name.clone(), missing);
        }
        results.push(TaskRunResult {
            name: name.clone(),
            result_type: Some(expected.as_str().to_owned()),
            value,
        });
    }
    mistyped.sort();
    let problem = if !mistyped.is_empty() {
        // Two blanks before the list: the contract's text, to the letter.
        Some(format!(
            "[User error] Provided results don't match declared results; may be invalid JSON or missing result \
             declaration:  {}",
            mistyped.join(",")
        ))
    } else if !incomplete.is_empty() {
        Some(format!(
            "[User error] missing keys for these results which are required in TaskResult's properties {}",
            validate::go_map(&incomplete)
        ))
    } else {
        None
    };
    Collected { results, problem }
}

/// An object without any key is let through (contract 12.6, a quirk of the original).
fn missing_keys(declared: &TaskResult, value: &ParamValue) -> Vec<String> {
    match value {
        ParamValue::Object(entries) if !entries.is_empty() => {
            declared.properties.keys().filter(|key| !entries.contains_key(*key)).cloned().collect()
        }
        _ => Vec::new(),
    }
}

/// Raw texts by result name: those the steps wrote, then those taken over from a step's own results.
fn read(pod: &Pod, spec: &TaskSpec) -> IndexMap<String, String> {
    let mut of_task = IndexMap::new();
    let mut of_steps: BTreeMap<(String, String), String> = BTreeMap::new();
    for container in containers::regular(pod).iter().filter(|container| container.is_step()) {
        let message = container.terminated().and_then(|terminated| terminated.message.as_deref());
        let Ok(termination) = Termination::parse(message.unwrap_or_default()) else { continue };
        for result in termination.results {
            match result.result_type {
                ResultType::TaskRun => {
                    of_task.insert(result.key, result.value);
                }
                ResultType::Step => {
                    of_steps.insert((container.name.to_owned(), result.key), result.value);
                }
                _ => {}
            }
        }
    }
    for declared in &spec.results {
        let Some(value) = declared.value.as_ref().and_then(ParamValue::as_str) else { continue };
        let Some((step, result)) = references::step_result(value) else { continue };
        let container = step_container(step, 0);
        if let Some(text) = of_steps.get(&(container, result.to_owned())) {
            of_task.insert(declared.name.clone(), text.clone());
        }
    }
    of_task
}
