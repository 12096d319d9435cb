use serde_json::{Value, json};

use super::*;

/// A node with two CPUs and room for three pods.
fn node(name: &str, more: &Value) -> Value {
    let mut node = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name, "cores": "2", "disk": "ssd" } },
        "spec": {},
        "status": { "allocatable": { "cpu": "2", "memory": "1Gi", "pods": "3" } },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        node["spec"][key] = value.clone();
    }
    node
}

fn cluster(node: Value, pods: &[Value]) -> Cluster {
    let mut node = Node::new(&Arc::new(node));
    for pod in pods {
        node.take(&Arc::new(pod.clone()));
    }
    Cluster { nodes: vec![node] }
}

fn pod(spec: &Value) -> Value {
    json!({ "metadata": { "name": "p", "namespace": "default", "labels": { "app": "web" } }, "spec": spec })
}

fn asking(requests: &Value) -> Value {
    pod(&json!({ "containers": [{ "resources": { "requests": requests } }] }))
}

/// What the scheduler says of a pod on one node; nothing if it fits.
fn said(cluster: &Cluster, pod: &Value) -> String {
    let namespaces = |name: &str| {
        let labels = json!({ "kubernetes.io/metadata.name": name });
        Some(Arc::new(json!({ "metadata": { "name": name, "labels": labels } })))
    };
    let Err(said) = choose(cluster, pod, &namespaces) else { return String::new() };
    let said = said.strip_prefix("0/1 nodes are available: ").expect("the count of nodes");
    let (reasons, preemption) =
        said.split_once(". preemption: 0/1 nodes are available: ").expect("preemption");
    let helps = match preemption {
        "1 No preemption victims found for incoming pod." => "passes",
        "1 Preemption is not helpful for scheduling." => "lasts",
        other => panic!("{other}"),
    };
    format!("{reasons} ({helps})")
}

#[test]
fn amounts_are_counted() {
    let small = || asking(&json!({ "cpu": "500m" }));
    for (there, pod, expected) in [
        (vec![], asking(&json!({ "cpu": "2" })), ""),
        (vec![], asking(&json!({ "cpu": "2001m" })), "1 Insufficient cpu (lasts)"),
        (vec![small()], asking(&json!({ "cpu": "2" })), "1 Insufficient cpu (passes)"),
        (vec![small()], asking(&json!({ "cpu": "1500m", "memory": "1Gi" })), ""),
        (
            vec![small()],
            asking(&json!({ "cpu": "3", "memory": "2Gi" })),
            "1 Insufficient cpu, 1 Insufficient memory (lasts)",
        ),
        (vec![], asking(&json!({ "example.com/gpu": "1" })), "1 Insufficient example.com/gpu (lasts)"),
        (vec![], asking(&json!({ "example.com/gpu": "0" })), ""),
        (
            vec![pod(&json!({})), pod(&json!({})), pod(&json!({}))],
            pod(&json!({})),
            "1 Too many pods (passes)",
        ),
        (
            vec![small(), small(), small()],
            asking(&json!({ "cpu": "1" })),
            "1 Insufficient cpu, 1 Too many pods (passes)",
        ),
    ] {
        assert_eq!(said(&cluster(node("here", &json!({})), &there), &pod), expected, "{pod}");
    }
}

#[test]
fn nodes_are_selected_by_labels_and_name() {
    let affinity = |terms: Value| {
        pod(&json!({ "affinity": { "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms },
        } } }))
    };
    let expression = |key: &str, operator: &str, values: Value| {
        affinity(json!([{ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] }]))
    };
    let field = |operator: &str, name: &str| {
        affinity(
            json!([{ "matchFields": [{ "key": "metadata.name", "operator": operator, "values": [name] }] }]),
        )
    };
    let here = cluster(node("here", &json!({})), &[]);
    for (pod, fits) in [
        (pod(&json!({ "nodeSelector": { "disk": "ssd" } })), true),
        (pod(&json!({ "nodeSelector": { "disk": "ssd", "kubernetes.io/hostname": "nobody" } })), false),
        (expression("disk", "In", json!(["hdd", "ssd"])), true),
        (expression("disk", "In", json!(["hdd"])), false),
        (expression("disk", "NotIn", json!(["hdd"])), true),
        (expression("disk", "NotIn", json!(["ssd"])), false),
        (expression("zone", "NotIn", json!(["a"])), true),
        (expression("disk", "Exists", json!([])), true),
        (expression("zone", "Exists", json!([])), false),
        (expression("zone", "DoesNotExist", json!([])), true),
        (expression("disk", "DoesNotExist", json!([])), false),
        (expression("cores", "Gt", json!(["1"])), true),
        (expression("cores", "Gt", json!(["2"])), false),
        (expression("cores", "Lt", json!(["3"])), true),
        (expression("cores", "Lt", json!(["2"])), false),
        (expression("disk", "Gt", json!(["1"])), false),
        (expression("disk", "Like", json!(["ssd"])), false),
        (field("In", "here"), true),
        (field("In", "there"), false),
        (field("NotIn", "here"), false),
        (affinity(json!([])), false),
        (affinity(json!([{}])), false),
        // One term is enough.
        (affinity(json!([{}, { "matchExpressions": [{ "key": "disk", "operator": "Exists" }] }])), true),
    ] {
        let expected = if fits { "" } else { "1 node(s) didn't match Pod's node affinity/selector (lasts)" };
        assert_eq!(said(&here, &pod), expected, "{pod}");
    }
}

#[test]
fn taints_have_to_be_tolerated() {
    let cordoned = json!({ "unschedulable": true });
    let tainted = |effect: &str| json!({ "taints": [{ "key": "for", "value": "builds", "effect": effect }] });
    let tolerating = |toleration: Value| pod(&json!({ "tolerations": [toleration] }));
    let untolerated = "1 node(s) had untolerated taint(s) (lasts)";
    for (taints, pod, expected) in [
        (json!({}), pod(&json!({})), ""),
        (cordoned.clone(), pod(&json!({})), "1 node(s) were unschedulable (lasts)"),
        (cordoned.clone(), tolerating(json!({ "operator": "Exists" })), ""),
        (
            cordoned,
            tolerating(
                json!({ "key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule" }),
            ),
            "",
        ),
        (tainted("NoSchedule"), pod(&json!({})), untolerated),
        (tainted("NoExecute"), pod(&json!({})), untolerated),
        (tainted("PreferNoSchedule"), pod(&json!({})), ""),
        (tainted("NoSchedule"), tolerating(json!({ "key": "for", "value": "builds" })), ""),
        (tainted("NoSchedule"), tolerating(json!({ "key": "for", "value": "tests" })), untolerated),
        (tainted("NoSchedule"), tolerating(json!({ "key": "for", "operator": "Exists" })), ""),
        (
            tainted("NoSchedule"),
            tolerating(json!({ "key": "for", "operator": "Exists", "effect": "NoExecute" })),
            untolerated,
        ),
        (tainted("NoSchedule"), tolerating(json!({ "key": "other", "operator": "Exists" })), untolerated),
    ] {
        assert_eq!(said(&cluster(node("here", &taints), &[]), &pod), expected, "{taints} {pod}");
    }
}

#[test]
fn ports_of_the_node_are_given_once() {
    let port = |port: i64, protocol: &str, address: &str| {
        pod(
            &json!({ "containers": [{ "ports": [{ "hostPort": port, "protocol": protocol, "hostIP": address }] }] }),
        )
    };
    let here = cluster(node("here", &json!({})), &[port(80, "TCP", "10.0.0.1")]);
    for (pod, fits) in [
        (port(81, "TCP", ""), true),
        (port(80, "UDP", ""), true),
        (port(80, "TCP", "10.0.0.2"), true),
        (port(80, "TCP", "10.0.0.1"), false),
        (port(80, "TCP", ""), false),
        (port(0, "TCP", ""), true),
    ] {
        let taken = "1 node(s) didn't have free ports for the requested pod ports (passes)";
        assert_eq!(said(&here, &pod), if fits { "" } else { taken }, "{pod}");
    }
}

#[test]
fn pods_seek_and_avoid_each_other() {
    let term = |app: &str, topology: &str, more: Value| {
        let mut term = json!({ "labelSelector": { "matchLabels": { "app": app } }, "topologyKey": topology });
        for (key, value) in more.as_object().into_iter().flatten() {
            term[key] = value.clone();
        }
        term
    };
    let with = |kind: &str, term: Value| {
        let list = "requiredDuringSchedulingIgnoredDuringExecution";
        pod(&json!({ "affinity": { kind: { list: [term] } } }))
    };
    let host = "kubernetes.io/hostname";
    let mut database = pod(&json!({}));
    database["metadata"]["labels"] = json!({ "app": "db" });
    let mut elsewhere = database.clone();
    elsewhere["metadata"]["namespace"] = json!("other");
    let (plain, missing) = (json!({}), "1 node(s) didn't match pod affinity rules (lasts)");
    let (near, shunned) = (
        "1 node(s) didn't match pod anti-affinity rules (passes)",
        "1 node(s) didn't satisfy existing pods anti-affinity rules (passes)",
    );
    let everywhere = json!({ "namespaceSelector": {} });
    let named = json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "other" } } });
    for (there, pod, expected) in [
        (vec![database.clone()], with("podAffinity", term("db", host, plain.clone())), ""),
        (vec![], with("podAffinity", term("db", host, plain.clone())), missing),
        (vec![elsewhere.clone()], with("podAffinity", term("db", host, plain.clone())), missing),
        (
            vec![elsewhere.clone()],
            with("podAffinity", term("db", host, json!({ "namespaces": ["other"] }))),
            "",
        ),
        (vec![elsewhere.clone()], with("podAffinity", term("db", host, everywhere)), ""),
        (vec![elsewhere], with("podAffinity", term("db", host, named.clone())), ""),
        (vec![database.clone()], with("podAffinity", term("db", host, named)), missing),
        (vec![database.clone()], with("podAffinity", term("db", "zone", plain.clone())), missing),
        // Somebody has to be the first of its kind.
        (vec![], with("podAffinity", term("web", host, plain.clone())), ""),
        (vec![database.clone()], with("podAntiAffinity", term("db", host, plain.clone())), near),
        (vec![], with("podAntiAffinity", term("web", host, plain.clone())), ""),
        (vec![database.clone()], with("podAntiAffinity", term("db", "zone", plain.clone())), ""),
        (vec![with("podAntiAffinity", term("web", host, plain.clone()))], pod(&json!({})), shunned),
        (vec![with("podAntiAffinity", term("web", host, plain))], database, ""),
    ] {
        assert_eq!(said(&cluster(node("here", &json!({})), &there), &pod), expected, "{there:?} {pod}");
    }
}

#[test]
fn nodes_are_counted_and_the_emptiest_is_chosen() {
    let mut two = cluster(node("a", &json!({})), &[pod(&json!({}))]);
    two.nodes.push(Node::new(&Arc::new(node("b", &json!({})))));
    let nowhere = |_: &str| None;
    assert_eq!(choose(&two, &pod(&json!({})), &nowhere), Ok(1));
    assert_eq!(
        choose(&two, &pod(&json!({ "nodeSelector": { "a": "b" } })), &nowhere),
        Err("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. preemption: 0/2 nodes are \
             available: 2 Preemption is not helpful for scheduling."
            .to_owned())
    );
}
