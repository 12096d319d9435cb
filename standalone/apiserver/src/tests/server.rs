use serde_json::{Value, json};

use super::World;

fn names<'a>(list: &'a Value, key: &str) -> Vec<&'a str> {
    list[key].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect()
}

#[test]
fn discovery_lists_groups_versions_and_resources() {
    let mut world = World::new();
    assert_eq!(world.get("/api").1["versions"], json!(["v1"]));
    let (_, groups) = world.get("/apis");
    let listed = names(&groups, "groups");
    for group in ["apiextensions.k8s.io", "apps", "coordination.k8s.io", "events.k8s.io", "example.dev"] {
        assert!(listed.contains(&group), "{listed:?}");
    }
    let (_, group) = world.get("/apis/example.dev");
    assert_eq!(group["preferredVersion"]["groupVersion"], "example.dev/v1");
    assert_eq!(group["versions"].as_array().unwrap().len(), 2);
    let (_, core) = world.get("/api/v1");
    let listed = names(&core, "resources");
    for resource in ["namespaces", "pods", "pods/status", "pods/log", "configmaps", "events", "limitranges"] {
        assert!(listed.contains(&resource), "{listed:?}");
    }
    let (_, widgets) = world.get("/apis/example.dev/v1");
    assert_eq!(widgets["groupVersion"], "example.dev/v1");
    let widget = &widgets["resources"][0];
    assert_eq!(
        (&widget["kind"], &widget["shortNames"], &widget["categories"]),
        (&json!("Widget"), &json!(["wd"]), &json!(["all"]))
    );
    assert_eq!(widgets["resources"][1]["name"], "widgets/status");
}

#[test]
fn the_server_says_what_it_is_and_that_it_lives() {
    let mut world = World::new();
    let (_, version) = world.get("/version");
    assert_eq!((&version["minor"], &version["gitVersion"]), (&json!("36"), &json!("v1.36.0")));
    for path in ["/healthz", "/livez", "/readyz", "/readyz/ping"] {
        assert_eq!(world.get(path), (200, json!("ok")), "{path}");
    }
    assert_eq!(world.post("/version", &json!({})).0, 405);
}

#[test]
fn kubectl_finds_server_side_validation() {
    let mut world = World::new();
    let (_, index) = world.get("/openapi/v3");
    let url = index["paths"]["apis/example.dev/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let (code, document) = world.get(&url);
    assert_eq!(code, 200);
    let patch = &document["paths"]["/apis/example.dev/v1/namespaces/{namespace}/widgets/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({ "group": "example.dev", "version": "v1", "kind": "Widget" })
    );
    assert!(names(patch, "parameters").contains(&"fieldValidation"));
    assert!(document["components"]["schemas"]["dev.example.v1.Widget"]["properties"]["spec"].is_object());
}
