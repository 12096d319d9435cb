//! Going on where an earlier server ended, going back to what was kept, and keeping within what there is room for.

use std::collections::BTreeMap;

use super::*;
use crate::{Room, State};

/// All objects by apiVersion, kind, namespace and name.
fn objects(state: &State) -> BTreeMap<String, Value> {
    let all = state.table().iter().flat_map(|(id, _)| state.objects(id, None));
    all.map(|(key, object)| {
        let place = format!("{} {} {key:?}", object["apiVersion"], object["kind"]);
        (place, (**object).clone())
    })
    .collect()
}

fn again(world: &World, table: ResourceTable) -> (World, Vec<String>) {
    let version = world.state.version();
    let objects = objects(&world.state).into_values();
    let (state, unknown) = State::restore(table, 8, world.now, version, objects);
    (World { state, ..World::new() }, unknown)
}

fn table() -> ResourceTable {
    ResourceTable::built_in().with_crd(&definition()).unwrap()
}

#[test]
fn objects_indexes_and_versions_go_on() {
    let mut world = World::new();
    let owner = world.make_map("owner");
    let uid = owner["metadata"]["uid"].clone();
    let reference = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid }]);
    world.make(MAPS, &json!({ "metadata": { "name": "owned", "ownerReferences": reference } }));
    world.make_widget("w");
    let (mut next, unknown) = again(&world, table());
    assert_eq!(unknown, Vec::<String>::new());
    assert_eq!(objects(&next.state), objects(&world.state));
    // Nothing was missing, so nothing was made.
    assert_eq!(next.state.take_fresh().len(), 0);
    assert_eq!(next.state.version(), world.state.version());
    let made = next.make_map("later");
    let version: u64 = made["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert_eq!(version, world.state.version() + 1);
    assert_ne!(made["metadata"]["uid"], uid);
    // The owner's dependents are still known.
    next.delete(&format!("{MAPS}/owner"), &Value::Null);
    assert_eq!(next.get(&format!("{MAPS}/owned")).0, 404);
}

#[test]
fn a_watch_resumes_from_the_end_and_from_nowhere_before() {
    let mut world = World::new();
    world.make_map("a");
    let before = world.state.version();
    world.make_map("b");
    let end = world.state.version();
    let (mut next, _) = again(&world, table());
    for (since, expected) in [(before, vec!["ERROR "]), (end, vec![]), (end + 1, vec!["ERROR "])] {
        let plan = next.watch(&format!("{MAPS}?watch=true&resourceVersion={since}"));
        assert_eq!(told(&plan.initial), expected, "{since}");
    }
    next.make_map("c");
    let plan = next.watch(&format!("{MAPS}?watch=true&resourceVersion={end}"));
    assert_eq!(told(&plan.initial), ["ADDED c"]);
}

#[test]
fn an_empty_past_becomes_a_new_server_whose_changes_are_told() {
    let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let (mut state, _) = State::restore(table(), 7, now, 0, []);
    assert_eq!(objects(&state), objects(&World::new().state));
    let fresh = state.take_fresh();
    assert_eq!(fresh.len() as u64, state.version());
}

#[test]
fn definitions_are_those_of_the_program() {
    let world = World::new();
    let mut newer = definition();
    newer["spec"]["names"]["shortNames"] = json!(["wi"]);
    let (next, _) = again(&world, ResourceTable::built_in().with_crd(&newer).unwrap());
    let (id, _) = next.state.table().find("apiextensions.k8s.io", "v1", "customresourcedefinitions").unwrap();
    let (_, old) = world.state.objects(id, None).next().unwrap();
    let (_, new) = next.state.objects(id, None).next().unwrap();
    assert_eq!(new["spec"]["names"]["shortNames"], json!(["wi"]));
    assert_eq!(new["metadata"]["uid"], old["metadata"]["uid"]);
    assert!(next.state.version() > world.state.version());
}

#[test]
fn what_the_table_does_not_have_is_named_and_what_it_stores_otherwise_converted() {
    let mut world = World::new();
    world.make_widget("w");
    let (_, unknown) = again(&world, ResourceTable::built_in());
    assert_eq!(unknown, ["example.dev/v1 Widget \"default/w\""]);
    let mut swapped = definition();
    swapped["spec"]["versions"][0]["storage"] = json!(true);
    swapped["spec"]["versions"][1]["storage"] = json!(false);
    let (mut next, unknown) = again(&world, ResourceTable::built_in().with_crd(&swapped).unwrap());
    assert_eq!(unknown, Vec::<String>::new());
    assert_eq!(next.get(&format!("{WIDGETS}/w")).1["apiVersion"], "example.dev/v1");
    assert!(objects(&next.state).keys().any(|key| key.starts_with("\"example.dev/v1beta1\" \"Widget\"")));
}

#[test]
fn default_roles_get_back_what_they_lack_and_keep_what_they_gained() {
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let mut world = World::new();
    crate::install(&mut world.state, "pem", world.now);
    let rule = json!({ "apiGroups": ["x"], "resources": ["y"], "verbs": ["get"] });
    let url = format!("{roles}/cluster-admin");
    let whole = world.get(&url).1["rules"].clone();
    world.merge(&url, &json!({ "rules": [rule] }));
    let kept = format!("{roles}/system:discovery");
    let note = json!({ "rbac.authorization.kubernetes.io/autoupdate": "false" });
    world.merge(&kept, &json!({ "metadata": { "annotations": note }, "rules": [] }));
    let (mut next, _) = again(&world, table());
    crate::install(&mut next.state, "pem", next.now);
    let rules = next.get(&url).1["rules"].as_array().unwrap().clone();
    assert_eq!(rules[0], rule);
    assert_eq!(json!(rules[1..]), whole);
    assert_eq!(next.get(&kept).1["rules"], json!([]));
    // Once more changes nothing.
    next.state.take_fresh();
    crate::install(&mut next.state, "pem", next.now);
    assert_eq!(next.state.take_fresh().len(), 0);
    // Another authority is told to every namespace.
    crate::install(&mut next.state, "other", next.now);
    assert_eq!(next.get(&format!("{MAPS}/kube-root-ca.crt")).1["data"]["ca.crt"], "other");
}

#[test]
fn what_is_taken_back_never_was() {
    let mut world = World::new();
    world.make_map("changed");
    world.make_map("deleted");
    let owner = world.make_map("owner");
    let event =
        |name: &str| json!({ "metadata": { "name": name }, "involvedObject": { "namespace": "default" } });
    let events = "/api/v1/namespaces/default/events";
    world.make(events, &event("first"));
    let before = format!("{:?}", world.state.clone());
    let (kept, version) = (objects(&world.state), world.state.version());
    let mut deltas = Vec::new();
    world.merge(&format!("{MAPS}/changed"), &json!({ "data": { "a": "b" } }));
    deltas.append(&mut world.deltas);
    world.delete(&format!("{MAPS}/deleted"), &Value::Null);
    deltas.append(&mut world.deltas);
    let uid = owner["metadata"]["uid"].clone();
    let reference = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid }]);
    world.make(MAPS, &json!({ "metadata": { "name": "owned", "ownerReferences": reference } }));
    deltas.append(&mut world.deltas);
    world.make(events, &event("second"));
    deltas.append(&mut world.deltas);
    world.delete(&format!("{MAPS}/owner"), &Value::Null);
    deltas.append(&mut world.deltas);
    world.make_map("deleted");
    deltas.append(&mut world.deltas);
    assert_eq!(deltas.len(), 7);
    world.state.take_back(&deltas);
    assert_eq!((objects(&world.state), world.state.version()), (kept, version));
    // Indexes and history, too: all there is, but for the numbers that names are made from.
    let names = |text: &str| text.split("names: Names(").next().unwrap().to_owned();
    assert_eq!(names(&format!("{:?}", world.state)), names(&before));
    let made = world.make_map("next");
    assert_eq!(made["metadata"]["resourceVersion"], (version + 1).to_string());
}

#[test]
fn without_room_deletions_still_make_some() {
    let mut world = World::new();
    let pinned = world.make(MAPS, &json!({ "metadata": { "name": "pinned", "finalizers": ["x.dev/keep"] } }));
    world.make_map("a");
    world.make_map("b");
    let url = |name: &str| format!("{MAPS}/{name}");
    let data = |value: &str| json!({ "data": { "key": value } });
    let refused = |answer: (u16, Value)| {
        let (code, status) = answer;
        assert_eq!(
            (code, &status["reason"], &status["message"]),
            (507, &json!("InsufficientStorage"), &json!("full"))
        );
    };
    let version = world.state.version();
    world.state.set_room(Room::Scarce("full".into()));
    refused(world.post(MAPS, &json!({ "metadata": { "name": "new" } })));
    refused(world.call(
        Method::PATCH,
        &format!("{}?fieldManager=me", url("new")),
        "application/apply-patch+yaml",
        &json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "new" } }),
    ));
    assert_eq!(world.state.version(), version);
    assert_eq!(world.merge(&url("a"), &data("1")).0, 200);
    world.state.set_room(Room::None("full".into()));
    refused(world.merge(&url("a"), &data("2")));
    assert_eq!(world.get(&url("a")).1["data"]["key"], "1");
    assert_eq!(world.delete(&url("a"), &Value::Null).0, 200);
    // Finalizers are removed by changes.
    assert_eq!(world.delete(&url("pinned"), &Value::Null).0, 200);
    let released = json!({ "metadata": { "finalizers": null, "uid": pinned["metadata"]["uid"] } });
    assert_eq!(world.merge(&url("pinned"), &released).0, 200);
    assert_eq!(world.get(&url("pinned")).0, 404);
    world.state.set_room(Room::Enough);
    assert_eq!(world.merge(&url("b"), &data("3")).0, 200);
    world.make_map("new");
}

/// A client that was told everything by the earlier server resumes from its end, and what the new one brings along is news.
#[test]
fn what_a_new_server_brings_along_is_told_to_who_resumes() {
    let world = World::new();
    let end = world.state.version();
    let mut newer = definition();
    newer["spec"]["names"]["shortNames"] = json!(["wi"]);
    let (mut next, _) = again(&world, ResourceTable::built_in().with_crd(&newer).unwrap());
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let plan = next.watch(&format!("{definitions}?watch=true&resourceVersion={end}"));
    assert_eq!(told(&plan.initial), ["MODIFIED widgets.example.dev"]);
    let version = next.state.version();
    assert!(version > end);
    for (since, expected) in [(end - 1, vec!["ERROR "]), (version, vec![])] {
        let plan = next.watch(&format!("{definitions}?watch=true&resourceVersion={since}"));
        assert_eq!(told(&plan.initial), expected, "{since}");
    }
}
