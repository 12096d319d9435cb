//! What is refused before an object is looked at: paths, methods, media types, bodies. No IO.

use http::Method;
use serde_json::json;

use crate::case::{Call, Case, delete, get, json_patch, post, put};
use crate::kinds::Kind;

fn with_method(call: Call, method: Method) -> Call {
    Call { method, ..call }
}

pub(super) fn of(kind: &Kind) -> Vec<Case> {
    let list = kind.list();
    let object = kind.object("a");
    let named = |name: &str| kind.object(name).to_string();
    let mut other_kind = object.clone();
    other_kind["kind"] = json!("Other");
    let mut other_version = object.clone();
    other_version["apiVersion"] = json!("example.dev/v1");
    let mut no_kind = object.clone();
    no_kind.as_object_mut().map(|map| (map.remove("kind"), map.remove("apiVersion")));
    let mut unknown = object.clone();
    unknown["nothing"] = json!(1);
    let mut wrong = object.clone();
    wrong["metadata"] = json!("text");
    let posted =
        |content_type: &'static str, body: &str| post(list.clone(), &json!({})).body(content_type, body);
    let mut case = Case::new(format!("{}/errors", kind.plural))
        .send("put on the list", put(list.clone(), &object))
        .send("patch on the list", json_patch(list.clone(), &json!([])))
        .send("post on an object", post(kind.path("a", ""), &object))
        .send("options", with_method(get(kind.path("a", "")), Method::OPTIONS))
        .send("unknown subresource", get(kind.path("a", "/nothing")))
        .send("scale", get(kind.path("a", "/scale")))
        .send("too deep", get(kind.path("a", "/status/more")))
        .send("malformed", posted("application/json", "{"))
        .send("no object", posted("application/json", "[]"))
        .send("empty", posted("application/json", " "))
        .send("text", posted("text/plain", &named("text")))
        .send("xml", posted("application/xml", &named("xml")))
        .send("yaml", posted("application/yaml", &named("yaml")))
        .send(
            "charset",
            put(kind.path("none", ""), &kind.object("none"))
                .body("application/json; charset=utf-8", kind.object("none").to_string()),
        )
        .send("other kind", post(list.clone(), &other_kind))
        .send("other version", post(list.clone(), &other_version))
        .send("no kind", post(format!("{list}?dryRun=All"), &no_kind))
        .send("clear", delete(kind.path("a", "?gracePeriodSeconds=0")))
        .send("unknown field", post(format!("{list}?dryRun=All"), &unknown))
        .send("strict", post(format!("{list}?dryRun=All&fieldValidation=Strict"), &unknown))
        .send("wrong metadata", post(list.clone(), &wrong))
        .send("delete the missing", delete(kind.path("none", "")))
        .send("long path", get(kind.path(&"x".repeat(300), "")))
        .send("pretty", get(kind.path("none", "?pretty=true")));
    if kind.status.is_none() && kind.plural != "persistentvolumeclaims" {
        case = case.send("no status", get(kind.path("a", "/status")));
    }
    if kind.namespaced {
        case = case
            .send("create everywhere", post(kind.everywhere(), &object))
            .send("delete everywhere", delete(format!("{}?labelSelector=corpus=none", kind.everywhere())))
            .send("no such namespace", post(list.replace("<ns>", "<ns>-none"), &object))
            .send("read in no such namespace", get(list.replace("<ns>", "<ns>-none")));
    }
    vec![case]
}
