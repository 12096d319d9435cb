//! Events go by age.

use serde_json::json;

use super::World;

const EVENTS: &str = "/api/v1/namespaces/default/events";

#[test]
fn an_event_is_kept_for_an_hour_after_it_last_happened() {
    let mut world = World::new();
    let event = |name: &str| {
        json!({
            "metadata": { "name": name }, "reason": "Tested", "type": "Normal", "count": 1,
            "involvedObject": { "kind": "Pod", "name": "p", "namespace": "default" },
        })
    };
    let there = |world: &mut World| {
        let (_, list) = world.get(EVENTS);
        let names = list["items"].as_array().unwrap().iter();
        names.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    world.make(EVENTS, &event("once"));
    world.make(EVENTS, &event("again"));
    world.pass(1800);
    world.merge(&format!("{EVENTS}/again"), &json!({ "count": 2, "lastTimestamp": "2026-01-02T03:34:05Z" }));
    world.pass(1799);
    world.make_map("a");
    assert_eq!(there(&mut world), ["again", "once"]);
    world.pass(1);
    world.make_map("b");
    assert_eq!(world.changes(), ["Added b", "Deleted once"]);
    assert_eq!(there(&mut world), ["again"]);
    world.pass(1800);
    world.make_map("c");
    assert_eq!(world.changes(), ["Added c", "Deleted again"]);
}
