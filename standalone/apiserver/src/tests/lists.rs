use serde_json::{Value, json};

use super::{MAPS, PODS, World};

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap_or_else(|| panic!("no list: {list}"));
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

fn labelled() -> World {
    let mut world = World::new();
    for (name, labels) in [
        ("a", json!({ "app": "x", "tier": "1" })),
        ("b", json!({ "app": "y", "tier": "2" })),
        ("c", json!({ "app": "z" })),
        ("d", json!({})),
    ] {
        world.make(MAPS, &json!({ "metadata": { "name": name, "labels": labels } }));
    }
    world
}

#[test]
fn label_selectors_select() {
    let mut world = labelled();
    for (selector, expected) in [
        ("app=x", vec!["a"]),
        ("app==x", vec!["a"]),
        ("app!=x", vec!["b", "c", "d"]),
        ("app in (x, y)", vec!["a", "b"]),
        ("app notin (x,y)", vec!["c", "d"]),
        ("app", vec!["a", "b", "c"]),
        ("!app", vec!["d"]),
        ("tier>1", vec!["b"]),
        ("tier<2", vec!["a"]),
        ("app in (x,y),tier=2", vec!["b"]),
        ("app=", vec![]),
        ("", vec!["a", "b", "c", "d"]),
    ] {
        let query: String =
            form_urlencoded::Serializer::new(String::new()).append_pair("labelSelector", selector).finish();
        let (code, list) = world.get(&format!("{MAPS}?{query}"));
        assert_eq!(
            (code, names(&list)),
            (200, expected.into_iter().map(str::to_owned).collect()),
            "{selector}"
        );
    }
    for selector in ["app in x", "app in (x", "a b", "app=x y", "=x", "tier>one", "app nein (x)"] {
        let query: String =
            form_urlencoded::Serializer::new(String::new()).append_pair("labelSelector", selector).finish();
        assert_eq!(world.get(&format!("{MAPS}?{query}")).0, 400, "{selector}");
    }
}

#[test]
fn field_selectors_select() {
    let mut world = labelled();
    assert_eq!(names(&world.get(&format!("{MAPS}?fieldSelector=metadata.name%3Db")).1), ["b"]);
    assert_eq!(names(&world.get(&format!("{MAPS}?fieldSelector=metadata.name!%3Db")).1), ["a", "c", "d"]);
    let (code, status) = world.get(&format!("{MAPS}?fieldSelector=data.k%3Db"));
    let known = "\"data.k\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"";
    assert_eq!((code, &status["message"]), (400, &json!(known)));
    let (code, status) = world.get(&format!("{PODS}?fieldSelector=data.k%3Db"));
    assert_eq!((code, &status["message"]), (400, &json!("field label not supported: data.k")));
    for (name, node) in [("p", "n1"), ("q", "n2"), ("r", "")] {
        world.make(PODS, &json!({ "metadata": { "name": name }, "spec": { "nodeName": node } }));
    }
    let url = "/api/v1/pods?fieldSelector=";
    assert_eq!(names(&world.get(&format!("{url}spec.nodeName%3Dn1")).1), ["p"]);
    assert_eq!(names(&world.get(&format!("{url}spec.nodeName%3D,status.phase%3DPending")).1), ["r"]);
}

#[test]
fn lists_span_namespaces_and_carry_the_version() {
    let mut world = World::new();
    world.make_map("a");
    world.make("/api/v1/namespaces/kube-system/configmaps", &json!({ "metadata": { "name": "b" } }));
    let (_, all) = world.get("/api/v1/configmaps");
    assert_eq!((names(&all), &all["kind"]), (vec!["a".to_owned(), "b".into()], &json!("ConfigMapList")));
    assert_eq!(all["metadata"]["resourceVersion"], world.state.version().to_string());
    assert_eq!(names(&world.get(MAPS).1), ["a"]);
    assert_eq!(names(&world.get("/api/v1/namespaces/nowhere/configmaps").1), Vec::<String>::new());
}

#[test]
fn pages_cover_everything_once() {
    let mut world = World::new();
    for index in 0..7 {
        world.make_map(&format!("m{index}"));
    }
    let (_, first) = world.get(&format!("{MAPS}?limit=3"));
    assert_eq!((names(&first).len(), &first["metadata"]["remainingItemCount"]), (3, &json!(4)));
    // An object made between pages does not hide the version a watch must resume from.
    world.make_map("later");
    let mut seen = names(&first);
    let mut page = first.clone();
    while let Some(token) = page["metadata"].get("continue").and_then(Value::as_str).map(str::to_owned) {
        page = world.get(&format!("{MAPS}?limit=3&continue={token}")).1;
        assert_eq!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        seen.extend(names(&page));
    }
    assert_eq!(seen, ["m0", "m1", "m2", "m3", "m4", "m5", "m6"].map(str::to_owned));
    assert_eq!(world.get(&format!("{MAPS}?limit=3&continue=nonsense")).0, 400);
}

#[test]
fn versions_are_understood_but_old_ones_not_kept() {
    let mut world = World::new();
    world.make_map("a");
    let old = world.state.version();
    world.make_map("b");
    assert_eq!(names(&world.get(&format!("{MAPS}?resourceVersion=0")).1).len(), 2);
    let url = format!("{MAPS}?resourceVersion={old}");
    assert_eq!(names(&world.get(&format!("{url}&resourceVersionMatch=NotOlderThan")).1).len(), 2);
    let (code, status) = world.get(&format!("{url}&resourceVersionMatch=Exact"));
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
    assert_eq!(world.get(&format!("{MAPS}?resourceVersion=99999")).0, 504);
    assert_eq!(world.get(&format!("{MAPS}?resourceVersion=x")).0, 400);
}

#[test]
fn metadata_alone_can_be_asked_for() {
    let mut world = World::new();
    world.make(MAPS, &json!({ "metadata": { "name": "a" }, "data": { "k": "v" } }));
    let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let request = http::Request::get(MAPS).header("accept", accept).body(Vec::new()).unwrap();
    let handled = world.request(&request);
    let (_, list) = world.answer(handled);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(
        (&list["items"][0]["kind"], list["items"][0].get("data")),
        (&json!("PartialObjectMetadata"), None)
    );
    let request = http::Request::get(MAPS).header("accept", "text/html").body(Vec::new()).unwrap();
    let handled = world.request(&request);
    assert_eq!(world.answer(handled).0, 406);
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let mut world = labelled();
    let token = world.get(&format!("{MAPS}?limit=1")).1["metadata"]["continue"].as_str().unwrap().to_owned();
    for (query, code, part) in [
        (
            "resourceVersionMatch=Exact",
            422,
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            "resourceVersionMatch=Odd&resourceVersion=1",
            422,
            "supported values: \"Exact\", \"NotOlderThan\", \"\"",
        ),
        (
            "resourceVersionMatch=Exact&resourceVersion=0",
            422,
            "\"exact\" is forbidden for resourceVersion \"0\"",
        ),
        ("sendInitialEvents=true", 422, "sendInitialEvents is forbidden for list"),
        (
            &format!("continue={token}&resourceVersion=3&resourceVersionMatch=Exact"),
            422,
            "when continue is provided",
        ),
        (&format!("continue={token}&resourceVersion=3"), 400, "not allowed when using continue"),
    ] {
        let (found, status) = world.get(&format!("{MAPS}?{query}"));
        assert_eq!(found, code, "{query}: {status}");
        assert!(status["message"].as_str().unwrap().contains(part), "{status}");
    }
    assert_eq!(names(&world.get(&format!("{MAPS}?continue={token}&resourceVersion=0")).1), ["b", "c", "d"]);
}

#[test]
fn the_rest_of_an_expired_list_can_still_be_had() {
    let mut world = World::new();
    for name in ["a", "b", "c", "d"] {
        world.make_map(name);
    }
    let (_, first) = world.get(&format!("{MAPS}?limit=2"));
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    for index in 0..crate::HISTORY {
        world.merge(&format!("{MAPS}/a"), &json!({ "data": { "k": index.to_string() } }));
    }
    assert_eq!(names(&world.get(&format!("{MAPS}?limit=2&continue={token}")).1), ["c", "d"]);
    world.delete(&format!("{MAPS}/c"), &Value::Null);
    let (code, status) = world.get(&format!("{MAPS}?limit=2&continue={token}"));
    assert_eq!((code, &status["reason"]), (410, &json!("Expired")));
    let rest = status["metadata"]["continue"].as_str().unwrap().to_owned();
    let (_, list) = world.get(&format!("{MAPS}?limit=2&continue={rest}"));
    assert_eq!(names(&list), ["d"]);
    assert_eq!(list["metadata"]["resourceVersion"], world.state.version().to_string());
}

#[test]
fn a_first_page_is_of_the_version_it_is_asked_for_at() {
    let mut world = labelled();
    let old = world.state.version();
    world.make_map("later");
    let newest = world.state.version();
    for (query, expected) in [
        (format!("limit=1&resourceVersion={old}"), 410),
        (format!("limit=1&resourceVersion={old}&resourceVersionMatch=NotOlderThan"), 200),
        (format!("limit=1&resourceVersion={newest}"), 200),
        (format!("limit=1&resourceVersion={}", newest + 1), 504),
        ("limit=1&resourceVersion=0".to_owned(), 200),
        ("limit=1".to_owned(), 200),
        (format!("limit=0&resourceVersion={old}"), 200),
        (format!("resourceVersion={old}"), 200),
    ] {
        let (code, list) = world.get(&format!("{MAPS}?{query}"));
        assert_eq!(code, expected, "{query}: {list}");
    }
}
