//! Pods and nodes, from requests to who runs where.

use serde_json::{Value, json};

use super::{PODS, World};

const NODES: &str = "/api/v1/nodes";
const EVENTS: &str = "/api/v1/namespaces/default/events";

fn node(pods: &str) -> Value {
    json!({ "metadata": { "name": "here", "labels": { "disk": "ssd" } },
            "status": { "allocatable": { "cpu": "2", "pods": pods } } })
}

fn pod(name: &str, spec: &Value) -> Value {
    let mut pod =
        json!({ "metadata": { "name": name }, "spec": { "containers": [{ "name": "a", "image": "i" }] } });
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    pod
}

impl World {
    fn place(&mut self, name: &str) -> String {
        let (_, pod) = self.get(&format!("{PODS}/{name}"));
        if let Some(node) = pod["spec"]["nodeName"].as_str() {
            assert_eq!(pod["status"]["conditions"][0]["status"], "True", "{pod}");
            return node.to_owned();
        }
        let condition = &pod["status"]["conditions"][0];
        condition["message"].as_str().unwrap_or("nothing said").to_owned()
    }

    fn finish(&mut self, name: &str) {
        self.merge(&format!("{PODS}/{name}/status"), &json!({ "status": { "phase": "Succeeded" } }));
    }

    /// Messages of `FailedScheduling`, by pod.
    fn told(&mut self) -> Vec<String> {
        let (_, events) = self.get(EVENTS);
        let all = events["items"].as_array().unwrap().iter();
        let mut told: Vec<String> = all
            .filter(|event| event["reason"] == "FailedScheduling")
            .map(|event| format!("{}: {}", event["involvedObject"]["name"], event["message"]))
            .collect();
        told.sort();
        told
    }
}

const FULL: &str = "0/1 nodes are available: 1 Too many pods. preemption: 0/1 nodes are available: 1 No preemption \
                    victims found for incoming pod.";

#[test]
fn without_nodes_nobody_is_told_anything() {
    let mut world = World::new();
    let made = world.make(PODS, &pod("p", &json!({})));
    assert_eq!(world.changes(), ["Added p"]);
    assert_eq!(made["status"]["conditions"], Value::Null);
    // The first node takes those that are there.
    world.make(NODES, &node("9"));
    assert_eq!(world.place("p"), "here");
}

#[test]
fn a_pod_waits_in_line_until_another_ends() {
    let mut world = World::new();
    world.make(NODES, &node("1"));
    for name in ["a", "c", "b"] {
        world.make(PODS, &pod(name, &json!({})));
    }
    assert_eq!([world.place("a"), world.place("b"), world.place("c")], ["here", FULL, FULL]);
    assert_eq!(world.told(), [format!("\"b\": {FULL:?}"), format!("\"c\": {FULL:?}")]);
    let (_, waiting) = world.get(&format!("{PODS}/c"));
    let condition = &waiting["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"], &condition["reason"]),
        (&json!("PodScheduled"), &json!("False"), &json!("Unschedulable"))
    );
    // Changes that free nothing move nobody.
    world.merge(&format!("{PODS}/a/status"), &json!({ "status": { "phase": "Running" } }));
    assert_eq!(world.changes(), ["Modified a"]);
    world.finish("a");
    assert_eq!([world.place("b"), world.place("c")], [FULL, "here"], "the first to come is the first to go");
    world.delete(&format!("{PODS}/c"), &json!({ "gracePeriodSeconds": 0 }));
    assert_eq!(world.place("b"), "here");
    assert_eq!(world.told().len(), 2, "nothing new to tell");
}

#[test]
fn a_node_that_changes_takes_whom_it_did_not() {
    let mut world = World::new();
    world.make(NODES, &node("9"));
    world.make(PODS, &pod("p", &json!({ "nodeSelector": { "disk": "hdd" } })));
    let unmatched = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. preemption: 0/1 \
                     nodes are available: 1 Preemption is not helpful for scheduling.";
    assert_eq!(world.place("p"), unmatched);
    let url = format!("{NODES}/here");
    // `kubectl cordon`
    world.merge(&url, &json!({ "spec": { "unschedulable": true } }));
    world.make(PODS, &pod("q", &json!({})));
    assert_eq!(
        world.place("q"),
        "0/1 nodes are available: 1 node(s) were unschedulable. preemption: 0/1 nodes are available: 1 Preemption is \
         not helpful for scheduling."
    );
    world.merge(
        &url,
        &json!({ "spec": { "unschedulable": null }, "metadata": { "labels": { "disk": "hdd" } } }),
    );
    assert_eq!([world.place("p"), world.place("q")], ["here", "here"]);
}

#[test]
fn requests_count_until_their_pod_ends() {
    let mut world = World::new();
    world.make(NODES, &node("9"));
    let asking = |cpu: &str| json!({ "containers": [{ "name": "a", "image": "i", "resources": { "requests": { "cpu": cpu } } }] });
    world.make(PODS, &pod("a", &asking("1500m")));
    world.make(PODS, &pod("b", &asking("1")));
    // A smaller one may pass.
    world.make(PODS, &pod("c", &asking("500m")));
    assert_eq!([world.place("a"), world.place("c")], ["here", "here"]);
    assert!(
        world.place("b").starts_with("0/1 nodes are available: 1 Insufficient cpu. "),
        "{}",
        world.place("b")
    );
    world.finish("a");
    assert_eq!(world.place("b"), "here");
}

#[test]
fn where_one_goes_others_follow() {
    let mut world = World::new();
    world.make(NODES, &node("9"));
    let term = json!({ "labelSelector": { "matchLabels": { "app": "db" } }, "topologyKey": "disk" });
    let affinity = json!({ "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] } });
    world.make(PODS, &pod("web", &json!({ "affinity": affinity })));
    assert!(world.place("web").contains("1 node(s) didn't match pod affinity rules."));
    let mut database = pod("db", &json!({}));
    database["metadata"]["labels"] = json!({ "app": "db" });
    world.make(PODS, &database);
    assert_eq!([world.place("db"), world.place("web")], ["here", "here"]);
}

#[test]
fn pods_of_others_are_left_alone() {
    let mut world = World::new();
    world.make(NODES, &node("1"));
    world.make(PODS, &pod("elsewhere", &json!({ "nodeName": "there" })));
    world.make(PODS, &pod("mine", &json!({ "schedulerName": "mine" })));
    assert_eq!(world.get(&format!("{PODS}/elsewhere")).1["status"]["conditions"], Value::Null);
    assert_eq!(world.place("mine"), "nothing said");
    world.make(PODS, &pod("p", &json!({})));
    assert_eq!(world.place("p"), "here");
}

#[test]
fn namespaces_share_what_there_is() {
    let mut world = World::new();
    world.make("/api/v1/namespaces", &json!({ "metadata": { "name": "small" } }));
    world.make(NODES, &node("2"));
    for number in 0..10 {
        world.make(PODS, &pod(&format!("p{number}"), &json!({})));
    }
    let small = "/api/v1/namespaces/small/pods";
    world.make(small, &pod("q", &json!({})));
    world.finish("p0");
    assert_eq!(world.get(&format!("{small}/q")).1["spec"]["nodeName"], "here");
    assert_eq!(world.place("p2"), FULL);
}

#[test]
fn events_tell_of_nodes_as_the_scheduler_does() {
    let mut world = World::new();
    world.make(NODES, &node("1"));
    world.make(PODS, &pod("a", &json!({})));
    world.make(PODS, &pod("b", &json!({})));
    let (_, events) = world.get(&format!("{EVENTS}?fieldSelector=reason=Scheduled"));
    let [event] = events["items"].as_array().unwrap().as_slice() else { panic!("{events}") };
    assert_eq!(event["message"], "Successfully assigned default/a to here");
    assert_eq!((&event["type"], &event["action"]), (&json!("Normal"), &json!("Binding")));
    assert_eq!((&event["involvedObject"]["name"], &event["count"]), (&json!("a"), &Value::Null));
    // It writes to the newer group, which has one time, with its fractions.
    assert_eq!(event["eventTime"], "2026-01-02T03:04:05.000000Z");
    assert_eq!((&event["reportingComponent"], &event["source"]), (&json!("default-scheduler"), &json!({})));
    let (_, events) = world.get(&format!("{EVENTS}?fieldSelector=reason=FailedScheduling"));
    assert_eq!(events["items"][0]["message"], FULL);
}
