#![expect(clippy::needless_pass_by_value, reason = "tables of cases hand their values over")]

use rstest::rstest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::GoDuration;

fn object(kind: &str, metadata: Value, spec: Value) -> Value {
    json!({"apiVersion": "tekton.dev/v1", "kind": kind, "metadata": metadata, "spec": spec})
}

/// Defaults an object of kind `T`, and holds that doing it again changes nothing.
fn defaulted<T: Defaulted + DeserializeOwned + Serialize>(given: Value, config: &Config) -> Value {
    let mut typed: T = serde_json::from_value(given).unwrap();
    typed.set_defaults(config);
    let once = serde_json::to_value(&typed).unwrap();
    typed.set_defaults(config);
    assert_eq!(serde_json::to_value(&typed).unwrap(), once, "defaulting twice");
    once
}

fn config() -> Config {
    let mut config = Config::default();
    config.defaults.timeout = GoDuration::from_secs(120);
    config.defaults.service_account = "robot".into();
    config.defaults.pod_template = serde_json::from_value(
        json!({"nodeSelector": {"disk": "ssd"}, "env": [{"name": "A", "value": "d"}]}),
    )
    .unwrap();
    config
}

#[test]
fn a_task_run_gets_everything_it_needs() {
    let run =
        defaulted::<TaskRun>(object("TaskRun", json!({}), json!({"taskRef": {"name": "t"}})), &config());
    assert_eq!(run["metadata"]["labels"], json!({"app.kubernetes.io/managed-by": "tekton-pipelines"}));
    assert_eq!(
        run["spec"],
        json!({
            "taskRef": {"name": "t", "kind": "Task"},
            "timeout": "2m0s",
            "serviceAccountName": "robot",
            "podTemplate": {"nodeSelector": {"disk": "ssd"}, "env": [{"name": "A", "value": "d"}]},
        })
    );
}

#[test]
fn what_a_run_says_stays() {
    let spec = json!({
        "taskRef": {"name": "t", "kind": "ClusterTask"},
        "timeout": "0s",
        "serviceAccountName": "me",
        "podTemplate": {"nodeSelector": {"a": "b"}, "env": [{"name": "A", "value": "mine"}]},
    });
    let labels = json!({"labels": {"app.kubernetes.io/managed-by": "me"}});
    let run = defaulted::<TaskRun>(object("TaskRun", labels.clone(), spec.clone()), &config());
    assert_eq!(run["spec"], spec);
    assert_eq!(run["metadata"], labels);
}

#[test]
fn a_pipeline_run_gets_a_timeout_and_an_account_but_no_label() {
    let given =
        object("PipelineRun", json!({}), json!({"timeouts": {"tasks": "1m"}, "pipelineRef": {"name": "p"}}));
    let run = defaulted::<PipelineRun>(given, &Config::default());
    assert_eq!(run["metadata"], json!({}));
    assert_eq!(
        run["spec"],
        json!({
            "pipelineRef": {"name": "p"},
            "timeouts": {"pipeline": "1h0m0s", "tasks": "1m0s"},
            "taskRunTemplate": {"serviceAccountName": "default"},
        })
    );
}

#[rstest]
#[case(json!({"name": "a"}), json!("string"))]
#[case(json!({"name": "a", "type": ""}), json!("string"))]
#[case(json!({"name": "a", "default": "x"}), json!("string"))]
#[case(json!({"name": "a", "default": ["x"]}), json!("array"))]
#[case(json!({"name": "a", "default": {"k": "v"}}), json!("object"))]
#[case(json!({"name": "a", "default": "x", "properties": {"k": {}}}), json!("object"))]
#[case(json!({"name": "a", "type": "array", "properties": {"k": {}}}), json!("array"))]
#[case(json!({"name": "a", "type": "nonsense"}), json!("nonsense"))]
fn param_types_are_inferred(#[case] param: Value, #[case] expected: Value) {
    let spec =
        defaulted::<Task>(object("Task", json!({}), json!({"params": [param.clone()]})), &Config::default());
    assert_eq!(spec["spec"]["params"][0]["type"], expected);
    if !param["properties"].is_null() {
        assert_eq!(spec["spec"]["params"][0]["properties"]["k"]["type"], "string");
    }
}

#[test]
fn results_of_tasks_are_typed_and_those_of_inline_steps_are_not() {
    let spec = json!({
        "results": [{"name": "a"}, {"name": "b", "properties": {"k": {}}}],
        "steps": [{"name": "s", "results": [{"name": "r"}]}],
    });
    let task = defaulted::<Task>(object("Task", json!({}), spec), &Config::default());
    assert_eq!(task["spec"]["results"][0]["type"], "string");
    assert_eq!(task["spec"]["results"][1]["type"], "object");
    assert_eq!(task["spec"]["steps"][0]["results"], json!([{"name": "r"}]));
    let action = defaulted::<StepAction>(
        object("StepAction", json!({}), json!({"results": [{"name": "r"}]})),
        &Config::default(),
    );
    assert_eq!(action["spec"]["results"], json!([{"name": "r", "type": "string"}]));
}

#[test]
fn pipeline_tasks_are_defaulted_in_both_lists_but_pipelines_in_them_are_not() {
    let spec = json!({
        "tasks": [
            {"name": "a", "taskRef": {"name": "t"}},
            {"name": "b", "taskSpec": {"params": [{"name": "p"}]}},
            {"name": "c", "pipelineRef": {}},
            {"name": "d", "taskRef": {"resolver": "git"}},
        ],
        "finally": [{"name": "f", "taskRef": {}}],
    });
    let mut config = Config::default();
    config.defaults.resolver_type = "hub".into();
    let pipeline = defaulted::<Pipeline>(object("Pipeline", json!({}), spec), &config);
    let tasks = &pipeline["spec"]["tasks"];
    assert_eq!(tasks[0]["taskRef"], json!({"name": "t", "kind": "Task"}));
    assert_eq!(tasks[1]["taskSpec"]["params"], json!([{"name": "p", "type": "string"}]));
    assert_eq!(tasks[2]["pipelineRef"], json!({}));
    assert_eq!(tasks[3]["taskRef"], json!({"resolver": "git"}));
    assert_eq!(pipeline["spec"]["finally"][0]["taskRef"], json!({"resolver": "hub"}));
}

#[test]
fn a_custom_run_gets_an_account_and_no_timeout() {
    let run = defaulted::<CustomRun>(object("CustomRun", json!({}), json!({})), &Config::default());
    assert_eq!(run["spec"], json!({"serviceAccountName": "default"}));
}

#[test]
fn pod_templates_merge_by_name_with_the_runs_first() {
    let template = |value| serde_json::from_value::<PodTemplate>(value).unwrap();
    let merged = merge_pod_templates(
        template(
            json!({"env": [{"name": "A", "value": "run"}], "hostNetwork": false, "schedulerName": "mine"}),
        ),
        &template(json!({
            "env": [{"name": "B", "value": "default"}, {"name": "A", "value": "default"}],
            "hostNetwork": true,
            "schedulerName": "other",
            "hostUsers": false,
        })),
    );
    assert_eq!(
        serde_json::to_value(merged).unwrap(),
        json!({
            "env": [{"name": "A", "value": "run"}, {"name": "B", "value": "default"}],
            "hostNetwork": true,
            "schedulerName": "mine",
            "hostUsers": false,
        })
    );
}

#[rstest]
#[case(json!({"name": "r"}), json!({"pipelineRef": {"name": "p"}}), "p")]
#[case(json!({"generateName": "nightly-"}), json!({"pipelineSpec": {}}), "nightly")]
#[case(json!({"name": "r"}), json!({"pipelineSpec": {}}), "r")]
#[case(json!({"name": "r"}), json!({"pipelineRef": {"resolver": "git"}}), "r")]
#[case(
    json!({"name": "r"}),
    json!({"pipelineRef": {"resolver": "hub", "params": [{"name": "kind", "value": "pipeline"}, {"name": "name", "value": "far"}]}}),
    "far"
)]
#[case(
    json!({"name": "r"}),
    json!({"pipelineRef": {"resolver": "hub", "params": [{"name": "name", "value": "far"}]}}),
    "r"
)]
#[case(json!({"name": "r", "labels": {"tekton.dev/pipeline": "set"}}), json!({"pipelineRef": {"name": "p"}}), "set")]
fn a_new_pipeline_run_is_labelled_with_its_pipeline(
    #[case] metadata: Value,
    #[case] spec: Value,
    #[case] label: &str,
) {
    let mut run: PipelineRun = serde_json::from_value(object("PipelineRun", metadata, spec)).unwrap();
    run.label_new("v1");
    assert_eq!(run.labels()["tekton.dev/pipeline"], label);
}

#[test]
fn a_new_task_run_is_labelled_with_its_task_and_loses_foreign_signatures() {
    let metadata = json!({"annotations": {"chains.tekton.dev/signed": "true", "keep": "me"}});
    let mut run: TaskRun =
        serde_json::from_value(object("TaskRun", metadata, json!({"taskRef": {"name": "t"}}))).unwrap();
    run.label_new("v9");
    assert_eq!(run.labels()["tekton.dev/task"], "t");
    let annotations: Vec<_> = run.annotations().iter().collect();
    let expected = [("keep", "me"), ("pipeline.tekton.dev/release", "v9")];
    assert!(annotations.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expected), "{annotations:?}");

    let mut remote: TaskRun = serde_json::from_value(object(
        "TaskRun",
        json!({}),
        json!({"taskRef": {"name": "t", "resolver": "git"}}),
    ))
    .unwrap();
    remote.label_new("v9");
    assert!(!remote.labels().contains_key("tekton.dev/task"));
}
