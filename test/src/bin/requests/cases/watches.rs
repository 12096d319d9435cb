//! Watches: what they show of each change and in which order, where they resume, and how they end. No IO.

use serde_json::{Value, json};

use crate::case::{Case, LAST, delete, get, merge_patch, post};
use crate::kinds::Kind;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json";

pub(super) fn of(kind: &Kind) -> Vec<Case> {
    vec![forms(kind), selectors(kind), versions(kind)]
}

fn labels(app: &str) -> Value {
    json!({ "metadata": { "labels": { "app": app } } })
}

fn both(app: &str) -> Value {
    json!({ "corpus": "<ns>", "app": app })
}

fn forms(kind: &Kind) -> Case {
    let list = kind.list();
    let watch = format!("{list}?watch=true&labelSelector=corpus=<ns>");
    Case::new(format!("{}/watch", kind.plural))
        .send("before", post(list.clone(), &kind.labelled("0-before", &both("x"))))
        .send("list", get(format!("{list}?labelSelector=corpus=<ns>")))
        .open("all", get(watch.clone()))
        .open("from the list", get(format!("{watch}&resourceVersion=<list:/metadata/resourceVersion>")))
        .open("table", get(watch.clone()).accept(TABLE))
        .open("metadata", get(watch.clone()).accept(METADATA))
        .send("create", post(list.clone(), &kind.labelled("a", &both("x"))))
        .send("change", merge_patch(kind.path("a", ""), &kind.merge(1)))
        .send("no change", merge_patch(kind.path("a", ""), &kind.merge(1)))
        .send("delete", delete(kind.path("a", "?gracePeriodSeconds=0")))
        .until("gone", kind.path("a", ""), 404)
        .send("delete the other", delete(kind.path("0-before", "?gracePeriodSeconds=0")))
        .until("other gone", kind.path("0-before", ""), 404)
        .send("last", post(list, &kind.labelled(LAST, &both("x"))))
        .collect("all")
        .collect("from the list")
        .collect("table")
        .collect("metadata")
}

fn selectors(kind: &Kind) -> Case {
    let list = kind.list();
    Case::new(format!("{}/watch selector", kind.plural))
        .open("watch", get(format!("{list}?watch=true&labelSelector=corpus=<ns>,app=x")))
        .send("outside", post(list.clone(), &kind.labelled("a", &both("y"))))
        .send("enters", merge_patch(kind.path("a", ""), &labels("x")))
        .send("stays", merge_patch(kind.path("a", ""), &kind.merge(1)))
        .send("leaves", merge_patch(kind.path("a", ""), &labels("y")))
        .send("still outside", merge_patch(kind.path("a", ""), &kind.merge(2)))
        .send("back", merge_patch(kind.path("a", ""), &labels("x")))
        .send("gone", delete(kind.path("a", "?gracePeriodSeconds=0")))
        .until("really gone", kind.path("a", ""), 404)
        .send("last", post(list, &kind.labelled(LAST, &both("x"))))
        .collect("watch")
}

fn versions(kind: &Kind) -> Case {
    let list = kind.list();
    let watch = format!("{list}?watch=true&labelSelector=corpus=<ns>");
    Case::new(format!("{}/watch versions", kind.plural))
        .send("create", post(list.clone(), &kind.labelled("a", &both("x"))))
        .send("change", merge_patch(kind.path("a", ""), &kind.merge(1)))
        .send("another", post(list.clone(), &kind.labelled("b", &both("x"))))
        .send("change back", merge_patch(kind.path("a", ""), &kind.merge(2)))
        .send("last", post(list.clone(), &kind.labelled(LAST, &both("x"))))
        .open("resume", get(format!("{watch}&resourceVersion=<create:/metadata/resourceVersion>")))
        .open("resume later", get(format!("{watch}&resourceVersion=<another:/metadata/resourceVersion>")))
        .open(
            "ends",
            get(format!("{watch}&resourceVersion=<last:/metadata/resourceVersion>&timeoutSeconds=1")),
        )
        .open("malformed", get(format!("{watch}&resourceVersion=new")))
        .open("malformed timeout", get(format!("{watch}&timeoutSeconds=soon")))
        .open("match", get(format!("{watch}&resourceVersion=1&resourceVersionMatch=Exact")))
        .open("selector", get(format!("{list}?watch=true&labelSelector=a=b=c")))
        .open("field", get(format!("{list}?watch=true&fieldSelector=spec.unknown=1")))
        .collect("resume")
        .collect("resume later")
        .collect("ends")
        .collect("malformed")
        .collect("malformed timeout")
        .collect("match")
        .collect("selector")
        .collect("field")
}
