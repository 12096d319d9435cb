use http::{Request, header};
use serde_json::{Value, json};

use super::World;
use crate::{Context, NoAdmission, Outcome, handle};

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

#[test]
fn documents_are_kept_by_their_hash() {
    let mut world = World::new();
    let (_, index) = world.get("/openapi/v3");
    let url = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let plain = url.split('?').next().unwrap();
    let mut ask = |url: &str, known: &str| {
        let request =
            Request::builder().uri(url).header(header::IF_NONE_MATCH, known).body(Vec::new()).unwrap();
        let Outcome::Response(response) = world.request(&request).outcome else { panic!("{url}") };
        let said = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let fields = [header::CACHE_CONTROL, header::EXPIRES, header::ETAG, header::LOCATION].map(said);
        (response.status().as_u16(), fields, response.body().len())
    };
    let (code, [cache, expires, tag, _], length) = ask(&url, "");
    let tag = tag.unwrap();
    assert_eq!((code, cache.as_deref()), (200, Some("public, immutable")));
    assert_eq!(expires.as_deref(), Some("Sat, 02 Jan 2027 03:04:05 GMT"));
    assert!(length > 10_000 && url.ends_with(&format!("?hash={}", tag.trim_matches('"'))), "{url} {tag}");
    let (code, [cache, expires, _, _], whole) = ask(plain, "");
    assert_eq!((code, cache.as_deref(), expires, whole), (200, Some("no-cache, private"), None, length));
    for known in [tag.clone(), format!("\"other\", W/{tag}"), "*".to_owned()] {
        let (code, [_, _, same, _], length) = ask(plain, &known);
        assert_eq!((code, same, length), (304, Some(tag.clone()), 0), "{known}");
    }
    let (code, [_, _, _, location], length) = ask(&format!("{plain}?hash=0"), &tag);
    assert_eq!((code, location, length), (301, Some(url), 0));
    assert_eq!(ask("/openapi/v3/apis/none.dev/v1?hash=0", "").0, 404);
}

#[test]
fn version_2_is_there_for_who_asks_for_protobuf() {
    let mut world = World::new();
    let mut ask = |accept: &str| {
        let request = Request::get("/openapi/v2").header(header::ACCEPT, accept).body(Vec::new()).unwrap();
        let context = Context { now: world.now, admission: &NoAdmission };
        match handle(&mut world.state, &request, &context).outcome {
            Outcome::Response(response) => (
                response.status().as_u16(),
                response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned(),
                String::from_utf8_lossy(response.body()).contains("dev.example.v1.Widget"),
            ),
            other => panic!("{other:?}"),
        }
    };
    let answered = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    for accept in [
        "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
        "application/json, application/com.github.proto-openapi.spec.v2@v1.0+protobuf;q=0.5",
    ] {
        assert_eq!(ask(accept), (200, answered.to_owned(), true), "{accept}");
    }
    assert_eq!(ask("application/json"), (406, "application/json".to_owned(), false));
}
