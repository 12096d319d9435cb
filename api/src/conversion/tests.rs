use std::path::Path;

use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::files::{corpus, documents};

const V1: &str = "tekton.dev/v1";
const V1BETA1: &str = "tekton.dev/v1beta1";

/// Without null and empty values, which say nothing.
fn plain(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Array(items) if !items.is_empty() => {
            items.iter().map(|item| plain(item).unwrap_or_default()).collect()
        }
        Value::Object(fields) => {
            let fields: Map<_, _> =
                fields.iter().filter_map(|(field, value)| Some((field.clone(), plain(value)?))).collect();
            if fields.is_empty() {
                return None;
            }
            Value::Object(fields)
        }
        value if is_empty(value) => return None,
        value => value.clone(),
    })
}

/// There, back, and both as they should be.
fn assert_identity(object: &Value) -> Value {
    let kind = kinds::find(object["kind"].as_str().unwrap()).unwrap();
    let from = object["apiVersion"].as_str().unwrap();
    let other = kind.versions().find(|version| kind.version_of(from) != Some(*version)).unwrap();
    let to = format!("{}/{other}", kind.group);
    let kind = kind.kind;
    let there = convert(object.clone(), &to).unwrap();
    assert_eq!(there["apiVersion"], to);
    let findings = strict::check(kind, &there);
    assert_eq!(findings, [], "what is right in one version is right in the other: {object} became {there}");
    let back = convert(there.clone(), from).unwrap();
    assert_eq!(plain(&back), plain(object), "by way of {there}");
    there
}

fn object(kind: &str, version: &str, metadata: Value, rest: Value) -> Value {
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}});
    for part in [metadata, rest] {
        let Value::Object(part) = part else { panic!("{part} is no map") };
        for (field, value) in part {
            object[field] = value;
        }
    }
    object
}

/// Annotations hold JSON, whose spelling means nothing.
fn with_annotations_read(mut object: Value) -> Value {
    if let Some(Value::Object(annotations)) = object.pointer_mut("/metadata/annotations") {
        for value in annotations.values_mut() {
            *value = value.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or(value.take());
        }
    }
    object
}

fn annotated(annotations: &Value) -> Value {
    json!({"metadata": {"name": "x", "annotations": annotations}})
}

/// Upstream's facts: what stands where, in v1beta1 and in v1.
#[rstest]
#[case::step_resources(
    "Task",
    json!({"spec": {"steps": [{"name": "s", "resources": {"limits": {"cpu": "1"}}}], "stepTemplate": {"resources": {"limits": {"cpu": "2"}}}, "sidecars": [{"name": "c", "resources": {"limits": {"cpu": "3"}}}]}}),
    json!({}),
    json!({"spec": {"steps": [{"name": "s", "computeResources": {"limits": {"cpu": "1"}}}], "stepTemplate": {"computeResources": {"limits": {"cpu": "2"}}}, "sidecars": [{"name": "c", "computeResources": {"limits": {"cpu": "3"}}}]}}),
)]
#[case::task_resources(
    "Task",
    json!({"spec": {"resources": {"inputs": [{"name": "source", "type": "git"}]}, "steps": [{"name": "s"}]}}),
    json!({"tekton.dev/v1beta1Resources": {"inputs": [{"name": "source", "type": "git"}]}}),
    json!({"spec": {"steps": [{"name": "s"}]}}),
)]
#[case::deprecations(
    "Task",
    json!({"spec": {"stepTemplate": {"name": "t", "image": "i", "tty": true}, "steps": [{"name": "a", "terminationMessagePath": "/p"}, {"name": "b"}]}}),
    json!({"tekton.dev/v1beta1.task-deprecations": {"x": {
        "deprecatedSteps": [{"terminationMessagePath": "/p"}, {}], "deprecatedStepTemplate": {"name": "t", "tty": true},
    }}}),
    json!({"spec": {"stepTemplate": {"image": "i"}, "steps": [{"name": "a"}, {"name": "b"}]}}),
)]
#[case::task_run(
    "TaskRun",
    json!({"spec": {"taskRef": {"name": "t"}, "timeout": "1h", "serviceAccountName": "a", "podTemplate": {"hostNetwork": true}, "computeResources": {"limits": {"cpu": "9"}},
        "stepOverrides": [{"name": "s", "resources": {"limits": {"cpu": "1"}}}], "sidecarOverrides": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}],
        "resources": {"inputs": [{"name": "source", "resourceRef": {"name": "r"}}]}},
        "status": {"taskResults": [{"name": "r", "type": "string", "value": "v"}], "cloudEvents": [{"target": "http://sink", "status": {"condition": "Sent", "message": "", "retryCount": 1}}],
        "resourcesResult": [{"key": "digest", "value": "sha256:1", "resourceName": "source"}], "taskSpec": {"resources": {"inputs": [{"name": "source", "type": "git"}]}}}}),
    json!({
        "tekton.dev/v1beta1Resources": {"inputs": [{"name": "source", "resourceRef": {"name": "r"}}]},
        "tekton.dev/v1beta1CloudEvents": [{"target": "http://sink", "status": {"condition": "Sent", "message": "", "retryCount": 1}}],
        "tekton.dev/v1beta1ResourcesResult": [{"key": "digest", "value": "sha256:1", "resourceName": "source"}],
        "tekton.dev/v1beta1ResourcesStatus": {"inputs": [{"name": "source", "type": "git"}]},
    }),
    json!({"spec": {"taskRef": {"name": "t"}, "timeout": "1h", "serviceAccountName": "a", "podTemplate": {"hostNetwork": true}, "computeResources": {"limits": {"cpu": "9"}},
        "stepSpecs": [{"name": "s", "computeResources": {"limits": {"cpu": "1"}}}], "sidecarSpecs": [{"name": "c", "computeResources": {"limits": {"cpu": "2"}}}]},
        "status": {"results": [{"name": "r", "type": "string", "value": "v"}], "taskSpec": {}}}),
)]
#[case::ended_steps(
    "TaskRun",
    json!({"status": {"steps": [{"name": "a", "terminated": {"exitCode": 0, "reason": "Completed"}}, {"name": "b", "terminated": {"exitCode": 1, "reason": "Error"}, "terminationReason": "Continued"}, {"name": "c", "running": {}}]}}),
    json!({}),
    json!({"status": {"steps": [{"name": "a", "terminated": {"exitCode": 0, "reason": "Completed"}, "terminationReason": "Completed"}, {"name": "b", "terminated": {"exitCode": 1, "reason": "Error"}, "terminationReason": "Continued"}, {"name": "c", "running": {}}]}}),
)]
#[case::pipeline(
    "Pipeline",
    json!({"spec": {"resources": [{"name": "source", "type": "git"}], "tasks": [{"name": "a", "taskSpec": {"steps": [{"stdin": true}]}}], "finally": [{"name": "f", "taskSpec": {"steps": [{"resources": {"limits": {"cpu": "1"}}}]}}]}}),
    json!({"tekton.dev/v1beta1Resources": [{"name": "source", "type": "git"}], "tekton.dev/v1beta1.task-deprecations": {"a": {"deprecatedSteps": [{"stdin": true}]}}}),
    json!({"spec": {"tasks": [{"name": "a", "taskSpec": {"steps": [{}]}}], "finally": [{"name": "f", "taskSpec": {"steps": [{"computeResources": {"limits": {"cpu": "1"}}}]}}]}}),
)]
#[case::pipeline_run(
    "PipelineRun",
    json!({"spec": {"pipelineRef": {"name": "p"}, "podTemplate": {"hostNetwork": true}, "serviceAccountName": "a", "timeouts": {"pipeline": "1h", "tasks": "30m"},
        "resources": [{"name": "source", "resourceRef": {"name": "r"}}],
        "taskRunSpecs": [{"pipelineTaskName": "t", "taskServiceAccountName": "b", "taskPodTemplate": {"hostNetwork": false, "schedulerName": "s"}, "stepOverrides": [{"name": "s", "resources": {"limits": {"cpu": "1"}}}], "sidecarOverrides": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]}]},
        "status": {"pipelineResults": [{"name": "r", "value": "v"}], "childReferences": [{"name": "c"}]}}),
    json!({"tekton.dev/v1beta1Resources": [{"name": "source", "resourceRef": {"name": "r"}}]}),
    json!({"spec": {"pipelineRef": {"name": "p"}, "taskRunTemplate": {"podTemplate": {"hostNetwork": true}, "serviceAccountName": "a"}, "timeouts": {"pipeline": "1h", "tasks": "30m"},
        "taskRunSpecs": [{"pipelineTaskName": "t", "serviceAccountName": "b", "podTemplate": {"hostNetwork": false, "schedulerName": "s"}, "stepSpecs": [{"name": "s", "computeResources": {"limits": {"cpu": "1"}}}], "sidecarSpecs": [{"name": "c", "computeResources": {"limits": {"cpu": "2"}}}]}]},
        "status": {"results": [{"name": "r", "value": "v"}], "childReferences": [{"name": "c"}]}}),
)]
#[case::timeout(
    "PipelineRun",
    json!({"spec": {"pipelineRef": {"name": "p"}, "timeout": "1h"}}),
    json!({"ropewalk.dev/v1beta1": {"/spec/timeout": true}}),
    json!({"spec": {"pipelineRef": {"name": "p"}, "timeouts": {"pipeline": "1h"}}}),
)]
#[case::bundles(
    "PipelineRun",
    json!({"spec": {"pipelineRef": {"name": "p", "bundle": "example.com/b"}}, "status": {"pipelineSpec": {"tasks": [{"name": "a", "taskRef": {"name": "t", "kind": "Task", "bundle": "example.com/c"}}]}}}),
    json!({"ropewalk.dev/v1beta1": {"/spec/pipelineRef/bundle": true, "/status/pipelineSpec/tasks/0/taskRef/bundle": true}}),
    json!({"spec": {"pipelineRef": {"resolver": "bundles", "params": [{"name": "bundle", "value": "example.com/b"}, {"name": "name", "value": "p"}, {"name": "kind", "value": "Pipeline"}]}},
        "status": {"pipelineSpec": {"tasks": [{"name": "a", "taskRef": {"kind": "Task", "resolver": "bundles", "params": [{"name": "bundle", "value": "example.com/c"}, {"name": "name", "value": "t"}, {"name": "kind", "value": "Task"}]}}]}}}),
)]
#[case::copies_in_the_status(
    "TaskRun",
    json!({"spec": {"taskSpec": {"steps": [{"tty": true}]}}, "status": {"taskSpec": {"steps": [{"tty": true}]}, "provenance": {"configSource": {"uri": "u"}, "refSource": {"uri": "v"}}}}),
    json!({
        "tekton.dev/v1beta1.task-deprecations": {"x": {"deprecatedSteps": [{"tty": true}]}},
        "ropewalk.dev/v1beta1": {"/status/taskSpec/steps/0/tty": true, "/status/provenance/configSource": {"uri": "u"}},
    }),
    json!({"spec": {"taskSpec": {"steps": [{}]}}, "status": {"taskSpec": {"steps": [{}]}, "provenance": {"refSource": {"uri": "v"}}}}),
)]
fn stands_where_upstream_has_it(
    #[case] kind: &str,
    #[case] v1beta1: Value,
    #[case] annotations: Value,
    #[case] v1: Value,
) {
    let v1beta1 = object(kind, V1BETA1, json!({}), v1beta1);
    let metadata = if annotations == json!({}) { annotations } else { annotated(&annotations) };
    let v1 = object(kind, V1, metadata, v1);
    assert_eq!(with_annotations_read(assert_identity(&v1beta1)), v1);
}

const REQUEST: &str = "resolution.tekton.dev/v1beta1";
const OLD_REQUEST: &str = "resolution.tekton.dev/v1alpha1";

/// What v1alpha1 cannot say waits for the way back.
#[rstest]
#[case::texts(
    json!({"spec": {"params": [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]}}),
    json!({}),
    json!({"spec": {"params": {"a": "1", "b": "2"}}}),
)]
#[case::in_no_order(
    json!({"spec": {"params": [{"name": "b", "value": "2"}, {"name": "a", "value": "1"}]}}),
    json!({"ropewalk.dev/v1beta1": {"/spec/params": [{"name": "b", "value": "2"}, {"name": "a", "value": "1"}]}}),
    json!({"spec": {"params": {"a": "1", "b": "2"}}}),
)]
#[case::lists_and_twice(
    json!({"spec": {"params": [{"name": "a", "value": "1"}, {"name": "l", "value": ["x"]}, {"name": "a", "value": "2"}]}}),
    json!({"ropewalk.dev/v1beta1": {"/spec/params": [{"name": "a", "value": "1"}, {"name": "l", "value": ["x"]}, {"name": "a", "value": "2"}]}}),
    json!({"spec": {"params": {"a": "2"}}}),
)]
#[case::url_and_source(
    json!({"spec": {"url": "https://a"}, "status": {"data": "e30=", "source": {"uri": "u"}, "refSource": {"uri": "v"}}}),
    json!({"ropewalk.dev/v1beta1": {"/spec/url": "https://a", "/status/source": {"uri": "u"}}}),
    json!({"spec": {}, "status": {"data": "e30=", "refSource": {"uri": "v"}}}),
)]
fn requests_stand_where_upstream_has_them(
    #[case] stored: Value,
    #[case] annotations: Value,
    #[case] old: Value,
) {
    let stored = object("ResolutionRequest", REQUEST, json!({}), stored);
    let metadata = if annotations == json!({}) { annotations } else { annotated(&annotations) };
    let old = object("ResolutionRequest", OLD_REQUEST, metadata, old);
    assert_eq!(with_annotations_read(assert_identity(&stored)), old);
}

/// Whoever reads v1alpha1 and puts it back changed means the params that are shown there.
#[test]
fn changes_of_old_requests_meet_what_was_kept() {
    let params = json!([
        {"name": "z", "value": "1"}, {"name": "l", "value": ["x"]}, {"name": "a", "value": "2"},
        {"name": "m", "value": {"k": "v"}}, {"name": "z", "value": "3"},
    ]);
    let stored = object("ResolutionRequest", REQUEST, json!({}), json!({"spec": {"params": params}}));
    let through = |change: fn(&mut Value)| {
        let mut old = convert(stored.clone(), OLD_REQUEST).unwrap();
        change(&mut old["spec"]);
        let back = convert(old, REQUEST).unwrap();
        assert_eq!(back["metadata"].get("annotations"), None);
        back["spec"]["params"].clone()
    };
    assert_eq!(
        through(|spec| spec["params"] = json!({"z": "4", "m": "text", "n": "new"})),
        json!([
            {"name": "z", "value": "1"}, {"name": "l", "value": ["x"]}, {"name": "z", "value": "4"},
            {"name": "m", "value": "text"}, {"name": "n", "value": "new"},
        ])
    );
    let left = json!([{"name": "l", "value": ["x"]}, {"name": "m", "value": {"k": "v"}}]);
    assert_eq!(through(|spec| spec["params"] = json!({})), left);
    assert_eq!(through(|spec| drop(spec.as_object_mut().unwrap().remove("params"))), left);
}

#[rstest]
#[case("{")]
#[case(r#"{"/spec/params": {"a": "b"}}"#)]
#[case(r#"{"/spec/params": [1]}"#)]
#[case(r#"{"/spec/url": 1, "/status/source": "x"}"#)]
#[case(r#"{"/spec/url": "u"}"#)]
fn annotations_that_fit_no_request_are_left_alone(#[case] annotation: &str) {
    let rest = json!({"spec": {"params": {"a": "1"}, "url": "own"}, "status": {}});
    let old = object(
        "ResolutionRequest",
        OLD_REQUEST,
        annotated(&json!({"ropewalk.dev/v1beta1": annotation})),
        rest,
    );
    let stored = convert(old.clone(), REQUEST).unwrap();
    assert_eq!(stored["spec"], json!({"params": [{"name": "a", "value": "1"}], "url": "own"}));
    assert_eq!(with_annotations_read(stored)["metadata"], with_annotations_read(old)["metadata"]);
}

/// As upstream's own conversion writes them.
#[test]
fn annotations_of_upstream_are_understood() {
    let deprecations = r#"{"other":{},"x":{"deprecatedSteps":[{"name":"","livenessProbe":{"periodSeconds":3},"resources":{}}]}}"#;
    let v1 = object(
        "Task",
        V1,
        annotated(&json!({"tekton.dev/v1beta1.task-deprecations": deprecations, "own": "{"})),
        json!({"spec": {"steps": [{"name": "s"}]}}),
    );
    let v1beta1 = convert(v1, V1BETA1).unwrap();
    assert_eq!(v1beta1["spec"]["steps"], json!([{"name": "s", "livenessProbe": {"periodSeconds": 3}}]));
    let left = json!({"tekton.dev/v1beta1.task-deprecations": "{\"other\":{}}", "own": "{"});
    assert_eq!(v1beta1["metadata"]["annotations"], left);
}

/// What stands in annotations is anybody's; upstream fails here, and with it every list of the kind.
#[rstest]
#[case("Task", "tekton.dev/v1beta1Resources", "{")]
#[case("Task", "tekton.dev/v1beta1Resources", "")]
#[case("Task", "tekton.dev/v1beta1Resources", "[1]")]
#[case("Task", "tekton.dev/v1beta1Resources", r#"{"inputs":[{"name":1}]}"#)]
#[case("Task", "tekton.dev/v1beta1.task-deprecations", "[]")]
#[case("Task", "tekton.dev/v1beta1.task-deprecations", r#"{"x":1}"#)]
#[case("Task", "tekton.dev/v1beta1.task-deprecations", r#"{"x":{"deprecatedSteps":[{},{"tty":true}]}}"#)]
#[case("Task", "tekton.dev/v1beta1.task-deprecations", r#"{"x":{"deprecatedSteps":[{"tty":"yes"}]}}"#)]
#[case("Task", "ropewalk.dev/v1beta1", "null")]
#[case("Task", "ropewalk.dev/v1beta1", r#"{"/spec/steps/0/image":"evil","":1,"/metadata/name":"y"}"#)]
#[case("TaskRun", "tekton.dev/v1beta1ResourcesStatus", r#"{"inputs":[]}"#)]
#[case("TaskRun", "tekton.dev/v1beta1CloudEvents", r#"[{"target":[]}]"#)]
#[case(
    "PipelineRun",
    "ropewalk.dev/v1beta1",
    r#"{"/spec/timeout":true,"/spec/timeouts":1,"/status/taskRuns":{"a":{}}}"#
)]
#[case("PipelineRun", "ropewalk.dev/v1beta1", r#"{"/spec/pipelineRef/bundle":1}"#)]
fn other_annotations_stay_and_do_nothing(#[case] kind: &str, #[case] annotation: &str, #[case] text: &str) {
    let spec = match kind {
        "Task" => json!({"steps": [{"name": "s"}]}),
        _ => json!({"timeouts": {"pipeline": "1h", "tasks": "1m"}, "pipelineRef": {"name": "p"}}),
    };
    let spec = if kind == "TaskRun" { json!({"taskRef": {"name": "t"}}) } else { spec };
    let v1 = object(kind, V1, annotated(&json!({annotation: text})), json!({"spec": spec}));
    let v1beta1 = convert(v1.clone(), V1BETA1).unwrap();
    assert_eq!(v1beta1["spec"], v1["spec"]);
    let back = convert(v1beta1, V1).unwrap();
    assert_eq!(with_annotations_read(back), with_annotations_read(v1));
}

#[rstest]
#[case(json!(null), V1, r#"cannot convert kind "" of "", which has no versions here"#)]
#[case(json!({"kind": "Task", "apiVersion": "v1"}), V1, r#"cannot convert kind "Task" of "v1", which has no versions here"#)]
#[case(
    json!({"kind": "Task", "apiVersion": "tekton.dev/v1", "metadata": {"name": "t"}}), "tekton.dev/v2",
    r#"cannot convert Task "t": there is no version "tekton.dev/v2" of it, only "v1", "v1beta1""#
)]
fn others_are_refused(#[case] object: Value, #[case] to: &str, #[case] message: &str) {
    assert_eq!(convert(object, to).unwrap_err().to_string(), message);
}

#[test]
fn step_actions_differ_in_nothing() {
    let spec = json!({"image": "i", "params": [{"name": "p"}]});
    let stored = json!({"apiVersion": V1BETA1, "kind": "StepAction", "spec": spec});
    let alpha = json!({"apiVersion": "tekton.dev/v1alpha1", "kind": "StepAction", "spec": spec});
    assert_eq!(convert(stored.clone(), "tekton.dev/v1alpha1").unwrap(), alpha);
    assert_eq!(convert(alpha, V1BETA1).unwrap(), stored);
}

#[rstest]
#[case("Task", "spec.steps[0].computeResources.limits", "spec.steps[0].resources.limits")]
#[case("TaskRun", "spec.stepSpecs[1].computeResources", "spec.stepOverrides[1].resources")]
#[case("TaskRun", "spec.computeResources", "spec.computeResources")]
#[case("PipelineRun", "spec.taskRunTemplate.podTemplate.env", "spec.podTemplate.env")]
#[case("PipelineRun", "spec.taskRunTemplate.PodTemplate.Env", "spec.PodTemplate.Env")]
#[case("PipelineRun", "spec.taskRunSpecs[0].podTemplate", "spec.taskRunSpecs[0].taskPodTemplate")]
#[case(
    "PipelineRun",
    "spec.pipelineSpec.tasks[2].taskSpec.sidecars[0].computeResources",
    "spec.pipelineSpec.tasks[2].taskSpec.sidecars[0].resources"
)]
#[case("PipelineRun", "spec.workspaces[a].secret.secretName", "spec.workspaces[a].secret.secretName")]
#[case("Task", "metadata.name", "metadata.name")]
#[case("Task", "", "")]
fn paths_have_the_names_of_v1beta1(#[case] kind: &str, #[case] v1: &str, #[case] v1beta1: &str) {
    assert_eq!(path_in_v1beta1(kind, v1), v1beta1);
}

#[test]
fn the_table_names_fields_there_are() {
    for (within, _, v1) in RENAMED {
        assert!(schema::definition(within).unwrap()["properties"].get(v1).is_some(), "{within}.{v1}");
    }
    for (within, field, _) in differences::GONE {
        let properties = &schema::definition(within).unwrap()["properties"];
        assert_eq!(properties.get(field), None, "{within}.{field} is in v1, too");
        let beta = schema::definition(&format!("{PREFIX}{within}")).unwrap();
        assert!(beta["properties"][field].is_object(), "{within}.{field}");
    }
}

fn assert_all_are_identities(folder: &Path) {
    let mut documents = documents(folder);
    // The kinds with several versions.
    documents.retain(|(_, document)| kinds::find(document["kind"].as_str().unwrap()).unwrap().is_converted());
    assert!(!documents.is_empty(), "{}", folder.display());
    for (_, document) in documents {
        let other = assert_identity(&document);
        assert_identity(&other);
    }
}

#[test]
fn fixtures_and_examples_convert_without_loss() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_all_are_identities(&own.join("tests/fixtures"));
    assert_all_are_identities(&own.join("../examples"));
}

#[test]
fn a_corpus_converts_without_loss() {
    if let Some(folder) = corpus() {
        assert_all_are_identities(&folder);
    }
}

/// Makes objects of a schema, by choices that may run out.
struct Maker<'a> {
    choices: std::slice::Iter<'a, u16>,
}

impl Maker<'_> {
    fn choose(&mut self, among: usize) -> usize {
        usize::from(self.choices.next().copied().unwrap_or_default()) % among
    }

    /// Anything this schema takes; nothing much once the choices have run out.
    fn make(&mut self, schema: &'static Value, depth: usize) -> Value {
        let (_, schema) = schema::resolve(schema);
        let texts = ["", "x", "y", "1", "{}"];
        if schema::is_int_or_string(schema) {
            return [json!(1), json!("1"), json!("100")][self.choose(3)].clone();
        }
        match schema::json_type(schema) {
            Some("object") if depth > 0 => {
                let mut fields = Map::new();
                let known = schema.get("properties").and_then(Value::as_object);
                for (field, property) in known.into_iter().flatten() {
                    if self.choose(4) == 1 {
                        fields.insert(field.clone(), self.make(property, depth - 1));
                    }
                }
                if let Some(other) = schema.get("additionalProperties").filter(|other| other.is_object()) {
                    for _ in 0..self.choose(3) {
                        let key = texts[self.choose(texts.len())];
                        fields.insert(key.to_owned(), self.make(other, depth - 1));
                    }
                }
                Value::Object(fields)
            }
            Some("array") if depth > 0 => {
                (0..self.choose(4)).map(|_| self.make(&schema["items"], depth - 1)).collect()
            }
            Some("object") => json!({}),
            Some("array") => json!([]),
            Some("string") if schema::is_duration(schema) => json!(["1h", "0s", "1m30s"][self.choose(3)]),
            Some("string") => json!(texts[self.choose(texts.len())]),
            Some("boolean") => json!(self.choose(2) == 1),
            Some("integer") => json!(self.choose(3)),
            Some(_) => json!(1.5),
            None => [json!("x"), json!(["x"]), json!({"resources": {"timeout": 1}}), json!(null)]
                [self.choose(4)]
            .clone(),
        }
    }

    fn object(&mut self, kind: &Kind, version: &str) -> Value {
        let root = schema::full(kind.kind, version).unwrap();
        let mut object = json!({
            "apiVersion": format!("{}/{version}", kind.group), "kind": kind.kind, "metadata": {"name": "x", "uid": "u"},
        });
        if self.choose(2) == 1 {
            object["metadata"]["annotations"] = json!({"own": "{\"a\":1}"});
        }
        for part in ["spec", "status"] {
            if let Some(schema) = root["properties"].get(part) {
                object[part] = self.make(schema, 9);
            }
        }
        object
    }
}

/// Takes away what v1beta1 cannot say both ways: fields that are dropped on purpose, and what is the same as what it
/// would be read from.
fn without_what_cannot_be(kind: &Kind, object: &mut Value) {
    let schema = schema::full(kind.kind, kind.version).unwrap();
    let visit = &mut |within: &str, fields: &mut Map<String, Value>, _: &str| match within {
        "PipelineRunStatus" => fields.retain(|field, _| field != "runs" && field != "taskRuns"),
        "StepState" => fields.retain(|field, _| field != TERMINATION_REASON),
        _ => {}
    };
    walk(schema::shape(schema).unwrap(), object, &mut String::new(), Order::OutsideIn, visit);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn generated_objects_convert_without_loss(
        kind in 0_usize..5,
        choices in prop::collection::vec(any::<u16>(), 0..3000),
        stored in any::<bool>(),
    ) {
        let kind = kinds::ALL.iter().filter(|kind| kind.is_converted()).nth(kind).unwrap();
        let mut maker = Maker { choices: choices.iter() };
        let mut object = maker.object(kind, if stored { kind.version } else { kind.also[0] });
        if !stored {
            without_what_cannot_be(kind, &mut object);
        }
        let other = assert_identity(&object);
        assert_identity(&other);
    }
}
