use serde_json::{Value, json};

use super::*;

fn resource(plural: &str) -> Resource {
    let mut all = crate::builtin::resources();
    let at = all.iter().position(|resource| resource.plural == plural).unwrap();
    all.swap_remove(at)
}

fn pod(containers: &Value) -> Value {
    json!({ "metadata": { "name": "p" }, "spec": { "containers": containers } })
}

fn plain() -> Value {
    pod(&json!([{ "name": "a" }]))
}

fn asking(cpu: &str) -> Value {
    pod(&json!([{ "name": "a", "resources": { "requests": { "cpu": cpu }, "limits": { "cpu": "4" } } }]))
}

fn quota(spec: &Value, hard: &Value, used: &Value) -> Value {
    json!({ "metadata": { "name": "q" }, "spec": spec, "status": { "hard": hard, "used": used } })
}

#[test]
fn what_does_not_fit_is_refused_with_the_servers_words() {
    for (object, hard, used, expected) in [
        (plain(), json!({ "pods": "1" }), json!({ "pods": "0" }), Ok(())),
        (
            plain(),
            json!({ "pods": "1" }),
            json!({ "pods": "1" }),
            Err("exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"),
        ),
        // Only what does not fit is told.
        (
            asking("600m"),
            json!({ "limits.cpu": "8", "pods": "9", "requests.cpu": "1" }),
            json!({ "limits.cpu": "4", "pods": "1", "requests.cpu": "500m" }),
            Err(
                "exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=500m, limited: requests.cpu=1",
            ),
        ),
        (
            asking("2"),
            json!({ "cpu": "1", "limits.cpu": "3" }),
            json!({ "cpu": "0", "limits.cpu": "0" }),
            Err(
                "exceeded quota: q, requested: cpu=2,limits.cpu=4, used: cpu=0,limits.cpu=0, limited: cpu=1,limits.cpu=3",
            ),
        ),
        (asking("500m"), json!({ "cpu": "1" }), json!({ "cpu": "500m" }), Ok(())),
        (
            pod(&json!([{ "name": "b" }, { "name": "a" }])),
            json!({ "limits.memory": "1Gi", "pods": "9", "requests.cpu": "1" }),
            json!({}),
            Err("failed quota: q: must specify limits.memory for: a,b; requests.cpu for: a,b"),
        ),
        // Other amounts than CPU and memory need not be stated.
        (plain(), json!({ "requests.example.com/gpu": "1" }), json!({}), Ok(())),
        (
            pod(&json!([{ "name": "a", "resources": { "requests": { "example.com/gpu": "2" } } }])),
            json!({ "requests.example.com/gpu": "1" }),
            json!({ "requests.example.com/gpu": "0" }),
            Err(
                "exceeded quota: q, requested: requests.example.com/gpu=2, used: requests.example.com/gpu=0, \
                 limited: requests.example.com/gpu=1",
            ),
        ),
        (
            plain(),
            json!({ "count/pods": "3" }),
            json!({ "count/pods": "3" }),
            Err("exceeded quota: q, requested: count/pods=1, used: count/pods=3, limited: count/pods=3"),
        ),
        (plain(), json!({ "count/taskruns.tekton.dev": "0", "secrets": "0" }), json!({}), Ok(())),
    ] {
        let found = judge(&quota(&json!({}), &hard, &used), &resource("pods"), None, &object);
        assert_eq!(found, expected.map_err(str::to_owned), "{hard}");
    }
}

#[test]
fn a_claim_may_grow_by_what_is_left() {
    let claim = |size: &str| {
        json!({ "metadata": { "name": "c" },
                "spec": { "storageClassName": "fast", "resources": { "requests": { "storage": size } } } })
    };
    let hard =
        json!({ "fast.storageclass.storage.k8s.io/requests.storage": "10Gi", "requests.storage": "20Gi" });
    let used =
        json!({ "fast.storageclass.storage.k8s.io/requests.storage": "8Gi", "requests.storage": "8Gi" });
    let quota = quota(&json!({}), &hard, &used);
    let claims = resource("persistentvolumeclaims");
    let before = claim("8Gi");
    for (old, size, fits) in
        [(Some(&before), "10Gi", true), (Some(&before), "11Gi", false), (None, "3Gi", false)]
    {
        assert_eq!(judge(&quota, &claims, old, &claim(size)).is_ok(), fits, "{size}");
    }
}

#[test]
fn scopes_say_which_pods_count() {
    let with = |field: &str, value: Value| {
        let mut pod = plain();
        pod["spec"][field] = value;
        pod
    };
    let ending = with("activeDeadlineSeconds", json!(60));
    let urgent = with("priorityClassName", json!("high"));
    let scopes = |names: &[&str]| json!({ "scopes": names });
    let select = |operator: &str, values: &[&str]| {
        json!({ "scopeSelector": { "matchExpressions": [
            { "scopeName": "PriorityClass", "operator": operator, "values": values },
        ] } })
    };
    for (spec, pod, expected) in [
        (json!({}), plain(), true),
        (scopes(&["Terminating"]), ending.clone(), true),
        (scopes(&["Terminating"]), plain(), false),
        (scopes(&["NotTerminating"]), ending, false),
        (scopes(&["BestEffort"]), plain(), true),
        (scopes(&["BestEffort"]), asking("1"), false),
        (scopes(&["NotBestEffort"]), asking("1"), true),
        (scopes(&["NotTerminating", "BestEffort"]), asking("1"), false),
        (scopes(&["Unheard"]), plain(), false),
        (select("In", &["high"]), urgent.clone(), true),
        (select("In", &["high"]), plain(), false),
        (select("NotIn", &["high"]), urgent.clone(), false),
        (select("Exists", &[]), urgent.clone(), true),
        (select("DoesNotExist", &[]), urgent, false),
    ] {
        let text = format!("{spec} {pod}");
        assert_eq!(covers(&json!({ "spec": spec }), &resource("pods"), &pod), expected, "{text}");
    }
    let scoped = json!({ "spec": { "scopes": ["BestEffort"] } });
    assert!(!covers(&scoped, &resource("secrets"), &json!({})), "scopes are about pods");
}

#[test]
fn what_has_ended_is_only_there() {
    let mut pod = asking("1");
    let names = |pod: &Value| usage(&resource("pods"), pod).into_keys().collect::<Vec<_>>();
    assert_eq!(names(&pod), ["count/pods", "cpu", "limits.cpu", "pods", "requests.cpu"]);
    pod["status"] = json!({ "phase": "Failed" });
    assert_eq!(names(&pod), ["count/pods"]);
    let service = json!({ "spec": { "type": "LoadBalancer", "ports": [{}, {}] } });
    let used = usage(&resource("services"), &service);
    assert_eq!(
        resources::listed(&used),
        "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2"
    );
}
