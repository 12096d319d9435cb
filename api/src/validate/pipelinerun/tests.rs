#![expect(clippy::needless_pass_by_value, reason = "tables of cases hand their values over")]

use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn run(spec: Value, status: Value) -> PipelineRun {
    let object = json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"name": "r"}, "spec": spec, "status": status});
    serde_json::from_value(object).unwrap()
}

/// A spec with a reference and one more field.
fn with(field: &str, value: Value) -> Value {
    let mut spec = json!({"pipelineRef": {"name": "p"}});
    spec[field] = value;
    spec
}

fn check(spec: Value) -> String {
    run(spec, json!({})).validate(&Config::default()).to_string()
}

#[rstest]
#[case(with("status", json!("PipelineRunPending")), "")]
#[case(json!({}), "expected exactly one, got neither: spec.pipelineRef, spec.pipelineSpec")]
#[case(
    with("pipelineSpec", json!({"tasks": [{"name": "a", "taskRef": {"name": "t"}}]})),
    "expected exactly one, got both: spec.pipelineRef, spec.pipelineSpec"
)]
#[case(
    with("status", json!("Stop")),
    "invalid value: Stop should be Cancelled, CancelledRunFinally, StoppedRunFinally or PipelineRunPending: spec.status"
)]
#[case(
    with("params", json!([{"name": "p", "value": "$(tasks.a.results.r)"}])),
    "invalid value: cannot use result expressions in [tasks.a.results.r] as PipelineRun parameter values: \
     spec.params[p].value"
)]
#[case(
    with("workspaces", json!([{"name": "w", "emptyDir": {}}, {"name": "x", "emptyDir": {}}, {"name": "w", "emptyDir": {}}])),
    "workspace \"w\" provided by pipelinerun more than once, at index 0 and 2: spec.workspaces[2].name"
)]
fn rules(#[case] spec: Value, #[case] text: &str) {
    assert_eq!(check(spec), text);
}

#[rstest]
#[case(json!({"pipeline": "1h", "tasks": "30m", "finally": "30m"}), "")]
#[case(json!({"pipeline": "0", "tasks": "2h"}), "")]
#[case(json!({"pipeline": "-1s"}), "invalid value: -1s should be >= 0: spec.timeouts.pipeline")]
#[case(json!({"tasks": "2h"}), "invalid value: 2h0m0s should be <= pipeline duration: spec.timeouts.tasks")]
#[case(
    json!({"pipeline": "1h", "finally": "0"}),
    "invalid value: 0s (no timeout) should be <= pipeline duration: spec.timeouts.finally"
)]
#[case(
    json!({"pipeline": "1h", "tasks": "1h", "finally": "1h"}),
    "invalid value: 1h0m0s + 1h0m0s should be <= pipeline duration: spec.timeouts.finally, spec.timeouts.tasks"
)]
#[case(
    json!({"pipeline": "0", "tasks": "1h", "finally": "1h"}),
    "invalid value: 1h0m0s + 1h0m0s should be <= pipeline duration: spec.timeouts.finally, spec.timeouts.tasks"
)]
fn timeouts_fit_into_each_other(#[case] timeouts: Value, #[case] text: &str) {
    assert_eq!(check(with("timeouts", timeouts)), text);
}

#[rstest]
#[case(json!({"tasks": "1h"}), "2h", "2h0m0s should be <= pipeline tasks duration")]
#[case(json!({"pipeline": "1h"}), "2h", "2h0m0s should be <= pipeline duration")]
#[case(Value::Null, "2h", "2h0m0s should be <= default pipeline duration 1h0m0s")]
#[case(Value::Null, "-1s", "-1s should be >= 0")]
fn a_tasks_timeout_fits_into_the_runs(#[case] timeouts: Value, #[case] timeout: &str, #[case] text: &str) {
    let mut spec = with("timeouts", timeouts);
    spec["taskRunSpecs"] = json!([{"pipelineTaskName": "a", "timeout": timeout}]);
    assert_eq!(check(spec), format!("invalid value: {text}: spec.taskRunSpecs[0].timeout"));
}

#[test]
fn no_limit_takes_any_timeout() {
    let mut spec = with("timeouts", json!({"pipeline": "0"}));
    spec["taskRunSpecs"] = json!([{"pipelineTaskName": "a", "timeout": "9h"}]);
    assert_eq!(check(spec), "");
}

fn embedded(step: Value, list: &str) -> Value {
    let mut spec = json!({
        "params": [{"name": "given", "value": "v"}],
        "pipelineSpec": {
            "params": [{"name": "declared", "default": "v"}],
            "tasks": [{"name": "other", "taskSpec": {
                "params": [{"name": "elsewhere", "default": "v"}], "steps": [{"image": "i"}],
            }}],
        },
    });
    let task = json!({"name": "t", "taskSpec": {"steps": [step]}});
    match spec["pipelineSpec"][list].as_array_mut() {
        Some(tasks) => tasks.push(task),
        None => spec["pipelineSpec"][list] = json!([task]),
    }
    spec
}

#[rstest]
#[case("tasks", "$(params.given) $(params.declared) $(params.elsewhere)", "")]
#[case(
    "tasks",
    "$(params.no)",
    "non-existent variable in \"$(params.no)\": spec.pipelineSpec.tasks[1].taskSpec.steps[0].script"
)]
#[case("finally", "$(params.no)", "")]
fn params_propagate_into_embedded_tasks(#[case] list: &str, #[case] script: &str, #[case] text: &str) {
    assert_eq!(check(embedded(json!({"image": "i", "script": script}), list)), text);
}

const STARTED: &str =
    "invalid value: Once the PipelineRun has started, only status updates are allowed: spec";
const COMPLETE: &str = "invalid value: Once the PipelineRun is complete, no updates are allowed: spec";

#[rstest]
#[case::params(json!({}), with("params", json!([{"name": "a", "value": "b"}])), STARTED)]
#[case::cancel(json!({}), with("status", json!("CancelledRunFinally")), "")]
#[case::release(json!({}), with("status", json!("")), "")]
#[case::pending(
    json!({"startTime": "2024-01-01T00:00:00Z"}),
    with("status", json!("PipelineRunPending")),
    "invalid value: PipelineRun cannot be Pending after it is started: spec.status"
)]
#[case::done(json!({"conditions": [{"type": "Succeeded", "status": "False"}]}), with("status", json!("Cancelled")), COMPLETE)]
#[case::managed_by(json!({}), with("managedBy", json!("me")), "invalid value: managedBy is immutable: spec.spec.managedBy")]
fn updates(#[case] old_status: Value, #[case] new_spec: Value, #[case] text: &str) {
    let old = run(json!({"pipelineRef": {"name": "p"}}), old_status);
    let new = run(new_spec, json!({}));
    assert_eq!(new.validate_update(&old, &Config::default()).to_string(), text);
}
