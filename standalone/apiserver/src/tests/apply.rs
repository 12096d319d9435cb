//! Server-side apply and the entries of `managedFields`.

use http::{Method, Request, header};
use serde_json::{Value, json};

use super::{MAPS, PODS, WIDGETS, World};
use crate::{Body, Caller, Context, NoAdmission, NoTokens, User, handle_for, install};

const APPLY: &str = "application/apply-patch+yaml";

impl World {
    fn apply(&mut self, url: &str, query: &str, body: &Value) -> (u16, Value) {
        self.call(Method::PATCH, &format!("{url}?{query}"), APPLY, body)
    }

    fn applied(&mut self, url: &str, query: &str, body: &Value) -> Value {
        let (code, object) = self.apply(url, query, body);
        assert!(code == 200 || code == 201, "{object}");
        object
    }
}

fn widget(spec: &Value) -> Value {
    json!({ "apiVersion": "example.dev/v1", "kind": "Widget", "metadata": { "name": "w" }, "spec": spec })
}

fn map(data: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m" }, "data": data })
}

/// `manager operation[ subresource]` and the fields of each entry.
fn managers(object: &Value) -> Vec<(String, Value)> {
    let list = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|entry| {
            let words =
                ["manager", "operation", "subresource"].map(|key| entry[key].as_str().unwrap_or_default());
            (words.join(" ").trim_end().to_owned(), entry["fieldsV1"].clone())
        })
        .collect()
}

fn fields_of(object: &Value, manager: &str) -> Value {
    managers(object).into_iter().find(|(name, _)| name == manager).map_or(Value::Null, |(_, fields)| fields)
}

#[test]
fn every_write_is_noted_under_its_manager() {
    let mut world = World::new();
    let body = json!({ "metadata": { "name": "m", "labels": { "a": "b" } }, "data": { "k": "1" } });
    let made = world.make(&format!("{MAPS}?fieldManager=maker"), &body);
    assert_eq!(
        made["metadata"]["managedFields"],
        json!([{
            "manager": "maker", "operation": "Update", "apiVersion": "v1", "time": "2026-01-02T03:04:05Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:data": { ".": {}, "f:k": {} },
                "f:metadata": { "f:labels": { ".": {}, "f:a": {} } },
            },
        }])
    );
    world.pass(1);
    let patch = Request::builder()
        .method(Method::PATCH)
        .uri(format!("{MAPS}/m"))
        .header(header::CONTENT_TYPE, "application/merge-patch+json")
        .header(header::USER_AGENT, "agent/v1 (linux)")
        .body(br#"{"data":{"k":"2","l":"3"}}"#.to_vec())
        .unwrap();
    let handled = world.request(&patch);
    let (_, patched) = world.answer(handled);
    assert_eq!(fields_of(&patched, "agent Update"), json!({ "f:data": { "f:k": {}, "f:l": {} } }));
    assert_eq!(
        fields_of(&patched, "maker Update"),
        json!({ "f:data": {}, "f:metadata": { "f:labels": { ".": {}, "f:a": {} } } })
    );
    // Saying again what stands already is nobody's doing.
    let (_, same) = world.merge(&format!("{MAPS}/m?fieldManager=third"), &json!({ "data": { "k": "2" } }));
    assert_eq!(same["metadata"], patched["metadata"]);
    assert!(world.deltas.is_empty());
}

#[test]
fn a_status_is_managed_apart() {
    let mut world = World::new();
    world.make_widget("w");
    let patch = json!({ "metadata": { "labels": { "a": "b" } }, "status": { "phase": "Good" }, "spec": { "image": "y" } });
    let (_, patched) = world.merge(&format!("{WIDGETS}/w/status?fieldManager=controller"), &patch);
    assert_eq!(
        fields_of(&patched, "controller Update status"),
        json!({ "f:status": { ".": {}, "f:phase": {} } })
    );
    let config = json!({ "apiVersion": "example.dev/v1", "kind": "Widget", "status": { "phase": "Bad" } });
    let (code, refused) = world.apply(&format!("{WIDGETS}/w/status"), "fieldManager=judge", &config);
    assert_eq!(code, 409, "{refused}");
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"controller\" with subresource \"status\" using example.dev/v1: \
         .status.phase"
    );
    let forced = world.applied(&format!("{WIDGETS}/w/status"), "fieldManager=judge&force=true", &config);
    assert_eq!(forced["status"]["phase"], "Bad");
    assert_eq!(fields_of(&forced, "judge Apply status"), json!({ "f:status": { "f:phase": {} } }));
    // The object's own endpoint leaves the status alone.
    let mut whole = widget(&json!({ "image": "z" }));
    whole["status"] = json!({ "phase": "Odd" });
    let applied = world.applied(&format!("{WIDGETS}/w"), "fieldManager=me&force=true", &whole);
    assert_eq!((&applied["status"]["phase"], &applied["spec"]["image"]), (&json!("Bad"), &json!("z")));
}

#[test]
fn applying_creates_then_owns_then_gives_up() {
    let mut world = World::new();
    let url = format!("{WIDGETS}/w");
    let first = widget(&json!({
        "image": "x", "mode": "fast", "labels": { "a": "1" }, "steps": [{ "name": "s", "image": "i" }],
    }));
    let (code, made) = world.apply(&url, "fieldManager=me", &first);
    assert_eq!(code, 201, "{made}");
    assert_eq!(
        managers(&made),
        [(
            "me Apply".to_owned(),
            json!({ "f:spec": {
                "f:image": {}, "f:mode": {}, "f:labels": { "f:a": {} },
                "f:steps": { "k:{\"name\":\"s\"}": { ".": {}, "f:image": {}, "f:name": {} } },
            } })
        )]
    );
    assert_eq!((&made["spec"]["count"], &made["metadata"]["generation"]), (&json!(1), &json!(1)));
    // The same again changes nothing, not even the version.
    let (code, same) = world.apply(&url, "fieldManager=me", &first);
    assert_eq!((code, &same), (200, &made));
    assert!(world.deltas.is_empty());
    // Another owner of a part keeps it alive.
    let other = widget(&json!({ "mode": "fast", "steps": [{ "name": "t" }] }));
    let shared = world.applied(&url, "fieldManager=other", &other);
    assert_eq!(shared["spec"]["steps"], json!([{ "name": "s", "image": "i" }, { "name": "t" }]));
    let less = world.applied(&url, "fieldManager=me", &widget(&json!({ "image": "x" })));
    assert_eq!(less["spec"], json!({ "image": "x", "count": 1, "mode": "fast", "steps": [{ "name": "t" }] }));
    assert_eq!(fields_of(&less, "me Apply"), json!({ "f:spec": { "f:image": {} } }));
}

#[test]
fn what_others_own_is_taken_by_force_only() {
    let mut world = World::new();
    let url = format!("{MAPS}/m");
    world.applied(&url, "fieldManager=one", &map(&json!({ "a": "1", "b": "1" })));
    let same = world.applied(&url, "fieldManager=two", &map(&json!({ "a": "1" })));
    assert_eq!(managers(&same).len(), 2);
    let (code, refused) = world.apply(&url, "fieldManager=three", &map(&json!({ "a": "3", "b": "3" })));
    assert_eq!((code, &refused["reason"]), (409, &json!("Conflict")));
    assert_eq!(
        refused["message"],
        "Apply failed with 3 conflicts: conflicts with \"one\":\n- .data.a\n- .data.b\nconflicts with \"two\":\n- .data.a"
    );
    assert_eq!(
        refused["details"]["causes"][0],
        json!({ "reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.a" })
    );
    assert!(world.deltas.is_empty());
    let (code, _) = world.apply(&url, "fieldManager=three&dryRun=All&force=true", &map(&json!({ "a": "3" })));
    assert_eq!((code, world.get(&url).1["data"]["a"].clone()), (200, json!("1")));
    let forced = world.applied(&url, "fieldManager=three&force=true", &map(&json!({ "a": "3" })));
    assert_eq!(forced["data"], json!({ "a": "3", "b": "1" }));
    assert_eq!(fields_of(&forced, "two Apply"), Value::Null);
    assert_eq!(fields_of(&forced, "one Apply"), json!({ "f:data": { "f:b": {} } }));
}

#[test]
fn lists_of_built_in_kinds_merge_by_their_keys() {
    let mut world = World::new();
    let pod = |container: &Value| json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "spec": { "containers": [container] } });
    let url = format!("{PODS}/p");
    let port = json!({ "name": "c", "image": "i", "ports": [{ "containerPort": 80 }], "env": [{ "name": "E", "value": "1" }] });
    let made = world.applied(&url, "fieldManager=one", &pod(&port));
    assert_eq!(
        fields_of(&made, "one Apply"),
        json!({ "f:spec": { "f:containers": { "k:{\"name\":\"c\"}": {
            ".": {}, "f:name": {}, "f:image": {},
            "f:ports": { "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": { ".": {}, "f:containerPort": {} } },
            "f:env": { "k:{\"name\":\"E\"}": { ".": {}, "f:name": {}, "f:value": {} } },
        } } } })
    );
    let (code, refused) = world.apply(&url, "fieldManager=two", &pod(&json!({ "name": "c", "image": "j" })));
    assert_eq!(code, 409);
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"one\": .spec.containers[name=\"c\"].image"
    );
}

#[test]
fn what_was_there_before_the_first_apply_is_somebodys() {
    let mut world = World::new();
    world.make(MAPS, &map(&json!({ "a": "1" })));
    let url = format!("{MAPS}/m");
    let (_, reset) = world.merge(&url, &json!({ "metadata": { "managedFields": [{}] } }));
    assert_eq!(reset["metadata"].get("managedFields"), None);
    let (_, untracked) = world.merge(&format!("{url}?fieldManager=x"), &json!({ "data": { "b": "2" } }));
    assert_eq!(untracked["metadata"].get("managedFields"), None);
    let (code, refused) = world.apply(&url, "fieldManager=me", &map(&json!({ "a": "2" })));
    assert_eq!(code, 409);
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a"
    );
    let applied = world.applied(&url, "fieldManager=me", &map(&json!({ "a": "1" })));
    assert_eq!(
        fields_of(&applied, "before-first-apply Update")["f:data"],
        json!({ ".": {}, "f:a": {}, "f:b": {} })
    );
}

#[test]
fn entries_can_be_handed_over_as_kubectl_does_when_it_changes_to_apply() {
    let mut world = World::new();
    world.make(&format!("{MAPS}?fieldManager=kubectl-client-side-apply"), &map(&json!({ "a": "1" })));
    let url = format!("{MAPS}/m");
    let mut entries = world.get(&url).1["metadata"]["managedFields"].clone();
    entries[0]["manager"] = json!("kubectl");
    entries[0]["operation"] = json!("Apply");
    let patch = json!([{ "op": "replace", "path": "/metadata/managedFields", "value": entries }]);
    let (code, handed) = world.call(Method::PATCH, &url, "application/json-patch+json", &patch);
    assert_eq!((code, &handed["metadata"]["managedFields"]), (200, &entries));
    let applied = world.applied(&url, "fieldManager=kubectl", &map(&json!({ "b": "2" })));
    assert_eq!(applied["data"], json!({ "b": "2" }));
}

#[test]
fn finalizers_and_annotations_of_several_controllers_live_side_by_side() {
    let mut world = World::new();
    world.make(&format!("{WIDGETS}?fieldManager=user"), &widget(&json!({ "image": "x" })));
    let url = format!("{WIDGETS}/w");
    let meta = |meta: &Value| json!({ "apiVersion": "example.dev/v1", "kind": "Widget", "metadata": meta });
    let chains = meta(&json!({ "finalizers": ["chains.tekton.dev/taskrun"] }));
    world.applied(&url, "fieldManager=tekton-chains-controller-finalizers&force=true", &chains);
    let results = meta(
        &json!({ "finalizers": ["results.tekton.dev/taskrun"], "annotations": { "results.tekton.dev/log": "l" } }),
    );
    world.applied(&url, "fieldManager=tekton-results&force=true", &results);
    let signed = meta(&json!({ "annotations": { "chains.tekton.dev/signed": "true" } }));
    let all = world.applied(&url, "fieldManager=tekton-chains-controller&force=true", &signed);
    assert_eq!(
        all["metadata"]["finalizers"],
        json!(["chains.tekton.dev/taskrun", "results.tekton.dev/taskrun"])
    );
    assert_eq!(
        all["metadata"]["annotations"],
        json!({ "chains.tekton.dev/signed": "true", "results.tekton.dev/log": "l" })
    );
    assert_eq!(
        fields_of(&all, "tekton-chains-controller-finalizers Apply"),
        json!({ "f:metadata": { "f:finalizers": { "v:\"chains.tekton.dev/taskrun\"": {} } } })
    );
    // Chains is done: it applies an empty list, and only its own finalizer goes.
    let done = meta(&json!({ "finalizers": [] }));
    let done = world.applied(&url, "fieldManager=tekton-chains-controller-finalizers&force=true", &done);
    assert_eq!(done["metadata"]["finalizers"], json!(["results.tekton.dev/taskrun"]));
    assert_eq!(done["spec"]["image"], "x");
    assert_eq!(done["metadata"]["generation"], 1);
    // The last finalizer of a deleted object, given up by apply, lets it go.
    world.delete(&url, &Value::Null);
    world.applied(&url, "fieldManager=tekton-results&force=true", &meta(&json!({})));
    assert_eq!(world.get(&url).0, 404);
}

#[test]
fn odd_configurations_are_refused() {
    let mut world = World::new();
    let url = format!("{WIDGETS}/w");
    let good = widget(&json!({ "image": "x" }));
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = good.clone();
        change(&mut body);
        body
    };
    for (query, body, code, part) in [
        (
            "",
            good.clone(),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required",
        ),
        (
            "fieldManager=me",
            with(&|b| b["spec"]["imagee"] = json!("x")),
            500,
            "failed to create typed patch object (default/w; example.dev/v1, Kind=Widget): .spec.imagee: field not declared in schema",
        ),
        (
            "fieldManager=me",
            with(&|b| b["spec"]["steps"] = json!([{ "name": "a" }, { "name": "a" }])),
            500,
            ".spec.steps: duplicate entries for key [name=\"a\"]",
        ),
        ("fieldManager=me", with(&|b| b["spec"]["steps"] = json!([{}])), 500, "omits key field \"name\""),
        (
            "fieldManager=me",
            with(&|b| b["metadata"]["managedFields"] = json!([])),
            400,
            "managedFields must be nil",
        ),
        (
            "fieldManager=me",
            with(&|b| b["metadata"]["name"] = json!("v")),
            400,
            "does not match the name on the URL",
        ),
        ("fieldManager=me", with(&|b| b["metadata"]["uid"] = json!("1-2")), 409, "uid mismatch"),
        ("fieldManager=me", with(&|b| b["kind"] = json!("")), 400, "apiVersion and kind must be set"),
        ("fieldManager=me", json!([]), 400, ""),
        ("fieldManager=a%0Ab", good.clone(), 422, "should only contain printable characters"),
    ] {
        let (found, status) = world.apply(&url, query, &body);
        assert_eq!(found, code, "{body}: {status}");
        assert!(status["message"].as_str().unwrap().contains(part), "{status}");
        assert!(world.deltas.is_empty());
    }
    let (code, status) = world.merge(&format!("{url}?force=true"), &json!({}));
    assert_eq!(code, 422, "{status}");
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .ends_with("force: Forbidden: may not be specified for non-apply patch")
    );
}

#[test]
fn yaml_is_applied_too() {
    let mut world = World::new();
    let yaml = "apiVersion: v1\nkind: ConfigMap\ndata:\n  a: \"1\"\n";
    let url = format!("{MAPS}/m?fieldManager=me");
    let handled = world.handle(Method::PATCH, &url, APPLY, yaml.into());
    let (code, made) = world.answer(handled);
    assert_eq!((code, &made["data"]), (201, &json!({ "a": "1" })));
    let handled = world.handle(Method::PATCH, &url, APPLY, b"a: [".to_vec());
    assert_eq!(world.answer(handled).0, 400);
}

#[test]
fn no_object_keeps_more_than_a_few_updaters() {
    let mut world = World::new();
    world.make(MAPS, &map(&json!({ "k": "v" })));
    for index in 0..30 {
        world.pass(1);
        let patch = json!({ "data": { format!("k{index}"): "v" } });
        world.merge(&format!("{MAPS}/m?fieldManager=manager-{index}"), &patch);
    }
    let (_, object) = world.get(&format!("{MAPS}/m"));
    let managers = managers(&object);
    assert_eq!(managers.len(), 10);
    let kept: usize = managers
        .iter()
        .map(|(_, fields)| fields["f:data"].as_object().map_or(0, |f| f.keys().filter(|k| *k != ".").count()))
        .sum();
    assert_eq!(kept, 31);
}

#[test]
fn who_may_patch_may_not_for_that_reason_create() {
    let mut world = World::new();
    install(&mut world.state, "PEM", world.now);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({
        "metadata": { "name": "patcher" },
        "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"] }],
    });
    world.make(&format!("{rbac}/roles"), &role);
    let binding = json!({
        "metadata": { "name": "patcher" }, "subjects": [{ "kind": "User", "name": "ann" }],
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "patcher" },
    });
    world.make(&format!("{rbac}/rolebindings"), &binding);
    let ann = User { name: "ann".into(), groups: vec!["system:authenticated".into()], ..User::default() };
    let apply = |world: &mut World| {
        let request = Request::builder().method(Method::PATCH).uri(format!("{MAPS}/m?fieldManager=ann"));
        let request = request
            .header(header::CONTENT_TYPE, APPLY)
            .body(map(&json!({ "a": "1" })).to_string().into_bytes())
            .unwrap();
        let context = Context { now: world.now, admission: &NoAdmission };
        let caller = Caller { user: &ann, tokens: &NoTokens };
        let handled = handle_for(&mut world.state, &request, Body::of(&request), &context, &caller);
        world.answer(handled)
    };
    let (code, refused) = apply(&mut world);
    assert_eq!(code, 403, "{refused}");
    assert!(
        refused["message"].as_str().unwrap().contains("cannot create resource \"configmaps\""),
        "{refused}"
    );
    world.make_map("m");
    assert_eq!(apply(&mut world).0, 200);
}
