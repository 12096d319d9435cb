//! What only pods and what they refer to have. No IO.

use serde_json::{Value, json};

use crate::case::{
    Case, apply, delete, delete_with, get, json_patch, merge_patch, post, put, strategic_patch,
};

const PODS: &str = "/api/v1/namespaces/<ns>/pods";
const ACCOUNTS: &str = "/api/v1/namespaces/<ns>/serviceaccounts";

fn pod(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["schedulerName"] = json!("nobody");
    spec["automountServiceAccountToken"] = json!(false);
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": spec })
}

fn account(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name },
        "imagePullSecrets": [{ "name": "pull" }],
    })
}

fn container(name: &str) -> Value {
    json!({ "name": name, "image": format!("example.dev/{name}:1") })
}

pub(super) fn all() -> Vec<Case> {
    let url = |name: &str, rest: &str| format!("{PODS}/{name}{rest}");
    let plain = |name: &str| pod(name, json!({ "containers": [container("main")] }));
    let node = |name: &str| pod(name, json!({ "containers": [container("main")], "nodeName": "<ns>-node" }));
    let running = json!({ "status": {
        "phase": "Running",
        "conditions": [{ "type": "Ready", "status": "True" }],
        "containerStatuses": [{
            "name": "main", "image": "example.dev/main:1", "imageID": "", "ready": true, "restartCount": 2,
            "state": { "running": { "startedAt": "2001-02-03T04:05:06Z" } },
        }],
        "podIP": "10.1.2.3",
    } });
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let waiting = |name: &str, reason: &str| {
        json!({ "status": { "containerStatuses": [{
            "name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { name: { "reason": reason, "exitCode": 3 } },
        }] } })
    };
    vec![
        Case::new("pods/graceful deletion")
            .send("create", post(PODS, &node("a")))
            .send("delete", delete(url("a", "")))
            .send("read", get(url("a", "")))
            .send("again", delete(url("a", "")))
            .send("shorter", delete_with(url("a", ""), &json!({ "gracePeriodSeconds": 3 })))
            .send("longer", delete_with(url("a", ""), &json!({ "gracePeriodSeconds": 60 })))
            .send("now", delete_with(url("a", ""), &json!({ "gracePeriodSeconds": 0 })))
            .send("gone", get(url("a", "")))
            .send("own", post(PODS, &pod("b", json!({
                "containers": [container("main")], "nodeName": "<ns>-node", "terminationGracePeriodSeconds": 5,
            }))))
            .send("delete own", delete(url("b", "")))
            .send("end own", delete(url("b", "?gracePeriodSeconds=0")))
            .send("finished", post(PODS, &node("c")))
            .send("finish", merge_patch(url("c", "/status"), &json!({ "status": { "phase": "Succeeded" } })))
            .send("delete finished", delete(url("c", "")))
            .send("unbound", post(PODS, &plain("d")))
            .send("delete unbound", delete(url("d", "")))
            .send("negative", post(PODS, &node("e")))
            .send("delete negative", delete_with(url("e", ""), &json!({ "gracePeriodSeconds": -1 }))),
        Case::new("pods/binding")
            .send("create", post(PODS, &plain("a")))
            .send("nowhere", post(url("a", "/binding"), &json!({
                "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "a" }, "target": { "name": "" },
            })))
            .send("bind", post(url("a", "/binding"), &json!({
                "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "a" },
                "target": { "apiVersion": "v1", "kind": "Node", "name": "<ns>-node" },
            })))
            .send("again", post(url("a", "/binding"), &json!({
                "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "a" },
                "target": { "apiVersion": "v1", "kind": "Node", "name": "<ns>-other" },
            })))
            .send("missing", post(url("none", "/binding"), &json!({
                "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "none" },
                "target": { "name": "<ns>-node" },
            })))
            .send("read", get(url("a", ""))),
        Case::new("pods/immutable")
            .send("create", post(PODS, &plain("a")))
            .send("image", json_patch(url("a", ""), &json!([
                { "op": "replace", "path": "/spec/containers/0/image", "value": "example.dev/other:2" },
            ])))
            .send("command", json_patch(url("a", ""), &json!([
                { "op": "add", "path": "/spec/containers/0/command", "value": ["true"] },
            ])))
            .send("strategic", strategic_patch(url("a", ""), &json!({ "spec": { "containers": [
                { "name": "main", "image": "example.dev/third:3" },
            ] } })))
            .send("another container", strategic_patch(url("a", ""), &json!({ "spec": { "containers": [
                container("second"),
            ] } })))
            .send("tolerations", strategic_patch(url("a", ""), &json!({ "spec": { "tolerations": [
                { "key": "example.dev/taint", "operator": "Exists" },
            ] } })))
            .send("apply", apply(url("a", "?fieldManager=one&force=true"), &json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" },
                "spec": { "containers": [{ "name": "main", "image": "example.dev/fourth:4" }] },
            })))
            .send("put", put(url("a", ""), &plain("a"))),
        invalid(),
        Case::new("pods/defaults")
            .send("full", post(PODS, &pod("a", json!({
                "restartPolicy": "Never",
                "initContainers": [{ "name": "init", "image": "example.dev/init" }],
                "containers": [{
                    "name": "main", "image": "example.dev/main@sha256:0000000000000000000000000000000000000000000000000000000000000000",
                    "ports": [{ "containerPort": 80 }],
                    "env": [
                        { "name": "A", "value": "b" },
                        { "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                    ],
                    "resources": { "limits": { "cpu": "1", "memory": "1Gi" } },
                    "livenessProbe": { "httpGet": { "port": 80 } },
                    "readinessProbe": { "exec": { "command": ["true"] }, "periodSeconds": 3 },
                    "securityContext": { "runAsNonRoot": true },
                }],
                "volumes": [
                    { "name": "empty", "emptyDir": {} },
                    { "name": "nothing" },
                    { "name": "secret", "secret": { "secretName": "s" } },
                    { "name": "map", "configMap": { "name": "m" } },
                    { "name": "down", "downwardAPI": { "items": [
                        { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
                    ] } },
                    { "name": "projected", "projected": { "sources": [
                        { "serviceAccountToken": { "path": "token" } },
                    ] } },
                    { "name": "host", "hostPath": { "path": "/tmp" } },
                ],
                "tolerations": [{ "operator": "Exists" }],
            }))))
            .send("claim", post("/api/v1/namespaces/<ns>/persistentvolumeclaims", &json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "c" },
                "spec": {
                    "accessModes": ["ReadWriteOnce"], "storageClassName": "",
                    "resources": { "requests": { "storage": "1Gi" } },
                },
            })))
            .send("secret", post("/api/v1/namespaces/<ns>/secrets", &json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" }, "stringData": { "a": "b" },
            })))
            .send("secret of its type", post("/api/v1/namespaces/<ns>/secrets", &json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "t" },
                "type": "kubernetes.io/dockerconfigjson", "data": {},
            })))
            .send("immutable", post("/api/v1/namespaces/<ns>/configmaps", &json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m" }, "immutable": true,
                "data": { "a": "b" },
            })))
            .send("change the immutable", merge_patch("/api/v1/namespaces/<ns>/configmaps/m", &json!({
                "data": { "a": "c" },
            })))
            .send("key", post("/api/v1/namespaces/<ns>/configmaps", &json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "n" }, "data": { "a b": "b" },
            })))
            .send("both", post("/api/v1/namespaces/<ns>/configmaps", &json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "o" },
                "data": { "a": "b" }, "binaryData": { "a": "Yg==" },
            })))
            .send("no claim spec", post("/api/v1/namespaces/<ns>/persistentvolumeclaims", &json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "d" }, "spec": {},
            })))
            .send("grow the claim", merge_patch("/api/v1/namespaces/<ns>/persistentvolumeclaims/c", &json!({
                "spec": { "resources": { "requests": { "storage": "2Gi" } } },
            })))
            .send("move the claim", merge_patch("/api/v1/namespaces/<ns>/persistentvolumeclaims/c", &json!({
                "spec": { "accessModes": ["ReadWriteMany"] },
            })))
            .send("other role", post("/apis/rbac.authorization.k8s.io/v1/namespaces/<ns>/rolebindings", &json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "r" },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "one" },
            })))
            .send("change its role", merge_patch(
                "/apis/rbac.authorization.k8s.io/v1/namespaces/<ns>/rolebindings/r",
                &json!({ "roleRef": { "name": "two" } }),
            ))
            .send("rule without verbs", post("/apis/rbac.authorization.k8s.io/v1/namespaces/<ns>/roles", &json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "r" },
                "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": [] }],
            })))
            .send("event elsewhere", post("/api/v1/namespaces/<ns>/events", &json!({
                "apiVersion": "v1", "kind": "Event", "metadata": { "name": "e" },
                "involvedObject": { "kind": "Pod", "name": "p", "namespace": "elsewhere" },
                "reason": "Tested", "type": "Normal",
            })))
            .send("lease", post("/apis/coordination.k8s.io/v1/namespaces/<ns>/leases", &json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "l" },
                "spec": { "leaseDurationSeconds": 0 },
            }))),
        Case::new("pods/table")
            .send("create", post(PODS, &node("a")))
            .send("new", get(url("a", "")).accept(table))
            .send("run", merge_patch(url("a", "/status"), &running))
            .send("running", get(url("a", "")).accept(table))
            .send("wait", merge_patch(url("a", "/status"), &waiting("waiting", "ImagePullBackOff")))
            .send("waiting", get(url("a", "")).accept(table))
            .send("end", merge_patch(url("a", "/status"), &waiting("terminated", "Error")))
            .send("ended", get(url("a", "")).accept(table))
            .send("end without reason", merge_patch(url("a", "/status"), &waiting("terminated", "")))
            .send("ended without reason", get(url("a", "")).accept(table))
            .send("complete", merge_patch(url("a", "/status"), &json!({ "status": { "phase": "Succeeded", "containerStatuses": null } })))
            .send("completed", get(url("a", "")).accept(table))
            .send("evict", merge_patch(url("a", "/status"), &json!({ "status": { "phase": "Failed", "reason": "Evicted" } })))
            .send("evicted", get(url("a", "")).accept(table))
            .send("second", post(PODS, &node("b")))
            .send("delete", delete(url("b", "")))
            .send("deleting", get(url("b", "")).accept(table))
            .send("end the second", delete(url("b", "?gracePeriodSeconds=0"))),
        Case::new("serviceaccounts/objects")
            .send("create", post(format!("{ACCOUNTS}?dryRun=All"), &account("a")))
            .send("really", post(ACCOUNTS, &account("a")))
            .send("patch", merge_patch(format!("{ACCOUNTS}/a"), &json!({ "automountServiceAccountToken": false })))
            .send("apply", apply(format!("{ACCOUNTS}/b?fieldManager=one&dryRun=All"), &account("b")))
            .send("table", get(format!("{ACCOUNTS}?labelSelector=corpus=none")).accept(table))
            .send("token for the missing", post(format!("{ACCOUNTS}/none/token"), &json!({
                "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {},
            }))),
        Case::new("pods/logs")
            .send("create", post(PODS, &pod("a", json!({
                "initContainers": [container("init")], "containers": [container("one"), container("two")],
            }))))
            .send("which", get(url("a", "/log")))
            .send("unknown", get(url("a", "/log?container=three")))
            .send("missing", get(url("none", "/log")))
            .send("since twice", get(url("a", "/log?container=one&sinceSeconds=1&sinceTime=2001-02-03T04:05:06Z")))
            .send("negative tail", get(url("a", "/log?container=one&tailLines=-1")))
            .send("post", post(url("a", "/log"), &json!({}))),
    ]
}

/// Pods that break a rule each.
fn invalid() -> Case {
    let none = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "none" } });
    let mut case = Case::new("pods/invalid").send("no spec", post(PODS, &none));
    let table = [
        ("no containers", json!({ "containers": [] })),
        ("no image", json!({ "containers": [{ "name": "main" }] })),
        ("no name", json!({ "containers": [{ "image": "i" }] })),
        ("upper name", json!({ "containers": [container("Main")] })),
        ("two of a name", json!({ "containers": [container("main"), container("main")] })),
        ("policy", json!({ "containers": [container("main")], "restartPolicy": "Sometimes" })),
        (
            "volume",
            json!({ "containers": [{
                "name": "main", "image": "i", "volumeMounts": [{ "name": "none", "mountPath": "/v" }],
            }] }),
        ),
        (
            "volumes twice",
            json!({
                "containers": [container("main")], "volumes": [{ "name": "v" }, { "name": "v" }],
            }),
        ),
        (
            "quantity",
            json!({ "containers": [{
                "name": "main", "image": "i", "resources": { "requests": { "cpu": "much" } },
            }] }),
        ),
        (
            "limit below request",
            json!({ "containers": [{
                "name": "main", "image": "i",
                "resources": { "requests": { "cpu": "2" }, "limits": { "cpu": "1" } },
            }] }),
        ),
        (
            "env name",
            json!({ "containers": [{
                "name": "main", "image": "i", "env": [{ "name": "a=b", "value": "c" }],
            }] }),
        ),
        ("deadline", json!({ "containers": [container("main")], "activeDeadlineSeconds": 0 })),
        (
            "pull policy",
            json!({ "containers": [{
                "name": "main", "image": "i", "imagePullPolicy": "Perhaps",
            }] }),
        ),
        ("type", json!({ "containers": "main" })),
        ("account", json!({ "containers": [container("main")], "serviceAccountName": "none" })),
    ];
    for (index, (name, spec)) in table.into_iter().enumerate() {
        case = case.send(name, post(PODS, &pod(&format!("invalid-{index}"), spec)));
    }
    case
}
