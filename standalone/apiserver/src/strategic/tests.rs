use serde_json::json;

use super::merge;

#[test]
fn lists_merge_by_key_and_directives_apply() {
    for (name, mut object, patch, expected) in [
        (
            "maps merge, null removes",
            json!({ "a": 1, "b": { "c": 1, "d": 2 } }),
            json!({ "b": { "c": null, "e": 3 } }),
            json!({ "a": 1, "b": { "d": 2, "e": 3 } }),
        ),
        (
            "containers merge by name",
            json!({ "containers": [{ "name": "a", "image": "1" }, { "name": "b" }] }),
            json!({ "containers": [{ "name": "a", "image": "2" }, { "name": "c" }] }),
            json!({ "containers": [{ "name": "a", "image": "2" }, { "name": "b" }, { "name": "c" }] }),
        ),
        (
            "an element is deleted",
            json!({ "env": [{ "name": "A" }, { "name": "B" }] }),
            json!({ "env": [{ "name": "A", "$patch": "delete" }, { "name": "Z", "$patch": "delete" }] }),
            json!({ "env": [{ "name": "B" }] }),
        ),
        (
            "a list is replaced when asked",
            json!({ "env": [{ "name": "A" }] }),
            json!({ "env": [{ "$patch": "replace" }, { "name": "B" }] }),
            json!({ "env": [{ "name": "B" }] }),
        ),
        (
            "a map is replaced when asked",
            json!({ "m": { "a": 1 } }),
            json!({ "m": { "$patch": "replace", "b": 2 } }),
            json!({ "m": { "b": 2 } }),
        ),
        (
            "plain lists are replaced",
            json!({ "args": ["a", "b"] }),
            json!({ "args": ["c"] }),
            json!({ "args": ["c"] }),
        ),
        (
            "finalizers merge as a set",
            json!({ "finalizers": ["a"] }),
            json!({ "finalizers": ["a", "b"] }),
            json!({ "finalizers": ["a", "b"] }),
        ),
        (
            "finalizers are taken out by name, the wish for an order is passed over",
            json!({ "finalizers": ["a", "b"] }),
            json!({ "$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["b"] }),
            json!({ "finalizers": ["b"] }),
        ),
        (
            "only the keys to retain are kept",
            json!({ "volumes": [{ "name": "v", "emptyDir": {} }] }),
            json!({ "volumes": [{ "name": "v", "$retainKeys": ["name", "secret"], "secret": {} }] }),
            json!({ "volumes": [{ "name": "v", "secret": {} }] }),
        ),
    ] {
        merge(&mut object, patch);
        assert_eq!(object, expected, "{name}");
    }
}
