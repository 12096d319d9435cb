use http::Method;
use serde_json::{Value, json};

use super::{PODS, World};
use crate::Outcome;

fn pod(name: &str, node: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "nodeName": node, "containers": [{ "name": "a", "image": "1" }, { "name": "b" }],
                  "initContainers": [{ "name": "i" }] },
        "status": { "phase": "Forged" },
    })
}

#[test]
fn a_pod_begins_pending() {
    let mut world = World::new();
    assert_eq!(world.make(PODS, &pod("p", ""))["status"], json!({ "phase": "Pending" }));
}

#[test]
fn a_running_pod_has_grace() {
    let mut world = World::new();
    world.make(PODS, &pod("p", "n"));
    let url = format!("{PODS}/p");
    let (code, shown) = world.delete(&url, &Value::Null);
    assert_eq!((code, &shown["metadata"]["deletionGracePeriodSeconds"]), (200, &json!(30)));
    assert_eq!(shown["metadata"]["deletionTimestamp"], "2026-01-02T03:04:35Z");
    assert_eq!(world.changes(), ["Modified p"]);
    // Longer does not help, shorter does, and zero is the kubelet's word that it is over.
    world.delete(&url, &json!({ "gracePeriodSeconds": 60 }));
    assert!(world.deltas.is_empty());
    let (_, shown) = world.delete(&url, &json!({ "gracePeriodSeconds": 5 }));
    assert_eq!(shown["metadata"]["deletionTimestamp"], "2026-01-02T03:04:10Z");
    let uid = shown["metadata"]["uid"].clone();
    let (code, _) = world.delete(&url, &json!({ "gracePeriodSeconds": 0, "preconditions": { "uid": uid } }));
    assert_eq!((code, world.changes()), (200, vec!["Deleted p".to_owned()]));
}

#[test]
fn a_pod_that_does_not_run_goes_at_once() {
    let mut world = World::new();
    world.make(PODS, &pod("waiting", ""));
    world.delete(&format!("{PODS}/waiting"), &Value::Null);
    assert_eq!(world.changes(), ["Deleted waiting"]);
    world.make(PODS, &pod("done", "n"));
    world.merge(&format!("{PODS}/done/status"), &json!({ "status": { "phase": "Succeeded" } }));
    let (code, shown) = world.delete(&format!("{PODS}/done"), &Value::Null);
    assert_eq!(
        (code, &shown["kind"], world.changes()),
        (200, &json!("Pod"), vec!["Deleted done".to_owned()])
    );
}

#[test]
fn only_images_and_little_else_change() {
    let mut world = World::new();
    world.make(PODS, &pod("p", "n"));
    let url = format!("{PODS}/p");
    let image = json!([{ "op": "replace", "path": "/spec/containers/0/image", "value": "2" }]);
    let (code, changed) = world.call(Method::PATCH, &url, "application/json-patch+json", &image);
    assert_eq!((code, &changed["spec"]["containers"][0]["image"]), (200, &json!("2")));
    assert_eq!(world.merge(&url, &json!({ "metadata": { "annotations": { "k": "v" } } })).0, 200);
    assert_eq!(world.merge(&url, &json!({ "spec": { "activeDeadlineSeconds": 5 } })).0, 200);
    let (code, status) = world.merge(&url, &json!({ "spec": { "hostNetwork": true } }));
    assert_eq!(code, 422);
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("spec: Forbidden: pod updates may not change fields other")
    );
}

#[test]
fn a_pod_is_bound_once() {
    let mut world = World::new();
    world.make(PODS, &pod("p", ""));
    let binding = json!({ "metadata": { "name": "p" }, "target": { "kind": "Node", "name": "n" } });
    assert_eq!(world.post(&format!("{PODS}/p/binding"), &binding).0, 201);
    assert_eq!(world.get(&format!("{PODS}/p")).1["spec"]["nodeName"], "n");
    assert_eq!(world.post(&format!("{PODS}/p/binding"), &binding).0, 409);
}

#[test]
fn an_eviction_is_a_deletion() {
    let mut world = World::new();
    world.make(PODS, &pod("p", "n"));
    let eviction = json!({ "metadata": { "name": "p" }, "deleteOptions": { "gracePeriodSeconds": 1 } });
    let (code, _) = world.post(&format!("{PODS}/p/eviction"), &eviction);
    assert_eq!(code, 200);
    let (_, left) = world.get(&format!("{PODS}/p"));
    assert_eq!(left["metadata"]["deletionGracePeriodSeconds"], 1);
}

#[test]
fn logs_name_their_container() {
    let mut world = World::new();
    let made = world.make(PODS, &pod("p", "n"));
    let mut log = |query: &str| {
        let handled = world.handle(Method::GET, &format!("{PODS}/p/log{query}"), "", Vec::new());
        match handled.outcome {
            Outcome::Log(request) => Ok(request),
            Outcome::Response(response) => {
                let status: Value = serde_json::from_slice(response.body()).unwrap();
                Err((response.status().as_u16(), status["message"].as_str().unwrap().to_owned()))
            }
            Outcome::Watch(_) => panic!("a log is no watch"),
        }
    };
    let request = log("?container=b&follow=true&tailLines=5&timestamps=true&sinceSeconds=9").unwrap();
    assert_eq!(
        (request.pod.as_str(), request.container.as_str(), request.namespace.as_str()),
        ("p", "b", "default")
    );
    assert_eq!(request.uid, made["metadata"]["uid"].as_str().unwrap());
    assert!(request.follow && request.timestamps && !request.previous);
    assert_eq!((request.tail_lines, request.since_seconds, request.limit_bytes), (Some(5), Some(9), None));
    assert_eq!(log("?container=i").unwrap().container, "i");
    for (query, expected) in [
        (
            "",
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]",
        ),
        ("?container=nope", "container nope is not valid for pod p"),
        ("?container=a&tailLines=x", "tailLines: \"x\" is not a whole number"),
    ] {
        assert_eq!(log(query), Err((400, expected.to_owned())), "{query}");
    }
    assert_eq!(world.get(&format!("{PODS}/nope/log")).0, 404);
    assert_eq!(world.get("/api/v1/namespaces/default/configmaps/p/log").0, 404);
}
