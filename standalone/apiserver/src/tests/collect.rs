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
}

#[test]
fn namespaces_that_kubernetes_keeps_are_kept() {
    let mut world = World::new();
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let url = format!("/api/v1/namespaces/{name}");
        if world.get(&url).0 == 404 {
            world.make("/api/v1/namespaces", &json!({ "metadata": { "name": name } }));
        }
        let (code, status) = world.delete(&url, &Value::Null);
        if name == "kube-node-lease" {
            assert_eq!(code, 200, "{status}");
            continue;
        }
        let message = format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted");
        assert_eq!((code, &status["message"]), (403, &json!(message)));
        assert_eq!(world.get(&url).1["status"]["phase"], "Active");
    }
}

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";

#[test]
fn only_what_can_be_looked_for_is_held_to_be_gone() {
    let mut world = World::new();
    let (map, role) = (world.make_map("m"), world.make(ROLES, &json!({ "metadata": { "name": "r" } })));
    let named = |object: &Value, field: &str, other: &str| {
        let mut owner = owner(object, false);
        owner[field] = json!(other);
        owner
    };
    for (what, url, reference, stays) in [
        ("cluster-scoped owner", MAPS, owner(&role, false), true),
        ("cluster-scoped owner of its own scope", ROLES, owner(&role, false), true),
        ("gone cluster-scoped owner", ROLES, named(&role, "uid", "gone"), false),
        // Kubernetes leaves such an object alone, and for good.
        ("owner in a namespace of something in none", ROLES, owner(&map, false), true),
        ("gone owner in a namespace of something in none", ROLES, named(&map, "uid", "gone"), true),
        ("other name", MAPS, named(&map, "name", "other"), false),
        ("other kind", MAPS, named(&map, "kind", "Secret"), false),
        ("other version of the kind", MAPS, named(&map, "apiVersion", "v9"), true),
        ("unknown group", MAPS, named(&map, "apiVersion", "other.dev/v1"), true),
    ] {
        world.make(url, &owned("child", &[reference]));
        let there = world.get(&format!("{url}/child")).0 == 200;
        assert_eq!(there, stays, "{what}");
        world.delete(&format!("{url}/child"), &Value::Null);
    }
}

#[test]
fn finalizers_may_go_in_any_order() {
    let all = ["example.dev/one", "example.dev/two", "example.dev/three"];
    for (first, second, last) in [(0, 1, 2), (2, 0, 1), (1, 2, 0)] {
        let mut world = World::new();
        let url = format!("{MAPS}/a");
        world.make(MAPS, &json!({ "metadata": { "name": "a", "finalizers": all } }));
        world.delete(&url, &Value::Null);
        let mut left = all.to_vec();
        for index in [first, second] {
            left.retain(|finalizer| *finalizer != all[index]);
            world.merge(&url, &json!({ "metadata": { "finalizers": left } }));
            assert_eq!(world.changes(), ["Modified a"], "{left:?}");
        }
        assert_eq!(left, [all[last]]);
        world.merge(&url, &json!({ "metadata": { "finalizers": [] } }));
        assert_eq!(world.changes(), ["Deleted a"]);
    }
}

#[test]
fn a_dependent_goes_in_the_way_its_own_finalizers_say() {
    let mut world = World::new();
    let top = world.make_widget("top");
    let mut middle = owned("middle", &[owner(&top, true)]);
    middle["metadata"]["finalizers"] = json!(["orphan"]);
    let middle = world.make(MAPS, &middle);
    world.make(MAPS, &owned("leaf", &[owner(&middle, true)]));
    world.delete(&format!("{WIDGETS}/top"), &Value::Null);
    assert_eq!(world.changes(), ["Deleted top", "Modified leaf", "Deleted middle"]);
    assert_eq!(world.get(&format!("{MAPS}/leaf")).1["metadata"].get("ownerReferences"), None);
}

/// An owner that goes must not make its child go sooner than its own deletion in the foreground allows.
#[test]
fn a_deletion_in_the_foreground_is_not_cut_short_from_above() {
    let mut world = World::new();
    let top = world.make_widget("top");
    let middle = world.make(MAPS, &owned("middle", &[owner(&top, true)]));
    let mut pod = owned("p", &[owner(&middle, true)]);
    pod["spec"] = json!({ "nodeName": "n" });
    world.make(PODS, &pod);
    world.delete(&format!("{MAPS}/middle"), &json!({ "propagationPolicy": "Foreground" }));
    world.delete(&format!("{WIDGETS}/top"), &Value::Null);
    assert_eq!(world.get(&format!("{MAPS}/middle")).0, 200, "its pod still runs");
    world.delete(&format!("{PODS}/p"), &json!({ "gracePeriodSeconds": 0 }));
    assert_eq!(world.changes(), ["Deleted p", "Deleted middle"]);
}

#[test]
fn owners_in_a_circle_do_not_wait_for_each_other() {
    for policy in ["Foreground", "Background", "Orphan"] {
        let mut world = World::new();
        let one = world.make_map("one");
        let two = world.make(MAPS, &owned("two", &[owner(&one, true)]));
        let back = json!({ "metadata": { "ownerReferences": [owner(&two, true)] } });
        assert_eq!(world.merge(&format!("{MAPS}/one"), &back).0, 200);
        world.delete(&format!("{MAPS}/one"), &json!({ "propagationPolicy": policy }));
        let there = |world: &mut World, name: &str| world.get(&format!("{MAPS}/{name}")).0 == 200;
        let found = (there(&mut world, "one"), there(&mut world, "two"));
        assert_eq!(found, (false, policy == "Orphan"), "{policy}");
    }
}

#[test]
fn what_does_not_block_its_owner_goes_with_it_all_the_same() {
    let mut world = World::new();
    let top = world.make_widget("top");
    for (name, blocks) in [("blocking", true), ("other", false)] {
        let mut held = owned(name, &[owner(&top, blocks)]);
        held["metadata"]["finalizers"] = json!(["example.dev/x"]);
        world.make(MAPS, &held);
    }
    world.delete(&format!("{WIDGETS}/top"), &json!({ "propagationPolicy": "Foreground" }));
    assert_eq!(world.get(&format!("{WIDGETS}/top")).0, 200);
    let free = json!({ "metadata": { "finalizers": null } });
    world.merge(&format!("{MAPS}/blocking"), &free);
    assert_eq!(world.changes(), ["Deleted blocking", "Deleted top"]);
    let (_, other) = world.get(&format!("{MAPS}/other"));
    assert!(other["metadata"]["deletionTimestamp"].is_string(), "{other}");
    world.merge(&format!("{MAPS}/other"), &free);
    assert_eq!(world.changes(), ["Deleted other"]);
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
