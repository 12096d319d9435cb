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
    assert_eq!(
        pod["spec"]["containers"],
        json!([{ "name": "a", "image": "1" }, { "name": "b", "image": "2" }])
    );
}
