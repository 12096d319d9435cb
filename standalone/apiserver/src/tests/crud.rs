use http::Method;
use serde_json::{Value, json};

use super::{MAPS, PODS, WIDGETS, World};

#[test]
fn a_new_object_gets_its_system_fields() {
    let mut world = World::new();
    let sent = json!({
        "metadata": {
            "name": "a", "uid": "mine", "generation": 9, "creationTimestamp": "2001-01-01T00:00:00Z",
            "deletionTimestamp": "2001-01-01T00:00:00Z", "managedFields": [{ "manager": "me" }],
        },
        "data": { "k": "v" },
    });
    let made = world.make(MAPS, &sent);
    let meta = &made["metadata"];
    assert_eq!((&made["apiVersion"], &made["kind"]), (&json!("v1"), &json!("ConfigMap")));
    assert_eq!(meta["namespace"], "default");
    assert_eq!(meta["creationTimestamp"], "2026-01-02T03:04:05Z");
    assert_eq!(meta["uid"].as_str().unwrap().len(), 36);
    assert_ne!(meta["uid"], "mine");
    for absent in ["generation", "deletionTimestamp"] {
        assert_eq!(meta.get(absent), None, "{absent}");
    }
    assert_ne!(meta["managedFields"][0]["manager"], "me");
    let (code, read) = world.get(&format!("{MAPS}/a"));
    assert_eq!((code, read), (200, made));
}

#[test]
fn resource_versions_are_one_growing_counter() {
    let mut world = World::new();
    let version =
        |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    let first = version(&world.make_map("a"));
    let second = version(&world.make_widget("a"));
    assert!(second > first);
    let (_, changed) = world.merge(&format!("{MAPS}/a"), &json!({ "data": { "k": "v" } }));
    assert!(version(&changed) > second);
    // A write that changes nothing is none.
    let (code, same) = world.merge(&format!("{MAPS}/a"), &json!({ "data": { "k": "v" } }));
    assert_eq!((code, version(&same)), (200, version(&changed)));
    assert!(world.deltas.is_empty());
}

#[test]
fn generated_names_follow_from_the_seed() {
    let (mut one, mut two) = (World::new(), World::new());
    let sent = json!({ "metadata": { "generateName": "run-" } });
    let name = |made: Value| made["metadata"]["name"].as_str().unwrap().to_owned();
    let first = name(one.make(MAPS, &sent));
    assert!(first.starts_with("run-") && first.len() == "run-".len() + 5, "{first}");
    assert_ne!(first, name(one.make(MAPS, &sent)));
    assert_eq!(first, name(two.make(MAPS, &sent)));
    let long = json!({ "metadata": { "generateName": "x".repeat(80) } });
    assert_eq!(name(one.make(MAPS, &long)).len(), 63);
}

#[test]
fn put_needs_the_version_it_read() {
    let mut world = World::new();
    let old = world.make_widget("a");
    let url = format!("{WIDGETS}/a");
    let mut new = old.clone();
    new["spec"]["image"] = json!("y");
    let (code, changed) = world.put(&url, &new);
    assert_eq!((code, &changed["spec"]["image"]), (200, &json!("y")));
    let (code, status) = world.put(&url, &new);
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));
    assert_eq!(
        status["message"],
        "Operation cannot be fulfilled on widgets.example.dev \"a\": the object has been modified; please apply your \
         changes to the latest version and try again"
    );
    // A custom resource is not updated without a version, a built-in one is.
    new["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    let (code, status) = world.put(&url, &new);
    assert_eq!(code, 422, "{status}");
    world.make_map("m");
    assert_eq!(world.put(&format!("{MAPS}/m"), &json!({ "metadata": { "name": "m" } })).0, 200);
}

#[test]
fn names_and_uids_cannot_change() {
    let mut world = World::new();
    let old = world.make_map("a");
    let url = format!("{MAPS}/a");
    let mut renamed = old.clone();
    renamed["metadata"]["name"] = json!("b");
    let (code, status) = world.put(&url, &renamed);
    assert_eq!(code, 400);
    assert_eq!(status["message"], "the name of the object (b) does not match the name on the URL (a)");
    let (code, _) = world.merge(&url, &json!({ "metadata": { "name": "b" } }));
    assert_eq!(code, 400);
    assert_eq!(world.merge(&url, &json!({ "metadata": { "uid": "other" } })).0, 422);
    let mut other = old.clone();
    other["metadata"]["uid"] = json!("other");
    assert_eq!(world.put(&url, &other).0, 409);
    assert_eq!(world.put("/api/v1/namespaces/kube-system/configmaps/a", &old).0, 404);
}

#[test]
fn generation_counts_changes_of_the_spec_only() {
    let mut world = World::new();
    let made = world.make_widget("a");
    let url = format!("{WIDGETS}/a");
    let generation = |object: &Value| object["metadata"]["generation"].as_i64().unwrap();
    assert_eq!(generation(&made), 1);
    let (_, labelled) = world.merge(&url, &json!({ "metadata": { "labels": { "l": "1" } } }));
    assert_eq!(generation(&labelled), 1);
    let (_, done) = world.merge(&format!("{url}/status"), &json!({ "status": { "phase": "Done" } }));
    assert_eq!(generation(&done), 1);
    let (_, changed) = world.merge(&url, &json!({ "spec": { "count": 3 } }));
    assert_eq!(generation(&changed), 2);
}

#[test]
fn status_and_the_rest_have_an_endpoint_each() {
    let mut world = World::new();
    let sent =
        json!({ "metadata": { "name": "a" }, "spec": { "image": "x" }, "status": { "phase": "Forged" } });
    let made = world.make(WIDGETS, &sent);
    assert_eq!(made.get("status"), None);
    let url = format!("{WIDGETS}/a");
    let (_, main) = world.merge(&url, &json!({ "status": { "phase": "Forged" } }));
    assert_eq!(main.get("status"), None);
    let patch = json!({
        "metadata": { "labels": { "l": "1" } }, "spec": { "image": "forged" }, "status": { "phase": "Done" },
    });
    let (code, status) = world.merge(&format!("{url}/status"), &patch);
    assert_eq!(
        (code, &status["status"]["phase"], &status["spec"]["image"]),
        (200, &json!("Done"), &json!("x"))
    );
    assert_eq!(status["metadata"].get("labels"), None);
    let (_, main) = world.put(&url, &{
        let mut object = status.clone();
        object.as_object_mut().unwrap().remove("status");
        object
    });
    assert_eq!(main["status"]["phase"], "Done");
    // A stale version is refused here, too.
    let stale = json!({ "metadata": { "resourceVersion": "1" }, "status": { "phase": "Late" } });
    assert_eq!(world.merge(&format!("{url}/status"), &stale).0, 409);
    assert_eq!(world.get(&format!("{MAPS}/a/status")).0, 404);
}

#[test]
fn labels_of_a_pod_may_change_with_its_status() {
    let mut world = World::new();
    world.make(PODS, &json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c" }] } }));
    let patch = json!({ "metadata": { "labels": { "l": "1" } }, "status": { "phase": "Running" } });
    let (code, pod) = world.merge(&format!("{PODS}/p/status"), &patch);
    assert_eq!(
        (code, &pod["metadata"]["labels"]["l"], &pod["status"]["phase"]),
        (200, &json!("1"), &json!("Running"))
    );
}

#[test]
fn a_dry_run_goes_all_the_way_and_leaves_nothing() {
    let mut world = World::new();
    let before = world.state.version();
    let (code, object) = world.post(&format!("{MAPS}?dryRun=All"), &json!({ "metadata": { "name": "a" } }));
    assert_eq!((code, &object["metadata"]["name"]), (201, &json!("a")));
    assert_eq!(world.get(&format!("{MAPS}/a")).0, 404);
    world.make_map("a");
    let (code, _) = world.post(&format!("{MAPS}?dryRun=All"), &json!({ "metadata": { "name": "a" } }));
    assert_eq!(code, 409);
    assert_eq!(world.delete(&format!("{MAPS}/a"), &json!({ "dryRun": ["All"] })).0, 200);
    world.post("/api/v1/namespaces/default/serviceaccounts", &json!({ "metadata": { "name": "s" } }));
    let url = "/api/v1/namespaces/default/serviceaccounts/s";
    let shown = world.get(url).1;
    assert_eq!(world.delete(url, &json!({ "dryRun": ["All"] })), (200, shown), "with the version it has");
    assert_eq!(world.get(&format!("{MAPS}/a")).0, 200);
    assert_eq!(world.merge(&format!("{MAPS}/a?dryRun=All"), &json!({ "data": { "k": "v" } })).0, 200);
    assert_eq!(world.state.version(), before + 2);
    assert_eq!(world.post(&format!("{MAPS}?dryRun=Some"), &json!({ "metadata": { "name": "b" } })).0, 422);
}

#[test]
fn deleting_answers_and_checks_preconditions() {
    let mut world = World::new();
    let made = world.make_map("a");
    let url = format!("{MAPS}/a");
    let (code, status) = world.delete(&url, &json!({ "preconditions": { "uid": "other" } }));
    assert_eq!((code, &status["reason"]), (409, &json!("Conflict")));
    let uid = made["metadata"]["uid"].clone();
    let (code, status) = world.delete(&url, &json!({ "preconditions": { "uid": uid } }));
    assert_eq!((code, &status["status"], &status["details"]["uid"]), (200, &json!("Success"), &uid));
    assert_eq!(world.changes(), ["Deleted a"]);
    let (code, status) = world.delete(&url, &Value::Null);
    assert_eq!((code, &status["message"]), (404, &json!("configmaps \"a\" not found")));
}

#[test]
fn a_collection_goes_by_selector() {
    let mut world = World::new();
    for (name, app) in [("a", "x"), ("b", "x"), ("c", "y")] {
        world.make(MAPS, &json!({ "metadata": { "name": name, "labels": { "app": app } } }));
    }
    let (code, list) = world.delete(&format!("{MAPS}?labelSelector=app%3Dx"), &Value::Null);
    assert_eq!((code, list["items"].as_array().unwrap().len()), (200, 2));
    let (_, left) = world.get(MAPS);
    assert_eq!(left["items"][0]["metadata"]["name"], "c");
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

#[test]
fn secrets_fold_their_plain_text() {
    let mut world = World::new();
    let url = "/api/v1/namespaces/default/secrets";
    let sent =
        json!({ "metadata": { "name": "s" }, "data": { "a": "MQ==" }, "stringData": { "b": "hello" } });
    let made = world.make(url, &sent);
    assert_eq!(made["data"], json!({ "a": "MQ==", "b": "aGVsbG8=" }));
    assert_eq!((made.get("stringData"), &made["type"]), (None, &json!("Opaque")));
    let (_, patched) = world.merge(&format!("{url}/s"), &json!({ "stringData": { "a": "2" } }));
    assert_eq!(patched["data"], json!({ "a": "Mg==", "b": "aGVsbG8=" }));
}

#[test]
fn immutable_config_stays() {
    let mut world = World::new();
    world.make(MAPS, &json!({ "metadata": { "name": "a" }, "data": { "k": "v" }, "immutable": true }));
    assert_eq!(world.merge(&format!("{MAPS}/a"), &json!({ "data": { "k": "w" } })).0, 422);
    assert_eq!(world.merge(&format!("{MAPS}/a"), &json!({ "metadata": { "labels": { "l": "1" } } })).0, 200);
}

#[test]
fn methods_and_media_types_are_refused_by_name() {
    let mut world = World::new();
    world.make_map("a");
    let url = format!("{MAPS}/a");
    let body = json!({ "metadata": { "name": "b" } });
    for (method, url, content_type, expected) in [
        (Method::OPTIONS, MAPS, "", 405),
        (Method::PUT, MAPS, "application/json", 405),
        (Method::POST, url.as_str(), "application/json", 405),
        (Method::POST, "/api/v1/configmaps", "application/json", 405),
        (Method::POST, MAPS, "application/cbor", 415),
        (Method::PATCH, url.as_str(), "application/json", 415),
        (Method::PATCH, url.as_str(), "application/apply-patch+cbor", 415),
    ] {
        let (code, status) = world.call(method.clone(), url, content_type, &body);
        assert_eq!((code, &status["kind"]), (expected, &json!("Status")), "{method} {url} {content_type}");
    }
}

#[test]
fn empty_metadata_is_no_metadata() {
    let mut world = World::new();
    let sent = json!({ "metadata": { "name": "a", "labels": {}, "annotations": null, "finalizers": [] } });
    let made = world.make(MAPS, &sent);
    for absent in ["labels", "annotations", "finalizers"] {
        assert_eq!(made["metadata"].get(absent), None, "{absent}");
    }
    world.merge(&format!("{MAPS}/a"), &json!({ "metadata": { "labels": {} } }));
    assert!(world.deltas.is_empty());
}
