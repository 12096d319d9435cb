//! Server-side apply: creation, ownership, conflicts, giving up. No IO.

use serde_json::json;

use crate::case::{Case, apply, get, merge_patch, post};
use crate::kinds::Kind;

pub(super) fn of(kind: &Kind) -> Vec<Case> {
    let url = |query: &str| kind.path("a", query);
    let labelled =
        |labels: serde_json::Value| kind.with(&json!({ "name": kind.name("a"), "labels": labels }));
    let bare = |labels: serde_json::Value| {
        json!({
            "apiVersion": kind.api, "kind": kind.title,
            "metadata": { "name": kind.name("a"), "labels": labels },
        })
    };
    let mut versioned = bare(json!({ "a": "1" }));
    versioned["metadata"]["resourceVersion"] = json!("1");
    let mut managed = bare(json!({ "a": "1" }));
    managed["metadata"]["managedFields"] = json!([]);
    vec![
        Case::new(format!("{}/apply", kind.plural))
            .send("create", apply(url("?fieldManager=one"), &labelled(json!({ "a": "1", "b": "1" }))))
            .send("again", apply(url("?fieldManager=one"), &labelled(json!({ "a": "1", "b": "1" }))))
            .send("share", apply(url("?fieldManager=two"), &bare(json!({ "a": "1" }))))
            .send("conflict", apply(url("?fieldManager=two"), &bare(json!({ "a": "2", "b": "2" }))))
            .send("conflict of one", apply(url("?fieldManager=two"), &bare(json!({ "b": "2" }))))
            .send("force", apply(url("?fieldManager=two&force=true"), &bare(json!({ "a": "2", "b": "2" }))))
            .send("give up", apply(url("?fieldManager=two"), &bare(json!({ "a": "2" }))))
            .send("read", get(url("")))
            .send("dry run", apply(url("?fieldManager=three&dryRun=All"), &bare(json!({ "c": "3" }))))
            .send("stale", apply(url("?fieldManager=two"), &versioned))
            .send("unchanged", get(url(""))),
        Case::new(format!("{}/apply over updates", kind.plural))
            .send("create", post(kind.list(), &kind.object("a")))
            .send("apply", apply(url("?fieldManager=one"), &bare(json!({ "a": "1" }))))
            .send("update", merge_patch(url("?fieldManager=kubectl-edit"), &json!({ "metadata": { "labels": { "a": "2" } } })))
            .send("conflict", apply(url("?fieldManager=one"), &bare(json!({ "a": "1" }))))
            .send("force", apply(url("?fieldManager=one&force=true"), &bare(json!({ "a": "1" }))))
            .send("reset", merge_patch(url(""), &json!({ "metadata": { "managedFields": [{}] } })))
            .send("after reset", apply(url("?fieldManager=one"), &bare(json!({ "a": "3" })))),
        Case::new(format!("{}/apply refused", kind.plural))
            .send("no manager", apply(url(""), &bare(json!({}))))
            .send("managed fields", apply(url("?fieldManager=one"), &managed))
            .send("other name", apply(kind.path("b", "?fieldManager=one"), &bare(json!({}))))
            .send_if(!kind.ours(), "other kind", apply(url("?fieldManager=one"), &json!({
                "apiVersion": kind.api, "kind": "Other", "metadata": { "name": kind.name("a") },
            })))
            .send("no kind", apply(url("?fieldManager=one"), &json!({ "metadata": { "name": kind.name("a") } })))
            .send("no object", apply(url("?fieldManager=one"), &json!([1])))
            .send("no yaml", apply(url("?fieldManager=one"), &json!({})).body("application/apply-patch+yaml", "a: b: c"))
            .send_if(!kind.ours(), "unknown field", apply(url("?fieldManager=one"), &json!({
                "apiVersion": kind.api, "kind": kind.title, "metadata": { "name": kind.name("a"), "nothing": 1 },
            })))
            .send("force elsewhere", merge_patch(url("?force=true"), &json!({})))
            .send("long manager", merge_patch(url(&format!("?fieldManager={}", "m".repeat(129))), &json!({}))),
    ]
}
