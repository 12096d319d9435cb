use std::time::Duration;

use serde_json::{Value, json};

use super::{MAPS, World, told};
use crate::HISTORY;

fn events(world: &World, plan: &crate::WatchPlan) -> Vec<String> {
    let lines: Vec<_> = world.deltas.iter().filter_map(|delta| plan.event(delta, world.now)).collect();
    told(&lines)
}

#[test]
fn without_a_version_a_watch_begins_with_what_there_is() {
    let mut world = World::new();
    world.make_map("a");
    for version in ["", "&resourceVersion=0"] {
        let plan = world.watch(&format!("{MAPS}?watch=true{version}&timeoutSeconds=7"));
        assert_eq!(told(&plan.initial), ["ADDED a"]);
        assert_eq!((plan.bookmarks, plan.timeout), (false, Some(Duration::from_secs(7))));
        assert_eq!(plan.position, world.state.version());
    }
}

#[test]
fn an_option_is_set_unless_it_is_denied() {
    let mut world = World::new();
    world.make_map("a");
    for query in ["watch", "watch=", "watch=TRUE", "watch=yes"] {
        assert_eq!(told(&world.watch(&format!("{MAPS}?{query}")).initial), ["ADDED a"], "{query}");
    }
    for query in ["watch=false", "watch=False", "watch=0"] {
        assert_eq!(world.get(&format!("{MAPS}?{query}")).1["kind"], "ConfigMapList", "{query}");
    }
}

#[test]
fn a_watch_resumes_where_it_was() {
    let mut world = World::new();
    world.make_map("a");
    let seen = world.state.version();
    world.make_map("b");
    world.merge(&format!("{MAPS}/a"), &json!({ "data": { "k": "v" } }));
    world.delete(&format!("{MAPS}/b"), &Value::Null);
    world.make("/api/v1/namespaces/kube-system/configmaps", &json!({ "metadata": { "name": "elsewhere" } }));
    let plan = world.watch(&format!("{MAPS}?watch=true&resourceVersion={seen}"));
    assert_eq!(told(&plan.initial), ["ADDED b", "MODIFIED a", "DELETED b"]);
    let last: Value = serde_json::from_slice(&plan.initial[2]).unwrap();
    let versions: Vec<u64> = plan
        .initial
        .iter()
        .map(|line| serde_json::from_slice::<Value>(line).unwrap())
        .map(|event| event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(versions.is_sorted(), "a deletion has a version of its own: {last}");
    let all = world.watch(&format!("/api/v1/configmaps?watch=true&resourceVersion={seen}"));
    assert_eq!(told(&all.initial).last().unwrap(), "ADDED elsewhere");
    let now = world.watch(&format!("{MAPS}?watch=true&resourceVersion={}", world.state.version()));
    assert!(now.initial.is_empty());
}

#[test]
fn a_version_off_the_history_or_from_the_future_expires() {
    let mut world = World::new();
    world.make_map("a");
    let early = world.state.version();
    for index in 0..=HISTORY {
        world.merge(&format!("{MAPS}/a"), &json!({ "data": { "k": index.to_string() } }));
    }
    let future = world.state.version() + 1;
    for version in [early, future] {
        let plan =
            world.watch(&format!("{MAPS}?watch=true&allowWatchBookmarks=true&resourceVersion={version}"));
        let event: Value = serde_json::from_slice(&plan.initial[0]).unwrap();
        assert_eq!((&event["type"], plan.initial.len()), (&json!("ERROR"), 1));
        assert_eq!((&event["object"]["code"], &event["object"]["reason"]), (&json!(410), &json!("Expired")));
        assert_eq!((plan.timeout, plan.bookmarks), (Some(Duration::ZERO), false));
    }
    // One change later is where the history begins.
    let plan = world.watch(&format!("{MAPS}?watch=true&resourceVersion={}", early + 1));
    assert_eq!(plan.initial.len(), HISTORY);
}

#[test]
fn objects_enter_and_leave_a_selector() {
    let mut world = World::new();
    let plan = world.watch(&format!("{MAPS}?watch=true&labelSelector=app%3Dx"));
    world.make(MAPS, &json!({ "metadata": { "name": "a", "labels": { "app": "x" } } }));
    assert_eq!(events(&world, &plan), ["ADDED a"]);
    let mut relabel = |app: &str| {
        world.merge(&format!("{MAPS}/a"), &json!({ "metadata": { "labels": { "app": app } } }));
        events(&world, &plan)
    };
    assert_eq!(relabel("y"), ["DELETED a"]);
    assert_eq!(relabel("z"), Vec::<String>::new());
    assert_eq!(relabel("x"), ["ADDED a"]);
    world.merge(&format!("{MAPS}/a"), &json!({ "data": { "k": "v" } }));
    assert_eq!(events(&world, &plan), ["MODIFIED a"]);
    world.delete(&format!("{MAPS}/a"), &Value::Null);
    assert_eq!(events(&world, &plan), ["DELETED a"]);
    world.make_map("b");
    assert_eq!(events(&world, &plan), Vec::<String>::new());
}

#[test]
fn an_object_that_leaves_is_shown_as_it_was_known() {
    let mut world = World::new();
    world.make(MAPS, &json!({ "metadata": { "name": "a", "labels": { "app": "x" } } }));
    let plan = world.watch(&format!("{MAPS}?watch=true&labelSelector=app%3Dx"));
    world.merge(&format!("{MAPS}/a"), &json!({ "metadata": { "labels": { "app": "y" } } }));
    let event: Value = serde_json::from_slice(&plan.event(&world.deltas[0], world.now).unwrap()).unwrap();
    assert_eq!(event["object"]["metadata"]["labels"]["app"], "x");
    assert_eq!(event["object"]["metadata"]["resourceVersion"], world.state.version().to_string());
}

#[test]
fn a_streaming_list_ends_with_its_bookmark() {
    let mut world = World::new();
    world.make_map("a");
    let url = format!("{MAPS}?watch=true&sendInitialEvents=true&allowWatchBookmarks=true");
    let plan = world.watch(&format!("{url}&resourceVersionMatch=NotOlderThan"));
    assert_eq!(told(&plan.initial), ["ADDED a", "BOOKMARK "]);
    let bookmark: Value = serde_json::from_slice(&plan.initial[1]).unwrap();
    let object = &bookmark["object"];
    assert_eq!((&object["kind"], &object["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    assert_eq!(object["metadata"]["resourceVersion"], world.state.version().to_string());
    assert_eq!(object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(world.get(&url).0, 422);
    assert_eq!(world.get(&format!("{MAPS}?watch=true&resourceVersionMatch=Exact")).0, 422);
}

#[test]
fn names_can_be_watched_for() {
    let mut world = World::new();
    let plan = world.watch(&format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Da"));
    world.make_map("b");
    assert_eq!(events(&world, &plan), Vec::<String>::new());
    world.make_map("a");
    assert_eq!(events(&world, &plan), ["ADDED a"]);
}

#[test]
fn initial_events_are_never_older_than_what_was_asked_for() {
    let mut world = World::new();
    world.make_map("a");
    let now = world.state.version();
    let url = format!("{MAPS}?watch=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan");
    for (events, version, expected) in [
        ("true", "0".to_owned(), vec!["ADDED a", "BOOKMARK "]),
        ("true", "1".to_owned(), vec!["ADDED a", "BOOKMARK "]),
        ("true", now.to_string(), vec!["ADDED a", "BOOKMARK "]),
        ("true", (now + 1).to_string(), vec!["ERROR "]),
        ("false", String::new(), vec![]),
        ("false", (now - 1).to_string(), vec!["ADDED a"]),
        ("false", now.to_string(), vec![]),
        ("false", (now + 1).to_string(), vec!["ERROR "]),
    ] {
        let plan = world.watch(&format!("{url}&sendInitialEvents={events}&resourceVersion={version}"));
        assert_eq!(told(&plan.initial), expected, "{events} {version}");
    }
    let plan = world.watch(&format!("{url}&sendInitialEvents=true&resourceVersion={}", now + 1));
    let event: Value = serde_json::from_slice(&plan.initial[0]).unwrap();
    let cause = &event["object"]["details"]["causes"][0]["reason"];
    assert_eq!((&event["object"]["code"], cause), (&json!(504), &json!("ResourceVersionTooLarge")));
    assert_eq!((plan.timeout, plan.bookmarks), (Some(Duration::ZERO), false));
}
