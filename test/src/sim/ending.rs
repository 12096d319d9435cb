//! What became of every run of a world, without what may differ from one telling to the next: times. No IO.

use std::collections::BTreeMap;

use ropewalk_api::conditions::{self, Condition, SUCCEEDED};
use ropewalk_api::{PipelineRun, TaskRun};
use serde_json::{Value, json};

use super::SimError;
use super::api::{Api, Watched};
use super::watch::read;

/// By kind and name.
pub type Ending = BTreeMap<String, Value>;

pub(super) fn ending(api: &Api) -> Result<Ending, SimError> {
    let mut ending = Ending::new();
    for object in api.objects(Watched::PipelineRuns) {
        let run: PipelineRun = read(object)?;
        let status = run.status.unwrap_or_default();
        let told = json!({
            "condition": condition(&status.conditions),
            "children": status.child_references,
            "skipped": status.skipped_tasks,
            "results": status.results,
        });
        ending.insert(format!("PipelineRun {}", run.metadata.name.unwrap_or_default()), told);
    }
    for object in api.objects(Watched::TaskRuns) {
        let run: TaskRun = read(object)?;
        let status = run.status.unwrap_or_default();
        let steps: Vec<Value> = status
            .steps
            .iter()
            .map(|step| {
                let code = step.terminated.as_ref().map(|terminated| terminated.exit_code);
                json!([step.name, step.termination_reason, code])
            })
            .collect();
        let told = json!({
            "condition": condition(&status.conditions),
            "steps": steps,
            "results": status.results,
            "retries": status.retries_status.len(),
            "pod": status.pod_name,
        });
        ending.insert(format!("TaskRun {}", run.metadata.name.unwrap_or_default()), told);
    }
    for object in api.objects(Watched::Pods) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        ending.insert(format!("Pod {name}"), object["status"]["phase"].clone());
    }
    Ok(ending)
}

fn condition(conditions: &[Condition]) -> Value {
    let condition = conditions::find(conditions, SUCCEEDED).cloned().unwrap_or_default();
    json!([condition.status, condition.reason, condition.message])
}
