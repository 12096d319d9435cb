use axum::body::Body;
use axum::http::{self, StatusCode};
use http_body_util::BodyExt;
use prometheus::{Registry, TextEncoder};
use proptest::prelude::*;
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
    let metrics = Metrics::register(&Registry::new()).unwrap();
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

fn fresh() -> (Router, Registry) {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    (router(Arc::new(Arc::default), Settings::default(), metrics), registry)
}

fn posted(body: Body) -> http::Request<Body> {
    http::Request::post("/defaulting").header("content-type", "application/json").body(body).unwrap()
}

#[tokio::test]
async fn bad_values_of_config_maps_are_refused() {
    let mut request = create(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "feature-flags"},
        "data": {"enable-api-fields": "omega"},
    }));
    request["kind"] = json!({"group": "", "version": "v1", "kind": "ConfigMap"});
    let answer = review("/config-validation", request).await;
    assert_eq!(answer["response"]["allowed"], false);
    assert_eq!(answer["response"]["status"]["code"], 400);
}

#[rstest]
#[case::no_json("{", StatusCode::BAD_REQUEST)]
#[case::nothing("", StatusCode::BAD_REQUEST)]
#[case::another_shape("[1]", StatusCode::UNPROCESSABLE_ENTITY)]
#[case::deep(&format!("{{\"request\":{{\"object\":{{\"spec\":{}", "[".repeat(10_000)), StatusCode::BAD_REQUEST)]
#[case::too_large(&" ".repeat(REVIEW_LIMIT + 1), StatusCode::PAYLOAD_TOO_LARGE)]
#[tokio::test]
async fn what_is_no_review_is_refused(#[case] body: &str, #[case] status: StatusCode) {
    let response = fresh().0.oneshot(posted(Body::from(body.to_owned()))).await.unwrap();
    assert_eq!(response.status(), status);
}

proptest! {
    #[test]
    fn whatever_comes_there_is_an_answer(operation in "CREATE|UPDATE|DELETE|[a-z]*", kind in "TaskRun|Pipeline|[a-z]*", object in json_value()) {
        let mut asked = create(&object);
        asked["operation"] = json!(operation);
        asked["kind"]["kind"] = json!(kind);
        let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": asked});
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let response = runtime.block_on(fresh().0.oneshot(posted(Body::from(body.to_string())))).unwrap();
        prop_assert!(!response.status().is_server_error());
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".*".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let key = "apiVersion|kind|metadata|name|spec|steps|tasks|params|[a-z]*";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// A body of which this much comes, and then nothing for ever.
fn endless(size: usize) -> Body {
    let begun = futures::stream::iter([Ok::<_, std::io::Error>(vec![b' '; size])]);
    Body::from_stream(begun.chain(futures::stream::pending()))
}

#[tokio::test]
async fn too_much_at_once_is_turned_away_with_a_hint_to_come_again() {
    let (router, registry) = fresh();
    let large = || posted(Body::from(vec![b' '; SMALL + 1]));
    let mut waiting: Vec<_> =
        (0..LARGE).map(|_| Box::pin(router.clone().oneshot(posted(endless(SMALL + 1))))).collect();
    for request in &mut waiting {
        assert!(futures::poll!(request).is_pending());
    }
    let response = router.clone().oneshot(large()).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "1");
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    assert!(text.contains("\nropewalk_webhook_requests_shed_total 1\n"), "{text}");
    let response = router.clone().oneshot(posted(Body::empty())).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST, "small ones are still read");

    waiting.pop();
    let response = router.oneshot(large()).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn who_sends_slowly_keeps_nobody_out() {
    let (router, _) = fresh();
    let mut waiting: Vec<_> =
        (0..512).map(|_| Box::pin(router.clone().oneshot(posted(endless(1))))).collect();
    for request in &mut waiting {
        assert!(futures::poll!(request).is_pending());
    }
    let response = router.oneshot(posted(Body::empty())).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_end_is_given_up() {
    let endless = Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let response = fresh().0.oneshot(posted(endless)).await.unwrap();
    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test]
async fn answers_are_counted_by_kinds_we_know() {
    let (router, registry) = fresh();
    for kind in ["TaskRun", "Nonsense"] {
        let object =
            json!({"apiVersion": "tekton.dev/v1", "kind": kind, "metadata": {"name": "r"}, "spec": {}});
        let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": create(&object)});
        router.clone().oneshot(posted(Body::from(body.to_string()))).await.unwrap();
    }
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    for kind in ["TaskRun", "other"] {
        let line = format!(
            "ropewalk_webhook_requests_total{{allowed=\"true\",kind=\"{kind}\",operation=\"create\",\
             webhook=\"webhook.pipeline.tekton.dev\"}} 1\n"
        );
        assert!(text.contains(&line), "{text}");
    }
}

#[tokio::test]
async fn objects_are_converted() {
    let task = |version: &str, resources: &str| {
        json!({
            "apiVersion": format!("tekton.dev/{version}"), "kind": "Task", "metadata": {"name": "t"},
            "spec": {"steps": [{"image": "i", resources: {"limits": {"cpu": "1"}}}]},
        })
    };
    let body = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
        "request": {"uid": "u", "desiredAPIVersion": "tekton.dev/v1beta1", "objects": [task("v1", "computeResources")]},
    });
    let request = http::Request::post("/resource-conversion")
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    let response = fresh().0.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(answer["response"]["result"]["status"], "Success");
    assert_eq!(answer["response"]["convertedObjects"], json!([task("v1beta1", "resources")]));
}
