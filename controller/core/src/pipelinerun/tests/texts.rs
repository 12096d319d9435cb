//! The checks before a run starts: reasons and messages of contract 7.6.

use serde_json::json;

use super::World;

const STEP: &str = "steps: [{name: s, image: i, script: 'true'}]";

fn outcome(pipeline: &str, run: &str) -> String {
    let mut world = World::with_spec(pipeline, run);
    world.settle();
    assert!(world.born().is_empty(), "nothing has started: {:?}", world.born());
    assert!(world.status().completion_time.is_some());
    world.condition()
}

#[test]
fn what_fails_before_anything_starts() {
    let task = format!("taskSpec: {{{STEP}}}");
    for (pipeline, run, expected) in [
        (
            format!("tasks: [{{name: a, runAfter: [b], {task}}}, {{name: b, runAfter: [a], {task}}}]"),
            "",
            "False/PipelineInvalidGraph PipelineRun ns/x's Pipeline DAG is invalid: [User error] cycle \
             detected; task \"a\" depends on \"b\"",
        ),
        (
            format!("tasks: [{{name: b, runAfter: [a], {task}}}]"),
            "",
            "False/PipelineInvalidGraph PipelineRun ns/x's Pipeline DAG is invalid: [User error] couldn't \
             add link between b and a: task b depends on a but a wasn't present in Pipeline",
        ),
        (
            format!("tasks: [{{name: a, {task}}}]\nfinally: [{{name: a, {task}}}]"),
            "",
            "False/PipelineInvalidGraph PipelineRun ns/x's Pipeline DAG is invalid for finally clause: \
             [User error] duplicate pipeline task \"a\"",
        ),
        (
            format!(
                "params: [{{name: a}}, {{name: b}}, {{name: c, default: d}}]\ntasks: [{{name: a, {task}}}]"
            ),
            "",
            "False/ParameterMissing PipelineRun ns/x is missing some parameters required by Pipeline ns/x: \
             [User error] pipelineRun missing parameters: [a b]",
        ),
        (
            format!("params: [{{name: a, type: array}}]\ntasks: [{{name: a, {task}}}]"),
            "params: [{name: a, value: text}]",
            "False/ParameterTypeMismatch PipelineRun ns/x parameters have mismatching types with Pipeline \
             ns/x's parameters: [User error] parameters have inconsistent types : [a]",
        ),
        (
            format!(
                "params: [{{name: o, type: object, properties: {{k: {{}}, l: {{}}}}}}]\ntasks: [{{name: a, \
                 {task}}}]"
            ),
            "params: [{name: o, value: {l: v}}]",
            "False/ObjectParameterMissKeys PipelineRun ns/x parameters is missing object keys required by \
             Pipeline ns/x's parameters: [User error] pipelineRun missing object keys for parameters: \
             map[o:[k]]",
        ),
        (
            format!(
                "params: [{{name: a, type: array}}]\ntasks: [{{name: a, {task}, params: [{{name: p, value: \
                 '$(params.a[3])'}}]}}]"
            ),
            "params: [{name: a, value: [x]}]",
            "False/ParamArrayIndexingInvalid PipelineRun ns/x failed validation: failed to validate \
             Pipeline ns/x's parameter which has an invalid index while referring to an array: [User error] \
             non-existent param references:[$(params.a[3])]",
        ),
        (
            format!("workspaces: [{{name: w}}, {{name: v, optional: true}}]\ntasks: [{{name: a, {task}}}]"),
            "",
            "False/InvalidWorkspaceBindings PipelineRun ns/x doesn't bind Pipeline ns/x's Workspaces \
             correctly: [User error] pipeline requires workspace with name \"w\" be provided by pipelinerun",
        ),
        (
            format!("tasks: [{{name: a, {task}}}]"),
            "taskRunSpecs: [{pipelineTaskName: t}]",
            "False/InvalidTaskRunSpecs PipelineRun ns/x doesn't define taskRunSpecs correctly: [User error] \
             pipelineRun's taskrunSpecs defined wrong taskName: \"t\", does not exist in Pipeline",
        ),
        (
            format!(
                "params: [{{name: a, default: $(params.b)}}, {{name: b, default: $(params.a)}}]\ntasks: \
                 [{{name: a, {task}}}]"
            ),
            "",
            "False/PipelineValidationFailed Failed to apply parameters to Pipeline ns/x: [User error] \
             parameter resolution failed: circular dependency detected in param \"params.a\"",
        ),
        (
            "tasks: [{name: a, taskRef: {name: t-$(params.nosuch)}}]".to_owned(),
            "",
            "False/CouldntGetTask Pipeline ns/x can't be Run; it contains Tasks that don't exist: Couldn't \
             retrieve Task \"t-$(params.nosuch)\": tasks.tekton.dev \"t-$(params.nosuch)\" not found",
        ),
        (
            "tasks: [{name: a, taskRef: {name: t}}]".to_owned(),
            "",
            "False/CouldntGetTask Pipeline ns/x can't be Run; it contains Tasks that don't exist: Couldn't \
             retrieve Task \"t\": tasks.tekton.dev \"t\" not found",
        ),
        (
            format!(
                "tasks: [{{name: a, taskSpec: {{params: [{{name: p}}, {{name: q, default: d}}], {STEP}}}}}]"
            ),
            "",
            "False/PipelineValidationFailed Validation failed for pipelinerun x with error [User error] \
             invalid input params for task a: missing values for these params which have no default values: \
             [p]",
        ),
        (
            format!(
                "tasks: [{{name: a, {task}}}, {{name: b, {task}, params: [{{name: p, value: \
                 $(tasks.a.results.r)}}]}}]"
            ),
            "",
            "False/InvalidTaskResultReference [User error] invalid result reference in pipeline task \"b\": \
             \"r\" is not a named result returned by pipeline task \"a\"",
        ),
        (
            format!("results: [{{name: o, value: $(tasks.a.results.r)}}]\ntasks: [{{name: a, {task}}}]"),
            "",
            "False/InvalidPipelineResultReference Failed to resolve pipeline result reference for \"x\" \
             with error [User error] invalid pipeline result \"o\": \"r\" is not a named result returned by \
             pipeline task \"a\"",
        ),
        (
            format!(
                "workspaces: [{{name: w, optional: true}}]
tasks: [{{name: a, workspaces: [{{name: v, workspace: w}}], taskSpec: {{workspaces: [{{name: v}}], \
                 {STEP}}}}}]"
            ),
            "",
            "False/RequiredWorkspaceMarkedOptional Optional workspace not supported by task: [User error] \
             pipeline workspace \"w\" is marked optional but pipeline task \"a\" requires it be provided",
        ),
        (
            "tasks: [{name: a, taskSpec: {steps: [{name: s, image: i, script: 'ls $(workspaces.w.path)'}]}}]"
                .to_owned(),
            "",
            "False/CreateRunFailed expected workspace \"w\" to be provided by pipelinerun for pipeline task \
             \"a\"",
        ),
        (
            format!(
                "params: [{{name: e, default: maybe}}]\ntasks: [{{name: a, onError: $(params.e), {task}}}]"
            ),
            "",
            "False/PipelineValidationFailed Pipeline ns/x can't be Run; it has an invalid spec: [User \
             error] pipeline task \"a\" has the onError value \"maybe\", which must be one of \"continue\" \
             and \"stopAndFail\"",
        ),
    ] {
        assert_eq!(outcome(&pipeline, run), expected);
    }
}

#[test]
fn features_of_later_days_are_refused_by_name() {
    for (task, feature) in [
        ("taskRef: {name: t, apiVersion: example.dev/v1, kind: Custom}".to_owned(), "taskRef.apiVersion"),
        ("taskSpec: {apiVersion: example.dev/v1, kind: Custom, spec: {}}".to_owned(), "taskSpec.apiVersion"),
        ("taskRef: {resolver: git}".to_owned(), "taskRef.resolver"),
        ("pipelineRef: {name: p}".to_owned(), "pipelineRef"),
        (format!("pipelineSpec: {{tasks: [{{name: b, taskSpec: {{{STEP}}}}}]}}"), "pipelineSpec"),
        (format!("taskSpec: {{{STEP}}}, when: [{{cel: 'true'}}]"), "when.cel"),
    ] {
        let condition = outcome(&format!("tasks: [{{name: a, {task}}}]"), "");
        assert_eq!(
            condition,
            format!(
                "False/PipelineValidationFailed Pipeline ns/x can't be Run; it has an invalid spec: [User \
                 error] pipeline task \"a\" uses \"{feature}\", which is not supported yet"
            )
        );
    }
    let mut world =
        World::new("kind: PipelineRun\nmetadata: {name: x}\nspec: {pipelineRef: {resolver: hub}}");
    world.settle();
    assert!(world.condition().contains("uses the resolver \"hub\""), "{}", world.condition());
}

#[test]
fn a_pipeline_that_is_not_there() {
    let mut world = World::new("kind: PipelineRun\nmetadata: {name: x}\nspec: {pipelineRef: {name: p}}");
    world.settle();
    assert_eq!(
        world.condition(),
        "False/CouldntGetPipeline Error retrieving pipeline for pipelinerun ns/x: error when getting \
         Pipeline for PipelineRun x: tekton client cannot get pipeline p from local cluster: \
         pipelines.tekton.dev \"p\" not found"
    );
}

#[test]
fn a_run_for_another_controller_is_left_alone() {
    let mut world = World::with_spec(
        &format!("tasks: [{{name: a, taskSpec: {{{STEP}}}}}]"),
        "managedBy: example.dev/other",
    );
    world.settle();
    assert!(world.run.get("status").is_none());
}

#[test]
fn defaults_of_params_see_each_other() {
    let mut world = World::with_spec(
        &format!(
            "params:
- {{name: a, default: 'a-$(params.b)'}}
- {{name: b, default: 'b-$(params.given)'}}
- {{name: given}}
- {{name: list, default: ['$(params.a)', z]}}
tasks: [{{name: t, taskSpec: {{{STEP}}}, params: [{{name: p, value: $(params.a)}}, {{name: q, value: \
             '$(params.list[*])'}}]}}]"
        ),
        "params: [{name: given, value: g}]",
    );
    world.settle();
    assert_eq!(
        world.params_of("t"),
        json!([{"name": "p", "value": "a-b-g"}, {"name": "q", "value": ["a-b-g", "z"]}])
    );
}

#[test]
fn settings_of_single_tasks() {
    let mut world = World::with_spec(
        &format!(
            "tasks:
- {{name: a, taskSpec: {{metadata: {{labels: {{app: task, own: task}}}}, {STEP}}}}}
- {{name: b, taskSpec: {{{STEP}}}}}"
        ),
        "taskRunTemplate:
  serviceAccountName: everyone
  podTemplate: {hostNetwork: true, schedulerName: s, env: [{name: A, value: run}, {name: B, value: run}]}
taskRunSpecs:
- pipelineTaskName: a
  serviceAccountName: special
  metadata: {labels: {app: settings}, annotations: {note: text}}
  podTemplate: {env: [{name: A, value: task}], nodeSelector: {disk: fast}}",
    );
    world.run["metadata"]["labels"] = json!({"app": "run"});
    world.settle();
    let (a, b) = (&world.children["x-a"], &world.children["x-b"]);
    assert_eq!(a.spec.service_account_name, "special");
    assert_eq!(b.spec.service_account_name, "everyone");
    assert_eq!(
        json!(a.spec.pod_template),
        json!({
            "env": [{"name": "A", "value": "task"}, {"name": "B", "value": "run"}],
            "hostNetwork": true,
            "nodeSelector": {"disk": "fast"},
            "schedulerName": "s",
        })
    );
    let label = |child: &ropewalk_api::TaskRun, key: &str| child.metadata.labels.as_ref()?.get(key).cloned();
    assert_eq!(label(a, "app").as_deref(), Some("settings"));
    assert_eq!(label(a, "own").as_deref(), Some("task"));
    assert_eq!(label(b, "app").as_deref(), Some("run"));
}

#[test]
fn optional_workspaces_may_stay_unbound() {
    let mut world = World::embedded(
        "workspaces: [{name: w, optional: true}]
tasks:
- name: a
  when: [{input: $(workspaces.w.bound), operator: in, values: ['false']}]
  workspaces: [{name: w}]
  taskSpec:
    workspaces: [{name: w, optional: true}]
    steps: [{name: s, image: i, script: 'ls $(workspaces.w.path)'}]",
    );
    world.settle();
    assert_eq!(world.born(), ["a"]);
    assert!(world.children["x-a"].spec.workspaces.is_empty());
    assert_eq!(world.status().child_references[0].when_expressions[0].input, "false");
}
