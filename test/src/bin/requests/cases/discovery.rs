//! What clients ask a server about itself. No IO.

use serde_json::json;

use crate::case::{Case, get, post};

pub(super) fn all() -> Vec<Case> {
    vec![
        Case::new("discovery/paths")
            .send("group", get("/apis/tekton.dev"))
            .send("resources", get("/apis/tekton.dev/v1"))
            .send("beta resources", get("/apis/tekton.dev/v1beta1"))
            .send("leases", get("/apis/coordination.k8s.io/v1"))
            .send("roles", get("/apis/rbac.authorization.k8s.io/v1"))
            .send("unknown group", get("/apis/nothing.example.dev"))
            .send("unknown version", get("/apis/tekton.dev/v9"))
            .send("unknown core version", get("/api/v9"))
            .send("unknown resource", get("/api/v1/nothings"))
            .send("unknown resource in a namespace", get("/api/v1/namespaces/<ns>/nothings"))
            .send("unknown custom resource", get("/apis/tekton.dev/v1/namespaces/<ns>/nothings"))
            .send("health", get("/healthz"))
            .send("live", get("/livez"))
            .send("ready", get("/readyz"))
            .send("post", post("/api", &json!({})))
            .send("cluster-scoped in a namespace", get("/api/v1/namespaces/<ns>/nodes"))
            .send("object without its namespace", get("/api/v1/pods/a")),
        Case::new("discovery/reviews")
            .send("may", post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": { "resourceAttributes": { "namespace": "<ns>", "verb": "get", "resource": "pods" } },
            })))
            .send("somebody may not", post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                "spec": { "user": "nobody", "resourceAttributes": {
                    "namespace": "<ns>", "verb": "get", "resource": "pods",
                } },
            })))
            .send("nothing asked", post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {},
            })))
            .send("read", get("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")),
    ]
}
