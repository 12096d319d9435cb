use http::Method;
use serde_json::{Value, json};

use super::{MAPS, PODS, WIDGETS, World};

const JSON: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

#[test]
fn json_patches_follow_kubernetes() {
    for (patch, code, data) in [
        (json!([{ "op": "replace", "path": "/data/a", "value": "2" }]), 200, json!({ "a": "2" })),
        // Tekton's clients cancel a run so: the key is not there yet.
        (json!([{ "op": "replace", "path": "/data/b", "value": "2" }]), 200, json!({ "a": "1", "b": "2" })),
        (
            json!([{ "op": "add", "path": "/data/b", "value": "2" }, { "op": "replace", "path": "/data/b", "value": "3" }]),
            200,
            json!({ "a": "1", "b": "3" }),
        ),
        (json!([{ "op": "remove", "path": "/data/a" }]), 200, json!({})),
        (json!([{ "op": "test", "path": "/data/a", "value": "1" }]), 200, json!({ "a": "1" })),
        (json!([{ "op": "test", "path": "/data/a", "value": "2" }]), 422, Value::Null),
        (json!([{ "op": "remove", "path": "/data/nope" }]), 422, Value::Null),
        (json!([{ "op": "replace", "path": "/nope/b", "value": "2" }]), 422, Value::Null),
        (json!([{ "op": "dance", "path": "/data/a" }]), 400, Value::Null),
        (json!({ "op": "remove", "path": "/data/a" }), 400, Value::Null),
        (json!([{ "op": "replace", "path": "/metadata/resourceVersion", "value": "1" }]), 409, Value::Null),
        (json!([{ "op": "replace", "path": "", "value": 5 }]), 400, Value::Null),
    ] {
        let mut world = World::new();
        world.make(MAPS, &json!({ "metadata": { "name": "m" }, "data": { "a": "1" } }));
        let (found, object) = world.call(Method::PATCH, &format!("{MAPS}/m"), JSON, &patch);
        assert_eq!(found, code, "{patch}: {object}");
        if code == 200 {
            assert_eq!(object["data"], data, "{patch}");
        } else {
            assert!(world.deltas.is_empty());
        }
    }
}

/// Each is small, and would be more than the machine holds, or deeper than its stack.
#[test]
fn patches_do_not_explode() {
    let operations = |count: usize, operation: &dyn Fn(usize) -> Value| {
        json!((0..count).map(operation).collect::<Vec<_>>())
    };
    let deep = |levels: usize| "/spec/free".to_owned() + &"/a".repeat(levels);
    for (what, patch, code) in [
        (
            "copies double",
            operations(
                64,
                &|index| json!({ "op": "copy", "from": "/spec/free", "path": format!("/spec/free/{index}") }),
            ),
            413,
        ),
        (
            "copies of text",
            operations(
                5_000,
                &|index| json!({ "op": "copy", "from": "/spec/free/text", "path": format!("/spec/free/{index}") }),
            ),
            413,
        ),
        (
            "nesting by additions",
            operations(200, &|index| json!({ "op": "add", "path": deep(index + 1), "value": {} })),
            422,
        ),
        (
            "nesting by moves",
            operations(300, &|index| {
                let (from, to) =
                    (format!("/spec/free/m{}", index / 2), format!("/spec/free/m{}", index / 2 + 1));
                if index % 2 == 0 {
                    json!({ "op": "add", "path": to, "value": {} })
                } else {
                    json!({ "op": "move", "from": from, "path": format!("{to}/m") })
                }
            }),
            422,
        ),
        (
            "shifting a long list",
            operations(10_000, &|_| json!({ "op": "add", "path": "/spec/free/list/0", "value": 0 })),
            413,
        ),
        (
            "too many",
            operations(10_001, &|_| json!({ "op": "test", "path": "/spec/free/text", "value": 1 })),
            413,
        ),
        (
            "as deep as it may be",
            operations(64, &|index| json!({ "op": "add", "path": deep(index + 1), "value": {} })),
            200,
        ),
    ] {
        let mut world = World::new();
        let free = json!({ "text": "x".repeat(1_000), "list": vec![0; 1_000], "m0": {} });
        let spec = json!({ "image": "x", "free": free });
        world.make(WIDGETS, &json!({ "metadata": { "name": "w" }, "spec": spec }));
        let (found, answer) = world.call(Method::PATCH, &format!("{WIDGETS}/w"), JSON, &patch);
        assert_eq!(found, code, "{what}: {answer}");
    }
}

#[test]
fn an_object_does_not_grow_beyond_what_etcd_would_take() {
    let mut world = World::new();
    world.make_map("m");
    let url = format!("{MAPS}/m");
    let mut codes = Vec::new();
    for key in ["a", "b", "c"] {
        codes.push(world.merge(&url, &json!({ "data": { key: "x".repeat(700_000) } })).0);
    }
    assert_eq!(codes, [200, 200, 413]);
}

#[test]
fn merge_patches_remove_by_null_and_carry_a_version() {
    let mut world = World::new();
    let made = world.make(MAPS, &json!({ "metadata": { "name": "m" }, "data": { "a": "1", "b": "2" } }));
    let url = format!("{MAPS}/m");
    let version = made["metadata"]["resourceVersion"].clone();
    let patch = json!({ "metadata": { "resourceVersion": version }, "data": { "a": null, "c": "3" } });
    let (code, patched) = world.merge(&url, &patch);
    assert_eq!((code, &patched["data"]), (200, &json!({ "b": "2", "c": "3" })));
    assert_eq!(world.merge(&url, &patch).0, 409);
    assert_eq!(world.merge(&url, &json!([])).0, 400);
    assert_eq!(world.merge(&url, &json!({ "metadata": null })).0, 422);
}

#[test]
fn strategic_merges_are_for_built_in_kinds() {
    let mut world = World::new();
    world.make_widget("w");
    let patch = json!({ "spec": { "image": "y" } });
    let (code, status) = world.call(Method::PATCH, &format!("{WIDGETS}/w"), STRATEGIC, &patch);
    assert_eq!(code, 415);
    assert_eq!(
        status["message"],
        "the body of the request was in an unknown format - accepted media types include: \
         application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
    );
    // The media type is judged before the object is looked for.
    assert_eq!(world.call(Method::PATCH, &format!("{WIDGETS}/nope"), STRATEGIC, &patch).0, 415);
    let pod = json!({ "metadata": { "name": "p" }, "spec": { "containers": [
        { "name": "a", "image": "1" }, { "name": "b", "image": "1" },
    ] } });
    world.make(PODS, &pod);
    let patch = json!({ "spec": { "containers": [{ "name": "b", "image": "2" }] } });
    let (code, pod) = world.call(Method::PATCH, &format!("{PODS}/p"), STRATEGIC, &patch);
    assert_eq!(code, 200, "{pod}");
    let images: Vec<_> =
        pod["spec"]["containers"].as_array().unwrap().iter().map(|c| (&c["name"], &c["image"])).collect();
    assert_eq!(images, [(&json!("a"), &json!("1")), (&json!("b"), &json!("2"))]);
}
