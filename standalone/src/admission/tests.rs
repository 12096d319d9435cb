use std::pin::pin;

use futures::TryStreamExt as _;
use jiff::Timestamp;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use ropewalk_apiserver::State;
use serde_json::{Value, json};

use super::*;
use crate::server::{NoLogs, Server};

fn apis(kind: &str) -> [Api<DynamicObject>; 2] {
    let state = State::new(crate::resources().unwrap(), 1, Timestamp::UNIX_EPOCH);
    let webhooks = Webhooks::new(Arc::default(), &Settings::default());
    let client = Server::new(state, Arc::new(webhooks), Arc::new(NoLogs)).client();
    ["v1", "v1beta1"].map(|version| {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("tekton.dev", version, kind));
        Api::default_namespaced_with(client.clone(), &resource)
    })
}

fn task(version: &str, name: &str, resources: &str) -> DynamicObject {
    let object = json!({
        "apiVersion": format!("tekton.dev/{version}"), "kind": "Task", "metadata": {"name": name},
        "spec": {"steps": [{"name": "s", "image": "i", resources: {"limits": {"cpu": "1"}}}]},
    });
    serde_json::from_value(object).unwrap()
}

/// What objects are told apart by: their version, their name, and what their versions call differently.
fn told(object: &DynamicObject) -> Value {
    let version = object.types.as_ref().map(|types| types.api_version.as_str());
    let step = &object.data["spec"]["steps"][0];
    let cpu = |resources: &str| step[resources]["limits"]["cpu"].clone();
    json!([version, object.metadata.name, cpu("computeResources"), cpu("resources")])
}

#[tokio::test]
async fn objects_stored_in_either_version_read_back_in_both() {
    let [v1, v1beta1] = apis("Task");
    let params = PostParams::default();
    v1.create(&params, &task("v1", "a", "computeResources")).await.unwrap();
    v1beta1.create(&params, &task("v1beta1", "b", "resources")).await.unwrap();
    for (api, expected) in [
        (&v1, [json!(["tekton.dev/v1", "a", "1", null]), json!(["tekton.dev/v1", "b", "1", null])]),
        (
            &v1beta1,
            [json!(["tekton.dev/v1beta1", "a", null, "1"]), json!(["tekton.dev/v1beta1", "b", null, "1"])],
        ),
    ] {
        let got = [api.get("a").await.unwrap(), api.get("b").await.unwrap()];
        assert_eq!(got.each_ref().map(told), expected);
        let listed = api.list(&ListParams::default()).await.unwrap();
        assert_eq!(listed.items.iter().map(told).collect::<Vec<_>>(), expected);
        let mut events = pin!(api.watch(&WatchParams::default(), "0").await.unwrap());
        for expected in expected {
            match events.try_next().await.unwrap() {
                Some(WatchEvent::Added(object)) => assert_eq!(told(&object), expected),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn writes_in_one_version_show_in_the_other_and_lose_nothing() {
    let [v1, v1beta1] = apis("Task");
    let mut object = task("v1beta1", "t", "resources");
    object.data["spec"]["steps"][0]["tty"] = json!(true);
    v1beta1.create(&PostParams::default(), &object).await.unwrap();
    let stored = v1.get("t").await.unwrap();
    assert_eq!(stored.data["spec"]["steps"][0].get("tty"), None);
    let described = json!({"spec": {"description": "d"}});
    v1.patch("t", &PatchParams::default(), &Patch::Merge(described)).await.unwrap();
    let changed = v1beta1.get("t").await.unwrap();
    assert_eq!(changed.data["spec"]["description"], "d");
    assert_eq!(changed.data["spec"]["steps"], object.data["spec"]["steps"]);
    assert_eq!(changed.metadata.annotations, None);
    let same = v1beta1.replace("t", &PostParams::default(), &changed).await.unwrap();
    assert_eq!(same.metadata.resource_version, changed.metadata.resource_version, "nothing was written");

    let by = PatchParams::apply("test");
    v1beta1.patch("s", &by, &Patch::Apply(task("v1beta1", "s", "resources"))).await.unwrap();
    let again = v1.patch("s", &by, &Patch::Apply(task("v1", "s", "computeResources"))).await.unwrap();
    assert_eq!(told(&again), json!(["tekton.dev/v1", "s", "1", null]));
}

#[tokio::test]
async fn admission_speaks_of_the_version_that_was_sent() {
    let [_, v1beta1] = apis("TaskRun");
    let object = json!({
        "apiVersion": "tekton.dev/v1beta1", "kind": "TaskRun", "metadata": {"name": "r"},
        "spec": {"taskSpec": {"steps": [{"image": "i", "computeResources": {}}]}},
    });
    let refused = v1beta1.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await;
    let message = refused.unwrap_err().to_string();
    assert!(
        message
            .contains(r#"unknown field "spec.taskSpec.steps[0].computeResources", use "resources" instead"#),
        "{message}"
    );
}
