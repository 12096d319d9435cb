use http::Method;
use serde_json::{Value, json};

use super::{PODS, World};
use crate::{LogRequest, Outcome};

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
    let made = world.make(PODS, &pod("p", ""));
    assert_eq!(made["status"], json!({ "phase": "Pending", "qosClass": "BestEffort" }));
}

#[test]
fn a_pod_is_as_sure_of_its_resources_as_its_containers() {
    let all = || json!({ "cpu": "1", "memory": "1Gi" });
    // The three examples of the Kubernetes documentation on classes, and what comes close to them.
    for (first, second, expected) in [
        (json!({ "limits": all(), "requests": all() }), json!({ "limits": all() }), "Guaranteed"),
        (json!({ "limits": all() }), json!({}), "Burstable"),
        (json!({ "limits": { "memory": "1Gi" } }), json!({ "limits": all() }), "Burstable"),
        (json!({ "limits": all(), "requests": { "cpu": "500m" } }), json!({ "limits": all() }), "Burstable"),
        (json!({ "requests": { "cpu": "1m" } }), json!({}), "Burstable"),
        (json!({ "requests": { "cpu": "0", "storage": "1Gi" } }), json!({}), "BestEffort"),
    ] {
        let mut world = World::new();
        let made = world.make(
            PODS,
            &json!({ "metadata": { "name": "p" }, "spec": {
            "containers": [{ "name": "a", "image": "a:1", "resources": first }],
            "initContainers": [{ "name": "b", "image": "b:1", "resources": second }],
        } }),
        );
        assert_eq!(made["status"]["qosClass"], expected, "{first} {second}");
    }
}

#[test]
fn admission_fills_in_what_a_cluster_would_and_nobody_owns_it() {
    let mut world = World::new();
    let made = world.make(PODS, &json!({ "metadata": { "name": "p" }, "spec": {
        "containers": [{ "name": "a", "image": "a:1" }],
        "tolerations": [{ "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute" }],
    } }));
    let spec = &made["spec"];
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(0), &json!("PreemptLowerPriority")));
    assert_eq!(
        (&spec["serviceAccountName"], &spec["serviceAccount"]),
        (&json!("default"), &json!("default"))
    );
    let tolerated: Vec<_> =
        spec["tolerations"].as_array().unwrap().iter().map(|t| &t["tolerationSeconds"]).collect();
    assert_eq!(tolerated, [&Value::Null, &json!(300)]);
    let owned = &made["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    assert_eq!(owned["f:dnsPolicy"], json!({}));
    for field in ["f:priority", "f:preemptionPolicy", "f:serviceAccountName"] {
        assert_eq!(owned[field], Value::Null, "{field}");
    }
    // Who writes it back without what admission added changes nothing of that.
    let bare = json!({ "metadata": { "name": "p" }, "spec": {
        "containers": [{ "name": "a", "image": "a:2" }], "serviceAccountName": "default",
    } });
    let (code, changed) = world.put(&format!("{PODS}/p"), &bare);
    assert_eq!((code, &changed["spec"]["priority"]), (200, &json!(0)), "{changed}");
    assert_eq!(changed["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
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
fn a_negative_grace_is_a_second() {
    let mut world = World::new();
    let grace = |shown: &Value| shown["metadata"]["deletionGracePeriodSeconds"].clone();
    world.make(PODS, &pod("body", "n"));
    let (code, shown) = world.delete(&format!("{PODS}/body"), &json!({ "gracePeriodSeconds": -1 }));
    assert_eq!((code, grace(&shown)), (200, json!(1)), "the node has to end it");
    world.make(PODS, &pod("query", "n"));
    let (code, shown) = world.delete(&format!("{PODS}/query?gracePeriodSeconds=-1"), &Value::Null);
    assert_eq!((code, grace(&shown)), (200, json!(1)), "{shown}");
}

#[test]
fn what_pods_have_on_a_cluster_only_is_refused_with_what_to_do_instead() {
    let mut world = World::new();
    world.make(PODS, &pod("p", "n"));
    for (subresource, instead) in [
        ("portforward", "status.podIP"),
        ("proxy", "status.podIP"),
        ("ephemeralcontainers", "kubectl exec"),
        ("resize", "make the pod again"),
    ] {
        let (code, status) = world.get(&format!("{PODS}/p/{subresource}"));
        let message = status["message"].as_str().unwrap();
        assert!(
            code == 404 && message.contains(&format!("pods/{subresource}")) && message.contains(instead),
            "{message}"
        );
    }
    let (code, status) = world.get(&format!("{PODS}/p/nothing"));
    assert_eq!((code, &status["message"]), (404, &json!("the server could not find the requested resource")));
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
    let rehearsed = json!({ "metadata": { "name": "p" }, "deleteOptions": { "dryRun": ["All"] } });
    assert_eq!(world.post(&format!("{PODS}/p/eviction"), &rehearsed).0, 201);
    assert!(world.deltas.is_empty(), "drain --dry-run=server evicts nothing");
    let (code, told) = world.post(&format!("{PODS}/p/eviction"), &eviction);
    assert_eq!((code, &told["kind"], &told["status"]), (201, &json!("Status"), &json!("Success")));
    let (_, left) = world.get(&format!("{PODS}/p"));
    assert_eq!(left["metadata"]["deletionGracePeriodSeconds"], 1);
}

fn get_log(world: &mut World, query: &str) -> Result<Option<LogRequest>, (u16, String)> {
    let handled = world.handle(Method::GET, &format!("{PODS}/p/log{query}"), "", Vec::new());
    match handled.outcome {
        Outcome::Log(request) => Ok(Some(request)),
        Outcome::Response(response) if response.body().is_empty() => Ok(None),
        Outcome::Response(response) => {
            let status: Value = serde_json::from_slice(response.body()).unwrap();
            Err((response.status().as_u16(), status["message"].as_str().unwrap().to_owned()))
        }
        other => panic!("a log is no {other:?}"),
    }
}

#[test]
fn logs_name_their_container() {
    let mut world = World::new();
    let made = world.make(PODS, &pod("p", "n"));
    let running = json!({ "running": {} });
    let status = json!({ "status": {
        "containerStatuses": [{ "name": "b", "state": running }],
        "initContainerStatuses": [{ "name": "i", "state": { "terminated": { "exitCode": 0 } } }],
    } });
    world.merge(&format!("{PODS}/p/status"), &status);
    let request = get_log(&mut world, "?container=b&follow=true&tailLines=5&timestamps=true&sinceSeconds=9");
    let request = request.unwrap().unwrap();
    assert_eq!(
        (request.pod.as_str(), request.container.as_str(), request.namespace.as_str()),
        ("p", "b", "default")
    );
    assert_eq!(request.uid, made["metadata"]["uid"].as_str().unwrap());
    assert!(request.follow && request.timestamps && !request.previous);
    assert_eq!((request.tail_lines, request.since_seconds, request.limit_bytes), (Some(5), Some(9), None));
    assert_eq!(get_log(&mut world, "?container=i").unwrap().unwrap().container, "i");
    let both = "?sinceSeconds=1&sinceTime=2026-01-02T03:04:05Z";
    for (query, code, expected) in [
        ("", 400, "a container name must be specified for pod p, choose one of: [i a b]"),
        ("?container=nope", 400, "container nope is not valid for pod p"),
        ("?container=a", 400, "container \"a\" in pod \"p\" is not available"),
        ("?container=a&tailLines=x", 400, "tailLines: \"x\" is not a whole number"),
        (
            "?tailLines=-1",
            422,
            "PodLogOptions \"p\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "?limitBytes=0&sinceSeconds=0",
            422,
            "PodLogOptions \"p\" is invalid: [limitBytes: Invalid value: 0: must be greater than 0, \
             sinceSeconds: Invalid value: 0: must be greater than 0]",
        ),
        (
            both,
            422,
            "PodLogOptions \"p\" is invalid: : Forbidden: at most one of `sinceTime` or `sinceSeconds` may be \
             specified",
        ),
    ] {
        assert_eq!(get_log(&mut world, query), Err((code, expected.to_owned())), "{query}");
    }
    assert_eq!(world.get(&format!("{PODS}/nope/log")).0, 404);
    assert_eq!(world.get("/api/v1/namespaces/default/configmaps/p/log").0, 404);
}

#[test]
fn the_only_container_need_not_be_named() {
    let mut world = World::new();
    let spec = json!({ "containers": [{ "name": "a" }], "initContainers": [{ "name": "i" }] });
    world.make(PODS, &json!({ "metadata": { "name": "p" }, "spec": spec }));
    // No node has it yet, so it has said nothing.
    assert_eq!(get_log(&mut world, ""), Ok(None));
    let binding = json!({ "metadata": { "name": "p" }, "target": { "kind": "Node", "name": "n" } });
    assert_eq!(world.post(&format!("{PODS}/p/binding"), &binding).0, 201);
    let ended = json!({ "terminated": { "exitCode": 1 } });
    let waits = |reason: &str| json!({ "waiting": { "reason": reason } });
    let missing = "container \"a\" in pod \"p\" is waiting to start";
    let previous = "previous terminated container \"a\" in pod \"p\" not found";
    for (state, last, now, before) in [
        (json!({ "running": {} }), Value::Null, None, Some(previous.to_owned())),
        (ended.clone(), Value::Null, None, Some(previous.to_owned())),
        (waits("CrashLoopBackOff"), ended, None, None),
        (
            waits("ContainerCreating"),
            Value::Null,
            Some(format!("{missing}: ContainerCreating")),
            Some(previous.to_owned()),
        ),
        (
            waits("ErrImagePull"),
            Value::Null,
            Some(format!("{missing}: image can't be pulled")),
            Some(previous.to_owned()),
        ),
        (
            waits("ImagePullBackOff"),
            Value::Null,
            Some(format!("{missing}: trying and failing to pull image")),
            Some(previous.to_owned()),
        ),
        (json!({}), Value::Null, Some(format!("{missing} - no logs yet")), Some(previous.to_owned())),
    ] {
        let statuses = json!([{ "name": "a", "state": state, "lastState": last }]);
        world.merge(&format!("{PODS}/p/status"), &json!({ "status": { "containerStatuses": statuses } }));
        let refusal = |world: &mut World, query| get_log(world, query).err().map(|(_, message)| message);
        assert_eq!(refusal(&mut world, "?follow=true"), now, "{state}");
        assert_eq!(refusal(&mut world, "?previous=true"), before, "{state}");
    }
}
