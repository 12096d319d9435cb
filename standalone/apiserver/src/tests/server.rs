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
    for name in ["healthz", "livez", "readyz"] {
        for path in [format!("/{name}"), format!("/{name}/ping")] {
            assert_eq!(world.get(&path), (200, json!("ok")), "{path}");
        }
        let checks = format!("[+]ping ok\n{name} check passed\n");
        assert_eq!(world.get(&format!("/{name}?verbose")), (200, json!(checks)));
        assert_eq!(world.get(&format!("/{name}/etcd")).0, 404);
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

/// What kubectl 1.32 asks for.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                          application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

fn discover(world: &mut World, path: &str, accept: &str, known: &str) -> (u16, String, String, Value) {
    let request = Request::get(path).header(header::ACCEPT, accept).header(header::IF_NONE_MATCH, known);
    let handled = world.request(&request.body(Vec::new()).unwrap());
    let Outcome::Response(response) = handled.outcome else { panic!("{path}") };
    let said = |name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let fields = [header::CONTENT_TYPE, header::ETAG].map(|name| said(name).unwrap_or_default());
    let [content_type, tag] = fields;
    let body = serde_json::from_slice(response.body()).unwrap_or_default();
    (response.status().as_u16(), content_type, tag, body)
}

#[test]
fn all_resources_can_be_had_at_once_by_who_asks_for_it() {
    let mut world = World::new();
    let mut found = Vec::new();
    for path in ["/api", "/apis"] {
        let (code, content_type, tag, list) = discover(&mut world, path, AGGREGATED, "");
        assert_eq!(
            (code, content_type.as_str()),
            (200, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
        );
        assert_eq!(list["kind"], "APIGroupDiscoveryList");
        assert_eq!(list["apiVersion"], "apidiscovery.k8s.io/v2");
        let (code, _, _, nothing) = discover(&mut world, path, AGGREGATED, &tag);
        assert_eq!((code, nothing), (304, Value::Null));
        for group in list["items"].as_array().unwrap() {
            let name = group["metadata"]["name"].as_str().unwrap();
            for version in group["versions"].as_array().unwrap() {
                let version_name = version["version"].as_str().unwrap();
                let url = [path, name, version_name].into_iter().filter(|part| !part.is_empty());
                let url = url.collect::<Vec<_>>().join("/");
                // Both ways tell the same.
                assert_eq!(listed(version), world.get(&url).1["resources"], "{url}");
                found.push(url);
            }
        }
    }
    for url in ["/api/v1", "/apis/apps/v1", "/apis/example.dev/v1", "/apis/example.dev/v1beta1"] {
        assert!(found.iter().any(|known| known == url), "{url} is not in {found:?}");
    }
    for accept in [
        "application/json",
        "*/*",
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json",
        "application/json, application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        "application/vnd.kubernetes.protobuf",
    ] {
        let (code, content_type, _, list) = discover(&mut world, "/apis", accept, "");
        assert_eq!((code, content_type.as_str()), (200, "application/json"), "{accept}");
        assert_eq!(list["kind"], "APIGroupList", "{accept}");
    }
}

/// One version of an aggregated group, as the document of that version alone has it.
fn listed(version: &Value) -> Value {
    let mut list = Vec::new();
    for resource in version["resources"].as_array().unwrap() {
        let own = &resource["responseKind"];
        let (name, namespaced) = (resource["resource"].as_str().unwrap(), resource["scope"] == "Namespaced");
        let mut entry = json!({
            "name": name, "singularName": resource["singularResource"], "namespaced": namespaced,
            "kind": own["kind"], "verbs": resource["verbs"],
        });
        for key in ["shortNames", "categories"].into_iter().filter(|key| resource.get(key).is_some()) {
            entry[key] = resource[key].clone();
        }
        list.push(entry);
        for part in resource["subresources"].as_array().into_iter().flatten() {
            let (kind, part_name) = (&part["responseKind"], part["subresource"].as_str().unwrap());
            let mut entry = json!({
                "name": format!("{name}/{part_name}"), "singularName": "", "namespaced": namespaced,
                "kind": kind["kind"], "verbs": part["verbs"],
            });
            if (&kind["group"], &kind["version"]) != (&own["group"], &own["version"]) {
                entry["group"] = kind["group"].clone();
                entry["version"] = kind["version"].clone();
            }
            list.push(entry);
        }
    }
    Value::Array(list)
}

/// From `kubectl api-resources -o wide` of a cluster.
#[test]
fn short_names_categories_and_scopes_are_those_of_kubernetes() {
    let mut world = World::new();
    let mut found = std::collections::BTreeMap::new();
    for path in ["/api", "/apis"] {
        let (.., list) = discover(&mut world, path, AGGREGATED, "");
        for group in list["items"].as_array().unwrap() {
            for resource in group["versions"][0]["resources"].as_array().unwrap() {
                let words = |key: &str| {
                    let all = resource[key].as_array().into_iter().flatten();
                    all.map(|word| word.as_str().unwrap()).collect::<Vec<_>>().join(",")
                };
                let place =
                    [resource["resource"].as_str().unwrap(), group["metadata"]["name"].as_str().unwrap()];
                let about = (words("shortNames"), words("categories"), resource["scope"] == "Namespaced");
                found.insert(place.join(".").trim_end_matches('.').to_owned(), about);
            }
        }
    }
    found.retain(|name, _| !name.ends_with("example.dev"));
    let mut expected = std::collections::BTreeMap::new();
    for (name, short, categories, namespaced) in [
        ("configmaps", "cm", "", true),
        ("events", "ev", "", true),
        ("limitranges", "limits", "", true),
        ("namespaces", "ns", "", false),
        ("nodes", "no", "", false),
        ("persistentvolumeclaims", "pvc", "", true),
        ("pods", "po", "all", true),
        ("resourcequotas", "quota", "", true),
        ("secrets", "", "", true),
        ("serviceaccounts", "sa", "", true),
        ("services", "svc", "all", true),
        ("customresourcedefinitions.apiextensions.k8s.io", "crd,crds", "api-extensions", false),
        ("statefulsets.apps", "sts", "all", true),
        ("selfsubjectreviews.authentication.k8s.io", "", "", false),
        ("tokenreviews.authentication.k8s.io", "", "", false),
        ("localsubjectaccessreviews.authorization.k8s.io", "", "", true),
        ("selfsubjectaccessreviews.authorization.k8s.io", "", "", false),
        ("selfsubjectrulesreviews.authorization.k8s.io", "", "", false),
        ("subjectaccessreviews.authorization.k8s.io", "", "", false),
        ("leases.coordination.k8s.io", "", "", true),
        ("events.events.k8s.io", "ev", "", true),
        ("clusterrolebindings.rbac.authorization.k8s.io", "", "", false),
        ("clusterroles.rbac.authorization.k8s.io", "", "", false),
        ("rolebindings.rbac.authorization.k8s.io", "", "", true),
        ("roles.rbac.authorization.k8s.io", "", "", true),
    ] {
        expected.insert(name.to_owned(), (short.to_owned(), categories.to_owned(), namespaced));
    }
    assert_eq!(found, expected);
}
