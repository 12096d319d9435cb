//! The life of a namespace, and of what is in it. No IO.

use serde_json::{Value, json};

use crate::case::{Case, apply, delete, get, json_patch, merge_patch, post, put, strategic_patch};

fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": { "corpus": "<ns>" } } })
}

fn map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } })
}

pub(super) fn all() -> Vec<Case> {
    let list = "/api/v1/namespaces";
    let url = "/api/v1/namespaces/<ns>-a";
    let maps = "/api/v1/namespaces/<ns>-a/configmaps";
    let mut held = map("held");
    held["metadata"]["finalizers"] = json!(["example.dev/held"]);
    let mut finalized = namespace("<ns>-a");
    finalized["spec"] = json!({ "finalizers": [] });
    vec![
        Case::new("namespaces/objects")
            .send("create", post(list, &namespace("<ns>-a")))
            .send("read", get(url))
            .send("again", post(list, &namespace("<ns>-a")))
            .send("merge", merge_patch(url, &json!({ "metadata": { "labels": { "a": "b" } } })))
            .send("strategic", strategic_patch(url, &json!({ "metadata": { "labels": { "a": null } } })))
            .send(
                "json",
                json_patch(url, &json!([{ "op": "add", "path": "/metadata/labels/c", "value": "d" }])),
            )
            .send("apply", apply(&*format!("{url}?fieldManager=one"), &namespace("<ns>-a")))
            .send(
                "stale",
                put(url, &{
                    let mut stale = namespace("<ns>-a");
                    stale["metadata"]["resourceVersion"] = json!("1");
                    stale
                }),
            )
            .send(
                "status",
                merge_patch(format!("{url}/status"), &json!({ "metadata": { "labels": { "e": "f" } } })),
            )
            .send("select", get(format!("{list}?labelSelector=corpus=<ns>")))
            .send(
                "by phase",
                get(format!("{list}?labelSelector=corpus=<ns>&fieldSelector=status.phase=Active")),
            )
            .send("by name", get(format!("{list}?fieldSelector=metadata.name=<ns>-a")))
            .send("by its label", get(format!("{list}?labelSelector=kubernetes.io/metadata.name=<ns>-a")))
            .send(
                "table",
                get(format!("{list}?labelSelector=corpus=<ns>"))
                    .accept("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"),
            )
            .send("bad name", post(list, &namespace("<ns>.dotted")))
            .send("delete collection", delete(format!("{list}?labelSelector=corpus=<ns>")))
            .send("dry run", delete(format!("{url}?dryRun=All")))
            .send(
                "generated",
                post(
                    list,
                    &json!({
                        "apiVersion": "v1", "kind": "Namespace",
                        "metadata": { "generateName": "<ns>-g-" },
                    }),
                ),
            )
            .send("delete the generated", delete("/api/v1/namespaces/<generated:/metadata/name>"))
            .send("delete", delete(url))
            .until("gone", url, 404)
            .send("read again", get(url)),
        Case::new("namespaces/life")
            .send("create", post(list, &namespace("<ns>-a")))
            .until("account", format!("{url}/serviceaccounts/default"), 200)
            .send("object", post(maps, &map("free")))
            .send("held object", post(maps, &held))
            .send("delete", delete(url))
            .until("emptied", format!("{maps}/free"), 404)
            .send(
                "terminating",
                get(format!("{list}?fieldSelector=metadata.name=<ns>-a,status.phase=Terminating")),
            )
            .send("create in it", post(maps, &map("late")))
            .send(
                "create a run in it",
                post(
                    "/apis/tekton.dev/v1/namespaces/<ns>-a/tasks",
                    &json!({
                        "apiVersion": "tekton.dev/v1", "kind": "Task", "metadata": { "name": "late" },
                        "spec": { "steps": [{ "name": "s", "image": "i" }] },
                    }),
                ),
            )
            .send("update in it", merge_patch(format!("{maps}/held"), &json!({ "data": { "a": "b" } })))
            .send("delete again", delete(url))
            .send(
                "release",
                merge_patch(format!("{maps}/held"), &json!({ "metadata": { "finalizers": null } })),
            )
            .until("gone", url, 404)
            .send("after", get(format!("{maps}/held")))
            .send("list after", get(maps))
            .send("create after", post(maps, &map("later"))),
        Case::new("namespaces/protected")
            .send("default", delete("/api/v1/namespaces/default"))
            .send("kube-system", delete("/api/v1/namespaces/kube-system"))
            .send("finalize", put("/api/v1/namespaces/<ns>-none/finalize", &finalized))
            .send("missing", get("/api/v1/namespaces/<ns>-none")),
    ]
}
