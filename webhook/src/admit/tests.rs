#![expect(clippy::needless_pass_by_value, reason = "tables of cases hand their values over")]

use rstest::rstest;
use serde_json::json;

use super::*;

fn request<'a>(operation: Operation, object: &'a Value, old_object: Option<&'a Value>) -> Request<'a> {
    let kind = object["kind"].as_str().unwrap();
    Request { operation, group: "tekton.dev", kind, subresource: None, object, old_object }
}

fn settings() -> Settings {
    Settings { release: "v1".into() }
}

fn create(object: &Value) -> Decision {
    admit(&request(Operation::Create, object, None), &Config::default(), &settings())
}

fn denial(decision: Decision) -> String {
    match decision {
        Decision::Deny { code: 400, message } => message,
        other => panic!("not refused: {other:?}"),
    }
}

fn allowed(decision: Decision) -> Value {
    match decision {
        Decision::Allow { object, .. } => object,
        Decision::Deny { message, .. } => panic!("{message}"),
    }
}

fn task_run(spec: Value) -> Value {
    json!({"apiVersion": "tekton.dev/v1", "kind": "TaskRun", "metadata": {"name": "r"}, "spec": spec})
}

#[test]
fn a_new_run_gets_defaults_and_labels_and_loses_nothing() {
    let mut object = task_run(
        json!({"taskRef": {"name": "t"}, "params": [{"name": "n", "value": 1}], "workspaces": null}),
    );
    object["metadata"]["future"] = json!({"field": true});
    object["metadata"]["annotations"] = json!({"chains.tekton.dev/signed": "true"});
    let admitted = allowed(create(&object));
    assert_eq!(
        admitted,
        json!({
            "apiVersion": "tekton.dev/v1",
            "kind": "TaskRun",
            "metadata": {
                "name": "r",
                "future": {"field": true},
                "labels": {"app.kubernetes.io/managed-by": "tekton-pipelines", "tekton.dev/task": "t"},
                "annotations": {"pipeline.tekton.dev/release": "v1"},
            },
            "spec": {
                "taskRef": {"name": "t", "kind": "Task"},
                "params": [{"name": "n", "value": 1}],
                "workspaces": null,
                "timeout": "1h0m0s",
                "serviceAccountName": "default",
            },
        })
    );
    let again =
        admit(&request(Operation::Update, &admitted, Some(&admitted)), &Config::default(), &settings());
    assert_eq!(allowed(again), admitted, "admitting what was admitted changes nothing");
}

#[rstest]
#[case(
    json!({"taskSpec": {"steps": [{"image": "i", "scirpt": "x"}]}}),
    r#"unknown field "spec.taskSpec.steps[0].scirpt", did you mean "script"?"#
)]
#[case(json!({"taskSpec": {"steps": {}}}), r#"field "spec.taskSpec.steps" must be a list, not a map"#)]
#[case(
    json!({"timeout": "5"}),
    r#"field "spec.timeout" must be a duration such as "1h30m" or "90s", not "5""#
)]
fn what_cannot_be_read_is_refused_by_defaulting(#[case] spec: Value, #[case] why: &str) {
    let prefix = r#"admission webhook "webhook.pipeline.tekton.dev" denied the request: mutation failed: "#;
    assert_eq!(denial(create(&task_run(spec))), format!("{prefix}cannot decode incoming new object: {why}"));
}

#[test]
fn what_breaks_a_rule_is_refused_by_validation() {
    let mut object = task_run(json!({"taskRef": {"name": "t"}}));
    object["metadata"]["name"] = json!("No");
    assert_eq!(
        denial(create(&object)),
        "admission webhook \"validation.webhook.pipeline.tekton.dev\" denied the request: validation failed: \
         invalid resource name \"No\": must be a valid DNS label: metadata.name"
    );
}

#[test]
fn labels_of_an_object_change_even_when_its_spec_breaks_a_rule() {
    let old = task_run(json!({"taskRef": {"name": "t"}, "newer": "field"}));
    let mut new = old.clone();
    new["metadata"]["labels"] = json!({"a": "b"});
    let decision = admit(&request(Operation::Update, &new, Some(&old)), &Config::default(), &settings());
    assert_eq!(allowed(decision)["spec"]["newer"], "field");
}

#[rstest]
#[case(Operation::Delete, "tekton.dev", "TaskRun", None)]
#[case(Operation::Create, "", "TaskRun", None)]
#[case(Operation::Create, "tekton.dev", "Run", None)]
#[case(Operation::Create, "tekton.dev", "ResolutionRequest", None)]
#[case(Operation::Create, "resolution.tekton.dev", "TaskRun", None)]
#[case(Operation::Update, "tekton.dev", "TaskRun", Some("status"))]
fn what_does_not_concern_us_passes_as_it_is(
    #[case] operation: Operation,
    #[case] group: &str,
    #[case] kind: &str,
    #[case] subresource: Option<&str>,
) {
    let object = json!({"kind": kind, "spec": {"nonsense": 1}});
    let request = Request { operation, group, kind, subresource, object: &object, old_object: None };
    assert_eq!(allowed(admit(&request, &Config::default(), &settings())), object);
}

#[test]
fn a_field_in_the_wrong_case_is_taken_for_the_right_one_with_a_warning() {
    let object = task_run(json!({"taskSpec": {"steps": [{"Image": "i:1"}]}}));
    let Decision::Allow { object, warnings } = create(&object) else { panic!("refused") };
    assert_eq!(object["spec"]["taskSpec"]["steps"], json!([{"image": "i:1"}]));
    assert_eq!(warnings, ["field \"spec.taskSpec.steps[0].Image\" is taken for \"image\""]);
}

#[test]
fn doubts_are_told_while_the_spec_changes_and_never_without_bound() {
    let doubtful = |count: usize| {
        let steps: Vec<_> = (0..count).map(|_| json!({"image": "i"})).collect();
        task_run(json!({"taskSpec": {"steps": steps}}))
    };
    let warnings = |object: &Value, old: Option<&Value>| {
        let operation = if old.is_some() { Operation::Update } else { Operation::Create };
        match admit(&request(operation, object, old), &Config::default(), &settings()) {
            Decision::Allow { warnings, .. } => warnings,
            Decision::Deny { message, .. } => panic!("{message}"),
        }
    };
    let one = doubtful(1);
    let told = warnings(&one, None);
    assert!(told.len() == 1 && told[0].contains("image \"i\" has no tag"), "{told:?}");
    assert_eq!(warnings(&one, Some(&one)), Vec::<String>::new());
    let told = warnings(&doubtful(100), None);
    assert_eq!(told.len(), WARNING_LIMIT + 1);
    assert!(told[WARNING_LIMIT].contains("80 more"), "{told:?}");
}

#[rstest]
#[case("v1beta1", json!([{"name": "a", "value": ["b"]}]))]
#[case("v1alpha1", json!({"a": "b"}))]
fn a_request_to_resolvers_is_kept_with_a_warning_and_needs_its_label(
    #[case] version: &str,
    #[case] params: Value,
) {
    let mut object = json!({
        "apiVersion": format!("resolution.tekton.dev/{version}"), "kind": "ResolutionRequest",
        "metadata": {"name": "r", "labels": {"resolution.tekton.dev/type": "git"}}, "spec": {"params": params},
    });
    let admit = |object: &Value, old: Option<&Value>| {
        let operation = if old.is_some() { Operation::Update } else { Operation::Create };
        let request = Request { group: "resolution.tekton.dev", ..request(operation, object, old) };
        super::admit(&request, &Config::default(), &settings())
    };
    match admit(&object, None) {
        Decision::Allow { object: admitted, warnings } => {
            assert_eq!(admitted, object);
            assert!(warnings.len() == 1 && warnings[0].contains("no resolver"), "{warnings:?}");
        }
        Decision::Deny { message, .. } => panic!("{message}"),
    }
    let old = object.clone();
    object["metadata"]["labels"] = json!({});
    for decision in [admit(&object, None), admit(&object, Some(&old))] {
        assert!(denial(decision).ends_with("missing field(s): meta.labels.resolution.tekton.dev/type"));
    }
}

/// As upstream reads them.
#[rstest]
#[case("ResolutionRequest", "resolution.tekton.dev", "v1beta1", None)]
#[case("ResolutionRequest", "resolution.tekton.dev", "v1alpha1", None)]
#[case("Task", "tekton.dev", "v1", Some("missing field(s): spec.steps"))]
#[case("Task", "tekton.dev", "v1beta1", Some("missing field(s): spec.steps"))]
#[case("TaskRun", "tekton.dev", "v1", Some("expected exactly one, got neither: spec.taskRef, spec.taskSpec"))]
#[case("StepAction", "tekton.dev", "v1beta1", Some("missing field(s): spec.Image"))]
fn an_object_without_a_spec_has_an_empty_one(
    #[case] kind: &str,
    #[case] group: &str,
    #[case] version: &str,
    #[case] wrong: Option<&str>,
) {
    let mut object = json!({
        "apiVersion": format!("{group}/{version}"), "kind": kind,
        "metadata": {"name": "x", "labels": {"resolution.tekton.dev/type": "git"}},
    });
    let decide = |object: &Value| {
        let request = Request { group, kind, ..request(Operation::Create, object, None) };
        super::admit(&request, &Config::default(), &settings())
    };
    for spec in [None, Some(Value::Null)] {
        object.as_object_mut().unwrap().extend(spec.map(|spec| ("spec".to_owned(), spec)));
        let problems = lint(&object, &Config::default());
        assert_eq!(problems.first.first().map(|problem| problem.message.as_str()), wrong);
        let Some(wrong) = wrong else {
            assert_eq!(allowed(decide(&object))["spec"], json!({}));
            continue;
        };
        assert!(denial(decide(&object)).ends_with(wrong), "{object}");
        // The validating webhook may be asked alone.
        let request = Request { group, kind, ..request(Operation::Create, &object, None) };
        assert!(validate(&request, &Config::default()).unwrap_err().message().ends_with(wrong), "{object}");
    }
}

#[test]
fn a_reason_is_cut_when_it_is_too_long_to_read() {
    let script = "é$(params.no)".repeat(10_000);
    let message =
        denial(create(&task_run(json!({"taskSpec": {"steps": [{"image": "i", "script": script}]}}))));
    assert!(message.len() < 40_000, "{} bytes", message.len());
    assert!(message.ends_with(" (cut here: there is more)"));
}

/// A run accepted under other flags, by a newer release.
fn stored_run() -> Value {
    let mut run = task_run(json!({
        "taskSpec": {"steps": [{"image": "i", "stdoutConfig": {"path": "/o"}, "newer": 1}]},
        "serviceAccountName": "default",
        "timeout": "1h0m0s",
    }));
    run["metadata"]["labels"] = json!({"app.kubernetes.io/managed-by": "tekton-pipelines"});
    run
}

#[test]
fn a_run_can_be_cancelled_whatever_is_wrong_with_it_already() {
    let old = stored_run();
    let mut new = old.clone();
    new["spec"]["status"] = json!("TaskRunCancelled");
    let decision = admit(&request(Operation::Update, &new, Some(&old)), &Config::default(), &settings());
    assert_eq!(allowed(decision), new);
}

#[test]
fn what_a_change_adds_is_refused_all_the_same() {
    let old = stored_run();
    let mut new = old.clone();
    new["spec"]["status"] = json!("Stop");
    let decision = admit(&request(Operation::Update, &new, Some(&old)), &Config::default(), &settings());
    assert!(denial(decision).ends_with(
        "validation failed: invalid value: Stop should be TaskRunCancelled or TaskRunPending: spec.status"
    ));
}

#[test]
fn lint_names_all_problems_with_their_paths() {
    let problems = |spec: Value| {
        let found = lint(&task_run(spec), &Config::default());
        found.first.into_iter().map(|problem| (problem.paths.join(" "), problem.message)).collect::<Vec<_>>()
    };
    assert_eq!(problems(json!({"taskRef": {"name": "t"}})), []);
    assert_eq!(
        problems(json!({"a": 1, "retries": "x"})),
        [
            ("spec.a".to_owned(), "unknown field \"spec.a\"".to_owned()),
            (
                "spec.retries".to_owned(),
                "field \"spec.retries\" must be a whole number, not a string".to_owned()
            ),
        ]
    );
    assert_eq!(
        problems(json!({"retries": -1, "timeout": "1h"})),
        [
            (
                "spec.taskRef spec.taskSpec".to_owned(),
                "expected exactly one, got neither: spec.taskRef, spec.taskSpec".to_owned()
            ),
            ("spec.retries".to_owned(), "invalid value: -1 must be >=0: spec.retries".to_owned()),
        ]
    );
}

#[test]
fn todays_defaults_do_not_make_a_change_of_labels_a_change_of_the_spec() {
    let mut old = stored_run();
    old["spec"]["taskSpec"]["params"] = json!([{"name": "p"}]);
    let mut new = old.clone();
    new["metadata"]["labels"]["a"] = json!("b");
    let decision = admit(&request(Operation::Update, &new, Some(&old)), &Config::default(), &settings());
    assert_eq!(allowed(decision)["spec"]["taskSpec"]["params"], json!([{"name": "p", "type": "string"}]));
}

/// Clients in Go add and leave out empty lists and structs when they put back what they have read.
#[rstest]
#[case::resources_of_a_step(
    "taskSpec",
    json!({"steps": [{"image": "i", "script": "true"}]}),
    json!({"steps": [{"image": "i", "script": "true", "computeResources": {}}]}),
    true
)]
#[case::an_embedded_claim(
    "workspaces",
    json!([{"name": "w", "volumeClaimTemplate": {"spec": {}}}]),
    json!([{"name": "w", "volumeClaimTemplate": {
        "metadata": {"creationTimestamp": null}, "spec": {"resources": {}}, "status": {},
    }}]),
    true
)]
#[case::empty_lists("podTemplate", json!({"tolerations": [], "nodeSelector": {}}), json!({}), true)]
#[case::a_limit(
    "taskSpec",
    json!({"steps": [{"image": "i", "script": "true"}]}),
    json!({"steps": [{"image": "i", "script": "true", "computeResources": {"limits": {"cpu": "1"}}}]}),
    false
)]
#[case::a_list_as_value(
    "params",
    json!([{"name": "p", "value": ["a"]}]),
    json!([{"name": "p", "value": []}]),
    false
)]
#[case::an_empty_struct_that_says_something(
    "workspaces",
    json!([{"name": "w", "emptyDir": {}}]),
    json!([{"name": "w"}]),
    false
)]
fn what_clients_in_go_add_is_no_change(
    #[case] field: &str,
    #[case] before: Value,
    #[case] after: Value,
    #[case] is_same: bool,
) {
    let mut old = stored_run();
    old["status"] = json!({"conditions": [{"type": "Succeeded", "status": "True"}]});
    old["spec"][field] = before;
    let mut new = old.clone();
    new["spec"][field] = after;
    let decision = admit(&request(Operation::Update, &new, Some(&old)), &Config::default(), &settings());
    if is_same {
        allowed(decision);
    } else {
        let message = denial(decision);
        assert!(message.contains("Once the TaskRun is complete, no updates are allowed"), "{message}");
    }
}

fn pipeline_run_in_v1beta1(spec: Value) -> Value {
    json!({"apiVersion": "tekton.dev/v1beta1", "kind": "PipelineRun", "metadata": {"name": "r"}, "spec": spec})
}

/// Defaults are those of v1, in the places of v1beta1; nothing of the way there and back is left.
#[test]
fn objects_in_v1beta1_get_their_defaults() {
    let object = pipeline_run_in_v1beta1(json!({
        "timeout": "10m",
        "pipelineSpec": {"tasks": [{"name": "a", "taskSpec": {"steps": [
            {"name": "s", "image": "i", "tty": true, "resources": {"limits": {"cpu": "1"}}},
        ]}}]},
        "taskRunSpecs": [{"pipelineTaskName": "a", "taskServiceAccountName": "b"}],
    }));
    let admitted = allowed(create(&object));
    let mut expected = object;
    expected["spec"]["serviceAccountName"] = json!("default");
    expected["metadata"]["annotations"] = json!({"pipeline.tekton.dev/release": "v1"});
    expected["metadata"]["labels"] = json!({"tekton.dev/pipeline": "r"});
    assert_eq!(admitted, expected);
    let again = request(Operation::Update, &admitted, Some(&expected));
    assert_eq!(allowed(admit(&again, &Config::default(), &settings())), admitted);
}

#[rstest]
#[case(
    json!({"pipelineRef": {"name": "p"}, "timeout": "1h", "timeouts": {"pipeline": "1h"}}),
    "must not set the field(s): spec.timeout, spec.timeouts"
)]
#[case(
    json!({"pipelineRef": {"name": "p", "bundle": "b"}, "resources": [{"name": "r"}]}),
    "must not set the field(s): spec.pipelineRef.bundle, spec.resources"
)]
#[case(
    json!({"pipelineSpec": {"tasks": [{"name": "a", "resources": {"inputs": [{"name": "r", "resource": "r"}]}, "taskRef": {"name": "t"}}]}}),
    "must not set the field(s): spec.pipelineSpec.tasks[0].resources"
)]
#[case(
    json!({"pipelineRef": {"name": "p"}, "taskRunSpecs": [{"pipelineTaskName": "a", "stepOverrides": [{"resources": {}}]}]}),
    "missing field(s): spec.taskRunSpecs[0].stepOverrides[0].name"
)]
fn what_is_wrong_in_v1beta1_is_said_in_its_words(#[case] spec: Value, #[case] message: &str) {
    let found = denial(create(&pipeline_run_in_v1beta1(spec)));
    assert_eq!(
        found,
        format!(
            "admission webhook \"{VALIDATING_WEBHOOK}\" denied the request: validation failed: {message}"
        )
    );
}

/// What an older release let in can still be cancelled.
#[test]
fn what_v1beta1_does_not_take_any_more_may_stay() {
    let old = pipeline_run_in_v1beta1(json!({
        "pipelineRef": {"name": "p"}, "resources": [{"name": "r"}], "timeout": "1h", "serviceAccountName": "default",
    }));
    let mut cancelled = old.clone();
    cancelled["spec"]["status"] = json!("Cancelled");
    let asked = request(Operation::Update, &cancelled, Some(&old));
    assert_eq!(allowed(admit(&asked, &Config::default(), &settings())), cancelled);
}

#[test]
fn problems_of_v1beta1_are_found_where_it_has_them() {
    let object = pipeline_run_in_v1beta1(json!({
        "pipelineRef": {"name": "p", "bundle": "b"},
        "taskRunSpecs": [{"pipelineTaskName": "a", "sidecarOverrides": [{"resources": {}}]}],
    }));
    let mut places: Vec<_> =
        lint(&object, &Config::default()).first.into_iter().flat_map(|problem| problem.paths).collect();
    places.sort();
    assert_eq!(places, ["spec.pipelineRef.bundle", "spec.taskRunSpecs[0].sidecarOverrides[0].name"]);
}
