//! What can only be checked at run time (contract 2.7).

use rstest::rstest;

use super::*;

#[rstest]
#[case::missing(
    "{taskSpec: {params: [{name: a}, {name: b}], steps: [{name: s, image: i, script: x}]}}",
    "invalid input params for task t: missing values for these params which have no default values: [a b]"
)]
#[case::mistyped(
    "{params: [{name: a, value: [x]}], taskSpec: {params: [{name: a}], steps: [{name: s, image: i, script: x}]}}",
    "invalid input params for task t: param types don't match the user-specified type: [a]"
)]
#[case::keys(
    "{params: [{name: o, value: {j: x}}], taskSpec: {params: [{name: o, properties: {k: {}, j: {}}}], steps: [{name: s, image: i, script: x}]}}",
    "invalid input params for task t: missing keys for these params which are required in ParamSpec's properties map[o:[k]]"
)]
#[case::index(
    "{params: [{name: a, value: [x]}], taskSpec: {params: [{name: a, type: array}], steps: [{name: s, image: i, script: '$(params.a[0]) $(params.a[5])'}]}}",
    "non-existent param references:[$(params.a[5])]"
)]
#[case::unbound(
    "{taskSpec: {workspaces: [{name: w}], steps: [{name: s, image: i, script: x}]}}",
    "declared workspace \"w\" is required but has not been bound"
)]
#[case::step_override(
    "{stepSpecs: [{name: x, computeResources: {}}], taskSpec: {steps: [{name: s, image: i, script: x}]}}",
    "invalid StepOverride: No Step named x"
)]
#[case::sidecar_override(
    "{sidecarSpecs: [{name: x, computeResources: {}}], taskSpec: {steps: [{name: s, image: i, script: x}]}}",
    "invalid SidecarOverride: No Sidecar named x"
)]
#[case::resources(
    "{taskSpec: {steps: [{name: s, image: i, script: x, computeResources: {requests: {cpu: 8}, limits: {cpu: 4}}}]}}",
    "invalid request resource value: 8 must be less or equal to limit 4"
)]
#[case::step_action(
    "{taskSpec: {steps: [{name: s, ref: {name: action}}]}}",
    "step \"s\" uses \"ref\", which is not supported"
)]
#[case::debug(
    "{debug: {breakpoints: {onFailure: enabled}}, taskSpec: {steps: [{name: s, image: i, script: x}]}}",
    "the TaskRun uses \"debug\", which is not supported"
)]
#[case::cel(
    "{taskSpec: {steps: [{name: s, image: i, script: x, when: [{cel: 'true'}]}]}}",
    "step \"s\" uses \"when.cel\", which is not supported"
)]
#[case::artifacts(
    "{taskSpec: {steps: [{name: s, image: i, script: 'x > $(step.artifacts.path)'}]}}",
    "the Task uses \"$(step.artifacts.path)\", which is not supported"
)]
fn a_run_that_does_not_fit_its_task(#[case] spec: &str, #[case] message: &str) {
    let mut world = World::new(&format!("{{metadata: {{name: t}}, spec: {spec}}}"));
    world.settle();
    assert_eq!(world.said(), format!("False/TaskRunValidationFailed: [User error] {message}"));
    let status = world.status();
    assert_eq!(status.completion_time, world.succeeded().last_transition_time);
    assert!(world.pods.is_empty());
}

#[rstest]
#[case::variable(
    "{params: [{name: a, value: $(x.y)}], taskSpec: {params: [{name: a, type: array}], steps: [{name: s, image: i, script: x}]}}"
)]
#[case::extra("{params: [{name: extra, value: x}], taskSpec: {steps: [{name: s, image: i, script: x}]}}")]
#[case::undeclared_workspace(
    "{workspaces: [{name: w, emptyDir: {}}], taskSpec: {steps: [{name: s, image: i, script: x}]}}"
)]
#[case::optional(
    "{taskSpec: {workspaces: [{name: w, optional: true}], steps: [{name: s, image: i, script: x}]}}"
)]
#[case::default_keys(
    "{params: [{name: o, value: {j: x}}], taskSpec: {params: [{name: o, properties: {k: {}, j: {}}, default: {k: d}}], steps: [{name: s, image: i, script: x}]}}"
)]
fn a_run_that_does(#[case] spec: &str) {
    let mut world = World::new(&format!("{{metadata: {{name: t}}, spec: {spec}}}"));
    world.settle();
    assert_eq!(world.succeeded().reason, "Started");
}

#[test]
fn a_referenced_task_takes_no_workspace_it_does_not_declare() {
    let mut world = World::new(
        "{metadata: {name: t}, spec: {taskRef: {name: x}, workspaces: [{name: w, emptyDir: {}}]}}",
    );
    world.task = Some(
        json!({"metadata": {"name": "x"}, "spec": {"steps": [{"name": "a", "image": "i", "script": "x"}]}}),
    );
    world.settle();
    assert_eq!(
        world.said(),
        "False/TaskRunValidationFailed: [User error] workspace binding \"w\" does not match any declared workspace"
    );
}

#[test]
fn a_value_outside_the_list_of_allowed_ones() {
    let run = |value: &str| {
        let mut world = World::new(&format!(
            "
metadata: {{name: t}}
spec:
  params: [{{name: p, value: '{value}'}}]
  taskSpec: {{params: [{{name: p, enum: [a, b]}}], steps: [{{name: s, image: i, script: x}}]}}
"
        ));
        world.config.features.enable_param_enum = true;
        world.settle();
        world.said()
    };
    assert_eq!(run("c"), "False/InvalidParamValue: [User error] param `p` value: c is not in the enum list");
    assert_eq!(run("a"), "Unknown/Started: ");
    assert_eq!(run(""), "Unknown/Started: ", "the empty string is not checked");
}

#[rstest]
#[case(
    "{taskRef: {name: gone}}",
    "TaskRunResolutionFailed",
    "error when listing tasks for taskRun t: tasks.tekton.dev \"gone\" not found"
)]
#[case(
    "{taskRef: {resolver: git}}",
    "TaskRunResolutionFailed",
    "resolver \"git\" is not supported; embed the Task as taskSpec or apply it and refer to it by name"
)]
#[case(
    "{taskSpec: {steps: [{name: s, image: i}]}}",
    "PodCreationFailed",
    "failed to create task run pod \"t\": translating TaskSpec to Pod: step \"s\" has neither command nor script; \
     set a command, as image entrypoints are not looked up. Maybe invalid TaskSpec"
)]
#[case(
    "{taskSpec: {volumes: [{name: v, emptyDir: {}}, {name: v, emptyDir: {}}], steps: [{name: s, image: i, script: x}]}}",
    "PodCreationFailed",
    "failed to create task run pod \"t\": translating TaskSpec to Pod: multiple volumes with same name \"v\". Maybe \
     invalid TaskSpec"
)]
#[case(
    "{params: [{name: p, value: maybe}], taskSpec: {params: [{name: p}], steps: [{name: s, image: i, script: x, onError: $(params.p)}]}}",
    "PodCreationFailed",
    "failed to create task run pod \"t\": translating TaskSpec to Pod: step \"s\" has onError \"maybe\", expected \
     \"continue\" or \"stopAndFail\". Maybe invalid TaskSpec"
)]
#[case(
    "{params: [{name: p, value: $(params.zzz)}], taskSpec: {params: [{name: p}], steps: [{name: s, image: i, script: echo $(params.p)}]}}",
    "PodCreationFailed",
    "failed to create task run pod \"t\": translating TaskSpec to Pod: non-existent variable in \"echo $(params.zzz)\". \
     Maybe invalid TaskSpec"
)]
fn a_run_that_cannot_become_a_pod(#[case] spec: &str, #[case] reason: &str, #[case] message: &str) {
    let mut world = World::new(&format!("{{metadata: {{name: t}}, spec: {spec}}}"));
    world.settle();
    assert_eq!(world.said(), format!("False/{reason}: {message}"));
}
