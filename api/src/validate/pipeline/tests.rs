#![expect(clippy::needless_pass_by_value, reason = "tables of cases hand their values over")]

use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn check(spec: Value) -> String {
    let object =
        json!({"apiVersion": "tekton.dev/v1", "kind": "Pipeline", "metadata": {"name": "p"}, "spec": spec});
    serde_json::from_value::<Pipeline>(object).unwrap().validate(&Config::default()).to_string()
}

/// A task named `a`, another field added.
fn task(field: &str, value: Value) -> Value {
    let mut task = json!({"name": "a", "taskRef": {"name": "t", "kind": "Task"}});
    task[field] = value;
    task
}

fn param(value: Value) -> Value {
    task("params", json!([{"name": "p", "value": value}]))
}

fn plain(name: &str) -> Value {
    json!({"name": name, "taskRef": {"name": "t", "kind": "Task"}})
}

fn declared() -> Value {
    json!([
        {"name": "s"},
        {"name": "arr", "type": "array"},
        {"name": "obj", "type": "object", "properties": {"k": {}}},
    ])
}

#[rstest]
#[case(json!({"description": "empty otherwise"}))]
#[case(json!({"params": declared(), "tasks": [param(json!("$(params.s) $(params.arr[0]) $(params.obj.k)"))]}))]
#[case(json!({"params": declared(), "tasks": [param(json!("$(params.arr[*])"))]}))]
#[case(json!({"params": declared(), "tasks": [param(json!("$(params.obj[*])"))]}))]
#[case(json!({"params": declared(), "tasks": [param(json!(["x", "$(params.arr[*])"]))]}))]
#[case(json!({"tasks": [param(json!("$(context.pipelineRun.name) $(date +%s) $(workspaces.w.bound)"))]}))]
#[case(json!({"tasks": [param(json!("$(context.taskRun.name)"))]}))]
#[case(json!({"tasks": [plain("a"), plain("b")], "finally": [
    {"name": "f", "taskRef": {"name": "t"}, "params": [
        {"name": "p", "value": "$(tasks.a.status) $(tasks.status) $(tasks.b.reason)"},
        {"name": "q", "value": "$(tasks.a.results.r)"},
    ]},
]}))]
#[case(json!({"tasks": [plain("a")], "finally": [plain("f")], "results": [
    {"name": "r", "value": "$(tasks.a.results.x)-$(finally.f.results.y)"},
]}))]
#[case(json!({"workspaces": [{"name": "w"}], "tasks": [task("workspaces", json!([{"name": "x", "workspace": "w"}, {"name": "w"}]))]}))]
fn right(#[case] spec: Value) {
    assert_eq!(check(spec), "");
}

#[rstest]
#[case(json!({}), "expected at least one, got none: spec.description, spec.params, spec.resources, spec.tasks, spec.workspaces")]
#[case(json!({"tasks": [plain("a"), plain("a")]}), "expected exactly one, got both: spec.tasks[1].name")]
#[case(json!({"tasks": [plain("a")], "finally": [plain("a")]}), "expected exactly one, got both: spec.finally[0].name")]
#[case(
    json!({"tasks": [task("runAfter", json!(["a"]))]}),
    "invalid value: cycle detected; task \"a\" depends on \"a\": spec.tasks"
)]
#[case(json!({"finally": [plain("f")]}), "invalid value: spec.tasks is empty but spec.finally has 1 tasks: spec.finally")]
#[case(
    json!({"tasks": [plain("b")], "finally": [task("runAfter", json!(["b"]))]}),
    "invalid value: no runAfter allowed under spec.finally, final task a has runAfter specified: spec.finally[0]"
)]
#[case(
    json!({"tasks": [task("workspaces", json!([{"name": "w"}]))]}),
    "invalid value: pipeline task \"a\" expects workspace with name \"w\" but none exists in pipeline spec: \
     spec.tasks[0].workspaces[0]"
)]
#[case(
    json!({"tasks": [plain("a")], "workspaces": [{"name": "w"}, {"name": "w"}, {"name": ""}]}),
    "invalid value: workspace 2 has empty name: spec.workspaces[2]\n\
     invalid value: workspace with name \"w\" appears more than once: spec.workspaces[1]"
)]
fn wrong(#[case] spec: Value, #[case] text: &str) {
    assert_eq!(check(spec), text);
}

#[rstest]
#[case(param(json!("$(params.no)")), "non-existent variable in \"$(params.no)\": spec.tasks[0].params[p].value")]
#[case(param(json!("$(params[\"no\"])")), "non-existent variable in \"$(params[\"no\"])\": spec.tasks[0].params[p].value")]
#[case(param(json!("x$(params.arr[*])")), "variable type invalid in \"x$(params.arr[*])\": spec.tasks[0].params[p].value")]
#[case(
    param(json!(["x$(params.arr[*])"])),
    "variable is not properly isolated in \"x$(params.arr[*])\": spec.tasks[0].params[p].value[0]"
)]
#[case(param(json!("$(params.obj.no)")), "non-existent variable in \"$(params.obj.no)\": spec.tasks[0].params[p].value")]
#[case(
    param(json!("$(pwd)")),
    "invalid value: invalid variable reference \"$(pwd)\", must start with a valid prefix: params, tasks, finally, context, \
     workspaces, or results; if you meant a shell variable, use ${VAR} instead: spec.tasks[0].params[p].value"
)]
#[case(
    param(json!("$(context.pipelineRun.no)")),
    "non-existent variable in \"$(context.pipelineRun.no)\": spec.tasks[0].params[p].value"
)]
#[case(
    param(json!("$(tasks.status)")),
    "invalid value: pipeline tasks can not refer to execution status of any other pipeline task or aggregate status of \
     tasks: spec.tasks[0].params[p].value"
)]
#[case(
    task("when", json!([{"input": "$(tasks.b.status)", "operator": "in", "values": ["x"]}])),
    "invalid value: pipeline tasks can not refer to execution status of any other pipeline task or aggregate status of \
     tasks: spec.tasks[0].when[0]"
)]
#[case(
    task("when", json!([{"input": "$(params.arr)", "operator": "in", "values": ["$(params.arr[*])"]}])),
    "variable type invalid in \"$(params.arr)\": spec.tasks[0].when[0]"
)]
#[case(
    task("when", json!([{"input": "a", "operator": "in", "values": ["$(params.no)"]}])),
    "non-existent variable in \"$(params.no)\": spec.tasks[0].when[0]"
)]
fn wrong_variables(#[case] task: Value, #[case] text: &str) {
    assert_eq!(check(json!({"params": declared(), "tasks": [task]})), text);
}

#[rstest]
#[case(
    "$(tasks.no.status)",
    "invalid value: pipeline task no is not defined in the pipeline: spec.finally[0].params[p].value"
)]
#[case(
    "$(tasks.no.results.r)",
    "invalid value: invalid task result reference, final task has task result reference from a task no which is not \
     defined in the pipeline: spec.finally[0].params[p].value"
)]
#[case(
    "$(tasks.f.results.r)",
    "invalid value: invalid task result reference, final task has task result reference from a final task f: \
     spec.finally[0].params[p].value"
)]
fn wrong_in_finally(#[case] value: &str, #[case] text: &str) {
    let finally = json!([param(json!(value)), plain("f")]);
    assert_eq!(check(json!({"tasks": [plain("b")], "finally": finally})), text);
}

#[rstest]
#[case("none", "expected pipeline results to be task result expressions but no expressions were found")]
#[case(
    "$(params.x)",
    "expected pipeline results to be task result expressions but an invalid expressions was found"
)]
#[case(
    "$(tasks.a.results.r)$(params.x)",
    "expected all of the expressions [tasks.a.results.r params.x] to be result expressions but only [tasks.a.results.r] were"
)]
#[case("$(tasks.no.results.r)", "referencing a nonexistent task")]
#[case("$(finally.a.results.r)", "referencing a nonexistent task")]
fn wrong_results(#[case] value: &str, #[case] text: &str) {
    let spec = json!({"tasks": [plain("a")], "results": [{"name": "r", "value": value}]});
    assert_eq!(check(spec), format!("invalid value: {text}: spec.results[0].value"));
}

#[test]
fn a_matrixed_task_is_consumed_as_a_whole() {
    let matrixed = json!({"name": "m", "taskSpec": {"steps": [{"image": "i"}], "results": [{"name": "r"}, {"name": "l", "type": "array"}]},
        "matrix": {"params": [{"name": "x", "value": ["1"]}]}});
    let spec = |value: &str| json!({"tasks": [matrixed.clone(), param(json!(value))]});
    assert_eq!(check(spec("$(tasks.m.results.r[*])")), "");
    assert_eq!(
        check(spec("$(tasks.m.results.r)")),
        "invalid value: A matrixed pipelineTask can only be consumed in aggregate using [*] notation, but is currently \
         set to tasks.m.results.r: spec.tasks[1].params[p].value"
    );
    assert_eq!(
        check(spec("$(tasks.m.results.l[*])")),
        "invalid value: Matrixed PipelineTasks emitting results must have an underlying type string, but result l has \
         type array in pipelineTask: spec.tasks[1].params[p].value"
    );
}
