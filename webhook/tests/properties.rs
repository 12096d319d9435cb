//! What holds for every object, right or wrong: admission answers, what it admits it admits again unchanged, and no field
//! that was sent is lost.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use ropewalk_api::config::{ApiFields, Config};
use ropewalk_webhook::{Decision, Operation, Problems, Request, Settings, admit, lint};
use serde_json::{Value, json};

fn objects() -> Vec<Value> {
    let step = json!({
        "name": "s", "image": "i", "script": "echo $(params.p)", "timeout": "1m", "env": [{"name": "E", "value": "v"}],
        "computeResources": {"limits": {"cpu": 1}}, "when": [{"input": "a", "operator": "in", "values": ["a"]}],
    });
    let task = json!({
        "params": [{"name": "p", "default": "v"}, {"name": "o", "properties": {"k": {}}}],
        "results": [{"name": "r"}], "workspaces": [{"name": "w"}], "steps": [step],
        "volumes": [{"name": "v", "emptyDir": {}}], "sidecars": [{"name": "c", "image": "i"}],
    });
    let pipeline = json!({
        "params": [{"name": "p", "default": ["v"]}],
        "tasks": [
            {"name": "a", "taskSpec": task},
            {"name": "b", "taskRef": {"name": "t"}, "runAfter": ["a"], "params": [{"name": "p", "value": "$(tasks.a.results.r)"}],
             "matrix": {"params": [{"name": "m", "value": ["1", "2"]}]}},
        ],
        "finally": [{"name": "f", "taskRef": {"name": "t"}, "params": [{"name": "p", "value": "$(tasks.a.status)"}]}],
        "results": [{"name": "r", "value": "$(tasks.a.results.r)"}],
    });
    let object = |kind: &str, version: &str, spec: Value| json!({"apiVersion": format!("tekton.dev/{version}"), "kind": kind, "metadata": {"name": "x"}, "spec": spec});
    let request = |version: &str, params: Value| json!({"apiVersion": format!("resolution.tekton.dev/{version}"), "kind": "ResolutionRequest", "metadata": {"name": "x", "labels": {"resolution.tekton.dev/type": "git"}}, "spec": {"params": params}});
    vec![
        object("Task", "v1", task.clone()),
        object("TaskRun", "v1", json!({"taskSpec": task, "workspaces": [{"name": "w", "emptyDir": {}}]})),
        object("Pipeline", "v1", pipeline.clone()),
        object("PipelineRun", "v1", json!({"pipelineSpec": pipeline, "timeouts": {"pipeline": "1h"}})),
        object(
            "StepAction",
            "v1beta1",
            json!({"image": "i", "params": [{"name": "p"}], "args": ["$(params.p)"]}),
        ),
        object("CustomRun", "v1beta1", json!({"customRef": {"apiVersion": "a/v1", "kind": "K"}})),
        object(
            "Task",
            "v1beta1",
            json!({
                "steps": [{"name": "s", "image": "i", "resources": {"limits": {"cpu": 1}}, "tty": true}],
                "stepTemplate": {"name": "t", "env": [{"name": "E", "value": "v"}]}, "resources": {},
            }),
        ),
        object(
            "PipelineRun",
            "v1beta1",
            json!({
                "pipelineSpec": {"tasks": [{"name": "a", "taskSpec": {"steps": [{"image": "i", "stdin": true}]}}]},
                "timeout": "1h", "podTemplate": {"hostNetwork": true},
                "taskRunSpecs": [{"pipelineTaskName": "a", "stepOverrides": [{"name": "s", "resources": {"limits": {"cpu": 1}}}]}],
            }),
        ),
        object("StepAction", "v1alpha1", json!({"image": "i"})),
        object(
            "VerificationPolicy",
            "v1alpha1",
            json!({"resources": [{"pattern": ".*"}], "authorities": [{"name": "a", "key": {"data": "k"}}], "mode": "warn"}),
        ),
        request("v1beta1", json!([{"name": "b", "value": "1"}, {"name": "a", "value": ["2"]}])),
        request("v1alpha1", json!({"a": "1"})),
    ]
}

/// Every place in a value, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                places(value, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                places(value, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// Values that are right somewhere and wrong nearly everywhere.
fn values() -> Vec<Value> {
    vec![
        Value::Null,
        json!(""),
        json!("x"),
        json!(" "),
        json!(-1),
        json!(1.5),
        json!(true),
        json!([]),
        json!({}),
        json!(["x", "x"]),
        json!({"name": "x"}),
        json!("1h"),
        json!("$(params.p)"),
        json!("$(params.p[*])"),
        json!("$(tasks.b.results.r)"),
        json!("$(context.taskRun.x)$(params[\"é\"])$("),
    ]
}

fn everything_on() -> Config {
    let mut config = Config::default();
    config.features.enable_api_fields = ApiFields::Alpha;
    config
}

/// Each field of `before` is in `after` too, with `null` and empty values left aside.
fn keeps(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before.iter().all(|(key, value)| {
            let empty = value.is_null() || *value == json!("") || *value == json!([]) || *value == json!({});
            empty || after.get(key).is_some_and(|after| keeps(value, after))
        }),
        (Value::Array(before), Value::Array(after)) => {
            before.len() == after.len()
                && before.iter().zip(after).all(|(before, after)| keeps(before, after))
        }
        (before, after) => before == after,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn admission_answers_and_keeps_to_it(
        object in select(objects()),
        changes in prop::collection::vec((any::<Index>(), select(values())), 0..3),
    ) {
        let mut object = object;
        for (place, value) in changes {
            let mut found = Vec::new();
            places(&object["spec"], "/spec", &mut found);
            *object.pointer_mut(place.get::<String>(&found)).unwrap() = value;
        }
        let config = everything_on();
        let kind = object["kind"].as_str().unwrap().to_owned();
        let settings = Settings { release: "v1".to_owned() };
        let group = object["apiVersion"].as_str().unwrap().split('/').next().unwrap();
        let request = Request {
            operation: Operation::Create, group, kind: &kind, subresource: None,
            object: &object, old_object: None,
        };
        match admit(&request, &config, &settings) {
            Decision::Allow { object: admitted, .. } => {
                prop_assert!(keeps(&object, &admitted), "{object} became {admitted}");
                prop_assert_eq!(lint(&object, &config), Problems::default());
                let again = Request {
                    operation: Operation::Update, object: &admitted, old_object: Some(&object), ..request
                };
                let Decision::Allow { object: unchanged, .. } = admit(&again, &config, &settings) else {
                    return Err(TestCaseError::fail(format!("refused when it was stored: {admitted}")));
                };
                prop_assert_eq!(unchanged, admitted);
            }
            Decision::Deny { code, message } => {
                prop_assert_eq!(code, 400);
                prop_assert!(!lint(&object, &config).first.is_empty(), "{}", message);
            }
        }
    }
}
