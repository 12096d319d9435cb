use serde_json::{Value, json};

use super::*;

fn range(item: &Value) -> Value {
    json!({ "metadata": { "name": "r" }, "spec": { "limits": [item] } })
}

fn pod(requests: &Value, limits: &Value) -> Value {
    json!({ "spec": { "containers": [{ "name": "a", "resources": { "requests": requests, "limits": limits } }] } })
}

#[test]
fn a_range_is_completed_from_its_bounds() {
    for (given, default, default_request) in [
        (json!({ "max": { "cpu": "2" } }), json!({ "cpu": "2" }), json!({ "cpu": "2" })),
        (json!({ "min": { "cpu": "1" } }), Value::Null, json!({ "cpu": "1" })),
        (
            json!({ "max": { "cpu": "2" }, "min": { "cpu": "1" }, "default": { "memory": "1Gi" } }),
            json!({ "cpu": "2", "memory": "1Gi" }),
            json!({ "cpu": "2", "memory": "1Gi" }),
        ),
        (
            json!({ "default": { "cpu": "2" }, "defaultRequest": { "cpu": "1" } }),
            json!({ "cpu": "2" }),
            json!({ "cpu": "1" }),
        ),
    ] {
        let mut item = given.clone();
        item["type"] = json!("Container");
        let mut range = range(&item);
        complete(&mut range);
        let item = &range["spec"]["limits"][0];
        assert_eq!((&item["default"], &item["defaultRequest"]), (&default, &default_request), "{given}");
    }
    let mut other = range(&json!({ "type": "Pod", "max": { "cpu": "2" } }));
    let before = other.clone();
    complete(&mut other);
    assert_eq!(other, before);
}

#[test]
fn defaults_fill_what_is_not_stated() {
    let range = range(&json!({
        "type": "Container", "default": { "cpu": "2", "memory": "1Gi" }, "defaultRequest": { "cpu": "1" },
    }));
    let mut given = json!({ "spec": {
        "containers": [{ "name": "a" }, { "name": "b", "resources": { "requests": { "cpu": "3" } } }],
        "initContainers": [{ "name": "i", "resources": { "limits": { "cpu": "5", "memory": "1Mi" } } }],
    } });
    fill_from(&range, &mut given);
    let both = |requests: Value, limits: Value| json!({ "requests": requests, "limits": limits });
    let limits = json!({ "cpu": "2", "memory": "1Gi" });
    let containers = &given["spec"]["containers"];
    assert_eq!(containers[0]["resources"], both(json!({ "cpu": "1" }), limits.clone()));
    assert_eq!(containers[1]["resources"], both(json!({ "cpu": "3" }), limits));
    assert_eq!(
        given["spec"]["initContainers"][0]["resources"],
        both(json!({ "cpu": "1" }), json!({ "cpu": "5", "memory": "1Mi" }))
    );
    assert_eq!(
        given["metadata"]["annotations"][ANNOTATION],
        "LimitRanger plugin set: cpu request for container a; cpu, memory limit for container a; cpu, memory limit \
         for container b; cpu request for init container i"
    );
}

#[test]
fn bounds_are_enforced_with_the_servers_words() {
    let none = || json!({});
    let cpu = |amount: &str| json!({ "cpu": amount });
    let item = |kind: &str, field: &str, amount: &str| json!({ "type": kind, field: { "cpu": amount } });
    for (item, requests, limits, expected) in [
        (item("Container", "max", "800m"), cpu("500m"), cpu("500m"), vec![]),
        (
            item("Container", "max", "800m"),
            cpu("500m"),
            cpu("1500m"),
            vec!["maximum cpu usage per Container is 800m, but limit is 1500m"],
        ),
        (
            item("Container", "max", "800m"),
            none(),
            none(),
            vec!["maximum cpu usage per Container is 800m.  No limit is specified"],
        ),
        (
            item("Container", "min", "200m"),
            cpu("100m"),
            cpu("800m"),
            vec!["minimum cpu usage per Container is 200m, but request is 100m"],
        ),
        (
            item("Container", "min", "200m"),
            none(),
            cpu("100m"),
            vec!["minimum cpu usage per Container is 200m.  No request is specified"],
        ),
        (
            item("Container", "min", "200m"),
            cpu("200m"),
            cpu("100m"),
            vec!["minimum cpu usage per Container is 200m, but limit is 100m"],
        ),
        (
            item("Pod", "max", "1"),
            cpu("2"),
            cpu("1"),
            vec!["maximum cpu usage per Pod is 1, but request is 2"],
        ),
        (
            item("Container", "maxLimitRequestRatio", "2"),
            cpu("500m"),
            cpu("1500m"),
            vec!["cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"],
        ),
        (item("Container", "maxLimitRequestRatio", "3"), cpu("500m"), cpu("1500m"), vec![]),
        (
            item("Container", "maxLimitRequestRatio", "2"),
            none(),
            cpu("1"),
            vec![
                "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
            ],
        ),
        (item("PersistentVolumeClaim", "max", "1"), cpu("2"), cpu("2"), vec![]),
    ] {
        let text = item.to_string();
        assert_eq!(of_pod(&range(&item), &pod(&requests, &limits)), expected, "{text}");
    }
}

#[test]
fn claims_have_bounds_of_their_own() {
    let claim = |size: &str| json!({ "spec": { "resources": { "requests": { "storage": size } } } });
    let range = range(&json!({
        "type": "PersistentVolumeClaim", "min": { "storage": "1Gi" }, "max": { "storage": "2Gi" },
    }));
    let too_big = "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 5Gi";
    for (old, size, expected) in [
        (None, "500Mi", vec!["minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi"]),
        (None, "5Gi", vec![too_big]),
        (None, "2Gi", vec![]),
        (Some(claim("1Gi")), "5Gi", vec![too_big]),
        // It was let in before the range was there.
        (Some(claim("5Gi")), "5Gi", vec![]),
    ] {
        assert_eq!(of_claim(&range, old.as_ref(), &claim(size)), expected, "{old:?} {size}");
    }
}
