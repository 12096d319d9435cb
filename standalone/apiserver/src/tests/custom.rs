use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};

use super::{MAPS, WIDGETS, World, definition};
use crate::{Resource, ResourceTable, TableError};

fn widget(spec: &Value) -> Value {
    json!({ "metadata": { "name": "a" }, "spec": spec })
}

#[test]
fn unknown_fields_are_dropped_refused_or_told() {
    let sent = json!({
        "metadata": { "name": "a", "odd": 1 },
        "spec": { "image": "x", "odd": 1, "params": [{ "name": "p", "odd": 1 }], "free": { "odd": 1, "known": "k" } },
        "odd": 1,
    });
    let paths = ["metadata.odd", "odd", "spec.odd", "spec.params[0].odd"];
    for query in ["", "?fieldValidation=Warn", "?fieldValidation=Ignore"] {
        let mut world = World::new();
        let made = world.make(&format!("{WIDGETS}{query}"), &sent);
        assert_eq!(made.get("odd"), None);
        assert_eq!(made["metadata"].get("odd"), None);
        assert_eq!(made["spec"]["free"], json!({ "odd": 1, "known": "k" }));
        assert_eq!(
            made["spec"],
            json!({
                "image": "x", "count": 1, "params": [{ "name": "p", "type": "string" }],
                "free": { "odd": 1, "known": "k" },
            })
        );
        let expected: BTreeSet<String> = if query.ends_with("Ignore") {
            BTreeSet::new()
        } else {
            paths.iter().map(|path| format!("299 - \"unknown field \\\"{path}\\\"\"")).collect()
        };
        world.delete(&format!("{WIDGETS}/a"), &Value::Null);
        world.make(&format!("{WIDGETS}{query}"), &sent);
        assert_eq!(world.warnings.iter().cloned().collect::<BTreeSet<_>>(), expected, "{query}");
    }
    let mut world = World::new();
    let (code, status) = world.post(&format!("{WIDGETS}?fieldValidation=Strict"), &sent);
    assert_eq!((code, &status["reason"]), (400, &json!("BadRequest")));
    let message = status["message"].as_str().unwrap();
    assert!(
        message.starts_with(
            "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: unknown field \""
        ),
        "{message}"
    );
    for path in paths {
        assert!(message.contains(&format!("unknown field \"{path}\"")), "{message}");
    }
}

#[test]
fn values_are_held_against_the_schema() {
    for (spec, part) in [
        (json!({}), "spec.image: Required value"),
        (
            json!({ "image": "" }),
            "spec.image: Invalid value: \"\": spec.image in body should be at least 1 chars long",
        ),
        (
            json!({ "image": 5 }),
            "spec.image: Invalid value: \"integer\": spec.image in body must be of type string: \"integer\"",
        ),
        (json!({ "image": "x", "count": -1 }), "spec.count in body should be greater than or equal to 0"),
        (json!({ "image": "x", "count": 1.5 }), "must be of type integer: \"number\""),
        (
            json!({ "image": "x", "mode": "odd" }),
            "spec.mode: Unsupported value: \"odd\": supported values: \"fast\", \"safe\"",
        ),
        (json!({ "image": "x", "port": true }), "must be of type integer,string: \"boolean\""),
        (json!({ "image": "x", "params": [{}] }), "spec.params[0].name: Required value"),
        (json!({ "image": "x", "params": {} }), "must be of type array: \"object\""),
        (json!({ "image": "x", "labels": { "a": 1 } }), "spec.labels.a in body must be of type string"),
        (json!([]), "spec in body must be of type object: \"array\""),
        (json!({ "image": null }), "must be of type string: \"null\""),
    ] {
        let mut world = World::new();
        let (code, status) = world.post(WIDGETS, &widget(&spec));
        assert_eq!((code, &status["reason"]), (422, &json!("Invalid")), "{spec}: {status}");
        let message = status["message"].as_str().unwrap();
        assert!(
            message.starts_with("Widget.example.dev \"a\" is invalid: ") && message.contains(part),
            "{message}"
        );
    }
    for spec in [
        json!({ "image": "x", "port": 80 }),
        json!({ "image": "x", "port": "http" }),
        json!({ "image": "x", "note": null }),
        json!({ "image": "x", "count": null }),
        json!({ "image": "x", "count": 2.0 }),
    ] {
        let (code, status) = World::new().post(WIDGETS, &widget(&spec));
        assert_eq!(code, 201, "{spec}: {status}");
    }
}

#[test]
fn several_faults_come_together() {
    let (_, status) = World::new().post(WIDGETS, &widget(&json!({ "mode": "odd", "count": -1 })));
    let causes = status["details"]["causes"].as_array().unwrap();
    let fields: BTreeSet<&str> = causes.iter().map(|cause| cause["field"].as_str().unwrap()).collect();
    assert_eq!(fields, BTreeSet::from(["spec.count", "spec.image", "spec.mode"]));
    assert!(status["message"].as_str().unwrap().contains("is invalid: ["));
}

#[test]
fn every_served_version_shows_the_same_object() {
    let mut world = World::new();
    let beta = "/apis/example.dev/v1beta1/namespaces/default/widgets";
    let sent = json!({ "apiVersion": "example.dev/v1beta1", "kind": "Widget", "metadata": { "name": "a" },
                       "spec": { "image": "x" } });
    let made = world.make(beta, &sent);
    assert_eq!(made["apiVersion"], "example.dev/v1beta1");
    let (_, stable) = world.get(&format!("{WIDGETS}/a"));
    assert_eq!((&stable["apiVersion"], &stable["spec"]), (&json!("example.dev/v1"), &made["spec"]));
    let (_, list) = world.get(beta);
    assert_eq!(list["items"][0]["apiVersion"], "example.dev/v1beta1");
    assert_eq!(world.post(WIDGETS, &sent).0, 400);
    let plan = world.watch(&format!("{beta}?watch=true"));
    let event: Value = serde_json::from_slice(&plan.initial[0]).unwrap();
    assert_eq!(event["object"]["apiVersion"], "example.dev/v1beta1");
    let (code, patched) = world.merge(&format!("{beta}/a"), &json!({ "spec": { "count": 5 } }));
    assert_eq!((code, &patched["apiVersion"]), (200, &json!("example.dev/v1beta1")));
}

#[test]
fn whoever_uses_a_deprecated_version_is_told_what_to_use() {
    let mut crd = definition();
    for version in crd["spec"]["versions"].as_array_mut().unwrap() {
        version["deprecated"] = json!(version["name"] == "v1beta1");
    }
    let told = |crd: &Value| {
        let mut world = World::new();
        let table = ResourceTable::built_in().with_crd(crd).unwrap();
        world.state = crate::State::new(table, 1, world.now);
        let beta = "/apis/example.dev/v1beta1/namespaces/default/widgets";
        let mut warnings = Vec::new();
        for url in [WIDGETS, beta, &format!("{beta}?dryRun=All")] {
            world.post(url, &json!({ "metadata": { "generateName": "a-" } }));
            warnings.extend(world.warnings.clone());
        }
        world.get(beta);
        warnings.extend(world.warnings);
        warnings
    };
    let own = "example.dev/v1beta1 Widget is deprecated; use example.dev/v1 Widget";
    assert_eq!(told(&crd), vec![format!("299 - \"{own}\""); 3]);
    for version in crd["spec"]["versions"].as_array_mut().unwrap() {
        version["deprecationWarning"] = json!("go");
    }
    assert_eq!(told(&crd), ["299 - \"go\""; 3]);
}

#[test]
fn a_conversion_is_used_both_ways() {
    fn convert(mut object: Value, _from: &str, to: &str) -> Result<Value, String> {
        let (from, to) = if to.ends_with("/v1") { ("old", "new") } else { ("new", "old") };
        let Some(map) = object.as_object_mut() else { return Err("not an object".into()) };
        if let Some(value) = map.remove(from) {
            map.insert(to.into(), value);
        }
        Ok(object)
    }
    let mut crd = definition();
    for version in crd["spec"]["versions"].as_array_mut().unwrap() {
        version.as_object_mut().unwrap().remove("schema");
    }
    let mut resource = Resource::from_crd(&crd).unwrap();
    resource.convert = convert;
    let mut table = ResourceTable::built_in();
    table.add(resource).unwrap();
    let mut world = World::new();
    world.state = crate::State::new(table, 1, world.now);
    let beta = "/apis/example.dev/v1beta1/namespaces/default/widgets";
    world.make(beta, &json!({ "metadata": { "name": "a" }, "old": 1 }));
    assert_eq!(world.get(&format!("{WIDGETS}/a")).1["new"], 1);
    let (_, changed) = world.merge(&format!("{beta}/a"), &json!({ "old": 2 }));
    assert_eq!((&changed["old"], changed.get("new")), (&json!(2), None));
    assert_eq!(world.get(&format!("{WIDGETS}/a")).1["new"], 2);
}

#[test]
fn events_are_one_thing_in_two_groups() {
    let mut world = World::new();
    let sent = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": "e" },
        "regarding": { "kind": "Pod", "name": "p" }, "note": "hello", "reason": "Started", "type": "Normal",
        "reportingController": "me",
    });
    world.make("/apis/events.k8s.io/v1/namespaces/default/events", &sent);
    let (code, event) = world.get("/api/v1/namespaces/default/events/e");
    assert_eq!((code, &event["apiVersion"]), (200, &json!("v1")));
    assert_eq!((&event["message"], &event["involvedObject"]["name"]), (&json!("hello"), &json!("p")));
    assert_eq!(event["reportingComponent"], "me");
    let url = "/api/v1/events?fieldSelector=involvedObject.name%3Dp,type%3DNormal";
    assert_eq!(world.get(url).1["items"].as_array().unwrap().len(), 1);
    let url = "/apis/events.k8s.io/v1/events?fieldSelector=regarding.name%3Dother";
    assert_eq!(world.get(url).1["items"].as_array().unwrap().len(), 0);
}

#[test]
fn definitions_are_shown_and_cannot_be_written() {
    let mut world = World::new();
    let url = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (code, crd) = world.get(&format!("{url}/widgets.example.dev"));
    assert_eq!((code, &crd["spec"]["names"]["kind"]), (200, &json!("Widget")));
    let listed = world.get(url).1["items"][0].take();
    for shown in [&crd, &listed] {
        let versions = |crd: &Value| crd["spec"]["versions"].as_array().unwrap().clone();
        for (shown, sent) in versions(shown).iter().zip(versions(&definition())) {
            assert_eq!(shown["schema"], sent["schema"], "{}", sent["name"]);
        }
    }
    assert_eq!(world.post(url, &definition()).0, 405);
    assert_eq!(world.call(Method::DELETE, &format!("{url}/widgets.example.dev"), "", &Value::Null).0, 405);
}

#[test]
fn a_definition_that_lacks_something_says_what() {
    let mut crd = definition();
    crd["spec"].as_object_mut().unwrap().remove("group");
    let error = Resource::from_crd(&crd).unwrap_err();
    assert_eq!(error.to_string(), "the definition \"widgets.example.dev\" lacks \"spec.group\"");
    let table = ResourceTable::built_in().with_crd(&definition()).unwrap();
    let twice = table.with_crd(&definition()).unwrap_err();
    assert!(matches!(twice, TableError::Taken { .. }));
}

#[test]
fn tables_have_the_columns_of_the_definition() {
    let mut world = World::new();
    let spec = json!({ "image": "x", "params": [{ "name": "a" }, { "name": "b", "type": "array" }] });
    world.make(WIDGETS, &widget(&spec));
    let status = json!({ "status": { "phase": "Done", "startTime": "2026-01-02T03:04:05Z" } });
    world.merge(&format!("{WIDGETS}/a/status"), &status);
    world.make_map("m");
    world.pass(150);
    let mut table = |url: &str| {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        let request = http::Request::get(url).header("accept", accept).body(Vec::new()).unwrap();
        let handled = world.request(&request);
        world.answer(handled).1
    };
    let widgets = table(WIDGETS);
    let names: Vec<&str> = widgets["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["Name", "Phase", "Started", "Second"]);
    assert_eq!(widgets["rows"][0]["cells"], json!(["a", "Done", "2m30s", "array"]));
    assert_eq!(widgets["rows"][0]["object"]["metadata"]["name"], "a");
    let maps = table(&format!("{MAPS}/m"));
    assert_eq!((&maps["kind"], &maps["rows"][0]["cells"]), (&json!("Table"), &json!(["m", 0, "2m30s"])));
}

#[test]
fn a_field_that_stands_twice_is_told_or_refused() {
    let sent = br#"{"metadata":{"name":"a"},"spec":{"image":"x","image":"y"}}"#;
    let post = |world: &mut World, query: &str| {
        let url = format!("{WIDGETS}{query}");
        let handled = world.handle(Method::POST, &url, "application/json", sent.to_vec());
        world.answer(handled)
    };
    let mut world = World::new();
    let (code, status) = post(&mut world, "?fieldValidation=Strict");
    assert_eq!(code, 400);
    assert_eq!(
        status["message"],
        "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: duplicate field \"spec.image\""
    );
    let (code, made) = post(&mut world, "");
    assert_eq!((code, &made["spec"]["image"]), (201, &json!("y")));
    assert_eq!(world.warnings, ["299 - \"duplicate field \\\"spec.image\\\"\""]);
    world.delete(&format!("{WIDGETS}/a"), &Value::Null);
    assert_eq!(post(&mut world, "?fieldValidation=Ignore").0, 201);
    assert!(world.warnings.is_empty());
}
