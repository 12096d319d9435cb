//! Creating, reading, replacing and patching one object, conflicts and dry runs included. No IO.

use serde_json::{Value, json};

use crate::case::{Case, delete, get, json_patch, merge_patch, post, put, strategic_patch};
use crate::kinds::Kind;

pub(super) fn of(kind: &Kind) -> Vec<Case> {
    let mut cases = vec![create(kind), patches(kind), dry_run(kind), identity(kind)];
    // A claim that is replaced without its finalizer is given it back by a controller, some time later.
    cases.extend((kind.plural != "persistentvolumeclaims").then(|| update(kind)));
    cases.extend(kind.status.map(|status| of_status(kind, status)));
    cases
}

fn create(kind: &Kind) -> Case {
    let mut own = kind.object("c");
    own["metadata"]["uid"] = json!("11111111-2222-3333-4444-555555555555");
    own["metadata"]["creationTimestamp"] = json!("2001-02-03T04:05:06Z");
    own["metadata"]["generation"] = json!(7);
    let mut versioned = kind.object("d");
    versioned["metadata"]["resourceVersion"] = json!("1");
    let generated = kind.with(&json!({ "generateName": kind.name("g-"), "labels": { "corpus": "<ns>" } }));
    let mut both = kind.with(&json!({ "name": kind.name("b"), "generateName": kind.name("g-") }));
    both["metadata"]["annotations"] = json!({ "example.dev/a": "b" });
    Case::new(format!("{}/create", kind.plural))
        .send("create", post(kind.list(), &kind.object("a")))
        .send("read", get(kind.path("a", "")))
        .send("again", post(kind.list(), &kind.object("a")))
        .send("system fields", post(kind.list(), &own))
        .send("with version", post(kind.list(), &versioned))
        .send("generated", post(kind.list(), &generated))
        .send("name and generated", post(kind.list(), &both))
        .send_if(!kind.ours(), "no name", post(kind.list(), &kind.with(&json!({}))))
}

fn update(kind: &Kind) -> Case {
    let versioned = |n: u64, version: &str| {
        let mut object = kind.object("a");
        object["metadata"]["annotations"] = json!({});
        kind.set(&mut object, n);
        object["metadata"]["resourceVersion"] = json!(version);
        if n == 0 {
            object["metadata"].as_object_mut().map(|map| map.remove("resourceVersion"));
        }
        object
    };
    let mut other_uid = versioned(3, "");
    other_uid["metadata"]["uid"] = json!("11111111-2222-3333-4444-555555555555");
    let mut malformed = versioned(3, "");
    malformed["metadata"]["resourceVersion"] = json!("not a number");
    Case::new(format!("{}/update", kind.plural))
        .send("create", post(kind.list(), &kind.object("a")))
        .send("replace", put(kind.path("a", ""), &versioned(1, "<create:/metadata/resourceVersion>")))
        .send("same", put(kind.path("a", ""), &versioned(1, "<replace:/metadata/resourceVersion>")))
        .send("stale", put(kind.path("a", ""), &versioned(2, "<create:/metadata/resourceVersion>")))
        .send("without version", put(kind.path("a", ""), &versioned(0, "")))
        .send("other uid", put(kind.path("a", ""), &other_uid))
        .send("malformed version", put(kind.path("a", ""), &malformed))
        .send("other name", put(kind.path("b", ""), &kind.object("a")))
        .send("missing", put(kind.path("a-missing", ""), &kind.object("a-missing")))
        .send("read", get(kind.path("a", "")))
}

fn patches(kind: &Kind) -> Case {
    let url = || kind.path("a", "");
    let pointer = kind.pointer();
    let (_, _, value) = kind.change;
    let version = json!({ "metadata": { "resourceVersion": "<create:/metadata/resourceVersion>" } });
    let label = |key: &str, value: Value| json!({ "metadata": { "labels": { key: value } } });
    Case::new(format!("{}/patch", kind.plural))
        .send("create", post(kind.list(), &kind.object("a")))
        .send("merge", merge_patch(url(), &kind.merge(1)))
        .send("merge again", merge_patch(url(), &kind.merge(1)))
        .send("merge empty", merge_patch(url(), &json!({})))
        .send("merge stale", merge_patch(url(), &version))
        .send("merge label", merge_patch(url(), &label("tier", json!("x"))))
        .send("merge null", merge_patch(url(), &label("tier", json!(null))))
        .send("json", json_patch(url(), &json!([{ "op": "replace", "path": pointer, "value": value(2) }])))
        .send(
            "json add",
            json_patch(url(), &json!([{ "op": "add", "path": "/metadata/labels/tier", "value": "y" }])),
        )
        .send("json remove", json_patch(url(), &json!([{ "op": "remove", "path": "/metadata/labels/tier" }])))
        .send(
            "json missing",
            json_patch(url(), &json!([{ "op": "remove", "path": "/metadata/labels/none" }])),
        )
        .send("json test", json_patch(url(), &json!([{ "op": "test", "path": pointer, "value": value(2) }])))
        .send(
            "json test fails",
            json_patch(url(), &json!([{ "op": "test", "path": pointer, "value": value(3) }])),
        )
        .send("json unknown", json_patch(url(), &json!([{ "op": "dance", "path": "/metadata" }])))
        .send("json no list", json_patch(url(), &json!({ "op": "remove" })))
        .send("strategic", strategic_patch(url(), &kind.merge(3)))
        .send("strategic label", strategic_patch(url(), &label("tier", json!("z"))))
        .send("strategic null", strategic_patch(url(), &label("tier", json!(null))))
        .send("unknown kind", merge_patch(url(), &json!({})).body("text/plain", "{}"))
        .send("no kind", merge_patch(url(), &json!({})).body("application/json", "{}"))
        .send("malformed", merge_patch(url(), &json!({})).body("application/merge-patch+json", "{"))
        .send("missing", merge_patch(kind.path("none", ""), &json!({})))
        .send("rename", merge_patch(url(), &json!({ "metadata": { "name": "other" } })))
        .send(
            "other uid",
            merge_patch(url(), &json!({ "metadata": { "uid": "11111111-2222-3333-4444-555555555555" } })),
        )
        .send("read", get(url()))
}

fn dry_run(kind: &Kind) -> Case {
    Case::new(format!("{}/dry run", kind.plural))
        .send("create", post(format!("{}?dryRun=All", kind.list()), &kind.object("a")))
        .send("not there", get(kind.path("a", "")))
        .send("really", post(kind.list(), &kind.object("a")))
        .send("create again", post(format!("{}?dryRun=All", kind.list()), &kind.object("a")))
        .send("patch", merge_patch(kind.path("a", "?dryRun=All"), &kind.merge(1)))
        .send("delete", delete(kind.path("a", "?dryRun=All")))
        .send("unchanged", get(kind.path("a", "")))
        .send("unknown", post(format!("{}?dryRun=Some", kind.list()), &kind.object("b")))
}

/// Metadata that servers check.
fn identity(kind: &Kind) -> Case {
    let url = || kind.list();
    let with = |metadata: Value| {
        let mut object = kind.object("a");
        for (key, value) in metadata.as_object().into_iter().flatten() {
            object["metadata"][key] = value.clone();
        }
        object
    };
    let mut other_namespace = with(json!({ "namespace": "elsewhere" }));
    if !kind.namespaced {
        other_namespace["metadata"]["name"] = json!("<ns>-elsewhere");
    }
    let owner = |fields: Value| with(json!({ "ownerReferences": [fields] }));
    Case::new(format!("{}/metadata", kind.plural))
        .send_if(!kind.ours(), "name", post(url(), &with(json!({ "name": "<ns>_Upper" }))))
        .send_if(
            kind.namespaced && !kind.ours(),
            "long name",
            post(url(), &with(json!({ "name": "n".repeat(254) }))),
        )
        .send("label value", post(url(), &with(json!({ "labels": { "a": "-b-" } }))))
        .send("label key", post(url(), &with(json!({ "labels": { "a b": "b" } }))))
        .send_if(kind.namespaced, "label type", post(url(), &with(json!({ "labels": { "a": 1 } }))))
        .send("annotation key", post(url(), &with(json!({ "annotations": { "a/b/c": "b" } }))))
        .send("finalizer", post(url(), &with(json!({ "finalizers": ["a b"] }))))
        .send(
            "owner without uid",
            post(url(), &owner(json!({ "apiVersion": "v1", "kind": "Pod", "name": "p" }))),
        )
        .send("other namespace", post(url(), &other_namespace))
        .send("empty metadata", post(url(), &with(json!({ "labels": {}, "annotations": {} }))))
}

fn of_status(kind: &Kind, status: fn(u64) -> Value) -> Case {
    let url = || kind.path("a", "/status");
    let with = |n: u64| {
        let mut object = kind.object("a");
        object["status"] = status(n);
        kind.set(&mut object, 1);
        object
    };
    let mut created = kind.object("a");
    created["status"] = status(9);
    let mut replaced = with(2);
    replaced["metadata"]["resourceVersion"] = json!("<patch:/metadata/resourceVersion>");
    let mut plain = with(3);
    plain["metadata"]["resourceVersion"] = json!("<put:/metadata/resourceVersion>");
    let mut stale = with(4);
    stale["metadata"]["resourceVersion"] = json!("<create:/metadata/resourceVersion>");
    let patch = |n: u64| json!({ "status": status(n), "metadata": { "labels": { "tier": "x" } } });
    Case::new(format!("{}/status", kind.plural))
        .send("create", post(kind.list(), &created))
        .send("read", get(url()))
        .send("patch", merge_patch(url(), &patch(1)))
        .send("patch again", merge_patch(url(), &patch(1)))
        .send("put", put(url(), &replaced))
        .send("stale", put(url(), &stale))
        .send("on the object", put(kind.path("a", ""), &plain))
        .send("patch of the object", merge_patch(kind.path("a", ""), &json!({ "status": status(5) })))
        .send("json", json_patch(url(), &json!([{ "op": "remove", "path": "/status" }])))
        .send("strategic", strategic_patch(url(), &json!({ "status": status(6) })))
        .send("missing", merge_patch(kind.path("none", "/status"), &json!({})))
        .send("post", post(url(), &kind.object("a")))
        .send("delete", delete(url()))
        .send("read the object", get(kind.path("a", "")))
}
