//! Bodies are read before the kernel's lock is taken, and few large ones at a time.

use bytes::Bytes;
use futures::{FutureExt as _, future::join_all};
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower::Service as _;

use super::{PATIENCE, server};
use crate::server::{ResponseBody, Server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// More than is read at once.
const LARGE: usize = 300_000;

fn request(method: Method, url: &str, body: &Value) -> Request<Full<Bytes>> {
    let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let request = Request::builder().method(method).uri(url).header(header::CONTENT_TYPE, kind);
    request.body(Full::new(body)).unwrap()
}

fn map(name: &str, bytes: usize) -> Value {
    json!({ "metadata": { "name": name }, "data": { "key": "x".repeat(bytes) } })
}

async fn ask(server: &Server, request: Request<Full<Bytes>>) -> (u16, Value) {
    let response: Response<ResponseBody> = server.clone().call(request).await.unwrap();
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn whoever_waits_to_have_a_large_body_read_holds_up_nobody() {
    let server = server();
    // As if others' large bodies were being read.
    let taken = server.shared.bodies.take_all();
    let mut large =
        Box::pin(
            join_all(
                (0..3).map(|n| {
                    let server = &server;
                    async move {
                        ask(server, request(Method::POST, MAPS, &map(&format!("large-{n}"), LARGE))).await.0
                    }
                }),
            ),
        );
    assert_eq!(large.as_mut().now_or_never(), None);
    let rest = async {
        assert_eq!(ask(&server, request(Method::POST, MAPS, &map("small", 1))).await.0, 201);
        let patch = json!({ "data": { "key": "y" } });
        let url = format!("{MAPS}/small");
        assert_eq!(ask(&server, request(Method::PATCH, &url, &patch)).await.1["data"]["key"], "y");
        assert_eq!(ask(&server, request(Method::DELETE, &url, &Value::Null)).await.0, 200);
        assert_eq!(ask(&server, request(Method::GET, MAPS, &Value::Null)).await.1["items"], json!([]));
        assert_eq!(large.as_mut().now_or_never(), None);
        drop(taken);
        assert_eq!(large.await, [201; 3]);
        ask(&server, request(Method::GET, MAPS, &Value::Null)).await.1
    };
    let list = tokio::time::timeout(PATIENCE, rest).await.unwrap();
    for (n, found) in list["items"].as_array().unwrap().iter().enumerate() {
        assert_eq!(found["metadata"]["name"], format!("large-{n}"));
        assert_eq!(found["data"]["key"].as_str().unwrap().len(), LARGE);
    }
}

#[tokio::test]
async fn a_body_is_read_while_another_request_is_in_the_kernel() {
    let server = server();
    let request = Request::post(MAPS).header(header::CONTENT_TYPE, "application/json");
    let request = request.body(Bytes::from(map("large", LARGE).to_string())).unwrap();
    let (is_locked, locked) = oneshot::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let other = server.clone();
    let other = std::thread::spawn(move || {
        let kernel = other.shared.lock();
        is_locked.send(()).unwrap();
        // Until the other end is dropped.
        released.recv().unwrap_err();
        drop(kernel);
    });
    locked.await.unwrap();
    let read = tokio::time::timeout(PATIENCE, server.shared.bodies.read(&request)).await;
    drop(release);
    other.join().unwrap();
    assert!(read.is_ok(), "the body waits for the kernel");
}
