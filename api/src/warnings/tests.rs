#![expect(clippy::needless_pass_by_value, reason = "tables of cases hand their values over")]

use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn found(kind: &str, spec: Value) -> Vec<String> {
    check(kind, &json!({"spec": spec})).iter().map(ToString::to_string).collect()
}

/// A Task's one step, with one more field.
fn step(field: &str, value: Value) -> Value {
    let mut step = json!({"image": "i:1"});
    step[field] = value;
    json!({"steps": [step]})
}

#[rstest]
#[case(
    "Task",
    step("envFrom", json!([{"configMapRef": {"name": " settings"}}])),
    "spec.steps[0].envFrom[0].configMapRef.name: no ConfigMap can be called \" settings\" (\"settings\" without blanks \
     around it would be one)"
)]
#[case(
    "Task",
    step("env", json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "My_Secret", "key": "k"}}}])),
    "spec.steps[0].env[0].valueFrom.secretKeyRef.name: no Secret can be called \"My_Secret\" (lower-case letters, \
     digits, \"-\" and \".\" make a name)"
)]
#[case(
    "TaskRun",
    json!({"taskRef": {"name": "t"}, "workspaces": [{"name": "w", "secret": {"secretName": "docker-config "}}]}),
    "spec.workspaces[0].secret.secretName: no Secret can be called \"docker-config \" (\"docker-config\" without blanks \
     around it would be one)"
)]
#[case(
    "TaskRun",
    json!({"taskRef": {"name": "t"}, "workspaces": [{"name": "w", "persistentVolumeClaim": {"claimName": "My Claim"}}]}),
    "spec.workspaces[0].persistentVolumeClaim.claimName: no PersistentVolumeClaim can be called \"My Claim\" (lower-case \
     letters, digits, \"-\" and \".\" make a name)"
)]
#[case(
    "PipelineRun",
    json!({"pipelineRef": {"name": "p"}, "taskRunTemplate": {"serviceAccountName": "Builder"}}),
    "spec.taskRunTemplate.serviceAccountName: no ServiceAccount can be called \"Builder\" (lower-case letters, digits, \
     \"-\" and \".\" make a name)"
)]
#[case(
    "PipelineRun",
    json!({"pipelineRef": {"name": "p"}, "taskRunTemplate": {"podTemplate": {"imagePullSecrets": [{"name": "a b"}]}}}),
    "spec.taskRunTemplate.podTemplate.imagePullSecrets[0].name: no Secret can be called \"a b\" (lower-case letters, \
     digits, \"-\" and \".\" make a name)"
)]
#[case(
    "Task",
    step("image", json!("registry:5000/alpine")),
    "spec.steps[0].image: image \"registry:5000/alpine\" has no tag (\"latest\" is taken, which is another one tomorrow)"
)]
#[case(
    "StepAction",
    json!({"image": "alpine:3 "}),
    "spec.image: there are blanks around the image \"alpine:3 \" (no image can be found like that)"
)]
#[case(
    "Task",
    json!({"params": [{"name": "used"}, {"name": "not"}], "steps": [{"image": "i:1", "script": "$(params.used)"}]}),
    "spec.params[1].name: nothing uses param \"not\""
)]
#[case(
    "Task",
    json!({"workspaces": [{"name": "w", "mountPath": "/w"}], "steps": [{"image": "i:1"}]}),
    "spec.workspaces[0].name: nothing uses workspace \"w\" (its files are at $(workspaces.w.path))"
)]
#[case(
    "Task",
    json!({"results": [{"name": "r"}], "steps": [{"image": "i:1"}]}),
    "spec.results[0].name: no step writes result \"r\" (its file is $(results.r.path))"
)]
#[case(
    "Task",
    step("env", json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])),
    "spec.steps[0].env[1].name: environment variable \"A\" is set twice here (the last one is taken)"
)]
#[case(
    "Pipeline",
    json!({"workspaces": [{"name": "v"}, {"name": "w"}], "tasks": [{"name": "a", "taskRef": {"name": "t"}, "workspaces": [{"name": "w", "workspace": "v"}]}]}),
    "spec.workspaces[1].name: no task uses workspace \"w\""
)]
#[case(
    "Pipeline",
    json!({
        "params": [{"name": "p"}],
        "tasks": [{"name": "a", "taskSpec": {"params": [{"name": "p", "default": "x"}], "steps": [{"image": "i:1", "script": "$(params.p)"}]}}],
    }),
    "spec.tasks[0].taskSpec.params[0].name: the task's param \"p\" hides the pipeline's (pass it on: {name: p, value: \
     $(params.p)})"
)]
fn doubts(#[case] kind: &str, #[case] spec: Value, #[case] text: &str) {
    assert_eq!(found(kind, spec), [text]);
}

#[rstest]
#[case("Task", step("image", json!("alpine@sha256:00")))]
#[case("Task", step("image", json!("$(params.image)")))]
#[case("Task", step("envFrom", json!([{"secretRef": {"name": "$(params.s)"}}])))]
#[case("Task", json!({"params": [{"name": "a.b"}, {"name": "o", "type": "object"}], "steps": [{"image": "i:1", "args": ["$(params['a.b'])", "$(inputs.params.o.k)"]}]}))]
#[case("Task", json!({"workspaces": [{"name": "w"}, {"name": "v", "mountPath": "/v"}], "steps": [{"image": "i:1", "script": "ls /workspace/w /v"}]}))]
#[case("Task", json!({"workspaces": [{"name": "w"}], "steps": [{"image": "i:1", "workspaces": [{"name": "w"}]}]}))]
#[case("Task", json!({"results": [{"name": "r"}], "steps": [{"image": "i:1", "script": "date > /tekton/results/r"}]}))]
#[case("Task", json!({"results": [{"name": "r", "value": "$(steps.s.results.r)"}], "steps": [{"image": "i:1"}]}))]
#[case("Task", json!({"results": [{"name": "r"}], "workspaces": [{"name": "w"}], "steps": [{"ref": {"name": "a"}}]}))]
#[case("Task", json!({"results": [{"name": "r-1"}], "steps": [{"image": "i:1", "script": "date > $(results.r-${i}.path)"}]}))]
#[case("CustomRun", json!({"customSpec": {"spec": {"configMap": {"name": "Any Thing"}}}}))]
#[case("PipelineRun", json!({"workspaces": [{"name": "w", "configMap": {"name": "$(params.p)"}}], "pipelineSpec": {"params": [{"name": "p"}], "tasks": []}}))]
fn no_doubts(#[case] kind: &str, #[case] spec: Value) {
    assert_eq!(found(kind, spec), Vec::<String>::new());
}

/// Whoever makes one must not think that it does something, be there a spec or not.
#[rstest]
#[case(
    "VerificationPolicy",
    "kind: signatures are not verified by this version, so this policy keeps nothing from running"
)]
#[case(
    "ResolutionRequest",
    "kind: no resolver acts on requests in this version, so this one stays unanswered"
)]
fn what_nobody_acts_on_says_so(#[case] kind: &str, #[case] text: &str) {
    assert_eq!(found(kind, json!({})), [text]);
    assert_eq!(check(kind, &json!({"kind": kind})).len(), 1);
}

/// Each of so many workspaces would be looked for in all of their names.
#[test]
fn what_would_take_long_to_doubt_is_not_doubted() {
    let workspaces = |count: usize| {
        let workspaces: Vec<_> =
            (0..count).map(|index| json!({"name": format!("workspace-{index}")})).collect();
        json!({"workspaces": workspaces, "steps": [{"image": "i:1"}]})
    };
    assert_eq!(found("Task", workspaces(1000)).len(), 1000);
    let doubted = found("Task", workspaces(50_000)).len();
    assert!(doubted < 100, "{doubted}");
}
