//! What holds whatever is asked, in whatever order.

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, Request, header};
use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};

use super::{MAPS, PODS, WIDGETS, World};
use crate::{Outcome, WatchPlan};

#[derive(Clone, Debug)]
enum Step {
    Create { widget: bool, name: usize, label: usize, owner: Option<usize>, finalizer: bool },
    Change { widget: bool, name: usize, label: usize },
    Release { widget: bool, name: usize },
    Delete { widget: bool, name: usize, policy: usize },
    DeleteAll { label: usize },
    Watch { streaming: bool, selected: bool },
}

const NAMES: [&str; 3] = ["a", "b", "c"];
const LABELS: [&str; 2] = ["x", "y"];
const POLICIES: [&str; 3] = ["Background", "Foreground", "Orphan"];

fn step() -> impl Strategy<Value = Step> {
    let (widget, name, label) = (any::<bool>(), 0..NAMES.len(), 0..LABELS.len());
    prop_oneof![
        4 => (widget, name.clone(), label.clone(), proptest::option::of(0..NAMES.len()), any::<bool>()).prop_map(
            |(widget, name, label, owner, finalizer)| Step::Create { widget, name, label, owner, finalizer }
        ),
        3 => (widget, name.clone(), label.clone())
            .prop_map(|(widget, name, label)| Step::Change { widget, name, label }),
        2 => (widget, name.clone()).prop_map(|(widget, name)| Step::Release { widget, name }),
        3 => (widget, name, 0..POLICIES.len())
            .prop_map(|(widget, name, policy)| Step::Delete { widget, name, policy }),
        1 => label.prop_map(|label| Step::DeleteAll { label }),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(streaming, selected)| Step::Watch { streaming, selected }),
    ]
}

fn collection(widget: bool) -> &'static str {
    if widget { WIDGETS } else { MAPS }
}

/// A client that keeps a copy by list and watch, as reflectors do.
struct Mirror {
    plan: WatchPlan,
    selector: &'static str,
    copy: BTreeMap<String, Value>,
    version: u64,
}

impl Mirror {
    fn new(world: &mut World, streaming: bool, selected: bool) -> Self {
        let selector = if selected { "labelSelector=l%3Dx" } else { "" };
        let mut copy = BTreeMap::new();
        let mut url = format!("{MAPS}?{selector}&watch=true&allowWatchBookmarks=true");
        if streaming {
            url.push_str("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
        } else {
            let (_, list) = world.get(&format!("{MAPS}?{selector}"));
            copy = by_name(&list);
            url = format!("{url}&resourceVersion={}", list["metadata"]["resourceVersion"].as_str().unwrap());
        }
        let mut plan = world.watch(&url);
        let initial = std::mem::take(&mut plan.initial);
        let mut mirror = Self { plan, selector, copy, version: 0 };
        for line in initial {
            mirror.hear(&line);
        }
        // The initial objects of a stream come by name, the changes after them by version.
        mirror.version = 0;
        mirror
    }

    fn follow(&mut self, world: &World) {
        for delta in &world.deltas {
            if let Some(line) = self.plan.event(delta, world.now) {
                self.hear(&line);
                assert!(delta.resource_version > self.version, "out of order");
                self.version = delta.resource_version;
            }
        }
    }

    fn hear(&mut self, line: &[u8]) {
        let event: Value = serde_json::from_slice(line).unwrap();
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let known = self.copy.contains_key(&name);
        match event["type"].as_str().unwrap() {
            "ADDED" => assert!(!known, "{name} was there already"),
            "MODIFIED" => assert!(known, "{name} was never added"),
            "DELETED" => {
                assert!(self.copy.remove(&name).is_some(), "{name} was never added");
                return;
            }
            "BOOKMARK" => return,
            other => panic!("unexpected {other}"),
        }
        self.copy.insert(name, event["object"].clone());
    }
}

fn by_name(list: &Value) -> BTreeMap<String, Value> {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| (item["metadata"]["name"].as_str().unwrap().to_owned(), item.clone())).collect()
}

fn play(world: &mut World, step: &Step, mirrors: &mut Vec<Mirror>) {
    match step {
        Step::Create { widget, name, label, owner, finalizer } => {
            let mut object = json!({
                "metadata": { "name": NAMES[*name], "labels": { "l": LABELS[*label] } }, "spec": { "image": "i" },
            });
            if *finalizer {
                object["metadata"]["finalizers"] = json!(["example.dev/f"]);
            }
            if let Some(owner) = owner {
                let (code, found) = world.get(&format!("{WIDGETS}/{}", NAMES[*owner]));
                let uid = if code == 200 { found["metadata"]["uid"].clone() } else { json!("gone") };
                object["metadata"]["ownerReferences"] = json!([{
                    "apiVersion": "example.dev/v1", "kind": "Widget", "name": NAMES[*owner], "uid": uid,
                    "blockOwnerDeletion": true,
                }]);
            }
            world.post(collection(*widget), &object);
        }
        Step::Change { widget, name, label } => {
            let patch = json!({ "metadata": { "labels": { "l": LABELS[*label] } } });
            world.merge(&format!("{}/{}", collection(*widget), NAMES[*name]), &patch);
        }
        Step::Release { widget, name } => {
            let patch = json!({ "metadata": { "finalizers": null } });
            world.merge(&format!("{}/{}", collection(*widget), NAMES[*name]), &patch);
        }
        Step::Delete { widget, name, policy } => {
            let options = json!({ "propagationPolicy": POLICIES[*policy] });
            world.delete(&format!("{}/{}", collection(*widget), NAMES[*name]), &options);
        }
        Step::DeleteAll { label } => {
            world.delete(&format!("{MAPS}?labelSelector=l%3D{}", LABELS[*label]), &Value::Null);
        }
        Step::Watch { streaming, selected } => {
            let mirror = Mirror::new(world, *streaming, *selected);
            mirrors.push(mirror);
            world.deltas.clear();
        }
    }
    for mirror in mirrors.iter_mut() {
        mirror.follow(world);
    }
}

/// At rest nothing is left to collect: every owner that is named is there, and nothing in deletion waits for nothing.
fn check_rest(world: &mut World) {
    let uid = |object: &Value| object["metadata"]["uid"].as_str().unwrap().to_owned();
    let mut objects = by_name(&world.get(WIDGETS).1).into_values().collect::<Vec<_>>();
    let uids: BTreeSet<String> = objects.iter().map(uid).collect();
    objects.extend(by_name(&world.get(MAPS).1).into_values());
    let all: BTreeSet<String> = objects.iter().map(uid).collect();
    assert_eq!(all.len(), objects.len(), "two objects share a UID");
    for object in &objects {
        let meta = &object["metadata"];
        let deleting = !meta["deletionTimestamp"].is_null();
        let held = meta["finalizers"].as_array().is_some_and(|list| !list.is_empty());
        assert!(held || !deleting, "nothing holds {object}");
        let owners = meta["ownerReferences"].as_array().cloned().unwrap_or_default();
        let owned = owners.iter().any(|owner| uids.contains(owner["uid"].as_str().unwrap()));
        assert!(owners.is_empty() || owned || deleting, "nobody owns {object}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whoever_lists_and_watches_sees_what_is_there(steps in vec(step(), 1..60)) {
        let mut world = World::new();
        let mut mirrors = Vec::new();
        for step in &steps {
            play(&mut world, step, &mut mirrors);
            check_rest(&mut world);
        }
        for mirror in &mirrors {
            let (_, list) = world.get(&format!("{MAPS}?{}", mirror.selector));
            prop_assert_eq!(&by_name(&list), &mirror.copy);
        }
    }

    #[test]
    fn the_same_requests_give_the_same_world(steps in vec(step(), 1..30)) {
        let ends = [(); 2].map(|()| {
            let mut world = World::new();
            for step in &steps {
                play(&mut world, step, &mut Vec::new());
            }
            (world.get(WIDGETS).1, world.get(MAPS).1)
        });
        prop_assert_eq!(&ends[0], &ends[1]);
    }

    #[test]
    fn a_dry_run_answers_as_the_real_one_and_changes_nothing(steps in vec(step(), 1..20)) {
        let mut world = World::new();
        for step in &steps {
            play(&mut world, step, &mut Vec::new());
        }
        let before = (world.state.version(), world.get(WIDGETS).1, world.get(MAPS).1);
        for name in NAMES {
            let object = json!({ "metadata": { "name": name }, "spec": { "image": "i" } });
            let dry = world.post(&format!("{WIDGETS}?dryRun=All"), &object).0;
            world.delete(&format!("{MAPS}/{name}?dryRun=All"), &Value::Null);
            let after = (world.state.version(), world.get(WIDGETS).1, world.get(MAPS).1);
            prop_assert_eq!(&before, &after);
            let mut twin = World::new();
            twin.state = world.state.clone();
            prop_assert_eq!(dry, twin.post(WIDGETS, &object).0);
        }
    }

    #[test]
    fn nothing_a_client_sends_breaks_the_server(
        method in select(vec!["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE"]),
        path in select(vec![
            MAPS, PODS, WIDGETS, "/api/v1/namespaces", "/api/v1/namespaces/default", "/apis", "/openapi/v3", "/api/v1",
            "/api/v1/namespaces/default/pods/p", "/api/v1/namespaces/default/pods/p/log",
            "/api/v1/namespaces/default/pods/p/status", "/api/v1/namespaces/default/pods/p/binding",
            "/apis/example.dev/v1/namespaces/default/widgets/w", "/api/v1/events", "/api/v1/namespaces/default/secrets",
        ]),
        rest in prop_oneof![9 => Just(String::new()), 1 => "[ -~]{0,12}"],
        query in select(vec![
            "", "watch=true", "watch=1&resourceVersion=0", "limit=-1", "limit=1", "continue=x", "dryRun=All",
            "labelSelector=%00", "fieldSelector=metadata.name", "resourceVersion=99999999999999999999", "tailLines=-5",
            "gracePeriodSeconds=x", "propagationPolicy=Odd", "fieldValidation=Strict", "sinceTime=never",
        ]),
        content_type in select(vec![
            "", "application/json", "application/merge-patch+json", "application/json-patch+json",
            "application/strategic-merge-patch+json", "text/plain; charset=utf-8",
        ]),
        body in json_body(),
    ) {
        let mut world = World::new();
        world.make(PODS, &json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c" }] } }));
        world.make_widget("w");
        let rest = percent_encoding::utf8_percent_encode(&rest, percent_encoding::NON_ALPHANUMERIC);
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("{path}{rest}?{query}"))
            .header(header::CONTENT_TYPE, content_type)
            .body(body.into_bytes())
            .unwrap();
        let handled = world.request(&request);
        if let Outcome::Response(response) = handled.outcome {
            let code = response.status().as_u16();
            prop_assert!(code < 500 || code == 504, "{}", String::from_utf8_lossy(response.body()));
        }
        // Whatever it was, the server goes on.
        prop_assert_eq!(world.get("/healthz").0, 200);
        prop_assert_eq!(world.get("/api/v1/configmaps").0, 200);
    }
}

/// JSON that looks much like what the server works on, and text that is none.
fn json_body() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        select(vec![
            "",
            "p",
            "w",
            "x",
            "Widget",
            "Pod",
            "v1",
            "example.dev/v1",
            "/metadata/name",
            "replace",
            "remove"
        ])
        .prop_map(Value::from),
    ];
    let keys = select(vec![
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        "status",
        "name",
        "labels",
        "annotations",
        "finalizers",
        "ownerReferences",
        "uid",
        "resourceVersion",
        "deletionTimestamp",
        "containers",
        "image",
        "params",
        "op",
        "path",
        "value",
        "data",
        "stringData",
        "$patch",
        "target",
        "preconditions",
        "gracePeriodSeconds",
        "generateName",
    ]);
    let value = leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((keys.clone(), inner), 0..6).prop_map(|pairs| {
                pairs
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            }),
        ]
    });
    prop_oneof![9 => value.prop_map(|value: Value| value.to_string()), 1 => "[ -~]{0,30}"]
}
