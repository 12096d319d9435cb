//! Tokens of service accounts: what they are bound to, who gets one, reviews.

use super::*;

fn token(world: &mut World, account: &str, spec: &Value) -> (u16, Value) {
    let url = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
    world.ask(&User::admin(), "POST", &url, &json!({ "spec": spec }))
}

#[test]
fn tokens_hold_for_as_long_as_what_they_are_bound_to() {
    let mut world = world();
    let pod =
        json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    let pod = world.make(PODS, &pod);
    let bound = json!({ "kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod["metadata"]["uid"] });
    let (code, answer) =
        token(&mut world, "default", &json!({ "expirationSeconds": 600, "boundObjectRef": bound }));
    assert_eq!(code, 201, "{answer}");
    assert_eq!(answer["status"]["expirationTimestamp"], "2026-01-02T03:14:05Z");
    let claims: Value = serde_json::from_str(answer["status"]["token"].as_str().unwrap()).unwrap();
    let name = |world: &World, claims: &Value| {
        authenticate(&world.state, claims, &[crate::AUDIENCE], world.now).map(|user| user.name)
    };
    let account = "system:serviceaccount:default:default";
    assert_eq!(name(&world, &claims).as_deref(), Some(account));
    let user = authenticate(&world.state, &claims, &[crate::AUDIENCE], world.now).unwrap();
    assert_eq!(
        user.groups,
        ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
    );
    assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);

    for (path, value) in [
        ("/iss", json!("https://elsewhere")),
        ("/sub", json!("system:serviceaccount:default:other")),
        ("/aud", json!(["vault"])),
        ("/nbf", json!(world.now.as_second() + 1)),
        ("/exp", json!(world.now.as_second())),
        ("/kubernetes.io/namespace", json!("other")),
        ("/kubernetes.io/serviceaccount/uid", json!("another")),
        ("/kubernetes.io/serviceaccount/uid", json!("")),
        ("/kubernetes.io/pod/uid", json!("another")),
        ("/kubernetes.io/pod", json!("none")),
    ] {
        let mut wrong = claims.clone();
        *wrong.pointer_mut(path).unwrap() = value;
        assert_eq!(name(&world, &wrong), None, "{path}");
    }

    world.pass(599);
    assert!(name(&world, &claims).is_some());
    world.pass(1);
    assert_eq!(name(&world, &claims), None, "expired");

    let (_, answer) = token(&mut world, "default", &json!({ "boundObjectRef": bound }));
    let claims: Value = serde_json::from_str(answer["status"]["token"].as_str().unwrap()).unwrap();
    assert!(name(&world, &claims).is_some());
    world.delete(&format!("{PODS}/p"), &Value::Null);
    assert_eq!(name(&world, &claims), None, "its pod is gone");

    let (_, answer) = token(&mut world, "default", &json!({}));
    let claims: Value = serde_json::from_str(answer["status"]["token"].as_str().unwrap()).unwrap();
    assert!(name(&world, &claims).is_some());
    world.delete("/api/v1/namespaces/default/serviceaccounts/default", &Value::Null);
    assert_eq!(name(&world, &claims), None, "its account is gone");
}

#[test]
fn tokens_are_refused_that_nobody_should_have() {
    let mut world = world();
    world.make("/api/v1/namespaces/default/serviceaccounts", &json!({ "metadata": { "name": "other" } }));
    let pod =
        json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    world.make(PODS, &pod);
    let bound = |kind: &str, name: &str, uid: &str| json!({ "boundObjectRef": { "kind": kind, "name": name, "uid": uid } });
    for (account, spec, expected) in [
        ("gone", json!({}), 404),
        ("default", json!({ "expirationSeconds": 599 }), 422),
        ("default", bound("Pod", "q", ""), 404),
        ("default", bound("Pod", "p", "another"), 409),
        ("default", bound("Node", "p", ""), 400),
        ("other", bound("Pod", "p", ""), 400),
        ("default", bound("Pod", "p", ""), 201),
    ] {
        let (code, answer) = token(&mut world, account, &spec);
        assert_eq!(code, expected, "{account} {spec}: {answer}");
    }
    // No server without keys issues any.
    let request = Request::post("/api/v1/namespaces/default/serviceaccounts/default/token");
    let request = request.body(b"{}".to_vec()).unwrap();
    assert_eq!(world.ask_with(&User::admin(), &NoTokens, &request).0, 404);
}

#[test]
fn token_reviews_tell_whose_a_token_is() {
    let mut world = world();
    let (_, answer) = token(&mut world, "default", &json!({ "audiences": ["vault"] }));
    let token = answer["status"]["token"].as_str().unwrap().to_owned();
    let url = "/apis/authentication.k8s.io/v1/tokenreviews";
    let review = |token: &str, audience: &str| json!({ "spec": { "token": token, "audiences": [audience] } });
    let (_, answer) = world.ask(&User::admin(), "POST", url, &review(&token, "vault"));
    assert_eq!(answer["status"]["user"]["username"], "system:serviceaccount:default:default");
    assert_eq!(
        (&answer["status"]["authenticated"], &answer["status"]["audiences"]),
        (&json!(true), &json!(["vault"]))
    );
    // The review that was sent, with its status.
    assert_eq!(answer["spec"], review(&token, "vault")["spec"]);
    for wrong in [review(&token, crate::AUDIENCE), review("x", "vault")] {
        let (_, answer) = world.ask(&User::admin(), "POST", url, &wrong);
        assert_eq!(answer["status"]["authenticated"], false);
    }
    for nothing in [json!({}), json!({ "spec": {} }), review("", "vault")] {
        let (code, answer) = world.ask(&User::admin(), "POST", url, &nothing);
        let message = "token is required for TokenReview in authentication";
        assert_eq!((code, &answer["message"]), (400, &json!(message)), "{nothing}");
    }
}

/// A finalizer keeps a pod or an account; it does not keep alive what was given to it.
#[test]
fn tokens_end_soon_after_what_should_be_gone() {
    let finalizers = json!(["example.dev/x"]);
    for of_pod in [true, false] {
        let mut world = world();
        let account = json!({ "metadata": { "name": "builder", "finalizers": finalizers } });
        world.make("/api/v1/namespaces/default/serviceaccounts", &account);
        let pod = json!({
            "metadata": { "name": "p", "finalizers": finalizers },
            "spec": { "serviceAccountName": "builder", "nodeName": "n", "containers": [{ "name": "c", "image": "i" }] },
        });
        world.make(PODS, &pod);
        let bound = json!({ "boundObjectRef": { "kind": "Pod", "apiVersion": "v1", "name": "p" } });
        let (_, answer) = token(&mut world, "builder", &bound);
        let claims: Value = serde_json::from_str(answer["status"]["token"].as_str().unwrap()).unwrap();
        let holds =
            |world: &World| authenticate(&world.state, &claims, &[crate::AUDIENCE], world.now).is_some();
        // A pod has half a minute to end, in which it may use its token.
        let (url, grace) = if of_pod {
            (format!("{PODS}/p"), 30)
        } else {
            ("/api/v1/namespaces/default/serviceaccounts/builder".to_owned(), 0)
        };
        world.delete(&url, &Value::Null);
        assert_eq!(world.get(&url).0, 200);
        world.pass(grace + 60);
        assert!(holds(&world), "of a pod: {of_pod}");
        world.pass(1);
        assert!(!holds(&world), "of a pod: {of_pod}");
    }
}

#[test]
fn pods_get_a_token_unless_they_want_none() {
    let mut world = world();
    world.make(
        "/api/v1/namespaces/default/serviceaccounts",
        &json!({ "metadata": { "name": "shy" }, "automountServiceAccountToken": false }),
    );
    let containers = json!([{ "name": "c", "image": "i", "volumeMounts": null }]);
    for (name, spec, expected) in [
        ("a", json!({}), true),
        ("b", json!({ "automountServiceAccountToken": false }), false),
        ("c", json!({ "serviceAccountName": "shy" }), false),
        ("d", json!({ "serviceAccountName": "shy", "automountServiceAccountToken": true }), true),
    ] {
        let mut pod = json!({ "metadata": { "name": name }, "spec": spec });
        pod["spec"]["containers"] = containers.clone();
        let pod = world.make(PODS, &pod);
        let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array();
        let path = mounts.and_then(|mounts| mounts.first()).map(|mount| mount["mountPath"].clone());
        let wanted = expected.then(|| json!("/var/run/secrets/kubernetes.io/serviceaccount"));
        assert_eq!(path, wanted, "{name}: {pod}");
        let volumes = pod["spec"]["volumes"].as_array().map_or(0, Vec::len);
        assert_eq!(volumes, usize::from(expected), "{name}: {pod}");
    }
    let url = "/api/v1/namespaces/other/configmaps/kube-root-ca.crt";
    assert_eq!(world.get(url).1["data"]["ca.crt"], "PEM");
}
