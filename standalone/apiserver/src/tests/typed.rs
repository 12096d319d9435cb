//! Built-in kinds have types: unknown fields and wrong values are told as Go's decoder would.

use serde_json::json;

use super::{MAPS, PODS, World};

#[test]
fn unknown_fields_of_built_in_kinds_are_dropped_refused_or_told() {
    let sent = json!({
        "metadata": { "name": "p" },
        "spec": { "containers": [{ "name": "c", "image": "i", "imagee": "j", "resources": { "limits": { "cpu": 1 } } }],
                  "odd": 1, "nodeSelector": { "any": "thing" } },
    });
    let mut world = World::new();
    let (code, status) = world.post(&format!("{PODS}?fieldValidation=Strict"), &sent);
    assert_eq!(code, 400);
    assert_eq!(
        status["message"],
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \
         \"spec.containers[0].imagee\", unknown field \"spec.odd\""
    );
    let made = world.make(PODS, &sent);
    assert_eq!(world.warnings.len(), 2);
    let (spec, container) = (&made["spec"], &made["spec"]["containers"][0]);
    assert_eq!((spec.get("odd"), container.get("imagee")), (None, None));
    assert_eq!(spec["nodeSelector"], json!({ "any": "thing" }));
    assert_eq!(container["resources"], json!({ "limits": { "cpu": "1" }, "requests": { "cpu": "1" } }));
}

#[test]
fn values_of_a_wrong_type_are_refused() {
    let mut world = World::new();
    for (url, body, part) in [
        (
            PODS,
            json!({ "spec": { "containers": [{ "name": "c", "image": 5 }] } }),
            "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal number into Go struct field \
             Container.spec.containers.image of type string",
        ),
        (
            PODS,
            json!({ "spec": { "containers": {} } }),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            PODS,
            json!({ "spec": { "activeDeadlineSeconds": "5" } }),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.activeDeadlineSeconds of type int64",
        ),
        (
            MAPS,
            json!({ "data": { "a": true } }),
            "json: cannot unmarshal bool into Go struct field ConfigMap.data.a of type string",
        ),
        (
            MAPS,
            json!({ "data": [] }),
            "json: cannot unmarshal array into Go struct field ConfigMap.data of type map[string]string",
        ),
    ] {
        let mut body = body;
        body["metadata"] = json!({ "name": "x" });
        for query in ["", "?fieldValidation=Ignore"] {
            let (code, status) = world.post(&format!("{url}{query}"), &body);
            assert_eq!(code, 400, "{body}");
            assert!(status["message"].as_str().unwrap().ends_with(part), "{status}");
        }
    }
}

#[test]
fn documents_describe_built_in_and_custom_kinds() {
    let mut world = World::new();
    let (code, core) = world.get("/openapi/v3/api/v1");
    assert_eq!(code, 200);
    let schemas = core["components"]["schemas"].as_object().unwrap();
    let pod = &schemas["io.k8s.api.core.v1.Pod"];
    assert_eq!(
        pod["x-kubernetes-group-version-kind"],
        json!([{ "group": "", "version": "v1", "kind": "Pod" }])
    );
    let spec = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"];
    assert_eq!(spec["containers"]["x-kubernetes-patch-merge-key"], "name");
    assert!(spec["nodeName"]["description"].as_str().unwrap().contains("node"));
    let (_, custom) = world.get("/openapi/v3/apis/example.dev/v1");
    let schemas = custom["components"]["schemas"].as_object().unwrap();
    assert_eq!(
        schemas["dev.example.v1.Widget"]["properties"]["spec"]["properties"]["image"]["type"],
        "string"
    );
    assert!(schemas.contains_key("io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference"));
    // Every reference has its definition.
    for document in [&core, &custom] {
        let mut names = Vec::new();
        super::super::openapi::references(document, &mut names);
        assert!(!names.is_empty());
        for name in names {
            assert!(document["components"]["schemas"].get(&name).is_some(), "{name}");
        }
    }
}
