//! The kernel as its callers see it: requests in, statuses and objects and changes out.

mod access;
mod admission;
mod apply;
mod collect;
mod crud;
mod custom;
mod errors;
mod expiry;
mod lists;
mod patches;
mod pods;
mod printing;
mod properties;
mod resources;
mod restore;
mod scheduling;
mod server;
mod typed;
mod watches;

use std::sync::Arc;

use http::{Method, Request, header};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    Admission, Context, Delta, Handled, NoAdmission, Outcome, ResourceTable, State, WatchPlan, handle,
};

/// A definition with what the tests need of one: two versions, a schema, a status and printer columns.
fn definition() -> Value {
    let schema = json!({
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["image"],
                "properties": {
                    "image": { "type": "string", "minLength": 1 },
                    "count": { "type": "integer", "minimum": 0, "default": 1 },
                    "mode": { "type": "string", "enum": ["fast", "safe"] },
                    "port": { "x-kubernetes-int-or-string": true },
                    "note": { "type": "string", "nullable": true },
                    "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                              "properties": { "known": { "type": "string" } } },
                    "params": { "type": "array", "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {
                            "name": { "type": "string" },
                            "type": { "type": "string", "default": "string" },
                        },
                    } },
                    "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                    "steps": { "type": "array", "x-kubernetes-list-type": "map",
                               "x-kubernetes-list-map-keys": ["name"], "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": { "name": { "type": "string" }, "image": { "type": "string" } },
                    } },
                },
            },
            "status": {
                "type": "object",
                "properties": { "phase": { "type": "string" }, "startTime": { "type": "string" } },
            },
        },
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "widgets.example.dev" },
        "spec": {
            "group": "example.dev", "scope": "Namespaced",
            "names": { "kind": "Widget", "plural": "widgets", "singular": "widget", "shortNames": ["wd"],
                       "categories": ["all"] },
            "versions": [
                { "name": "v1beta1", "served": true, "storage": false, "subresources": { "status": {} },
                  "schema": { "openAPIV3Schema": schema } },
                { "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                  "schema": { "openAPIV3Schema": schema },
                  "additionalPrinterColumns": [
                    { "name": "Phase", "type": "string", "jsonPath": ".status.phase" },
                    { "name": "Started", "type": "date", "jsonPath": ".status.startTime" },
                    { "name": "Second", "type": "string", "jsonPath": ".spec.params[?(@.name==\"b\")].type" },
                  ] },
            ],
        },
    })
}

/// A server at the beginning of its time, and the changes of the last request.
struct World {
    state: State,
    now: Timestamp,
    admission: Box<dyn Admission>,
    deltas: Vec<Arc<Delta>>,
    warnings: Vec<String>,
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const WIDGETS: &str = "/apis/example.dev/v1/namespaces/default/widgets";

impl World {
    fn new() -> Self {
        let table = ResourceTable::built_in().with_crd(&definition()).unwrap();
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        Self {
            state: State::new(table, 7, now),
            now,
            admission: Box::new(NoAdmission),
            deltas: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    fn handle(&mut self, method: Method, url: &str, content_type: &str, body: Vec<u8>) -> Handled {
        let mut request = Request::builder().method(method).uri(url);
        if !content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        self.request(&request.body(body).unwrap())
    }

    fn request(&mut self, request: &Request<Vec<u8>>) -> Handled {
        let context = Context { now: self.now, admission: &*self.admission };
        let handled = handle(&mut self.state, request, &context);
        self.deltas.clone_from(&handled.deltas);
        handled
    }

    fn answer(&mut self, handled: Handled) -> (u16, Value) {
        let Outcome::Response(response) = handled.outcome else { panic!("a stream, not a response") };
        let warnings = response.headers().get_all(header::WARNING).iter();
        self.warnings = warnings.map(|value| value.to_str().unwrap().to_owned()).collect();
        let body = serde_json::from_slice(response.body())
            .unwrap_or_else(|_| Value::from(String::from_utf8(response.body().clone()).unwrap()));
        (response.status().as_u16(), body)
    }

    fn call(&mut self, method: Method, url: &str, content_type: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let handled = self.handle(method, url, content_type, body);
        self.answer(handled)
    }

    fn get(&mut self, url: &str) -> (u16, Value) {
        self.call(Method::GET, url, "", &Value::Null)
    }

    fn post(&mut self, url: &str, body: &Value) -> (u16, Value) {
        self.call(Method::POST, url, "application/json", body)
    }

    fn put(&mut self, url: &str, body: &Value) -> (u16, Value) {
        self.call(Method::PUT, url, "application/json", body)
    }

    fn merge(&mut self, url: &str, body: &Value) -> (u16, Value) {
        self.call(Method::PATCH, url, "application/merge-patch+json", body)
    }

    fn delete(&mut self, url: &str, options: &Value) -> (u16, Value) {
        self.call(Method::DELETE, url, "application/json", options)
    }

    /// Creates, and insists that it works.
    fn make(&mut self, url: &str, body: &Value) -> Value {
        let (code, object) = self.post(url, body);
        assert_eq!(code, 201, "{object}");
        object
    }

    fn make_map(&mut self, name: &str) -> Value {
        self.make(MAPS, &json!({ "metadata": { "name": name } }))
    }

    fn make_widget(&mut self, name: &str) -> Value {
        self.make(WIDGETS, &json!({ "metadata": { "name": name }, "spec": { "image": "x" } }))
    }

    fn watch(&mut self, url: &str) -> WatchPlan {
        let handled = self.handle(Method::GET, url, "", Vec::new());
        match handled.outcome {
            Outcome::Watch(plan) => *plan,
            other => panic!("not a watch: {other:?}"),
        }
    }

    /// `KIND name` of each change of the last request.
    fn changes(&self) -> Vec<String> {
        self.deltas.iter().map(|delta| format!("{:?} {}", delta.kind, delta.key.name)).collect()
    }
}

/// `TYPE name` of each watch line.
fn told(lines: &[Vec<u8>]) -> Vec<String> {
    lines
        .iter()
        .map(|line| {
            let event: Value = serde_json::from_slice(line).unwrap();
            let kind = event["type"].as_str().unwrap();
            format!("{kind} {}", event["object"]["metadata"]["name"].as_str().unwrap_or_default())
        })
        .collect()
}
