//! Quotas, ranges of limits and pod security, from requests to answers.

use serde_json::{Value, json};

use super::{PODS, WIDGETS, World};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const RANGES: &str = "/api/v1/namespaces/default/limitranges";

fn pod(name: &str, resources: &Value) -> Value {
    json!({ "metadata": { "name": name },
            "spec": { "containers": [{ "name": "a", "image": "i", "resources": resources }] } })
}

impl World {
    fn quota(&mut self, name: &str, spec: &Value) {
        self.make(QUOTAS, &json!({ "metadata": { "name": name }, "spec": spec }));
    }

    fn used(&mut self, name: &str) -> Value {
        self.get(&format!("{QUOTAS}/{name}")).1["status"]["used"].clone()
    }
}

#[test]
fn a_full_quota_refuses_and_what_ends_makes_room() {
    let mut world = World::new();
    world.make(PODS, &pod("first", &json!({})));
    world.quota("one", &json!({ "hard": { "pods": "1", "count/pods": "2" } }));
    assert_eq!(world.used("one"), json!({ "pods": "1", "count/pods": "1" }));
    let (code, status) = world.post(PODS, &pod("second", &json!({})));
    assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")));
    assert_eq!(
        status["message"],
        "pods \"second\" is forbidden: exceeded quota: one, requested: pods=1, used: pods=1, limited: pods=1"
    );
    assert_eq!(status["details"], json!({ "name": "second", "kind": "pods" }));
    world.merge(&format!("{PODS}/first/status"), &json!({ "status": { "phase": "Succeeded" } }));
    assert_eq!(world.used("one"), json!({ "pods": "0", "count/pods": "1" }));
    world.make(PODS, &pod("second", &json!({})));
    assert_eq!(world.used("one"), json!({ "pods": "1", "count/pods": "2" }));
    let (_, status) = world.post(PODS, &pod("third", &json!({})));
    assert!(status["message"].as_str().unwrap().contains("requested: count/pods=1,pods=1, used"), "{status}");
    world.delete(&format!("{PODS}/first"), &Value::Null);
    world.delete(&format!("{PODS}/second"), &Value::Null);
    assert_eq!(world.used("one"), json!({ "pods": "0", "count/pods": "0" }));
}

#[test]
fn custom_resources_are_counted_and_dry_runs_are_not() {
    let mut world = World::new();
    world.quota("widgets", &json!({ "hard": { "count/widgets.example.dev": "1" } }));
    let widget = |name: &str| json!({ "metadata": { "name": name }, "spec": { "image": "x" } });
    assert_eq!(world.post(&format!("{WIDGETS}?dryRun=All"), &widget("a")).0, 201);
    assert_eq!(world.used("widgets"), json!({ "count/widgets.example.dev": "0" }));
    world.make(WIDGETS, &widget("a"));
    assert_eq!(world.merge(&format!("{WIDGETS}/a"), &json!({ "spec": { "count": 3 } })).0, 200);
    let (code, status) = world.post(WIDGETS, &widget("b"));
    assert_eq!(code, 403);
    assert_eq!(
        status["message"],
        "widgets.example.dev \"b\" is forbidden: exceeded quota: widgets, requested: count/widgets.example.dev=1, \
         used: count/widgets.example.dev=1, limited: count/widgets.example.dev=1"
    );
}

#[test]
fn the_status_of_a_quota_follows_its_spec() {
    let mut world = World::new();
    world.quota("q", &json!({ "hard": { "pods": "1000m", "requests.cpu": "2" } }));
    world.make(PODS, &pod("p", &json!({ "limits": { "cpu": "0.5" } })));
    assert_eq!(world.used("q"), json!({ "pods": "1", "requests.cpu": "500m" }), "requests follow limits");
    world.merge(&format!("{QUOTAS}/q"), &json!({ "spec": { "hard": { "requests.cpu": null } } }));
    let (_, quota) = world.get(&format!("{QUOTAS}/q"));
    assert_eq!(quota["status"], json!({ "hard": { "pods": "1" }, "used": { "pods": "1" } }));
}

#[test]
fn ranges_fill_in_and_refuse() {
    let mut world = World::new();
    let item = json!({ "type": "Container", "max": { "cpu": "1" }, "default": { "cpu": "500m" } });
    let range = world.make(RANGES, &json!({ "metadata": { "name": "r" }, "spec": { "limits": [item] } }));
    assert_eq!(range["spec"]["limits"][0]["defaultRequest"], json!({ "cpu": "500m" }));
    let made = world.make(PODS, &pod("p", &json!({})));
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({ "limits": { "cpu": "500m" }, "requests": { "cpu": "500m" } })
    );
    let (code, status) = world.post(PODS, &pod("big", &json!({ "limits": { "cpu": 2 } })));
    assert_eq!(code, 403);
    assert_eq!(
        status["message"],
        "pods \"big\" is forbidden: maximum cpu usage per Container is 1, but limit is 2"
    );
}

#[test]
fn quantities_are_kept_canonical_and_nonsense_is_refused() {
    let mut world = World::new();
    let made = world.make(PODS, &pod("p", &json!({ "requests": { "cpu": 1, "memory": "1024Mi" } })));
    let kept = &made["spec"]["containers"][0]["resources"]["requests"];
    assert_eq!(kept, &json!({ "cpu": "1", "memory": "1Gi" }));
    let (code, status) = world.post(PODS, &pod("q", &json!({ "requests": { "cpu": "much" } })));
    assert_eq!(code, 400);
    assert!(status["message"].as_str().unwrap().contains("quantities must match"), "{status}");
}

const NAMESPACES: &str = "/api/v1/namespaces";

#[test]
fn namespaces_say_what_pods_may_ask_for() {
    let mut world = World::new();
    world.make(PODS, &pod("before", &json!({})));
    let url = format!("{NAMESPACES}/default");
    let labels = json!({ "pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted" });
    world.merge(&url, &json!({ "metadata": { "labels": labels } }));
    assert!(world.warnings.is_empty(), "{:?}", world.warnings);

    let mut shared = pod("shared", &json!({}));
    shared["spec"]["hostNetwork"] = json!(true);
    let (code, status) = world.post(PODS, &shared);
    assert_eq!(code, 403);
    assert_eq!(
        status["message"],
        "pods \"shared\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    assert_eq!(world.post(PODS, &pod("plain", &json!({}))).0, 201);
    assert_eq!(world.warnings.len(), 1);
    assert!(
        world.warnings[0]
            .starts_with("299 - \"would violate PodSecurity \\\"restricted:latest\\\": allowPriv"),
        "{:?}",
        world.warnings
    );
    // What does not change what runs is not judged again.
    world.merge(&format!("{PODS}/before"), &json!({ "metadata": { "labels": { "a": "b" } } }));
    assert!(world.warnings.is_empty(), "{:?}", world.warnings);

    let labels = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
    world.merge(&url, &json!({ "metadata": { "labels": labels } }));
    let told: Vec<&str> = world.warnings.iter().map(|warning| &warning[7..warning.len() - 1]).collect();
    assert_eq!(
        told,
        [
            "existing pods in namespace \\\"default\\\" violate the new PodSecurity enforce level \
             \\\"restricted:latest\\\"",
            "before (and 1 other pod): allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != \
             true, seccompProfile",
        ]
    );
    let labels = json!({ "pod-security.kubernetes.io/enforce": "strict" });
    let (code, status) = world.merge(&url, &json!({ "metadata": { "labels": labels } }));
    assert_eq!(code, 422);
    assert_eq!(
        status["message"],
        "Namespace \"default\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \
         \"strict\": must be one of privileged, baseline, restricted"
    );
}
