//! What watches cost that wait for something to happen: each a small, bounded amount, whatever happens meanwhile.

#![allow(clippy::unwrap_used, reason = "a test program")]

use std::{sync::Arc, time::Duration};

use futures::FutureExt as _;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use jiff::Timestamp;
use peak_alloc::PeakAlloc;
use ropewalk_apiserver::{NoAdmission, ResourceTable, State};
use ropewalk_standalone::server::{NoLogs, ResponseBody, Server};
use serde_json::{Value, json};
use tower::ServiceExt as _;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const WATCHERS: usize = 1000;

/// Bytes that a watch may take which waits: its plan and its queue, which grows with what is in it.
const EACH: usize = 8 * 1024;

/// Bytes that a change may take in the queue of a watch that does not look: a reference to it.
const QUEUED: usize = 64;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn send(server: &Server, method: Method, url: &str, body: &Value) -> ResponseBody {
    let request = Request::builder().method(method).uri(url).header("content-type", "application/json");
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let response = server.clone().oneshot(request.body(Full::from(body)).unwrap()).await.unwrap();
    assert!(response.status().is_success(), "{url}: {}", response.status());
    response.into_body()
}

async fn next(watch: &mut ResponseBody) -> Value {
    let frame = watch.frame().await.unwrap().unwrap();
    serde_json::from_slice(&frame.into_data().unwrap()).unwrap()
}

async fn open(server: &Server) -> Vec<ResponseBody> {
    let list = send(server, Method::GET, MAPS, &Value::Null).await.collect().await.unwrap().to_bytes();
    let version = serde_json::from_slice::<Value>(&list).unwrap()["metadata"]["resourceVersion"].clone();
    let url =
        format!("{MAPS}?watch=true&allowWatchBookmarks=true&resourceVersion={}", version.as_str().unwrap());
    let mut watches = Vec::with_capacity(WATCHERS);
    for _ in 0..WATCHERS {
        let mut watch = send(server, Method::GET, &url, &Value::Null).await;
        assert!(watch.frame().now_or_never().is_none(), "nothing has happened yet");
        watches.push(watch);
    }
    watches
}

fn map(name: &str, data: &str) -> Value {
    json!({ "metadata": { "name": name }, "data": { "key": data } })
}

/// One test, as the allocator counts for all threads. Time is the runtime's own: a minute passes at once.
#[tokio::test(start_paused = true)]
async fn a_thousand_watches_that_wait_take_little_however_much_is_written() {
    const CHANGES: usize = 20;
    const LARGE: usize = 200_000;
    let state = State::new(ResourceTable::built_in(), 1, Timestamp::UNIX_EPOCH);
    let server = Server::new(state, Arc::new(NoAdmission), Arc::new(NoLogs));
    // What a process has once is made by whoever comes first.
    drop(open(&server).await);
    send(&server, Method::POST, MAPS, &map("first", "")).await;

    let before = MEMORY.current_usage();
    let mut watches = open(&server).await;
    let idle = MEMORY.current_usage() - before;
    println!("{WATCHERS} watches take {} bytes each", idle / WATCHERS);
    assert!(idle < WATCHERS * EACH, "{} bytes each", idle / WATCHERS);

    // A bookmark is all they hear of what is none of their business.
    let secret = json!({ "metadata": { "name": "s" } });
    send(&server, Method::POST, "/api/v1/namespaces/default/secrets", &secret).await;
    tokio::time::advance(Duration::from_secs(61)).await;
    for watch in &mut watches {
        assert_eq!(next(watch).await["type"], "BOOKMARK");
    }
    let told = MEMORY.current_usage() - before;
    assert!(told < WATCHERS * EACH, "{} bytes each, once they have heard something", told / WATCHERS);

    // What is for all of them is there once, however long they take to look.
    let unwatched = MEMORY.current_usage();
    for index in 0..CHANGES {
        let url = "/api/v1/namespaces/kube-system/configmaps";
        send(&server, Method::POST, url, &map(&format!("m{index}"), &"x".repeat(LARGE))).await;
    }
    let alone = MEMORY.current_usage() - unwatched;
    let watched = MEMORY.current_usage();
    for index in 0..CHANGES {
        send(&server, Method::POST, MAPS, &map(&format!("m{index}"), &"x".repeat(LARGE))).await;
    }
    let queued = (MEMORY.current_usage() - watched).saturating_sub(alone);
    println!("{CHANGES} changes take {} bytes in each queue, and {alone} alone", queued / WATCHERS);
    assert!(alone > CHANGES * LARGE, "{alone} bytes for {CHANGES} objects");
    assert!(queued < WATCHERS * (QUEUED * CHANGES + 1024), "{} bytes each", queued / WATCHERS);
    for index in 0..CHANGES {
        assert_eq!(next(&mut watches[0]).await["object"]["metadata"]["name"], format!("m{index}"));
    }

    // Whoever has gone takes it along, at the latest with the next change.
    let open = MEMORY.current_usage();
    drop(watches);
    send(&server, Method::POST, MAPS, &map("last", "")).await;
    let freed = open - MEMORY.current_usage();
    assert!(freed + 64 * 1024 > idle, "{freed} of {idle} bytes came back");
}
