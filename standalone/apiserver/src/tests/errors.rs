use http::Method;
use serde_json::{Value, json};

use super::{MAPS, PODS, WIDGETS, World};

#[test]
fn statuses_read_as_kubernetes_has_them() {
    let mut world = World::new();
    world.make_widget("a");
    let (code, status) = world.get(&format!("{WIDGETS}/nope"));
    assert_eq!(code, 404);
    assert_eq!(
        status,
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "widgets.example.dev \"nope\" not found", "reason": "NotFound", "code": 404,
            "details": { "name": "nope", "group": "example.dev", "kind": "widgets" },
        })
    );
    let (code, status) =
        world.post(WIDGETS, &json!({ "metadata": { "name": "a" }, "spec": { "image": "x" } }));
    assert_eq!((code, &status["reason"]), (409, &json!("AlreadyExists")));
    assert_eq!(status["message"], "widgets.example.dev \"a\" already exists");
    let (code, status) =
        world.post("/api/v1/namespaces/nope/configmaps", &json!({ "metadata": { "name": "a" } }));
    assert_eq!((code, &status["message"]), (404, &json!("namespaces \"nope\" not found")));
}

#[test]
fn bad_names_are_told_with_the_rule() {
    let mut world = World::new();
    let (code, status) = world.post(PODS, &json!({ "metadata": { "name": "My_Pod" }, "spec": {} }));
    assert_eq!((code, &status["reason"]), (422, &json!("Invalid")));
    let message = status["message"].as_str().unwrap();
    assert!(
        message.starts_with(
            "Pod \"My_Pod\" is invalid: metadata.name: Invalid value: \"My_Pod\": a lowercase RFC 1123 subdomain must \
             consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric \
             character (e.g. 'example.com', regex used for validation is "
        ),
        "{message}"
    );
    assert_eq!(status["details"]["kind"], "Pod");
    let cause = &status["details"]["causes"][0];
    assert_eq!((&cause["reason"], &cause["field"]), (&json!("FieldValueInvalid"), &json!("metadata.name")));
}

#[test]
fn metadata_is_checked() {
    let mut world = World::new();
    let long = "x".repeat(64);
    for (meta, code, part) in [
        (json!({}), 422, "name or generateName is required"),
        (json!({ "name": "a b" }), 422, "metadata.name: Invalid value: \"a b\""),
        (json!({ "name": "a".repeat(254) }), 422, "must be no more than 253 characters"),
        (json!({ "name": "a", "labels": { "l": long } }), 422, "must be no more than 63 bytes"),
        (
            json!({ "name": "a", "labels": { "l": " x" } }),
            422,
            "a valid label must be an empty string or consist of",
        ),
        (json!({ "name": "a", "labels": { "a/b/c": "x" } }), 422, "a valid label key must consist of"),
        (json!({ "name": "a", "labels": { "b c": "x" } }), 422, "name part must consist of"),
        (
            json!({ "name": "a", "labels": { "l": 1 } }),
            400,
            "the value of \"l\" in metadata.labels must be a string",
        ),
        (json!({ "name": "a", "annotations": { "A_b/c": "x" } }), 422, "prefix part"),
        (json!({ "name": "a", "annotations": { "a": "x".repeat(300_000) } }), 422, "Too long"),
        (json!({ "name": "a", "finalizers": ["no way"] }), 422, "metadata.finalizers"),
        (json!({ "name": "a", "finalizers": "x" }), 400, "metadata.finalizers must be a list of strings"),
        (json!({ "name": "a", "ownerReferences": [{ "kind": "Pod" }] }), 422, "metadata.ownerReferences.uid"),
        (json!({ "name": 5 }), 400, "metadata.name must be a string"),
        (
            json!({ "name": "a", "namespace": "other" }),
            400,
            "does not match the namespace sent on the request",
        ),
        (json!({ "name": "a", "resourceVersion": "5" }), 400, "resourceVersion should not be set"),
    ] {
        let (found, status) = world.post(MAPS, &json!({ "metadata": meta }));
        assert_eq!(found, code, "{meta}: {status}");
        assert!(status["message"].as_str().unwrap().contains(part), "{meta}: {status}");
        assert!(world.deltas.is_empty());
    }
}

#[test]
fn hostile_requests_are_refused() {
    let mut world = World::new();
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000)).into_bytes();
    for (body, expected) in [
        (Vec::new(), 400),
        (b"{".to_vec(), 400),
        (b"[]".to_vec(), 400),
        (b"\xff\xfe".to_vec(), 400),
        (deep, 400),
        (vec![b' '; crate::BODY_LIMIT + 1], 413),
        (json!({ "metadata": [] }).to_string().into_bytes(), 400),
        (json!({ "apiVersion": "v2", "metadata": { "name": "a" } }).to_string().into_bytes(), 400),
        (json!({ "kind": "Pod", "metadata": { "name": "a" } }).to_string().into_bytes(), 400),
    ] {
        let handled = world.handle(Method::POST, MAPS, "application/json", body);
        let (code, status) = world.answer(handled);
        assert_eq!((code, &status["status"]), (expected, &json!("Failure")), "{status}");
    }
    for url in [
        "/",
        "/nope",
        "/api/v9/pods",
        "/apis/nope/v1/widgets",
        "/api/v1/nope",
        "/apis/example.dev/v1/nope",
        "/api/v1/namespaces/default/pods/..%2f..%2fetc",
        "/api/v1/namespaces/../pods",
        "/api/v1/namespaces//pods",
        "/api/v1/namespaces/default/pods/a/b/c",
        "/api/v1/pods/a",
        "/api/v1/namespaces/default/nodes",
        "/api/v1/namespaces/default/pods/%ff",
        "/apis/example.dev/v1/namespaces/default/widgets/a/scale",
    ] {
        let (code, status) = world.get(url);
        assert_eq!((code, &status["reason"]), (404, &json!("NotFound")), "{url}: {status}");
    }
}

#[test]
fn pods_need_their_service_account() {
    let mut world = World::new();
    let pod =
        |account: &str| json!({ "metadata": { "name": "p" }, "spec": { "serviceAccountName": account } });
    let (code, status) = world.post(PODS, &pod("robot"));
    assert_eq!(code, 403);
    assert_eq!(
        status["message"],
        "pods \"p\" is forbidden: error looking up service account default/robot: serviceaccount \"robot\" not found"
    );
    world.make("/api/v1/namespaces/default/serviceaccounts", &json!({ "metadata": { "name": "robot" } }));
    assert_eq!(world.post(PODS, &pod("robot")).0, 201);
    let made = world.make(PODS, &json!({ "metadata": { "name": "q" } }));
    assert_eq!(made["spec"]["serviceAccountName"], "default");
}

#[test]
fn a_refusal_changes_nothing() {
    let mut world = World::new();
    world.make_widget("a");
    let before = world.state.version();
    for (method, url, body) in [
        (Method::POST, WIDGETS.to_owned(), json!({ "metadata": { "name": "b" }, "spec": {} })),
        (Method::PUT, format!("{WIDGETS}/a"), json!({ "metadata": { "name": "a" } })),
        (Method::DELETE, format!("{WIDGETS}/a"), json!({ "preconditions": { "resourceVersion": "1" } })),
        (Method::DELETE, "/api/v1/namespaces/default".to_owned(), Value::Null),
    ] {
        let (code, status) = world.call(method.clone(), &url, "application/json", &body);
        assert!(code >= 400, "{method} {url}: {status}");
        assert_eq!(world.state.version(), before, "{method} {url}");
    }
}

/// No larger than a body, and larger than an object.
#[test]
fn what_is_larger_than_an_object_is_refused_in_any_form() {
    let mut world = World::new();
    world.make_map("a");
    let large = "x".repeat(1_600_000);
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": { "k": large } });
    let add = json!([{ "op": "add", "path": "/data", "value": { "k": large } }]);
    let url = format!("{MAPS}/a");
    for (method, url, kind, body) in [
        (Method::POST, MAPS, "application/json", &map),
        (Method::POST, MAPS, "application/yaml", &map),
        (Method::PUT, &url, "application/json", &map),
        (Method::PATCH, &format!("{url}?fieldManager=m"), "application/apply-patch+yaml", &map),
        (Method::PATCH, &url, "application/merge-patch+json", &map),
        (Method::PATCH, &url, "application/strategic-merge-patch+json", &map),
        (Method::PATCH, &url, "application/json-patch+json", &add),
    ] {
        let handled = world.handle(method.clone(), url, kind, body.to_string().into_bytes());
        let (code, status) = world.answer(handled);
        let found = (code, status["reason"].as_str());
        assert_eq!(found, (413, Some("RequestEntityTooLarge")), "{method} {kind}: {status}");
    }
}

#[test]
fn options_that_no_write_has_are_named_with_what_there_is() {
    let mut world = World::new();
    world.make_map("a");
    let url = format!("{MAPS}/a");
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } });
    let message = "Unsupported value: \"Loose\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"";
    let cause = json!({ "reason": "FieldValueNotSupported", "field": "fieldValidation", "message": message });
    for (method, url, media_type, kind) in [
        (Method::POST, MAPS, "application/json", "CreateOptions"),
        (Method::PUT, &url, "application/json", "UpdateOptions"),
        (Method::PATCH, &url, "application/merge-patch+json", "PatchOptions"),
        (Method::PATCH, &url, "application/apply-patch+yaml", "PatchOptions"),
    ] {
        let (code, status) =
            world.call(method, &format!("{url}?fieldManager=m&fieldValidation=Loose"), media_type, &map);
        assert_eq!((code, &status["reason"]), (422, &json!("Invalid")), "{status}");
        let expected = format!("{kind}.meta.k8s.io \"\" is invalid: fieldValidation: {message}");
        assert_eq!(status["message"], expected);
        assert_eq!(status["details"], json!({ "group": "meta.k8s.io", "kind": kind, "causes": [cause] }));
    }
    let (code, status) = world.post(&format!("{MAPS}?dryRun=Some&fieldValidation=Loose"), &map);
    let causes = status["details"]["causes"].as_array().unwrap();
    let fields: Vec<_> = causes.iter().map(|cause| cause["field"].as_str().unwrap()).collect();
    assert_eq!((code, fields), (422, vec!["dryRun", "fieldValidation"]));
    // Neither reads nor deletions have any fields to validate.
    assert_eq!(world.get(&format!("{url}?fieldValidation=Loose")).0, 200);
    assert_eq!(world.delete(&format!("{url}?fieldValidation=Loose"), &Value::Null).0, 200);
}
