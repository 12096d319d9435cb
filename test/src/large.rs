//! Objects as large as API servers take them, of every shape that could take long to judge. Pure.

use serde_json::{Value, json};

/// The size of each as JSON, in bytes: what etcd takes of one object.
pub const SIZE: usize = 1_500_000;

/// Each about so many bytes, with what it is made of. Some are right and others wrong throughout.
pub fn objects(size: usize) -> Vec<(&'static str, Value)> {
    let many = |item: &dyn Fn(usize) -> Value| share(size, item);
    let half = |item: &dyn Fn(usize) -> Value| share(size / 2, item);
    let step = json!({ "image": "i", "script": "true" });
    let task = |key: &str, items: Value| {
        let mut spec = json!({ "steps": [step] });
        spec[key] = items;
        object("Task", "v1", spec)
    };
    let pipeline = |items: Value| object("Pipeline", "v1", json!({ "tasks": items }));
    let one = |name: &str| json!({ "name": name, "taskRef": { "name": "t" } });
    vec![
        (
            "Task: one script",
            task("steps", json!([{ "image": "i", "script": "echo 'x'; ".repeat(size / 10) }])),
        ),
        (
            "Task: one script of variables",
            object(
                "Task",
                "v1",
                json!({
                    "params": [{ "name": "p" }],
                    "steps": [{ "image": "i", "script": "$(params.p) ".repeat(size / 12) }],
                }),
            ),
        ),
        (
            "Task: one script, unknown variables",
            task("steps", json!([{ "image": "i", "script": "$(params.p) ".repeat(size / 12) }])),
        ),
        (
            "Task: one script of beginnings",
            task("steps", json!([{ "image": "i", "script": "$(".repeat(size / 2) }])),
        ),
        (
            "Task: steps",
            task("steps", many(&|index| json!({ "name": format!("s{index}"), "image": "i", "script": "x" }))),
        ),
        (
            "Task: steps of one name",
            task("steps", many(&|_| json!({ "name": "s", "image": "i", "script": "x" }))),
        ),
        (
            "Task: params",
            task("params", many(&|index| json!({ "name": format!("p{index}"), "default": "v" }))),
        ),
        ("Task: params of one name", task("params", many(&|_| json!({ "name": "p" })))),
        ("Task: results", task("results", many(&|index| json!({ "name": format!("r{index}") })))),
        ("Task: workspaces", task("workspaces", many(&|index| json!({ "name": format!("w{index}") })))),
        ("Task: volumes of one name", task("volumes", many(&|_| json!({ "name": "v", "emptyDir": {} })))),
        (
            "Task: sidecars",
            task("sidecars", many(&|index| json!({ "name": format!("c{index}"), "image": "i" }))),
        ),
        (
            "Task: params and who uses them",
            object(
                "Task",
                "v1",
                json!({
                    "params": half(&|index| json!({ "name": format!("p{index}") })),
                    "steps": half(&|index| json!({ "image": "i", "script": format!("$(params.p{index})") })),
                }),
            ),
        ),
        (
            "Task: one script, many unknown variables",
            task(
                "steps",
                json!([{ "image": "i", "script": text(size, &|index| format!("$(params.p{index}) ")) }]),
            ),
        ),
        (
            "Task: a variable of many parts",
            task("steps", json!([{ "image": "i", "script": format!("$(params{})", ".a".repeat(size / 2)) }])),
        ),
        (
            "Task: params and who misspells them",
            object(
                "Task",
                "v1",
                json!({
                    "params": half(&|index| json!({ "name": format!("param{index}") })),
                    "steps": half(&|index| json!({ "image": "i", "script": format!("$(params.Param{index})") })),
                }),
            ),
        ),
        (
            "Task: a long name misspelt",
            object(
                "Task",
                "v1",
                json!({
                    "params": [{ "name": "a".repeat(size / 2) }],
                    "steps": [{ "image": "i", "script": format!("$(params.{}b)", "a".repeat(size / 2)) }],
                }),
            ),
        ),
        (
            "Task: a long name, and many values",
            task("params", json!([{ "name": "a".repeat(size / 2), "enum": half(&|_| json!("b")) }])),
        ),
        (
            "Pipeline: a long name, and many values",
            pipeline(json!([{
                "name": "t", "taskRef": { "name": "t" },
                "params": [{ "name": "a".repeat(size / 2), "value": half(&|_| json!("$(x.y)")) }],
            }])),
        ),
        (
            "Pipeline: unknown tasks",
            pipeline(json!([{
                "name": "a".repeat(size / 2), "taskRef": { "name": "t" },
                "runAfter": half(&|index| json!(format!("t{index}"))),
            }])),
        ),
        (
            "Pipeline: misspelt tasks",
            pipeline(many(&|index| {
                let mut task = one(&format!("task{index}"));
                task["runAfter"] = json!([format!("Task{index}")]);
                task
            })),
        ),
        (
            "Pipeline: results of a matrix",
            pipeline(json!([
                {
                    "name": "m", "matrix": { "params": [{ "name": "p", "value": ["1"] }] },
                    "taskSpec": { "steps": [step], "results": half(&|_| json!({ "name": "r", "type": "array" })) },
                },
                {
                    "name": "t", "taskRef": { "name": "t" },
                    "params": half(&|index| json!({ "name": format!("p{index}"), "value": "$(tasks.m.results.r)" })),
                },
            ])),
        ),
        ("Pipeline: tasks", pipeline(many(&|index| one(&format!("t{index}"))))),
        ("Pipeline: tasks of one name", pipeline(many(&|_| one("t")))),
        (
            "Pipeline: a chain",
            pipeline(many(&|index: usize| {
                let mut task = one(&format!("t{index}"));
                if let Some(before) = index.checked_sub(1) {
                    task["runAfter"] = json!([format!("t{before}")]);
                }
                task
            })),
        ),
        (
            "Pipeline: a circle",
            pipeline(many(&|index: usize| {
                let mut task = one(&format!("t{index}"));
                let before =
                    index.checked_sub(1).map_or_else(|| "t1000".to_owned(), |before| format!("t{before}"));
                task["runAfter"] = json!([before]);
                task
            })),
        ),
        (
            "Pipeline: one task after all",
            object(
                "Pipeline",
                "v1",
                json!({
                    "tasks": half(&|index| one(&format!("t{index}"))),
                    "finally": half(&|index| json!({
                        "name": format!("f{index}"), "taskRef": { "name": "t" },
                        "params": [{ "name": "p", "value": format!("$(tasks.t{index}.status)") }],
                    })),
                }),
            ),
        ),
        (
            "Pipeline: results of results",
            pipeline(many(&|index: usize| {
                let mut task = one(&format!("t{index}"));
                if let Some(before) = index.checked_sub(1) {
                    task["params"] =
                        json!([{ "name": "p", "value": format!("$(tasks.t{before}.results.r)") }]);
                }
                task
            })),
        ),
        (
            "Pipeline: unknown params",
            pipeline(many(&|index| {
                let mut task = one(&format!("t{index}"));
                task["params"] = json!([{ "name": "p", "value": "$(params.none)" }]);
                task
            })),
        ),
        (
            "Pipeline: when",
            pipeline(json!([{
                "name": "t", "taskRef": { "name": "t" },
                "when": many(&|_| json!({ "input": "a", "operator": "in", "values": ["b"] })),
            }])),
        ),
        (
            "Pipeline: a matrix",
            pipeline(json!([{
                "name": "t", "taskRef": { "name": "t" },
                "matrix": { "params": many(&|index| json!({ "name": format!("m{index}"), "value": ["1"] })) },
            }])),
        ),
        (
            "Pipeline: embedded tasks",
            pipeline(many(&|index| json!({ "name": format!("t{index}"), "taskSpec": { "steps": [step] } }))),
        ),
        (
            "TaskRun: params",
            object(
                "TaskRun",
                "v1",
                json!({ "taskRef": { "name": "t" }, "params": many(&|index| json!({ "name": format!("p{index}"), "value": "v" })) }),
            ),
        ),
        (
            "TaskRun: params of one name",
            object(
                "TaskRun",
                "v1",
                json!({ "taskRef": { "name": "t" }, "params": many(&|_| json!({ "name": "p", "value": "v" })) }),
            ),
        ),
        (
            "PipelineRun: workspaces of one name",
            object(
                "PipelineRun",
                "v1",
                json!({ "pipelineRef": { "name": "p" }, "workspaces": many(&|_| json!({ "name": "w", "emptyDir": {} })) }),
            ),
        ),
        (
            "PipelineRun: taskRunSpecs",
            object(
                "PipelineRun",
                "v1",
                json!({ "pipelineRef": { "name": "p" }, "taskRunSpecs": many(&|index| json!({ "pipelineTaskName": format!("t{index}") })) }),
            ),
        ),
        ("Task: unknown fields", unknown(size)),
        (
            "Task in v1beta1: steps",
            object(
                "Task",
                "v1beta1",
                json!({ "steps": many(&|index| json!({ "name": format!("s{index}"), "image": "i", "resources": { "limits": { "cpu": 1 } } })) }),
            ),
        ),
        (
            "CustomRun: anything",
            object(
                "CustomRun",
                "v1beta1",
                json!({ "customSpec": { "apiVersion": "a/v1", "kind": "K", "spec": { "all": many(&|index| json!({ "at": index })) } } }),
            ),
        ),
        (
            "StepAction: params",
            object(
                "StepAction",
                "v1beta1",
                json!({ "image": "i", "params": many(&|index| json!({ "name": format!("p{index}") })) }),
            ),
        ),
    ]
}

#[expect(clippy::needless_pass_by_value, reason = "specs are made where they are passed")]
fn object(kind: &str, version: &str, spec: Value) -> Value {
    json!({ "apiVersion": format!("tekton.dev/{version}"), "kind": kind, "metadata": { "name": "large" }, "spec": spec })
}

/// So much text.
fn text(size: usize, piece: &dyn Fn(usize) -> String) -> String {
    let mut text = String::new();
    for index in 0.. {
        if text.len() >= size {
            break;
        }
        text.push_str(&piece(index));
    }
    text
}

/// As many as there is room for.
fn share(size: usize, item: &dyn Fn(usize) -> Value) -> Value {
    let (mut items, mut so_far) = (Vec::new(), 0);
    while so_far < size {
        let item = item(items.len());
        so_far += item.to_string().len() + 1;
        items.push(item);
    }
    items.into()
}

fn unknown(size: usize) -> Value {
    let fields = (0..size / 16).map(|index| (format!("unknown{index}"), json!(1)));
    let mut spec: serde_json::Map<_, _> = fields.collect();
    spec.insert("steps".to_owned(), json!([{ "image": "i" }]));
    object("Task", "v1", spec.into())
}
