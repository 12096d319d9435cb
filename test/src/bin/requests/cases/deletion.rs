//! Deleting: preconditions, finalizers, what becomes of dependents, collections. No IO.

use serde_json::{Value, json};

use crate::case::{Case, delete, delete_with, get, merge_patch, post};
use crate::kinds::Kind;

pub(super) fn of(kind: &Kind) -> Vec<Case> {
    let mut cases = vec![one(kind), preconditions(kind)];
    // A controller takes the finalizer that claims have off again, some time later.
    if kind.plural != "persistentvolumeclaims" {
        cases.extend([finalizers(kind), collection(kind)]);
    }
    // What owns is all the same; pods have their own way of going.
    if ["configmaps", "pods", "tasks", "clusterroles"].contains(&kind.plural) {
        cases.extend(["Background", "Foreground", "Orphan"].map(|policy| propagation(kind, policy)));
    }
    cases
}

fn one(kind: &Kind) -> Case {
    Case::new(format!("{}/delete", kind.plural))
        .send("create", post(kind.list(), &kind.object("a")))
        .send("delete", delete(kind.path("a", "")))
        .until("gone", kind.path("a", ""), 404)
        .send("read", get(kind.path("a", "")))
        .send("again", delete(kind.path("a", "")))
        .send("grace in the query", delete(kind.path("a", "?gracePeriodSeconds=0")))
        .send("policy in the query", delete(kind.path("a", "?propagationPolicy=Sometimes")))
        .send("same name", post(kind.list(), &kind.object("a")))
        .send("now", delete_with(kind.path("a", ""), &json!({ "gracePeriodSeconds": 0 })))
}

fn preconditions(kind: &Kind) -> Case {
    let with = |preconditions: Value| json!({ "preconditions": preconditions });
    let delete = |preconditions: Value| delete_with(kind.path("a", ""), &with(preconditions));
    Case::new(format!("{}/preconditions", kind.plural))
        .send("create", post(kind.list(), &kind.object("a")))
        .send("other uid", delete(json!({ "uid": "11111111-2222-3333-4444-555555555555" })))
        .send("other version", delete(json!({ "resourceVersion": "1" })))
        .send("both", delete(json!({ "uid": "<create:/metadata/uid>", "resourceVersion": "1" })))
        .send("right", delete(json!({ "uid": "<create:/metadata/uid>" })))
        .send("second", post(kind.list(), &kind.object("b")))
        .send(
            "right version",
            delete_with(
                kind.path("b", ""),
                &with(json!({ "resourceVersion": "<second:/metadata/resourceVersion>" })),
            ),
        )
        .send("third", post(kind.list(), &kind.object("c")))
        .send("no options", delete_with(kind.path("c", ""), &json!([])))
        .send("unknown policy", delete_with(kind.path("c", ""), &json!({ "propagationPolicy": "Sometimes" })))
        .send(
            "two policies",
            delete_with(
                kind.path("c", ""),
                &json!({ "propagationPolicy": "Orphan", "orphanDependents": true }),
            ),
        )
}

fn finalizers(kind: &Kind) -> Case {
    let url = || kind.path("a", "");
    let finalizers = |list: Value| json!({ "metadata": { "finalizers": list } });
    let mut object = kind.object("a");
    object["metadata"]["finalizers"] = json!(["example.dev/one", "example.dev/two"]);
    Case::new(format!("{}/finalizers", kind.plural))
        .send("create", post(kind.list(), &object))
        .send("delete", delete(url()))
        .send("read", get(url()))
        .send("delete again", delete(url()))
        .send(
            "add",
            merge_patch(url(), &finalizers(json!(["example.dev/one", "example.dev/two", "example.dev/new"]))),
        )
        .send("create again", post(kind.list(), &object))
        .send("first", merge_patch(url(), &finalizers(json!(["example.dev/two"]))))
        .send("last", merge_patch(url(), &finalizers(json!(null))))
        .send("gone", get(url()))
}

fn collection(kind: &Kind) -> Case {
    let labels = |app: &str| json!({ "corpus": "<ns>", "app": app });
    let list = kind.list();
    let mut case = Case::new(format!("{}/deletecollection", kind.plural));
    for (name, app) in [("a", "x"), ("b", "x"), ("c", "y"), ("d", "z")] {
        case = case.send(format!("create {name}"), post(list.clone(), &kind.labelled(name, &labels(app))));
    }
    case.send("none", delete(format!("{list}?labelSelector=corpus=<ns>,app=none")))
        .send("dry run", delete(format!("{list}?labelSelector=corpus=<ns>,app=x&dryRun=All")))
        .send("some", delete(format!("{list}?labelSelector=corpus=<ns>,app=x")))
        .send("left", get(format!("{list}?labelSelector=corpus=<ns>")))
        .send("by name", delete(format!("{list}?fieldSelector=metadata.name={}", kind.name("d"))))
        .send("bad selector", delete(format!("{list}?labelSelector=a=b=c")))
        .send(
            "rest",
            delete_with(format!("{list}?labelSelector=corpus=<ns>"), &json!({ "gracePeriodSeconds": 0 })),
        )
        .until("gone", kind.path("c", ""), 404)
        .send("nothing left", get(format!("{list}?labelSelector=corpus=<ns>")))
}

/// An owner of the kind with two dependents, one of which blocks it.
fn propagation(kind: &Kind, policy: &str) -> Case {
    let maps = "/api/v1/namespaces/<ns>/configmaps";
    let dependent = |name: &str, blocks: bool| {
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "ownerReferences": [{
            "apiVersion": kind.api, "kind": kind.title, "name": kind.name("a"), "uid": "<create:/metadata/uid>",
            "controller": blocks, "blockOwnerDeletion": blocks,
        }] } })
    };
    let case = Case::new(format!("{}/{policy}", kind.plural))
        .send("create", post(kind.list(), &kind.object("a")))
        .send("dependent", post(maps, &dependent("one", true)))
        .send("another", post(maps, &dependent("two", false)))
        .collector()
        .send("delete", delete_with(kind.path("a", ""), &json!({ "propagationPolicy": policy })))
        .until("gone", kind.path("a", ""), 404)
        .send("read", get(kind.path("a", "")));
    if policy == "Orphan" {
        case.send("orphan", get(format!("{maps}/one"))).send("another orphan", get(format!("{maps}/two")))
    } else {
        case.until("dependent gone", format!("{maps}/one"), 404).until(
            "another gone",
            format!("{maps}/two"),
            404,
        )
    }
}
