use axum::body::Body;
use axum::http::{self, StatusCode};
use http_body_util::BodyExt;
use rstest::rstest;
use serde_json::json;
use tower::ServiceExt;

use super::*;

async fn review(path: &str, request: Value) -> Value {
    let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    let config: ConfigSource = Arc::new(Arc::default);
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    let response = router(config, Settings { release: "v1".into() }, metrics).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap()
}

fn create(object: &Value) -> Value {
    json!({
        "uid": "u",
        "kind": {"group": "tekton.dev", "version": "v1", "kind": object["kind"]},
        "resource": {"group": "tekton.dev", "version": "v1", "resource": "taskruns"},
        "operation": "CREATE",
        "userInfo": {},
        "object": object,
    })
}

fn task_run(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "tekton.dev/v1", "kind": "TaskRun", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn defaulting_answers_with_a_patch() {
    let object = task_run("r", &json!({"taskRef": {"name": "t"}}));
    let answer = review("/defaulting", create(&object)).await;
    assert_eq!(answer["response"]["uid"], "u");
    assert_eq!(answer["response"]["allowed"], true);
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let bytes: Vec<u8> = serde_json::from_value(answer["response"]["patch"].clone()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&bytes).unwrap();
    let mut patched = object;
    json_patch::patch(&mut patched, &patch).unwrap();
    assert_eq!(patched["spec"]["taskRef"], json!({"name": "t", "kind": "Task"}));
    assert_eq!(patched["metadata"]["labels"]["tekton.dev/task"], "t");
}

#[rstest]
#[case(
    "/defaulting",
    task_run("r", &json!({"nonsense": 1})),
    "mutation failed: cannot decode incoming new object: unknown field \"spec.nonsense\""
)]
#[case(
    "/resource-validation",
    task_run("No", &json!({"taskRef": {"name": "t"}})),
    "validation failed: invalid resource name \"No\": must be a valid DNS label: metadata.name"
)]
#[tokio::test]
async fn refusals_are_bad_requests(#[case] path: &str, #[case] object: Value, #[case] message: &str) {
    let answer = review(path, create(&object)).await;
    assert_eq!(answer["response"]["allowed"], false);
    assert_eq!(answer["response"]["status"]["code"], 400);
    assert_eq!(answer["response"]["status"]["reason"], "BadRequest");
    assert_eq!(answer["response"]["status"]["message"], message);
}

#[tokio::test]
async fn a_review_without_a_request_is_refused() {
    let answer = review("/defaulting", Value::Null).await;
    assert_eq!(answer["response"]["allowed"], false);
}
