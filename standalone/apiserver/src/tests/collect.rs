use serde_json::{Value, json};

use super::{MAPS, PODS, WIDGETS, World};

fn owner(object: &Value, blocks: bool) -> Value {
    json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"], "name": object["metadata"]["name"],
        "uid": object["metadata"]["uid"], "blockOwnerDeletion": blocks,
    })
}

fn owned(name: &str, owners: &[Value]) -> Value {
    json!({ "metadata": { "name": name, "ownerReferences": owners } })
}

#[test]
fn dependents_go_after_their_owner() {
    let mut world = World::new();
    let top = world.make_widget("top");
    let middle = world.make(MAPS, &owned("middle", &[owner(&top, true)]));
    world.make(MAPS, &owned("leaf", &[owner(&middle, true)]));
    world.make_map("stranger");
    world.delete(&format!("{WIDGETS}/top"), &Value::Null);
    assert_eq!(world.changes(), ["Deleted top", "Deleted middle", "Deleted leaf"]);
    assert_eq!(world.get(&format!("{MAPS}/stranger")).0, 200);
}

#[test]
fn an_object_with_another_owner_stays() {
    let mut world = World::new();
    let (one, two) = (world.make_widget("one"), world.make_widget("two"));
    world.make(MAPS, &owned("child", &[owner(&one, false), owner(&two, false)]));
    world.delete(&format!("{WIDGETS}/one"), &Value::Null);
    assert_eq!(world.changes(), ["Deleted one", "Modified child"]);
    let (_, child) = world.get(&format!("{MAPS}/child"));
    assert_eq!(child["metadata"]["ownerReferences"], json!([owner(&two, false)]));
}

#[test]
fn orphans_stay() {
    let mut world = World::new();
    let top = world.make_widget("top");
    world.make(MAPS, &owned("child", &[owner(&top, true)]));
    world.delete(&format!("{WIDGETS}/top"), &json!({ "propagationPolicy": "Orphan" }));
    assert_eq!(world.changes(), ["Modified child", "Deleted top"]);
    let (_, child) = world.get(&format!("{MAPS}/child"));
    assert_eq!(child["metadata"].get("ownerReferences"), None);
}

#[test]
fn in_the_foreground_the_owner_goes_last() {
    let mut world = World::new();
    let top = world.make_widget("top");
    let middle = world.make(MAPS, &owned("middle", &[owner(&top, true)]));
    world.make(MAPS, &owned("leaf", &[owner(&middle, true)]));
    let (code, shown) =
        world.delete(&format!("{WIDGETS}/top"), &json!({ "propagationPolicy": "Foreground" }));
    assert_eq!((code, &shown["metadata"]["finalizers"]), (200, &json!(["foregroundDeletion"])));
    let deleted: Vec<_> =
        world.changes().into_iter().filter(|change| change.starts_with("Deleted")).collect();
    assert_eq!(deleted, ["Deleted leaf", "Deleted middle", "Deleted top"]);
}

#[test]
fn in_the_foreground_an_owner_waits_for_running_pods() {
    let mut world = World::new();
    let top = world.make_widget("top");
    let mut pod = owned("p", &[owner(&top, true)]);
    pod["spec"] = json!({ "nodeName": "n" });
    world.make(PODS, &pod);
    world.delete(&format!("{WIDGETS}/top"), &json!({ "propagationPolicy": "Foreground" }));
    assert_eq!(world.get(&format!("{WIDGETS}/top")).0, 200);
    world.delete(&format!("{PODS}/p"), &json!({ "gracePeriodSeconds": 0 }));
    assert_eq!(world.changes(), ["Deleted p", "Deleted top"]);
}

#[test]
fn a_child_of_an_owner_that_is_gone_does_not_live() {
    let mut world = World::new();
    let top = world.make_widget("top");
    world.delete(&format!("{WIDGETS}/top"), &Value::Null);
    world.make(MAPS, &owned("late", &[owner(&top, true)]));
    assert_eq!(world.changes(), ["Added late", "Deleted late"]);
    // Same name, another object: the UID decides.
    world.make_widget("top");
    world.make(MAPS, &owned("late", &[owner(&top, true)]));
    assert_eq!(world.get(&format!("{MAPS}/late")).0, 404);
    // Of kinds it does not know the server cannot tell.
    let foreign = json!({ "apiVersion": "other.dev/v1", "kind": "Thing", "name": "x", "uid": "u" });
    world.make(MAPS, &owned("kept", &[foreign]));
    assert_eq!(world.get(&format!("{MAPS}/kept")).0, 200);
}

#[test]
fn an_owner_in_another_namespace_counts_as_gone() {
    let mut world = World::new();
    let top = world.make_widget("top");
    world.make("/api/v1/namespaces/kube-system/configmaps", &owned("far", &[owner(&top, true)]));
    assert_eq!(world.changes(), ["Added far", "Deleted far"]);
}

#[test]
fn finalizers_hold_an_object_until_the_last_is_gone() {
    let mut world = World::new();
    let finalizers = json!(["example.dev/one", "example.dev/two"]);
    let sent = json!({ "metadata": { "name": "a", "finalizers": finalizers }, "spec": { "image": "x" } });
    world.make(WIDGETS, &sent);
    let url = format!("{WIDGETS}/a");
    let (code, marked) = world.delete(&url, &Value::Null);
    assert_eq!((code, &marked["metadata"]["deletionTimestamp"]), (200, &json!("2026-01-02T03:04:05Z")));
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    world.delete(&url, &Value::Null);
    assert!(world.deltas.is_empty());
    let more = json!({ "metadata": { "finalizers": ["example.dev/one", "example.dev/three"] } });
    let (code, status) = world.merge(&url, &more);
    assert_eq!(code, 422);
    assert!(status["message"].as_str().unwrap().contains(
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
         finalizers []string{\"example.dev/three\"}"
    ));
    world.merge(&url, &json!({ "metadata": { "finalizers": ["example.dev/one"] } }));
    assert_eq!(world.changes(), ["Modified a"]);
    let undead = json!({ "metadata": { "deletionTimestamp": null } });
    assert_eq!(world.merge(&url, &undead).1["metadata"]["deletionTimestamp"], "2026-01-02T03:04:05Z");
    let (code, _) = world.merge(&url, &json!({ "metadata": { "finalizers": null } }));
    assert_eq!((code, world.changes()), (200, vec!["Deleted a".to_owned()]));
    assert_eq!(world.get(&url).0, 404);
}

#[test]
fn a_namespace_comes_with_an_account_and_takes_all_along() {
    let mut world = World::new();
    world.make("/api/v1/namespaces", &json!({ "metadata": { "name": "n" } }));
    assert_eq!(world.get("/api/v1/namespaces/n/serviceaccounts/default").0, 200);
    world.make("/api/v1/namespaces/n/configmaps", &json!({ "metadata": { "name": "a" } }));
    let finalizers = json!({ "metadata": { "name": "held", "finalizers": ["example.dev/x"] } });
    world.make("/api/v1/namespaces/n/configmaps", &finalizers);
    let (code, shown) = world.delete("/api/v1/namespaces/n", &Value::Null);
    assert_eq!((code, &shown["status"]["phase"]), (200, &json!("Terminating")));
    assert_eq!(world.get("/api/v1/namespaces/n/configmaps/a").0, 404);
    let (code, status) =
        world.post("/api/v1/namespaces/n/configmaps", &json!({ "metadata": { "name": "b" } }));
    assert_eq!(code, 403);
    assert_eq!(
        status["message"],
        "configmaps \"b\" is forbidden: unable to create new content in namespace n because it is being terminated"
    );
    assert_eq!(status["details"]["causes"][0]["reason"], "NamespaceTerminating");
    world.merge("/api/v1/namespaces/n/configmaps/held", &json!({ "metadata": { "finalizers": [] } }));
    assert_eq!(world.changes(), ["Deleted held", "Deleted n"]);
    assert_eq!(world.get("/api/v1/namespaces/n").0, 404);
    assert_eq!(world.delete("/api/v1/namespaces/default", &Value::Null).0, 403);
}

#[test]
fn a_world_cleaned_up_keeps_no_index_of_it() {
    let mut world = World::new();
    let fresh = format!("{:?}", world.state.table());
    for round in 0..3 {
        let top = world.make_widget("top");
        world.make(MAPS, &owned("child", &[owner(&top, true)]));
        world.delete(&format!("{WIDGETS}/top"), &Value::Null);
        assert!(world.state.dependents(top["metadata"]["uid"].as_str().unwrap()).is_empty(), "round {round}");
    }
    assert_eq!(fresh, format!("{:?}", world.state.table()));
}

#[test]
fn a_namespace_with_a_strange_status_still_goes() {
    let mut world = World::new();
    world.make("/api/v1/namespaces", &json!({ "metadata": { "name": "n" } }));
    world.merge("/api/v1/namespaces/n/status", &json!({ "status": "odd" }));
    assert_eq!(world.delete("/api/v1/namespaces/n", &Value::Null).0, 200);
    assert_eq!(world.get("/api/v1/namespaces/n").0, 404);
}

#[test]
fn the_oldest_events_make_room() {
    let mut world = World::new();
    let url = "/api/v1/namespaces/default/events";
    for index in 0..=10_000 {
        world.make(url, &json!({ "metadata": { "name": format!("e{index}") } }));
    }
    assert_eq!(world.changes(), ["Added e10000", "Deleted e0"]);
    assert_eq!(world.get(&format!("{url}/e1")).0, 200);
}
