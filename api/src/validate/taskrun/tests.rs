#![expect(clippy::needless_pass_by_value, reason = "tables of cases hand their values over")]

use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn run(spec: Value, status: Value) -> TaskRun {
    let object = json!({"apiVersion": "tekton.dev/v1", "kind": "TaskRun", "metadata": {"name": "r"}, "spec": spec, "status": status});
    serde_json::from_value(object).unwrap()
}

/// A spec with a reference and one more field.
fn with(field: &str, value: Value) -> Value {
    let mut spec = json!({"taskRef": {"name": "t", "kind": "Task"}});
    spec[field] = value;
    spec
}

#[rstest]
#[case(with("retries", json!(3)), "")]
#[case(json!({"params": [{"name": "outer", "value": "v"}], "taskSpec": {"steps": [{"image": "$(params.outer)"}]}}), "")]
#[case(
    json!({"params": [{"name": "o", "value": {"more": "v"}}], "taskSpec": {
        "params": [{"name": "o", "properties": {"k": {}}}], "steps": [{"image": "$(params.o.more)$(params.o.k)"}],
    }}),
    ""
)]
#[case(json!({}), "expected exactly one, got neither: spec.taskRef, spec.taskSpec")]
#[case(
    with("taskSpec", json!({"steps": [{"image": "i"}]})),
    "expected exactly one, got both: spec.taskRef, spec.taskSpec"
)]
#[case(
    json!({"taskSpec": {"steps": [{"image": "$(params.no)"}]}}),
    "non-existent variable in \"$(params.no)\": spec.taskSpec.steps[0].image"
)]
#[case(with("retries", json!(-1)), "invalid value: -1 must be >=0: spec.retries")]
#[case(with("timeout", json!("-1s")), "invalid value: -1s should be >= 0: spec.timeout")]
#[case(with("status", json!("Stop")), "invalid value: Stop should be TaskRunCancelled or TaskRunPending: spec.status")]
#[case(
    with("statusMessage", json!("x")),
    "invalid value: statusMessage should not be set if status is not set, but it is currently set to x: spec.statusMessage"
)]
#[case(
    with("params", json!([{"name": "a", "value": "1"}, {"name": "A", "value": "1"}])),
    "expected exactly one, got both: spec.params[A].name"
)]
#[case(with("stepSpecs", json!([{}])), "missing field(s): spec.stepSpecs[0].name")]
#[case(
    with("debug", json!({"breakpoints": {"onFailure": "enabled"}})),
    "debug requires \"enable-api-fields\" feature gate to be \"alpha\" but it is \"beta\": spec.debug"
)]
fn rules(#[case] spec: Value, #[case] text: &str) {
    assert_eq!(run(spec, json!({})).validate(&Config::default()).to_string(), text);
}

#[test]
fn breakpoints_need_on_failure() {
    let mut config = Config::default();
    config.features.enable_api_fields = ApiFields::Alpha;
    let spec = with("debug", json!({"breakpoints": {"beforeSteps": ["a", "a"]}}));
    assert_eq!(
        run(spec, json!({})).validate(&config).to_string(),
        "before step must be unique, the same step: a is defined multiple times at: spec.debug.breakpoints.beforeSteps[1]\n\
         invalid value:  is not a valid onFailure breakpoint value, onFailure breakpoint is only allowed to be set as \
         enabled: spec.debug.breakpoints.onFailure"
    );
}

#[test]
fn forbidden_env_and_inline_specs_are_refused() {
    let mut config = Config::default();
    config.defaults.forbidden_env = vec!["PATH".to_owned()];
    config.features.disable_inline_spec = vec!["taskrun".to_owned()];
    let spec = json!({"taskSpec": {"steps": [{"image": "i"}]}, "podTemplate": {"env": [{"name": "PATH"}]}});
    assert_eq!(
        run(spec, json!({})).validate(&config).to_string(),
        "invalid value: PodTemplate cannot update a forbidden env: PATH: spec.PodTemplate.Env\n\
         must not set the field(s): spec.taskSpec"
    );
}

const STARTED: &str =
    "invalid value: Once the TaskRun has started, only status and statusMessage updates are allowed: spec";
const COMPLETE: &str = "invalid value: Once the TaskRun is complete, no updates are allowed: spec";

#[rstest]
#[case::cancel(json!({}), with("status", json!("TaskRunCancelled")), "")]
#[case::cancel_with_message(json!({"startTime": "2024-01-01T00:00:00Z"}), json!({"taskRef": {"name": "t", "kind": "Task"}, "status": "TaskRunCancelled", "statusMessage": "m"}), "")]
#[case::timeout(json!({}), with("timeout", json!("1m")), STARTED)]
#[case::retries(json!({"startTime": "2024-01-01T00:00:00Z"}), with("retries", json!(1)), STARTED)]
#[case::done(json!({"conditions": [{"type": "Succeeded", "status": "True"}]}), with("status", json!("TaskRunCancelled")), COMPLETE)]
#[case::done_same(json!({"conditions": [{"type": "Succeeded", "status": "False"}]}), with("retries", json!(0)), "")]
#[case::managed_by(json!({}), with("managedBy", json!("me")), "invalid value: managedBy is immutable: spec.spec.managedBy")]
#[case::pending(
    json!({"startTime": "2024-01-01T00:00:00Z"}),
    with("status", json!("TaskRunPending")),
    "invalid value: TaskRun cannot be Pending after it is started: spec.status"
)]
fn updates(#[case] old_status: Value, #[case] new_spec: Value, #[case] text: &str) {
    let old = run(json!({"taskRef": {"name": "t", "kind": "Task"}}), old_status);
    // What the new object says of its status must not matter.
    let new = run(new_spec, json!({}));
    assert_eq!(new.validate_update(&old, &Config::default()).to_string(), text);
}

#[test]
fn todays_defaults_do_not_count_as_a_change_of_a_done_run() {
    let old = run(
        json!({"taskRef": {"name": "t"}}),
        json!({"conditions": [{"type": "Succeeded", "status": "True"}]}),
    );
    let mut new = old.clone();
    new.set_defaults(&Config::default());
    assert_ne!(new.spec, old.spec);
    assert_eq!(new.validate_update(&old, &Config::default()).to_string(), "");
}
